//! Who calls and who answers, across two overlays: a header field in the INVITE (or MESSAGE) signed by the caller's device,
//! and one in the final answer signed by the callee's. The supernodes between them carry it and cannot make it.
//!
//! `Key-Proof:` base32 of `[1, issued, chain, [token name, MAC] | null, signature]`. Signed, as [`Purpose::CallProof`], is
//! `[1, side, method, Call-ID, From tag, caller, callee, issued, BLAKE3 of the body, token name | null]`, side 0 of the caller
//! and 1 of the callee, both as canonical AORs. The MAC is BLAKE3 over the same bytes, keyed by the token.

use super::armour::{base32, from_base32};
use super::cbor::{Reader, Writer, canonical};
use super::{CLOCK_SKEW, Chain, Foreign, Identity, IdentityError, Purpose, RingToken, split_aor};
use crate::core::UnixTime;

/// The header field.
pub const PROOF_HEADER: &str = "Key-Proof";

const WHAT: &str = "proof of a call";
/// Longest value, in symbols.
const MAX_TEXT: usize = 8 * 1024;

/// Which end says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// In the request.
    Caller,
    /// In its answer.
    Callee,
}

/// What a proof is about, as the message has it.
#[derive(Clone, Copy, Debug)]
pub struct Said<'m> {
    /// Which end says it.
    pub side: Side,
    /// The request's method.
    pub method: &'m str,
    /// Its Call-ID.
    pub call_id: &'m str,
    /// The tag in From.
    pub tag: &'m str,
    /// The canonical AOR in From.
    pub caller: &'m str,
    /// The canonical AOR in To.
    pub callee: &'m str,
    /// The body of the message that carries the proof.
    pub body: &'m [u8],
}

impl Said<'_> {
    fn bytes(&self, issued: UnixTime, token: Option<&[u8; 8]>) -> Vec<u8> {
        let mut writer = Writer::array(10);
        writer.uint(1).uint(matches!(self.side, Side::Callee).into()).text(self.method).text(self.call_id);
        writer.text(self.tag).text(self.caller).text(self.callee).uint(issued.secs());
        writer.bytes(blake3::hash(self.body).as_bytes());
        match token {
            Some(name) => writer.bytes(name),
            None => writer.null(),
        };
        writer.finish()
    }

    /// The AOR of whoever says it.
    fn speaker(&self) -> &str {
        if self.side == Side::Caller { self.caller } else { self.callee }
    }
}

/// One end's proof.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallProof {
    issued: UnixTime,
    chain: Chain,
    token: Option<([u8; 8], [u8; 32])>,
    signature: [u8; 64],
}

impl CallProof {
    /// Signs as `identity`'s device, with the proof of a token where there is one.
    pub fn sign(said: &Said<'_>, identity: &Identity, token: Option<&RingToken>, now: UnixTime) -> CallProof {
        let name = token.map(RingToken::name);
        let bytes = said.bytes(now, name.as_ref());
        let mac = token.map(|token| *blake3::keyed_hash(&token.proof_key(), &bytes).as_bytes());
        let signature = identity.device.sign(Purpose::CallProof, &bytes);
        CallProof { issued: now, chain: identity.chain.clone(), token: name.zip(mac), signature }
    }

    /// The value of the header field.
    pub fn text(&self) -> String {
        base32(&self.encode())
    }

    /// Reads what [`CallProof::text`] writes and nothing else. Verifies nothing.
    ///
    /// # Errors
    /// `Malformed`, `NotCanonical`, `TooLarge`.
    pub fn parse(text: &str) -> Result<CallProof, IdentityError> {
        let bytes = from_base32(text, MAX_TEXT).ok_or(IdentityError::Malformed(WHAT))?;
        let mut reader = Reader::new(&bytes, WHAT);
        reader.array(5)?;
        reader.version(1)?;
        let issued = UnixTime(reader.uint()?);
        let chain = Chain::read(&mut reader)?;
        let token = match reader.is_null() {
            true => None,
            false => {
                reader.array(2)?;
                Some((reader.exact()?, reader.exact()?))
            }
        };
        let proof = CallProof { issued, chain, token, signature: reader.exact()? };
        canonical(&bytes, &proof.encode(), WHAT)?;
        Ok(proof)
    }

    /// Whose word it is: checks the chain in itself, that it may speak for the AOR, the age (300 s) and the signature.
    ///
    /// # Errors
    /// What does not hold.
    pub fn verify(&self, said: &Said<'_>, now: UnixTime) -> Result<Foreign, IdentityError> {
        let age = now.secs().abs_diff(self.issued.secs());
        if age > CLOCK_SKEW.as_secs() {
            return Err(IdentityError::Proof("is too old, or a clock is wrong"));
        }
        let (user, overlay) = split_aor(said.speaker()).ok_or(IdentityError::Proof("names no address"))?;
        let foreign = Foreign::of(&self.chain, now)?;
        if foreign.overlay() != overlay || !foreign.verified.speaks_for(user) {
            return Err(IdentityError::Proof("is another user's"));
        }
        let bytes = said.bytes(self.issued, self.token.as_ref().map(|(name, _)| name));
        if !foreign.verified.device.verify(Purpose::CallProof, &bytes, &self.signature) {
            return Err(IdentityError::Proof("is not signed by that device, or for another call"));
        }
        Ok(foreign)
    }

    /// The name of the token that it claims to have.
    pub fn token_name(&self) -> Option<[u8; 8]> {
        self.token.map(|(name, _)| name)
    }

    /// True when whoever signed has this token. Of a proof that [`CallProof::verify`] took.
    pub fn proves(&self, said: &Said<'_>, token: &RingToken) -> bool {
        let Some((name, mac)) = &self.token else { return false };
        let right = blake3::keyed_hash(&token.proof_key(), &said.bytes(self.issued, Some(name)));
        // blake3::Hash compares in constant time.
        *name == token.name() && right == blake3::Hash::from_bytes(*mac)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(5);
        writer.uint(1).uint(self.issued.secs()).raw(self.chain.encoded());
        match &self.token {
            Some((name, mac)) => writer.nested(2).bytes(name).bytes(mac),
            None => writer.null(),
        };
        writer.bytes(&self.signature);
        writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Rng;
    use crate::identity::Root;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn said<'a>() -> Said<'a> {
        Said {
            side: Side::Caller,
            method: "INVITE",
            call_id: "c@x",
            tag: "t",
            caller: "sip:anna@a.office",
            callee: "sip:bob@b.office",
            body: b"v=0",
        }
    }

    fn anna() -> Identity {
        let rng = &mut Rng::from_seed(1);
        Identity::found("a.office", "anna", Some("100"), NOW, rng).expect("names").0
    }

    #[test]
    fn a_proof_holds_for_its_call_and_no_other() {
        let anna = anna();
        let proof = CallProof::sign(&said(), &anna, None, NOW);
        let read = CallProof::parse(&proof.text()).expect("own");
        assert_eq!(read, proof);
        let foreign = read.verify(&said(), NOW).expect("right");
        assert_eq!((foreign.overlay(), foreign.root()), ("a.office", Root::of(&anna.anchor)));
        for other in [
            Said { side: Side::Callee, callee: "sip:anna@a.office", ..said() },
            Said { method: "MESSAGE", ..said() },
            Said { call_id: "d@x", ..said() },
            Said { tag: "u", ..said() },
            Said { caller: "sip:ben@a.office", ..said() },
            Said { caller: "sip:anna@b.office", ..said() },
            Said { caller: "sip:100@a.office", ..said() },
            Said { callee: "sip:eve@b.office", ..said() },
            Said { body: b"v=1", ..said() },
        ] {
            assert!(read.verify(&other, NOW).is_err(), "{other:?}");
        }
        let late = NOW + std::time::Duration::from_secs(400);
        assert_eq!(read.verify(&said(), late), Err(IdentityError::Proof("is too old, or a clock is wrong")));
        // The extension is anna's too, when it is what she signed.
        let as_extension = Said { caller: "sip:100@a.office", ..said() };
        assert!(CallProof::sign(&as_extension, &anna, None, NOW).verify(&as_extension, NOW).is_ok());
    }

    #[test]
    fn a_phone_behind_an_adapter_has_a_proof() {
        let mut anna = anna();
        anna.delegate_phones(&["201"], NOW).expect("free");
        let said = Said { caller: "sip:201@a.office", ..said() };
        assert!(CallProof::sign(&said, &anna, None, NOW).verify(&said, NOW).is_err(), "not without the certificate");
        let phone = anna.phone_identity("201", NOW).expect("delegated");
        assert!(CallProof::sign(&said, &phone, None, NOW).verify(&said, NOW).is_ok());
    }

    #[test]
    fn a_token_is_proven_and_not_shown() {
        let (anna, rng) = (anna(), &mut Rng::from_seed(2));
        let (token, other) = (RingToken::generate(rng), RingToken::generate(rng));
        let proof = CallProof::sign(&said(), &anna, Some(&token), NOW);
        assert!(proof.verify(&said(), NOW).is_ok());
        assert!(proof.proves(&said(), &token) && !proof.proves(&said(), &other));
        assert!(!proof.proves(&Said { call_id: "d@x", ..said() }, &token));
        assert!(!proof.encode().windows(10).any(|w| w == token.secret()));
        assert!(!CallProof::sign(&said(), &anna, None, NOW).proves(&said(), &token));
    }

    #[test]
    fn damaged_proofs() {
        let (anna, rng) = (anna(), &mut Rng::from_seed(5));
        let token = RingToken::generate(rng);
        let good = CallProof::sign(&said(), &anna, Some(&token), NOW);
        let (bytes, mut read) = (good.encode(), 0);
        for _ in 0..10_000 {
            let mut bytes = bytes.clone();
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(4) {
                0 | 1 => bytes[at] ^= 1 << rng.below(8),
                2 => bytes.truncate(at),
                _ => bytes.insert(at, rng.next_u32() as u8),
            }
            if let Ok(proof) = CallProof::parse(&base32(&bytes)) {
                read += 1;
                let holds = proof.verify(&said(), NOW).is_ok() && proof.proves(&said(), &token);
                assert!(!holds, "a damaged proof holds");
            }
        }
        assert!(read > 1000, "{read} were read");
        for text in ["", "a", "!", &"0".repeat(9000)] {
            assert!(CallProof::parse(text).is_err());
        }
    }
}
