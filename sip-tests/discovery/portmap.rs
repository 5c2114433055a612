//! A home behind a router that opens ports when asked: miniupnpd, and somebody outside who comes in by the port.

use crate::lan::{Lan, Machine, inside, ip};
use crate::open;
use crate::process::Process;
use crate::tools::{eventually, have};
use std::process::Command;

const OUTSIDE: &str = "5.6.7.1";
/// NAT for the home, nothing in from outside but what the daemon's chains let in.
const RULES: &str = "table inet filter {
    chain forward { type filter hook forward priority 0; policy drop;
        ct state established,related accept; iifname \"br0\" accept; jump miniupnpd; }
    chain miniupnpd { }
    chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
    chain postrouting { type nat hook postrouting priority 100; jump postrouting_miniupnpd; oifname \"wan\" masquerade; }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}
";
/// The router is deaf to version 2 of the protocol on port 5351, that is to PCP.
const NO_PCP: &str =
    "table inet deaf { chain i { type filter hook input priority 0; udp dport 5351 @th,64,8 2 drop; }; }\n";

struct Home {
    lan: Lan,
    _daemon: Process,
    outside: usize,
}

impl Home {
    /// A home of one machine behind a router with `address` outside; none, said loudly, where that cannot be made.
    fn new(test: &str, address: &str, options: &str, more_rules: &str) -> Option<Home> {
        if !have(test, &["miniupnpd", "nft"]) {
            return None;
        }
        let mut lan = Lan::new(test, 1)?;
        let outside = lan.add("outside");
        let (router, far) = (lan.bridge().to_owned(), lan.name(outside).to_owned());
        ip(&["-n", &router, "link", "set", "lo", "up"]);
        ip(&["-n", &router, "addr", "add", "10.77.0.254/24", "dev", "br0"]);
        ip(&["-n", &router, "link", "add", "wan", "type", "veth", "peer", "name", "eth0", "netns", &far]);
        ip(&["-n", &router, "addr", "add", &format!("{address}/24"), "dev", "wan"]);
        ip(&["-n", &router, "link", "set", "wan", "up"]);
        let neighbour = format!("{}.9", address.rsplit_once('.').unwrap().0);
        ip(&["-n", &far, "addr", "add", &format!("{neighbour}/24"), "dev", "eth0"]);
        ip(&["-n", &far, "link", "set", "eth0", "up"]);
        ip(&["-n", &far, "link", "set", "lo", "up"]);
        ip(&["-n", lan.name(0), "route", "add", "default", "via", "10.77.0.254"]);
        inside(&router, &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        let rules = lan.dir().join("rules.nft");
        std::fs::write(&rules, format!("{RULES}{more_rules}")).unwrap();
        inside(&router, &["nft", "-f", rules.to_str().unwrap()]);
        let (conf, leases) = (lan.dir().join("upnpd.conf"), lan.dir().join("upnpd.leases"));
        let text = format!(
            "ext_ifname=wan\nlistening_ip=br0\nport=5555\nsecure_mode=yes\nsystem_uptime=yes\nmin_lifetime=120\n\
             uuid=00000000-0000-0000-0000-000000000001\nupnp_table_name=filter\nupnp_nat_table_name=filter\n\
             lease_file={}\n{options}\nallow 1024-65535 10.77.0.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n",
            leases.display()
        );
        std::fs::write(&conf, text).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &router, "miniupnpd", "-d", "-f"]).arg(&conf);
        command.arg("-P").arg(lan.dir().join("upnpd.pid"));
        let daemon = Process::start("miniupnpd", &mut command, lan.dir());
        Some(Home { lan, _daemon: daemon, outside })
    }

    fn start(&self) -> Machine {
        self.lan.start(0, "alice", &open("alice", "home.test"))
    }

    fn rules(&self) -> String {
        inside(self.lan.bridge(), &["nft", "list", "ruleset"])
    }
}

fn reach(machine: &Machine, state: &str) -> serde_json::Value {
    eventually(&format!("reach is {state}"), || {
        let reach = machine.try_json(&["status"])?["reach"].clone();
        if reach["state"] == state { Ok(reach) } else { Err(format!("{reach}; {}", machine.process.stderr())) }
    })
}

fn opened_by(test: &str, via: &str, options: &str, more_rules: &str) {
    let Some(home) = Home::new(test, OUTSIDE, options, more_rules) else { return };
    let mut alice = home.start();
    let told = reach(&alice, "mapped");
    let address = told["addresses"][1].as_str().expect("a second address").to_owned();
    assert!(address.starts_with(OUTSIDE), "{told}");
    assert_eq!(told["says"], format!("reachable from outside at {address}: opened by {via} on the router"));
    assert!(home.rules().contains("10.77.0.1"), "{}", home.rules());
    // Somebody outside joins by that port: the link's certificate proves whose it is.
    let mut args = open("bob", "home.test");
    args.extend(["--bootstrap", &address, "--discover", "none"]);
    let bob = home.lan.start(home.outside, "bob", &args);
    let id = alice.status()["peer_id"].clone();
    eventually("bob is in alice's ring", || {
        let ring = bob.try_json(&["status"])?["overlay"].clone();
        if ring["successors"][0]["peer_id"] == id { Ok(()) } else { Err(ring.to_string()) }
    });
    bob.finds("alice");
    // It leaves the router as it was.
    assert!(alice.process.signal("TERM").is_some_and(|s| s.success()));
    eventually("the port is closed again", || {
        let rules = home.rules();
        if rules.contains("10.77.0.1") { Err(rules) } else { Ok(()) }
    });
}

#[test]
fn a_router_opens_a_port_by_pcp() {
    opened_by("a_router_opens_a_port_by_pcp", "PCP", "enable_natpmp=yes\nenable_upnp=no", "");
}

#[test]
fn a_router_opens_a_port_by_nat_pmp() {
    opened_by("a_router_opens_a_port_by_nat_pmp", "NAT-PMP", "enable_natpmp=yes\nenable_upnp=no", NO_PCP);
}

#[test]
fn a_router_opens_a_port_by_upnp() {
    opened_by("a_router_opens_a_port_by_upnp", "UPnP", "enable_natpmp=no\nenable_upnp=yes", "");
}

#[test]
fn a_home_without_any_way_in_is_told_what_helps() {
    // The provider's own NAT lies before the router, which says so by its address.
    let options = "enable_natpmp=yes\nenable_upnp=no\next_allow_private_ipv4=yes";
    let Some(home) = Home::new("a_home_without_any_way_in_is_told_what_helps", "100.64.3.1", options, "") else {
        return;
    };
    let alice = home.start();
    let told = reach(&alice, "none");
    let next = told["next"].as_str().expect("advice");
    assert!(next.contains("chordial start --headless --role supernode --open --overlay home.test"), "{told}");
    assert_eq!(told["addresses"].as_array().map(Vec::len), Some(1), "{told}");
    eventually("one line in the log", || {
        let log = alice.process.stderr();
        if log.contains("nobody outside of this network can reach this peer") { Ok(()) } else { Err(log) }
    });
}
