//! The server: making challenges, checking credentials.
//!
//! A nonce is the time it was made, 64 random bits, and a keyed hash over both, so a challenge costs no memory.
//! Only nonces that were answered rightly are remembered, with the nonce count last seen, in a table with an end.
//! When the table is full the oldest nonce goes and everything as old as it becomes stale: a forgotten nonce
//! cannot be replayed, its owner only gets a new one without anybody being asked for a password.
//!
//! Credentials without `qop` carry no count; their nonce is good for one request.
//! The `uri` of the credentials is what the response was computed over; it is not compared with the Request-URI,
//! which proxies rewrite and some phones never match. Nonce counts are what stops a replay on another URI.

use super::fields::{Fields, push_quoted, push_token};
use super::{Algorithm, Ha1, Hash, Proof, Qop, hex};
use crate::core::{Rng, UnixTime};
use std::collections::BTreeMap;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// What came of checking a request's credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request is this user's.
    Ok(String),
    /// Right password, but a nonce that is too old, unknown, or used with this count before: challenge with `stale`.
    Stale,
    /// Wrong or broken credentials: challenge again (401/407), or refuse (403).
    Bad,
    /// No credentials for this realm: challenge.
    Missing,
}

/// Makes challenges for one realm and checks the answers.
pub struct Challenger {
    realm: String,
    key: [u8; 32],
    lifetime: Duration,
    rng: Rng,
    seen: BTreeMap<Nonce, u32>,
    floor: Option<Nonce>,
    capacity: usize,
}

/// Made at, in seconds; and its random part. Ordered by age.
type Nonce = (u64, u64);

impl Challenger {
    /// For `realm`, with a secret `key` (nonces survive a restart if it does) and nonces good for `lifetime`.
    pub fn new(realm: &str, key: [u8; 32], lifetime: Duration, rng: Rng) -> Challenger {
        Challenger { realm: realm.into(), key, lifetime, rng, seen: BTreeMap::new(), floor: None, capacity: NONCES }
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// How many nonces are remembered.
    pub fn remembered(&self) -> usize {
        self.seen.len()
    }

    /// Values for WWW-Authenticate (401) or Proxy-Authenticate (407) fields, one field each, in this order.
    pub fn challenge(&mut self, now: UnixTime, stale: bool) -> [String; 2] {
        let salt = self.rng.next_u64();
        let nonce = self.nonce((now.secs(), salt));
        [Algorithm::SHA256, Algorithm::MD5].map(|algorithm| {
            let mut out = String::with_capacity(200);
            push_quoted(&mut out, "realm", &self.realm);
            push_quoted(&mut out, "nonce", &nonce);
            push_token(&mut out, "algorithm", algorithm.name());
            push_quoted(&mut out, "qop", "auth,auth-int");
            if stale {
                push_token(&mut out, "stale", "true");
            }
            out
        })
    }

    /// Checks the credentials in `headers`, the values of all Authorization (or Proxy-Authorization) fields.
    /// `lookup` gives what is kept of a user's password.
    pub fn check<'a>(
        &mut self,
        now: UnixTime,
        headers: impl IntoIterator<Item = &'a str>,
        method: &str,
        body: &[u8],
        lookup: impl FnOnce(&str) -> Option<Ha1>,
    ) -> Verdict {
        let mut broken = false;
        for header in headers {
            match Fields::parse(header) {
                Some(fields) if fields.get("realm") == Some(&self.realm) => {
                    return self.check_fields(now, &fields, method, body, lookup).unwrap_or(Verdict::Bad);
                }
                Some(_) => {}
                None => broken |= header.trim_start().get(..6).is_some_and(|s| s.eq_ignore_ascii_case("digest")),
            }
        }
        if broken { Verdict::Bad } else { Verdict::Missing }
    }

    /// None where a field is missing or malformed.
    fn check_fields(
        &mut self,
        now: UnixTime,
        fields: &Fields,
        method: &str,
        body: &[u8],
        lookup: impl FnOnce(&str) -> Option<Ha1>,
    ) -> Option<Verdict> {
        if fields.get("userhash").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            return None;
        }
        let user = fields.get("username")?;
        let algorithm = match fields.get("algorithm") {
            Some(name) => Algorithm::from_name(name)?,
            None => Algorithm::MD5,
        };
        if algorithm.hash == Hash::Sha512_256 {
            return None;
        }
        let qop = match fields.get("qop") {
            Some(name) => Some(Qop::from_name(name)?),
            None => None,
        };
        let nc = fields.get("nc").unwrap_or("");
        let count = match qop {
            Some(_) => u32::from_str_radix(nc, 16).ok().filter(|n| *n > 0)?,
            None => 1,
        };
        let cnonce = fields.get("cnonce");
        if cnonce.is_none() && (qop.is_some() || algorithm.session) {
            return None;
        }
        let nonce = fields.get("nonce")?;
        let uri = fields.get("uri")?;
        let proof = Proof { algorithm, nonce, cnonce: cnonce.unwrap_or(""), nc, qop, method, uri, body };
        // An unknown user costs the same work as a known one.
        let found = lookup(user);
        let known = found.is_some();
        let ha1 = found.unwrap_or(Ha1 { md5: [0; 16], sha256: [0; 32] });
        let expected = proof.response(ha1.hex(algorithm.hash)?);
        let given = fields.get("response")?.to_ascii_lowercase();
        let right: bool = expected.as_bytes().ct_eq(given.as_bytes()).into();
        if !(right && known) {
            return Some(Verdict::Bad);
        }
        Some(match self.read(nonce).filter(|n| self.use_nonce(now, *n, count)) {
            Some(_) => Verdict::Ok(user.into()),
            None => Verdict::Stale,
        })
    }

    /// Notes that `nonce` was used with `count`; false if it may not be.
    fn use_nonce(&mut self, now: UnixTime, nonce: Nonce, count: u32) -> bool {
        let age = self.lifetime.as_secs();
        // A nonce from the future is one from before the clock was set back.
        if nonce.0.saturating_add(age) < now.secs() || nonce.0 > now.secs().saturating_add(age) {
            return false;
        }
        if let Some(last) = self.seen.get_mut(&nonce) {
            let rises = count > *last;
            *last = count.max(*last);
            return rises;
        }
        if self.floor.is_some_and(|floor| nonce <= floor) {
            return false;
        }
        while self.seen.first_key_value().is_some_and(|(n, _)| n.0.saturating_add(age) < now.secs()) {
            self.seen.pop_first();
        }
        if self.seen.len() >= self.capacity {
            self.floor = self.seen.pop_first().map(|(n, _)| n).max(self.floor);
            if self.floor.is_some_and(|floor| nonce <= floor) {
                return false;
            }
        }
        self.seen.insert(nonce, count);
        true
    }

    fn nonce(&self, (made, salt): Nonce) -> String {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&made.to_be_bytes());
        bytes[8..16].copy_from_slice(&salt.to_be_bytes());
        let seal = blake3::keyed_hash(&self.key, &bytes[..16]);
        bytes[16..].copy_from_slice(&seal.as_bytes()[..16]);
        hex(&bytes)
    }

    /// A nonce of ours, or none.
    fn read(&self, text: &str) -> Option<Nonce> {
        let made = u64::from_str_radix(text.get(..16)?, 16).ok()?;
        let salt = u64::from_str_radix(text.get(16..32)?, 16).ok()?;
        let ours: bool = self.nonce((made, salt)).as_bytes().ct_eq(text.as_bytes()).into();
        ours.then_some((made, salt))
    }

    #[cfg(test)]
    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }
}

/// The user that credentials for `realm` are given for; nothing is proven by that.
pub fn claimed(credentials: &str, realm: &str) -> Option<String> {
    let fields = Fields::parse(credentials)?;
    (fields.get("realm") == Some(realm)).then(|| fields.get("username").unwrap_or_default().to_owned())
}

/// Nonces remembered against replay; about 3 MB when full.
const NONCES: usize = 65_536;
