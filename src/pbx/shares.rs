//! With whom an account of a standard phone is shared: the further adapters that an administrator's device has given its digest
//! secret to, and those from whom it is to be taken back.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most rows: two further adapters for each of 10,000 accounts.
const SHARES: usize = 20_000;

/// One further adapter of one phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The phone's user name.
    pub user: String,
    /// Whose device it is.
    pub member: String,
    /// Fingerprint of the device's key.
    pub device: String,
    /// It is to forget the secret.
    #[serde(default)]
    pub taken: bool,
    /// It has said that it does what it was told last.
    #[serde(default)]
    pub done: bool,
}

/// The further adapters of all phones, by phone and device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares(BTreeMap<(String, String), Share>);

impl Shares {
    /// Puts a row in the place of the one about the same phone and device; false when there are too many.
    pub fn set(&mut self, share: Share) -> bool {
        let key = (share.user.clone(), share.device.clone());
        let room = self.0.len() < SHARES || self.0.contains_key(&key);
        if room {
            self.0.insert(key, share);
        }
        room
    }

    /// The device did what it was told, when it was told this; a secret taken back is forgotten here too.
    pub fn done(&mut self, user: &str, device: &str, taken: bool) {
        let key = (user.to_owned(), device.to_owned());
        match self.0.get_mut(&key).filter(|share| share.taken == taken) {
            Some(_) if taken => drop(self.0.remove(&key)),
            Some(share) => share.done = true,
            None => {}
        }
    }

    /// The secret of `user` is another one: all have to be told again.
    pub fn again(&mut self, user: &str) {
        self.0.values_mut().filter(|s| s.user == user).for_each(|s| s.done = false);
    }

    /// Drops a row; true when there was one.
    pub fn remove(&mut self, user: &str, device: &str) -> bool {
        self.0.remove(&(user.to_owned(), device.to_owned())).is_some()
    }

    /// The further adapters of a phone from whom nothing is to be taken back.
    pub fn of<'s>(&'s self, user: &'s str) -> impl Iterator<Item = &'s Share> {
        self.0.values().filter(move |s| s.user == user && !s.taken)
    }

    /// Takes the phone's secret back from one device, or from all; how many.
    pub fn take_back(&mut self, user: &str, device: Option<&str>) -> usize {
        let meant = |s: &&mut Share| s.user == user && device.is_none_or(|d| s.device == d) && !s.taken;
        self.0.values_mut().filter(meant).map(|s| (s.taken, s.done) = (true, false)).count()
    }

    /// Who has to be told something.
    pub fn waiting(&self) -> impl Iterator<Item = &Share> {
        self.0.values().filter(|s| !s.done)
    }

    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = &Share> {
        self.0.values()
    }
}
