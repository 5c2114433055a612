//! Half of the ring dies in one moment, and everybody who lives is found again.

use crate::chord::make;
use crate::net::{Death, Net, Users, entry, key_of};
use chordial::core::Instant;
use chordial::identity::Identity;
use chordial::overlay::chord::Chord;
use chordial::overlay::{Command, Mode, OpId, Output};
use std::collections::BTreeMap;
use std::time::Duration;

/// What the node does with [`Output::Churn`]: each user's peer writes again after a pause of its own, and again when that
/// fails.
struct Publishers {
    people: Vec<Identity>,
    sequence: Vec<u64>,
    due: BTreeMap<usize, Instant>,
    running: BTreeMap<OpId, usize>,
    seen: usize,
}

impl Publishers {
    fn run(&mut self, net: &mut Net<Chord>, span: Duration) {
        let end = net.now + span;
        while net.now < end {
            for at in self.seen..net.churned.len() {
                let peer = net.churned[at].1;
                let pause = Duration::from_millis(net.draw(2000) as u64);
                let due = self.due.entry(peer).or_insert(net.now + pause);
                *due = (*due).min(net.now + pause);
            }
            self.seen = net.churned.len();
            let ready: Vec<usize> = self.due.iter().filter(|(_, at)| **at <= net.now).map(|(i, _)| *i).collect();
            for i in ready {
                self.due.remove(&i);
                self.sequence[i] += 1;
                let (op, user) = (net.op(), &self.people[i]);
                self.running.insert(op, i);
                let entry = entry(user, self.sequence[i], b"again", 86400);
                net.command(i, Command::Put { op, key: key_of(user), entry });
            }
            net.run(Duration::from_millis(50));
            for (_, output) in std::mem::take(&mut net.reports) {
                if let Output::PutDone { op, result: Err(_), .. } = output
                    && let Some(i) = self.running.remove(&op)
                {
                    self.due.insert(i, net.now + Duration::from_millis(500));
                }
            }
        }
    }
}

fn half_dies(seed: u64, n: usize, death: Death, limit: Duration) {
    let mut net = Net::new(seed, make);
    net.ring(n);
    let mut users = Users::new(seed);
    let people: Vec<_> = (0..n).map(|i| users.user(&format!("user{i}"))).collect();
    for (i, user) in people.iter().enumerate() {
        assert_eq!(net.put(i, &entry(user, 1, b"here", 86400)).1, Ok(()));
    }
    net.run(Duration::from_secs(120));
    net.churned.clear();
    let mut publishers =
        Publishers { people, sequence: vec![1; n], due: BTreeMap::new(), running: BTreeMap::new(), seen: 0 };
    net.death = death;
    for _ in 0..n / 2 {
        let living = net.living();
        let victim = living[net.draw(living.len())];
        net.crash(victim);
    }
    publishers.run(&mut net, limit);
    let living = net.living();
    let mut lost = Vec::new();
    for i in &living {
        let reader = living[net.draw(living.len())];
        let (found, trace) = net.get(reader, key_of(&publishers.people[*i]), Mode::Auto);
        if found.as_ref().map(Vec::len) != Ok(1) {
            lost.push((*i, found.map(|f| f.len()), trace));
        }
    }
    assert!(lost.is_empty(), "seed {seed}, {n} peers, {death:?}: {} lost, such as {:?}", lost.len(), lost[0]);
    // The ring closes over the dead.
    publishers.run(&mut net, Duration::from_secs(120));
    assert_eq!(net.wrong(8), Vec::<String>::new(), "seed {seed}, {n} peers, {death:?}");
}

#[test]
fn half_of_fifty() {
    for seed in 4000..4006 {
        half_dies(seed, 50, Death::Refused, Duration::from_secs(10));
    }
}

#[test]
fn half_of_two_hundred_and_fifty_six() {
    half_dies(4100, 256, Death::Refused, Duration::from_secs(10));
    half_dies(4101, 256, Death::Refused, Duration::from_secs(10));
}

/// Machines that are cut off say nothing: they are missed when they should have stabilised.
#[test]
fn half_of_fifty_falls_silent() {
    for seed in 4200..4203 {
        half_dies(seed, 50, Death::Silent, Duration::from_secs(45));
    }
}
