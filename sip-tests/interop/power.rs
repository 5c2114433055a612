//! An office loses power: every process is killed at once, and they are started again in an order drawn by lot.

use crate::process::run;
use crate::program::{Peer, chordial};
use crate::tools::{DEADLINE, heavy};
use std::path::Path;
use std::time::{Instant, SystemTime};

const USERS: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];
const ARGS: [&str; 3] = ["--auto-answer", "--audio-in", "tone"];

#[test]
fn an_office_killed_at_once_comes_back_with_its_records() {
    let _one_at_a_time = heavy();
    let dir = tempfile::Builder::new().prefix("chordial-power-").tempdir().unwrap();
    let dir = dir.path();
    command(dir, "alice", &["office", "create", "power.test", "--name", "alice"]);
    let mut peers = vec![Peer::start(dir, "alice", &ARGS)];
    let first = peers[0].overlay.to_string();
    for user in &USERS[1..] {
        let (invite, ok) = peers[0].json(&["office", "invite", user]);
        let code = invite["code"].as_str().filter(|_| ok).unwrap_or_else(|| panic!("no code: {invite}"));
        command(dir, user, &["join", code]);
        let args = [&["--bootstrap", &first][..], &ARGS].concat();
        peers.push(Peer::start(dir, user, &args));
    }
    for peer in &peers {
        USERS.iter().for_each(|user| drop(peer.lookup_until_found(user)));
    }
    for peer in &mut peers {
        peer.process.kill();
    }

    // Drawn anew in each run, and told.
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut order: Vec<usize> = (0..peers.len()).collect();
    order.sort_by_key(|i| (seed ^ (*i as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32);
    println!("started again in this order: {:?}", order.iter().map(|i| USERS[*i]).collect::<Vec<_>>());
    let mut begun = Instant::now();
    for (up, i) in order.iter().enumerate() {
        if up == 1 {
            println!("the first is a ring of one {:?} after it was started", begun.elapsed());
            begun = Instant::now();
        }
        peers[*i].start_again(dir, &ARGS);
        if up == 1 {
            // The second one up is registered, and calls and is called.
            let (a, b) = (order[0], order[1]);
            peers[b].lookup_until_found(USERS[a]);
            peers[a].lookup_until_found(USERS[b]);
            println!("two of five find each other {:?} after the second was started", begun.elapsed());
            let report = peers[b].call(USERS[a], &["--play", "tone", "--duration", "1"]).completed();
            assert!(report["received"].as_u64() > Some(0), "{report}");
            println!("they have had a call of a second {:?} after the second was started", begun.elapsed());
        }
        if up == 2 {
            // Each record has at least three holders among five, so three have every record between them: also those of who has
            // not been started again.
            for user in USERS {
                peers[order[2]].lookup_until_found(user);
            }
            println!("three of five have everybody's registration {:?} after the second was started", begun.elapsed());
        }
    }
    for peer in &peers {
        USERS.iter().for_each(|user| drop(peer.lookup_until_found(user)));
        let status = peer.status();
        assert_eq!(status["warnings"].as_array().map(Vec::len), Some(0), "{status}");
    }
    println!("everybody finds everybody {:?} after the second was started", begun.elapsed());
}

fn command(dir: &Path, who: &str, args: &[&str]) {
    let mut command = chordial();
    command.args(args).arg("--data").arg(dir.join(who));
    let outcome = run(&format!("{who}-{}", args[0]), &mut command, dir, DEADLINE);
    assert!(outcome.ok(), "{outcome:?}");
}
