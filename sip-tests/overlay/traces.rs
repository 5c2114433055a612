//! The traces of draft-zangrilli-p2psip-dsip-dhtchord-00 section 7.4: three peers with 4-bit identifiers, from nothing to a
//! stable ring, message by message. Ours may send more peer queries (which look before they write); those are counted apart.
//! The draft's expires values and its figures of the finger tables in between are made up and not compared.

use crate::net::{Net, UNIX, Users};
use chordial::core::{Id, Rng, UnixTime};
use chordial::identity::{Entry, EntryKind, Identity, SignedEntry};
use chordial::overlay::carry::Carry;
use chordial::overlay::chord::{Chord, Config};
use chordial::overlay::{Command, IdSpace, Input, Output, Overlay, PeerRef, Request, Response, Verify};
use std::net::SocketAddr;
use std::time::Duration;

const SPACE: IdSpace = IdSpace::new(4);

struct Contrived;

impl Verify for Contrived {
    fn verify(&mut self, entry: &SignedEntry, key: &Id, _: UnixTime) -> bool {
        resource_id(&entry.entry().aor) == *key
    }
}

fn id(n: u64) -> Id {
    Id::from_u64(n)
}

/// The draft's contrived hash: peer 3 is at 192.0.2.3.
fn peer_id(addr: SocketAddr) -> Id {
    match addr {
        SocketAddr::V4(a) => id(u64::from(a.ip().octets()[3])),
        SocketAddr::V6(_) => id(0),
    }
}

fn resource_id(aor: &str) -> Id {
    match aor {
        "sip:alice@p2psip.org" => id(8),
        "sip:bob@p2psip.org" => id(11),
        _ => id(0),
    }
}

fn carry(me: PeerRef) -> Carry {
    Carry { space: SPACE, peer_id: Some(peer_id), resource_id, ..Carry::new("chat", me, 600) }
}

fn make(me: PeerRef, rng: Rng) -> Chord {
    let never = Duration::from_secs(1_000_000);
    let config = Config {
        space: SPACE,
        successors: 1,
        successor_replicas: 0,
        scattered: false,
        stabilise_min: never,
        stabilise_max: never,
        heartbeat: never,
        fingers: never,
        maintain: never,
        ..Config::plain()
    };
    Chord::new(me, config, Box::new(Contrived), rng)
}

fn entry(user: &Identity) -> SignedEntry {
    let entry = Entry {
        kind: EntryKind::Contact,
        aor: user.aor(),
        device: user.device_key(),
        sequence: 1,
        issued: UNIX,
        lifetime: 231,
        body: b"here".to_vec(),
    };
    user.sign_entry(entry).expect("its own")
}

struct Lab {
    net: Net<Chord>,
}

impl Lab {
    fn peer(&mut self, n: u8) -> usize {
        let addr = SocketAddr::from(([192, 0, 2, n], 5060));
        self.net.add_at(PeerRef { id: id(n.into()), addr })
    }

    /// Lets everything settle; what was asked and answered since, as the draft tells it, without peer queries that it does
    /// not show.
    fn settle(&mut self, queries: bool) -> Vec<String> {
        self.net.run(Duration::from_secs(10));
        let n = |id: &Id| SPACE.show(id).to_string();
        let mut told = Vec::new();
        for (by, asker, request, response) in std::mem::take(&mut self.net.answered) {
            let what = match &request {
                Request::Register { .. } => "REGISTER".to_owned(),
                Request::Leave { .. } => "LEAVE".to_owned(),
                Request::Query { .. } if !queries => continue,
                Request::Query { target, .. } => format!("QUERY {}", n(target)),
                Request::Fetch { key, .. } => format!("FETCH {}", n(key)),
                Request::Store { key, .. } => format!("STORE {}", n(key)),
                Request::Members { .. } => "MEMBERS".to_owned(),
                Request::Tier(_) => unreachable!("the drafts know one kind of peer"),
                // The draft knows neither.
                Request::Touch { .. } | Request::Compare { .. } => continue,
                Request::Lease { .. } | Request::Give { .. } | Request::Take { .. } => continue,
            };
            let links = |links: &chordial::overlay::Links| {
                let p = links.predecessors.first().map_or("-".to_owned(), |p| n(&p.id));
                let s = links.successors.first().map_or("-".to_owned(), |s| n(&s.id));
                format!("200 P1={p} S1={s}")
            };
            let answer = match &response {
                Response::Admitted { links: l } | Response::Responsible { exact: true, links: l, .. } => links(l),
                Response::Stored { .. } => "200".to_owned(),
                Response::Redirect { closer, .. } => format!("302 {}", n(&closer.id)),
                other => format!("{other:?}"),
            };
            told.push(format!("{}->{} {what}: {answer}", n(&asker.id), n(&by.id)));
        }
        told
    }

    /// Successor, predecessor and resources of a peer, as the draft's figures have them.
    fn state(&self, peer: usize) -> (u64, Option<u64>, Vec<u64>) {
        let number = |id: &Id| SPACE.show(id).to_string().parse::<u64>().expect("a small number");
        let overlay = &self.net.peers[peer].overlay;
        let status = overlay.status();
        let successor = status.successors.first().map_or(overlay.me().id, |s| s.id);
        let resources = overlay.resources().iter().map(|(key, _)| number(key)).collect();
        (number(&successor), status.predecessor.map(|p| number(&p.id)), resources)
    }

    fn stabilise(&mut self, peer: usize) {
        let now = self.net.now;
        self.net.peers[peer].overlay.stabilise(now);
        self.poke(peer);
    }

    fn fix_fingers(&mut self, peer: usize) {
        let now = self.net.now;
        self.net.peers[peer].overlay.fix_fingers(now);
        self.poke(peer);
    }

    /// Has the network fetch what the peer has to say.
    fn poke(&mut self, peer: usize) {
        self.net.input(peer, Input::Clock { unix: UNIX });
    }
}

#[test]
fn from_an_empty_overlay_to_a_stable_ring_of_three() {
    let mut lab = Lab { net: Net::new(1, make) };
    lab.net.wire = Some(carry);
    lab.net.record = true;
    let mut users = Users::new(1);
    let mut user = |name| users.user_of("p2psip.org", name);
    let (alice, bob) = (user("alice"), user("bob"));

    // Peer 3 starts the overlay and holds alice (8).
    let three = lab.peer(3);
    lab.net.command(three, Command::Create);
    assert_eq!(lab.put(three, &alice), Ok(()));
    assert_eq!(lab.settle(true), Vec::<String>::new());
    assert_eq!(lab.state(three), (3, None, vec![8]));

    // Peer 10 joins by way of peer 3, which hands alice over.
    let ten = lab.peer(10);
    lab.net.join(ten, three);
    assert_eq!(lab.settle(true), ["10->3 REGISTER: 200 P1=- S1=3", "3->10 STORE 8: 200"]);
    assert_eq!(lab.state(three), (3, Some(10), vec![]));
    assert_eq!(lab.state(ten), (3, None, vec![8]));

    // Peer 10 stabilises: its successor has it as predecessor, nothing more to do.
    lab.stabilise(ten);
    assert_eq!(lab.settle(true), ["10->3 QUERY 3: 200 P1=10 S1=3"]);
    assert_eq!(lab.state(ten), (3, None, vec![8]));

    // Bob (11) registers at peer 10; peer 3 is responsible.
    assert_eq!(lab.put(ten, &bob), Ok(()));
    assert_eq!(lab.settle(false), ["10->3 STORE 11: 200"]);
    assert_eq!(lab.state(three), (3, Some(10), vec![11]));

    // Peer 3 stabilises: its own predecessor, 10, is its successor, and learns of its own predecessor.
    lab.stabilise(three);
    assert_eq!(lab.settle(true), ["3->10 REGISTER: 200 P1=- S1=3"]);
    assert_eq!(lab.state(three), (10, Some(10), vec![11]));
    assert_eq!(lab.state(ten), (3, Some(3), vec![8]));

    // Peer 2 joins by way of peer 10, which refers it to peer 3, which hands bob over.
    let two = lab.peer(2);
    lab.net.join(two, ten);
    assert_eq!(lab.settle(false), ["2->10 REGISTER: 302 3", "2->3 REGISTER: 200 P1=10 S1=10", "3->2 STORE 11: 200"]);
    assert_eq!(lab.state(two), (3, Some(10), vec![11]));
    assert_eq!(lab.state(three), (10, Some(2), vec![]));
    assert_eq!(lab.state(ten), (3, Some(3), vec![8]));

    // Peer 3 stabilises: nothing changes.
    lab.stabilise(three);
    assert_eq!(lab.settle(true), ["3->10 QUERY 10: 200 P1=3 S1=3"]);
    assert_eq!(lab.state(three), (10, Some(2), vec![]));

    // Peer 10 stabilises and learns of peer 2.
    lab.stabilise(ten);
    assert_eq!(lab.settle(true), ["10->3 QUERY 3: 200 P1=2 S1=10", "10->2 REGISTER: 200 P1=10 S1=3"]);
    assert_eq!(lab.state(two), (3, Some(10), vec![11]));
    assert_eq!(lab.state(three), (10, Some(2), vec![]));
    assert_eq!(lab.state(ten), (2, Some(3), vec![8]));

    // The fingers, after each has looked. The draft's last figure leaves peer 10's first three at 3; the first peer from 11 on
    // is 2, as its own definition (section 4.1) has it.
    for (peer, expected) in [(two, [3, 10, 10, 10]), (three, [10, 10, 10, 2]), (ten, [2, 2, 2, 2])] {
        lab.fix_fingers(peer);
        lab.settle(false);
        let got = [0, 1, 2, 3].map(|e| lab.net.peers[peer].overlay.finger(e).id);
        assert_eq!(got, expected.map(id));
    }
}

impl Lab {
    fn put(&mut self, peer: usize, user: &Identity) -> Result<(), chordial::overlay::PutError> {
        let entry = entry(user);
        let op = self.net.op();
        let key = resource_id(&user.aor());
        self.net.command(peer, Command::Put { op, key, entry });
        self.net.run(Duration::from_secs(6));
        let at = self.net.reports.iter().position(|(_, o)| matches!(o, Output::PutDone { op: o, .. } if *o == op));
        match self.net.reports.remove(at.expect("it ended")).1 {
            Output::PutDone { result, .. } => result,
            _ => unreachable!(),
        }
    }
}
