//! What a wire tap sees. With `--lab-clear` every message of the overlay reads as SIP in tshark; without it nothing
//! of what was said, to whom and by whom stands in the bytes.

use crate::process::{Process, run};
use crate::program::Ring;
use crate::tools::{DEADLINE, eventually, free_ports, have, heavy, may_capture};
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;

const USERS: [&str; 3] = ["zanzibar", "quetzalcoatl", "nebuchadnezzar"];

#[test]
fn a_laboratory_overlay_reads_as_sip() {
    let test = "a_laboratory_overlay_reads_as_sip";
    if !have(test, &["tshark", "dumpcap"]) || !may_capture(test) {
        return;
    }
    let ring = Ring::new("lab.test", &["--lab-clear"]);
    let (file, ring) = live(ring, |base, count| format!("portrange {base}-{}", base + count - 1));
    let ports = ring.ports();
    assert_eq!(ring.peers[0].status()["link_security"], "none");

    let messages = tshark(&file, ports, "sip");
    assert!(messages.len() > 30, "{} messages only", messages.len());
    let has = |what: &str| messages.iter().any(|line| line.contains(what));
    assert!(has("Request: REGISTER") && has("Status: 200") && has("Request: INVITE"), "{}", messages.join("\n"));
    for (what, filter) in [
        ("are malformed", "_ws.malformed || _ws.expert.message contains \"alformed\""),
        ("hold neither request nor status line", "sip && !sip.Request-Line && !sip.Status-Line"),
        ("are no SIP", "(udp.length > 8 || tcp.len > 0) && !sip && !tcp.reassembled_in"),
    ] {
        let found = tshark(&file, ports, filter);
        let found: Vec<_> = found.into_iter().filter(|line| !line.contains(PROBE)).collect();
        assert!(found.is_empty(), "{} frames {what}:\n{}", found.len(), found.join("\n"));
    }
    let marked = tshark(&file, ports, "sip contains \"DHT-PeerID:\"");
    assert!(!marked.is_empty(), "no message carries DHT-PeerID");
    let told = tshark(&file, ports, &format!("sip contains \"sip:{}@lab.test\"", USERS[1]));
    assert!(!told.is_empty(), "no message names {}: was the right thing captured?", USERS[1]);
}

#[test]
fn a_secured_overlay_shows_nothing() {
    let test = "a_secured_overlay_shows_nothing";
    if !have(test, &["tshark", "dumpcap"]) || !may_capture(test) {
        return;
    }
    // The ports of the peers' links alone: what standard phones say is clear by its nature.
    let ring = Ring::new("hushhush.test", &["--open"]);
    let (file, ring) = live(ring, |base, count| {
        let links: Vec<_> = (base..base + count).skip(1).step_by(2).map(|port| format!("port {port}")).collect();
        links.join(" or ")
    });
    let bytes: Vec<u8> = fs::read(&file).unwrap().to_ascii_lowercase();
    assert!(bytes.len() > 10_000, "{} bytes only: was the right thing captured?", bytes.len());
    let words = ["hushhush", "sip:", "sip/2.0", "register", "invite", "dht-", "call-id", "rtpmap"];
    for word in USERS.into_iter().chain(words) {
        let seen = bytes.windows(word.len()).any(|w| w == word.as_bytes());
        assert!(!seen, "{word:?} stands readable in the capture");
    }
    let readable = tshark(&file, ring.ports(), "sip.Request-Line || sip.Status-Line");
    assert!(readable.is_empty(), "readable:\n{}", readable.join("\n"));
}

/// Runs three peers, lookups and a call under a capture filter made from their ports (first, count); the capture.
fn live(mut ring: Ring, filter: impl Fn(u16, u16) -> String) -> (PathBuf, Ring) {
    let _one_at_a_time = heavy();
    let (base, count) = ring.reserve_ports(USERS.len());
    let capture = Capture::start(ring.dir(), &filter(base, count));
    for user in USERS {
        ring.add(user, &["--auto-answer", "--audio-in", "tone"]);
    }
    for peer in &ring.peers {
        USERS.iter().for_each(|user| drop(peer.lookup_until_found(user)));
    }
    ring.peers[0].call(USERS[1], &["--play", "tone", "--duration", "1"]).completed();
    let mut last = ring.peers.pop().unwrap();
    last.process.signal("TERM");
    (capture.end(), ring)
}

/// A dumpcap on `lo`.
pub struct Capture {
    process: Process,
    file: PathBuf,
    probe: UdpSocket,
}

const PROBE: &str = "capture probe ";

impl Capture {
    /// Returns when packets are being written.
    pub fn start(dir: &Path, filter: &str) -> Capture {
        let (file, port) = (dir.join("capture.pcap"), free_ports(1));
        let probe = UdpSocket::bind(("127.0.0.1", port)).unwrap();
        let mut command = Command::new("dumpcap");
        // pcap, not pcapng: it holds packets alone, no notes of its own.
        command.args(["-P", "-q", "-i", "lo", "-f", &format!("({filter}) or udp port {port}"), "-w"]).arg(&file);
        let process = Process::start("dumpcap", &mut command, dir);
        let mut capture = Capture { process, file, probe };
        capture.see("first");
        capture
    }

    /// Ends the capture when everything sent before is in the file.
    pub fn end(mut self) -> PathBuf {
        self.see("last");
        self.process.signal("INT");
        let errors = self.process.stderr();
        assert!(errors.contains("/0 (pcap:0"), "packets were dropped: {errors}");
        self.file.clone()
    }

    fn see(&mut self, mark: &str) {
        let probe = format!("{PROBE}{mark}");
        eventually("the capture sees a probe", || {
            assert!(self.process.ended().is_none(), "dumpcap ended: {}", self.process.stderr());
            let _ = self.probe.send_to(probe.as_bytes(), self.probe.local_addr().unwrap());
            let bytes = fs::read(&self.file).map_err(|e| e.to_string())?;
            let seen = bytes.windows(probe.len()).any(|w| w == probe.as_bytes());
            if seen { Ok(()) } else { Err(format!("{} bytes, {}", bytes.len(), self.process.stderr())) }
        });
    }
}

/// One line for each frame that `filter` shows, decoding everything on `ports` as SIP.
fn tshark(file: &Path, (base, count): (u16, u16), filter: &str) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-Y", filter]);
    for transport in ["udp", "tcp"] {
        command.args(["-d", &format!("{transport}.port=={base}-{},sip", base + count - 1)]);
    }
    let fields = ["frame.number", "_ws.col.Protocol", "_ws.col.Info", "udp.srcport", "tcp.len", "data.text"];
    command.args(["-o", "data.show_as_text:TRUE", "-T", "fields"]).args(fields.iter().flat_map(|f| ["-e", f]));
    let outcome = run("tshark", &mut command, file.parent().unwrap(), DEADLINE);
    assert!(outcome.ok(), "tshark: {outcome:?}");
    outcome.stdout.lines().map(str::to_owned).collect()
}
