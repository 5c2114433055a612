//! Provisional responses that are sent reliably (RFC 3262), at the end that answers an INVITE.
//!
//! One is under way at a time, as section 3 wants until the first is acknowledged; further ones wait, a few at most. What the
//! caller's end does, numbers in order and a PRACK for each, is little: it is the user agent's.

use super::Timing;
use crate::core::{Instant, Rng};
use crate::sip::msg::{HeaderName, Message};
use std::collections::VecDeque;
use std::time::Duration;

/// The option tag.
pub const REL100: &str = "100rel";
/// Most responses that wait for the one before.
const WAITING: usize = 8;

/// The value of `RAck`: what a PRACK acknowledges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RAck {
    /// RSeq of the response.
    pub rseq: u32,
    /// Sequence number of the request that it answers.
    pub number: u32,
    /// Method of that request.
    pub method: String,
}

impl RAck {
    /// Reads it; none where there is none or it is malformed.
    pub fn of(prack: &Message) -> Option<RAck> {
        let mut words = prack.header(HeaderName::RAck)?.split_ascii_whitespace();
        let rack = RAck {
            rseq: words.next()?.parse().ok()?,
            number: words.next()?.parse().ok()?,
            method: words.next()?.into(),
        };
        words.next().is_none().then_some(rack)
    }

    /// For a response that has to be acknowledged; none where it need not be, or cannot.
    pub fn for_response(response: &Message) -> Option<RAck> {
        let rseq = response.header(HeaderName::RSeq)?.trim().parse().ok()?;
        let cseq = response.cseq().ok()?;
        is_reliable(response).then(|| RAck { rseq, number: cseq.number, method: cseq.method.as_str().into() })
    }
}

impl std::fmt::Display for RAck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.rseq, self.number, self.method)
    }
}

/// True for a provisional response that wants a PRACK.
pub fn is_reliable(response: &Message) -> bool {
    (101..200).contains(&response.status())
        && response.has(HeaderName::RSeq)
        && response.values(HeaderName::Require).any(|v| v.eq_ignore_ascii_case(REL100))
}

/// What a [`ReliableServer`] wants.
#[derive(Clone, Debug)]
pub enum ReliableOutput {
    /// Send this response in the INVITE's transaction.
    Respond(Message),
    /// No PRACK within 64*T1: the INVITE is to be refused with a 5xx.
    NoPrack,
}

/// The reliable provisional responses to one INVITE.
pub struct ReliableServer {
    timing: Timing,
    invite: u32,
    next_rseq: u32,
    /// The one that is repeated.
    current: Option<(u32, Message)>,
    waiting: VecDeque<Message>,
    interval: Duration,
    next: Option<Instant>,
    end: Option<Instant>,
    outputs: VecDeque<ReliableOutput>,
}

impl ReliableServer {
    /// For an INVITE; its first number is random (section 3).
    pub fn new(invite: &Message, timing: Timing, rng: &mut Rng) -> ReliableServer {
        ReliableServer {
            timing,
            invite: invite.cseq().map_or(0, |c| c.number),
            next_rseq: 1 + rng.next_u32() % 0x7fff_0000,
            current: None,
            waiting: VecDeque::new(),
            interval: timing.t1,
            next: None,
            end: None,
            outputs: VecDeque::new(),
        }
    }

    /// Sends a response of 101 to 199, complete but for `Require` and `RSeq`, once those before are acknowledged.
    pub fn respond(&mut self, now: Instant, response: Message) {
        if self.waiting.len() < WAITING {
            self.waiting.push_back(response);
        }
        self.go_on(now);
    }

    /// Takes a PRACK; true when it acknowledges what was sent last (else 481).
    pub fn receive_prack(&mut self, now: Instant, prack: &Message) -> bool {
        let Some(rack) = RAck::of(prack) else { return false };
        let mine = rack.number == self.invite && rack.method == "INVITE";
        if !mine || self.current.take_if(|(rseq, _)| *rseq == rack.rseq).is_none() {
            return false;
        }
        (self.next, self.end) = (None, None);
        self.go_on(now);
        true
    }

    /// A final response is sent: nothing is repeated any more.
    pub fn stop(&mut self) {
        (self.current, self.next, self.end) = (None, None, None);
        self.waiting.clear();
    }

    /// Nothing that was sent waits for its PRACK.
    pub fn is_idle(&self) -> bool {
        self.current.is_none()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<ReliableOutput> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](ReliableServer::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next.into_iter().chain(self.end).min()
    }

    /// Repeats what is due, with an interval that doubles, or gives up.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.end.is_some_and(|end| end <= now) {
            self.stop();
            self.outputs.push_back(ReliableOutput::NoPrack);
        }
        if self.next.is_some_and(|at| at <= now)
            && let Some((_, response)) = &self.current
        {
            self.outputs.push_back(ReliableOutput::Respond(response.clone()));
            self.interval *= 2;
            self.next = Some(now + self.interval);
        }
    }

    fn go_on(&mut self, now: Instant) {
        if self.current.is_some() {
            return;
        }
        let Some(mut response) = self.waiting.pop_front() else { return };
        let rseq = self.next_rseq;
        self.next_rseq += 1;
        response.push(HeaderName::Require, REL100);
        response.push(HeaderName::RSeq, rseq);
        self.interval = self.timing.t1;
        (self.next, self.end) = (Some(now + self.interval), Some(now + self.timing.t1 * 64));
        self.outputs.push_back(ReliableOutput::Respond(response.clone()));
        self.current = Some((rseq, response));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::msg::Method;

    fn ms(n: u64) -> Instant {
        Instant::from_millis(n)
    }

    fn server() -> (Message, ReliableServer) {
        let mut invite = Message::request(Method::Invite, "sip:bob@example.com");
        invite.push("CSeq", "7 INVITE");
        let server = ReliableServer::new(&invite, Timing::default(), &mut Rng::from_seed(1));
        (invite, server)
    }

    fn prack(text: &str) -> Message {
        let mut prack = Message::request(Method::Prack, "sip:bob@example.com");
        prack.push("RAck", text);
        prack
    }

    fn sent(server: &mut ReliableServer) -> Vec<Message> {
        std::iter::from_fn(|| server.poll_output())
            .map(|output| match output {
                ReliableOutput::Respond(response) => response,
                ReliableOutput::NoPrack => panic!("gave up"),
            })
            .collect()
    }

    #[test]
    fn a_response_is_repeated_until_its_prack_and_the_next_waits_for_it() {
        let (invite, mut server) = server();
        server.respond(ms(0), Message::reply(&invite, 183, "Session Progress"));
        server.respond(ms(0), Message::reply(&invite, 180, "Ringing"));
        let first = sent(&mut server);
        assert_eq!((first.len(), first[0].status()), (1, 183));
        assert!(is_reliable(&first[0]));
        let rack = RAck::for_response(&first[0]).unwrap();
        for at in [500, 1500, 3500] {
            assert_eq!(server.poll_timeout(), Some(ms(at)));
            server.handle_timeout(ms(at));
            assert_eq!(sent(&mut server), first);
        }
        assert!(!server.receive_prack(ms(4000), &prack(&format!("{} 8 INVITE", rack.rseq))));
        assert!(!server.receive_prack(ms(4000), &prack(&format!("{} 7 INVITE", rack.rseq + 1))));
        assert!(!server.receive_prack(ms(4000), &prack("1 x")));
        assert!(server.receive_prack(ms(4000), &prack(&rack.to_string())));
        assert!(!server.receive_prack(ms(4000), &prack(&rack.to_string())), "once only");
        let second = sent(&mut server);
        assert_eq!((second.len(), second[0].status()), (1, 180));
        assert_eq!(RAck::for_response(&second[0]).unwrap().rseq, rack.rseq + 1);
        server.stop();
        assert_eq!((server.poll_timeout(), server.is_idle()), (None, true));
    }

    #[test]
    fn without_a_prack_it_gives_up() {
        let (invite, mut server) = server();
        server.respond(ms(0), Message::reply(&invite, 180, "Ringing"));
        let mut last = None;
        while let Some(at) = server.poll_timeout() {
            server.handle_timeout(at);
            last = Some(at);
        }
        assert_eq!(last, Some(ms(32_000)));
        let outputs: Vec<_> = std::iter::from_fn(|| server.poll_output()).collect();
        // At once, after 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s.
        assert_eq!(outputs.len(), 8);
        assert!(matches!(outputs.last(), Some(ReliableOutput::NoPrack)));
    }
}
