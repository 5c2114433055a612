//! Messages that wait in the overlay for whom this node serves: read from the mailbox, fetched piece by piece, shown once.
//!
//! A note counts only if the device that signed it is the one that signed the message inside: nobody can put another's old
//! message there again. What was seen is not fetched again; what cannot be fetched is tried at the next reading. Fetched at once are a
//! bounded number of messages, a few of each sender, so that who notes a thousand keeps nobody else's from being read.

use super::Node;
use super::archive::Admit;
use super::deliver::Waiter;
use crate::core::Instant;
use crate::identity::{EntryKind, LetterId, PublicKey, SignedEntry, Waiting, WaitingBody, split_aor};
use std::collections::BTreeMap;

/// Messages fetched at once, and of one sender's device.
const AT_ONCE: usize = 64;
const OF_ONE: usize = 16;

/// Messages that are being fetched, by the device that left them and their number.
#[derive(Debug, Default)]
pub(super) struct Fetching(BTreeMap<(PublicKey, LetterId), Fetch>);

#[derive(Debug)]
struct Fetch {
    aor: String,
    waiting: Waiting,
    pieces: BTreeMap<u8, Vec<u8>>,
    /// Answers that are waited for.
    out: u8,
}

impl Node {
    /// The record of an address that is served here: what is noted there and was not seen yet is fetched.
    pub(super) fn on_mailbox(&mut self, now: Instant, aor: &str, entries: &[SignedEntry]) {
        let Some((user, overlay)) = split_aor(aor) else { return };
        for entry in entries.iter().map(SignedEntry::entry).filter(|e| e.kind == EntryKind::WAITING) {
            let Ok(body) = WaitingBody::decode(&entry.body) else {
                self.count("mailbox entries that make no sense");
                continue;
            };
            // Left by this very device for the user's others.
            if self.identity.as_ref().is_some_and(|i| i.device_key() == entry.device) {
                continue;
            }
            for waiting in body.messages {
                if self.mail.archive.was_seen(&waiting.id, &entry.device) {
                    if !self.mail.archive.is_held(&waiting.id) {
                        self.acknowledge(now, aor, &waiting.id);
                    }
                    continue;
                }
                let fetching = &mut self.mail.mailbox.fetching.0;
                let of_one = fetching.keys().filter(|(device, _)| *device == entry.device).count();
                let key = (entry.device, waiting.id);
                if fetching.len() >= AT_ONCE || of_one >= OF_ONE || fetching.contains_key(&key) {
                    continue;
                }
                if usize::from(waiting.pieces) > super::mailbox::PIECES {
                    self.count("mailbox entries that make no sense");
                    continue;
                }
                let places: Vec<_> = (0..waiting.pieces).map(|n| waiting.address(n, overlay)).collect();
                let (aor, out) = (self.domain.aor(user), waiting.pieces);
                self.mail.mailbox.fetching.0.insert(key, Fetch { aor, waiting, pieces: BTreeMap::new(), out });
                for (n, place) in (0u8..).zip(places) {
                    self.lookup_for_piece(now, &place, key.0, key.1, n);
                }
            }
        }
    }

    /// What lies at the place of a piece; nothing when it could not be read.
    pub(super) fn on_piece(
        &mut self,
        now: Instant,
        (device, id, n): (PublicKey, LetterId, u8),
        entries: &[SignedEntry],
    ) {
        let Some(fetch) = self.mail.mailbox.fetching.0.get_mut(&(device, id)) else { return };
        fetch.out = fetch.out.saturating_sub(1);
        let fits = |e: &&SignedEntry| e.entry().kind == EntryKind::PIECE && e.entry().device == device;
        if let Some(entry) = entries.iter().find(fits) {
            fetch.pieces.insert(n, entry.entry().body.clone());
        }
        if fetch.out > 0 {
            return;
        }
        let Some(fetch) = self.mail.mailbox.fetching.0.remove(&(device, id)) else { return };
        if fetch.pieces.len() < usize::from(fetch.waiting.pieces) {
            return self.count("messages whose pieces are not all there");
        }
        let sealed: Vec<u8> = fetch.pieces.into_values().flatten().collect();
        let hash = blake3::hash(&sealed);
        if *hash.as_bytes() != fetch.waiting.hash {
            return self.count("messages that do not open or whose sender is false");
        }
        self.on_fetched(now, &fetch.aor, device, id, &sealed);
    }

    fn on_fetched(&mut self, now: Instant, aor: &str, device: PublicKey, id: LetterId, sealed: &[u8]) {
        let Ok((signed, sender)) = self.opened(now, sealed) else {
            return self.count("messages that do not open or whose sender is false");
        };
        let (letter, unix) = (signed.letter().clone(), self.unix(now));
        if sender.device != device || letter.id != id || letter.to != aor {
            return self.count("messages that do not open or whose sender is false");
        }
        let Some((user, _)) = split_aor(aor) else { return };
        let own = self.is_own(user);
        if !own && !self.mail.archive.fits(user, &letter) {
            return; // It stays there until the phone has taken some.
        }
        match self.mail.archive.admit(&letter, &sender.device, unix) {
            Admit::New => {
                self.deliver(now, user, &letter, true, Some(sender.user_key), Waiter::Mailbox);
                if own {
                    self.acknowledge(now, aor, &id);
                }
            }
            Admit::Repeated => self.acknowledge(now, aor, &id),
            Admit::Stale => self.count("messages out of their time"),
        }
    }
}
