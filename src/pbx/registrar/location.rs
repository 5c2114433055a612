//! The location table: users and their bindings, with a deadline for each user's first binding to expire.

use crate::core::{ConnId, Flow, Instant, TimerQueue};
use crate::pbx::{Candidate, Edge, Target};
use crate::sip::msg::Uri;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// One binding as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The contact URI as it was registered.
    pub uri: String,
    /// The flow that the registration came on.
    pub flow: Flow,
    /// Requests go over the flow, not to where the URI leads.
    pub keeps_flow: bool,
    /// The flow's stream is closed.
    pub closed: bool,
    /// Preference in thousandths.
    pub q: u16,
    /// How long it still holds.
    pub expires_in: Duration,
    /// What the phone calls itself; "" where it does not say.
    pub user_agent: String,
}

/// One binding as it is kept.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub uri: Uri,
    /// The URI as it was written.
    pub written: String,
    /// Parameters of the Contact besides `expires`, with their leading semicolons.
    pub params: String,
    pub q: u16,
    pub expires: Instant,
    pub call_id: String,
    pub cseq: u32,
    pub flow: Flow,
    pub keeps_flow: bool,
    pub closed: bool,
    /// The device, by its `+sip.instance`, and the number of its flow, where it is known by them (RFC 5626).
    pub flow_of: Option<(String, u32)>,
    /// It registered through this peer, and is reached through it.
    pub edge: Option<Edge>,
    pub user_agent: Arc<str>,
}

impl Entry {
    /// Where requests for it go; none where only a flow led there and it is closed.
    fn target(&self) -> Option<Target> {
        let uri = self.written.clone();
        if let Some(edge) = self.edge.clone() {
            return Some(Target::Path { uri, edge });
        }
        match (self.keeps_flow, self.closed) {
            (true, false) => Some(Target::Flow { uri, flow: self.flow }),
            // The phone may listen where its contact says, unless a NAT shows itself.
            (true, true) if self.uri.ip() != Some(self.flow.remote.ip()) => None,
            _ => Some(Target::Uri { uri }),
        }
    }
}

#[derive(Default)]
pub(super) struct Location {
    users: BTreeMap<Arc<str>, Vec<Entry>>,
    streams: BTreeSet<(ConnId, Arc<str>)>,
    timers: TimerQueue<Arc<str>>,
}

impl Location {
    pub fn get(&self, user: &str) -> &[Entry] {
        self.users.get(user).map_or(&[], Vec::as_slice)
    }

    pub fn users(&self) -> impl Iterator<Item = &Arc<str>> {
        self.users.keys()
    }

    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// All bindings, for another table: no stream that they came on is open there.
    pub fn take(&mut self) -> Vec<(Arc<str>, Vec<Entry>)> {
        let mut all: Vec<_> = std::mem::take(self).users.into_iter().collect();
        for entry in all.iter_mut().flat_map(|(_, entries)| entries) {
            entry.closed |= entry.flow.conn.is_some();
        }
        all
    }

    /// Replaces a user's bindings.
    pub fn set(&mut self, user: &str, entries: Vec<Entry>) {
        let (user, old) = match self.users.remove_entry(user) {
            Some((user, old)) => (user, old),
            None => (user.into(), Vec::new()),
        };
        self.put(user, &old, entries);
    }

    fn put(&mut self, user: Arc<str>, old: &[Entry], entries: Vec<Entry>) {
        for conn in old.iter().filter_map(|e| e.flow.conn) {
            if !entries.iter().any(|e| e.flow.conn == Some(conn)) {
                self.streams.remove(&(conn, user.clone()));
            }
        }
        for conn in entries.iter().filter(|e| !e.closed).filter_map(|e| e.flow.conn) {
            self.streams.insert((conn, user.clone()));
        }
        match entries.iter().map(|e| e.expires).min() {
            Some(first) => {
                if self.timers.deadline(&user) != Some(first) {
                    self.timers.set(user.clone(), first);
                }
                self.users.insert(user, entries);
            }
            None => {
                self.timers.cancel(&user);
            }
        }
    }

    pub fn targets(&self, now: Instant, user: &str) -> Vec<Candidate> {
        let live = self.get(user).iter().filter(|e| e.expires > now);
        live.filter_map(|e| Some(Candidate { target: e.target()?, q: e.q })).collect()
    }

    pub fn bindings(&self, now: Instant, user: &str) -> Vec<Binding> {
        let live = self.get(user).iter().filter(|e| e.expires > now);
        live.map(|e| Binding {
            uri: e.written.clone(),
            flow: e.flow,
            keeps_flow: e.keeps_flow,
            closed: e.closed,
            q: e.q,
            expires_in: e.expires.since(now),
            user_agent: e.user_agent.to_string(),
        })
        .collect()
    }

    pub fn close(&mut self, conn: ConnId) {
        let gone: Vec<_> = self.streams.range((conn, "".into())..).take_while(|(c, _)| *c == conn).cloned().collect();
        for key in gone {
            for entry in self.users.get_mut(&key.1).into_iter().flatten() {
                entry.closed |= entry.flow.conn == Some(conn);
            }
            self.streams.remove(&key);
        }
    }

    pub fn next_expiry(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Drops what has expired; gives one user at a time who lost the last binding.
    pub fn expire(&mut self, now: Instant) -> Option<Arc<str>> {
        while let Some(user) = self.timers.pop(now) {
            let old = self.users.remove(&user).unwrap_or_default();
            let left: Vec<_> = old.iter().filter(|e| e.expires > now).cloned().collect();
            let gone = left.is_empty();
            self.put(user.clone(), &old, left);
            if gone {
                return Some(user);
            }
        }
        None
    }
}

#[cfg(test)]
impl Location {
    /// Streams that are remembered.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }
}
