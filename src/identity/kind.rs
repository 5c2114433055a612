//! The kinds of entries: their numbers, who may write them, how long they may live and how large they may be (SPEC
//! section 3). A new kind is a number here and a row in [`RULES`].

use std::time::Duration;

/// What an entry is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EntryKind {
    /// 1: where the AOR can be reached ([`ContactBody`](super::ContactBody)).
    Contact,
    /// Any other number: one of the constants below, or a kind of a later version, which holders keep and hand out like
    /// the rest.
    Other(u16),
}

impl EntryKind {
    /// 2: one share of what a user's password opens.
    pub const CREDENTIAL_SHARE: EntryKind = EntryKind::Other(2);
    /// 3: something left for the AOR's user by somebody else.
    pub const MAILBOX_ITEM: EntryKind = EntryKind::Other(3);
    /// 4: what the AOR's devices know of its mailbox: read, kept, deleted, greetings.
    pub const MESSAGE_WAITING: EntryKind = EntryKind::Other(4);
    /// 5: presence and state.
    pub const PRESENCE: EntryKind = EntryKind::Other(5);
    /// 6: who has a file; the AOR names the file.
    pub const FILE_SOURCE: EntryKind = EntryKind::Other(6);
    /// 7: which files a word leads to; the AOR names the word.
    pub const KEYWORD_POSTING: EntryKind = EntryKind::Other(7);
    /// 8: a relay that members may use.
    pub const RELAY_OFFER: EntryKind = EntryKind::Other(8);
    /// 9: a gateway to other networks.
    pub const GATEWAY_OFFER: EntryKind = EntryKind::Other(9);
    /// 10: the office's policy, under an AOR of the office.
    pub const POLICY: EntryKind = EntryKind::Other(10);
    /// 11: revocations: a user's own under its AOR, the office's under an AOR of the office.
    pub const REVOCATION: EntryKind = EntryKind::Other(11);
    /// 12: settings that a user's devices share, sealed.
    pub const SETTINGS: EntryKind = EntryKind::Other(12);
    /// 13: the manifest of a blob.
    pub const MANIFEST: EntryKind = EntryKind::Other(13);

    /// 14: a device of the AOR's, its key and what it has taken out of the mailbox ([`DeviceBody`](super::DeviceBody)).
    pub const DEVICE: EntryKind = EntryKind::Other(14);
    /// 15: messages that wait for the AOR, by the device that wrote them ([`WaitingBody`](super::WaitingBody)).
    pub const WAITING: EntryKind = EntryKind::Other(15);
    /// 16: a piece of a sealed message that waits, under an AOR made from its number.
    pub const PIECE: EntryKind = EntryKind::Other(16);
    /// 17: a device asks for a lease, or gives one back ([`LeaseBody`](super::LeaseBody)); the AOR names the lease. No holder
    /// takes it as a record.
    pub const LEASE: EntryKind = EntryKind::Other(17);
    /// 18: which chunks a blob consists of ([`BlobBody`](super::BlobBody)), under an AOR made from the blob's number.
    pub const BLOB: EntryKind = EntryKind::Other(18);
    /// 19: a chunk lies here by the signer's wish ([`ChunkBody`](super::ChunkBody)), under an AOR made from the chunk's hash.
    pub const CHUNK: EntryKind = EntryKind::Other(19);
    /// 40: what a caller says of one request that others forward (SPEC section 7). It travels with the request; no holder
    /// takes it.
    pub const CALLER: EntryKind = EntryKind::Other(40);

    /// Where a user's entries of this kind lie beside `sip:USER@OVERLAY`: behind a plus sign in resources of their own, which the
    /// user's devices may write though they are nobody's name.
    pub const fn private_suffix(self) -> Option<&'static str> {
        match self {
            EntryKind::CREDENTIAL_SHARE => Some("+login"),
            EntryKind::SETTINGS => Some("+settings"),
            _ => None,
        }
    }

    /// True when `name` is one of `user`'s own resources for this kind: the suffix, and for a kind of several parts their number.
    pub fn is_private_to(self, name: &str, user: &str) -> bool {
        let rest = self.private_suffix().and_then(|suffix| name.strip_prefix(user)?.strip_prefix(suffix));
        rest.is_some_and(|rest| rest.is_empty() || matches!(rest.as_bytes(), [b'-', b'0'..=b'9']))
    }

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            EntryKind::Contact => 1,
            EntryKind::Other(n) => n,
        }
    }

    /// The kind of a number.
    pub const fn from_number(n: u16) -> EntryKind {
        match n {
            1 => EntryKind::Contact,
            n => EntryKind::Other(n),
        }
    }

    /// What holders and readers hold entries of this kind to.
    pub fn rules(self) -> &'static KindRules {
        let n = usize::from(self.number());
        RULES.get(n.wrapping_sub(1)).unwrap_or(&UNKNOWN)
    }
}

/// Who may sign an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MayWrite {
    /// The devices of the AOR's user, and those to which an enroller has given the AOR by an adapter certificate: so also what
    /// the office itself says, under an AOR of its own.
    Own,
    /// Any member of the overlay, the AOR's own devices too.
    Member,
}

/// One row of the table of kinds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KindRules {
    /// For people and counters.
    pub name: &'static str,
    /// Who may sign it.
    pub writers: MayWrite,
    /// The longest life; what was taken back stays known for as long.
    pub longest: Duration,
    /// Bytes of the body.
    pub largest: usize,
    /// Entries that one user (one user key) may have of this kind in one resource.
    pub most: usize,
    /// Bytes of one resource that all entries of this kind together may take; of the kinds that any member may write, all of them
    /// together, so that what strangers leave there never keeps out what the AOR's own devices say.
    pub share: usize,
    /// For how long what was taken back stays known, where its own life is shorter. The longest life, so that a copy which was
    /// away does not bring it back, unless that would do no harm.
    pub known: Duration,
    /// Each entry stands for itself, named by its sequence number, and is never replaced, only taken back: one device has many.
    /// Else one entry a device.
    pub many: bool,
}

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const KIB: usize = 1024;

const fn row(name: &'static str, writers: MayWrite, longest: u64, largest: usize, most: usize) -> KindRules {
    let share = match writers {
        MayWrite::Member => 24 * KIB,
        _ => 48 * KIB,
    };
    let longest = Duration::from_secs(longest);
    KindRules { name, writers, longest, largest, most, share, known: longest, many: false }
}

/// Something that comes back does no harm: readers know what they have read.
const fn harmless(row: KindRules) -> KindRules {
    KindRules { known: Duration::from_secs(HOUR), ..row }
}

const fn many(row: KindRules) -> KindRules {
    KindRules { many: true, ..row }
}

/// By number, from 1.
const RULES: [KindRules; 19] = [
    row("contact", MayWrite::Own, 7 * DAY, 2 * KIB, 16),
    row("credential share", MayWrite::Own, 400 * DAY, 4 * KIB, 8),
    many(row("mailbox item", MayWrite::Member, 30 * DAY, 4 * KIB, 8)),
    row("message waiting", MayWrite::Own, 400 * DAY, 4 * KIB, 8),
    row("presence", MayWrite::Own, DAY, KIB, 16),
    row("file source", MayWrite::Member, DAY, KIB, 4),
    row("keyword posting", MayWrite::Member, 7 * DAY, 2 * KIB, 4),
    row("relay offer", MayWrite::Member, DAY, KIB, 4),
    row("gateway offer", MayWrite::Member, DAY, KIB, 4),
    row("policy", MayWrite::Own, 400 * DAY, 6 * KIB, 8),
    row("revocation", MayWrite::Own, 3700 * DAY, 4 * KIB, 8),
    row("settings", MayWrite::Own, 400 * DAY, 6 * KIB, 16),
    many(row("manifest", MayWrite::Own, 400 * DAY, 6 * KIB, 16)),
    row("device", MayWrite::Own, 7 * DAY, 4 * KIB, 16),
    harmless(row("waiting messages", MayWrite::Member, 7 * DAY, 2 * KIB, 4)),
    harmless(row("message piece", MayWrite::Member, 7 * DAY, 6 * KIB, 1)),
    row("lease", MayWrite::Member, HOUR / 4, 64, 1),
    harmless(row("blob", MayWrite::Member, 30 * DAY, 6 * KIB, 1)),
    harmless(row("chunk", MayWrite::Member, 30 * DAY, 64, 1)),
];

/// Kinds of later versions.
const UNKNOWN: KindRules =
    row("unknown", MayWrite::Own, super::MAX_ENTRY_LIFETIME.as_secs(), crate::core::limits::RECORD_ENTRY, 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_rows_agree() {
        for (kind, name) in [
            (EntryKind::Contact, "contact"),
            (EntryKind::CREDENTIAL_SHARE, "credential share"),
            (EntryKind::MAILBOX_ITEM, "mailbox item"),
            (EntryKind::MESSAGE_WAITING, "message waiting"),
            (EntryKind::PRESENCE, "presence"),
            (EntryKind::FILE_SOURCE, "file source"),
            (EntryKind::KEYWORD_POSTING, "keyword posting"),
            (EntryKind::RELAY_OFFER, "relay offer"),
            (EntryKind::GATEWAY_OFFER, "gateway offer"),
            (EntryKind::POLICY, "policy"),
            (EntryKind::REVOCATION, "revocation"),
            (EntryKind::SETTINGS, "settings"),
            (EntryKind::MANIFEST, "manifest"),
            (EntryKind::DEVICE, "device"),
            (EntryKind::WAITING, "waiting messages"),
            (EntryKind::PIECE, "message piece"),
            (EntryKind::LEASE, "lease"),
            (EntryKind::BLOB, "blob"),
            (EntryKind::CHUNK, "chunk"),
            (EntryKind::Other(0), "unknown"),
            (EntryKind::Other(20), "unknown"),
            (EntryKind::Other(u16::MAX), "unknown"),
        ] {
            assert_eq!(kind.rules().name, name);
            assert_eq!(EntryKind::from_number(kind.number()), kind);
        }
    }

    #[test]
    fn what_strangers_write_leaves_room() {
        let strangers = RULES.iter().filter(|r| r.writers == MayWrite::Member);
        // Of the 48 KiB of a resource.
        assert!(strangers.clone().count() > 0 && strangers.clone().all(|r| r.share <= 24 * KIB));
        assert!(RULES.iter().all(|r| r.largest <= crate::core::limits::RECORD_ENTRY && r.most > 0));
    }
}
