//! Requests of the client: sent again until they are answered, under the credential that the server asks for.

use super::{Client, Due, Fault, Purpose, STREAM_WAIT};
use crate::core::{Instant, Redacted};
use crate::stun::attributes::{Nonce, Realm};
use crate::stun::{Class, Integrity, Key, Message, Parsed, Seal, TransactionId, raw};
use std::time::Duration;

/// RFC 8489 section 6.2.1: seven requests, each wait twice the one before.
const RTO: Duration = Duration::from_millis(500);
const REQUESTS: u32 = 7;
/// The last wait, in RTOs.
const RM: u32 = 16;
/// How often a challenge is followed for one request; a server that goes on asking is not taken seriously.
const CHALLENGES: u8 = 3;

/// PASSWORD-ALGORITHM of SHA-256.
const SHA256: [u8; 4] = [0, 2, 0, 0];
/// How a nonce begins whose server knows RFC 8489 (section 9.2).
const COOKIE: &str = "obMatJos2";

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Code(u16),
    Silent,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) purpose: Purpose,
    bytes: Vec<u8>,
    sent: u32,
    wait: Duration,
    challenges: u8,
}

/// What the server is shown.
#[derive(Debug)]
pub(super) struct Credential {
    username: String,
    password: Redacted<String>,
    /// Of the latest challenge.
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    realm: String,
    nonce: String,
    key: Key,
    integrity: Integrity,
    /// To be sent back as it came, where SHA-256 was chosen from it.
    algorithms: Option<Vec<u8>>,
}

impl Credential {
    pub(super) fn new(username: String, password: Redacted<String>) -> Credential {
        Credential { username, password, asked: None }
    }

    /// Takes a challenge up; false where there is none in it.
    fn take(&mut self, challenge: &Message) -> bool {
        let realm = challenge.get::<Realm>().map(|r| r.text().to_owned());
        let known = self.asked.as_ref().map(|a| a.realm.clone());
        let nonce = challenge.get::<Nonce>().map(|n| n.value().to_owned());
        let (Some(realm), Some(nonce)) = (realm.or(known), nonce) else { return false };
        let offered = challenge.get_raw(raw::PASSWORD_ALGORITHMS).filter(|_| nonce.starts_with(COOKIE));
        let algorithms = offered.filter(|o| o.chunks(4).any(|a| a == SHA256)).map(<[u8]>::to_vec);
        let (user, password) = (&self.username, self.password.reveal());
        let (key, integrity) = match &algorithms {
            Some(_) => (Key::long_term_sha256(user, &realm, password), Integrity::Sha256),
            None => (Key::long_term_md5(user, &realm, password), Integrity::Sha1),
        };
        self.asked = Some(Asked { realm, nonce, key, integrity, algorithms });
        true
    }

    fn seal(&self, message: &mut Message) -> Vec<u8> {
        let Some(asked) = &self.asked else { return message.encode(Seal { key: None, fingerprint: true }) };
        message.push_credential(Some(&self.username), &asked.realm, &asked.nonce);
        if let Some(algorithms) = &asked.algorithms {
            message.push_raw(raw::PASSWORD_ALGORITHMS, algorithms);
            message.push_raw(raw::PASSWORD_ALGORITHM, &SHA256);
        }
        message.encode(Seal { key: Some((&asked.key, asked.integrity)), fingerprint: true })
    }
}

impl Client {
    pub(super) fn ask(&mut self, now: Instant, purpose: Purpose) {
        self.request(now, purpose, 0);
    }

    fn request(&mut self, now: Instant, purpose: Purpose, challenges: u8) {
        let mut id = [0; 12];
        self.rng.fill(&mut id);
        let mut message = self.message(&purpose, id);
        let bytes = self.credential.seal(&mut message);
        let wait = if self.config.transport.is_reliable() { STREAM_WAIT } else { RTO };
        self.put(super::Output::Transmit(bytes.clone()));
        self.pending.insert(id, Pending { purpose, bytes, sent: 1, wait, challenges });
        self.timers.set(Due::Request(id), now + wait);
    }

    /// An answer did not come in time.
    pub(super) fn again(&mut self, now: Instant, id: TransactionId) {
        let reliable = self.config.transport.is_reliable();
        let Some(pending) = self.pending.get_mut(&id) else { return };
        if reliable || pending.sent >= REQUESTS {
            if let Some(pending) = self.pending.remove(&id) {
                self.on_refused(pending.purpose, Refusal::Silent);
            }
            return;
        }
        pending.sent += 1;
        pending.wait = if pending.sent == REQUESTS { RTO * RM } else { pending.wait * 2 };
        let (bytes, wait) = (pending.bytes.clone(), pending.wait);
        self.put(super::Output::Transmit(bytes));
        self.timers.set(Due::Request(id), now + wait);
    }

    /// An answer, to one of these requests or to none. One that is not signed as it has to be is as none (RFC 8489 section 9.2.5):
    /// the true one may still come.
    pub(super) fn on_answer(&mut self, now: Instant, parsed: &Parsed<'_>) {
        let answer = &parsed.message;
        let Some(pending) = self.pending.get(&answer.id) else { return };
        let (method, challenges) = (self.message(&pending.purpose, answer.id).method, pending.challenges);
        if answer.method != method {
            return;
        }
        let code = answer.error_code().unwrap_or(500);
        let signed = self.credential.asked.as_ref().is_some_and(|a| parsed.verify(&a.key));
        // A challenge comes unsigned, and so does what the server could not check the credential for.
        let challenge = answer.class == Class::Error && matches!(code, 400 | 401 | 438);
        let unsigned_ok = challenge || self.credential.asked.is_none();
        if !signed && !unsigned_ok {
            self.dropped += 1;
            return;
        }
        let Some(pending) = self.pending.remove(&answer.id) else { return };
        self.timers.cancel(&Due::Request(answer.id));
        if answer.class == Class::Success {
            return self.on_success(now, pending.purpose, answer);
        }
        let first = self.credential.asked.is_none();
        let follow = match code {
            401 => first,
            438 => challenges < CHALLENGES,
            _ => false,
        };
        if !follow {
            return self.on_refused(pending.purpose, Refusal::Code(code));
        }
        if !self.credential.take(answer) {
            return self.fail(Fault::Nonsense);
        }
        self.request(now, pending.purpose, challenges + 1);
    }
}
