//! A relay of ours in this process.

use chordial::core::{Rng, UnixTime};
use chordial::io::media::clock;
use chordial::io::relay::{Config, Relay};
use chordial::nat::turn::credential::{Minted, Secret};
use chordial::nat::turn::peers::{Peers, Prefix};
use chordial::nat::turn::server;
use chordial::nat::turn::table::Ceilings;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::runtime::Runtime;

pub const UNIX: UnixTime = UnixTime(1_800_000_000);

pub struct Running {
    pub relay: Relay,
    pub secret: Secret,
    /// Ends after the relay.
    _runtime: Runtime,
}

/// On loopback, both families, at a port of the system's choice; `allow` as in the configuration.
pub fn start(allow: &[&str], of_one_user: usize) -> Running {
    let runtime = Runtime::new().unwrap();
    let secret = Secret::new([9; 32]);
    let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    let allow = allow.iter().map(|a| a.parse::<Prefix>().unwrap()).collect();
    // A pair of UDP ports for RFC 5780, and one for IPv6.
    let udp = vec![SocketAddr::new(v4, 0), SocketAddr::new(v4, 0), SocketAddr::new(v6, 0)];
    let config = Config {
        udp: udp.clone(),
        tcp: vec![SocketAddr::new(v4, 0)],
        door: Vec::new(),
        links: None,
        server: server::Config {
            realm: "nat.test".into(),
            secret: secret.clone(),
            allocations: 500,
            of_one_user,
            ports: (20_000, 28_000),
            addresses: vec![v4, v6],
            shown: BTreeMap::new(),
            faces: udp,
            peers: Peers::new(allow, vec![v4, v6]),
        },
        ceilings: Ceilings::default(),
        unix: UNIX,
    };
    let _in = runtime.enter();
    let relay = Relay::start(clock::now(), config, Rng::from_seed(5)).unwrap();
    drop(_in);
    Running { relay, secret, _runtime: runtime }
}

impl Running {
    pub fn mint(&self, who: &str) -> Minted {
        self.secret.mint(who, UnixTime(UNIX.secs() + 3600))
    }

    pub fn udp(&self) -> SocketAddr {
        self.relay.udp()[0]
    }

    pub fn tcp(&self) -> SocketAddr {
        self.relay.tcp()[0]
    }
}
