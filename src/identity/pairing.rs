//! Joining by a short code that stands on the inviter's screen: SPAKE2 (RFC 9382's protocol, in the form of the `spake2` crate over
//! edwards25519) turns six digits into a key, by which the inviter hands over the long invite code. The rest is an enrolment
//! like every other ([`super::Joining`]).
//!
//! | | joiner to inviter | inviter to joiner |
//! |---|---|---|
//! | 1 | `[1, 1, SPAKE2 message A (33), joiner's link key (32)]` | `[1, 1, session (16), SPAKE2 message B (33)]` |
//! | 2 | `[1, 2, session, BLAKE3 keyed (32)]` | `[1, 2, nonce (24) and XChaCha20-Poly1305 of the invite code]` |
//!
//! **Who sits between fails.** SPAKE2's identities are both ends' link keys: the joiner names its own and the one that the link's
//! handshake proved to it, the inviter its own. Whoever relays between two links of his own shows another key on one of
//! them, the ends' keys differ, and the joiner's proof is wrong. The joiner proves first, so that somebody who poses as a joiner
//! learns nothing by which to check a guess, and each guess costs a try: [`MAX_PAIRING_TRIES`], then the invite is void. Somebody who
//! poses as the inviter gets one guess at the code for each time that a person types it in: one in a million.
//! The office's root comes in the invite code, sealed by that key; it is the joiner's word for the office from then on.

use super::cbor::{Reader, Writer, canonical};
use super::{IdentityError, InviteCode, PublicKey};
use crate::core::{Redacted, Rng};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand_core::SeedableRng;
use spake2::{Ed25519Group, Identity as Name, Password, Spake2};
use zeroize::Zeroizing;

/// Content type of both bodies.
pub const PAIRING_TYPE: &str = "application/chordial-pairing+cbor";
/// Wrong codes after which an invite is void.
pub const MAX_PAIRING_TRIES: u8 = 3;
/// Digits of a code.
const DIGITS: usize = 6;

const WHAT: &str = "pairing message";
const MESSAGE: usize = 33;
const NONCE: usize = 24;
const MAX_SEALED: usize = 512;

/// Six digits, drawn for one invite.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShortCode(Redacted<String>);

impl ShortCode {
    /// A new code.
    pub fn generate(rng: &mut Rng) -> ShortCode {
        ShortCode(Redacted::new(format!("{:06}", rng.below(1_000_000))))
    }

    /// Reads what was typed: six digits, blanks and dashes anywhere.
    pub fn parse(text: &str) -> Option<ShortCode> {
        let digits: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
        let good = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
        good.then(|| ShortCode(Redacted::new(digits)))
    }

    /// The code as it is shown: `123 456`.
    pub fn text(&self) -> String {
        let (a, b) = self.0.reveal().split_at(DIGITS / 2);
        format!("{a} {b}")
    }
}

/// What a joiner sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PairingRequest {
    /// Its half of the exchange.
    Hello {
        /// SPAKE2, side A.
        message: [u8; MESSAGE],
        /// The key of its link.
        key: PublicKey,
    },
    /// That it has the code.
    Proof {
        /// Of the answer to the first.
        session: [u8; 16],
        /// Over both halves, by the common key.
        proof: [u8; 32],
    },
}

/// What an inviter answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PairingAnswer {
    /// Its half of the exchange.
    Hello {
        /// Names the exchange.
        session: [u8; 16],
        /// SPAKE2, side B.
        message: [u8; MESSAGE],
    },
    /// The invite, sealed.
    Invite(Vec<u8>),
}

impl PairingRequest {
    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(4);
        match self {
            PairingRequest::Hello { message, key } => writer.uint(1).uint(1).bytes(message).bytes(&key.0),
            PairingRequest::Proof { session, proof } => writer.uint(1).uint(2).bytes(session).bytes(proof),
        };
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<PairingRequest, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(4)?;
        reader.version(1)?;
        let request = match reader.uint()? {
            1 => PairingRequest::Hello { message: reader.exact()?, key: PublicKey(reader.exact()?) },
            2 => PairingRequest::Proof { session: reader.exact()?, proof: reader.exact()? },
            _ => return Err(IdentityError::Malformed(WHAT)),
        };
        canonical(bytes, &request.encode(), WHAT)?;
        Ok(request)
    }
}

impl PairingAnswer {
    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer;
        match self {
            PairingAnswer::Hello { session, message } => {
                writer = Writer::array(4);
                writer.uint(1).uint(1).bytes(session).bytes(message);
            }
            PairingAnswer::Invite(sealed) => {
                writer = Writer::array(3);
                writer.uint(1).uint(2).bytes(sealed);
            }
        }
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<PairingAnswer, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        let items = reader.list(4)?;
        reader.version(1)?;
        let answer = match (reader.uint()?, items) {
            (1, 4) => PairingAnswer::Hello { session: reader.exact()?, message: reader.exact()? },
            (2, 3) => PairingAnswer::Invite(reader.bytes()?.to_vec()),
            _ => return Err(IdentityError::Malformed(WHAT)),
        };
        if matches!(&answer, PairingAnswer::Invite(sealed) if sealed.len() > MAX_SEALED) {
            return Err(IdentityError::TooLarge(WHAT));
        }
        canonical(bytes, &answer.encode(), WHAT)?;
        Ok(answer)
    }
}

/// The joiner, between its first message and the answer.
pub struct PairingJoiner {
    spake: Spake2<Ed25519Group>,
    message: [u8; MESSAGE],
    key: PublicKey,
}

impl PairingJoiner {
    /// With the code that was typed in, the joiner's own link key and the one that the link proved for the inviter.
    pub fn new(code: &ShortCode, own: PublicKey, inviter: PublicKey, rng: &mut Rng) -> PairingJoiner {
        let (spake, message) = begin(true, code, &own, &inviter, rng);
        PairingJoiner { spake, message, key: own }
    }

    /// The first message.
    pub fn hello(&self) -> PairingRequest {
        PairingRequest::Hello { message: self.message, key: self.key }
    }

    /// The second message, and the key that opens the answer to it.
    pub fn prove(self, answer: &PairingAnswer) -> Result<(PairingRequest, PairingKey), IdentityError> {
        let PairingAnswer::Hello { session, message } = answer else { return Err(IdentityError::Malformed(WHAT)) };
        let key = finish(self.spake, message)?;
        let proof = key.proof(session, &self.message, message);
        Ok((PairingRequest::Proof { session: *session, proof }, key))
    }
}

/// The inviter, until the joiner has proven that it has the code.
pub struct PairingInviter {
    /// Names the exchange.
    pub session: [u8; 16],
    messages: [[u8; MESSAGE]; 2],
    key: PairingKey,
}

impl PairingInviter {
    /// Answers a joiner's first message; `own` is this device's link key. `Malformed` when it is no such message.
    pub fn new(code: &ShortCode, own: PublicKey, hello: &PairingRequest, rng: &mut Rng) -> Result<Self, IdentityError> {
        let PairingRequest::Hello { message: theirs, key } = hello else { return Err(IdentityError::Malformed(WHAT)) };
        let (spake, ours) = begin(false, code, key, &own, rng);
        let mut session = [0; 16];
        rng.fill(&mut session);
        Ok(PairingInviter { session, messages: [*theirs, ours], key: finish(spake, theirs)? })
    }

    /// The answer to the first message. It says nothing about the code.
    pub fn hello(&self) -> PairingAnswer {
        PairingAnswer::Hello { session: self.session, message: self.messages[1] }
    }

    /// The invite, sealed, when `proof` is right; takes the same time either way. One proof an exchange.
    pub fn invite(self, proof: &[u8; 32], code: &InviteCode, rng: &mut Rng) -> Option<PairingAnswer> {
        let right = self.key.proof(&self.session, &self.messages[0], &self.messages[1]);
        // blake3::Hash compares in constant time.
        if blake3::Hash::from_bytes(right) != blake3::Hash::from_bytes(*proof) {
            return None;
        }
        let mut nonce = [0; NONCE];
        rng.fill(&mut nonce);
        let text = Zeroizing::new(code.text());
        let cipher = XChaCha20Poly1305::new(&(*self.key.derive("chordial pairing seal v1")).into());
        let payload = Payload { msg: text.as_bytes(), aad: &self.session };
        let mut sealed = nonce.to_vec();
        sealed.extend(cipher.encrypt(&XNonce::from(nonce), payload).ok()?);
        Some(PairingAnswer::Invite(sealed))
    }
}

impl std::fmt::Debug for PairingInviter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PairingInviter")
    }
}

/// What both ends have in common when both have the code and the link is one.
pub struct PairingKey(Zeroizing<Vec<u8>>);

impl PairingKey {
    /// Opens the invite. `None`: whoever answered does not have the code.
    pub fn open(&self, session: &[u8; 16], answer: &PairingAnswer) -> Option<InviteCode> {
        let PairingAnswer::Invite(sealed) = answer else { return None };
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        let cipher = XChaCha20Poly1305::new(&(*self.derive("chordial pairing seal v1")).into());
        let payload = Payload { msg: sealed, aad: session };
        let text = Zeroizing::new(cipher.decrypt(&XNonce::from(*nonce), payload).ok()?);
        InviteCode::parse(std::str::from_utf8(&text).ok()?).ok()
    }

    fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(purpose, &self.0))
    }

    fn proof(&self, session: &[u8; 16], a: &[u8; MESSAGE], b: &[u8; MESSAGE]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.derive("chordial pairing proof v1"));
        hasher.update(session).update(a).update(b);
        *hasher.finalize().as_bytes()
    }
}

fn begin(
    joiner: bool,
    code: &ShortCode,
    joins: &PublicKey,
    invites: &PublicKey,
    rng: &mut Rng,
) -> (Spake2<Ed25519Group>, [u8; MESSAGE]) {
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill(&mut *seed);
    let draws = rand_chacha::ChaCha20Rng::from_seed(*seed);
    let password = Password::new(code.0.reveal().as_bytes());
    let name = |role: &[u8], key: &PublicKey| Name::new(&[role, &key.0].concat());
    let (a, b) = (name(b"chordial joiner ", joins), name(b"chordial inviter ", invites));
    let (spake, sent) = match joiner {
        true => Spake2::start_a_with_rng(&password, &a, &b, draws),
        false => Spake2::start_b_with_rng(&password, &a, &b, draws),
    };
    let mut message = [0; MESSAGE];
    message.copy_from_slice(&sent[..MESSAGE]);
    (spake, message)
}

fn finish(spake: Spake2<Ed25519Group>, message: &[u8; MESSAGE]) -> Result<PairingKey, IdentityError> {
    let key = spake.finish(message).map_err(|_| IdentityError::Malformed(WHAT))?;
    Ok(PairingKey(Zeroizing::new(key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{KeyPair, RootFingerprint};

    struct Ends {
        rng: Rng,
        joiner: PublicKey,
        inviter: PublicKey,
        invite: InviteCode,
        code: ShortCode,
    }

    fn ends(seed: u64) -> Ends {
        let mut rng = Rng::from_seed(seed);
        let [joiner, inviter] = [1, 2].map(|_| KeyPair::generate(&mut rng).public());
        let invite = InviteCode::generate(RootFingerprint([7; 16]), &[], &mut rng);
        let code = ShortCode::generate(&mut rng);
        Ends { rng, joiner, inviter, invite, code }
    }

    impl Ends {
        /// The whole exchange; `typed` is the joiner's code, `seen` the key that its link shows, `from` whatever somebody between
        /// makes of the joiner's first message.
        fn run(
            &mut self,
            typed: &str,
            seen: PublicKey,
            from: impl Fn(PairingRequest) -> PairingRequest,
        ) -> Option<InviteCode> {
            let typed = ShortCode::parse(typed).expect("six digits");
            let joiner = PairingJoiner::new(&typed, self.joiner, seen, &mut self.rng);
            let hello = PairingRequest::decode(&from(joiner.hello()).encode()).expect("own");
            let inviter = PairingInviter::new(&self.code, self.inviter, &hello, &mut self.rng).expect("a hello");
            let session = inviter.session;
            let answer = PairingAnswer::decode(&inviter.hello().encode()).expect("own");
            let (proof, key) = joiner.prove(&answer).expect("a hello");
            let PairingRequest::Proof { proof, .. } = PairingRequest::decode(&proof.encode()).expect("own") else {
                panic!("a proof")
            };
            let sealed = inviter.invite(&proof, &self.invite, &mut self.rng)?;
            key.open(&session, &PairingAnswer::decode(&sealed.encode()).expect("own"))
        }
    }

    #[test]
    fn the_code_hands_over_the_invite() {
        let mut ends = ends(1);
        let (shown, inviter, invite) = (ends.code.text(), ends.inviter, ends.invite.clone());
        assert_eq!(ends.run(&shown, inviter, |hello| hello), Some(invite.clone()));
        assert_eq!(ends.run(&shown.replace(' ', ""), inviter, |hello| hello), Some(invite));
        assert!(!format!("{:?}", ends.code).contains(&shown.replace(' ', "")));
        for bad in ["", "12345", "1234567", "12345a", "abcdef"] {
            assert_eq!(ShortCode::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_wrong_code_gets_nothing() {
        let mut ends = ends(2);
        let (shown, inviter) = (ends.code.text().replace(' ', ""), ends.inviter);
        for n in 0..50u32 {
            let wrong = format!("{n:06}");
            assert_eq!(ends.run(&wrong, inviter, |hello| hello).is_some(), wrong == shown);
        }
    }

    /// Somebody between the two has links of his own to both, and passes everything on.
    #[test]
    fn who_sits_between_and_relays_fails() {
        let mut ends = ends(3);
        let (shown, inviter) = (ends.code.text(), ends.inviter);
        let between = KeyPair::generate(&mut ends.rng).public();
        // The joiner's link shows his key instead of the inviter's.
        assert_eq!(ends.run(&shown, between, |hello| hello), None);
        // He names his own key to the inviter, so that the invite would be for him.
        let named = |hello| match hello {
            PairingRequest::Hello { message, .. } => PairingRequest::Hello { message, key: between },
            other => other,
        };
        assert_eq!(ends.run(&shown, inviter, named), None);
        assert_eq!(ends.run(&shown, between, named), None);
    }

    #[test]
    fn who_poses_as_the_inviter_learns_nothing_without_the_code() {
        let mut ends = ends(4);
        let code = ends.code.clone();
        let joiner = PairingJoiner::new(&code, ends.joiner, ends.inviter, &mut ends.rng);
        let guess = ShortCode::parse("000000").expect("digits");
        let posing = PairingInviter::new(&guess, ends.inviter, &joiner.hello(), &mut ends.rng).expect("a hello");
        let session = posing.session;
        let (proof, key) = joiner.prove(&posing.hello()).expect("a hello");
        let PairingRequest::Proof { proof, .. } = proof else { panic!("a proof") };
        let invite = ends.invite.clone();
        assert_eq!(posing.invite(&proof, &invite, &mut ends.rng), None);
        for sealed in [vec![], vec![0; 60], vec![7; 200]] {
            assert_eq!(key.open(&session, &PairingAnswer::Invite(sealed)), None);
        }
    }

    #[test]
    fn damaged_messages() {
        let mut ends = ends(5);
        let joiner = PairingJoiner::new(&ends.code, ends.joiner, ends.inviter, &mut ends.rng);
        let hello = joiner.hello();
        let inviter = PairingInviter::new(&ends.code, ends.inviter, &hello, &mut ends.rng).expect("a hello");
        let answer = inviter.hello();
        let seeds = [
            hello.encode(),
            answer.encode(),
            PairingRequest::Proof { session: [1; 16], proof: [2; 32] }.encode(),
            PairingAnswer::Invite(vec![3; 100]).encode(),
        ];
        let rng = &mut Rng::from_seed(6);
        for _ in 0..10_000 {
            for seed in &seeds {
                let bytes = super::super::mutation_tests::damage(seed, rng);
                assert!(PairingRequest::decode(&bytes).map_or(true, |r| r.encode() == bytes));
                assert!(PairingAnswer::decode(&bytes).map_or(true, |r| r.encode() == bytes));
            }
        }
        for _ in 0..500 {
            let bytes = super::super::mutation_tests::damage(&seeds[0], rng);
            if let Ok(hello) = PairingRequest::decode(&bytes) {
                let _ = PairingInviter::new(&ends.code, ends.inviter, &hello, rng);
            }
        }
    }
}
