//! Peers that lie, in an office whose others are honest: whoever lives is found, and nobody gets a wrong answer.

use crate::chord;
use crate::net::{Net, Users, entry, key_of};
use chordial::core::{Id, Instant, Rng, UnixTime};
use chordial::identity::SignedEntry;
use chordial::overlay::chord::Chord;
use chordial::overlay::{
    Counters, IdSpace, Input, Links, Member, Mode, Output, Overlay, PeerRef, Request, Response, Route, RpcId, Status,
    Token,
};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// An honest peer, whose answers are its own only as long as `lies` is not set.
pub struct Liar {
    honest: Chord,
    lies: Arc<AtomicBool>,
    /// Set for those that shall lie.
    chosen: bool,
    asked: BTreeMap<Token, Request>,
    /// The first that it was ever given of each resource.
    stale: BTreeMap<Id, Vec<SignedEntry>>,
    forged: Vec<SignedEntry>,
    others: Vec<PeerRef>,
    rng: Rng,
    out: VecDeque<Output>,
    left: Option<Instant>,
    invented: u64,
}

impl Liar {
    fn lying(&self) -> bool {
        self.chosen && self.lies.load(Ordering::Relaxed)
    }

    /// A peer that is not there, near `place`.
    fn nobody(&mut self, place: &Id) -> PeerRef {
        let mut id = *place;
        id.0[18] = self.rng.below(256) as u8;
        id.0[19] = self.rng.below(256) as u8;
        PeerRef { id, addr: SocketAddr::from(([10, 99, 0, self.rng.below(200) as u8], 5060)) }
    }

    fn somebody(&mut self) -> PeerRef {
        match self.others.len() {
            0 => self.honest.me(),
            n => self.others[self.rng.below(n as u64) as usize],
        }
    }

    fn false_links(&mut self) -> Links {
        let me = self.honest.me().id;
        let mut list = |n: usize| -> Vec<PeerRef> {
            (0..n).map(|i| if i % 2 == 0 { self.nobody(&me) } else { self.somebody() }).collect()
        };
        Links { predecessors: list(4), successors: list(8), fingers: vec![(150, list(1)[0])] }
    }

    /// News that are not true: honest members gone, others invented.
    fn false_news(&mut self) -> Vec<Member> {
        let mut news = Vec::new();
        for _ in 0..4 {
            let version = 1 + self.rng.below(4) as u32;
            let gone = Member { peer: self.somebody(), version, gone: true };
            let place = self.somebody().id;
            news.push(gone);
            // Not without end: who invents by the thousand is bounded by the length of the list, and shows.
            if self.invented < 40 {
                self.invented += 1;
                news.push(Member { peer: self.nobody(&place), version: 1, gone: false });
            }
        }
        news
    }

    fn false_answer(&mut self, request: &Request, honest: Response) -> Response {
        let links = self.false_links();
        match request {
            Request::Fetch { key, .. } => {
                let entries = match self.rng.below(3) {
                    0 => Vec::new(),
                    1 => self.stale.get(key).cloned().unwrap_or_default(),
                    _ => self.forged.clone(),
                };
                Response::Entries { entries, responsible: true, links, path: path(request, self.honest.me()) }
            }
            Request::Query { target, route } if *target != self.honest.me().id || *route == Route::Iterative => {
                match self.rng.below(2) {
                    _ if *target == self.honest.me().id => {
                        Response::Responsible { exact: true, links, path: Vec::new() }
                    }
                    0 => Response::Redirect { closer: self.nobody(target), links },
                    _ => Response::Responsible { exact: false, links, path: path(request, self.honest.me()) },
                }
            }
            // Said to be kept, and thrown away (see `handle`).
            Request::Store { .. } | Request::Touch { .. } | Request::Give { .. } => Response::Stored { links },
            // Of the right length, and something else.
            Request::Take { .. } => Response::Chunk { bytes: vec![7; 32 * 1024].into() },
            // Nothing differs, whatever is compared.
            Request::Compare { unix, .. } => Response::Compared { unix: *unix, parts: Vec::new() },
            Request::Members { .. } => Response::Members { news: self.false_news() },
            Request::Register { .. }
            | Request::Leave { .. }
            | Request::Query { .. }
            | Request::Lease { .. }
            | Request::Tier(_) => honest,
        }
    }
}

fn path(request: &Request, me: PeerRef) -> Vec<PeerRef> {
    match request {
        Request::Query { route: Route::Recursive { path, .. }, .. }
        | Request::Fetch { route: Route::Recursive { path, .. }, .. } => path.iter().copied().chain([me]).collect(),
        _ => Vec::new(),
    }
}

impl Overlay for Liar {
    fn handle(&mut self, now: Instant, input: Input) {
        if let Input::Request { from, token, request } = &input {
            if let Some(from) = from
                && self.others.iter().all(|p| p.id != from.id)
            {
                self.others.push(*from);
            }
            if let Request::Store { key, entries, .. } = request {
                self.stale.entry(*key).or_insert_with(|| entries.clone());
            }
            if self.lying() {
                if let Request::Store { .. } | Request::Touch { .. } = request {
                    let response = self.false_answer(&request.clone(), Response::Bye);
                    return self.out.push_back(Output::Reply { token: *token, response });
                }
                self.asked.insert(*token, request.clone());
            }
        }
        self.honest.handle(now, input);
        // Every minute it takes its leave of everybody it knows, naming others in its place, and stays.
        if self.lying() && self.left.is_none_or(|at| now.since(at) > Duration::from_secs(60)) {
            self.left = Some(now);
            for peer in self.others.clone() {
                let request = Request::Leave { links: self.false_links() };
                let rpc = RpcId(u64::MAX - self.rng.below(1 << 40));
                self.out.push_back(Output::Send { rpc, peer: Some(peer.id), addr: peer.addr, request });
            }
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.out.pop_front() {
            return Some(output);
        }
        let output = self.honest.poll_output()?;
        Some(match output {
            Output::Reply { token, response } => {
                let response = match self.asked.remove(&token) {
                    Some(request) if self.lying() => self.false_answer(&request, response),
                    _ => response,
                };
                Output::Reply { token, response }
            }
            Output::Send { rpc, peer, addr, request: Request::Members { until, digest, .. } } if self.lying() => {
                let request = Request::Members { until, digest, news: self.false_news() };
                Output::Send { rpc, peer, addr, request }
            }
            other => other,
        })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.honest.poll_timeout()
    }
    fn handle_timeout(&mut self, now: Instant) {
        self.honest.handle_timeout(now);
    }
    fn me(&self) -> PeerRef {
        self.honest.me()
    }
    fn unix(&self, now: Instant) -> UnixTime {
        self.honest.unix(now)
    }

    fn status(&self) -> Status {
        self.honest.status()
    }
    fn counters(&self) -> &Counters {
        self.honest.counters()
    }
}

/// What came of it.
#[derive(Debug, Default)]
struct Verdict {
    reads: u32,
    found: u32,
    wrong: u32,
    /// Reads of records all of whose holders lie: nobody could answer these.
    lost_causes: u32,
}

fn among_liars(seed: u64, n: usize, liars: usize) -> Verdict {
    let lies = Arc::new(AtomicBool::new(false));
    let flag = lies.clone();
    let mut net = Net::new(seed, move |me, mut rng| Liar {
        lies: flag.clone(),
        chosen: false,
        asked: BTreeMap::new(),
        stale: BTreeMap::new(),
        forged: Vec::new(),
        others: Vec::new(),
        rng: rng.fork(),
        out: VecDeque::new(),
        left: None,
        invented: 0,
        honest: chord::make(me, rng),
    });
    net.ring(n);
    let mut users = Users::new(seed);
    let people: Vec<_> = (0..n).map(|i| users.user(&format!("user{i}"))).collect();
    for (i, user) in people.iter().enumerate() {
        assert_eq!(net.put(i, &entry(user, 1, b"yesterday", 86400)).1, Ok(()));
    }
    net.run(Duration::from_secs(60));
    let forged = entry(&users.user("mallory"), 9, b"elsewhere", 86400);
    while net.liars.len() < liars {
        let liar = net.draw(n);
        net.liars.insert(liar);
        net.peers[liar].overlay.chosen = true;
        net.peers[liar].overlay.forged = vec![forged.clone()];
    }
    lies.store(true, Ordering::Relaxed);
    net.run(Duration::from_secs(120));
    // Everybody moves, with the liars at work.
    let honest: Vec<usize> = (0..n).filter(|i| !net.liars.contains(i)).collect();
    for i in &honest {
        assert_eq!(net.put(*i, &entry(&people[*i], 2, b"today", 86400)).1, Ok(()), "seed {seed} user {i}");
    }
    let mut verdict = Verdict::default();
    for round in 0..3 {
        net.run(Duration::from_secs(60));
        // From above: who would hold it.
        let ring = net.around();
        let hopeless = |net: &Net<Liar>, key: &Id| {
            let at = ring.iter().position(|i| *i == net.owner(key)).expect("in the ring");
            let scattered = net.owner(&IdSpace::SHA1.replica_position(key, 1));
            (0..3).map(|d| ring[(at + d) % ring.len()]).chain([scattered]).all(|i| net.liars.contains(&i))
        };
        for reader in &honest {
            for user in &honest {
                let key = key_of(&people[*user]);
                let mode = if (reader + user + round) % 2 == 0 { Mode::Auto } else { Mode::Sure };
                let (found, _) = net.get(*reader, key, mode);
                if hopeless(&net, &key) {
                    verdict.lost_causes += 1;
                    continue;
                }
                verdict.reads += 1;
                match found.as_deref() {
                    Ok([one]) if one.entry().sequence == 2 => verdict.found += 1,
                    Ok([]) | Err(_) => {}
                    Ok(_) => verdict.wrong += 1,
                }
            }
        }
    }
    println!("{n} peers, {liars} liars, seed {seed}: {verdict:?}");
    verdict
}

fn assert_held(verdicts: &[Verdict]) {
    let sum = |f: fn(&Verdict) -> u32| verdicts.iter().map(f).sum::<u32>();
    let (reads, found, wrong, hopeless) =
        (sum(|v| v.reads), sum(|v| v.found), sum(|v| v.wrong), sum(|v| v.lost_causes));
    assert_eq!(wrong, 0, "{verdicts:?}");
    assert!(f64::from(found) >= 0.99 * f64::from(reads), "{verdicts:?}");
    assert!(f64::from(hopeless) <= 0.02 * f64::from(reads), "{verdicts:?}");
}

#[test]
fn one_liar_of_twenty() {
    let verdicts: Vec<Verdict> = (6000..6003).map(|seed| among_liars(seed, 20, 1)).collect();
    assert_held(&verdicts);
}

#[test]
fn every_fourth_is_a_liar() {
    let verdicts: Vec<Verdict> = (6100..6103).map(|seed| among_liars(seed, 20, 5)).collect();
    assert_held(&verdicts);
}
