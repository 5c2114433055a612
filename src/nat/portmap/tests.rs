//! The machine against routers of every kind, by hand.

use super::*;
use crate::nat::{Scope, scope};

pub const DESCRIPTION: &str = "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device>\
    <deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:2</deviceType><deviceList><device><serviceList>\
    <service><serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType><controlURL>/ctl/PPP</controlURL></service>\
    <service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:2</serviceType><controlURL>/ctl/IPConn</controlURL></service>\
    <service><serviceType>urn:schemas-upnp-org:service:WANCommon:1</serviceType><controlURL>/ctl/C</controlURL></service>\
    </serviceList></device></deviceList></device></root>";

/// Bytes of a text of hexadecimal digits and blanks.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

/// Hands thousands of damaged copies of `bytes` in.
pub fn mutated(bytes: &[u8], mut each: impl FnMut(&[u8])) {
    let mut rng = Rng::from_seed(9);
    for _ in 0..4000 {
        let mut bad = bytes.to_vec();
        for _ in 0..=rng.below(3) {
            let at = rng.below(bad.len().max(1) as u64) as usize;
            match rng.below(4) {
                0 => bad.truncate(at),
                1 if !bad.is_empty() => bad[at] ^= 1 << rng.below(8),
                2 if !bad.is_empty() => {
                    let again = bad[..at].to_vec();
                    drop(bad.splice(at..at, again));
                }
                _ => bad.push(rng.next_u32() as u8),
            }
        }
        each(&bad);
    }
}

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

struct Bench {
    map: PortMap,
    now: Instant,
    /// What the machine told.
    told: Vec<Output>,
    /// Datagrams and requests, latest last.
    sent: Vec<Output>,
}

impl Bench {
    fn new(gateway: Option<Ipv4Addr>) -> Bench {
        let internal = "192.168.1.10:5061".parse().unwrap();
        let map = PortMap::new(Instant::ZERO, internal, gateway, "chordial", Rng::from_seed(1));
        let mut bench = Bench { map, now: Instant::ZERO, told: Vec::new(), sent: Vec::new() };
        bench.drain();
        bench
    }

    fn drain(&mut self) {
        while let Some(output) = self.map.poll_output() {
            match output {
                Output::Mapped(_) | Output::Unmapped { .. } => self.told.push(output),
                sent => self.sent.push(sent),
            }
        }
    }

    /// Goes on to the next timer.
    fn wait(&mut self) {
        self.now = self.map.poll_timeout().expect("a timer").max(self.now);
        self.map.handle_timeout(self.now);
        self.drain();
    }

    fn wait_for(&mut self, what: &str, found: impl Fn(&Output) -> bool) {
        for _ in 0..60 {
            if self.sent.last().is_some_and(&found) {
                return;
            }
            self.wait();
        }
        panic!("{what}: {:?}", self.sent.last());
    }

    fn router(&mut self, bytes: &[u8]) {
        self.map.on_datagram(self.now, SocketAddr::new(GATEWAY.into(), 5351), bytes);
        self.drain();
    }

    /// The PCP answer to the latest request.
    fn pcp(&mut self, code: u8, lifetime: u32, external: &str) {
        let Some(Output::Datagram { bytes, .. }) = self.sent.last() else { panic!("{:?}", self.sent.last()) };
        let external: SocketAddr = external.parse().unwrap();
        let IpAddr::V4(ip) = external.ip() else { panic!() };
        let mut answer = vec![2, 0x81, 0, code];
        answer.extend(lifetime.to_be_bytes());
        answer.extend([0, 0, 0, 1]);
        answer.extend([0; 12]);
        answer.extend(&bytes[24..42]);
        answer.extend(external.port().to_be_bytes());
        answer.extend(ip.to_ipv6_mapped().octets());
        self.router(&answer);
    }

    fn location(&mut self, place: &str) {
        let bytes = format!("HTTP/1.1 200 OK\r\nLOCATION: {place}\r\n\r\n");
        self.map.on_datagram(self.now, "192.168.1.1:1900".parse().unwrap(), bytes.as_bytes());
        self.drain();
    }

    /// Answers the latest request, which must contain `expected`.
    fn http(&mut self, expected: &str, status: u16, body: &str) {
        let Some(Output::Http { id, bytes, .. }) = self.sent.last() else { panic!("{:?}", self.sent.last()) };
        let text = String::from_utf8_lossy(bytes);
        assert!(text.contains(expected), "{expected}: {text}");
        let answer = Response { status, body: body.into() };
        self.map.on_http(self.now, *id, Some(answer));
        self.drain();
    }

    fn mapped(&self) -> Option<(String, Via)> {
        match self.told.last() {
            Some(Output::Mapped(m)) => Some((m.external.to_string(), m.via)),
            _ => None,
        }
    }
}

fn to_gateway(output: &Output, version: u8) -> bool {
    matches!(output, Output::Datagram { to, bytes } if to.port() == 5351 && bytes[0] == version)
}

fn fault(code: u16) -> String {
    format!("<s:Envelope><s:Body><s:Fault><errorCode>{code}</errorCode></s:Fault></s:Body></s:Envelope>")
}

#[test]
fn a_pcp_router_maps_is_renewed_at_half_time_and_lets_go() {
    let mut bench = Bench::new(Some(GATEWAY));
    bench.pcp(0, 600, "5.6.7.8:5061");
    assert_eq!(bench.mapped(), Some(("5.6.7.8:5061".into(), Via::Pcp)));
    let sent = bench.sent.len();
    assert_eq!(bench.map.poll_timeout(), Some(bench.now + Duration::from_secs(300)));
    bench.wait();
    assert_eq!(bench.sent.len(), sent + 1);
    bench.pcp(0, 600, "5.6.7.8:5061");
    assert_eq!(bench.told.len(), 1, "nothing new");
    // Renumbered by the provider: the next renewal tells.
    bench.wait();
    bench.pcp(0, 600, "5.6.9.9:5061");
    assert_eq!(bench.mapped(), Some(("5.6.9.9:5061".into(), Via::Pcp)));
    bench.map.close();
    bench.drain();
    let Some(Output::Datagram { bytes, .. }) = bench.sent.last() else { panic!() };
    assert_eq!(bytes[4..8], [0; 4], "a lifetime of 0");
    assert_eq!(bench.map.poll_timeout(), None);
}

#[test]
fn a_router_that_dies_is_noticed_when_the_mapping_ends() {
    let mut bench = Bench::new(Some(GATEWAY));
    bench.pcp(0, 600, "5.6.7.8:5061");
    while bench.told.len() < 2 {
        bench.wait();
    }
    assert_eq!(bench.now.as_millis(), 600_000);
    assert!(matches!(&bench.told[1], Output::Unmapped { why } if why.contains("no longer answers")));
    // It comes back: found again, told again.
    bench.wait_for("another attempt", |o| to_gateway(o, 2));
    bench.pcp(0, 600, "5.6.7.8:5061");
    assert_eq!(bench.mapped(), Some(("5.6.7.8:5061".into(), Via::Pcp)));
}

#[test]
fn an_older_router_is_asked_by_nat_pmp() {
    let mut bench = Bench::new(Some(GATEWAY));
    bench.router(&hex("00 81 0001 00000001"));
    assert!(to_gateway(bench.sent.last().unwrap(), 0));
    bench.router(&hex("00 82 0000 00000001 13c5 1f90 00000e10"));
    assert_eq!(bench.mapped(), None, "the address is missing");
    bench.router(&hex("00 80 0000 00000001 05060708"));
    assert_eq!(bench.mapped(), Some(("5.6.7.8:8080".into(), Via::NatPmp)));
    // The port that was given is asked for again.
    bench.wait();
    assert!(matches!(bench.sent.last(), Some(Output::Datagram { bytes, .. }) if bytes[6..8] == [0x1f, 0x90]));
    bench.map.close();
    bench.drain();
    let removal = Output::Datagram { to: "192.168.1.1:5351".parse().unwrap(), bytes: nat_pmp::map_request(5061, 0, 0) };
    assert_eq!(bench.sent.last(), Some(&removal));
}

#[test]
fn where_only_upnp_answers_it_is_used() {
    let mut bench = Bench::new(Some(GATEWAY));
    bench.wait_for("the search", |o| matches!(o, Output::Datagram { to, .. } if to.port() == 1900));
    bench.location("http://192.168.1.1:5000/desc.xml");
    bench.http("GET /desc.xml", 200, DESCRIPTION);
    bench.http("#AddAnyPortMapping", 200, "<r><NewReservedPort>5099</NewReservedPort></r>");
    bench.http("#GetExternalIPAddress", 200, "<r><NewExternalIPAddress>5.6.7.8</NewExternalIPAddress></r>");
    assert_eq!(bench.mapped(), Some(("5.6.7.8:5099".into(), Via::Upnp)));
    bench.wait();
    bench.http("<NewExternalPort>5099</NewExternalPort>", 200, "<r/>");
    bench.http("#GetExternalIPAddress", 200, "<r><NewExternalIPAddress>5.6.7.8</NewExternalIPAddress></r>");
    assert_eq!(bench.told.len(), 1);
    bench.map.close();
    bench.drain();
    assert!(matches!(bench.sent.last(), Some(Output::Http { bytes, .. })
        if String::from_utf8_lossy(bytes).contains("#DeletePortMapping")));
}

#[test]
fn upnp_faults_have_their_ways_round() {
    let mut bench = Bench::new(None);
    bench.location("http://192.168.1.1:5000/other.xml");
    bench.location("http://192.168.1.1:5000/desc.xml");
    bench.http("GET /other.xml", 200, "<root><device/></root>");
    bench.http("GET /desc.xml", 200, DESCRIPTION);
    bench.http("#AddAnyPortMapping", 500, &fault(401));
    bench.http("#AddPortMapping", 500, &fault(718));
    bench.http("#AddPortMapping", 500, &fault(725));
    bench.http("<NewLeaseDuration>0</NewLeaseDuration>", 200, "<r/>");
    bench.http("#GetExternalIPAddress", 200, "<r><NewExternalIPAddress>10.1.1.1</NewExternalIPAddress></r>");
    let (external, via) = bench.mapped().unwrap();
    let external: SocketAddr = external.parse().unwrap();
    assert!(via == Via::Upnp && external.port() >= 20_000 && scope(external.ip()) == Scope::Private);
}

#[test]
fn without_any_router_it_says_why_once_and_tries_ever_more_seldom() {
    let mut bench = Bench::new(Some(GATEWAY));
    bench.pcp(2, 0, "0.0.0.0:0");
    while bench.told.is_empty() {
        bench.wait();
    }
    let Output::Unmapped { why } = &bench.told[0] else { panic!() };
    assert!(["not allowed", "NAT-PMP", "UPnP"].iter().all(|part| why.contains(part)), "{why}");
    assert!(bench.now.as_millis() < 15_000, "{:?}", bench.now);
    let begun = bench.now;
    while bench.now.since(begun) < Duration::from_secs(24 * 3600) {
        bench.wait();
    }
    assert_eq!(bench.told.len(), 1);
    let searches = bench.sent.iter().filter(|o| matches!(o, Output::Datagram { to, .. } if *to == igd::SSDP)).count();
    assert!((40 * 6..60 * 6).contains(&searches), "{searches} searches in a day");
}

#[test]
fn nobody_but_the_router_is_heard() {
    let mut bench = Bench::new(Some(GATEWAY));
    let Some(Output::Datagram { bytes, .. }) = bench.sent.last().cloned() else { panic!() };
    let mut answer = hex("02 81 00 00 00000258 0001e240 000000000000000000000000");
    answer.extend(&bytes[24..42]);
    answer.extend(hex("13c5 00000000000000000000ffff 09090909"));
    bench.map.on_datagram(bench.now, "192.168.1.66:5351".parse().unwrap(), &answer);
    bench.map.on_datagram(bench.now, "192.168.1.1:9".parse().unwrap(), &answer);
    bench.drain();
    assert_eq!(bench.mapped(), None);
    bench.router(&answer);
    assert!(bench.mapped().is_some());
}

#[test]
fn garbage_from_the_router_stops_nothing() {
    let mut rng = Rng::from_seed(3);
    let mut bench = Bench::new(Some(GATEWAY));
    for n in 0..3000 {
        let mut bytes = vec![0; rng.below(80) as usize];
        rng.fill(&mut bytes);
        if bytes.len() > 3 && n % 2 == 0 {
            (bytes[0], bytes[1]) = ((n % 4) as u8, 0x80 | (n % 3) as u8);
        }
        bench.router(&bytes);
        let id = bench.map.http;
        let body = if n % 3 == 0 { DESCRIPTION.as_bytes().to_vec() } else { bytes };
        bench.map.on_http(bench.now, id, Some(Response { status: 200, body }));
        bench.location("http://192.168.1.1:5000/desc.xml");
        bench.wait();
        bench.sent.truncate(64);
    }
    assert!(bench.map.poll_timeout().is_some());
}
