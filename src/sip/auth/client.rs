//! The client: reading challenges, answering one.

use super::fields::{Fields, push_quoted, push_token};
use super::{Algorithm, Proof, Qop};

/// Why a challenge is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Not a Digest challenge, or a broken one.
    #[error("not a Digest challenge")]
    Syntax,
    /// The algorithm is not known here.
    #[error("unknown digest algorithm")]
    Algorithm,
    /// No offered quality of protection is known here.
    #[error("unknown quality of protection")]
    Qop,
}

/// A challenge that can be answered here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Protection space; what the user's password belongs to.
    pub realm: String,
    /// The server's nonce.
    pub nonce: String,
    /// To be returned unchanged.
    pub opaque: Option<String>,
    /// The algorithm asked for.
    pub algorithm: Algorithm,
    /// The password was right, only the nonce is too old: answer again without asking the user.
    pub stale: bool,
    explicit_algorithm: bool,
    qop: Option<Qop>,
}

/// What a client knows and what it is asking for.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// User name.
    pub user: &'a str,
    /// Password.
    pub password: &'a str,
    /// Method of the request.
    pub method: &'a str,
    /// Request-URI.
    pub uri: &'a str,
    /// Body of the request, for `auth-int`.
    pub body: &'a [u8],
    /// How often this nonce has been used, this time included; from 1.
    pub nc: u32,
    /// A nonce of the client's own.
    pub cnonce: &'a str,
}

impl Challenge {
    /// Reads the value of a WWW-Authenticate or Proxy-Authenticate field.
    pub fn parse(value: &str) -> Result<Challenge, AuthError> {
        let fields = Fields::parse(value).ok_or(AuthError::Syntax)?;
        let algorithm = match fields.get("algorithm") {
            Some(name) => Algorithm::from_name(name).ok_or(AuthError::Algorithm)?,
            None => Algorithm::MD5,
        };
        let qop = match fields.get("qop") {
            Some(offered) => {
                let mut known: Vec<_> = offered.split(',').filter_map(Qop::from_name).collect();
                // `auth` before `auth-int`: proxies on the way may change bodies.
                known.sort_by_key(|q| *q == Qop::AuthInt);
                Some(*known.first().ok_or(AuthError::Qop)?)
            }
            None => None,
        };
        Ok(Challenge {
            realm: fields.get("realm").ok_or(AuthError::Syntax)?.into(),
            nonce: fields.get("nonce").ok_or(AuthError::Syntax)?.into(),
            opaque: fields.get("opaque").map(String::from),
            algorithm,
            stale: fields.get("stale").is_some_and(|s| s.eq_ignore_ascii_case("true")),
            explicit_algorithm: fields.get("algorithm").is_some(),
            qop,
        })
    }
}

/// The challenge to answer among the values of all WWW-Authenticate (or Proxy-Authenticate) fields of a response
/// for one realm: the topmost that is understood. The fault of the first otherwise.
pub fn choose<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Challenge, AuthError> {
    let mut fault = None;
    for value in values {
        match Challenge::parse(value) {
            Ok(challenge) => return Ok(challenge),
            Err(why) => fault = fault.or(Some(why)),
        }
    }
    Err(fault.unwrap_or(AuthError::Syntax))
}

/// The nonce that an Authentication-Info names for the next request (RFC 7615).
pub fn next_nonce(value: &str) -> Option<String> {
    Fields::parse(&format!("Digest {value}"))?.get("nextnonce").map(str::to_owned)
}

/// The value of the Authorization or Proxy-Authorization field that answers `challenge`.
pub fn answer(challenge: &Challenge, with: &Credentials<'_>) -> String {
    let Challenge { algorithm, qop, .. } = *challenge;
    let nc = format!("{:08x}", with.nc);
    let proof = Proof {
        algorithm,
        nonce: &challenge.nonce,
        cnonce: with.cnonce,
        nc: &nc,
        qop,
        method: with.method,
        uri: with.uri,
        body: with.body,
    };
    let identity = [with.user.as_bytes(), challenge.realm.as_bytes(), with.password.as_bytes()];
    let response = proof.response(algorithm.hash.hex(&identity));

    let mut out = String::with_capacity(320);
    push_quoted(&mut out, "username", with.user);
    push_quoted(&mut out, "realm", &challenge.realm);
    push_quoted(&mut out, "nonce", &challenge.nonce);
    push_quoted(&mut out, "uri", with.uri);
    push_quoted(&mut out, "response", &response);
    if challenge.explicit_algorithm {
        push_token(&mut out, "algorithm", algorithm.name());
    }
    if qop.is_some() || algorithm.session {
        push_quoted(&mut out, "cnonce", with.cnonce);
    }
    if let Some(qop) = qop {
        push_token(&mut out, "qop", qop.name());
        push_token(&mut out, "nc", &nc);
    }
    if let Some(opaque) = &challenge.opaque {
        push_quoted(&mut out, "opaque", opaque);
    }
    out
}
