//! What is kept of the overlay over a restart, and what the owner has to be told of it: a disk that takes nothing, a device key
//! in use twice, a clock that is wrong.

use super::control::{Event, Warning};
use super::{Node, StoreInput};
use crate::core::Instant;
use crate::identity::{ChunkHash, PublicKey, SignedEntry};
use crate::overlay;
use std::collections::BTreeMap;
use std::time::Duration;

/// What was signed in the first moments may be by the program that ran here before.
const STARTED: Duration = Duration::from_secs(5);
/// Most warnings that stand at once.
const MOST: usize = 32;

/// What a warning is about; one stands for each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    /// The disk takes no records.
    Disk,
    /// The disk takes no files.
    Files,
    /// The file of records was damaged.
    Damage,
    /// A chunk on the disk was damaged.
    Chunk,
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
            StoreInput::Unsaved { why } => {
                let what = format!("what has changed is in memory only: {why}");
                let next = "make room on the disk of the data directory; it is tried again by itself";
                return self.warn(About::Files, what, next);
            }
            StoreInput::Saved => return self.settled(&About::Files),
            StoreInput::Flushed { upto } => {
                self.settled(&About::Disk);
                upto
            }
            StoreInput::Loaded { hash, bytes } => {
                return self.overlay_input(now, overlay::Input::Loaded { hash, bytes });
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

    /// What lay on the disk of a chunk is not what was written: it is fetched from the other holders.
    pub(super) fn on_damaged(&mut self, hash: ChunkHash) {
        self.count("chunks damaged on the disk");
        let what = format!("the chunk {hash} on this disk was damaged; it is being fetched from another holder");
        self.warn(About::Chunk, what, "look after the disk");
    }

    pub(super) fn on_clock_off(&mut self, now: Instant, seconds: Option<i64>) {
        self.ua.set_clock(now, self.agreed(now));
        let Some(seconds) = seconds else { return self.settled(&About::Clock) };
        let by = match seconds.unsigned_abs() {
            s if s >= 172_800 => format!("{} days", s / 86_400),
            s if s >= 7_200 => format!("{} hours", s / 3_600),
            s => format!("{} minutes", s / 60),
        };
        let way = if seconds > 0 { "fast" } else { "slow" };
        let what =
            format!("the clock of this machine is {by} {way} by the clocks of its neighbours, which are gone by");
        self.warn(About::Clock, what, "set the clock, or have it set over the network (NTP)");
    }

    /// A holder has a later entry that this device's own key has signed since this program started: it was not this program.
    pub(super) fn on_overtaken(&mut self, entry: &SignedEntry) {
        let e = entry.entry();
        let own = self.identity.as_ref().is_some_and(|i| i.device_key() == e.device);
        if own && e.issued > self.setup.unix + STARTED {
            self.count("later entries of this device's key by another program");
            self.told_of_copy(&e.aor.clone(), e.device);
        }
    }

    /// Two entries of one device under one sequence number.
    pub(super) fn on_conflict(&mut self, _now: Instant, entries: &[SignedEntry; 2]) {
        self.count("two entries under one sequence number");
        let e = entries[0].entry();
        let own = self.identity.as_ref().is_some_and(|i| i.device_key() == e.device);
        let (aor, device) = (e.aor.clone(), e.device);
        if own {
            return self.told_of_copy(&aor, device);
        }
        let what = format!(
            "two programs write {aor} with one device key, {device}: a copied data directory, or a hostile device"
        );
        self.warn(About::Copy(aor), what, "tell its owner; the copy has to be enrolled as a device of its own");
    }

    pub(super) fn told_of_copy(&mut self, aor: &str, device: PublicKey) {
        let what =
            format!("another program writes {aor} with this device's key {device}: a copy of this data directory runs");
        let next = "stop one of the two and enrol it as a device of its own in an empty data directory";
        self.warn(About::Copy(aor.to_owned()), what, next);
    }
}
