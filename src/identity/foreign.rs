//! Who belongs to another overlay, and by what that overlay and its users are known.

use super::{Chain, Claims, IdentityError, PublicKey, RootFingerprint, TrustAnchor, Verified};
use crate::core::{Id, UnixTime};
use std::fmt;
use std::sync::Arc;

/// By what an overlay is known beside its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Root {
    /// An office: its root key.
    Office(RootFingerprint),
    /// An open overlay, which has no root: each user's key stands for itself.
    Open,
}

impl Root {
    /// That of an anchor.
    pub fn of(anchor: &TrustAnchor) -> Root {
        match anchor {
            TrustAnchor::Office { root, .. } => Root::Office(RootFingerprint::of(root)),
            TrustAnchor::Open { .. } => Root::Open,
        }
    }
}

impl fmt::Display for Root {
    /// The first four bytes, as people compare them: `1a2b-3c4d`; `open` for an open overlay.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Root::Office(RootFingerprint([a, b, c, d, ..])) => write!(f, "{a:02x}{b:02x}-{c:02x}{d:02x}"),
            Root::Open => f.write_str("open"),
        }
    }
}

/// 128 bits of BLAKE3 of a user's key: nobody makes another key with the same. It begins as
/// [`PublicKey::fingerprint`] does, so both look the same to people.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyFingerprint(pub [u8; 16]);

impl KeyFingerprint {
    /// The fingerprint of `key`.
    pub fn of(key: &PublicKey) -> KeyFingerprint {
        let mut out = [0; 16];
        out.copy_from_slice(&blake3::derive_key("chordial key fingerprint v1", &key.0)[..16]);
        KeyFingerprint(out)
    }
}

impl fmt::Display for KeyFingerprint {
    /// As [`PublicKey`] shows it: `1a2b-3c4d`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}-{c:02x}{d:02x}")
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A device of another overlay: its chain holds in itself. That says whose it is *in the overlay that it names*; whether
/// that is the overlay that somebody means, its root's fingerprint says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Foreign {
    /// The overlay that the chain goes back to, by its own word.
    pub anchor: TrustAnchor,
    /// What the chain says.
    pub verified: Verified,
}

impl Foreign {
    /// Checks a chain against the root that it carries itself: of an office the enroller's issuer, of an open overlay its name.
    ///
    /// # Errors
    /// Whatever [`TrustAnchor::verify_chain`] finds.
    pub fn of(chain: &Chain, now: UnixTime) -> Result<Foreign, IdentityError> {
        let first = chain.certificates().first().ok_or(IdentityError::Shape("user"))?;
        let overlay = first.overlay.clone();
        let anchor = match first.claims {
            Claims::Enroller => TrustAnchor::Office { overlay, root: first.issuer },
            _ => TrustAnchor::Open { overlay },
        };
        let verified = anchor.verify_chain(chain, now)?;
        Ok(Foreign { anchor, verified })
    }

    /// The overlay's name.
    pub fn overlay(&self) -> &str {
        self.anchor.overlay()
    }

    /// The overlay's root.
    pub fn root(&self) -> Root {
        Root::of(&self.anchor)
    }

    /// The user's key.
    pub fn user_key(&self) -> KeyFingerprint {
        KeyFingerprint::of(&self.verified.user_key)
    }
}

/// Who is at the other end of a connection, as far as its handshake proved it.
#[derive(Clone, Debug, Default)]
pub enum Proven {
    /// Nobody in particular: a flow in clear, or a stranger whose chain does not hold.
    #[default]
    Nobody,
    /// A standard phone over TLS: it proves nothing and is no link.
    Phone,
    /// A device of this overlay.
    Member(Arc<Verified>),
    /// A device of another one.
    Foreign(Arc<Foreign>),
}

impl Proven {
    /// The device of this overlay.
    pub fn member(&self) -> Option<&Arc<Verified>> {
        match self {
            Proven::Member(peer) => Some(peer),
            Proven::Foreign(_) | Proven::Phone | Proven::Nobody => None,
        }
    }

    /// The device of another overlay.
    pub fn foreign(&self) -> Option<&Arc<Foreign>> {
        match self {
            Proven::Foreign(foreign) => Some(foreign),
            Proven::Member(_) | Proven::Phone | Proven::Nobody => None,
        }
    }
}

impl From<Option<Arc<Verified>>> for Proven {
    fn from(peer: Option<Arc<Verified>>) -> Proven {
        peer.map_or(Proven::Nobody, Proven::Member)
    }
}

/// Who has to be at the other end of a link that is dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Any device of this overlay.
    Member,
    /// The device with this peer-ID.
    Peer(Id),
    /// A device of another overlay; of which one, whoever dialled compares.
    Foreign,
}

impl From<Option<Id>> for Expect {
    fn from(id: Option<Id>) -> Expect {
        id.map_or(Expect::Member, Expect::Peer)
    }
}
