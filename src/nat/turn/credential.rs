//! Credentials that nothing is stored for. A user name is `EXPIRY:WHO` (seconds since 1970), its password the base64 of HMAC-SHA1 over it
//! under a secret of this relay (draft-uberti-behave-turn-rest-00, which other servers know as `use-auth-secret`). A
//! nonce is its time of birth and an HMAC over that and the client's address, after the cookie of RFC 8489 section 9.2.
//!
//! Left out: taking a credential back before its end; the secret is made anew with every start, and that ends all.

use crate::core::{Instant, Redacted, UnixTime};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use std::net::SocketAddr;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Longest name of a user in a credential, bytes.
const WHO: usize = 128;
/// How long a nonce is taken (RFC 8656 section 5: at least an hour would be a long time for a thief; a client follows a 438 by itself).
const NONCE_LIFETIME: Duration = Duration::from_secs(600);
/// "Password algorithms" is the first of the 24 security features (RFC 8489 section 18.1).
const COOKIE: &str = "obMatJos2gAAA";

/// A relay's secret.
#[derive(Clone, Debug)]
pub struct Secret(Redacted<[u8; 32]>);

/// A user name and its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minted {
    /// USERNAME.
    pub username: String,
    /// The password of a long-term credential.
    pub password: Redacted<String>,
}

impl Secret {
    /// From randomness.
    pub fn new(bytes: [u8; 32]) -> Secret {
        Secret(Redacted::new(bytes))
    }

    /// A credential for `who`, good until `expiry`.
    pub fn mint(&self, who: &str, expiry: UnixTime) -> Minted {
        let username = format!("{}:{who}", expiry.secs());
        Minted { password: self.password(&username), username }
    }

    /// The password of a user name.
    pub fn password(&self, username: &str) -> Redacted<String> {
        Redacted::new(STANDARD.encode(self.mac::<Hmac<Sha1>>(&[username.as_bytes()])))
    }

    /// A nonce for the client at `client`.
    pub fn nonce(&self, now: Instant, client: SocketAddr) -> String {
        let born = now.as_micros() / 1_000_000;
        format!("{COOKIE}{born:010x}{}", self.nonce_mark(born, client))
    }

    /// Whether it is one of these, and not too old.
    pub fn nonce_holds(&self, now: Instant, client: SocketAddr, nonce: &str) -> bool {
        let Some(rest) = nonce.strip_prefix(COOKIE) else { return false };
        let (Some(born), Some(mark)) = (rest.get(..10), rest.get(10..)) else { return false };
        let Ok(born) = u64::from_str_radix(born, 16) else { return false };
        let age = (now.as_micros() / 1_000_000).checked_sub(born);
        let fresh = age.is_some_and(|age| age < NONCE_LIFETIME.as_secs());
        fresh && bool::from(self.nonce_mark(born, client).as_bytes().ct_eq(mark.as_bytes()))
    }

    fn nonce_mark(&self, born: u64, client: SocketAddr) -> String {
        let mark = self.mac::<Hmac<Sha256>>(&[b"nonce", &born.to_be_bytes(), client.to_string().as_bytes()]);
        mark.iter().take(8).map(|b| format!("{b:02x}")).collect()
    }

    fn mac<M: Mac + KeyInit>(&self, parts: &[&[u8]]) -> Vec<u8> {
        // HMAC takes keys of every length; an empty code is nobody's.
        let Ok(mut mac) = <M as KeyInit>::new_from_slice(self.0.reveal()) else { return Vec::new() };
        parts.iter().for_each(|p| mac.update(p));
        mac.finalize().into_bytes().to_vec()
    }
}

/// Whose a user name is, if it is one and has not expired.
pub fn who(username: &str, unix: UnixTime) -> Option<&str> {
    let (expiry, who) = username.split_once(':')?;
    let good = expiry.len() <= 12 && expiry.bytes().all(|b| b.is_ascii_digit()) && !who.is_empty() && who.len() <= WHO;
    let expiry: u64 = expiry.parse().ok()?;
    (good && expiry > unix.secs()).then_some(who)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_that_of_other_servers() {
        // python3: base64(hmac.new(b"\x2a"*32, b"1700000000:ann", sha1)).
        let minted = Secret::new([42; 32]).mint("ann", UnixTime(1_700_000_000));
        assert_eq!(
            (minted.username.as_str(), minted.password.reveal().as_str()),
            ("1700000000:ann", "hnw2PM8OnNenSjNecHQZauBbeIA=")
        );
    }

    #[test]
    fn names_expire() {
        assert_eq!(who("100:ann:x", UnixTime(99)), Some("ann:x"));
        for (name, at) in
            [("100:ann", 100), ("ann", 0), (":ann", 0), ("100:", 0), ("+100:ann", 0), ("9999999999999:a", 0)]
        {
            assert_eq!(who(name, UnixTime(at)), None, "{name}");
        }
    }

    #[test]
    fn nonces_are_of_one_client_and_for_a_while() {
        let (secret, now) = (Secret::new([1; 32]), Instant::from_millis(5_000_000));
        let (client, other) = ("192.0.2.1:5".parse().unwrap(), "192.0.2.1:6".parse().unwrap());
        let nonce = secret.nonce(now, client);
        assert!(secret.nonce_holds(now, client, &nonce));
        assert!(secret.nonce_holds(now + Duration::from_secs(599), client, &nonce));
        assert!(!secret.nonce_holds(now + Duration::from_secs(601), client, &nonce));
        assert!(!secret.nonce_holds(now, other, &nonce));
        assert!(!Secret::new([2; 32]).nonce_holds(now, client, &nonce));
        for bad in ["", "obMatJos2", "obMatJos2gAAA", "obMatJos2gAAA0000001388", "obMatJos2gAAA00000é"] {
            assert!(!secret.nonce_holds(now, client, bad), "{bad}");
        }
    }
}
