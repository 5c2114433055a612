//! The member list: everybody who is said to be in the ring, so that in a ring of a few hundred the responsible peer is one
//! hop away (Gupta, Liskov, Rodrigues: "Efficient routing for peer-to-peer overlays", NSDI 2004).
//!
//! What stands here is hearsay until it is used: an entry is a candidate for requests of this peer's own and proves
//! itself on the link. Nobody is referred to such a peer, named it as a neighbour or has a request passed on to it; the
//! other tables do that, and hold only whom this peer has reached. No link is kept for an entry.
//!
//! Each entry has a version: `gone` of a version stands above `here` of the same, `here` of the next above that. Only the
//! member itself and the peers next to it on the circle make new versions (`gossip`), so that no clock is needed.

use crate::core::{Id, Instant};
use crate::overlay::{Member, PeerRef};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long it is remembered that a member has gone.
const GONE: Duration = Duration::from_secs(600);
/// The highest version that is believed: one that is made up may not leave the member without a higher one.
const MAX_VERSION: u32 = u32::MAX / 2;

#[derive(Clone, Copy, Debug)]
struct Known {
    addr: SocketAddr,
    version: u32,
    /// Since when.
    gone: Option<Instant>,
}

/// The list. `max` 0: not kept.
pub(super) struct Members {
    me: Id,
    max: usize,
    list: BTreeMap<Id, Known>,
    here: usize,
    /// The ring is larger than the list may be.
    overflow: bool,
    /// It has been compared with somebody else's since this peer joined.
    pub settled: bool,
}

/// What became of something that was said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Learnt {
    /// Known, or older than what is known.
    Old,
    /// A member, or one at another address.
    Here,
    /// No member any more.
    Gone,
    /// The list would outgrow its bound.
    Full,
}

impl Members {
    pub fn new(me: Id, max: usize) -> Members {
        Members { me, max, list: BTreeMap::new(), here: 0, overflow: false, settled: false }
    }

    /// True when the list is kept.
    pub fn on(&self) -> bool {
        self.max > 0 && !self.overflow
    }

    /// True when the list may be trusted to name the whole ring.
    pub fn complete(&self) -> bool {
        self.on() && self.settled
    }

    /// Members besides this peer.
    pub fn len(&self) -> usize {
        self.here
    }

    pub fn clear(&mut self) {
        self.list.clear();
        (self.here, self.settled, self.overflow) = (0, false, false);
    }

    /// The ring has outgrown the list.
    pub fn give_up(&mut self) {
        self.clear();
        self.overflow = true;
    }

    /// The ring seems to have shrunk.
    pub fn resume(&mut self) {
        self.overflow = false;
    }

    pub fn outgrown(&self) -> bool {
        self.overflow
    }

    pub fn contains(&self, id: &Id) -> bool {
        self.list.get(id).is_some_and(|k| k.gone.is_none())
    }

    pub fn is_gone(&self, id: &Id) -> bool {
        self.list.get(id).is_some_and(|k| k.gone.is_some())
    }

    pub fn get(&self, id: &Id) -> Option<Member> {
        self.list.get(id).map(|k| member(id, k))
    }

    /// Takes what was said, of anybody but this peer.
    pub fn learn(&mut self, said: &Member, now: Instant) -> Learnt {
        if !self.on() || said.peer.id == self.me || said.version > MAX_VERSION {
            return Learnt::Old;
        }
        let known = self.list.get(&said.peer.id);
        if known.is_some_and(|k| (k.version, k.gone.is_some()) >= (said.version, said.gone)) {
            return Learnt::Old;
        }
        let (unknown, was_here) = (known.is_none(), known.is_some_and(|k| k.gone.is_none()));
        if unknown && said.gone {
            // Of somebody never heard of it means nothing, and anybody can make up any number of these.
            return Learnt::Old;
        }
        if !was_here && !said.gone && self.here >= self.max {
            return Learnt::Full;
        }
        if unknown && self.list.len() >= self.max * 2 {
            self.forget_oldest();
        }
        let gone = said.gone.then_some(now);
        self.list.insert(said.peer.id, Known { addr: said.peer.addr, version: said.version, gone });
        match (was_here, said.gone) {
            (true, true) => self.here -= 1,
            (false, false) => self.here += 1,
            (false, true) => return Learnt::Old,
            (true, false) => {}
        }
        if said.gone { Learnt::Gone } else { Learnt::Here }
    }

    /// The news that a peer is here, where that is news: it has answered this one.
    pub fn arrived(&mut self, peer: PeerRef, now: Instant) -> Option<Member> {
        let version = match self.list.get(&peer.id) {
            Some(k) if k.gone.is_none() && k.addr == peer.addr => return None,
            Some(k) => k.version.saturating_add(1),
            None => 1,
        };
        let news = Member { peer, version, gone: false };
        (self.learn(&news, now) == Learnt::Here).then_some(news)
    }

    /// The news that a peer has gone, where that is news.
    pub fn departed(&mut self, id: &Id, now: Instant) -> Option<Member> {
        let known = self.list.get(id).filter(|k| k.gone.is_none())?;
        let news = Member { gone: true, ..member(id, known) };
        (self.learn(&news, now) == Learnt::Gone).then_some(news)
    }

    /// The members from `position` on around the circle, this peer among them at its place.
    pub fn from(&self, position: &Id, own: PeerRef) -> impl Iterator<Item = PeerRef> {
        let live = |(id, k): (&Id, &Known)| k.gone.is_none().then_some(PeerRef { id: *id, addr: k.addr });
        let after = self.list.range(*position..).filter_map(live);
        let before = self.list.range(..*position).filter_map(live);
        // This peer's place: before the first that is not between the position and it.
        let position = *position;
        let (mut rest, mut own) = (after.chain(before).peekable(), Some(own));
        std::iter::from_fn(move || {
            if let Some(me) = own {
                let own_turn = rest.peek().is_none_or(|next| turn(&position, &me.id) < turn(&position, &next.id));
                if own_turn {
                    return own.take();
                }
            }
            rest.next()
        })
    }

    /// Everything that another list may lack.
    pub fn all(&self) -> impl Iterator<Item = Member> + '_ {
        self.list.iter().map(|(id, k)| member(id, k))
    }

    /// A digest of who is here, `own` included: equal lists have equal ones. It guards against accidents and proves nothing.
    pub fn digest(&self, own: &Member) -> u64 {
        let here = self.list.iter().filter(|(_, k)| k.gone.is_none()).map(|(id, k)| member(id, k));
        here.chain([*own]).fold(0, |sum: u64, m| sum.wrapping_add(fingerprint(&m)))
    }

    /// Forgets who went long ago.
    pub fn expire(&mut self, now: Instant) {
        self.list.retain(|_, k| k.gone.is_none_or(|since| now.since(since) < GONE));
    }

    fn forget_oldest(&mut self) {
        let oldest = self.list.iter().filter_map(|(id, k)| k.gone.map(|since| (since, *id))).min();
        if let Some((_, id)) = oldest {
            self.list.remove(&id);
        }
    }
}

fn member(id: &Id, known: &Known) -> Member {
    Member { peer: PeerRef { id: *id, addr: known.addr }, version: known.version, gone: known.gone.is_some() }
}

/// Where `id` comes on a way round the circle from `position` on.
fn turn(position: &Id, id: &Id) -> (bool, Id) {
    (id < position, *id)
}

fn fingerprint(member: &Member) -> u64 {
    let mut bytes = [0; 24];
    bytes[..20].copy_from_slice(&member.peer.id.0);
    bytes[20..].copy_from_slice(&member.version.to_be_bytes());
    let hash = Id::sha1(&bytes);
    hash.0.iter().take(8).fold(0, |sum, b| sum << 8 | u64::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(n: u64, version: u32, gone: bool) -> Member {
        let peer = PeerRef { id: Id::from_u64(n), addr: SocketAddr::from(([192, 0, 2, n as u8], 5060)) };
        Member { peer, version, gone }
    }

    fn list(here: &[u64], max: usize) -> Members {
        let mut list = Members::new(Id::from_u64(50), max);
        for n in here {
            assert_eq!(list.learn(&said(*n, 1, false), Instant::ZERO), Learnt::Here);
        }
        list
    }

    #[test]
    fn later_versions_stand() {
        let mut list = list(&[10], 8);
        let steps = [
            (said(10, 1, false), Learnt::Old),
            (said(10, 1, true), Learnt::Gone),
            (said(10, 1, false), Learnt::Old),
            (said(10, 2, false), Learnt::Here),
            (said(10, 1, true), Learnt::Old),
            (said(20, 7, true), Learnt::Old), // nobody ever heard of it
            (said(20, 7, false), Learnt::Here),
            (said(50, 9, false), Learnt::Old), // this peer
            (said(30, u32::MAX, false), Learnt::Old),
        ];
        for (said, expected) in steps {
            assert_eq!(list.learn(&said, Instant::ZERO), expected, "{said:?}");
        }
        assert_eq!((list.len(), list.contains(&Id::from_u64(10))), (2, true));
        assert_eq!(list.departed(&Id::from_u64(10), Instant::ZERO), Some(said(10, 2, true)));
        assert_eq!(list.arrived(said(10, 0, false).peer, Instant::ZERO), Some(said(10, 3, false)));
        assert_eq!(list.arrived(said(10, 0, false).peer, Instant::ZERO), None);
    }

    #[test]
    fn the_circle_begins_anywhere() {
        let list = list(&[10, 30, 70, 90], 8);
        let own = said(50, 1, false).peer;
        for (position, expected) in [
            (0, [10, 30, 50, 70, 90]),
            (30, [30, 50, 70, 90, 10]),
            (31, [50, 70, 90, 10, 30]),
            (50, [50, 70, 90, 10, 30]),
            (51, [70, 90, 10, 30, 50]),
            (91, [10, 30, 50, 70, 90]),
        ] {
            let got: Vec<Id> = list.from(&Id::from_u64(position), own).map(|p| p.id).collect();
            assert_eq!(got, expected.map(Id::from_u64), "{position}");
        }
    }

    #[test]
    fn the_list_is_bounded() {
        let mut list = list(&[1, 2, 3, 4], 4);
        assert_eq!(list.learn(&said(5, 1, false), Instant::ZERO), Learnt::Full);
        for n in 1..40 {
            assert_eq!(list.learn(&said(n, 1, true), Instant::from_millis(n)), Learnt::Gone);
            assert_eq!(list.learn(&said(n + 4, 1, false), Instant::from_millis(n)), Learnt::Here);
        }
        assert_eq!((list.len(), list.all().count()), (4, 8));
        list.expire(Instant::from_millis(700_000));
        assert_eq!(list.all().count(), 4);
    }

    #[test]
    fn equal_lists_have_equal_digests() {
        let (mut a, b) = (list(&[1, 2, 3], 8), list(&[3, 2, 1], 8));
        let own = said(50, 1, false);
        assert_eq!(a.digest(&own), b.digest(&own));
        a.departed(&Id::from_u64(2), Instant::ZERO);
        assert_ne!(a.digest(&own), b.digest(&own));
        // Who sees it from another place counts itself.
        let mut other = Members::new(Id::from_u64(3), 8);
        for n in [1, 2, 50] {
            other.learn(&said(n, 1, false), Instant::ZERO);
        }
        assert_eq!(other.digest(&said(3, 1, false)), b.digest(&own));
    }
}
