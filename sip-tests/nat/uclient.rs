//! coturn's client, `turnutils_uclient`, at our relay.

use crate::relay::{self, Running};
use crate::tools::{eventually, have};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

/// What it said, and its last figures: sent and received.
fn uclient(running: &Running, server: SocketAddr, who: &str, args: &[&str]) -> (String, u64, u64) {
    let minted = running.mint(who);
    let output = Command::new("timeout")
        .args(["60", "turnutils_uclient", "-u", &minted.username, "-w", minted.password.reveal()])
        .args(args)
        .args(["-p", &server.port().to_string(), &server.ip().to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let figure = |name: &str| {
        let at = said.rfind(name)? + name.len();
        said[at..].split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let (sent, received) = (figure("tot_send_msgs=").unwrap_or(0), figure("tot_recv_msgs=").unwrap_or(0));
    (said, sent, received)
}

/// Every packet came back: `clients` of `packets` each.
fn all_came(running: &Running, server: SocketAddr, args: &[&str], packets: u64) {
    let (said, sent, received) = uclient(running, server, "ann", args);
    assert!(sent >= packets && sent == received, "{args:?}: {sent} sent, {received} received\n{said}");
}

#[test]
fn between_two_clients_over_udp() {
    if !have("between_two_clients_over_udp", &["turnutils_uclient"]) {
        return;
    }
    let running = relay::start(&[], 100);
    // Channels; Send and Data indications; port pairs with a reservation; with extra requests; IPv6 allocations.
    all_came(&running, running.udp(), &["-y", "-c", "-m", "4", "-n", "20"], 80);
    all_came(&running, running.udp(), &["-y", "-c", "-s", "-m", "4", "-n", "20"], 80);
    all_came(&running, running.udp(), &["-y", "-m", "4", "-n", "20"], 80);
    all_came(&running, running.udp(), &["-y", "-c", "-G", "-m", "2", "-n", "20"], 40);
    all_came(&running, running.udp(), &["-y", "-c", "-x", "-m", "4", "-n", "20"], 80);
    all_came(&running, running.udp(), &["-y", "-c", "-X", "-l", "1200", "-m", "4", "-n", "20"], 80);
    let figures = running.relay.figures();
    assert_eq!((figures.counters.malformed, figures.counters.over_quota), (0, 0), "{figures:?}");
}

#[test]
fn between_two_clients_over_tcp_and_tls() {
    if !have("between_two_clients_over_tcp_and_tls", &["turnutils_uclient"]) {
        return;
    }
    let running = relay::start(&[], 100);
    all_came(&running, running.tcp(), &["-t", "-y", "-c", "-m", "4", "-n", "20"], 80);
    all_came(&running, running.tcp(), &["-t", "-y", "-c", "-s", "-l", "333", "-m", "4", "-n", "20"], 80);
    all_came(&running, running.tcp(), &["-t", "-S", "-y", "-c", "-m", "4", "-n", "20"], 80);
}

/// Relayed addresses of TCP (RFC 6062): one end connects to the other's, which takes up a ConnectionAttempt.
#[test]
fn tcp_relayed_over_tcp_and_tls() {
    if !have("tcp_relayed_over_tcp_and_tls", &["turnutils_uclient"]) {
        return;
    }
    let running = relay::start(&[], 100);
    all_came(&running, running.tcp(), &["-T", "-m", "4", "-n", "20"], 80);
    all_came(&running, running.tcp(), &["-T", "-S", "-m", "4", "-n", "20"], 80);
    all_came(&running, running.tcp(), &["-T", "-S", "-l", "1200", "-m", "4", "-n", "20"], 80);
    let figures = running.relay.figures();
    assert_eq!((figures.counters.malformed, figures.counters.over_quota), (0, 0), "{figures:?}");
    eventually("what the streams carried is counted", || match running.relay.figures().carried.bytes {
        100_000.. => Ok(()),
        n => Err(format!("{n} bytes")),
    });
    eventually("the connections have ended", || match running.relay.figures().connections {
        0 => Ok(()),
        n => Err(format!("{n} connections")),
    });
}

/// Towards a peer that is no client: an echo.
#[test]
fn towards_a_peer() {
    if !have("towards_a_peer", &["turnutils_uclient"]) {
        return;
    }
    let echo = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = echo.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((read, from)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer[..read], from);
        }
    });
    let peer = at.port().to_string();
    let args = ["-c", "-m", "2", "-n", "20", "-e", "127.0.0.1", "-r", &peer];
    let open = relay::start(&["127.0.0.0/8"], 100);
    all_came(&open, open.udp(), &args, 40);
    eventually("what was carried is shown", || match open.relay.figures().carried.packets {
        80.. => Ok(()),
        n => Err(format!("{n} packets")),
    });
    // By default loopback is nobody's peer, whoever asks. The relay's own address stands for its other allocations alone.
    let closed = relay::start(&[], 100);
    let (said, _, received) = uclient(&closed, closed.udp(), "ann", &args);
    assert_eq!(received, 0, "{said}");
    let other = ["-c", "-m", "2", "-n", "20", "-e", "127.0.0.2", "-r", &peer];
    let (said, _, received) = uclient(&closed, closed.udp(), "ann", &other);
    assert!(received == 0 && said.contains("403"), "{said}");
    let figures = closed.relay.figures();
    assert!(figures.counters.forbidden > 0 && figures.carried.packets == 0, "{figures:?}");
}

#[test]
fn who_has_no_credential_and_who_has_too_many_allocations() {
    if !have("who_has_no_credential_and_who_has_too_many_allocations", &["turnutils_uclient"]) {
        return;
    }
    let running = relay::start(&[], 2);
    let args = ["-y", "-c", "-m", "1", "-n", "5"];
    let minted = running.mint("ann");
    let port = running.udp().port().to_string();
    let output = Command::new("timeout")
        .args(["20", "turnutils_uclient", "-u", &minted.username, "-w", "guess"])
        .args(args)
        .args(["-p", &port, &IpAddr::from(Ipv4Addr::LOCALHOST).to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("401") || said.to_lowercase().contains("unauthor") || !output.status.success(), "{said}");
    assert_eq!(running.relay.figures().carried.packets, 0);
    let (said, ..) = uclient(&running, running.udp(), "ann", &["-y", "-c", "-m", "8", "-n", "5"]);
    assert!(said.contains("486"), "{said}");
}
