//! The devices of this node's user: shown, added by a one-time code, taken back.

use super::Node;
use super::control::{CommandError, DeviceStatus, Reply, RequestId};
use super::lookup::Op;
use super::ring::State;
use crate::core::Instant;
use crate::identity::{Claims, DEVICE_CODE_LIFETIME, PublicKey, Revocation, RevokedKey, SignedEntry};
use std::collections::BTreeMap;

const NO_KEY: &str = "this device does not hold your user key, which signs your devices";
const WHERE_KEY: &str = "do it on the device that does, or ask the administrator: chordial office revoke DEVICE";

impl Node {
    /// A one-time code for a further device of this user.
    pub(super) fn device_add(
        &mut self,
        now: Instant,
        label: Option<String>,
        with_key: bool,
    ) -> Result<Reply, CommandError> {
        let (unix, addrs) = (self.unix(now), [self.flows.locals().overlay]);
        let Some(identity) = self.identity.as_ref().filter(|_| !self.flows.locals().clear) else {
            return Err(CommandError::new("this program has no devices", "run it as a peer of an overlay"));
        };
        if identity.user_key.is_none() {
            return Err(CommandError::new(NO_KEY, "run chordial devices add on the device that does"));
        }
        let code = self.people.codes.open(identity, label, with_key, &addrs, unix, &mut self.rng);
        let code = code.map_err(|fault| CommandError::new(format!("no code: {fault}"), "change the label"))?;
        Ok(Reply::Invite { code: code.text(), expires: DEVICE_CODE_LIFETIME.as_secs() })
    }

    /// Looks up which devices of this user are registered, for a list or to take one back.
    pub(super) fn devices(&mut self, now: Instant, request: RequestId, remove: Option<String>) {
        let Some(aor) = self.identity.as_ref().map(|i| i.aor()) else {
            let error = CommandError::new("this program has no devices", "run it as a peer of an overlay");
            return self.reply(request, Err(error));
        };
        match self.ring.state() {
            State::In => self.lookup_people(now, Op::Devices { request, remove }, &aor),
            _ => self.on_devices(now, request, remove, &[]),
        }
    }

    /// They were looked up, as far as they could be.
    pub(super) fn on_devices(
        &mut self,
        now: Instant,
        request: RequestId,
        remove: Option<String>,
        entries: &[SignedEntry],
    ) {
        let rows = self.device_rows(entries);
        let answer = match remove {
            None => Ok(Reply::Devices { devices: rows.into_values().collect() }),
            Some(which) => self.remove_device(now, &which, &rows),
        };
        self.reply(request, answer);
    }

    fn device_rows(&self, entries: &[SignedEntry]) -> BTreeMap<PublicKey, DeviceStatus> {
        let mut rows = BTreeMap::new();
        let Some(identity) = &self.identity else { return rows };
        let Some(user) = identity.chain.user_key() else { return rows };
        let own = identity.device_key();
        let mut row = |key: PublicKey, label: &str, seen: Option<u64>| {
            let row: &mut DeviceStatus = rows.entry(key).or_insert_with(|| DeviceStatus {
                key: key.to_string(),
                this: key == own,
                revoked: self.people.revoked.is_device(&user, &key),
                ..DeviceStatus::default()
            });
            if !label.is_empty() {
                row.label = label.to_owned();
            }
            row.last_seen = row.last_seen.max(seen);
        };
        for certificate in identity.chain.certificates().iter().chain(identity.signed_devices()) {
            if let Claims::Device(label) = &certificate.claims {
                row(certificate.subject, label, None);
            }
        }
        for entry in entries.iter().filter(|e| e.chain().user_key() == Some(user)) {
            let about = entry.chain().certificates().iter().find_map(|c| match &c.claims {
                Claims::Device(label) => Some((c.subject, label)),
                _ => None,
            });
            if let Some((key, label)) = about {
                row(key, label, Some(entry.entry().issued.secs()));
            }
        }
        let taken_back = self.people.revocations.iter().filter(|r| r.what == RevokedKey::Device && r.issuer == user);
        taken_back.for_each(|r| row(r.subject, &r.name, None));
        rows
    }

    fn remove_device(
        &mut self,
        now: Instant,
        which: &str,
        rows: &BTreeMap<PublicKey, DeviceStatus>,
    ) -> Result<Reply, CommandError> {
        let list = "see chordial devices for labels and keys";
        let fits = rows.iter().filter(|(_, row)| !row.revoked && (row.key == which || row.label == which));
        let (key, label) = match fits.collect::<Vec<_>>().as_slice() {
            [] => return Err(CommandError::new(format!("you have no device {which}"), list)),
            [(_, row)] if row.this => {
                return Err(CommandError::new(format!("{which} is this device"), "do it on another of your devices"));
            }
            [(key, row)] => (**key, row.label.clone()),
            several => {
                let keys: Vec<_> = several.iter().map(|(_, row)| row.key.clone()).collect();
                let what = format!("several devices are called {which}: {}", keys.join(", "));
                return Err(CommandError::new(what, "name one by its key"));
            }
        };
        let unix = self.unix(now);
        let identity = self.identity.as_ref().ok_or_else(|| CommandError::new(NO_KEY, WHERE_KEY))?;
        let signed = Revocation::sign(identity, RevokedKey::Device, key, &label, unix);
        let revocation = signed.map_err(|_| CommandError::new(NO_KEY, WHERE_KEY))?;
        if !self.revoke(now, revocation) {
            return Err(CommandError::new("too many devices are revoked already", "ask the administrator"));
        }
        Ok(Reply::Done { done: format!("{} {key} is revoked", if label.is_empty() { "the device" } else { &label }) })
    }
}
