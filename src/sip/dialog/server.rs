//! One received INVITE, first or within a dialog, beyond its transaction.

use super::Timing;
use crate::core::Instant;
use crate::sip::msg::Message;
use std::collections::VecDeque;
use std::time::Duration;

/// What an [`InviteServer`] wants or tells.
#[derive(Clone, Debug)]
pub enum InviteServerOutput {
    /// Send this response in the INVITE's transaction.
    Respond(Message),
    /// The ACK for our 2xx came; after a late offer it carries the answer.
    Confirmed(Message),
    /// No ACK within 64*T1 after the 2xx: the dialog is confirmed all the same, and to be ended with a BYE.
    NoAck,
}

/// One INVITE that we answer.
pub struct InviteServer {
    timing: Timing,
    number: u32,
    phase: Phase,
    /// The response that is repeated.
    response: Option<Message>,
    interval: Duration,
    next: Option<Instant>,
    end: Option<Instant>,
    outputs: VecDeque<InviteServerOutput>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// No final response yet.
    Pending,
    /// A 2xx was sent, no ACK has come.
    Accepted,
    Done,
}

impl InviteServer {
    /// For an INVITE that just arrived.
    pub fn new(invite: &Message, timing: Timing) -> InviteServer {
        InviteServer {
            timing,
            number: invite.cseq().map_or(0, |c| c.number),
            phase: Phase::Pending,
            response: None,
            interval: timing.t1,
            next: None,
            end: None,
            outputs: VecDeque::new(),
        }
    }

    /// Answers the INVITE. False after a final response.
    pub fn respond(&mut self, now: Instant, response: Message) -> bool {
        if self.phase != Phase::Pending {
            return false;
        }
        match response.status() {
            0..=100 => {}
            101..=199 => {
                self.next = Some(now + PROVISIONAL);
                self.response = Some(response.clone());
            }
            200..=299 => {
                self.phase = Phase::Accepted;
                self.interval = self.timing.t1;
                self.next = Some(now + self.interval);
                self.end = Some(now + self.timing.t1 * 64);
                self.response = Some(response.clone());
            }
            // From here on it is the transaction's.
            _ => self.finish(),
        }
        self.outputs.push_back(InviteServerOutput::Respond(response));
        true
    }

    /// Takes an ACK within the dialog; true if it is for this INVITE.
    pub fn receive_ack(&mut self, ack: &Message) -> bool {
        let mine = ack.cseq().is_ok_and(|c| c.number == self.number);
        if mine && self.phase == Phase::Accepted {
            self.finish();
            self.outputs.push_back(InviteServerOutput::Confirmed(ack.clone()));
        }
        mine
    }

    /// Stops all repeating: the call ended (a BYE came before the ACK) or the transaction failed.
    pub fn stop(&mut self) {
        self.finish();
    }

    /// The next thing to do or to know.
    pub fn poll_output(&mut self) -> Option<InviteServerOutput> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](InviteServer::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next.into_iter().chain(self.end).min()
    }

    /// Repeats what is due, or gives up.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.end.is_some_and(|end| end <= now) {
            self.finish();
            self.outputs.push_back(InviteServerOutput::NoAck);
        }
        if self.next.is_some_and(|at| at <= now)
            && let Some(response) = &self.response
        {
            self.outputs.push_back(InviteServerOutput::Respond(response.clone()));
            self.interval = match self.phase {
                Phase::Accepted => (self.interval * 2).min(self.timing.t2),
                _ => PROVISIONAL,
            };
            self.next = Some(now + self.interval);
        }
    }

    /// True until a final response has been given: a CANCEL still counts.
    pub fn is_pending(&self) -> bool {
        self.phase == Phase::Pending
    }

    fn finish(&mut self) {
        self.phase = Phase::Done;
        self.response = None;
        self.next = None;
        self.end = None;
    }
}

/// How often a proxy wants to be told that it still rings (RFC 3261 section 13.3.1.1).
const PROVISIONAL: Duration = Duration::from_secs(60);
