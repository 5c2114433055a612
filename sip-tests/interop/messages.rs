//! Messages with other people's phones, between processes that come and go, and on the wire.

use crate::baresip::{Codec, Phone, Transport};
use crate::capture::Capture;
use crate::phones::speech;
use crate::process::{Outcome, Process, run};
use crate::program::{Peer, Ring};
use crate::tools::{DEADLINE, eventually, free_ports, have, heavy, may_capture};
use serde_json::Value;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Waits until a message with this text has come to a peer's user.
fn received(peer: &Peer, text: &str) -> Value {
    eventually(&format!("{} has {text:?}", peer.name), || {
        let (list, _) = peer.json(&["messages"]);
        let all = list["messages"].as_array().cloned().unwrap_or_default();
        let found = all
            .into_iter()
            .filter(|m| m["direction"] == "in" && m["text"].as_str().is_some_and(|t| t.trim_end() == text))
            .collect::<Vec<_>>();
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(list.to_string()),
            _ => panic!("shown twice: {list}"),
        }
    })
}

/// Sends a message; the state that the command reports.
fn say(peer: &Peer, target: &str, text: &str) -> String {
    let (sent, ok) = peer.json(&["message", target, text]);
    assert!(ok, "{sent}");
    sent["state"].as_str().unwrap_or_default().to_owned()
}

/// alice; bob with the accounts `desk` and `hall`.
fn ring_with_phones(name: &str) -> Ring {
    let mut ring = Ring::new(name, &["--open"]);
    let accounts = ring.file("phones.csv");
    fs::write(&accounts, "desk,s3cret\nhall,s3cret\n").unwrap();
    ring.add("alice", &[]);
    ring.add("bob", &["--phones", &accounts]);
    ring.settle();
    ring
}

#[test]
fn baresip_writes_and_is_written_to() {
    if !have("baresip_writes_and_is_written_to", &["baresip"]) {
        return;
    }
    let ring = ring_with_phones("notes.test");
    let (alice, bob) = (&ring.peers[0], &ring.peers[1]);
    let start = || {
        let (how, contact) = ((Codec::Pcmu, Transport::Udp), ring.aor("alice"));
        Phone::start_with(ring.dir(), ("desk", "s3cret"), &ring.overlay, bob.sip, how, &speech(), &contact)
    };
    let mut phone = start();
    alice.lookup_until_found("desk");
    phone.command("message", "hello from the desk");
    let got = received(alice, "hello from the desk");
    assert!(got["from"] == ring.aor("desk") && got["sealed"] == true && got["verified"] != "", "{got}");
    assert_eq!(say(alice, "desk", "hello desk"), "delivered");
    eventually("the phone shows it", || {
        let printed = phone.printed();
        if printed.contains("hello desk") { Ok(()) } else { Err(printed) }
    });
    // The phone is gone: its adapter keeps the next one until it registers again.
    drop(phone);
    assert_eq!(say(alice, "desk", "while you were off"), "waits");
    let phone = start();
    eventually("the phone gets what waited", || {
        let printed = phone.printed();
        if printed.contains("while you were off") { Ok(()) } else { Err(printed) }
    });
}

#[test]
fn sipp_writes_and_is_written_to() {
    if !have("sipp_writes_and_is_written_to", &["sipp"]) {
        return;
    }
    let ring = ring_with_phones("sipp-notes.test");
    let (dir, alice, bob) = (ring.dir(), &ring.peers[0], &ring.peers[1]);
    let port = free_ports(1);
    let done = |name: &str, outcome: &Outcome| {
        let errors = fs::read_to_string(dir.join("sipp.errors")).unwrap_or_default();
        assert!(outcome.ok(), "{name}: {outcome:?}\n{errors}");
    };
    let register = with_password("REGISTER", &ring.overlay, "hall", "Contact: <sip:hall@[local_ip]:[local_port]>", "");
    done("register", &run("sipp-reg", &mut sipp(dir, "register", &register, bob.sip, port), dir, DEADLINE));
    alice.lookup_until_found("hall");

    let said = with_password("MESSAGE", &ring.overlay, "alice", "Content-Type: text/plain", "hello from sipp");
    done("message", &run("sipp-msg", &mut sipp(dir, "message", &said, bob.sip, port), dir, DEADLINE));
    assert_eq!(received(alice, "hello from sipp")["from"], ring.aor("hall"));

    let mut uas = Process::start("sipp-uas", &mut sipp(dir, "answer", ANSWER, bob.sip, port), dir);
    eventually("the answering sipp listens", || {
        if UdpSocket::bind(("127.0.0.1", port)).is_err() { Ok(()) } else { Err("port free".into()) }
    });
    assert_eq!(say(alice, "hall", "hello sipp"), "delivered");
    let ended = uas.wait(DEADLINE).expect("sipp ends");
    assert!(ended.success(), "sipp did not see the text: {}", uas.stderr());
}

/// A request of `hall`'s, first without and then with its password.
fn with_password(method: &str, overlay: &str, to: &str, header: &str, body: &str) -> String {
    let from = if method == "REGISTER" { to } else { "hall" };
    let uri = if method == "REGISTER" { overlay.to_owned() } else { format!("{to}@{overlay}") };
    let challenge = if method == "REGISTER" { 401 } else { 407 };
    let send = |cseq: u32, authentication: &str| {
        format!(
            "<send retrans=\"500\"><![CDATA[\n{method} sip:{uri} SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\nMax-Forwards: 70\n\
             From: <sip:{from}@{overlay}>;tag=[pid]m\nTo: <sip:{to}@{overlay}>\nCall-ID: [call_id]\n\
             CSeq: {cseq} {method}\n{header}\n{authentication}Content-Length: [len]\n\n{body}\n]]></send>\n"
        )
    };
    format!(
        "<?xml version=\"1.0\"?>\n<scenario name=\"{method}\">\n{}<recv response=\"{challenge}\" auth=\"true\"/>\n{}\
         <recv response=\"200\"/>\n</scenario>\n",
        send(1, ""),
        send(2, "[authentication username=hall password=s3cret]\n"),
    )
}

const ANSWER: &str = r#"<?xml version="1.0"?>
<scenario name="answer">
<recv request="MESSAGE">
<action><ereg regexp="hello sipp" search_in="body" check_it="true" assign_to="1"/><log message="[$1]"/></action>
</recv>
<send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=[pid]u
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
</scenario>
"#;

fn sipp(dir: &Path, name: &str, scenario: &str, target: SocketAddr, port: u16) -> Command {
    let file = dir.join(format!("{name}.xml"));
    fs::write(&file, scenario).unwrap();
    let mut command = Command::new("sipp");
    command.arg(target.to_string()).arg("-sf").arg(file).args(["-m", "1", "-i", "127.0.0.1", "-p", &port.to_string()]);
    command.args(["-timeout", "50", "-timeout_error", "-nostdin", "-trace_err", "-error_file"]);
    command.arg(dir.join("sipp.errors"));
    command
}

#[test]
fn a_peer_that_was_killed_gets_what_waited() {
    let mut ring = Ring::new("absent.test", &["--open"]);
    for user in ["alice", "bob", "carol", "dave"] {
        ring.add(user, &[]);
    }
    ring.settle();
    ring.peers[0].lookup_until_found("carol");
    let mut carol = ring.peers.remove(2);
    carol.process.kill();
    assert_eq!(say(&ring.peers[0], "carol", "when you are back"), "waits");
    let first = ring.peers[0].overlay.to_string();
    let args = ["--open", "--overlay", &ring.overlay, "--name", "carol", "--bootstrap", &first];
    let carol = Peer::start(ring.dir(), "carol", &args);
    let got = received(&carol, "when you are back");
    assert!(got["sealed"] == true && got["from"] == ring.aor("alice"), "{got}");
    let mode = fs::metadata(carol.data.join("messages.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    eventually("alice hears that carol has it", || {
        let (list, _) = ring.peers[0].json(&["messages", "list"]);
        if list["messages"][0]["state"] == "delivered" { Ok(()) } else { Err(list.to_string()) }
    });
    let read = carol.run(&["messages", "read"]);
    assert!(read.ok() && read.stdout.contains("when you are back") && read.stdout.contains("sealed"), "{read:?}");
    assert!(!carol.run(&["messages", "read"]).ok(), "nothing is unread");
    assert!(carol.run(&["messages", "delete", "1"]).ok());
    let nobody = ring.peers[0].run(&["message", "nobody", "hello?"]);
    assert!(!nobody.ok() && nobody.stderr.contains("404"), "{nobody:?}");
}

#[test]
fn a_capture_shows_who_and_not_what() {
    let test = "a_capture_shows_who_and_not_what";
    if !have(test, &["dumpcap"]) || !may_capture(test) {
        return;
    }
    for (mode, clear) in [("--lab-clear", true), ("--open", false)] {
        let _one_at_a_time = heavy();
        let mut ring = Ring::new("wiretap.test", &[mode]);
        let (base, count) = ring.reserve_ports(3);
        let capture = Capture::start(ring.dir(), &format!("portrange {base}-{}", base + count - 1));
        for user in ["quentin", "rosalind", "tybalt"] {
            ring.add(user, &[]);
        }
        ring.peers[0].lookup_until_found("rosalind");
        assert_eq!(say(&ring.peers[0], "rosalind", "the cyprus regiment"), "delivered");
        let mut gone = ring.peers.pop().unwrap();
        gone.process.kill();
        // In a laboratory too, what waits is sealed.
        say(&ring.peers[0], "tybalt", "the venetian fleet");
        received(&ring.peers[1], "the cyprus regiment");
        let bytes = fs::read(capture.end()).unwrap();
        let shows = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        assert_eq!(shows("MESSAGE sip:rosalind@"), clear, "{mode}: was the right thing captured?");
        assert!(!shows("the cyprus regiment") && !shows("the venetian fleet"), "{mode}");
        assert!(!shows("regiment") && !shows("venetian"), "{mode}");
    }
}
