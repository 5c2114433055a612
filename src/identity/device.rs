//! A further device of a user: one running device of the user shows a one-time code, the new one redeems it there. No administrator
//! has a part in it.
//!
//! The request is that of an invite ([`JoinRequest`](super::JoinRequest)); the answer is `[2, anchor, chain, sealed | null]`, the chain
//! `[enroller, user, device]` (open: `[user, device]`), the anchor as in the identity file. The code names the user's key, so that the new
//! device takes an answer of that user and of nobody else; the link is TLS 1.3 to a device of that user.
//!
//! **The user's key** signs devices and takes them back. By default it stays where it is: a second device that is lost is then one
//! revocation and harms nobody. On demand it travels in `sealed`: its seed under ChaCha20-Poly1305 with a key made of the code's
//! secret and the request (on top of the link's encryption), for a device that is to add and remove others itself. A device that
//! held it and is stolen can sign further ones: the administrator then revokes the user and invites again.

use super::cbor::{Reader, Writer, canonical};
use super::code::CodeKind;
use super::own::{read_anchor, write_anchor};
use super::throttle::Throttle;
use super::{
    Chain, EnrolError, Identity, IdentityError, InviteCode, JoinRequest, KeyPair, PublicKey, RootFingerprint,
    TrustAnchor,
};
use crate::core::{Rng, UnixTime};
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a code for a device is good.
pub const DEVICE_CODE_LIFETIME: Duration = Duration::from_secs(3600);
/// Most codes that are open at once; the oldest gives way.
pub const MAX_DEVICE_CODES: usize = 16;
const WHAT: &str = "answer to a device";

#[derive(Clone, Debug)]
struct Open {
    code: InviteCode,
    label: Option<String>,
    with_key: bool,
    expires: UnixTime,
    /// Which one it is, counted from the start.
    number: u64,
    /// The device that redeemed it: the same may ask again when the answer was lost.
    spent: Option<PublicKey>,
}

/// The codes that this device has shown. Not kept over a restart: whoever shows a code waits for the other device.
#[derive(Clone, Default, Debug)]
pub struct DeviceCodes {
    shown: u64,
    open: BTreeMap<[u8; 8], Open>,
    throttle: Throttle,
}

impl DeviceCodes {
    /// A code for a further device of `identity`'s user, called `label` whatever it calls itself, which is handed the user's
    /// key or not. `NotOurs` where this device does not hold the user's key.
    pub fn open(
        &mut self,
        identity: &Identity,
        label: Option<String>,
        with_key: bool,
        addrs: &[SocketAddr],
        now: UnixTime,
        rng: &mut Rng,
    ) -> Result<InviteCode, EnrolError> {
        let user = identity.user_key.as_ref().ok_or(IdentityError::NotOurs)?.public();
        label.as_deref().map_or(Ok(()), super::name::check_label)?;
        self.open.retain(|_, open| open.expires > now);
        while self.open.len() >= MAX_DEVICE_CODES {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.number).map(|(name, _)| *name);
            oldest.and_then(|name| self.open.remove(&name));
        }
        let code = InviteCode::of_kind(CodeKind::Device, RootFingerprint::of(&user), addrs, rng);
        self.shown += 1;
        let (number, expires) = (self.shown, now + DEVICE_CODE_LIFETIME);
        let open = Open { code: code.clone(), label, with_key, expires, number, spent: None };
        self.open.insert(code.name(), open);
        Ok(code)
    }

    /// True when the request names one of these codes.
    pub fn knows(&self, request: &JoinRequest) -> bool {
        self.open.contains_key(&request.invite)
    }

    /// Answers a request that came from `source`, with `Refused` for everything that is not right. `identity` remembers the device:
    /// persist it before the answer is sent.
    pub fn redeem(
        &mut self,
        identity: &mut Identity,
        request: &JoinRequest,
        source: IpAddr,
        now: UnixTime,
    ) -> Result<DeviceAnswer, EnrolError> {
        let closed = self.throttle.is_closed_to(source, now);
        let open = self.open.get_mut(&request.invite).filter(|open| {
            !closed
                && request.is_proven(&open.code.proof_key())
                && open.expires > now
                && open.spent.is_none_or(|device| device == request.device_key)
        });
        let Some(open) = open else {
            self.throttle.count(source, now);
            return Err(EnrolError::Refused);
        };
        let label = open.label.as_deref().unwrap_or(&request.label);
        let chain = identity.add_device(request.device_key, label, now)?;
        identity.remember_device(&chain);
        let sealed = match &identity.user_key {
            Some(key) if open.with_key => {
                Some(seal(&open.code.seal_key(&request.encode()), key.seed().reveal()).ok_or(EnrolError::Refused)?)
            }
            _ => None,
        };
        open.spent = Some(request.device_key);
        Ok(DeviceAnswer { anchor: identity.anchor.clone(), chain, sealed })
    }
}

/// What a user's device answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceAnswer {
    anchor: TrustAnchor,
    chain: Chain,
    sealed: Option<Vec<u8>>,
}

impl DeviceAnswer {
    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(4);
        writer.uint(2);
        write_anchor(&mut writer, &self.anchor);
        writer.raw(self.chain.encoded());
        match &self.sealed {
            Some(sealed) => writer.bytes(sealed),
            None => writer.null(),
        };
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<DeviceAnswer, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(4)?;
        reader.version(2)?;
        let anchor = read_anchor(&mut reader)?;
        let chain = Chain::read(&mut reader)?;
        let sealed = if reader.is_null() { None } else { Some(reader.exact::<48>()?.to_vec()) };
        let answer = DeviceAnswer { anchor, chain, sealed };
        canonical(bytes, &answer.encode(), WHAT)?;
        Ok(answer)
    }

    /// The identity of the new device. `NotTheOffice` when the answer is of another user than the one who showed the code.
    pub(super) fn finish(
        &self,
        code: &InviteCode,
        request: &JoinRequest,
        device: &KeyPair,
        now: UnixTime,
    ) -> Result<Identity, EnrolError> {
        let user = self.chain.user_key().ok_or(EnrolError::NotTheOffice)?;
        if RootFingerprint::of(&user) != code.root {
            return Err(EnrolError::NotTheOffice);
        }
        let user_key = match &self.sealed {
            None => None,
            Some(sealed) => {
                let seed = unseal(&code.seal_key(&request.encode()), sealed).ok_or(EnrolError::NotTheOffice)?;
                Some(KeyPair::from_seed(&seed))
            }
        };
        Ok(Identity::assemble(device.clone(), user_key, self.chain.clone(), self.anchor.clone(), now)?)
    }
}

/// The key is used once, for this one text: the nonce may be zero.
fn seal(key: &[u8; 32], seed: &[u8; 32]) -> Option<Vec<u8>> {
    ChaCha20Poly1305::new(key.into()).encrypt(&Nonce::default(), seed.as_slice()).ok()
}

fn unseal(key: &[u8; 32], sealed: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let seed = Zeroizing::new(ChaCha20Poly1305::new(key.into()).decrypt(&Nonce::default(), sealed).ok()?);
    Some(Zeroizing::new(<[u8; 32]>::try_from(seed.as_slice()).ok()?))
}
