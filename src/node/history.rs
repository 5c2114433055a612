//! The history of messages as a person sees it: listed, read, deleted, and what becomes of one that was sent.

use super::Node;
use super::archive::Archive;
use super::control::{Command, CommandError, Event, MessageEntry, MessageState, Reply, RequestId};
use super::message::Source;
use crate::core::Instant;
use crate::identity::Letter;

/// Characters of a text in a list.
const SHOWN: usize = 200;

impl Node {
    /// `message`, `messages` and what belongs to them; none while the answer is still to come.
    pub(super) fn message_command(
        &mut self,
        now: Instant,
        request: RequestId,
        command: Command,
    ) -> Option<Result<Reply, CommandError>> {
        match command {
            Command::Message { target, text } => match self.callee(&target) {
                Ok(callee) => {
                    let from = self.ua.profile().aor.clone();
                    self.send_letter(now, Source::Command(request), from, callee, text);
                    None
                }
                Err(e) => Some(Err(e)),
            },
            Command::Messages { unread } => {
                let wanted = |m: &&MessageEntry| !unread || m.state == MessageState::Unread;
                let messages = self.mail.archive.messages().filter(wanted).map(shortened).collect();
                Some(Ok(Reply::Messages { messages }))
            }
            Command::MessageRead { message } => {
                let unread = |a: &Archive| a.messages().find(|m| m.state == MessageState::Unread).map(|m| m.number);
                let Some(number) = message.or_else(|| unread(&self.mail.archive)) else {
                    return Some(Err(CommandError::new("no message is unread", "see `chordial messages`")));
                };
                Some(match self.mail.archive.message_mut(number) {
                    Some(entry) => {
                        if entry.state == MessageState::Unread {
                            entry.state = MessageState::Read;
                        }
                        Ok(Reply::Messages { messages: vec![entry.clone()] })
                    }
                    None => Err(no_such(number)),
                })
            }
            Command::MessageDelete { message } => Some(match self.mail.archive.delete(message) {
                true => Ok(Reply::Done { done: format!("deleted message {message}") }),
                false => Err(no_such(message)),
            }),
            _ => None,
        }
    }

    /// Something became of a message whose sender has been answered already.
    pub(super) fn message_state(&mut self, id: &str, state: MessageState, status: u16) {
        if let Some(entry) = self.mail.archive.set_state(id, state, status, "") {
            self.event(None, Event::MessageState { message: Box::new(shortened(&entry)) });
        }
    }
}

/// A line of the history.
pub(super) fn entry_of(letter: &Letter, direction: &str, state: MessageState, sealed: bool) -> MessageEntry {
    MessageEntry {
        number: 0,
        id: letter.id.to_string(),
        direction: direction.to_owned(),
        from: letter.from.clone(),
        to: letter.to.clone(),
        sent: letter.sent().secs(),
        text: super::introduce::shown(&letter.text).unwrap_or_else(|| letter.text.clone()),
        state,
        sealed,
        verified: String::new(),
        standing: String::new(),
        status: 0,
        reason: String::new(),
    }
}

fn shortened(entry: &MessageEntry) -> MessageEntry {
    let mut entry = entry.clone();
    if let Some((cut, _)) = entry.text.char_indices().nth(SHOWN) {
        entry.text.truncate(cut);
        entry.text.push('…');
    }
    entry
}

fn no_such(number: u64) -> CommandError {
    CommandError::new(format!("there is no message {number}"), "see `chordial messages`")
}
