//! A message from one person to another, signed by the sender's device: whoever opens it knows who wrote it, to whom,
//! when, and under which number, so that nobody on the way can forge, redirect or repeat it.
//!
//! `[letter, chain, signature]`: `letter` is a byte string that holds `[1, id, from AOR, to AOR, device key, sent, text]`, `id`
//! 16 random bytes, `sent` milliseconds since 1970, `text` UTF-8; `signature` is the device's over it. It travels sealed
//! ([`seal`](super::seal)) and is inside the seal, so that who carries it does not learn the signature either.

use super::cbor::{Reader, Writer, canonical};
use super::{Chain, Identity, IdentityError, PublicKey, Purpose, TrustAnchor, Verified, split_aor};
use crate::core::{Rng, UnixTime};

const WHAT: &str = "message";
/// Longest text of one message, bytes of UTF-8.
pub const MAX_TEXT: usize = 32 * 1024;
/// Largest encoding: the longest text, a chain, addresses.
const MAX_LETTER: usize = MAX_TEXT + 8 * 1024;

/// Names one message, wherever it turns up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LetterId(pub [u8; 16]);

impl LetterId {
    /// A new one.
    pub fn generate(rng: &mut Rng) -> LetterId {
        let mut id = [0; 16];
        rng.fill(&mut id);
        LetterId(id)
    }

    /// From 32 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<LetterId> {
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        let mut id = [0; 16];
        for (byte, at) in id.iter_mut().zip((0..32).step_by(2)) {
            *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
        }
        Some(LetterId(id))
    }
}

impl std::fmt::Display for LetterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// What one person writes to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Letter {
    /// Drawn by the sender.
    pub id: LetterId,
    /// The sender's canonical AOR.
    pub from: String,
    /// The recipient's canonical AOR.
    pub to: String,
    /// When it was written, milliseconds since 1970.
    pub sent_ms: u64,
    /// The text, at most [`MAX_TEXT`] bytes.
    pub text: String,
}

impl Letter {
    /// When it was written.
    pub fn sent(&self) -> UnixTime {
        UnixTime(self.sent_ms / 1000)
    }
}

/// A message with the sender's signature and chain. Decoding verifies nothing; [`SignedLetter::verify`] does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedLetter {
    letter: Letter,
    device: PublicKey,
    chain: Chain,
    signature: [u8; 64],
}

impl SignedLetter {
    /// Signs as `identity`'s device. `NotOurs` when that identity may not speak for `letter.from`.
    pub fn sign(letter: Letter, identity: &Identity) -> Result<SignedLetter, IdentityError> {
        if letter.text.len() > MAX_TEXT {
            return Err(IdentityError::TooLarge(WHAT));
        }
        let (user, overlay) = split_aor(&letter.from).ok_or(IdentityError::NotOurs)?;
        if overlay != identity.overlay() {
            return Err(IdentityError::Overlay);
        }
        if identity.user() != user && !identity.aliases().iter().any(|a| a == user) {
            return Err(IdentityError::NotOurs);
        }
        let device = identity.device.public();
        let signature = identity.device.sign(Purpose::Letter, &encode_letter(&letter, &device));
        Ok(SignedLetter { letter, device, chain: identity.chain.clone(), signature })
    }

    /// The encoding, which is what gets sealed.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(3);
        writer.bytes(&encode_letter(&self.letter, &self.device)).raw(self.chain.encoded()).bytes(&self.signature);
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<SignedLetter, IdentityError> {
        if bytes.len() > MAX_LETTER {
            return Err(IdentityError::TooLarge(WHAT));
        }
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(3)?;
        let (letter, device) = decode_letter(reader.bytes()?)?;
        let chain = Chain::read(&mut reader)?;
        let read = SignedLetter { letter, device, chain, signature: reader.exact()? };
        canonical(bytes, &read.encode(), WHAT)?;
        Ok(read)
    }

    /// Checks at `now` that the sender's chain holds, that its device signed this and may speak for the address that
    /// it is from, and that both addresses lie in this overlay. Who the sender is.
    pub fn verify(&self, anchor: &TrustAnchor, now: UnixTime) -> Result<Verified, IdentityError> {
        let verified = anchor.verify_chain(&self.chain, now)?;
        if verified.device != self.device {
            return Err(IdentityError::Shape("device"));
        }
        let user_of = |aor| split_aor(aor).filter(|(_, o)| *o == anchor.overlay()).map(|(user, _)| user);
        let (Some(from), Some(_)) = (user_of(&self.letter.from), user_of(&self.letter.to)) else {
            return Err(IdentityError::Overlay);
        };
        if !verified.speaks_for(from) {
            return Err(IdentityError::NotOurs);
        }
        if !self.device.verify(Purpose::Letter, &encode_letter(&self.letter, &self.device), &self.signature) {
            return Err(IdentityError::Signature(WHAT));
        }
        Ok(verified)
    }

    /// What was written. Of a verified one only it means something.
    pub fn letter(&self) -> &Letter {
        &self.letter
    }
}

fn encode_letter(letter: &Letter, device: &PublicKey) -> Vec<u8> {
    let mut writer = Writer::array(7);
    writer.uint(1).bytes(&letter.id.0).text(&letter.from).text(&letter.to).bytes(&device.0);
    writer.uint(letter.sent_ms).text(&letter.text);
    writer.finish()
}

fn decode_letter(bytes: &[u8]) -> Result<(Letter, PublicKey), IdentityError> {
    let mut reader = Reader::new(bytes, WHAT);
    reader.array(7)?;
    reader.version(1)?;
    let id = LetterId(reader.exact()?);
    let (from, to) = (reader.text()?.to_owned(), reader.text()?.to_owned());
    let device = PublicKey(reader.exact()?);
    let sent_ms = reader.uint()?;
    let text = reader.text()?.to_owned();
    if text.len() > MAX_TEXT {
        return Err(IdentityError::TooLarge(WHAT));
    }
    Ok((Letter { id, from, to, sent_ms, text }, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn letter(from: &str) -> Letter {
        Letter {
            id: LetterId([7; 16]),
            from: from.into(),
            to: "sip:bob@office".into(),
            sent_ms: 1_800_000_000_123,
            text: "Grüße".into(),
        }
    }

    #[test]
    fn who_signs_is_who_wrote() {
        let rng = &mut Rng::from_seed(1);
        let (mut anna, _) = Identity::found("office", "anna", Some("100"), NOW, rng).unwrap();
        anna.delegate_phones(&["desk"], NOW).unwrap();
        let desk = anna.phone_identity("desk", NOW).unwrap();
        for (from, identity) in [("sip:anna@office", &anna), ("sip:100@office", &anna), ("sip:desk@office", &desk)] {
            let signed = SignedLetter::sign(letter(from), identity).unwrap();
            let read = SignedLetter::decode(&signed.encode()).unwrap();
            assert_eq!((read.letter(), &read), (&letter(from), &signed));
            assert_eq!(read.verify(&anna.anchor, NOW).unwrap().device, anna.device_key());
        }
        for from in ["sip:bob@office", "sip:anna@elsewhere", "anna"] {
            assert!(SignedLetter::sign(letter(from), &anna).is_err(), "{from}");
        }
        let (other, _) = Identity::found("office", "anna", None, NOW, rng).unwrap();
        let signed = SignedLetter::sign(letter("sip:anna@office"), &other).unwrap();
        assert!(signed.verify(&anna.anchor, NOW).is_err(), "another root");
        // A good signature of a device that may not speak for the address.
        let mut forged = SignedLetter::sign(letter("sip:anna@office"), &anna).unwrap();
        forged.letter.from = "sip:carol@office".into();
        forged.signature = anna.device.sign(Purpose::Letter, &encode_letter(&forged.letter, &forged.device));
        assert_eq!(forged.verify(&anna.anchor, NOW), Err(IdentityError::NotOurs));
        forged.letter.from = "sip:anna@office".into();
        assert_eq!(forged.verify(&anna.anchor, NOW), Err(IdentityError::Signature(WHAT)));
        let long = Letter { text: "x".repeat(MAX_TEXT + 1), ..letter("sip:anna@office") };
        assert_eq!(SignedLetter::sign(long, &anna), Err(IdentityError::TooLarge(WHAT)));
    }

    #[test]
    fn ids_are_text_and_back() {
        let id = LetterId::generate(&mut Rng::from_seed(3));
        assert_eq!(LetterId::from_hex(&id.to_string()), Some(id));
        for bad in ["", "00", &"g".repeat(32), &"é".repeat(16)] {
            assert_eq!(LetterId::from_hex(bad), None, "{bad}");
        }
    }
}
