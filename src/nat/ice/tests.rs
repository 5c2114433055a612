//! Two agents, and a network between them that translates addresses or loses what it is told to.

use super::*;
use crate::core::{Instant, Redacted, Rng};
use crate::sdp::ice::{CandidateKind, Credentials, Ice};
use std::collections::VecDeque;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

struct End {
    agent: Agent,
    credentials: Credentials,
    locals: Vec<Local>,
    selected: Vec<Pair>,
    events: Vec<Output>,
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[allow(clippy::disallowed_methods, reason = "the crate's clock begins somewhere")]
fn clocks() -> Clocks {
    Clocks { now: Instant::ZERO, system: std::time::Instant::now() }
}

fn end(clocks: Clocks, seed: u64, controlling: bool, locals: &[(CandidateKind, &str, &str)]) -> End {
    let credentials = Credentials::draw(&mut Rng::from_seed(seed));
    let mut agent = Agent::new(clocks, Instant::ZERO, &credentials, controlling, seed);
    let mut made = Vec::new();
    for (n, (kind, addr, base)) in locals.iter().enumerate() {
        let told = agent::describe(*kind, at(addr), at(base), None, n).unwrap();
        made.push(Local { base: at(base), told });
    }
    for local in &made {
        agent.add_local(Instant::ZERO, local);
    }
    End { agent, credentials, locals: made, selected: Vec::new(), events: Vec::new() }
}

fn described(end: &End) -> Ice {
    let candidates = end.locals.iter().map(|l| l.told.clone()).collect();
    Ice { credentials: end.credentials.clone(), lite: false, trickle: true, second: false, candidates }
}

/// Under which sender's address a datagram of an end arrives, and where; none: it is lost.
type Net<'a> = dyn FnMut(usize, &Datagram) -> Option<(SocketAddr, SocketAddr)> + 'a;

/// Carries datagrams for so long.
fn run(ends: &mut [End; 2], now: &mut Instant, time: Duration, net: &mut Net) {
    let mut wire: VecDeque<(Instant, usize, SocketAddr, SocketAddr, Vec<u8>)> = VecDeque::new();
    let until = *now + time;
    while *now < until {
        for (n, end) in ends.iter_mut().enumerate() {
            if end.agent.poll_timeout().is_some_and(|due| due <= *now) {
                end.agent.handle_timeout(*now);
            }
            while let Some(output) = end.agent.poll_output() {
                match output {
                    Output::Send(datagram) => {
                        if let Some((from, to)) = net(n, &datagram) {
                            wire.push_back((*now + MS * 5, 1 - n, to, from, datagram.bytes));
                        }
                    }
                    Output::Selected(pair) => end.selected.push(pair),
                    other => end.events.push(other),
                }
            }
        }
        while wire.front().is_some_and(|(due, ..)| *due <= *now) {
            let (_, n, local, from, bytes) = wire.pop_front().unwrap();
            assert!(ends[n].agent.handle(*now, local, from, &bytes), "a check that is not of the session");
        }
        *now += MS;
    }
}

fn plain(_: usize, d: &Datagram) -> Option<(SocketAddr, SocketAddr)> {
    Some((d.local, d.to))
}

fn pair(a: &[(CandidateKind, &str, &str)], b: &[(CandidateKind, &str, &str)]) -> [End; 2] {
    let clocks = clocks();
    let mut ends = [end(clocks, 1, true, a), end(clocks, 2, false, b)];
    let ices = [described(&ends[1]), described(&ends[0])];
    for (end, ice) in ends.iter_mut().zip(&ices) {
        end.agent.set_remote(Instant::ZERO, ice);
    }
    ends
}

const HOST: CandidateKind = CandidateKind::Host;
const SRFLX: CandidateKind = CandidateKind::ServerReflexive;
const RELAY: CandidateKind = CandidateKind::Relayed;

#[test]
fn two_hosts_find_each_other_at_once() {
    let mut ends = pair(&[(HOST, "10.0.0.1:4000", "10.0.0.1:4000")], &[(HOST, "10.0.0.2:5000", "10.0.0.2:5000")]);
    run(&mut ends, &mut Instant::ZERO.clone(), MS * 100, &mut plain);
    for (end, (local, remote)) in
        ends.iter().zip([("10.0.0.1:4000", "10.0.0.2:5000"), ("10.0.0.2:5000", "10.0.0.1:4000")])
    {
        let pair = end.selected.last().expect("a way within 100 ms");
        assert_eq!((pair.local, pair.remote, pair.translated), (at(local), at(remote), false));
    }
}

/// Outside ports of a router: one for each socket and destination, or one for each socket.
struct Router {
    outside: &'static str,
    symmetric: bool,
    /// Lets in what comes from a host that was sent to, whatever the port.
    by_host: bool,
    made: Vec<(SocketAddr, SocketAddr, SocketAddr)>,
    port: u16,
}

impl Router {
    fn out(&mut self, from: SocketAddr, to: SocketAddr) -> SocketAddr {
        if let Some((.., outside)) = self.made.iter().find(|(f, t, _)| *f == from && (!self.symmetric || *t == to)) {
            let outside = *outside;
            self.made.push((from, to, outside));
            return outside;
        }
        self.port += 1;
        let outside = SocketAddr::new(self.outside.parse().unwrap(), self.port);
        self.made.push((from, to, outside));
        outside
    }

    /// Filters by address and port, or by address.
    fn inside(&self, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let known = |t: SocketAddr| t == from || self.by_host && t.ip() == from.ip();
        self.made.iter().find(|(_, t, o)| known(*t) && *o == to).map(|(f, ..)| *f)
    }
}

/// Both behind a router; relays are on the public network.
fn translate(routers: &mut [Router; 2], n: usize, d: &Datagram) -> Option<(SocketAddr, SocketAddr)> {
    let private = |a: SocketAddr| a.ip().to_string().starts_with("192.168.");
    let from = if private(d.local) { routers[n].out(d.local, d.to) } else { d.local };
    let theirs = routers[1 - n].outside.parse::<std::net::IpAddr>().unwrap();
    match d.to {
        to if private(to) => None,
        to if to.ip() == theirs => Some((from, routers[1 - n].inside(from, to)?)),
        to => Some((from, to)),
    }
}

fn routers(symmetric: [bool; 2]) -> [Router; 2] {
    let [a, b] = symmetric;
    let router = |outside, symmetric| Router { outside, symmetric, by_host: false, made: Vec::new(), port: 30_000 };
    [router("203.0.113.1", a), router("203.0.113.2", b)]
}

fn behind(routers: &mut [Router; 2], relay: bool) -> [End; 2] {
    let server = at("198.51.100.1:3478");
    let (a, b) = ("192.168.1.2:4000", "192.168.2.2:5000");
    let mapped = [routers[0].out(at(a), server).to_string(), routers[1].out(at(b), server).to_string()];
    let mut candidates =
        [vec![(HOST, a, a), (SRFLX, mapped[0].as_str(), a)], vec![(HOST, b, b), (SRFLX, mapped[1].as_str(), b)]];
    if relay {
        candidates[0].push((RELAY, "198.51.100.1:50001", a));
        candidates[1].push((RELAY, "198.51.100.1:50002", b));
    }
    pair(&candidates[0], &candidates[1])
}

#[test]
fn two_cones_are_punched_through() {
    let mut routers = routers([false, false]);
    let mut ends = behind(&mut routers, false);
    run(&mut ends, &mut Instant::ZERO.clone(), MS * 2000, &mut |n, d| translate(&mut routers, n, d));
    for end in &ends {
        let pair = end.selected.last().expect("a way");
        assert!(pair.translated, "{pair:?}");
        assert_eq!(pair.local_kind, HOST);
    }
}

#[test]
fn two_symmetric_ones_need_a_relay() {
    let mut routers1 = routers([true, true]);
    let mut ends = behind(&mut routers1, false);
    let mut now = Instant::ZERO;
    run(&mut ends, &mut now, MS * 20_000, &mut |n, d| translate(&mut routers1, n, d));
    assert!(ends.iter().all(|e| e.selected.is_empty()));
    assert!(ends.iter().all(|e| e.events.contains(&Output::Silent)), "a restart is due");
    let mut routers = routers([true, true]);
    let mut ends = behind(&mut routers, true);
    let mut now = Instant::ZERO;
    run(&mut ends, &mut now, MS * 3000, &mut |n, d| translate(&mut routers, n, d));
    for end in &ends {
        let pair = end.selected.last().expect("a way");
        assert!(
            pair.local_kind == RELAY || pair.remote_kind == RELAY || pair.remote_kind == CandidateKind::PeerReflexive
        );
    }
    assert!(ends.iter().any(|e| e.selected.last().unwrap().local_kind == RELAY));
}

/// The check by the relay comes before the word that it is one.
#[test]
fn a_relay_that_is_heard_before_it_is_told_of_outranks_nothing() {
    let mut routers = routers([false, false]);
    routers.iter_mut().for_each(|r| r.by_host = true);
    let mut ends = behind(&mut routers, true);
    for controlling in [true, false] {
        let clocks = clocks();
        for (n, end) in ends.iter_mut().enumerate() {
            end.agent = Agent::new(clocks, Instant::ZERO, &end.credentials, (n == 0) == controlling, n as u64);
            end.locals.iter().for_each(|local| end.agent.add_local(Instant::ZERO, local));
            end.selected.clear();
        }
        let (mut now, whole) = (Instant::ZERO, [described(&ends[1]), described(&ends[0])]);
        let first = Ice { candidates: whole[0].candidates[..1].to_vec(), ..whole[0].clone() };
        ends[0].agent.set_remote(now, &first);
        ends[1].agent.set_remote(now, &whole[1]);
        run(&mut ends, &mut now, MS * 120, &mut |n, d| translate(&mut routers, n, d));
        ends[0].agent.add_remote(now, &whole[0].candidates[1..]);
        run(&mut ends, &mut now, MS * 3000, &mut |n, d| translate(&mut routers, n, d));
        for end in &ends {
            let pair = end.selected.last().expect("a way");
            assert_eq!((pair.local_kind, pair.remote_kind), (HOST, SRFLX), "{:?}", end.selected);
        }
    }
}

#[test]
fn a_way_that_works_only_later_takes_the_place_of_a_relay() {
    for (seconds, lossy) in [(12, false), (40, false), (300, true)] {
        let mut routers = routers([false, false]);
        let mut ends = behind(&mut routers, true);
        ends.iter_mut().for_each(|end| end.agent.keep_looking());
        let mut now = Instant::ZERO;
        let straight =
            |d: &Datagram| !d.to.ip().to_string().starts_with("198.") && !d.local.to_string().starts_with("198.");
        let mut rng = Rng::from_seed(seconds);
        // Voice has one way or another all the time: no silence.
        run(&mut ends, &mut now, MS * 1000 * seconds as u32, &mut |n, d| {
            translate(&mut routers, n, d).filter(|_| !straight(d))
        });
        for end in &ends {
            let pair = end.selected.last().expect("by a relay");
            assert!([pair.local_kind, pair.remote_kind].contains(&RELAY), "{pair:?}");
        }
        run(&mut ends, &mut now, MS * 121_000, &mut |n, d| {
            let lost = lossy && straight(d) && rng.next_u64().is_multiple_of(3);
            translate(&mut routers, n, d).filter(|_| !lost)
        });
        for end in &ends {
            let pair = end.selected.last().expect("a way");
            assert_eq!((pair.local_kind, pair.remote_kind), (HOST, SRFLX), "{:?}", end.selected);
            assert!(lossy || end.events.is_empty(), "{:?}", end.events);
        }
    }
}

#[test]
fn candidates_that_come_later_bring_a_better_way() {
    let mut ends = pair(&[(RELAY, "198.51.100.1:50001", "10.0.0.1:4000")], &[(HOST, "10.0.0.2:5000", "10.0.0.2:5000")]);
    let mut now = Instant::ZERO;
    run(&mut ends, &mut now, MS * 300, &mut plain);
    assert_eq!(ends[0].selected.last().expect("by the relay").local_kind, RELAY);
    let told = agent::describe(HOST, at("10.0.0.1:4000"), at("10.0.0.1:4000"), None, 0).unwrap();
    ends[0].agent.add_local(now, &Local { base: at("10.0.0.1:4000"), told: told.clone() });
    ends[1].agent.add_remote(now, &[told]);
    run(&mut ends, &mut now, MS * 300, &mut plain);
    assert_eq!(ends[0].selected.last().unwrap().local_kind, HOST);
    assert_eq!(ends[1].selected.last().unwrap().remote, at("10.0.0.1:4000"));
}

#[test]
fn silence_asks_for_a_restart_and_then_ends_consent() {
    let host = |a| [(HOST, a, a)];
    let mut ends = pair(&host("10.0.0.1:4000"), &host("10.0.0.2:5000"));
    let mut now = Instant::ZERO;
    run(&mut ends, &mut now, MS * 20_000, &mut plain);
    assert!(ends.iter().all(|e| e.events.is_empty()), "while all is well: {:?}", ends[0].events);
    run(&mut ends, &mut now, MS * 6_500, &mut |_, _| None);
    assert_eq!((&ends[0].events[..], ends[1].events.len()), (&[Output::Silent][..], 0), "the offerer first");
    run(&mut ends, &mut now, MS * 28_000, &mut |_, _| None);
    assert!(ends.iter().all(|e| e.events == [Output::Silent, Output::Expired]));
}

#[test]
fn nobody_without_the_password_gets_an_answer() {
    let mut ends = pair(&[(HOST, "10.0.0.1:4000", "10.0.0.1:4000")], &[(HOST, "10.0.0.2:5000", "10.0.0.2:5000")]);
    let stranger = end(clocks(), 9, true, &[(HOST, "10.0.0.9:4000", "10.0.0.9:4000")]);
    let mut forged = stranger.agent;
    let mut theirs = described(&ends[1]);
    theirs.credentials.pwd = Redacted::new("0".repeat(48));
    forged.set_remote(Instant::ZERO, &theirs);
    let mut seen = 0;
    while let Some(output) = forged.poll_output() {
        let Output::Send(d) = output else { continue };
        seen += 1;
        assert!(!ends[1].agent.handle(Instant::ZERO, d.to, d.local, &d.bytes));
    }
    assert!(seen > 0);
    // Nor does anything malformed.
    for length in 0..64 {
        assert!(!ends[1].agent.handle(Instant::ZERO, at("10.0.0.2:5000"), at("10.0.0.9:4000"), &vec![0; length]));
    }
}

#[test]
fn nobodys_description_leads_to_our_own_loopback() {
    let mut ends = pair(&[(HOST, "10.0.0.1:4000", "10.0.0.1:4000")], &[(HOST, "127.0.0.1:22", "127.0.0.1:22")]);
    let mapped = ice_candidate("1 1 UDP 2130706431 ::ffff:127.0.0.1 22 typ host");
    ends[0].agent.add_remote(Instant::ZERO, &mapped);
    while let Some(output) = ends[0].agent.poll_output() {
        assert!(!matches!(&output, Output::Send(_)), "{output:?}");
    }
    let mut gatherer = Gatherer::default();
    assert!(!gatherer.add_relayed(at("127.0.0.1:50000"), at("10.0.0.1:4000")));
}

fn ice_candidate(line: &str) -> Vec<crate::sdp::ice::Candidate> {
    crate::sdp::ice::Candidate::parse(line).into_iter().collect()
}

#[test]
fn a_socket_is_told_how_it_is_seen() {
    let mut gatherer = Gatherer::default();
    let mut rng = Rng::from_seed(3);
    let (local, server) = (at("192.168.1.2:4000"), at("198.51.100.1:3478"));
    gatherer.add_socket(Instant::ZERO, local, &[server, at("[2001:db8::1]:3478")], &mut rng);
    gatherer.handle_timeout(Instant::ZERO);
    let asked = gatherer.poll_output().unwrap();
    assert_eq!((asked.local, asked.to, gatherer.poll_output()), (local, server, None));
    // 203.0.113.1:30001, as RFC 8489 section 14.2 masks it.
    let mut answer = vec![1, 1, 0, 12];
    answer.extend_from_slice(&asked.bytes[4..20]);
    answer.extend_from_slice(&[0, 0x20, 0, 8, 0, 1]);
    let port = 30001_u16 ^ 0x2112;
    answer.extend_from_slice(&port.to_be_bytes());
    answer.extend_from_slice(&[203 ^ 0x21, 0x12, 113 ^ 0xa4, 1 ^ 0x42]);
    assert!(!gatherer.handle(local, at("198.51.100.9:3478"), &answer), "another server's");
    for cut in 0..answer.len() {
        assert!(!gatherer.handle(local, server, &answer[..cut]), "cut to {cut}");
    }
    assert!(gatherer.handle(local, server, &answer));
    assert!(!gatherer.handle(local, server, &answer), "once is enough");
    let kinds: Vec<_> = gatherer.candidates().iter().map(|c| (c.kind, c.addr)).collect();
    assert_eq!(kinds, [(HOST, local), (SRFLX, at("203.0.113.1:30001"))]);
    assert_eq!(gatherer.poll_timeout(), None);
}

#[test]
fn a_socket_that_no_server_has_told_anything_goes_on_asking() {
    let (mut gatherer, mut rng) = (Gatherer::default(), Rng::from_seed(4));
    let (local, servers) = (at("192.168.1.2:4000"), [at("198.51.100.1:3478"), at("198.51.100.2:3478")]);
    gatherer.add_socket(Instant::ZERO, local, &servers, &mut rng);
    gatherer.add_socket(Instant::ZERO, local, &servers, &mut rng);
    let mut sent = Vec::new();
    while let Some(due) = gatherer.poll_timeout().filter(|due| *due < Instant::ZERO + MS * 600_000) {
        gatherer.handle_timeout(due);
        sent.extend(std::iter::from_fn(|| gatherer.poll_output()).map(|d| (due, d)));
    }
    assert!((40..60).contains(&sent.len()), "{}", sent.len());
    let (due, asked) = sent.last().unwrap();
    let mut answer = vec![1, 1, 0, 12];
    answer.extend_from_slice(&asked.bytes[4..20]);
    answer.extend_from_slice(&[0, 0x20, 0, 8, 0, 1, 0x54, 0x23, 203 ^ 0x21, 0x12, 113 ^ 0xa4, 1 ^ 0x42]);
    assert!(gatherer.handle(local, asked.to, &answer));
    // Of the other server nothing more is wanted.
    gatherer.handle_timeout(*due + MS * 40_000);
    assert_eq!((gatherer.poll_output(), gatherer.poll_timeout()), (None, None));
}

/// Each also connects and can be connected to.
fn connectable(end: &mut End, listens: &str) {
    let mut gatherer = Gatherer::default();
    gatherer.add_tcp(at(listens));
    for local in gatherer.found() {
        end.agent.add_local(Instant::ZERO, local);
        end.locals.push(local.clone());
    }
}

/// A connection leaves from any port of its address, here 50009, and is known as port 9; `udp`: whether that passes.
fn connects(d: &Datagram, udp: bool) -> Option<(SocketAddr, SocketAddr)> {
    let port =
        |addr: SocketAddr, from, to| SocketAddr::new(addr.ip(), if addr.port() == from { to } else { addr.port() });
    let tcp = d.local.port() == 9 || d.to.port() == 50009;
    // Nobody waits at what only connects; who waits calls nobody.
    let waits = d.to.port() == 9 || (!tcp && d.local.port() % 2 == 1);
    (!waits && (tcp || udp)).then(|| (port(d.local, 9, 50009), port(d.to, 50009, 9)))
}

#[test]
fn where_no_udp_passes_the_way_is_straight_over_tcp() {
    for (controlling, relay) in [(0, false), (1, false), (0, true), (1, true)] {
        let (a, b) = ("10.0.0.1:4000", "10.0.0.2:5000");
        let (mut locals, clocks) = ([vec![(HOST, a, a)], vec![(HOST, b, b)]], clocks());
        if relay {
            locals[0].push((RELAY, "198.51.100.1:50002", a));
        }
        let mut ends = [0, 1].map(|n| end(clocks, n as u64 + 1, n == controlling, &locals[n]));
        connectable(&mut ends[0], "10.0.0.1:4001");
        connectable(&mut ends[1], "10.0.0.2:5001");
        let ices = [described(&ends[1]), described(&ends[0])];
        for (end, ice) in ends.iter_mut().zip(&ices) {
            let lines: Vec<_> = ice.candidates.iter().map(|c| c.to_string()).collect();
            assert_eq!(lines.iter().filter(|l| l.contains(" TCP ") && l.contains(" tcptype ")).count(), 2, "{lines:?}");
            let read = lines.iter().flat_map(|line| ice_candidate(line)).collect();
            end.agent.keep_looking();
            end.agent.set_remote(Instant::ZERO, &Ice { candidates: read, ..ice.clone() });
        }
        let mut now = Instant::ZERO;
        let relayed = |d: &Datagram| [d.local, d.to].iter().any(|a| a.to_string().starts_with("198."));
        run(&mut ends, &mut now, MS * 30_000, &mut |_, d| connects(d, relayed(d)));
        for (end, ip) in ends.iter().zip(["10.0.0.2", "10.0.0.1"]) {
            let pair = end.selected.last().expect("a way");
            assert!(pair.tcp && !pair.translated && pair.remote.ip().to_string() == ip, "{pair:?}");
            assert!(end.events.is_empty(), "consent: {:?}", end.events);
        }
        let [here, there] = [0, 1].map(|n| *ends[n].selected.last().unwrap());
        assert_ne!(here.local.port() == 9, there.local.port() == 9, "one connection: {here:?} {there:?}");
        // When UDP passes after all, it wins.
        run(&mut ends, &mut now, MS * 70_000, &mut |_, d| connects(d, true));
        assert!(ends.iter().all(|end| !end.selected.last().unwrap().tcp));
    }
}

#[test]
fn over_tcp_comes_after_udp_and_who_connects_comes_first() {
    let mut gatherer = Gatherer::default();
    gatherer.add_tcp(at("10.0.0.1:4001"));
    gatherer.add_socket(Instant::ZERO, at("10.0.0.1:4000"), &[], &mut Rng::from_seed(1));
    gatherer.add_relayed(at("198.51.100.1:50001"), at("10.0.0.1:4000"));
    let mut candidates = gatherer.candidates();
    candidates.sort_by_key(|c| std::cmp::Reverse(c.priority));
    let lines: Vec<_> =
        candidates.iter().map(|c| c.to_string().split(' ').skip(2).collect::<Vec<_>>().join(" ")).collect();
    let ends =
        ["4000 typ host", "9 typ host tcptype active", "4001 typ host tcptype passive", "relay raddr 0.0.0.0 rport 9"];
    assert!(lines.iter().zip(ends).all(|(line, end)| line.ends_with(end)), "{lines:?}");
    // Type 90, direction 6 and 4 (RFC 6544 section 4.2).
    let preferences = candidates[1..3].iter().map(|c| (c.priority >> 24, c.priority >> 21 & 7));
    assert_eq!(preferences.collect::<Vec<_>>(), [(90, 6), (90, 4)]);
}
