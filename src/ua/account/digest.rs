//! The digest of an account over many requests (RFC 7616): a nonce is used again with its count, until the server names another one.

use crate::core::Redacted;
use crate::sip::auth::{self, Challenge, Credentials};
use crate::sip::msg::{HeaderName, Message};

/// Challenges of one request that are answered, at most: two kinds, and one nonce that was too old.
pub(super) const TRIES: u8 = 3;

/// What a registrar, and a proxy before it, have asked for last.
#[derive(Debug, Clone, Default)]
pub(super) struct Digests {
    registrar: Option<Known>,
    proxy: Option<Known>,
}

#[derive(Debug, Clone)]
struct Known {
    challenge: Challenge,
    /// How often its nonce has been used.
    uses: u32,
}

impl Digests {
    /// Puts credentials into a request for every challenge that is known.
    pub fn answer(&mut self, request: &mut Message, known: Option<&(String, Redacted<String>)>, cnonce: &str) {
        let Some((user, password)) = known else { return };
        let fields =
            [(&mut self.registrar, HeaderName::Authorization), (&mut self.proxy, HeaderName::ProxyAuthorization)];
        for (digest, field) in fields {
            let Some(digest) = digest else { continue };
            digest.uses += 1;
            let with = Credentials {
                user,
                password: password.reveal(),
                method: request.method().as_str(),
                uri: request.request_uri(),
                body: request.body(),
                nc: digest.uses,
                cnonce,
            };
            let value = auth::answer(&digest.challenge, &with);
            request.set(field, value);
        }
    }

    /// Takes the challenge of a 401 or 407 up; false where answering it (once more) is of no use.
    pub fn challenged(&mut self, response: &Message, tries: u8) -> bool {
        let (asked, digest) = match response.status() {
            407 => (HeaderName::ProxyAuthenticate, &mut self.proxy),
            _ => (HeaderName::WwwAuthenticate, &mut self.registrar),
        };
        let Ok(challenge) = auth::choose(response.headers(asked)) else { return false };
        // Of one answered in this very request: the password is wrong, unless the server says that it is not.
        let again = tries == 0 || challenge.stale || digest.is_none();
        *digest = Some(Known { challenge, uses: 0 });
        again && tries < TRIES
    }

    /// A response that was satisfied may name the nonce of the next request.
    pub fn satisfied(&mut self, response: &Message) {
        let next = response.header(HeaderName::AuthenticationInfo).and_then(auth::next_nonce);
        if let (Some(nonce), Some(digest)) = (next, self.registrar.as_mut()) {
            (digest.challenge.nonce, digest.uses) = (nonce, 0);
        }
    }

    /// What is known counts no longer.
    pub fn forget(&mut self) {
        *self = Digests::default();
    }
}
