//! Kept, ordered, bounded, diverse; and whatever lies on the disk.

use super::*;
use crate::core::Rng;
use std::collections::BTreeSet;

const UNIX: UnixTime = UnixTime(1_800_000_000);
const RTT: Duration = Duration::from_millis(20);

fn at(s: u64) -> Instant {
    Instant::from_millis(s * 1000)
}

fn addr(net: u8, host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, net, host], 5061))
}

fn id(n: u16) -> Id {
    Id::sha1(&n.to_be_bytes())
}

fn reach(cache: &mut HostCache, addr: SocketAddr, peer: u16) {
    cache.reached(at(0), UNIX, addr, id(peer), RTT);
}

#[test]
fn what_was_reached_is_there_after_a_restart_and_few_hosts_are_written_soon() {
    let mut cache = HostCache::default();
    reach(&mut cache, addr(1, 1), 1);
    reach(&mut cache, "[2001:db8::1]:5061".parse().unwrap(), 2);
    assert_eq!(cache.save(at(0), false), None);
    let first = cache.save(at(1), false).expect("written soon");
    let again = HostCache::restore(&first);
    assert!(again.has_been_in() && again.hosts == cache.hosts);
    // An answer that changes nothing is no reason to write; another host is, soon where there are few.
    cache.reached(at(3), UNIX, addr(1, 1), id(1), RTT);
    assert_eq!(cache.next(), None);
    cache.reached(at(3), UNIX, addr(1, 2), id(3), RTT);
    assert_eq!(cache.next(), Some(at(3) + SETTLE_FEW));
    assert_eq!(cache.save(at(3), false), None);
    assert_eq!(HostCache::restore(&cache.save(at(3), true).expect("at the end")).len(), 3);
}

#[test]
fn the_order_goes_round_the_networks_and_puts_failures_last() {
    let mut cache = HostCache::default();
    for (n, (net, host)) in [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1)].into_iter().enumerate() {
        reach(&mut cache, addr(net, host), n as u16);
    }
    cache.failed(at(1), UNIX, addr(1, 1));
    cache.failed(at(1), UNIX, addr(3, 1));
    assert_eq!(cache.in_order(), [addr(1, 2), addr(2, 1), addr(3, 1), addr(1, 3), addr(1, 1)]);
    // One that answers again is as good as before.
    reach(&mut cache, addr(3, 1), 4);
    assert_eq!(cache.in_order()[2], addr(3, 1));
}

#[test]
fn one_network_never_fills_the_cache() {
    let mut cache = HostCache::default();
    for n in 0..=255 {
        reach(&mut cache, addr(7, n), n.into());
    }
    assert_eq!(cache.len(), PER_PREFIX);
    for n in 0..800u16 {
        reach(&mut cache, addr((n % 100) as u8 + 100, (n / 100) as u8), n + 1000);
    }
    assert_eq!(cache.len(), CAPACITY);
    let networks: BTreeSet<_> = cache.hosts.keys().map(|a| prefix(*a)).collect();
    assert!(networks.len() > 90, "{} networks", networks.len());
    let v6 = |text: &str| prefix(SocketAddr::new(text.parse().unwrap(), 1));
    assert_eq!(v6("2001:db8:1:2::3"), v6("2001:db8:1:ffff::"));
    assert_ne!(v6("2001:db8:1::"), v6("2001:db8:2::"));
}

#[test]
fn hearsay_takes_what_room_there_is_and_leaves_when_nobody_answers() {
    let mut cache = HostCache::default();
    assert!(cache.hear(at(0), addr(1, 1), Some(id(1))) && !cache.has_been_in());
    assert!(cache.hear(at(0), addr(1, 2), Some(id(1))));
    assert!(!cache.hear(at(0), addr(1, 3), Some(id(1))), "a third address of one peer");
    for _ in 0..UNPROVEN_TRIES {
        cache.failed(at(1), UNIX, addr(1, 1));
    }
    assert_eq!(cache.in_order(), [addr(1, 2)]);
    // One that did answer outlives a long time without network, and is forgotten after a month of it.
    reach(&mut cache, addr(1, 2), 1);
    for _ in 0..100 {
        cache.failed(at(2), UNIX, addr(1, 2));
    }
    assert_eq!(cache.len(), 1);
    cache.failed(at(3), UnixTime(UNIX.0 + 40 * 86_400), addr(1, 2));
    assert_eq!(cache.len(), 0);
}

#[test]
fn a_peer_that_moves_keeps_two_addresses() {
    let mut cache = HostCache::default();
    for n in 1..=5 {
        cache.reached(at(0), UnixTime(UNIX.0 + u64::from(n)), addr(n, 1), id(9), RTT);
    }
    let kept: Vec<_> = cache.hosts.keys().copied().collect();
    assert_eq!(kept, [addr(4, 1), addr(5, 1)]);
}

#[test]
fn a_damaged_file_is_an_empty_cache() {
    let mut cache = HostCache::default();
    for n in 0..20 {
        reach(&mut cache, addr(n, 1), n.into());
    }
    let good = encode(&cache.hosts);
    assert!(decode(&good).is_some());
    let mut rng = Rng::from_seed(5);
    for _ in 0..20_000 {
        let mut bad = good.clone();
        match rng.below(3) {
            0 => bad.truncate(rng.below(good.len() as u64) as usize),
            1 => bad.push(rng.next_u32() as u8),
            _ => {
                let place = rng.below(good.len() as u64) as usize;
                bad[place] ^= 1 << rng.below(8);
            }
        }
        // Read or refused, never more than it holds; what is read is what is written again.
        if let Some(hosts) = decode(&bad) {
            assert!(hosts.len() <= CAPACITY && encode(&hosts) == bad);
        }
    }
    let many: BTreeMap<_, _> = (0..=CAPACITY).map(|n| (addr(n as u8, (n / 256) as u8), Host::default())).collect();
    assert!(decode(&encode(&many)).is_none(), "more than the bound");
}
