//! The contact link: what a user hands to somebody of another overlay, as text or as a QR code.
//!
//! `chordial:` and, by base32 groups, `version and number of addresses (4 bits each) | flags | user key fingerprint (16) |
//! root fingerprint (16), in an office | token (10), if flagged | addresses | USER@OVERLAY`, an address being `4` or `6`, the IP
//! address and the port. Flags: 1 office, 2 token. In capitals it fits the alphanumeric mode of a QR code.
//!
//! It is not signed: whoever hands it over vouches for it, as with a business card.

use super::armour::{armour, unarmour};
use super::contact::{read_tagged_addrs, tagged_addrs};
use super::{EnrolError, KeyFingerprint, Root, RootFingerprint, split_aor};
use crate::core::{Redacted, Rng};
use std::net::SocketAddr;

/// What stands in front of a link.
pub const LINK_SCHEME: &str = "chordial:";
/// Most addresses in a link.
const MAX_ADDRS: usize = 3;
const VERSION: u8 = 1;
const TOKEN: usize = 10;
const OFFICE: u8 = 1;
const WITH_TOKEN: u8 = 2;

/// The word by which somebody may ring who is no contact yet: 80 bits, never shown in a call, only proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RingToken(Redacted<[u8; TOKEN]>);

impl RingToken {
    /// A new one.
    pub fn generate(rng: &mut Rng) -> RingToken {
        let mut secret = [0; TOKEN];
        rng.fill(&mut secret);
        RingToken(Redacted::new(secret))
    }

    /// By what the one who gave it out finds it; says nothing about the secret.
    pub fn name(&self) -> [u8; 8] {
        let hash = blake3::derive_key("chordial ring token name v1", self.0.reveal());
        [hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]]
    }

    /// The key of the proof that somebody has it.
    pub(super) fn proof_key(&self) -> [u8; 32] {
        blake3::derive_key("chordial ring token proof v1", self.0.reveal())
    }

    pub(super) fn secret(&self) -> &[u8; TOKEN] {
        self.0.reveal()
    }

    pub(super) fn from_secret(secret: [u8; TOKEN]) -> RingToken {
        RingToken(Redacted::new(secret))
    }
}

/// How to reach a user of another overlay, and by what keys that user is known. `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContactLink {
    /// Canonical AOR.
    pub aor: String,
    /// The user's key.
    pub user_key: KeyFingerprint,
    /// The overlay's root.
    pub root: Root,
    /// Supernodes of that overlay, best first; at most three.
    pub addrs: Vec<SocketAddr>,
    /// The right to ring.
    pub token: Option<RingToken>,
}

impl ContactLink {
    /// The link. Surplus addresses are left out.
    pub fn text(&self) -> String {
        let addrs = &self.addrs[..self.addrs.len().min(MAX_ADDRS)];
        let mut flags = 0;
        let mut bytes = self.user_key.0.to_vec();
        if let Root::Office(root) = &self.root {
            flags |= OFFICE;
            bytes.extend_from_slice(&root.0);
        }
        if let Some(token) = &self.token {
            flags |= WITH_TOKEN;
            bytes.extend_from_slice(token.secret());
        }
        bytes.extend(tagged_addrs(addrs));
        bytes.extend_from_slice(self.aor.strip_prefix("sip:").unwrap_or(&self.aor).as_bytes());
        bytes.splice(0..0, [VERSION << 4 | addrs.len() as u8, flags]);
        format!("{LINK_SCHEME}{}", armour(&bytes))
    }

    /// Reads a link, with or without `chordial:`, in any case.
    ///
    /// # Errors
    /// `Typo` with the group; `NotACode` for anything that is no link of this version.
    pub fn parse(text: &str) -> Result<ContactLink, EnrolError> {
        let text = text.trim();
        let scheme = text.get(..LINK_SCHEME.len()).is_some_and(|s| s.eq_ignore_ascii_case(LINK_SCHEME));
        let bytes = unarmour(if scheme { text.get(LINK_SCHEME.len()..).unwrap_or_default() } else { text })?;
        ContactLink::read(&bytes).ok_or(EnrolError::NotACode)
    }

    fn read(bytes: &[u8]) -> Option<ContactLink> {
        let ([head, flags], rest) = bytes.split_first_chunk::<2>()?;
        let count = usize::from(head & 15);
        if head >> 4 != VERSION || count > MAX_ADDRS || flags & !(OFFICE | WITH_TOKEN) != 0 {
            return None;
        }
        let (user_key, mut rest) = rest.split_first_chunk::<16>()?;
        let mut root = Root::Open;
        if flags & OFFICE != 0 {
            let (bytes, after) = rest.split_first_chunk::<16>()?;
            (root, rest) = (Root::Office(RootFingerprint(*bytes)), after);
        }
        let mut token = None;
        if flags & WITH_TOKEN != 0 {
            let (bytes, after) = rest.split_first_chunk::<TOKEN>()?;
            (token, rest) = (Some(RingToken::from_secret(*bytes)), after);
        }
        let (addrs, rest) = read_tagged_addrs(rest, count)?;
        let aor = format!("sip:{}", std::str::from_utf8(rest).ok()?);
        split_aor(&aor)?;
        Some(ContactLink { aor, user_key: KeyFingerprint(*user_key), root, addrs, token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::damage::damaged;

    fn links() -> Vec<ContactLink> {
        let addrs: Vec<SocketAddr> =
            ["192.0.2.1:5061", "[2001:db8::1]:5061", "192.0.2.3:99"].map(|a| a.parse().expect("address")).into();
        let mut rng = Rng::from_seed(3);
        let mut all = Vec::new();
        for n in 0..=3 {
            for root in [Root::Open, Root::Office(RootFingerprint([9; 16]))] {
                for token in [None, Some(RingToken::generate(&mut rng))] {
                    let (aor, user_key) = ("sip:bob@other.office".to_owned(), KeyFingerprint([7; 16]));
                    all.push(ContactLink { aor, user_key, root, addrs: addrs[..n].to_vec(), token });
                }
            }
        }
        all
    }

    #[test]
    fn written_and_read() {
        for link in links() {
            let text = link.text();
            assert!(text.starts_with("chordial:"), "{text}");
            assert_eq!(ContactLink::parse(&text), Ok(link.clone()));
            assert_eq!(ContactLink::parse(&format!(" {}\n", text.to_uppercase())), Ok(link.clone()));
            assert_eq!(ContactLink::parse(&text["chordial:".len()..].to_lowercase()), Ok(link.clone()));
            if let Some(token) = &link.token {
                assert!(!format!("{link:?}").contains(&format!("{:?}", token.secret())));
            }
        }
        for bad in ["", "chordial:", "sip:bob@other.office", "chordial:AAAAA-BBBBB"] {
            assert!(ContactLink::parse(bad).is_err(), "{bad}");
        }
    }

    /// A link that is damaged before it is armoured is none, or says something else than before; it never panics.
    #[test]
    fn damaged_links() {
        let mut rng = Rng::from_seed(4);
        for link in links() {
            let text = link.text();
            let bytes = unarmour(&text["chordial:".len()..]).expect("own");
            for _ in 0..2000 {
                let bytes = damaged(&bytes, &mut rng);
                if let Some(read) = ContactLink::read(&bytes) {
                    assert_ne!(read, link);
                    assert_eq!(ContactLink::parse(&read.text()), Ok(read));
                }
            }
        }
    }
}
