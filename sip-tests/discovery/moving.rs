//! A machine whose address changes while the program runs.

use crate::lan::{Lan, ip, one_ring};
use crate::open;
use crate::tools::eventually;

#[test]
fn a_machine_that_gets_another_address_is_found_there() {
    let Some(lan) = Lan::new("a_machine_that_gets_another_address_is_found_there", 3) else { return };
    let users = ["alice", "bob", "carol"];
    let peers: Vec<_> = users.iter().enumerate().map(|(n, user)| lan.start(n, user, &open(user, "lan.test"))).collect();
    one_ring(&peers);
    peers[0].finds("bob");
    let bob = lan.name(1);
    ip(&["-n", bob, "addr", "del", "10.77.0.2/24", "dev", "eth0"]);
    ip(&["-n", bob, "addr", "add", "10.77.0.22/24", "dev", "eth0"]);
    eventually("bob tells the new address", || match peers[1].status()["listen"]["advertised"].as_str() {
        Some("10.77.0.22:5061") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    for asker in [0, 2] {
        eventually("bob is found at the new address", || {
            let report = peers[asker].try_json(&["lookup", "bob"])?;
            let contact = report["contacts"][0].as_str().unwrap_or_default();
            if contact.contains("10.77.0.22") { Ok(()) } else { Err(report.to_string()) }
        });
    }
    one_ring(&peers);
    for (caller, callee) in [(0, "bob"), (1, "carol")] {
        let report = peers[caller].call(callee);
        assert!(report["received"].as_u64() > Some(0), "{report}");
    }
}
