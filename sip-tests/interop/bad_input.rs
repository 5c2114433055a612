//! What strangers send and what owners mistype: the peer answers with the right status or one clear line, and lives on.

use crate::process::Outcome;
use crate::program::{Peer, Ring, start_that_fails};
use crate::tools::{DEADLINE, eventually, free_ports};
use crate::wire::Client;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

#[test]
fn strangers_get_the_status_that_their_fault_has() {
    let mut ring = Ring::new("faults.test", &["--open", "--strangers", "anyone"]);
    ring.add("alice", &["--auto-answer"]);
    ring.add("bob", &[]);
    let alice = &ring.peers[0];
    alice.lookup_until_found("bob");
    let client = Client::new(alice.sip);
    let here = format!("sip:alice@{}", alice.sip);
    let ask =
        |method: &str, uri: &str, extra: &str, body: &str| client.exchange(&client.request(method, uri, extra, body));

    assert_eq!(ask("OPTIONS", &here, "", "").status, 200);
    let unknown = ask("WIBBLE", &here, "", "");
    assert!(unknown.status == 405 && unknown.header("Allow").is_some_and(|a| a.contains("INVITE")), "{}", unknown.text);
    let required = ask("INVITE", &here, "Require: levitation\r\n", "");
    assert_eq!((required.status, required.header("Unsupported")), (420, Some("levitation")), "{}", required.text);
    let typed = ask("INVITE", &here, "Content-Type: application/x-wibble\r\n", "wibble");
    assert!(typed.status == 415 && typed.header("Accept").is_some(), "{}", typed.text);
    let elsewhere = format!("sip:bob@{}", ring.overlay);
    assert_eq!(ask("INVITE", &elsewhere, "Max-Forwards: 0\r\n", "").status, 483);
    assert_eq!(ask("OPTIONS", &format!("sip:nobody@{}", ring.overlay), "", "").status, 404);
    // No relay for anybody into the world.
    let relayed = ask("INVITE", "sip:victim@203.0.113.7", "", "").status;
    assert!([403, 404, 407].contains(&relayed), "an open relay: {relayed}");
    let dialog = ask("BYE", &here, "", "").status;
    assert_eq!(dialog, 481);

    // Faulty messages that can be answered name the fault.
    let good = client.request("OPTIONS", &here, "", "");
    for (fault, damaged) in [
        ("CSeq", good.replace("CSeq: 1 OPTIONS", "CSeq: one OPTIONS")),
        ("From", good.replace("From: <sip:stranger", "From: <sip:str<anger")),
        ("Content-Length", good.replace("Content-Length: 0", "Content-Length: 9999")),
        ("version", good.replacen("SIP/2.0", "SIP/7.0", 1)),
    ] {
        let answer = client.exchange(&damaged);
        let wanted = if fault == "version" { 505 } else { 400 };
        let line = answer.text.lines().next().unwrap_or_default();
        assert!(answer.status == wanted, "{fault}: {line}");
        assert!(wanted == 505 || line.to_lowercase().contains(&fault.to_lowercase()), "{fault} not named: {line}");
    }
    assert_alive(alice, &client);
}

#[test]
fn garbage_is_dropped_and_counted() {
    let mut ring = Ring::new("garbage.test", &["--open"]);
    ring.add("alice", &[]);
    ring.add("bob", &[]);
    let alice = &ring.peers[0];
    alice.lookup_until_found("bob");
    let client = Client::new(alice.sip);
    let template = client.request("INVITE", &format!("sip:alice@{}", alice.sip), "", "");
    let mut random = Xorshift(0x9E37_79B9_7F4A_7C15);
    for round in 0..5_000u32 {
        let datagram: Vec<u8> = match round % 3 {
            0 => (0..random.below(1500)).map(|_| random.next() as u8).collect(),
            1 => template.bytes().map(|b| if random.below(40) == 0 { random.next() as u8 } else { b }).collect(),
            _ => template.as_bytes()[..random.below(template.len() as u64) as usize].to_vec(),
        };
        client.send(&datagram);
    }
    client.send(&vec![b'x'; 65_000]);
    let mut oversize = client.request("OPTIONS", &format!("sip:alice@{}", alice.sip), "", "");
    oversize = oversize.replace("Max-Forwards", &format!("Subject: {}\r\nMax-Forwards", "x".repeat(60_000)));
    client.send(oversize.as_bytes());
    assert_alive(alice, &client);
    let counters = &alice.status()["counters"];
    let counted: u64 = counters.as_object().map_or(0, |c| c.values().filter_map(|v| v.as_u64()).sum());
    assert!(counted > 1_000, "what was dropped is not counted: {counters}");

    // Streams: noise, a header without an end, a slow one; on the phones' port and on the links' port.
    for address in [alice.sip, alice.overlay] {
        let noise: Vec<u8> = (0..100_000).map(|_| random.next() as u8).collect();
        assert_closes(address, &noise);
        assert_closes(address, &[b"OPTIONS sip:a SIP/2.0\r\nSubject: ".as_slice(), &vec![b'y'; 200_000]].concat());
    }
    let huge = b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 999999999\r\n\r\n";
    assert_closes(alice.sip, huge);
    let _idle = TcpStream::connect(alice.sip).unwrap();
    assert_alive(alice, &client);
    // The ring took no harm.
    assert_eq!(alice.lookup("bob")["found"], true);
    assert_eq!(ring.peers[1].lookup("alice")["found"], true);
}

#[test]
fn what_an_owner_mistypes_ends_in_one_clear_line() {
    let dir = tempfile::Builder::new().prefix("chordial-faults-").tempdir().unwrap();
    let dir = dir.path();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let base = free_ports(3);
    let at = |n: u16| format!("127.0.0.1:{}", base + n);
    let (sip, overlay, third) = (at(0), at(1), at(2));
    let refuse = |what: &str, named: &[&str], args: &[&str]| {
        let data = path(&what.replace(' ', "-"));
        let mut all = vec!["--data", &data, "--overlay", "faults.test"];
        let defaults = [("--name", "alice"), ("--sip-listen", sip.as_str()), ("--overlay-listen", overlay.as_str())];
        for (flag, value) in defaults {
            if !args.contains(&flag) {
                all.extend([flag, value]);
            }
        }
        all.extend(args);
        let outcome = start_that_fails(dir, &all, DEADLINE);
        assert_one_line(what, &outcome, named);
        assert!(!Path::new(&data).join("control.sock").exists(), "{what}: a control socket is left behind");
    };

    let busy = UdpSocket::bind(&third).unwrap();
    refuse("busy UDP port", &[&third], &["--open", "--sip-listen", &third]);
    drop(busy);
    let busy = TcpListener::bind(&third).unwrap();
    refuse("busy TCP port", &[&third], &["--open", "--sip-listen", &third]);
    refuse("busy overlay port", &[&third], &["--open", "--overlay-listen", &third]);

    refuse("missing WAV", &["nosuch.wav"], &["--open", "--audio-in", &format!("wav:{}", path("nosuch.wav"))]);
    fs::write(path("text.wav"), "this is not sound").unwrap();
    refuse("WAV that is none", &["text.wav"], &["--open", "--audio-in", &format!("wav:{}", path("text.wav"))]);

    fs::write(path("wrong.toml"), "[user]\nname = \"alice\"\n\n[sip]\nlistne = \"127.0.0.1:5060\"\n").unwrap();
    refuse("wrong key", &["wrong.toml", "line 5", "listne"], &["--open", "--config", &path("wrong.toml")]);
    fs::write(path("type.toml"), "[media]\nports = \"high\"\n").unwrap();
    refuse("wrong value", &["type.toml", "line 2"], &["--open", "--config", &path("type.toml")]);
    refuse("no such file", &["absent.toml"], &["--open", "--config", &path("absent.toml")]);
    refuse("wrong address", &["--sip-listen"], &["--open", "--sip-listen", "nowhere"]);
    refuse("absent accounts", &["absent.csv"], &["--open", "--phones", &path("absent.csv")]);

    // A bootstrap that nobody listens at, and one that takes the connection and stays silent.
    let (_listening, silent) = (busy, &third);
    let closed = format!("127.0.0.1:{}", free_ports(1));
    refuse("closed bootstrap", &[&closed], &["--open", "--bootstrap", &closed]);
    refuse("silent bootstrap", &[silent], &["--open", "--bootstrap", silent]);
    refuse("closed clear bootstrap", &[&closed], &["--lab-clear", "--bootstrap", &closed]);
    refuse("clear on every interface", &["lab-clear"], &["--lab-clear", "--overlay-listen", "0.0.0.0:0"]);

    // Nothing of all this still holds a port.
    for address in [&sip, &overlay] {
        let free = UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok();
        assert!(free, "{address} is still taken");
    }
}

#[test]
fn a_data_directory_serves_one_program() {
    let mut ring = Ring::new("twice.test", &["--open"]);
    ring.add("alice", &[]);
    let data = ring.peers[0].data.to_str().unwrap();
    let second = start_that_fails(ring.dir(), &["--data", data, "--open", "--name", "alice"], DEADLINE);
    assert_one_line("the same --data twice", &second, &[data]);
    assert_eq!(ring.peers[0].status()["overlay"]["state"], "joined");
}

#[test]
fn commands_without_a_running_program_say_so() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["status"][..], &["lookup", "bob"], &["call", "bob"], &["peers"], &["phone", "list"]] {
        let mut command = crate::program::chordial();
        command.args(args).arg("--data").arg(dir.path());
        let outcome = crate::process::run(args[0], &mut command, dir.path(), DEADLINE);
        assert_one_line(args[0], &outcome, &["chordial start"]);
    }
}

/// Ended by itself, unsuccessfully, with one line on standard error that names what it is about.
#[track_caller]
fn assert_one_line(what: &str, outcome: &Outcome, named: &[&str]) {
    assert!(outcome.code.is_some_and(|c| c != 0), "{what}: ended with {:?}: {outcome:?}", outcome.code);
    let lines: Vec<_> = outcome.stderr.lines().filter(|l| !l.trim().is_empty()).collect();
    assert!(lines.len() == 1, "{what}: not one line: {outcome:?}");
    for name in named {
        assert!(lines[0].contains(name), "{what}: {name:?} is not named in {:?}", lines[0]);
    }
}

#[track_caller]
fn assert_alive(peer: &Peer, client: &Client) {
    let uri = format!("sip:{}@{}", peer.name, peer.sip);
    assert_eq!(client.exchange(&client.request("OPTIONS", &uri, "", "")).status, 200);
}

/// Sends `bytes` on a new connection; the peer must end it.
fn assert_closes(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let _ = stream.write_all(bytes);
    let mut answer = [0; 4096];
    eventually(&format!("{address} closes a stream that makes no sense"), || match stream.read(&mut answer) {
        Ok(0) => Ok(()),
        Ok(n) => Err(String::from_utf8_lossy(&answer[..n]).into_owned()),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            Err("still open".into())
        }
        Err(_) => Ok(()),
    });
}

/// Seeded noise.
struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
