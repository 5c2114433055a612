//! What is kept of the overlay over a restart, and what the owner has to be told of it: a disk that takes nothing, a device key
//! in use twice, a clock that is wrong.

use super::control::{Event, Warning};
use super::{Node, StoreInput};
use crate::core::Instant;
use crate::identity::SignedEntry;
use crate::overlay;
use std::collections::BTreeMap;

/// Most warnings that stand at once.
const MOST: usize = 32;

/// What a warning is about; one stands for each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    /// The disk takes no records.
    Disk,
    /// The file of records was damaged.
    Damage,
    /// This machine's clock.
    Clock,
    /// One device key is in use by two programs: ours, or that of the device that signs for this AOR.
    Copy(String),
}

/// The warnings that stand.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    standing: BTreeMap<About, Warning>,
}

impl Warnings {
    pub fn list(&self) -> Vec<Warning> {
        self.standing.values().cloned().collect()
    }
}

impl Node {
    /// Tells the owner, once for each text.
    pub(super) fn warn(&mut self, about: About, what: String, next: &str) {
        let warning = Warning { what, next: next.to_owned() };
        let standing = &mut self.warnings.standing;
        if standing.get(&about) == Some(&warning) || standing.len() >= MOST && !standing.contains_key(&about) {
            return;
        }
        let Warning { what, next } = warning.clone();
        tracing::warn!("{what}; {next}");
        standing.insert(about, warning);
        self.event(None, Event::Warning { what, next });
    }

    /// It is well again.
    pub(super) fn settled(&mut self, about: &About) {
        if let Some(warning) = self.warnings.standing.remove(about) {
            tracing::info!("no more: {}", warning.what);
        }
    }

    /// What was wrong with the file at the start.
    pub(super) fn tell_damage(&mut self) {
        if let Some(damage) = self.setup.damage.take() {
            self.warn(About::Damage, damage, "what is missing comes back from the other holders; look after the disk");
        }
    }

    pub(super) fn on_store(&mut self, now: Instant, input: StoreInput) {
        let upto = match input {
            StoreInput::Flushed { upto } => {
                self.settled(&About::Disk);
                upto
            }
            StoreInput::Failing { upto, why } => {
                self.count("batches of records that the disk did not take");
                let what = format!("records are kept in memory only, the disk does not take them: {why}");
                self.warn(About::Disk, what, "make room in the data directory; it is tried again by itself");
                upto
            }
        };
        self.overlay_input(now, overlay::Input::Flushed { upto });
    }

    /// Two entries of one device under one sequence number.
    pub(super) fn on_conflict(&mut self, _now: Instant, entries: &[SignedEntry; 2]) {
        self.count("two entries under one sequence number");
        let e = entries[0].entry();
        let own = self.identity.as_ref().is_some_and(|i| i.device_key() == e.device);
        let (aor, device) = (&e.aor, e.device);
        let (what, next) = match own {
            true => (
                format!(
                    "another program writes {aor} with this device's key {device}: a copy of this data directory runs"
                ),
                "stop one of the two and enrol it as a device of its own in an empty data directory",
            ),
            false => (
                format!(
                    "two programs write {aor} with one device key, {device}: a copied data directory, or a hostile device"
                ),
                "tell its owner; the copy has to be enrolled as a device of its own",
            ),
        };
        self.warn(About::Copy(aor.clone()), what, next);
    }
}
