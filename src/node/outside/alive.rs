//! Keep-alives on the flow of a registration (RFC 5626 section 4.4): two line ends on a stream, STUN on UDP where the registrar agreed
//! to outbound, and two line ends there otherwise where a NAT stands before this node. A flow that is not answered as agreed has
//! failed, and so has one that STUN shows from another address than before: the account registers again at once.

use super::{Node, Upstream};
use crate::core::{ConnId, Flow, Instant, Transport};
use crate::node::flows::Wire;
use crate::stun::attributes::XorMappedAddress;
use crate::stun::{Class, Message, Method, Parsed, Seal, TransactionId};
use crate::ua::AccountId;
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;

/// Between two on UDP, and on a stream; each up to a fifth shorter.
const DATAGRAMS: Duration = Duration::from_secs(29);
const STREAM: Duration = Duration::from_secs(120);
/// For an answer on a stream, and on UDP for each of the questions.
const PONG: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(2);
/// Questions without an answer after which a flow on UDP has failed.
const TRIES: u8 = 3;

/// The keep-alive of one account.
#[derive(Debug, Default)]
pub(super) struct Alive {
    /// The question that is not answered yet, and how often it was asked.
    asked: Option<(TransactionId, u8)>,
    /// A pong is waited for.
    pinged: bool,
    /// Where STUN has shown this node.
    pub seen: Option<SocketAddr>,
}

impl Node {
    /// From now on the flow of an account is kept.
    pub(super) fn begin_alive(&mut self, now: Instant, id: AccountId) {
        let pause = self.pause(id);
        if let Some(up) = self.outside.accounts.get_mut(&id) {
            (up.alive.asked, up.alive.pinged, up.alive.seen) = (None, false, None);
        }
        match pause {
            Some(pause) => self.outside.timers.set(id, now + pause),
            None => _ = self.outside.timers.cancel(&id),
        }
    }

    /// Until the next one; none where nothing has to be kept open.
    fn pause(&mut self, id: AccountId) -> Option<Duration> {
        let granted = self.ua.account(id)?.granted()?;
        let (outbound, timer) = (granted.outbound, granted.flow_timer);
        let here = self.ua.account(id)?.contact().ip() == Some(self.setup.sip.ip());
        let up = self.outside.accounts.get(&id)?;
        let longest = match up.flow?.transport {
            Transport::Udp if here && !outbound => return None,
            Transport::Udp => DATAGRAMS,
            _ => STREAM,
        };
        let longest = timer.map_or(longest, |t| longest.min(Duration::from_secs(u64::from(t.max(5)))));
        Some(longest.mul_f64(1.0 - self.rng.below(200) as f64 / 1000.0))
    }

    pub(in crate::node) fn outside_timeout(&mut self, now: Instant) {
        while let Some(id) = self.outside.timers.pop(now) {
            self.keep_alive(now, id);
        }
    }

    fn keep_alive(&mut self, now: Instant, id: AccountId) {
        let outbound = self.ua.account(id).and_then(|a| a.granted()).map(|g| g.outbound);
        let pause = self.pause(id);
        let Some(up) = self.outside.accounts.get_mut(&id) else { return };
        let (Some(flow), Some(outbound), Some(pause)) = (up.flow, outbound, pause) else { return };
        let late = match flow.conn {
            Some(_) => std::mem::take(&mut up.alive.pinged),
            None => up.alive.asked.is_some_and(|(_, times)| times >= TRIES),
        };
        if late {
            return self.flow_is_dead(now, id, flow);
        }
        let next = match (flow.conn, outbound) {
            (Some(conn), _) => {
                self.wire.push(Wire::Write { conn, bytes: Bytes::from_static(b"\r\n\r\n") });
                up.alive.pinged = outbound;
                if outbound { PONG } else { pause }
            }
            (None, true) => {
                let mut drawn = [0; 12];
                self.rng.fill(&mut drawn);
                let (question, times) = up.alive.asked.unwrap_or((drawn, 0));
                up.alive.asked = Some((question, times + 1));
                let bytes = Message::new(Class::Request, Method::BINDING, question).encode(Seal::default());
                self.wire.push(Wire::Datagram { flow, bytes: Bytes::from(bytes) });
                ANSWER
            }
            (None, false) => {
                self.wire.push(Wire::Datagram { flow, bytes: Bytes::from_static(b"\r\n\r\n") });
                pause
            }
        };
        self.outside.timers.set(id, now + next);
    }

    fn flow_is_dead(&mut self, now: Instant, id: AccountId, flow: Flow) {
        self.count("flows of accounts that were not answered");
        let Some(up) = self.outside.accounts.get_mut(&id) else { return };
        up.why = Some(format!("{} {} answers no keep-alive", flow.transport, flow.remote));
        (up.flow, up.alive.asked) = (None, None);
        if let Some(conn) = flow.conn {
            self.flows.close(conn, &mut self.wire);
        }
        self.ua.account_flow_failed(now, id);
    }

    /// The other end of a connection lives; false where it is no account's.
    pub(in crate::node) fn account_pong(&mut self, now: Instant, conn: ConnId) -> bool {
        let of = |up: &Upstream| up.flow.is_some_and(|f| f.conn == Some(conn));
        let Some(id) = self.outside.accounts.iter().find(|(_, up)| of(up)).map(|(id, _)| *id) else { return false };
        if let Some(up) = self.outside.accounts.get_mut(&id) {
            up.alive.pinged = false;
        }
        if let Some(pause) = self.pause(id) {
            self.outside.timers.set(id, now + pause);
        }
        true
    }

    /// STUN on the socket for SIP; false where it is none.
    pub(in crate::node) fn on_stun(&mut self, now: Instant, flow: Flow, bytes: &[u8]) -> bool {
        if bytes.first().is_none_or(|b| *b > 3) {
            return false;
        }
        let Ok(parsed) = Parsed::read(bytes) else { return false };
        let answers = |up: &Upstream| {
            up.flow == Some(flow) && up.alive.asked.is_some_and(|(question, _)| question == parsed.message.id)
        };
        let Some(id) = self.outside.accounts.iter().find(|(_, up)| answers(up)).map(|(id, _)| *id) else {
            return true;
        };
        let mapped = parsed.message.get::<XorMappedAddress>().map(|a| a.address());
        let Some(up) = self.outside.accounts.get_mut(&id) else { return true };
        up.alive.asked = None;
        let before = mapped.and_then(|mapped| up.alive.seen.replace(mapped));
        if let (Some(before), Some(mapped)) = (before, mapped)
            && before != mapped
        {
            up.alive.seen = None;
            self.count("flows of accounts that a NAT has moved");
            self.ua.account_flow_failed(now, id);
            return true;
        }
        if let Some(pause) = self.pause(id) {
            self.outside.timers.set(id, now + pause);
        }
        true
    }
}
