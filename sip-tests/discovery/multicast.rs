//! Where mDNS is filtered, peers meet in SIP's multicast group.

use crate::lan::{Lan, inside, one_ring};
use crate::tools::have;
use crate::{alone, open};

const NO_MDNS: &str = "table inet f { chain i { type filter hook input priority 0; udp dport 5353 drop; }; \
                       chain o { type filter hook output priority 0; udp dport 5353 drop; }; }";

#[test]
fn peers_meet_by_sip_multicast_where_mdns_is_filtered() {
    const TEST: &str = "peers_meet_by_sip_multicast_where_mdns_is_filtered";
    if !have(TEST, &["nft"]) {
        return;
    }
    let Some(lan) = Lan::new(TEST, 5) else { return };
    for n in 0..5 {
        inside(lan.name(n), &["nft", NO_MDNS]);
    }
    // Two that rely on mDNS alone, one of another overlay.
    let mut by_mdns = open("dave", "lan.test");
    by_mdns.extend(["--discover", "mdns"]);
    let deaf = lan.start(3, "dave", &by_mdns);
    let stranger = lan.start(4, "mallory", &open("mallory", "other.test"));
    let mut by_multicast = open("carol", "lan.test");
    by_multicast.extend(["--discover", "multicast"]);
    let peers = [
        lan.start(0, "alice", &open("alice", "lan.test")),
        lan.start(1, "bob", &open("bob", "lan.test")),
        lan.start(2, "carol", &by_multicast),
    ];
    one_ring(&peers);
    peers[0].finds("carol");
    peers[2].finds("alice");
    assert!(alone(&deaf), "{}", deaf.status());
    assert!(alone(&stranger), "{}", stranger.status());
}
