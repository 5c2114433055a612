//! Who sent a request (RFC 8489 section 9.2.4).

use super::super::credential::who;
use super::super::table::Path;
use super::{Proved, Server};
use crate::core::Instant;
use crate::stun::attributes::{Nonce, Realm, Username};
use crate::stun::{Key, Message, Parsed, raw};

/// PASSWORD-ALGORITHMS of this relay: SHA-256, then MD5, without parameters.
const ALGORITHMS: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];

impl Server {
    /// The request with its sender; otherwise it is answered here.
    pub(super) fn prove<'a>(&mut self, now: Instant, path: Path, parsed: &'a Parsed<'_>) -> Option<Proved<'a>> {
        let message = &parsed.message;
        let Some(integrity) = parsed.integrity() else {
            self.challenge(now, path, parsed, 401);
            return None;
        };
        let texts = (message.get::<Username>(), message.get::<Realm>(), message.get::<Nonce>());
        let (Some(username), Some(realm), Some(nonce)) = texts else {
            self.counters.unproven += 1;
            self.answer_unproven(now, path, &message.error(400), parsed.fingerprint);
            return None;
        };
        let Ok(sha256) = algorithm(message) else {
            self.counters.unproven += 1;
            self.answer_unproven(now, path, &message.error(400), parsed.fingerprint);
            return None;
        };
        // The nonce first: it costs the least, and one that is too old comes from every honest client.
        let holds = |client| self.config.secret.nonce_holds(now, client, nonce.value());
        // Clients take that of the allocation along to the connection that a peer's is to be joined to.
        if !holds(path.client()) && !self.allocation_to_join(message).is_some_and(holds) {
            self.challenge(now, path, parsed, 438);
            return None;
        }
        let username = username.name();
        let owner = who(username, self.unix(now)).filter(|_| realm.text() == self.config.realm);
        let password = self.config.secret.password(username);
        let key = match sha256 {
            true => Key::long_term_sha256(username, realm.text(), password.reveal()),
            false => Key::long_term_md5(username, realm.text(), password.reveal()),
        };
        let Some(owner) = owner.filter(|_| parsed.verify(&key)) else {
            self.challenge(now, path, parsed, 401);
            return None;
        };
        Some(Proved {
            path,
            message,
            username: username.to_owned(),
            who: owner.to_owned(),
            key,
            integrity,
            fingerprint: parsed.fingerprint,
        })
    }

    fn challenge(&mut self, now: Instant, path: Path, parsed: &Parsed<'_>, code: u16) {
        self.counters.unproven += 1;
        let mut answer = parsed.message.error(code);
        answer.push_credential(None, &self.config.realm, &self.config.secret.nonce(now, path.client()));
        answer.push_raw(raw::PASSWORD_ALGORITHMS, &ALGORITHMS);
        self.answer_unproven(now, path, &answer, parsed.fingerprint);
    }
}

/// Whether the password goes through SHA-256. An error where the list that was offered did not come back whole: somebody on the way
/// wants the weaker one.
fn algorithm(message: &Message) -> Result<bool, ()> {
    match (message.get_raw(raw::PASSWORD_ALGORITHMS), message.get_raw(raw::PASSWORD_ALGORITHM)) {
        (None, None) => Ok(false),
        (Some(all), Some([0, 2, 0, 0])) if all == ALGORITHMS => Ok(true),
        (Some(all), Some([0, 1, 0, 0])) if all == ALGORITHMS => Ok(false),
        _ => Err(()),
    }
}
