//! A supernode behind a name whose address changes.

use crate::lan::{Lan, one_ring};
use crate::open;
use crate::tools::eventually;

#[test]
fn a_name_is_followed_to_its_new_address() {
    let Some(lan) = Lan::new("a_name_is_followed_to_its_new_address", 3) else { return };
    let quiet = |name, more: &[&'static str]| {
        let mut args = open(name, "lan.test");
        args.extend(["--discover", "none"]);
        args.extend(more);
        args
    };
    let bootstrap = ["--bootstrap", "home.test:5061"];
    lan.hosts(1, "127.0.0.1 localhost\n10.77.0.1 home.test\n");
    {
        let ring = [lan.start(0, "alice", &quiet("alice", &[])), lan.start(1, "bob", &quiet("bob", &bootstrap))];
        one_ring(&ring);
        ring[1].finds("alice");
        let kept = lan.dir().join("bob/hosts.cbor");
        eventually("the supernode is remembered", || {
            if kept.exists() { Ok(()) } else { Err(ring[1].status()["overlay"].to_string()) }
        });
    }
    // Another machine has taken over, and the name does not say so yet: bob goes on alone, and says so.
    let other = lan.start(2, "other", &quiet("alice", &[]));
    let bob = lan.start(1, "bob", &quiet("bob", &bootstrap));
    eventually("bob says that he is alone", || {
        let said = bob.process.stdout();
        if said.contains("alone for now: no answer from home.test:5061") { Ok(()) } else { Err(said) }
    });
    lan.hosts(1, "127.0.0.1 localhost\n10.77.0.3 home.test\n");
    let ring = [other, bob];
    one_ring(&ring);
    ring[1].finds("alice");
}
