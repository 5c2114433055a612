//! One sent INVITE, first or within a dialog, beyond its transaction.

use super::{Dialog, DialogId, Timing};
use crate::core::Instant;
use crate::sip::msg::Message;
use std::collections::VecDeque;

/// What an [`InviteClient`] wants or tells.
#[derive(Clone, Debug)]
pub enum InviteClientOutput {
    /// A provisional response, and the early dialog it belongs to, if it made one.
    Provisional {
        /// The early dialog.
        dialog: Option<DialogId>,
        /// The response.
        response: Message,
    },
    /// A 2xx to a first INVITE. Whatever becomes of it, it gets an ACK ([`Dialog::ack`],
    /// [`InviteClient::acknowledged`]).
    Established {
        /// The confirmed dialog, the user agent's from now on.
        dialog: Box<Dialog>,
        /// The response.
        response: Message,
        /// Another fork was first, or the INVITE had been cancelled: to be ended with a BYE after the ACK.
        extra: bool,
    },
    /// The first 2xx to an INVITE within a dialog: to be given to [`Dialog::receive_response`] and acknowledged.
    Accepted(Message),
    /// A repeated 2xx: send this ACK again.
    Acknowledge(Message),
    /// A final response other than 2xx; all early dialogs are over.
    Failed(Message),
    /// 64*T1 after the first 2xx: no fork answers any more.
    Over,
}

/// One INVITE of ours.
pub struct InviteClient {
    timing: Timing,
    invite: Message,
    forks: Vec<Fork>,
    answered: bool,
    cancelled: bool,
    end: Option<Instant>,
    ignored: u64,
    outputs: VecDeque<InviteClientOutput>,
}

struct Fork {
    id: DialogId,
    /// Until it is confirmed and handed out.
    early: Option<Dialog>,
    accepted: bool,
    ack: Option<Message>,
}

impl InviteClient {
    /// For an INVITE as it was sent.
    pub fn new(invite: Message, timing: Timing) -> InviteClient {
        InviteClient {
            timing,
            invite,
            forks: Vec::new(),
            answered: false,
            cancelled: false,
            end: None,
            ignored: 0,
            outputs: VecDeque::new(),
        }
    }

    /// The INVITE.
    pub fn invite(&self) -> &Message {
        &self.invite
    }

    /// Takes a response to the INVITE: from its transaction, or a stray 2xx with its Call-ID and sequence number.
    pub fn receive(&mut self, now: Instant, response: Message) {
        match response.status() {
            0..=199 => self.on_provisional(response),
            200..=299 => self.on_success(now, response),
            _ if self.answered => {}
            _ => {
                self.answered = true;
                self.forks.clear();
                self.outputs.push_back(InviteClientOutput::Failed(response));
            }
        }
    }

    /// Keeps the ACK, Via included, that was sent for the dialog's 2xx, to send it again when the 2xx comes again.
    pub fn acknowledged(&mut self, dialog: &DialogId, ack: Message) {
        if let Some(fork) = self.forks.iter_mut().find(|fork| fork.id == *dialog) {
            fork.ack = Some(ack);
        }
    }

    /// Notes that the caller hung up and the INVITE is being cancelled: a 2xx that comes all the same is extra.
    pub fn cancel(&mut self) {
        self.cancelled = true;
    }

    /// The next thing to do or to know.
    pub fn poll_output(&mut self) -> Option<InviteClientOutput> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](InviteClient::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.end
    }

    /// Ends the wait for further forks.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.end.is_some_and(|end| end <= now) {
            self.end = None;
            self.forks.clear();
            self.outputs.push_back(InviteClientOutput::Over);
        }
    }

    /// The early dialogs, in the order they came up.
    pub fn early(&self) -> impl Iterator<Item = &Dialog> {
        self.forks.iter().filter_map(|fork| fork.early.as_ref())
    }

    /// Responses ignored because they were from too many forks, or no dialog could be made of them.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    fn on_provisional(&mut self, response: Message) {
        let first_invite = self.invite.to_tag().is_none();
        let id = DialogId::of_received(&response).filter(|id| first_invite && !id.remote_tag.is_empty());
        // A 100 makes no dialog even with a tag (RFC 3261 section 12.1).
        let id = id.filter(|_| response.status() > 100);
        if let Some(id) = &id
            && !self.forks.iter().any(|fork| fork.id == *id)
        {
            match Dialog::from_uac(&self.invite, &response) {
                Ok(dialog) if self.forks.len() < MAX_FORKS => {
                    self.forks.push(Fork { id: id.clone(), early: Some(dialog), accepted: false, ack: None });
                }
                _ => self.ignored += 1,
            }
        }
        let dialog = id.filter(|id| self.forks.iter().any(|fork| fork.id == *id));
        self.outputs.push_back(InviteClientOutput::Provisional { dialog, response });
    }

    fn on_success(&mut self, now: Instant, response: Message) {
        let Some(id) = DialogId::of_received(&response) else {
            self.ignored += 1;
            return;
        };
        let at = match self.forks.iter().position(|fork| fork.id == id) {
            Some(at) => at,
            None if self.forks.len() >= MAX_FORKS => {
                self.ignored += 1;
                return;
            }
            None => {
                self.forks.push(Fork { id, early: None, accepted: false, ack: None });
                self.forks.len() - 1
            }
        };
        let Some(fork) = self.forks.get_mut(at) else { return };
        if fork.accepted {
            if let Some(ack) = &fork.ack {
                self.outputs.push_back(InviteClientOutput::Acknowledge(ack.clone()));
            }
            return;
        }
        let output = if self.invite.to_tag().is_some() {
            InviteClientOutput::Accepted(response)
        } else {
            let dialog = match fork.early.take() {
                Some(mut dialog) => {
                    dialog.receive_response(&response);
                    dialog
                }
                None => match Dialog::from_uac(&self.invite, &response) {
                    Ok(dialog) => dialog,
                    Err(_) => {
                        self.forks.remove(at);
                        self.ignored += 1;
                        return;
                    }
                },
            };
            let extra = self.answered || self.cancelled;
            InviteClientOutput::Established { dialog: Box::new(dialog), response, extra }
        };
        fork.accepted = true;
        self.answered = true;
        self.end.get_or_insert(now + self.timing.t1 * 64);
        self.outputs.push_back(output);
    }
}

/// Most forks of one INVITE that are followed.
const MAX_FORKS: usize = 32;
