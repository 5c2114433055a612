//! The end of an enroller: the root, typed in from the recovery sheet on another administrator's device, revokes one that was lost
//! or went rogue.
//!
//! What stays of its word is what that administrator's book has by then, dated before the moment named; the statement lists it
//! ([`Word`](crate::identity::Word)). So nothing counts that the lost key signs from now on, under whatever date. Members that stay are signed
//! again by another enroller within minutes, without anybody's doing; whoever the book did not know is invited again. The enroller's
//! own device is revoked with it; its user is not, and is revoked by name where the device held the user's key.

use super::Node;
use super::control::{CommandError, Reply};
use super::office::{NOT_HERE, WHERE};
use crate::core::Instant;
use crate::identity::{PublicKey, RecoverySheet, Revocation, RevokedKey, TrustAnchor};
use std::time::Duration;

/// Members whose certificates are to be signed anew ask within this time, not all at once.
const SPREAD: u64 = 60;

impl Node {
    /// Revokes an enroller by the root. `target` is a fingerprint of its key or of its device's, or `USER/LABEL` of the device.
    pub(super) fn revoke_enroller(
        &mut self,
        now: Instant,
        target: &str,
        sheet: &str,
        since: Option<u64>,
    ) -> Result<Reply, CommandError> {
        let sheet = self.read_sheet(sheet)?;
        let unix = self.unix(now);
        let since = since.map_or(unix, crate::core::UnixTime);
        let (key, devices) = self.enroller_called(target)?;
        let enroller = self.enroller().ok_or_else(|| CommandError::new(NOT_HERE, WHERE))?;
        if enroller.certificate().subject == key {
            let what = format!("{target} is this device's own");
            return Err(CommandError::new(what, "do it on another administrator's device"));
        }
        // An hour of grace for its clock, where nobody named the moment: by now no date is too late.
        let until = if since >= unix { since + Duration::from_secs(3600) } else { since };
        let (kept, users) = enroller.kept_of(&key, &devices, &self.people.revocations, until);
        let name = format!("enroller {key}");
        let signed = Revocation::of_enroller(&sheet, key, &kept, &name, unix).and_then(|mut all| {
            for device in &devices {
                all.push(Revocation::by_root(&sheet, RevokedKey::Device, *device, &name, unix)?);
            }
            Ok(all)
        });
        let signed = signed.map_err(|fault| CommandError::new(format!("not signed: {fault}"), "see the cause"))?;
        if !self.revoke_all(now, signed) {
            return Err(CommandError::new("too many keys are revoked already", "found a new office"));
        }
        self.save_identity();
        let stay = match users.is_empty() {
            true => "nobody whom it enrolled alone stays".to_owned(),
            false => format!("of whom it enrolled these stay: {}", users.join(", ")),
        };
        let done = format!("the enroller {key} is revoked with {} of its devices; {stay}", devices.len());
        Ok(Reply::Done { done })
    }

    /// The root key as it was typed in.
    pub(super) fn read_sheet(&self, typed: &str) -> Result<RecoverySheet, CommandError> {
        let Some(TrustAnchor::Office { overlay, root }) = self.identity.as_ref().map(|i| &i.anchor) else {
            return Err(CommandError::new(NOT_HERE, WHERE));
        };
        match RecoverySheet::parse(overlay, typed) {
            Ok(sheet) if sheet.root() == *root => Ok(sheet),
            Ok(_) => Err(CommandError::new(
                "the recovery sheet is another office's",
                "take the sheet that this office's create printed",
            )),
            Err(fault) => {
                let what = format!("the recovery sheet cannot be read: {fault}");
                Err(CommandError::new(what, "check it for a typing error"))
            }
        }
    }

    /// True when the device is an enroller's that counts: the root alone revokes it.
    pub(super) fn is_enrollers_device(&self, device: &PublicKey) -> bool {
        let Some(enroller) = self.enroller() else { return false };
        let revoked = &self.people.revoked;
        enroller.book().announced().any(|(key, own)| own == *device && !revoked.is_enroller(&key))
    }

    /// The enroller's key and its devices.
    fn enroller_called(&self, target: &str) -> Result<(PublicKey, Vec<PublicKey>), CommandError> {
        let book = self.enroller().ok_or_else(|| CommandError::new(NOT_HERE, WHERE))?.book();
        let called = |device: &PublicKey| {
            let row = book.device(device)?;
            let user = book.user(&row.user()?)?;
            let crate::identity::Claims::User(names) = &user.claims else { return None };
            Some(format!("{}/{}", names.first()?, row.label()))
        };
        let announced: Vec<(PublicKey, PublicKey)> = book.announced().collect();
        let meant =
            |device: &PublicKey| device.to_string() == target || called(device).is_some_and(|name| name == target);
        let by_device = announced.iter().filter(|(_, device)| meant(device)).map(|(key, _)| *key);
        let by_key = book.enrollers().map(|c| c.subject).filter(|key| key.to_string() == target);
        let mut keys: Vec<PublicKey> = by_device.chain(by_key).collect();
        keys.sort();
        keys.dedup();
        match keys.as_slice() {
            [key] => Ok((*key, announced.iter().filter(|(k, _)| k == key).map(|(_, device)| *device).collect())),
            [] => {
                let what = format!("the office knows no administrator {target}");
                Err(CommandError::new(what, "see administrators and devices in chordial office users"))
            }
            _ => Err(CommandError::new(
                format!("{target} is several administrators"),
                "name the one by its key, as in chordial office users",
            )),
        }
    }

    /// Somebody is revoked: where this device's certificates lean on an enroller that is, it asks another one for new ones.
    pub(super) fn replace_disowned(&mut self, now: Instant) {
        let leans = self.identity.as_ref().is_some_and(|i| i.leans_on(&self.people.revoked));
        if leans {
            let pause = Duration::from_millis(self.rng.below(SPREAD * 1000));
            self.certify_soon(now + pause);
        }
    }
}
