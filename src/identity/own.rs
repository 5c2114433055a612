//! The identity that a running program has: its keys, its chain, and what it trusts.
//!
//! On disk: `[2, device seed, user seed | null, chain, anchor, [[adapter certificate, its enroller's]...], [device certificate...], enroller |
//! null]`, the anchor being `[overlay]` (open) or `[overlay, root key]` (office), the device certificates those of further devices that
//! this one signed, the enroller `[seed, certificate, [page of the book...], [allowed device...], [invite...]]`. Version 1, which had
//! neither devices nor pages, is read. The file holds secret keys: whoever writes it makes it readable by its owner alone.

use super::cbor::{Reader, Writer, canonical};
use super::enroller::draw_peer_id;
use super::{
    Certificate, Certified, CertifyRequest, Chain, Claims, ENROLLERS, EnrolError, Enroller, Entry, IdentityError,
    KeyPair, MayWrite, PublicKey, RecoverySheet, Revoked, SignedEntry, TrustAnchor, Verified, canonical_overlay,
    canonical_user, split_aor,
};
use crate::core::{Id, Redacted, Rng, UnixTime};
use std::time::Duration;
use zeroize::Zeroizing;

const WHAT: &str = "identity file";
/// Most adapter certificates of one device.
const MAX_ADAPTERS: usize = 4096;
/// Most further devices that one device remembers to have signed; the oldest gives way.
const MAX_SIGNED: usize = 64;
/// How long before a certificate runs out it is renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(365 * 24 * 3600);

/// A delegation, and the certificate of the enroller that signed it.
type Adapter = (Certificate, Certificate);

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
    adapters: Vec<Adapter>,
    signed: Vec<Certificate>,
    names: Vec<String>,
    peer_id: Id,
    has_place: bool,
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

    /// A further device of a user, signed by the user's key: no administrator is needed. `above` is what stands over the device in the
    /// user's chains: `[enroller, user]` in an office, `[user]` in an open overlay. In an office the new device has no
    /// place on the ring until an enroller gives it one ([`Identity::has_place`]).
    pub fn sign_in(
        user_key: KeyPair,
        above: &[Certificate],
        anchor: TrustAnchor,
        device: KeyPair,
        label: &str,
        now: UnixTime,
    ) -> Result<Identity, IdentityError> {
        let label = Claims::Device(label.to_owned());
        let about_device = Certificate::issue(&user_key, device.public(), anchor.overlay(), label, now)?;
        let chain = Chain::new(above.iter().cloned().chain([about_device]).collect());
        Identity::assemble(device, Some(user_key), chain, anchor, now)
    }

    /// Signs `device` as a further device of this identity's user; its chain, for [`Identity::assemble`]. `NotOurs` where
    /// this device does not hold the user's key.
    pub fn add_device(&self, device: PublicKey, label: &str, now: UnixTime) -> Result<Chain, IdentityError> {
        let user_key = self.user_key.as_ref().ok_or(IdentityError::NotOurs)?;
        let label = Claims::Device(label.to_owned());
        let about_device = Certificate::issue(user_key, device, self.overlay(), label, now)?;
        let chain = Chain::new(self.above_device().iter().cloned().chain([about_device]).collect());
        self.anchor.verify_chain(&chain, now)?;
        Ok(chain)
    }

    /// The certificates above the device's: `[enroller, user]` in an office, `[user]` in an open overlay.
    pub fn above_device(&self) -> &[Certificate] {
        let all = self.chain.certificates();
        let device = all.iter().position(|c| matches!(c.claims, Claims::Device(_)));
        all.get(..device.unwrap_or_default()).unwrap_or_default()
    }

    /// Reads an identity file and checks its chain at `now`.
    pub fn from_bytes(bytes: &[u8], now: UnixTime) -> Result<Identity, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        let version = match reader.list(8)? {
            8 => 2,
            7 => 1,
            _ => return Err(IdentityError::Malformed(WHAT)),
        };
        reader.version(version)?;
        let device = KeyPair::from_seed(&Zeroizing::new(reader.exact()?));
        let user_key = match reader.is_null() {
            true => None,
            false => Some(KeyPair::from_seed(&Zeroizing::new(reader.exact()?))),
        };
        let chain = Chain::read(&mut reader)?;
        let anchor = read_anchor(&mut reader)?;
        let mut identity = Identity::assemble(device, user_key, chain, anchor, now)?;
        for _ in 0..reader.list(MAX_ADAPTERS as u64)? {
            if version == 2 {
                reader.array(2)?;
            }
            let adapter = Certificate::read(&mut reader)?;
            let enroller =
                if version == 2 { Certificate::read(&mut reader)? } else { identity.own_enroller()?.clone() };
            identity.adapters.push((adapter, enroller));
        }
        if version == 2 {
            for _ in 0..reader.list(MAX_SIGNED as u64)? {
                identity.signed.push(Certificate::read(&mut reader)?);
            }
        }
        if !reader.is_null() {
            let mut enroller = Enroller::read(&mut reader, version, now)?;
            identity.adapters.iter().for_each(|(adapter, _)| enroller.remember(adapter));
            identity.enroller = Some(enroller);
        }
        if version == 2 {
            canonical(bytes, identity.to_bytes().reveal(), WHAT)?;
        }
        Ok(identity)
    }

    /// The identity file, secret keys and all.
    pub fn to_bytes(&self) -> Redacted<Zeroizing<Vec<u8>>> {
        let mut writer = Writer::array(8);
        writer.uint(2).bytes(&**self.device.seed().reveal());
        match &self.user_key {
            Some(key) => writer.bytes(&**key.seed().reveal()),
            None => writer.null(),
        };
        writer.raw(self.chain.encoded());
        write_anchor(&mut writer, &self.anchor);
        writer.nested(self.adapters.len());
        for (adapter, enroller) in &self.adapters {
            writer.nested(2).raw(&adapter.encode()).raw(&enroller.encode());
        }
        writer.nested(self.signed.len());
        for certificate in &self.signed {
            writer.raw(&certificate.encode());
        }
        match &self.enroller {
            Some(enroller) => enroller.write(&mut writer),
            None => {
                writer.null();
            }
        }
        Redacted::new(Zeroizing::new(writer.finish()))
    }

    /// Asks for certificates: those of this device again, and the right to sign for these phone accounts.
    pub fn certify_request(&self, phones: Vec<String>, now: UnixTime) -> CertifyRequest {
        CertifyRequest::sign(&self.device, self.chain.clone(), phones, now)
    }

    /// Takes what an enroller granted, when it holds. True when this device's place on the ring is another one now.
    pub fn certified(&mut self, granted: &Certified, now: UnixTime) -> Result<bool, IdentityError> {
        let about = self.chain.find(|c| matches!(c, Claims::Device(_))).ok_or(IdentityError::Shape("device"))?.clone();
        let certificates = vec![granted.enroller.clone(), granted.user.clone(), about, granted.peer.clone()];
        let (device, user_key) = (self.device.clone(), self.user_key.clone());
        let fresh = Identity::assemble(device, user_key, Chain::new(certificates), self.anchor.clone(), now)?;
        if Some(fresh.chain.user_key()) != Some(self.chain.user_key()) || fresh.user() != self.user() {
            return Err(IdentityError::Shape("user"));
        }
        let moved = (self.peer_id, self.has_place) != (fresh.peer_id, fresh.has_place);
        (self.chain, self.names, self.peer_id, self.has_place) =
            (fresh.chain, fresh.names, fresh.peer_id, fresh.has_place);
        for adapter in &granted.adapters {
            self.add_adapter(adapter.clone(), &granted.enroller, now)?;
        }
        Ok(moved)
    }

    /// Makes this device an enroller of its office, with a key of its own that the root signed.
    pub fn become_enroller(
        &mut self,
        key: KeyPair,
        certificate: Certificate,
        now: UnixTime,
    ) -> Result<(), IdentityError> {
        let TrustAnchor::Office { overlay, root } = &self.anchor else { return Err(IdentityError::NotOurs) };
        let right = certificate.claims == Claims::Enroller && certificate.subject == key.public();
        if !right || certificate.issuer != *root {
            return Err(IdentityError::Issuer("enroller"));
        }
        certificate.check(overlay, now)?;
        self.enroller = Some(Enroller::new(key, certificate));
        Ok(())
    }

    /// Renews what this device can renew itself: on an enroller everything, with the user's key the device's certificate. True
    /// when anything changed.
    pub fn renew_own(&mut self, revoked: &Revoked, now: UnixTime, rng: &mut Rng) -> Result<bool, EnrolError> {
        let mut renewed = false;
        let device = self.chain.find(|c| matches!(c, Claims::Device(_))).cloned();
        if let (Some(user_key), Some(old)) = (&self.user_key, device.filter(|c| c.not_after <= now + RENEW_BEFORE)) {
            let again = Certificate::issue(user_key, old.subject, &old.overlay, old.claims.clone(), now)?;
            let swap = |c: &Certificate| if *c == old { again.clone() } else { c.clone() };
            let mut certificates: Vec<_> = self.chain.certificates().iter().map(swap).collect();
            if let (TrustAnchor::Open { .. }, Some(user)) = (&self.anchor, certificates.first_mut()) {
                *user = Certificate::issue(user_key, user.subject, &user.overlay, user.claims.clone(), now)?;
            }
            self.chain = Chain::new(certificates);
            renewed = true;
        }
        if self.enroller.is_some() && (self.needs_enroller(now) || self.leans_on(revoked)) {
            let request = self.certify_request(self.ending_delegations(revoked, now), now);
            let (anchor, device) = (self.anchor.clone(), self.device.public());
            let enroller = self.enroller.as_mut().ok_or(IdentityError::NotOurs)?;
            let granted = enroller.certify(&request, device, &anchor, now, rng)?;
            self.certified(&granted, now)?;
            self.announce_enroller(now)?;
            renewed = true;
        }
        Ok(renewed)
    }

    /// True when an enroller is to be asked: for a place, or since something that enrollers sign runs out within a year.
    pub fn needs_enroller(&self, now: UnixTime) -> bool {
        let signed = self.chain.certificates().iter().filter(|c| matches!(c.claims, Claims::User(_) | Claims::Peer(_)));
        let ends = signed.chain(self.adapters.iter().map(|(c, _)| c)).map(|c| c.not_after).min();
        let office = matches!(self.anchor, TrustAnchor::Office { .. });
        office && (!self.has_place || ends.is_some_and(|end| end <= now + RENEW_BEFORE))
    }

    /// True when anything that it shows was signed by an enroller that is revoked, although it stays.
    pub fn leans_on(&self, revoked: &Revoked) -> bool {
        let signed = self.chain.certificates().iter().chain(self.adapters.iter().map(|(c, _)| c));
        signed.map(|c| &c.issuer).any(|issuer| revoked.is_enroller(issuer))
    }

    /// The phone accounts whose delegation runs out within a year, or was signed by an enroller that is revoked.
    pub fn ending_delegations(&self, revoked: &Revoked, now: UnixTime) -> Vec<String> {
        let ends = |c: &Certificate| c.not_after <= now + RENEW_BEFORE || revoked.is_enroller(&c.issuer);
        let ending = self.adapters.iter().filter(|(c, _)| ends(c));
        let names = ending.filter_map(|(c, _)| if let Claims::Adapter(names) = &c.claims { Some(names) } else { None });
        names.flatten().filter(|n| *n != ENROLLERS).take(super::MAX_ASKED).cloned().collect()
    }

    /// Certificates of the further devices that this one signed, the latest last.
    pub fn signed_devices(&self) -> &[Certificate] {
        &self.signed
    }

    pub(super) fn remember_device(&mut self, chain: &Chain) {
        let Some(about) = chain.find(|c| matches!(c, Claims::Device(_))) else { return };
        self.signed.retain(|c| c.subject != about.subject);
        if self.signed.len() >= MAX_SIGNED {
            self.signed.remove(0);
        }
        self.signed.push(about.clone());
    }

    /// On an enroller: lets its device be found under [`ENROLLERS`]. True when that is new.
    pub fn announce_enroller(&mut self, now: UnixTime) -> Result<bool, IdentityError> {
        let device = self.device.public();
        let own = self.enroller.as_ref().map(|e| e.certificate().subject);
        let known = |(c, by): &Adapter| {
            Some(by.subject) == own
                && c.not_after > now + RENEW_BEFORE
                && matches!(&c.claims, Claims::Adapter(n) if n.iter().any(|n| n == ENROLLERS))
        };
        let Some(enroller) = self.enroller.as_mut() else { return Ok(false) };
        if self.adapters.iter().any(known) {
            return Ok(false);
        }
        let (certificate, by) = (enroller.announce(device, now)?, enroller.certificate().clone());
        self.add_adapter(certificate, &by, now)?;
        Ok(true)
    }

    /// What shows another enroller that this device is one: the delegation of [`ENROLLERS`] and the certificate of who signed it.
    pub fn enroller_proof(&self) -> Option<(Certificate, Certificate)> {
        self.enroller.as_ref()?;
        self.adapter_for(ENROLLERS).cloned()
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
        let by = enroller.certificate().clone();
        certificates.into_iter().try_for_each(|c| Ok(self.add_adapter(c, &by, now)?))
    }

    /// Takes an adapter certificate that `enroller` made for this device, in the place of an older one for the same names.
    pub fn add_adapter(
        &mut self,
        certificate: Certificate,
        enroller: &Certificate,
        now: UnixTime,
    ) -> Result<(), IdentityError> {
        let adapter = (certificate, enroller.clone());
        self.anchor.verify_chain(&self.chain_with(&adapter), now)?;
        self.adapters.retain(|(c, _)| c.claims != adapter.0.claims);
        if self.adapters.len() >= MAX_ADAPTERS {
            return Err(IdentityError::TooLarge("list of adapter certificates"));
        }
        self.adapters.push(adapter);
        Ok(())
    }

    /// Its delegations of phones, each with who signed it.
    pub fn delegations(&self) -> impl Iterator<Item = &(Certificate, Certificate)> {
        self.adapters
            .iter()
            .filter(|(c, _)| !matches!(&c.claims, Claims::Adapter(n) if n.iter().any(|n| n == ENROLLERS)))
    }

    /// Remembers the further devices that `former`, the same device in another office, had signed.
    pub(super) fn bring_signed(
        &mut self,
        former: &Identity,
        overlay: &str,
        now: UnixTime,
    ) -> Result<(), IdentityError> {
        let Some(user_key) = &self.user_key else { return Ok(()) };
        let again = |c: &Certificate| Certificate::issue(user_key, c.subject, overlay, c.claims.clone(), now);
        self.signed = former.signed.iter().map(again).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Speaks for the phone account `name` no longer.
    pub fn drop_adapter(&mut self, name: &str) {
        self.adapters.retain(|(c, _)| !matches!(&c.claims, Claims::Adapter(names) if *names == [name.to_owned()]));
    }

    /// The identity under which this device speaks for the phone account `name`: in an office by its adapter certificate
    /// (`NotOurs` without one), in an open overlay by a user key made from the device's key and the name, the same after
    /// a restart.
    pub fn phone_identity(&self, name: &str, now: UnixTime) -> Result<Identity, IdentityError> {
        let name = canonical_user(name)?;
        let mut phone = self.without_office();
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
        let mine = self.names.iter().any(|n| n == user) || entry.kind.is_private_to(user, self.user());
        if entry.kind.rules().writers == MayWrite::Own && !mine {
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

    /// True in an office, false in an open overlay.
    pub fn is_of_an_office(&self) -> bool {
        matches!(self.anchor, TrustAnchor::Office { .. })
    }

    /// The user's canonical AOR.
    pub fn aor(&self) -> String {
        format!("sip:{}@{}", self.user(), self.overlay())
    }

    /// The device's place on the ring, or by what it is known without one.
    pub fn peer_id(&self) -> Id {
        self.peer_id
    }

    /// True when this device may take its place on the ring ([`Verified::has_place`]).
    pub fn has_place(&self) -> bool {
        self.has_place
    }

    /// The device's public key.
    pub fn device_key(&self) -> PublicKey {
        self.device.public()
    }

    /// Puts together keys and a chain, which is verified and must be about those keys; the user's where this device holds it.
    pub fn assemble(
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
        let (peer_id, has_place) = (verified.peer_id, verified.has_place);
        let (adapters, signed, enroller) = (Vec::new(), Vec::new(), None);
        Ok(Identity { device, user_key, chain, anchor, enroller, adapters, signed, names, peer_id, has_place })
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

    /// The same without book, delegations and other devices.
    fn without_office(&self) -> Identity {
        Identity {
            device: self.device.clone(),
            user_key: self.user_key.clone(),
            chain: self.chain.clone(),
            anchor: self.anchor.clone(),
            enroller: None,
            adapters: Vec::new(),
            signed: Vec::new(),
            names: self.names.clone(),
            peer_id: self.peer_id,
            has_place: self.has_place,
        }
    }

    fn adapter_for(&self, name: &str) -> Option<&Adapter> {
        self.adapters
            .iter()
            .find(|(c, _)| matches!(&c.claims, Claims::Adapter(names) if names.iter().any(|n| n == name)))
    }

    fn chain_with(&self, (adapter, by): &Adapter) -> Chain {
        let all = self.chain.certificates();
        // Enrollers at the end belong to the peer certificate and stay behind the adapter's.
        let further = all.iter().skip(1).position(|c| c.claims == Claims::Enroller).map_or(all.len(), |at| at + 1);
        let mut certificates = all.to_vec();
        certificates.insert(further, adapter.clone());
        if !all.iter().any(|c| c.claims == Claims::Enroller && c.subject == by.subject) {
            certificates.push(by.clone());
        }
        Chain::new(certificates)
    }

    fn own_enroller(&self) -> Result<&Certificate, IdentityError> {
        self.chain.certificates().first().ok_or(IdentityError::Shape("enroller"))
    }
}

/// `[overlay]` or `[overlay, root key]`.
pub(super) fn write_anchor(writer: &mut Writer, anchor: &TrustAnchor) {
    match anchor {
        TrustAnchor::Open { overlay } => writer.nested(1).text(overlay),
        TrustAnchor::Office { overlay, root } => writer.nested(2).text(overlay).bytes(&root.0),
    };
}

pub(super) fn read_anchor(reader: &mut Reader<'_>) -> Result<TrustAnchor, IdentityError> {
    let open = match reader.list(2)? {
        1 => true,
        2 => false,
        _ => return Err(IdentityError::Malformed(WHAT)),
    };
    let overlay = canonical_overlay(reader.text()?)?;
    Ok(match open {
        true => TrustAnchor::Open { overlay },
        false => TrustAnchor::Office { overlay, root: PublicKey(reader.exact()?) },
    })
}
