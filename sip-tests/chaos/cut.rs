//! A local network that is cut in two in silence (no connection is closed, packets just vanish), lives on in both halves,
//! and heals.

use crate::lan::{Lan, Machine, one_ring};
use crate::tools::have;

const USERS: [&str; 6] = ["anna", "ben", "cleo", "dora", "emil", "finn"];

#[test]
fn a_cut_network_goes_on_in_halves_and_heals() {
    let test = "a_cut_network_goes_on_in_halves_and_heals";
    if !have(test, &["nft"]) {
        return;
    }
    let Some(lan) = Lan::new(test, USERS.len()) else { return };
    let start = |(n, user): (usize, &&str)| {
        let args = ["--open", "--overlay", "cut.test", "--name", user, "--auto-answer", "--audio-in", "tone"];
        lan.start(n, user, &args)
    };
    let peers: Vec<Machine> = USERS.iter().enumerate().map(start).collect();
    one_ring(&peers);
    all_find_all(&peers, &USERS);

    lan.cut(3);
    let (here, there) = peers.split_at(3);
    one_ring(here);
    one_ring(there);
    all_find_all(here, &USERS[..3]);
    all_find_all(there, &USERS[3..]);
    here[0].call("cleo");
    there[0].call("finn");

    lan.heal();
    one_ring(&peers);
    all_find_all(&peers, &USERS);
    here[0].call("finn");
    there[0].call("anna");
}

fn all_find_all(peers: &[Machine], users: &[&str]) {
    for peer in peers {
        users.iter().for_each(|user| peer.finds(user));
    }
}
