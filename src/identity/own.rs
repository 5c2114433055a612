//! The identity that a running program has: its keys, its chain, and what it trusts.
//!
//! On disk: `[1, device seed, user seed | null, chain, anchor, [adapter certificate...], enroller | null]`, the anchor being
//! `[overlay]` (open) or `[overlay, root key]` (office), the enroller `[seed, certificate, [member...], [phone...],
//! [invite...]]`. The file holds secret keys: whoever writes it makes it readable by its owner alone.

use super::cbor::{Reader, Writer, canonical};
use super::enroller::draw_peer_id;
use super::{
    Certificate, Chain, Claims, EnrolError, Enroller, Entry, IdentityError, KeyPair, MayWrite, PublicKey,
    RecoverySheet, SignedEntry, TrustAnchor, Verified, canonical_overlay, canonical_user, split_aor,
};
use crate::core::{Id, Redacted, Rng, UnixTime};
use zeroize::Zeroizing;

const WHAT: &str = "identity file";
/// Most adapter certificates of one device.
const MAX_ADAPTERS: usize = 4096;

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
    /// The administrator's part, on an enroller.
    pub enroller: Option<Enroller>,
    adapters: Vec<Certificate>,
    names: Vec<String>,
    peer_id: Id,
}

impl Identity {
    /// Makes a user and a device in an open overlay, from nothing.
    pub fn open(overlay: &str, user: &str, now: UnixTime, rng: &mut Rng) -> Result<Identity, IdentityError> {
        let (user_key, device) = (KeyPair::generate(rng), KeyPair::generate(rng));
        Identity::self_certified(&canonical_overlay(overlay)?, user, user_key, device, now)
    }

    /// Founds an office and its first user, who is its enroller. The sheet holds the root key, which is kept nowhere else:
    /// print it and drop it.
    pub fn found(
        overlay: &str,
        user: &str,
        extension: Option<&str>,
        now: UnixTime,
        rng: &mut Rng,
    ) -> Result<(Identity, RecoverySheet), IdentityError> {
        let sheet = RecoverySheet::generate(overlay, rng)?;
        Ok((Identity::restore(&sheet, user, extension, now, rng)?, sheet))
    }

    /// Makes a new enroller of an office from its recovery sheet. It trusts and is trusted by everybody of the office,
    /// and does not know which names the lost enroller gave out.
    pub fn restore(
        sheet: &RecoverySheet,
        user: &str,
        extension: Option<&str>,
        now: UnixTime,
        rng: &mut Rng,
    ) -> Result<Identity, IdentityError> {
        let mut names = vec![canonical_user(user)?];
        names.extend(extension.map(canonical_user).transpose()?);
        names.dedup();
        let (key, user_key, device) = (KeyPair::generate(rng), KeyPair::generate(rng), KeyPair::generate(rng));
        let mut enroller = Enroller::new(key.clone(), sheet.sign_enroller(key.public(), now)?);
        let enrolled = enroller.enrol(names, user_key.public(), device.public(), draw_peer_id(rng), now)?;
        let label = Claims::Device(String::new());
        let device_certificate = Certificate::issue(&user_key, device.public(), sheet.overlay(), label, now)?;
        let chain = Chain::new(vec![enrolled.enroller, enrolled.user, device_certificate, enrolled.peer]);
        let anchor = TrustAnchor::Office { overlay: sheet.overlay().to_owned(), root: sheet.root() };
        let mut identity = Identity::assemble(device, Some(user_key), chain, anchor, now)?;
        identity.enroller = Some(enroller);
        Ok(identity)
    }

    /// Reads an identity file and checks its chain at `now`.
    pub fn from_bytes(bytes: &[u8], now: UnixTime) -> Result<Identity, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(7)?;
        reader.version(1)?;
        let device = KeyPair::from_seed(&Zeroizing::new(reader.exact()?));
        let user_key = match reader.is_null() {
            true => None,
            false => Some(KeyPair::from_seed(&Zeroizing::new(reader.exact()?))),
        };
        let chain = Chain::read(&mut reader)?;
        let open = reader.list(2)? == 1;
        let overlay = reader.text()?.to_owned();
        let anchor = match open {
            true => TrustAnchor::Open { overlay },
            false => TrustAnchor::Office { overlay, root: PublicKey(reader.exact()?) },
        };
        let mut identity = Identity::assemble(device, user_key, chain, anchor, now)?;
        let adapters = reader.list(MAX_ADAPTERS as u64)?;
        identity.adapters = (0..adapters).map(|_| Certificate::read(&mut reader)).collect::<Result<_, _>>()?;
        if !reader.is_null() {
            identity.enroller = Some(Enroller::read(&mut reader)?);
        }
        canonical(bytes, identity.to_bytes().reveal(), WHAT)?;
        Ok(identity)
    }

    /// The identity file, secret keys and all.
    pub fn to_bytes(&self) -> Redacted<Zeroizing<Vec<u8>>> {
        let mut writer = Writer::array(7);
        writer.uint(1).bytes(&**self.device.seed().reveal());
        match &self.user_key {
            Some(key) => writer.bytes(&**key.seed().reveal()),
            None => writer.null(),
        };
        writer.raw(self.chain.encoded());
        match &self.anchor {
            TrustAnchor::Open { overlay } => writer.nested(1).text(overlay),
            TrustAnchor::Office { overlay, root } => writer.nested(2).text(overlay).bytes(&root.0),
        };
        writer.nested(self.adapters.len());
        for adapter in &self.adapters {
            writer.raw(&adapter.encode());
        }
        match &self.enroller {
            Some(enroller) => enroller.write(&mut writer),
            None => {
                writer.null();
            }
        }
        Redacted::new(Zeroizing::new(writer.finish()))
    }

    /// Takes phone accounts upon this device, on an enroller by its own word. In an open overlay there is nothing to ask.
    pub fn delegate_phones(&mut self, names: &[&str], now: UnixTime) -> Result<(), EnrolError> {
        let device = self.device.public();
        let missing = |name: &&&str| !canonical_user(name).is_ok_and(|n| self.adapter_for(&n).is_some());
        let names: Vec<&str> = names.iter().filter(missing).copied().collect();
        let TrustAnchor::Office { .. } = self.anchor else { return Ok(()) };
        let enroller = self.enroller.as_mut().ok_or(IdentityError::NotOurs)?;
        // One name a certificate: an entry carries the one that it needs, not the office's whole list.
        let certificates = names.iter().map(|n| enroller.delegate(device, &[n], now)).collect::<Result<Vec<_>, _>>()?;
        certificates.into_iter().try_for_each(|c| Ok(self.add_adapter(c, now)?))
    }

    /// Takes an adapter certificate that an enroller made for this device.
    pub fn add_adapter(&mut self, certificate: Certificate, now: UnixTime) -> Result<(), IdentityError> {
        if self.adapters.len() >= MAX_ADAPTERS {
            return Err(IdentityError::TooLarge("list of adapter certificates"));
        }
        self.anchor.verify_chain(&self.chain_with(&certificate), now)?;
        self.adapters.push(certificate);
        Ok(())
    }

    /// The identity under which this device speaks for the phone account `name`: in an office by its adapter certificate
    /// (`NotOurs` without one), in an open overlay by a user key made from the device's key and the name, the same after
    /// a restart.
    pub fn phone_identity(&self, name: &str, now: UnixTime) -> Result<Identity, IdentityError> {
        let name = canonical_user(name)?;
        let mut phone = self.clone();
        (phone.enroller, phone.adapters) = (None, Vec::new());
        if self.names.contains(&name) {
            return Ok(phone);
        }
        match &self.anchor {
            TrustAnchor::Open { overlay } => {
                let mut material = Zeroizing::new(self.device.seed().reveal().to_vec());
                material.extend_from_slice(name.as_bytes());
                let seed = Zeroizing::new(blake3::derive_key("chordial phone account key v1", &material));
                Identity::self_certified(overlay, &name, KeyPair::from_seed(&seed), self.device.clone(), now)
            }
            TrustAnchor::Office { .. } => {
                phone.chain = self.chain_with(self.adapter_for(&name).ok_or(IdentityError::NotOurs)?);
                (phone.user_key, phone.names) = (None, vec![name]);
                Ok(phone)
            }
        }
    }

    /// Signs `entry` as this device. `NotOurs` when this identity may not write an entry of that kind under the AOR.
    pub fn sign_entry(&self, entry: Entry) -> Result<SignedEntry, IdentityError> {
        let (user, overlay) = split_aor(&entry.aor).ok_or(IdentityError::NotOurs)?;
        if overlay != self.overlay() {
            return Err(IdentityError::Overlay);
        }
        if entry.kind.rules().writers == MayWrite::Own && !self.names.iter().any(|n| n == user) {
            return Err(IdentityError::NotOurs);
        }
        SignedEntry::sign(entry, &self.device, self.chain.clone())
    }

    /// Renews entries that this device has signed, all with one signature ([`touch`](super::touch)).
    pub fn touch(&self, entries: &[SignedEntry], issued: UnixTime, lifetime: u32) -> Vec<SignedEntry> {
        super::touch(entries, &self.device, issued, lifetime)
    }

    /// What others see of this identity: its own chain, checked at `now`.
    pub fn verified(&self, now: UnixTime) -> Result<Verified, IdentityError> {
        self.anchor.verify_chain(&self.chain, now)
    }

    /// The user's canonical name.
    pub fn user(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// The user's extensions.
    pub fn aliases(&self) -> &[String] {
        self.names.get(1..).unwrap_or_default()
    }

    /// The overlay's canonical name.
    pub fn overlay(&self) -> &str {
        self.anchor.overlay()
    }

    /// The user's canonical AOR.
    pub fn aor(&self) -> String {
        format!("sip:{}@{}", self.user(), self.overlay())
    }

    /// The device's place on the ring.
    pub fn peer_id(&self) -> Id {
        self.peer_id
    }

    /// The device's public key.
    pub fn device_key(&self) -> PublicKey {
        self.device.public()
    }

    /// Puts together keys and a chain, which is verified and must be about those keys.
    pub(super) fn assemble(
        device: KeyPair,
        user_key: Option<KeyPair>,
        chain: Chain,
        anchor: TrustAnchor,
        now: UnixTime,
    ) -> Result<Identity, IdentityError> {
        let verified = anchor.verify_chain(&chain, now)?;
        if verified.device != device.public() {
            return Err(IdentityError::Shape("device"));
        }
        if user_key.as_ref().is_some_and(|key| key.public() != verified.user_key) {
            return Err(IdentityError::Shape("user"));
        }
        let mut names = vec![verified.user];
        names.extend(verified.aliases);
        let (peer_id, adapters, enroller) = (verified.peer_id, Vec::new(), None);
        Ok(Identity { device, user_key, chain, anchor, enroller, adapters, names, peer_id })
    }

    fn self_certified(
        overlay: &str,
        user: &str,
        user_key: KeyPair,
        device: KeyPair,
        now: UnixTime,
    ) -> Result<Identity, IdentityError> {
        let claims = Claims::User(vec![canonical_user(user)?]);
        let about_user = Certificate::issue(&user_key, user_key.public(), overlay, claims, now)?;
        let label = Claims::Device(String::new());
        let about_device = Certificate::issue(&user_key, device.public(), overlay, label, now)?;
        let anchor = TrustAnchor::Open { overlay: overlay.to_owned() };
        Identity::assemble(device, Some(user_key), Chain::new(vec![about_user, about_device]), anchor, now)
    }

    fn adapter_for(&self, name: &str) -> Option<&Certificate> {
        self.adapters.iter().find(|c| matches!(&c.claims, Claims::Adapter(names) if names.iter().any(|n| n == name)))
    }

    fn chain_with(&self, adapter: &Certificate) -> Chain {
        let mut certificates = self.chain.certificates().to_vec();
        certificates.push(adapter.clone());
        Chain::new(certificates)
    }
}
