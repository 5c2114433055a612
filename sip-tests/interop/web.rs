//! A phone in JavaScript, JsSIP, over WebSockets in clear and under TLS: it registers, calls and is called, and exchanges messages.
//! Its media is a description and nothing more: what is tested is signalling.

use crate::process::Process;
use crate::program::{Peer, Ring};
use crate::tools::{eventually, have, skip};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};

struct Phone {
    process: Process,
    input: ChildStdin,
    taken: usize,
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sip-tests/interop/jssip")
}

/// True when node and JsSIP are here.
fn can(test: &str) -> bool {
    let missing = "no JsSIP; install: npm install --no-package-lock --prefix sip-tests/interop/jssip";
    have(test, &["node"]) && (home().join("node_modules/jssip").is_dir() || skip(test, missing))
}

impl Phone {
    fn start(dir: &Path, name: &str, url: &str, uri: &str, password: &str, trusted: &Path) -> Phone {
        let mut command = Command::new("node");
        command.arg(home().join("phone.js")).args([url, uri, password]).env("NODE_EXTRA_CA_CERTS", trusted);
        let (process, input) = Process::start_commanded(name, &mut command, dir);
        Phone { process, input, taken: 0 }
    }

    fn tell(&mut self, command: Value) {
        writeln!(self.input, "{command}").expect("it reads");
    }

    /// The next event of this kind.
    fn wait_for(&mut self, kind: &str) -> Value {
        let (process, taken) = (&mut self.process, &mut self.taken);
        eventually(&format!("JsSIP tells {kind}"), || {
            assert!(process.ended().is_none(), "{}{}", process.stdout(), process.stderr());
            let text = process.stdout();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            for line in whole.lines().skip(*taken) {
                *taken += 1;
                let event: Value = serde_json::from_str(line).unwrap_or_default();
                if event["event"] == kind {
                    return Ok(event);
                }
            }
            Err(text)
        })
    }
}

#[test]
fn jssip_over_web_sockets() {
    if can("jssip_over_web_sockets") {
        talk(|peer| (format!("ws://{}", peer.sip), "ws"));
    }
}

#[test]
fn jssip_over_web_sockets_under_tls() {
    if can("jssip_over_web_sockets_under_tls") {
        talk(|peer| (format!("wss://{}", peer.overlay), "wss"));
    }
}

fn talk(place: fn(&Peer) -> (String, &'static str)) {
    let mut ring = Ring::new("web.test", &["--open"]);
    let accounts = ring.file("phones.csv");
    fs::write(&accounts, "web,s3cret\n").unwrap();
    ring.add("alice", &["--phones", &accounts]);
    ring.add("bob", &["--auto-answer", "--audio-in", "tone", "--audio-out", "null"]);
    let (alice, bob) = (&ring.peers[0], &ring.peers[1]);
    let (url, name) = place(alice);
    let certificate = alice.data.join("phones.pem");
    let start = |name: &str, password: &str| {
        Phone::start(ring.dir(), name, &url, &format!("sip:web@{}", ring.overlay), password, &certificate)
    };
    let mut wrong = start("wrong", "guess");
    let refused = wrong.wait_for("registrationFailed");
    assert!(refused["status"] == 401 || refused["status"] == 403, "{refused}");
    drop(wrong);
    let mut phone = start(name, "s3cret");
    phone.wait_for("registered");
    bob.lookup_until_found("web");
    alice.lookup_until_found("bob");

    // It calls the user of the other peer, holds, takes the call back and hangs up.
    phone.tell(json!({ "command": "call", "target": ring.aor("bob") }));
    phone.wait_for("confirmed");
    for (command, event) in [("hold", "hold"), ("unhold", "unhold")] {
        phone.tell(json!({ "command": command }));
        assert_eq!(phone.wait_for(event)["by"], "local");
    }
    phone.tell(json!({ "command": "hangup" }));
    assert_eq!(phone.wait_for("ended")["by"], "local");
    let ended = |what: &str, wanted: &str| {
        eventually(what, || {
            let (calls, _) = bob.json(&["calls"]);
            let last = &calls["ended"][0];
            if calls["calls"].as_array().is_some_and(Vec::is_empty) && last["result"] == wanted {
                Ok(())
            } else {
                Err(calls.to_string())
            }
        });
    };
    ended("the call of the page has ended", "completed");

    // It is called, refuses, is called again and answers; the other one hangs up.
    let call = bob.call("web", &["--play", "null"]);
    assert_eq!(phone.wait_for("invite")["from"], "bob");
    phone.tell(json!({ "command": "refuse", "status": 486 }));
    let (report, ok) = call.report();
    assert!(!ok && report["status"] == 486, "{report}");
    let call = bob.call("web", &["--play", "null"]);
    phone.wait_for("invite");
    phone.tell(json!({ "command": "answer" }));
    phone.wait_for("confirmed");
    assert!(bob.run(&["hangup"]).ok());
    call.completed();
    assert_eq!(phone.wait_for("ended")["by"], "remote");

    // Messages, both ways.
    phone.tell(json!({ "command": "message", "target": ring.aor("bob"), "text": "from a page" }));
    phone.wait_for("sent");
    eventually("bob has the message", || {
        let (messages, _) = bob.json(&["messages"]);
        if messages.to_string().contains("from a page") { Ok(()) } else { Err(messages.to_string()) }
    });
    assert!(bob.run(&["message", "web", "to a page"]).ok());
    let heard = phone.wait_for("message");
    assert_eq!((&heard["from"], &heard["text"]), (&json!("bob"), &json!("to a page")));

    phone.tell(json!({ "command": "stop" }));
    phone.wait_for("unregistered");
}
