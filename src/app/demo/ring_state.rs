//! The ring as the peers themselves tell it: whether it is closed, who holds what, who plays which part.

use crate::core::Id;
use crate::node::control::Status;

/// A closed ring: peer-ID and user of each peer, in the order of the peer-IDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// Clockwise.
    pub peers: Vec<(Id, String)>,
}

impl Ring {
    /// The user of the peer responsible for `key`: the first at or after it, round the ring.
    pub fn holder(&self, key: &Id) -> Option<&str> {
        let at = self.peers.partition_point(|(id, _)| id < key);
        self.peers.get(at).or(self.peers.first()).map(|(_, name)| name.as_str())
    }
}

/// The ring that `peers` (user and status) form.
///
/// # Errors
/// In words, where what they say does not fit together (yet).
pub fn closed(peers: &[(String, Status)]) -> Result<Ring, String> {
    let mut ring = Vec::new();
    for (name, status) in peers {
        if status.overlay.state != "joined" {
            return Err(format!("{name} is {}", status.overlay.state));
        }
        let id = Id::from_hex(&status.peer_id).ok_or_else(|| format!("{name} has no peer-ID"))?;
        ring.push((id, name.clone(), status));
    }
    ring.sort_by_key(|(id, ..)| *id);
    for (i, (id, name, status)) in ring.iter().enumerate() {
        let (next, next_name, next_status) = &ring[(i + 1) % ring.len()];
        let successor = status.overlay.successors.first().and_then(|p| Id::from_hex(&p.peer_id));
        if successor != Some(*next) && ring.len() > 1 {
            return Err(format!("{name} does not have {next_name} for its successor"));
        }
        let predecessor = next_status.overlay.predecessor.as_ref().and_then(|p| Id::from_hex(&p.peer_id));
        if predecessor != Some(*id) && ring.len() > 1 {
            return Err(format!("{next_name} does not have {name} for its predecessor"));
        }
    }
    Ok(Ring { peers: ring.into_iter().map(|(id, name, _)| (id, name)).collect() })
}

/// Who does what. All are users, each of a peer of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cast {
    /// Places the calls.
    pub caller: String,
    /// Is called.
    pub callee: String,
    /// Holds the callee's registration, and is killed.
    pub holder: String,
    /// Talks with the standard phone.
    pub other: String,
    /// Serves the standard phone.
    pub registrar: String,
}

/// Casts the parts so that the holder is none of the others; the first users get the first parts where
/// that can be. `key` is where a user's registration lies. `None` where the ring does not allow it.
pub fn cast(ring: &Ring, users: &[&str], registrar: &str, key: impl Fn(&str) -> Id) -> Option<Cast> {
    let free = || users.iter().copied().filter(|u| *u != registrar);
    for caller in free() {
        for callee in free().filter(|u| *u != caller) {
            let Some(holder) = ring.holder(&key(callee)) else { continue };
            if [caller, callee, registrar].contains(&holder) {
                continue;
            }
            let Some(other) = free().find(|u| ![caller, callee, holder].contains(u)) else { continue };
            return Some(Cast {
                caller: caller.into(),
                callee: callee.into(),
                holder: holder.into(),
                other: other.into(),
                registrar: registrar.into(),
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::control::PeerStatus;

    fn peers() -> Vec<(String, Status)> {
        let id = |n: usize| Id::from_u64([10, 20, 30][n % 3]).to_string();
        let peer = |n| PeerStatus { peer_id: id(n), ..Default::default() };
        let mut all: Vec<_> = (0..3)
            .map(|n| {
                let mut status = Status { peer_id: id(n), ..Default::default() };
                status.overlay.state = "joined".into();
                status.overlay.successors = vec![peer(n + 1), peer(n + 2)];
                status.overlay.predecessor = Some(peer(n + 2));
                (format!("user{n}"), status)
            })
            .collect();
        all.reverse();
        all
    }

    #[test]
    fn a_ring_is_closed_when_all_links_agree() {
        let names = |ring: Ring| ring.peers.into_iter().map(|(_, n)| n).collect::<Vec<_>>();
        assert_eq!(names(closed(&peers()).unwrap()), ["user0", "user1", "user2"]);
        let mut joining = peers();
        joining[1].1.overlay.state = "joining".into();
        assert_eq!(closed(&joining).unwrap_err(), "user1 is joining");
        let mut wrong = peers();
        wrong[2].1.overlay.successors.remove(0);
        assert_eq!(closed(&wrong).unwrap_err(), "user0 does not have user1 for its successor");
        let mut wrong = peers();
        wrong[0].1.overlay.predecessor = None;
        assert_eq!(closed(&wrong).unwrap_err(), "user2 does not have user1 for its predecessor");
        assert!(closed(&peers()[..2]).is_err(), "a peer that nobody speaks for is in between");
    }

    #[test]
    fn the_holder_is_the_first_at_or_after_the_key() {
        let ring = closed(&peers()).unwrap();
        for (key, holder) in [(5, "user0"), (10, "user0"), (11, "user1"), (30, "user2"), (31, "user0")] {
            assert_eq!(ring.holder(&Id::from_u64(key)), Some(holder), "{key}");
        }
    }

    #[test]
    fn the_holder_takes_no_other_part() {
        let users = ["a", "b", "c", "d", "e", "f", "g"];
        for turn in 0..7 {
            let peers = (0..7).map(|i| (Id::from_u64(i as u64 * 10), users[(i + turn) % 7].to_owned())).collect();
            let ring = Ring { peers };
            for shift in 0..7u64 {
                let key = |user: &str| Id::from_u64((u64::from(user.as_bytes()[0]) * 17 + shift * 10) % 70);
                let Some(parts) = cast(&ring, &users, "g", key) else { continue };
                assert_eq!(ring.holder(&key(&parts.callee)), Some(parts.holder.as_str()));
                let mut all = vec![&parts.caller, &parts.callee, &parts.holder, &parts.other, &parts.registrar];
                all.sort();
                all.dedup();
                assert_eq!(all.len(), 5, "{parts:?}");
            }
        }
        // Everybody holds the own registration: nobody can be cast.
        let ring = Ring { peers: users.iter().map(|u| (Id::sha1(u.as_bytes()), u.to_string())).collect() };
        let mut ring = ring;
        ring.peers.sort();
        assert_eq!(cast(&ring, &users, "g", |u| Id::sha1(u.as_bytes())), None);
    }
}
