//! What is kept of messages over a restart: the history, which messages were seen (so that none is shown twice), what waits for
//! others, what waits here for standard phones. One JSON file that is replaced as a whole ([`Saved::Messages`](super::Saved)).
//!
//! Everything has a bound. The history gives up its oldest. A message that was seen is remembered for as long as its time
//! lets it be taken at all ([`WINDOW`]); a sender who writes more than is remembered only raises the time from which his
//! own messages count, so nobody can push another's out.

use super::control::{MessageEntry, MessageState};
use super::hex::hex;
use crate::core::UnixTime;
use crate::identity::{Letter, LetterId, PublicKey};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How old a message may be when it is taken: the longest life in the mailbox and a day.
pub(super) const WINDOW: Duration = Duration::from_secs(8 * 24 * 3600);
/// How long a message waits, in the mailbox and for a phone.
pub(super) const LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How far ahead a sender's clock may be.
const AHEAD: Duration = crate::identity::CLOCK_SKEW;
/// Messages in the history, and bytes of their texts.
const HISTORY: usize = 1000;
const HISTORY_BYTES: usize = 1024 * 1024;
/// Ids remembered: of all, of one sender.
const SEEN: usize = 4096;
const SEEN_OF_ONE: usize = 512;
/// Messages that wait here for one phone, their bytes, and the bytes of all.
const HELD_OF_ONE: usize = 50;
const HELD_OF_ONE_BYTES: usize = 64 * 1024;
const HELD_BYTES: usize = 1024 * 1024;
/// Messages of ours that wait for others.
const WAITS: usize = 256;
const WAITS_BYTES: usize = 1024 * 1024;
/// Acknowledgements of one address.
const ACKS: usize = crate::identity::MAX_ACKS;

/// Whether a message is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admit {
    New,
    /// It was here before.
    Repeated,
    /// Too old, too far ahead, or older than what is remembered of its sender.
    Stale,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Seen {
    id: String,
    sender: String,
    sent_ms: u64,
}

/// A message that waits here for a phone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Held {
    pub user: String,
    pub id: String,
    pub from: String,
    pub to: String,
    pub text: String,
    pub sent_ms: u64,
}

impl Held {
    pub fn letter(&self) -> Option<Letter> {
        let (from, to, text) = (self.from.clone(), self.to.clone(), self.text.clone());
        Some(Letter { id: LetterId::from_hex(&self.id)?, from, to, sent_ms: self.sent_ms, text })
    }
}

/// A message of ours that waits elsewhere until its devices say that they have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Waits {
    pub id: String,
    pub to: String,
    /// Public keys of the devices that do not have it yet, hexadecimal.
    pub devices: Vec<String>,
    /// Its pieces, signed entries in hexadecimal; none where an adapter keeps it.
    pub pieces: Vec<String>,
    /// BLAKE3 of the sealed bytes, hexadecimal.
    pub hash: String,
    /// Seconds since 1970.
    pub until: u64,
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Archive {
    next: u64,
    messages: VecDeque<MessageEntry>,
    seen: VecDeque<Seen>,
    /// By sender: messages written up to then (milliseconds) do not count any more unless they are remembered.
    floors: BTreeMap<String, u64>,
    floor: u64,
    held: Vec<Held>,
    waits: Vec<Waits>,
    /// By address: messages out of its mailbox that were shown, and until when that is said.
    acks: BTreeMap<String, VecDeque<(String, u64)>>,
    /// Something has changed since the file was written.
    #[serde(skip)]
    dirty: bool,
}

impl Archive {
    /// Reads the file; an empty one is an empty archive.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn read(bytes: &[u8]) -> Result<Archive, String> {
        if bytes.is_empty() {
            return Ok(Archive::default());
        }
        serde_json::from_slice(bytes).map_err(|e| e.to_string())
    }

    /// The file as it is.
    pub fn to_file(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The file, when something has changed since the last time.
    pub fn take_file(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        serde_json::to_vec(self).ok()
    }

    /// Puts a message into the history; its number.
    pub fn add(&mut self, mut entry: MessageEntry) -> u64 {
        self.next += 1;
        entry.number = self.next;
        self.messages.push_back(entry);
        let bytes = |m: &VecDeque<MessageEntry>| m.iter().map(|e| e.text.len()).sum::<usize>();
        while self.messages.len() > HISTORY || bytes(&self.messages) > HISTORY_BYTES {
            self.messages.pop_front();
        }
        self.dirty = true;
        self.next
    }

    /// The history, oldest first.
    pub fn messages(&self) -> impl DoubleEndedIterator<Item = &MessageEntry> {
        self.messages.iter()
    }

    /// A message by its number.
    pub fn message_mut(&mut self, number: u64) -> Option<&mut MessageEntry> {
        self.dirty = true;
        self.messages.iter_mut().find(|m| m.number == number)
    }

    /// Takes a message out of the history; false when there is none of that number.
    pub fn delete(&mut self, number: u64) -> bool {
        let before = self.messages.len();
        self.messages.retain(|m| m.number != number);
        self.dirty = true;
        self.messages.len() < before
    }

    /// Notes what became of a message of ours; the entry when that is news.
    pub fn set_state(&mut self, id: &str, state: MessageState, status: u16, reason: &str) -> Option<MessageEntry> {
        let entry = self.messages.iter_mut().find(|m| m.id == id && m.direction == "out")?;
        if entry.state == state {
            return None;
        }
        (entry.state, entry.status, entry.reason) = (state, status, reason.to_owned());
        self.dirty = true;
        Some(entry.clone())
    }

    /// Whether a message counts, by its number and time; what is new is remembered.
    pub fn admit(&mut self, letter: &Letter, sender: &PublicKey, now: UnixTime) -> Admit {
        let (id, sender, sent) = (letter.id.to_string(), hex(&sender.0), letter.sent_ms);
        let oldest = now.secs().saturating_sub(WINDOW.as_secs()) * 1000;
        if self.seen.iter().any(|s| s.id == id && s.sender == sender) {
            return Admit::Repeated;
        }
        let floor = self.floors.get(&sender).copied().unwrap_or(0).max(self.floor).max(oldest);
        if sent <= floor || sent > (now + AHEAD).secs() * 1000 {
            return Admit::Stale;
        }
        self.dirty = true;
        self.seen.retain(|s| s.sent_ms > oldest);
        self.floors.retain(|_, at| *at > oldest);
        if self.seen.iter().filter(|s| s.sender == sender).count() >= SEEN_OF_ONE
            && let Some(at) = self.seen.iter().position(|s| s.sender == sender)
            && let Some(gone) = self.seen.remove(at)
        {
            let floor = self.floors.entry(sender.clone()).or_default();
            *floor = gone.sent_ms.max(*floor);
        }
        if self.seen.len() >= SEEN
            && let Some(gone) = self.seen.pop_front()
        {
            self.floor = self.floor.max(gone.sent_ms);
        }
        self.seen.push_back(Seen { id, sender, sent_ms: sent });
        Admit::New
    }

    /// True for a message that counted before.
    pub fn was_seen(&self, id: &LetterId, sender: &PublicKey) -> bool {
        let (id, sender) = (id.to_string(), hex(&sender.0));
        self.seen.iter().any(|s| s.id == id && s.sender == sender)
    }

    /// Keeps a message for a phone; false when no more fit.
    pub fn hold(&mut self, user: &str, letter: &Letter) -> bool {
        let id = letter.id.to_string();
        if self.held.iter().any(|h| h.user == user && h.id == id) {
            return true;
        }
        if !self.fits(user, letter) {
            return false;
        }
        let (from, to, text) = (letter.from.clone(), letter.to.clone(), letter.text.clone());
        self.held.push(Held { user: user.to_owned(), id, from, to, text, sent_ms: letter.sent_ms });
        self.dirty = true;
        true
    }

    /// True while there is room to keep a message for a phone.
    pub fn fits(&self, user: &str, letter: &Letter) -> bool {
        let of_one = || self.held.iter().filter(|h| h.user == user);
        let all: usize = self.held.iter().map(|h| h.text.len()).sum();
        let one: usize = of_one().map(|h| h.text.len()).sum();
        let size = letter.text.len();
        of_one().count() < HELD_OF_ONE && one + size <= HELD_OF_ONE_BYTES && all + size <= HELD_BYTES
    }

    /// The message that has waited longest for a phone.
    pub fn held_for(&self, user: &str) -> Option<&Held> {
        self.held.iter().find(|h| h.user == user)
    }

    /// True while a message waits here for a phone.
    pub fn is_held(&self, id: &LetterId) -> bool {
        let id = id.to_string();
        self.held.iter().any(|h| h.id == id)
    }

    /// A phone has it, or never will.
    pub fn release(&mut self, user: &str, id: &LetterId) {
        let id = id.to_string();
        self.held.retain(|h| !(h.user == user && h.id == id));
        self.dirty = true;
    }

    /// Drops what has waited for a phone too long: written before `oldest`, milliseconds.
    pub fn expire_held(&mut self, user: &str, oldest: u64) {
        let before = self.held.len();
        self.held.retain(|h| h.user != user || h.sent_ms >= oldest);
        self.dirty |= self.held.len() < before;
    }

    /// Drops what waits for a phone that is no account any more.
    pub fn forget_phone(&mut self, user: &str, aor: &str) {
        self.held.retain(|h| h.user != user);
        self.acks.remove(aor);
        self.dirty = true;
    }

    /// Says from now on that a message out of `aor`'s mailbox was shown; true when that is news.
    pub fn acknowledge(&mut self, aor: &str, id: &LetterId, now: UnixTime) -> bool {
        let id = id.to_string();
        let acks = self.acks.entry(aor.to_owned()).or_default();
        if acks.iter().any(|(known, _)| *known == id) {
            return false;
        }
        acks.push_back((id, (now + LIFE).secs()));
        while acks.len() > ACKS {
            acks.pop_front();
        }
        self.dirty = true;
        true
    }

    /// What is said to have been shown.
    pub fn acks(&self, aor: &str, now: UnixTime) -> Vec<LetterId> {
        let acks = self.acks.get(aor).into_iter().flatten();
        acks.filter(|(_, until)| *until > now.secs()).filter_map(|(id, _)| LetterId::from_hex(id)).collect()
    }

    /// Room for one more that waits elsewhere, of this many sealed bytes.
    pub fn may_wait(&self, size: usize) -> bool {
        let kept: usize = self.waits.iter().flat_map(|w| &w.pieces).map(|piece| piece.len() / 2).sum();
        self.waits.len() < WAITS && kept + size <= WAITS_BYTES
    }

    /// A message of ours waits elsewhere from now on.
    pub fn wait(&mut self, waits: Waits) {
        self.waits.retain(|w| w.id != waits.id);
        self.waits.push(waits);
        self.dirty = true;
    }

    /// What waits elsewhere.
    pub fn waits(&self) -> &[Waits] {
        &self.waits
    }

    /// One of those.
    pub fn waits_mut(&mut self, id: &str) -> Option<&mut Waits> {
        self.dirty = true;
        self.waits.iter_mut().find(|w| w.id == id)
    }

    /// A message waits no more.
    pub fn waits_no_more(&mut self, id: &str) -> Option<Waits> {
        let at = self.waits.iter().position(|w| w.id == id)?;
        self.dirty = true;
        Some(self.waits.remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn letter(n: u16, sent_ms: u64) -> Letter {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        let (from, to) = ("sip:alice@x".to_owned(), "sip:bob@x".to_owned());
        Letter { id: LetterId(id), from, to, sent_ms, text: "hello".into() }
    }

    #[test]
    fn each_message_counts_once_and_in_its_time() {
        let (mut archive, alice, mallory) = (Archive::default(), PublicKey([1; 32]), PublicKey([2; 32]));
        let at = NOW.secs() * 1000;
        assert_eq!(archive.admit(&letter(1, at), &alice, NOW), Admit::New);
        assert_eq!(archive.admit(&letter(1, at), &alice, NOW), Admit::Repeated);
        let old = at - WINDOW.as_millis() as u64;
        assert_eq!(archive.admit(&letter(2, old), &alice, NOW), Admit::Stale);
        assert_eq!(archive.admit(&letter(3, at + 301_000), &alice, NOW), Admit::Stale);
        // Who floods pushes out nobody's but his own, and those do not come back.
        for n in 0..2 * SEEN_OF_ONE as u16 {
            archive.admit(&letter(100 + n, at - 50_000 + u64::from(n)), &mallory, NOW);
        }
        assert_eq!(archive.admit(&letter(1, at), &alice, NOW), Admit::Repeated);
        assert_eq!(archive.admit(&letter(100, at - 50_000), &mallory, NOW), Admit::Stale);
        assert!(archive.seen.len() <= SEEN_OF_ONE + 1);
        // It holds over a restart.
        let mut again = Archive::read(&archive.take_file().unwrap()).unwrap();
        assert_eq!(again.admit(&letter(1, at), &alice, NOW), Admit::Repeated);
        assert_eq!(again.take_file(), None);
        // Many senders together have a bound too.
        for n in 0..(SEEN as u16 + 10) {
            let mut sender = [9; 32];
            sender[..2].copy_from_slice(&n.to_be_bytes());
            again.admit(&letter(n, at - 1), &PublicKey(sender), NOW);
        }
        assert_eq!(again.seen.len(), SEEN);
        assert_ne!(again.admit(&letter(1, at), &alice, NOW), Admit::New);
    }

    #[test]
    fn what_waits_for_a_phone_has_a_bound() {
        let mut archive = Archive::default();
        for n in 0..HELD_OF_ONE as u16 {
            assert!(archive.hold("desk", &letter(n, 1)));
        }
        assert!(!archive.hold("desk", &letter(99, 1)));
        assert!(archive.hold("desk", &letter(0, 1)), "held already");
        assert!(archive.hold("hall", &letter(99, 1)), "another phone's");
        let large = Letter { text: "x".repeat(HELD_OF_ONE_BYTES + 1), ..letter(1, 1) };
        assert!(!archive.hold("lift", &large));
        archive.release("desk", &letter(0, 1).id);
        assert_eq!(archive.held.iter().filter(|h| h.user == "desk").count(), HELD_OF_ONE - 1);
        assert_eq!(archive.held_for("desk").unwrap().letter(), Some(letter(1, 1)));
    }

    #[test]
    fn the_history_gives_up_its_oldest() {
        let mut archive = Archive::default();
        for _ in 0..HISTORY + 5 {
            archive.add(MessageEntry::default());
        }
        assert_eq!(archive.messages().count(), HISTORY);
        assert_eq!(archive.messages().next().unwrap().number, 6);
        let long = MessageEntry { text: "x".repeat(HISTORY_BYTES / 2), ..Default::default() };
        (0..3).for_each(|_| _ = archive.add(long.clone()));
        assert_eq!(archive.messages().count(), 2);
        assert!(archive.delete(archive.next) && !archive.delete(3));
        assert!(Archive::read(b"{").is_err() && Archive::read(b"").is_ok());
    }

    #[test]
    fn acknowledgements_end_and_are_bounded() {
        let mut archive = Archive::default();
        for n in 0..ACKS as u16 + 3 {
            assert!(archive.acknowledge("sip:bob@x", &letter(n, 1).id, NOW));
            assert!(!archive.acknowledge("sip:bob@x", &letter(n, 1).id, NOW));
        }
        assert_eq!(archive.acks("sip:bob@x", NOW).len(), ACKS);
        assert_eq!(archive.acks("sip:bob@x", NOW + LIFE), []);
    }
}
