//! What a device signs about the keys of a call, so that whoever forwards the description cannot put keys of its own in.
//!
//! As text, an SDP attribute's value: `1 TIME KEY SIGNATURE`, time in seconds since 1970, key and signature in unpadded
//! base64url. Signed are, each preceded by its length in four bytes: role, Call-ID, the offerer's tag, the fingerprint, the time. Whether
//! the key is a device of the one it should be is for the reader to know.

use super::Fingerprint;
use crate::core::UnixTime;
use crate::identity::{CLOCK_SKEW, KeyPair, PublicKey, Purpose};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Which description of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The first one.
    Offer,
    /// The second one.
    Answer,
}

/// What is signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statement<'a> {
    /// Offer or answer.
    pub role: Role,
    /// Call-ID.
    pub call_id: &'a str,
    /// The offerer's tag: it is known to both ends in both roles.
    pub tag: &'a str,
    /// Of the certificate that the signer will show.
    pub fingerprint: Fingerprint,
}

impl Statement<'_> {
    /// Signed by `device` at `now`, as the attribute's value.
    pub fn sign(&self, device: &KeyPair, now: UnixTime) -> String {
        let signature = device.sign(Purpose::Media, &self.bytes(now));
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        format!("1 {} {} {}", now.secs(), text(&device.public().0), text(&signature))
    }

    /// The device that signed this, as the attribute's `value` says; `None` when the value is malformed, the signature does not
    /// hold, or the time is further off than two clocks may be.
    pub fn signer(&self, value: &str, now: UnixTime) -> Option<PublicKey> {
        let mut words = value.split(' ');
        let (version, time, key, signature) = (words.next()?, words.next()?, words.next()?, words.next()?);
        if version != "1" || words.next().is_some() {
            return None;
        }
        let time = UnixTime(time.parse().ok()?);
        let key = PublicKey(URL_SAFE_NO_PAD.decode(key).ok()?.try_into().ok()?);
        let signature: [u8; 64] = URL_SAFE_NO_PAD.decode(signature).ok()?.try_into().ok()?;
        let near = time.secs().abs_diff(now.secs()) <= CLOCK_SKEW.as_secs();
        (near && key.verify(Purpose::Media, &self.bytes(time), &signature)).then_some(key)
    }

    fn bytes(&self, time: UnixTime) -> Vec<u8> {
        let role = match self.role {
            Role::Offer => "offer",
            Role::Answer => "answer",
        };
        let mut out = Vec::new();
        let time = time.secs().to_be_bytes();
        for part in [role.as_bytes(), self.call_id.as_bytes(), self.tag.as_bytes(), &self.fingerprint.0, &time] {
            out.extend_from_slice(&(part.len() as u32).to_be_bytes());
            out.extend_from_slice(part);
        }
        out
    }
}
