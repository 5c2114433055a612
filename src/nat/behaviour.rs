//! How the NAT before this machine behaves (RFC 5780 section 4): whether its mapping of a port depends on where packets go, and from whom it
//! lets packets in. Asked of one STUN server with two addresses, or of two servers where the first has but two ports.
//!
//! Filtering is tested before anything goes to the other address, since that would open the way. Where the second server can be asked by
//! another way to send something ([`Discovery::ask_second`]), that is the packet from another address; else a server with one
//! address can only tell whether another port of it gets in, and what is reported is the strictest that fits. What is found holds for this
//! network and for now; whoever keeps it asks again when the network changes.
//!
//! Left out: lifetimes of bindings (section 4.6), hairpinning, fragments.

use crate::core::{Instant, Rng};
use crate::stun::attributes::{OtherAddress, XorMappedAddress};
use crate::stun::{Class, Message, Method, Parsed, Seal, TransactionId, raw};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// After each request of a test.
const WAITS: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(1)];

/// On what a mapping depends, or who is let in (RFC 4787 sections 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// On nothing outside: one mapping for all; everybody is let in.
    Independent,
    /// On the other end's address.
    Address,
    /// On its address and port.
    AddressAndPort,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behaviour {
    /// Where the first server sees this socket.
    pub mapped: SocketAddr,
    /// True where that is its own address: no NAT, though perhaps a firewall.
    pub no_nat: bool,
    /// None where there was no second address to ask.
    pub mapping: Option<Dependence>,
    /// None where the server cannot answer from elsewhere.
    pub filtering: Option<Dependence>,
}

/// What comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send it from the socket that is tested.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// Ask the second server, by another way than this socket, to send a success answer of this Binding transaction to `mapped`. Asked twice
    /// where nothing comes.
    Ask {
        /// Where the first server sees this socket.
        mapped: SocketAddr,
        /// The answer's.
        id: TransactionId,
    },
    /// The end.
    Done(Behaviour),
    /// The server does not answer: UDP is blocked, or it is gone. The end.
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    First,
    FilterOther,
    FilterSecond,
    FilterPort,
    MappingAddress,
    MappingPort,
}

/// One socket's tests.
pub struct Discovery {
    local: SocketAddr,
    server: SocketAddr,
    /// The address that OTHER-ADDRESS or the second server stands for.
    other: Option<SocketAddr>,
    second: Option<SocketAddr>,
    /// The second one can be asked to send.
    asks: bool,
    rng: Rng,
    test: Option<(Test, SocketAddr, TransactionId, usize)>,
    due: Option<Instant>,
    found: Option<Behaviour>,
    second_mapped: Option<SocketAddr>,
    out: VecDeque<Output>,
}

impl Discovery {
    /// Begins. `local` is the socket's own address, `second` a STUN server at another address than `server`.
    pub fn new(now: Instant, local: SocketAddr, server: SocketAddr, second: Option<SocketAddr>, rng: Rng) -> Discovery {
        let mut discovery = Discovery {
            local,
            server,
            other: None,
            second: second.filter(|s| s.ip() != server.ip()),
            asks: false,
            rng,
            test: None,
            due: None,
            found: None,
            second_mapped: None,
            out: VecDeque::new(),
        };
        discovery.begin(now, Test::First, server);
        discovery
    }

    /// There is another way to the second server, by which it can be asked to send ([`Output::Ask`]).
    pub fn ask_second(&mut self) {
        self.asks = self.second.is_some();
    }

    /// The second server does not send what [`Output::Ask`] wanted of it.
    pub fn refused(&mut self, now: Instant) {
        if let Some((Test::FilterSecond, ..)) = self.test {
            self.failed(now, Test::FilterSecond, true);
        }
    }

    /// A datagram came on the socket; false where it is not for these tests.
    pub fn handle(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> bool {
        let Some((test, to, id, _)) = self.test else { return false };
        let Ok(parsed) = Parsed::read(bytes) else { return false };
        let message = &parsed.message;
        let answers = message.id == id && message.method == Method::BINDING;
        // What was asked to come from elsewhere proves nothing if it does not; a refusal does come from there.
        let right = match test {
            Test::FilterOther | Test::FilterPort if message.class == Class::Success => from != to,
            Test::FilterSecond => from.ip() != self.server.ip(),
            _ => from == to,
        };
        if !answers || !right {
            return false;
        }
        match message.class {
            Class::Success => {
                let mapped = message.get::<XorMappedAddress>().map(XorMappedAddress::address);
                let other = message.get::<OtherAddress>().map(OtherAddress::address);
                self.answered(now, test, mapped, other);
            }
            Class::Error => self.failed(now, test, true),
            Class::Request | Class::Indication => return false,
        }
        true
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.due.is_none_or(|at| at > now) {
            return;
        }
        let Some((test, _, _, tries)) = &mut self.test else { return };
        let test = *test;
        *tries += 1;
        if *tries < WAITS.len() { self.ask(now) } else { self.failed(now, test, false) }
    }

    /// When [`Discovery::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// The next thing to send or to know.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn begin(&mut self, now: Instant, test: Test, to: SocketAddr) {
        let mut id = [0; 12];
        self.rng.fill(&mut id);
        self.test = Some((test, to, id, 0));
        self.ask(now);
    }

    fn ask(&mut self, now: Instant) {
        let Some((test, to, id, tries)) = self.test else { return };
        self.due = WAITS.get(tries).map(|wait| now + *wait);
        if test == Test::FilterSecond {
            if let Some(mapped) = self.found.map(|f| f.mapped).filter(|_| tries % 2 == 0) {
                self.out.push_back(Output::Ask { mapped, id });
            }
            return;
        }
        let mut message = Message::new(Class::Request, Method::BINDING, id);
        match test {
            Test::FilterOther => message.push_raw(raw::CHANGE_REQUEST, &[0, 0, 0, raw::CHANGE_IP | raw::CHANGE_PORT]),
            Test::FilterPort => message.push_raw(raw::CHANGE_REQUEST, &[0, 0, 0, raw::CHANGE_PORT]),
            Test::First | Test::FilterSecond | Test::MappingAddress | Test::MappingPort => {}
        }
        self.out.push_back(Output::Datagram { to, bytes: message.encode(Seal::default()) });
    }

    fn answered(&mut self, now: Instant, test: Test, mapped: Option<SocketAddr>, other: Option<SocketAddr>) {
        match (test, mapped) {
            (Test::First, Some(mapped)) => {
                let no_nat = mapped == self.local;
                self.found = Some(Behaviour { mapped, no_nat, mapping: None, filtering: None });
                self.other = other.filter(|o| o.port() != self.server.port());
                match (self.other, self.second) {
                    (Some(other), _) if other.ip() != self.server.ip() => {
                        self.begin(now, Test::FilterOther, self.server);
                    }
                    (_, Some(second)) if self.asks => self.begin(now, Test::FilterSecond, second),
                    _ => self.begin_port(now),
                }
            }
            (Test::FilterOther | Test::FilterSecond, _) => self.filters(now, Some(Dependence::Independent)),
            (Test::FilterPort, _) => self.filters(now, Some(Dependence::Address)),
            (Test::MappingAddress, Some(mapped)) => {
                if self.found.is_some_and(|f| f.mapped == mapped) {
                    return self.maps(Some(Dependence::Independent));
                }
                self.second_mapped = Some(mapped);
                // Another port of that same address: the server's own, or by convention the next one of the second server.
                match self.port_beside() {
                    Some(to) => self.begin(now, Test::MappingPort, to),
                    None => self.maps(Some(Dependence::AddressAndPort)),
                }
            }
            (Test::MappingPort, Some(mapped)) => {
                let same = self.second_mapped == Some(mapped);
                self.maps(Some(if same { Dependence::Address } else { Dependence::AddressAndPort }));
            }
            (_, None) => self.failed(now, test, false),
        }
    }

    fn failed(&mut self, now: Instant, test: Test, refused: bool) {
        match test {
            Test::First => {
                (self.test, self.due) = (None, None);
                self.out.push_back(Output::Silent);
            }
            // It names an address that it cannot answer from.
            Test::FilterOther if refused && self.asks => {
                let second = self.second.unwrap_or(self.server);
                self.begin(now, Test::FilterSecond, second);
            }
            Test::FilterOther | Test::FilterSecond => self.begin_port(now),
            Test::FilterPort => self.filters(now, (!refused).then_some(Dependence::AddressAndPort)),
            Test::MappingAddress => self.maps(None),
            Test::MappingPort => self.maps(Some(Dependence::AddressAndPort)),
        }
    }

    fn filters(&mut self, now: Instant, filtering: Option<Dependence>) {
        if let Some(found) = &mut self.found {
            found.filtering = filtering;
        }
        self.begin_mapping(now);
    }

    fn begin_port(&mut self, now: Instant) {
        match self.other {
            Some(_) => self.begin(now, Test::FilterPort, self.server),
            None => self.begin_mapping(now),
        }
    }

    fn begin_mapping(&mut self, now: Instant) {
        if self.found.is_some_and(|f| f.no_nat) {
            return self.maps(Some(Dependence::Independent));
        }
        let other = self.other.filter(|o| o.ip() != self.server.ip());
        let at_other = other.map(|o| SocketAddr::new(o.ip(), self.server.port()));
        match at_other.or(self.second) {
            Some(to) => self.begin(now, Test::MappingAddress, to),
            None => self.maps(None),
        }
    }

    fn port_beside(&self) -> Option<SocketAddr> {
        let other = self.other.filter(|o| o.ip() != self.server.ip());
        let beside = self.second.and_then(|s| Some(SocketAddr::new(s.ip(), s.port().checked_add(1)?)));
        other.or(beside)
    }

    fn maps(&mut self, mapping: Option<Dependence>) {
        (self.test, self.due) = (None, None);
        if let Some(mut found) = self.found.take() {
            found.mapping = mapping;
            self.out.push_back(Output::Done(found));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::attributes::XorMappedAddress;
    use std::collections::{BTreeMap, BTreeSet};

    const LOCAL: &str = "192.168.1.5:4000";

    /// A NAT, and servers behind it at the addresses 198.51.100.1 and .2 with the ports 3478 and 3479.
    struct Lab {
        mapping: Option<Dependence>,
        filtering: Dependence,
        /// Addresses of the first server that it can answer from; with one, the second is another server.
        two: bool,
        mapped: BTreeMap<Option<(u8, u16)>, SocketAddr>,
        sent: BTreeSet<SocketAddr>,
    }

    impl Lab {
        fn outside(&mut self, to: SocketAddr) -> SocketAddr {
            self.sent.insert(to);
            let last = |a: SocketAddr| if a.ip().to_string().ends_with('1') { 1 } else { 2 };
            let key = match self.mapping {
                None => return LOCAL.parse().unwrap(),
                Some(Dependence::Independent) => None,
                Some(Dependence::Address) => Some((last(to), 0)),
                Some(Dependence::AddressAndPort) => Some((last(to), to.port())),
            };
            let next = 50_000 + self.mapped.len() as u16;
            *self.mapped.entry(key).or_insert(SocketAddr::new("203.0.113.9".parse().unwrap(), next))
        }

        fn lets_in(&self, from: SocketAddr) -> bool {
            match self.filtering {
                Dependence::Independent => true,
                Dependence::Address => self.sent.iter().any(|s| s.ip() == from.ip()),
                Dependence::AddressAndPort => self.sent.contains(&from),
            }
        }

        fn answer(&mut self, to: SocketAddr, bytes: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
            let mapped = self.outside(to);
            let request = Parsed::read(bytes).unwrap().message;
            let change = request.get_raw(raw::CHANGE_REQUEST).map_or(0, |c| c[3]);
            let flip = |a: SocketAddr, ip: bool, port: bool| {
                let host = if (a.ip().to_string().ends_with('1')) != ip { 1 } else { 2 };
                let port = if port { 3478 + 3479 - a.port() } else { a.port() };
                SocketAddr::new(format!("198.51.100.{host}").parse().unwrap(), port)
            };
            let (ip, port) = (change & raw::CHANGE_IP != 0, change & raw::CHANGE_PORT != 0);
            let mut answer = request.success();
            answer.push(XorMappedAddress::new(mapped));
            answer.push(OtherAddress::new(flip(to, self.two, true)));
            let from = flip(to, ip, port);
            self.lets_in(from).then(|| (from, answer.encode(Seal::default())))
        }
    }

    fn discover(mapping: Option<Dependence>, filtering: Dependence, two: bool, second: Option<&str>) -> Behaviour {
        discover_with(mapping, filtering, two, second, None)
    }

    /// `helps`: whether the second server sends what it is asked to; none: it is not asked.
    fn discover_with(
        mapping: Option<Dependence>,
        filtering: Dependence,
        two: bool,
        second: Option<&str>,
        helps: Option<bool>,
    ) -> Behaviour {
        let mut lab = Lab { mapping, filtering, two, mapped: BTreeMap::new(), sent: BTreeSet::new() };
        let mut now = Instant::ZERO;
        let server = "198.51.100.1:3478".parse().unwrap();
        let second = second.map(|s| s.parse().unwrap());
        let mut discovery = Discovery::new(now, LOCAL.parse().unwrap(), server, second, Rng::from_seed(1));
        if helps.is_some() {
            discovery.ask_second();
        }
        loop {
            while let Some(output) = discovery.poll_output() {
                match output {
                    Output::Ask { .. } if helps == Some(false) => discovery.refused(now),
                    Output::Ask { mapped, id } => {
                        let second: SocketAddr = second.unwrap();
                        assert!(!lab.sent.iter().any(|s| s.ip() == second.ip()), "the way was opened before the test");
                        let mut answer = Message::new(Class::Success, Method::BINDING, id);
                        answer.push(XorMappedAddress::new(mapped));
                        if lab.lets_in(second) {
                            discovery.handle(now, second, &answer.encode(Seal::default()));
                        }
                    }
                    Output::Datagram { to, bytes } => {
                        if let Some((from, answer)) = lab.answer(to, &bytes) {
                            discovery.handle(now, from, &answer);
                        }
                    }
                    Output::Done(found) => return found,
                    Output::Silent => panic!("silent"),
                }
            }
            now = discovery.poll_timeout().expect("nothing is due and nothing was found");
            discovery.handle_timeout(now);
        }
    }

    const ALL: [Dependence; 3] = [Dependence::Independent, Dependence::Address, Dependence::AddressAndPort];

    #[test]
    fn every_kind_is_told_by_a_server_with_two_addresses() {
        for mapping in ALL {
            for filtering in ALL {
                let found = discover(Some(mapping), filtering, true, None);
                assert_eq!((found.mapping, found.filtering, found.no_nat), (Some(mapping), Some(filtering), false));
            }
        }
        let open = discover(None, Dependence::Independent, true, None);
        assert!(open.no_nat && open.mapping == Some(Dependence::Independent));
    }

    #[test]
    fn two_servers_with_one_address_each_tell_the_mapping() {
        for mapping in ALL {
            let found = discover(Some(mapping), Dependence::Address, false, Some("198.51.100.2:3478"));
            assert_eq!((found.mapping, found.filtering), (Some(mapping), Some(Dependence::Address)));
        }
        let found = discover(Some(Dependence::Address), Dependence::AddressAndPort, false, None);
        assert_eq!((found.mapping, found.filtering), (None, Some(Dependence::AddressAndPort)));
    }

    #[test]
    fn a_second_server_that_sends_when_asked_tells_the_filtering() {
        for mapping in ALL {
            for filtering in ALL {
                let found = discover_with(Some(mapping), filtering, false, Some("198.51.100.2:3478"), Some(true));
                assert_eq!((found.mapping, found.filtering), (Some(mapping), Some(filtering)));
                // One that does not: the strictest that fits.
                let found = discover_with(Some(mapping), filtering, false, Some("198.51.100.2:3478"), Some(false));
                assert_eq!((found.mapping, found.filtering), (Some(mapping), Some(filtering.max(Dependence::Address))));
            }
        }
        let firewall = discover_with(None, Dependence::AddressAndPort, false, Some("198.51.100.2:3478"), Some(true));
        assert!(firewall.no_nat && firewall.filtering == Some(Dependence::AddressAndPort));
    }

    #[test]
    fn a_server_that_is_gone_and_one_that_is_not_it() {
        let now = Instant::ZERO;
        let server: SocketAddr = "198.51.100.1:3478".parse().unwrap();
        let mut discovery = Discovery::new(now, LOCAL.parse().unwrap(), server, None, Rng::from_seed(1));
        let Some(Output::Datagram { bytes, .. }) = discovery.poll_output() else { panic!("nothing is sent") };
        let mut lie = Parsed::read(&bytes).unwrap().message.success();
        lie.push(XorMappedAddress::new("6.6.6.6:6".parse().unwrap()));
        // The right transaction from the wrong place, the wrong one from the right place.
        assert!(!discovery.handle(now, "6.6.6.6:6".parse().unwrap(), &lie.encode(Seal::default())));
        lie.id = [0; 12];
        assert!(!discovery.handle(now, server, &lie.encode(Seal::default())));
        while let Some(at) = discovery.poll_timeout() {
            discovery.handle_timeout(at);
        }
        assert_eq!(std::iter::from_fn(|| discovery.poll_output()).last(), Some(Output::Silent));
    }
}
