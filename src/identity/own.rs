//! The identity that a running program has: its keys, its chain, and what it trusts.

use super::{
    Certificate, Chain, Claims, Entry, IdentityError, KeyPair, PublicKey, SignedEntry, TrustAnchor, canonical_overlay,
    canonical_user, split_aor,
};
use crate::core::{Id, Rng, UnixTime};

/// Keys, chain and anchor of one device of one user.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The device's key; signs entries and TLS handshakes.
    pub device: KeyPair,
    /// The user's key, where this device holds it; signs further devices.
    pub user_key: Option<KeyPair>,
    /// The device's chain.
    pub chain: Chain,
    /// What others' chains are checked against.
    pub anchor: TrustAnchor,
    user: String,
    peer_id: Id,
}

impl Identity {
    /// Makes a user and a device in an open overlay, from nothing.
    pub fn open(overlay: &str, user: &str, now: UnixTime, rng: &mut Rng) -> Result<Identity, IdentityError> {
        let (user_key, device) = (KeyPair::generate(rng), KeyPair::generate(rng));
        Identity::self_certified(&canonical_overlay(overlay)?, user, user_key, device, now)
    }

    /// The user's canonical name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The overlay's canonical name.
    pub fn overlay(&self) -> &str {
        self.anchor.overlay()
    }

    /// The user's canonical AOR.
    pub fn aor(&self) -> String {
        format!("sip:{}@{}", self.user, self.overlay())
    }

    /// The device's place on the ring.
    pub fn peer_id(&self) -> Id {
        self.peer_id
    }

    /// The device's public key.
    pub fn device_key(&self) -> PublicKey {
        self.device.public()
    }

    /// Signs `entry` as this device. `NotOurs` when this identity may not speak for the AOR.
    pub fn sign_entry(&self, entry: Entry) -> Result<SignedEntry, IdentityError> {
        let (user, overlay) = split_aor(&entry.aor).ok_or(IdentityError::NotOurs)?;
        if overlay != self.overlay() {
            return Err(IdentityError::Overlay);
        }
        if user != self.user {
            return Err(IdentityError::NotOurs);
        }
        SignedEntry::sign(entry, &self.device, self.chain.clone())
    }

    fn self_certified(
        overlay: &str,
        user: &str,
        user_key: KeyPair,
        device: KeyPair,
        now: UnixTime,
    ) -> Result<Identity, IdentityError> {
        let user = canonical_user(user)?;
        let claims = Claims::User(vec![user.clone()]);
        let about_user = Certificate::issue(&user_key, user_key.public(), overlay, claims, now)?;
        let about_device = Certificate::issue(&user_key, device.public(), overlay, Claims::Device(String::new()), now)?;
        Ok(Identity {
            peer_id: Id::sha1(&device.public().0),
            device,
            user_key: Some(user_key),
            chain: Chain::new(vec![about_user, about_device]),
            anchor: TrustAnchor::Open { overlay: overlay.to_owned() },
            user,
        })
    }
}
