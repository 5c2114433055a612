//! Introductions: one user's signed word to another about a third one's key.
//!
//! `[[1, to AOR, AOR, root | null, key (16), name, [address...], issued, withdrawn], chain, signature]`, the first a byte string, signed
//! by a device of the introducer ([`Purpose::Introduction`]); the introducer is whoever the chain names. As text it is
//! `chordial-introduction:` and base32, which is what goes as a message; whoever has the text can bring it by any other way.
//! It is addressed, so that nobody hands it on as if it had been meant for somebody else, and counts for 90 days.
//! A later one with `withdrawn` takes it back.
//!
//! It proves who said it and nothing more: whether that counts is for the one who hears it to say.

use super::armour::{base32, from_base32};
use super::cbor::{Reader, Writer, canonical};
use super::contact::{read_addrs, write_addrs};
use super::{
    CLOCK_SKEW, Chain, Foreign, Identity, IdentityError, KeyFingerprint, Known, Purpose, Root, RootFingerprint,
    canonical_overlay, canonical_user, split_aor,
};
use crate::core::UnixTime;
use std::net::SocketAddr;
use std::time::Duration;

/// What stands in front of the text.
pub const INTRODUCTION_SCHEME: &str = "chordial-introduction:";
/// For how long one counts.
pub const INTRODUCTION_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

const WHAT: &str = "introduction";
const MAX_ADDRS: usize = 3;
/// Longest text after the scheme, in symbols.
const MAX_SYMBOLS: usize = 12 * 1024;

/// What an introducer says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Introduction {
    /// To whom; canonical AOR.
    pub to: String,
    /// Who is introduced, and by which key.
    pub who: Known,
    /// What the introducer calls them; a user name by its form.
    pub name: String,
    /// Supernodes of their overlay, where it is another one; at most three.
    pub addrs: Vec<SocketAddr>,
    /// When it was said.
    pub issued: UnixTime,
    /// It does not count any more.
    pub withdrawn: bool,
}

impl Introduction {
    /// True while it counts by its age.
    pub fn is_fresh(&self, now: UnixTime) -> bool {
        is_fresh(self.issued, now)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(9);
        writer.uint(1).text(&self.to).text(&self.who.aor);
        match self.who.root {
            Root::Office(root) => writer.bytes(&root.0),
            Root::Open => writer.null(),
        };
        writer.bytes(&self.who.key.0).text(&self.name);
        write_addrs(&mut writer, &self.addrs[..self.addrs.len().min(MAX_ADDRS)]);
        writer.uint(self.issued.secs()).uint(self.withdrawn.into());
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Introduction, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(9)?;
        reader.version(1)?;
        let (to, aor) = (reader.text()?.to_owned(), reader.text()?.to_owned());
        for address in [&to, &aor] {
            let (user, overlay) = split_aor(address).ok_or(IdentityError::Malformed(WHAT))?;
            if canonical_user(user)? != user || canonical_overlay(overlay)? != overlay {
                return Err(IdentityError::Malformed(WHAT));
            }
        }
        let root = match reader.is_null() {
            true => Root::Open,
            false => Root::Office(RootFingerprint(reader.exact()?)),
        };
        let key = KeyFingerprint(reader.exact()?);
        let name = canonical_user(reader.text()?)?;
        let addrs = read_addrs(&mut reader, MAX_ADDRS)?;
        let issued = UnixTime(reader.uint()?);
        let withdrawn = match reader.uint()? {
            0 => false,
            1 => true,
            _ => return Err(IdentityError::Malformed(WHAT)),
        };
        Ok(Introduction { to, who: Known { aor, root, key }, name, addrs, issued, withdrawn })
    }
}

/// True while something said at `issued` counts.
pub(super) fn is_fresh(issued: UnixTime, now: UnixTime) -> bool {
    issued <= now + CLOCK_SKEW && now < issued + INTRODUCTION_LIFE
}

/// One with its signature. Reading verifies nothing; [`SignedIntroduction::verify`] does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedIntroduction {
    said: Introduction,
    chain: Chain,
    signature: [u8; 64],
}

impl SignedIntroduction {
    /// Signs as `identity`'s device.
    pub fn sign(said: Introduction, identity: &Identity) -> SignedIntroduction {
        let signature = identity.device.sign(Purpose::Introduction, &said.encode());
        SignedIntroduction { said, chain: identity.chain.clone(), signature }
    }

    /// True for a text that means to be an introduction.
    pub fn is_one(text: &str) -> bool {
        text.trim_start().starts_with(INTRODUCTION_SCHEME)
    }

    /// The text.
    pub fn text(&self) -> String {
        format!("{INTRODUCTION_SCHEME}{}", base32(&self.encode()))
    }

    /// Reads what [`SignedIntroduction::text`] writes and nothing else, but for blanks around it.
    ///
    /// # Errors
    /// `Malformed`, `NotCanonical` and what a chain or a name can have.
    pub fn parse(text: &str) -> Result<SignedIntroduction, IdentityError> {
        let symbols = text.trim().strip_prefix(INTRODUCTION_SCHEME).ok_or(IdentityError::Malformed(WHAT))?;
        let bytes = from_base32(symbols, MAX_SYMBOLS).ok_or(IdentityError::Malformed(WHAT))?;
        let mut reader = Reader::new(&bytes, WHAT);
        reader.array(3)?;
        let said = Introduction::decode(reader.bytes()?)?;
        let chain = Chain::read(&mut reader)?;
        let read = SignedIntroduction { said, chain, signature: reader.exact()? };
        canonical(&bytes, &read.encode(), WHAT)?;
        Ok(read)
    }

    /// Who says it, and that it is fresh and addressed to `to`. The chain is checked in itself: whether its user is anybody to
    /// the one who hears it, its key says.
    ///
    /// # Errors
    /// What does not hold.
    pub fn verify(&self, to: &str, now: UnixTime) -> Result<Foreign, IdentityError> {
        let by = Foreign::of(&self.chain, now)?;
        if !by.verified.device.verify(Purpose::Introduction, &self.said.encode(), &self.signature) {
            return Err(IdentityError::Signature(WHAT));
        }
        if self.said.to != to {
            return Err(IdentityError::Proof("is meant for somebody else"));
        }
        match self.said.is_fresh(now) {
            true => Ok(by),
            false => Err(IdentityError::Proof("is too old, or a clock is wrong")),
        }
    }

    /// What is said. Of a verified one only it means something.
    pub fn said(&self) -> &Introduction {
        &self.said
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(3);
        writer.bytes(&self.said.encode()).raw(self.chain.encoded()).bytes(&self.signature);
        writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Rng;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const BOB: &str = "sip:bob@family";

    fn said() -> Introduction {
        let who = Known { aor: "sip:anna@family".into(), root: Root::Open, key: KeyFingerprint([7; 16]) };
        let addrs = vec!["192.0.2.1:5061".parse().unwrap()];
        Introduction { to: BOB.into(), who, name: "anna".into(), addrs, issued: NOW, withdrawn: false }
    }

    fn carla() -> Identity {
        Identity::open("family", "carla", NOW, &mut Rng::from_seed(1)).unwrap()
    }

    #[test]
    fn the_introducer_is_who_signed_and_nobody_else_is_meant() {
        let carla = carla();
        let signed = SignedIntroduction::sign(said(), &carla);
        let read = SignedIntroduction::parse(&format!(" {}\n", signed.text())).unwrap();
        assert_eq!(read, signed);
        let by = read.verify(BOB, NOW).unwrap();
        assert_eq!((by.overlay(), by.verified.user.as_str()), ("family", "carla"));
        assert!(read.verify("sip:ben@family", NOW).is_err());
        // Another's word about it, under the same chain.
        let mut forged = signed.clone();
        forged.said.who.key = KeyFingerprint([8; 16]);
        assert_eq!(forged.verify(BOB, NOW), Err(IdentityError::Signature(WHAT)));
        let mut stolen =
            SignedIntroduction::sign(said(), &Identity::open("family", "eve", NOW, &mut Rng::from_seed(2)).unwrap());
        stolen.chain = carla.chain.clone();
        assert_eq!(stolen.verify(BOB, NOW), Err(IdentityError::Signature(WHAT)));
    }

    #[test]
    fn it_counts_for_ninety_days() {
        let signed = SignedIntroduction::sign(said(), &carla());
        let days = |n: u64| NOW + Duration::from_secs(n * 24 * 3600);
        assert!(signed.verify(BOB, days(89)).is_ok());
        assert!(signed.verify(BOB, days(90)).is_err());
        assert!(signed.verify(BOB, UnixTime(NOW.secs() - 400)).is_err(), "of the future");
    }

    #[test]
    fn damaged_introductions() {
        let rng = &mut Rng::from_seed(4);
        let good = SignedIntroduction::sign(said(), &carla());
        let (bytes, mut read) = (good.encode(), 0);
        for _ in 0..10_000 {
            let mut bytes = bytes.clone();
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(4) {
                0 | 1 => bytes[at] ^= 1 << rng.below(8),
                2 => bytes.truncate(at),
                _ => bytes.insert(at, rng.next_u32() as u8),
            }
            if let Ok(one) = SignedIntroduction::parse(&format!("{INTRODUCTION_SCHEME}{}", base32(&bytes))) {
                read += 1;
                assert!(one.verify(BOB, NOW).is_err(), "a damaged one holds");
            }
        }
        assert!(read > 500, "{read} were read");
        for text in ["", "chordial-introduction:", "chordial-introduction:!", "chordial:AAAA"] {
            assert!(SignedIntroduction::parse(text).is_err(), "{text}");
        }
    }
}
