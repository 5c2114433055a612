//! What the tasks of one endpoint share: the table of connections, the bounds, the counters, the keys.

use super::close::CloseReason;
use super::counters::{Counting, add};
use super::link::Tls;
use super::phones::Phones;
use super::{Event, Limits, Numbers};
use crate::core::{ConnId, subscriber};
use crate::identity::Revoked;
use crate::io::proxy::Proxy;
use bytes::Bytes;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::{mpsc, oneshot};

/// Writes that wait on one connection, whatever their size.
const WRITES: usize = 1024;

/// The end of a connection that its task holds.
pub(super) struct Line {
    /// What is to be written; its end means: write the rest and close.
    pub(super) writes: mpsc::Receiver<Bytes>,
    /// Bytes in `writes`.
    pub(super) waiting: Arc<AtomicUsize>,
    /// Close at once.
    pub(super) cut: oneshot::Receiver<CloseReason>,
}

struct Handle {
    writes: mpsc::Sender<Bytes>,
    waiting: Arc<AtomicUsize>,
    cut: oneshot::Sender<CloseReason>,
}

pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) counters: Counting,
    pub(super) numbers: Numbers,
    /// The address that we listen on, for the source of what we dial.
    pub(super) source: Option<SocketAddr>,
    /// The last link was had at port 443 and not at the port that was named.
    pub(super) behind_443: AtomicBool,
    /// What leads out where nothing else does.
    pub(super) proxy: Option<Arc<Proxy>>,
    /// The server's side of phones' TLS.
    pub(super) phones: Option<Phones>,
    tls: RwLock<Option<Arc<Tls>>>,
    revoked: Mutex<Arc<Revoked>>,
    connections: Mutex<HashMap<ConnId, Handle>>,
    admitted: Mutex<Admitted>,
}

#[derive(Default)]
struct Admitted {
    total: usize,
    strangers: usize,
    foreign: usize,
    by_source: HashMap<IpAddr, usize>,
    foreign_by_source: HashMap<IpAddr, usize>,
}

impl Shared {
    pub(super) fn new(
        limits: Limits,
        events: mpsc::Sender<Event>,
        (tls, phones): (Option<Tls>, Option<Phones>),
        source: Option<SocketAddr>,
        proxy: Option<Arc<Proxy>>,
    ) -> Shared {
        Shared {
            limits,
            events,
            counters: Counting::default(),
            numbers: Numbers(AtomicU64::new(0)),
            source,
            behind_443: AtomicBool::new(false),
            proxy,
            phones,
            tls: RwLock::new(tls.map(Arc::new)),
            revoked: Mutex::default(),
            connections: Mutex::default(),
            admitted: Mutex::default(),
        }
    }

    pub(super) fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_revoked(&self, revoked: Arc<Revoked>) {
        *self.revoked.lock().unwrap_or_else(PoisonError::into_inner) = revoked.clone();
        if let Some(tls) = self.tls() {
            tls.revoke(revoked);
        }
    }

    pub(super) fn set_tls(&self, tls: Tls) {
        tls.revoke(self.revoked.lock().unwrap_or_else(PoisonError::into_inner).clone());
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(tls));
    }

    /// Enters a connection into the table.
    pub(super) fn open(&self, conn: ConnId) -> Line {
        let (writes, reads) = mpsc::channel(WRITES);
        let (cut, cuts) = oneshot::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        self.table().insert(conn, Handle { writes, waiting: waiting.clone(), cut });
        Line { writes: reads, waiting, cut: cuts }
    }

    pub(super) fn write(&self, conn: ConnId, bytes: Bytes) {
        let mut table = self.table();
        let Some(handle) = table.get(&conn) else { return };
        let len = bytes.len();
        let before = handle.waiting.fetch_add(len, Ordering::Relaxed);
        if before + len <= self.limits.write_bytes && handle.writes.try_send(bytes).is_ok() {
            return;
        }
        if let Some(handle) = table.remove(&conn) {
            add(&self.counters.stalled);
            let _ = handle.cut.send(CloseReason::Stalled);
        }
    }

    pub(super) fn close(&self, conn: ConnId) {
        self.table().remove(&conn);
    }

    pub(super) fn close_all(&self) {
        self.table().clear();
    }

    pub(super) fn connections(&self) -> usize {
        self.table().len()
    }

    /// Takes a connection out of the table and says so.
    pub(super) async fn closed(&self, conn: ConnId, why: CloseReason) {
        self.close(conn);
        let _ = self.events.send(Event::Closed { conn, why }).await;
    }

    /// Lets one more connection in, or counts that it is one too many.
    pub(super) fn admit(self: &Arc<Self>, from: IpAddr) -> Option<Admission> {
        let source = subscriber(from);
        let mut admitted = self.admitted();
        if admitted.total >= self.limits.accepted {
            add(&self.counters.refused_total);
            return None;
        }
        let from_there = admitted.by_source.get(&source).copied().unwrap_or_default();
        if from_there >= self.limits.per_source {
            add(&self.counters.refused_source);
            return None;
        }
        admitted.by_source.insert(source, from_there + 1);
        admitted.total += 1;
        Some(Admission { shared: self.clone(), source, stranger: false, foreign: false })
    }

    fn table(&self) -> MutexGuard<'_, HashMap<ConnId, Handle>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admitted(&self) -> MutexGuard<'_, Admitted> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("limits", &self.limits).field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// A place among the accepted connections, given back when dropped.
pub(super) struct Admission {
    shared: Arc<Shared>,
    source: IpAddr,
    stranger: bool,
    foreign: bool,
}

impl Admission {
    /// Takes a place among the strangers as well; false when there is none.
    pub(super) fn as_stranger(&mut self) -> bool {
        let mut admitted = self.shared.admitted();
        if admitted.strangers >= self.shared.limits.strangers {
            add(&self.shared.counters.refused_strangers);
            return false;
        }
        admitted.strangers += 1;
        self.stranger = true;
        true
    }

    /// Takes a place among those of other overlays as well; false when there is none.
    pub(super) fn as_foreign(&mut self) -> bool {
        let limits = &self.shared.limits;
        let mut admitted = self.shared.admitted();
        let from_there = admitted.foreign_by_source.get(&self.source).copied().unwrap_or_default();
        if admitted.foreign >= limits.foreign || from_there >= limits.foreign_per_source {
            add(&self.shared.counters.refused_foreign);
            return false;
        }
        admitted.foreign += 1;
        admitted.foreign_by_source.insert(self.source, from_there + 1);
        self.foreign = true;
        true
    }
}

/// One less from there.
fn leave(by_source: &mut HashMap<IpAddr, usize>, source: IpAddr) {
    if let Some(count) = by_source.get_mut(&source) {
        *count -= 1;
        if *count == 0 {
            by_source.remove(&source);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut admitted = self.shared.admitted();
        admitted.total -= 1;
        admitted.strangers -= usize::from(self.stranger);
        leave(&mut admitted.by_source, self.source);
        if self.foreign {
            admitted.foreign -= 1;
            leave(&mut admitted.foreign_by_source, self.source);
        }
    }
}
