//! Answers for a person: aligned, short, the most important first.

use crate::node::control::{CallReport, CallStatus, LookupReport, PeerStatus, PhoneStatus, Reply, Status};
use std::fmt::Write as _;
use std::io::{self, Write as _};

/// One line (or several) on standard output. That the reader has gone is not our failure.
pub fn out(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}");
    let _ = stdout.flush();
}

/// A reply as text.
pub fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Status(s) => status(s),
        Reply::Peers { peers } if peers.is_empty() => "no other peer is known".into(),
        Reply::Peers { peers } => table(peers.iter().map(peer_row)),
        Reply::Lookup(report) => lookup(report),
        Reply::Call(report) => call_line(report),
        Reply::Calls { calls, ended } => list_calls(calls, ended),
        Reply::Phones { phones } if phones.is_empty() => "no accounts; make one with chordial phone add USER".into(),
        Reply::Phones { phones } => table(phones.iter().map(phone_row)),
        Reply::Invite { code, expires } => {
            format!("{code}\nworks once, for {}; on the other device: chordial join CODE", span(*expires))
        }
        Reply::Done { done } => done.clone(),
    }
}

/// How a call went, in two lines.
pub fn call_line(r: &CallReport) -> String {
    let arrow = if r.direction == "in" { "from" } else { "to" };
    let mut text = format!("{} {arrow} {}", r.result, r.with);
    if r.result != "completed" {
        if r.status != 0 {
            let _ = write!(text, ", {} {}", r.status, r.reason);
        }
        return text;
    }
    let _ = write!(text, ", talked {:.1} s, set up in {:.0} ms", r.talk_s, r.setup_ms);
    if r.hops > 0 {
        let _ = write!(text, " ({})", count(r.hops as usize, "hop"));
    }
    let (sent, received, lost, jitter) = (r.sent, r.received, r.lost, r.jitter_ms);
    let _ = write!(text, "\n  {}: sent {sent}, received {received}, lost {lost}, jitter {jitter:.1} ms", r.codec);
    if let Some(rtt) = r.rtt_ms {
        let _ = write!(text, ", round trip {rtt:.1} ms");
    }
    let _ = write!(text, "; path {}, security {}", r.path, r.security);
    text
}

fn status(s: &Status) -> String {
    let mut rows: Vec<[String; 2]> = Vec::new();
    let mut row = |name: &str, value: String| rows.push([name.into(), value]);
    row("user", s.aor.clone());
    if s.peer_id.is_empty() {
        row("role", s.role.clone());
    } else {
        row("peer", format!("{}  {}", s.peer_id, s.role));
        let o = &s.overlay;
        row("overlay", format!("{}, {}; links {}", o.name, o.state, s.link_security));
        row("predecessor", o.predecessor.as_ref().map_or("none".into(), peer_text));
        for (i, peer) in o.successors.iter().enumerate() {
            row(if i == 0 { "successors" } else { "" }, peer_text(peer));
        }
        for (i, peer) in o.fingers.iter().enumerate() {
            row(if i == 0 { "fingers" } else { "" }, peer_text(peer));
        }
        row("records", o.records.to_string());
    }
    let address = |a: Option<std::net::SocketAddr>| a.map_or("none".into(), |a| a.to_string());
    let mut listen = format!("sip {}", address(s.listen.sip));
    if s.listen.overlay.is_some() {
        let _ = write!(listen, ", overlay {}", address(s.listen.overlay));
    }
    if s.listen.advertised.is_some() && s.listen.advertised != s.listen.overlay {
        let _ = write!(listen, ", advertised {}", address(s.listen.advertised));
    }
    row("listen", listen);
    row("voice", s.voice_engine.clone());
    for (i, r) in s.registrations.iter().enumerate() {
        row(if i == 0 { "registered" } else { "" }, format!("{}  {}", r.aor, r.contacts.join(", ")));
    }
    for (i, c) in s.calls.iter().enumerate() {
        row(if i == 0 { "calls" } else { "" }, call_row(c).join("  "));
    }
    for (i, w) in s.warnings.iter().enumerate() {
        row(if i == 0 { "warnings" } else { "" }, format!("{}; {}", w.what, w.next));
    }
    for (i, (name, n)) in s.counters.iter().filter(|(_, n)| **n > 0).enumerate() {
        row(if i == 0 { "refused" } else { "" }, format!("{name} {n}"));
    }
    table(rows)
}

fn lookup(r: &LookupReport) -> String {
    let mut text = format!("{}: {}, {:.1} ms ({})", r.aor, count(r.hops as usize, "hop"), r.ms, r.mode);
    for contact in &r.contacts {
        let _ = write!(text, "\n  contact  {contact}");
    }
    for peer in &r.peers_asked {
        let _ = write!(text, "\n  asked    {peer}");
    }
    if r.claims > 1 {
        let _ = write!(text, "\n  {} different keys claim this name", r.claims);
    }
    text
}

fn list_calls(calls: &[CallStatus], ended: &[CallReport]) -> String {
    let mut text = match calls {
        [] => "no call is under way\n".into(),
        _ => table(calls.iter().map(call_row)),
    };
    for report in ended {
        let _ = writeln!(text, "ended: {}", call_line(report));
    }
    text
}

fn call_row(c: &CallStatus) -> [String; 5] {
    let talk = if c.state == "answered" { format!("{:.0} s", c.talk_s) } else { String::new() };
    [c.call.to_string(), c.direction.clone(), c.with.clone(), c.state.clone(), format!("{} {talk}", c.codec)]
}

fn peer_row(p: &PeerStatus) -> [String; 4] {
    let rtt = p.rtt_ms.map_or(String::new(), |ms| format!("{ms:.1} ms"));
    [p.peer_id.clone(), p.address.clone(), p.links.join(","), rtt]
}

fn phone_row(p: &PhoneStatus) -> [String; 3] {
    let contacts = if p.contacts.is_empty() { "not registered".into() } else { p.contacts.join(", ") };
    [p.user.clone(), p.label.clone(), contacts]
}

fn peer_text(p: &PeerStatus) -> String {
    format!("{}  {}", p.peer_id, p.address)
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => count(seconds as usize, "second"),
        120..7200 => count(seconds as usize / 60, "minute"),
        _ => count(seconds as usize / 3600, "hour"),
    }
}

/// Rows in columns, two spaces between them, none at a line's end.
pub fn table<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.into_iter().collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let rows = [["a".to_owned(), "1".to_owned()], ["long".into(), String::new()]];
        assert_eq!(table(rows), "a     1\nlong\n");
    }

    #[test]
    fn a_completed_call_says_how_it_went() {
        let report = CallReport {
            result: "completed".into(),
            direction: "out".into(),
            with: "sip:bob@demo".into(),
            setup_ms: 34.4,
            talk_s: 5.02,
            codec: "opus".into(),
            sent: 250,
            received: 249,
            lost: 1,
            path: "direct".into(),
            security: "none".into(),
            hops: 1,
            ..Default::default()
        };
        let text = call_line(&report);
        assert_eq!(
            text,
            "completed to sip:bob@demo, talked 5.0 s, set up in 34 ms (1 hop)\n  \
             opus: sent 250, received 249, lost 1, jitter 0.0 ms; path direct, security none"
        );
        let missed = CallReport { result: "busy".into(), status: 486, reason: "Busy Here".into(), ..report };
        assert_eq!(call_line(&missed), "busy to sip:bob@demo, 486 Busy Here");
    }

    #[test]
    fn a_peers_status_names_its_ring() {
        let mut s = Status { peer_id: "ab".repeat(20), aor: "sip:a@x".into(), ..Default::default() };
        s.overlay.successors = vec![PeerStatus { peer_id: "cd".repeat(20), ..Default::default() }; 2];
        s.counters.insert("bad-signature".into(), 0);
        let text = status(&s);
        assert!(text.starts_with("user         sip:a@x\n"), "{text}");
        assert_eq!(text.matches(&"cd".repeat(20)).count(), 2);
        assert_eq!(text.matches("successors").count(), 1);
        assert!(!text.contains("bad-signature"));
        let phone = status(&Status { role: "phone".into(), ..Default::default() });
        assert!(!phone.contains("overlay") && phone.contains("role    phone"), "{phone}");
    }
}
