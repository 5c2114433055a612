//! Digest access authentication, both sides (RFC 3261 section 22, RFC 7616, RFC 8760; RFC 2617 peers).
//!
//! [`answer`] makes the credentials a client sends; [`choose`] picks the challenge to answer: the topmost one whose
//! algorithm and quality of protection are known here, which is the server's preference (RFC 8760 section 2.4).
//! [`Challenger`] is the server: it keeps no state for a challenge that nobody answers.
//!
//! Algorithms: MD5, SHA-256, SHA-512-256 and their `-sess` variants; the server offers SHA-256 and MD5.
//! Protection: `auth`, `auth-int`, and none (RFC 2069), the last also for clients that omit it.
//!
//! Left out: `userhash` and `username*` (RFC 7616; no SIP phone sends them, and refusing them leaks nothing),
//! the proof in Authentication-Info (its next nonce is read), `Basic` (forbidden by RFC 3261 section 22).

mod client;
mod fields;
mod server;

#[cfg(test)]
mod tests;

pub use client::{AuthError, Challenge, Credentials, answer, choose, next_nonce};
pub use server::{Challenger, Verdict, claimed};

use md5::{Digest, Md5};
use sha2::{Sha256, Sha512_256};

/// A hash algorithm of the digest scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithm {
    /// The hash function.
    pub hash: Hash,
    /// The `-sess` variant: HA1 is bound to the nonces.
    pub session: bool,
}

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// RFC 1321; for phones that know nothing better.
    Md5,
    /// FIPS 180-4.
    Sha256,
    /// SHA-512/256 of FIPS 180-4.
    Sha512_256,
}

impl Algorithm {
    /// MD5, also what a challenge without `algorithm` means.
    pub const MD5: Algorithm = Algorithm { hash: Hash::Md5, session: false };
    /// SHA-256.
    pub const SHA256: Algorithm = Algorithm { hash: Hash::Sha256, session: false };

    /// Reads the value of `algorithm`, in any case.
    pub fn from_name(name: &str) -> Option<Algorithm> {
        ALL.into_iter().find(|a| name.eq_ignore_ascii_case(a.name()))
    }

    /// The value of `algorithm`.
    pub const fn name(self) -> &'static str {
        match (self.hash, self.session) {
            (Hash::Md5, false) => "MD5",
            (Hash::Md5, true) => "MD5-sess",
            (Hash::Sha256, false) => "SHA-256",
            (Hash::Sha256, true) => "SHA-256-sess",
            (Hash::Sha512_256, false) => "SHA-512-256",
            (Hash::Sha512_256, true) => "SHA-512-256-sess",
        }
    }
}

impl Hash {
    /// Hash of the parts joined by colons, in lower-case hexadecimal.
    fn hex(self, parts: &[&[u8]]) -> String {
        match self {
            Hash::Md5 => hex(&joined::<Md5>(parts)),
            Hash::Sha256 => hex(&joined::<Sha256>(parts)),
            Hash::Sha512_256 => hex(&joined::<Sha512_256>(parts)),
        }
    }
}

/// What a server keeps instead of a password: the hash of user, realm and password under each algorithm it offers.
/// It is as good as the password within the realm: keep it as secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Ha1 {
    /// MD5(user:realm:password).
    pub md5: [u8; 16],
    /// SHA-256(user:realm:password).
    pub sha256: [u8; 32],
}

impl Ha1 {
    /// From a password.
    pub fn new(user: &str, realm: &str, password: &str) -> Ha1 {
        let parts = [user.as_bytes(), realm.as_bytes(), password.as_bytes()];
        Ha1 { md5: joined::<Md5>(&parts).into(), sha256: joined::<Sha256>(&parts).into() }
    }

    /// In hexadecimal for one hash; none for a hash that is not kept.
    fn hex(&self, hash: Hash) -> Option<String> {
        match hash {
            Hash::Md5 => Some(hex(&self.md5)),
            Hash::Sha256 => Some(hex(&self.sha256)),
            Hash::Sha512_256 => None,
        }
    }
}

impl std::fmt::Debug for Ha1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ha1[redacted]")
    }
}

/// Quality of protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qop {
    Auth,
    AuthInt,
}

/// What a response is computed over, once the algorithm is known.
pub(crate) struct Proof<'a> {
    pub algorithm: Algorithm,
    pub nonce: &'a str,
    pub cnonce: &'a str,
    /// As the eight digits were written.
    pub nc: &'a str,
    pub qop: Option<Qop>,
    pub method: &'a str,
    pub uri: &'a str,
    pub body: &'a [u8],
}

impl Proof<'_> {
    /// The `response` for a user whose plain HA1 is `ha1`, in hexadecimal (RFC 7616 section 3.4.1).
    pub fn response(&self, ha1: String) -> String {
        let hash = self.algorithm.hash;
        let ha1 = match self.algorithm.session {
            true => hash.hex(&[ha1.as_bytes(), self.nonce.as_bytes(), self.cnonce.as_bytes()]),
            false => ha1,
        };
        let (method, uri) = (self.method.as_bytes(), self.uri.as_bytes());
        let ha2 = match self.qop {
            Some(Qop::AuthInt) => hash.hex(&[method, uri, hash.hex(&[self.body]).as_bytes()]),
            _ => hash.hex(&[method, uri]),
        };
        let (ha1, ha2, nonce) = (ha1.as_bytes(), ha2.as_bytes(), self.nonce.as_bytes());
        match self.qop {
            None => hash.hex(&[ha1, nonce, ha2]),
            Some(qop) => {
                hash.hex(&[ha1, nonce, self.nc.as_bytes(), self.cnonce.as_bytes(), qop.name().as_bytes(), ha2])
            }
        }
    }
}

impl Qop {
    fn name(self) -> &'static str {
        match self {
            Qop::Auth => "auth",
            Qop::AuthInt => "auth-int",
        }
    }

    fn from_name(name: &str) -> Option<Qop> {
        [Qop::Auth, Qop::AuthInt].into_iter().find(|q| name.trim().eq_ignore_ascii_case(q.name()))
    }
}

fn joined<D: Digest>(parts: &[&[u8]]) -> md5::digest::Output<D> {
    let mut digest = D::new();
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            digest.update(b":");
        }
        digest.update(part);
    }
    digest.finalize()
}

fn hex(bytes: &impl AsRef<[u8]>) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bytes = bytes.as_ref();
    let mut text = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        text.push(char::from(DIGITS[usize::from(b >> 4)]));
        text.push(char::from(DIGITS[usize::from(b & 15)]));
    }
    text
}

const ALL: [Algorithm; 6] = [
    Algorithm::SHA256,
    Algorithm { hash: Hash::Sha256, session: true },
    Algorithm { hash: Hash::Sha512_256, session: false },
    Algorithm { hash: Hash::Sha512_256, session: true },
    Algorithm::MD5,
    Algorithm { hash: Hash::Md5, session: true },
];
