//! Wrong codes are held against the network that they come from.

use super::{MAX_SOURCES, MAX_WRONG_CODES, THROTTLE_WINDOW};
use crate::core::{UnixTime, subscriber};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Counts wrong codes by subscriber (one IPv4 address, one IPv6 /64). Bounded.
#[derive(Clone, Default, Debug)]
pub(super) struct Throttle {
    wrong: BTreeMap<IpAddr, (u32, UnixTime)>,
    /// All since the start.
    pub refused: u64,
}

impl Throttle {
    /// True when nothing from `source` is looked at for now.
    pub fn is_closed_to(&mut self, source: IpAddr, now: UnixTime) -> bool {
        self.wrong.retain(|_, (_, since)| now < *since + THROTTLE_WINDOW);
        self.wrong.get(&subscriber(source)).is_some_and(|(count, _)| *count >= MAX_WRONG_CODES)
    }

    /// A code from `source` was wrong.
    pub fn count(&mut self, source: IpAddr, now: UnixTime) {
        let source = subscriber(source);
        self.refused += 1;
        if !self.wrong.contains_key(&source) && self.wrong.len() >= MAX_SOURCES {
            let oldest = self.wrong.iter().min_by_key(|(_, (_, since))| *since).map(|(ip, _)| *ip);
            oldest.and_then(|ip| self.wrong.remove(&ip));
        }
        let (count, _) = self.wrong.entry(source).or_insert((0, now));
        *count = count.saturating_add(1);
    }

    /// How many sources are remembered.
    pub fn sources(&self) -> usize {
        self.wrong.len()
    }
}
