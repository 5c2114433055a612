//! What the demo found, as text and as JSON.

use super::ring::{Place, draw};
use super::show::Check;
use crate::app::cli::table;
use crate::node::control::{CallReport, LookupReport};
use serde::Serialize;
use std::fmt::Write as _;

/// Everything that was seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// All of it happened.
    pub ok: bool,
    /// Seconds from the first process to the last.
    pub seconds: f64,
    /// The overlay's name.
    pub overlay: String,
    /// Clockwise by peer-ID.
    pub peers: Vec<Peer>,
    /// The name that was looked up and called.
    pub callee: String,
    /// Its key on the ring: SHA-1 of its address of record.
    pub key: String,
    /// The peer responsible for that key, which was killed.
    pub holder: String,
    /// Milliseconds until the survivors had closed the ring again, where they did while somebody looked.
    pub healed_ms: Option<f64>,
    /// One from each peer.
    pub lookups: Vec<Lookup>,
    /// In the order they were placed.
    pub calls: Vec<Call>,
    /// In the order they were made.
    pub checks: Vec<Check>,
}

/// One peer of the ring.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Peer {
    /// Its user.
    pub name: String,
    /// 40 hexadecimal digits.
    pub peer_id: String,
    /// Overlay address.
    pub address: String,
    /// Records held when the ring had closed and all were registered.
    pub records: usize,
    /// Killed.
    pub dead: bool,
}

/// A lookup.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lookup {
    /// The peer that asked.
    pub from: String,
    /// What it found.
    #[serde(flatten)]
    pub report: LookupReport,
}

/// A call, seen from both ends.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Call {
    /// Who called.
    pub from: String,
    /// Whom.
    pub to: String,
    /// The caller's report.
    pub caller: CallReport,
    /// The callee's.
    pub callee: CallReport,
    /// What of the caller's speech the callee heard.
    pub there: Hearing,
    /// What of the callee's speech the caller heard.
    pub back: Hearing,
}

/// What of one end's speech stands in the other end's recording.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Hearing {
    /// Share of the speech, 0 to 1.
    pub share: f64,
    /// From the source of one end to the sink of the other, milliseconds; `None` where nothing was heard.
    pub delay_ms: Option<f64>,
}

impl Report {
    /// As text for a terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "\nThe ring, clockwise by peer-ID\n\n{}", self.ring());
        let _ = writeln!(text, "Lookups of {}\n{}", self.callee, self.lookup_table());
        let _ = writeln!(text, "Calls, one line for each direction of the voice\n{}", self.call_table());
        let failed: Vec<&Check> = self.checks.iter().filter(|c| !c.ok).collect();
        for check in &failed {
            let _ = writeln!(text, "✗ {}: {}", check.name, check.detail);
        }
        if failed.is_empty() {
            let _ = writeln!(text, "All {} checks hold, in {:.1} s.", self.checks.len(), self.seconds);
        }
        text
    }

    fn ring(&self) -> String {
        let short = |id: &str| id.get(..8).unwrap_or(id).to_owned();
        let places = self.peers.iter().map(|p| Place {
            label: format!("{} {}{}", p.name, short(&p.peer_id), if p.dead { " killed" } else { "" }),
            dead: p.dead,
        });
        let mut middle = vec![
            format!("{} peers", self.peers.len()),
            String::new(),
            format!("sip:{}@{}", self.callee, self.overlay),
            format!("key {}", short(&self.key)),
            format!("held by {}", self.holder),
        ];
        if let Some(ms) = self.healed_ms {
            middle.extend([String::new(), "closed again".into(), format!("in {ms:.0} ms")]);
        }
        draw(&places.collect::<Vec<_>>(), &middle)
    }

    fn lookup_table(&self) -> String {
        let mut rows = vec![["  from", "hops", "ms", "mode", "asked"].map(str::to_owned)];
        for l in &self.lookups {
            rows.push([
                format!("  {}", l.from),
                l.report.hops.to_string(),
                format!("{:.1}", l.report.ms),
                l.report.mode.clone(),
                l.report.peers_asked.iter().map(|p| self.name_of(p)).collect::<Vec<_>>().join(" > "),
            ]);
        }
        table(rows)
    }

    /// A peer asked is given as peer-ID and address; a name says more.
    fn name_of<'a>(&'a self, asked: &'a str) -> &'a str {
        let peer = self.peers.iter().find(|p| !p.peer_id.is_empty() && asked.contains(&p.peer_id));
        peer.map_or(asked, |p| p.name.as_str())
    }

    fn call_table(&self) -> String {
        let head =
            ["  voice", "codec", "sent", "received", "lost", "jitter", "delay", "heard", "set-up", "voice secured"];
        let mut rows = vec![head.map(str::to_owned)];
        for call in &self.calls {
            let set_up = format!("{:.0} ms", call.caller.setup_ms);
            let security = call.caller.security.clone();
            rows.push(direction(&call.from, &call.to, &call.caller, &call.callee, &call.there, [set_up, security]));
            rows.push(direction(&call.to, &call.from, &call.callee, &call.caller, &call.back, Default::default()));
        }
        table(rows)
    }
}

/// One direction of a call: sent by one end; received, lost and jitter as the other end counted.
fn direction(
    from: &str,
    to: &str,
    sender: &CallReport,
    receiver: &CallReport,
    hearing: &Hearing,
    [set_up, security]: [String; 2],
) -> [String; 10] {
    [
        format!("  {from} > {to}"),
        sender.codec.clone(),
        sender.sent.to_string(),
        receiver.received.to_string(),
        receiver.lost.to_string(),
        format!("{:.1} ms", receiver.jitter_ms),
        hearing.delay_ms.map_or("-".into(), |ms| format!("{ms:.0} ms")),
        format!("{:.0} %", hearing.share * 100.0),
        set_up,
        security,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let peer = |name: &str, first: char, dead| Peer {
            name: name.into(),
            peer_id: first.to_string().repeat(40),
            dead,
            ..Default::default()
        };
        let caller =
            CallReport { codec: "opus".into(), sent: 250, received: 248, setup_ms: 21.0, ..Default::default() };
        let callee = CallReport { codec: "opus".into(), sent: 249, received: 250, lost: 3, ..Default::default() };
        let lookup = LookupReport { hops: 1, peers_asked: vec!["c".repeat(40)], ..Default::default() };
        Report {
            overlay: "demo".into(),
            peers: vec![peer("alice", 'a', false), peer("bob", 'b', false), peer("carol", 'c', true)],
            callee: "bob".into(),
            key: "bf".repeat(20),
            holder: "carol".into(),
            lookups: vec![Lookup { from: "alice".into(), report: lookup }],
            calls: vec![Call {
                from: "alice".into(),
                to: "bob".into(),
                caller,
                callee,
                there: Hearing { share: 0.995, delay_ms: Some(61.2) },
                back: Hearing::default(),
            }],
            ..Default::default()
        }
    }

    #[test]
    fn the_text_says_what_happened() {
        let text = report().text();
        assert!(text.contains("carol cccccccc killed ✗"), "{text}");
        assert!(text.contains("sip:bob@demo") && text.contains("held by carol"), "{text}");
        let row = |start: &str| {
            let line = text.lines().find(|l| l.trim_start().starts_with(start)).unwrap_or_else(|| panic!("{text}"));
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row("alice > bob"), "alice > bob opus 250 250 3 0.0 ms 61 ms 100 % 21 ms");
        assert_eq!(row("bob > alice"), "bob > alice opus 249 248 0 0.0 ms - 0 %");
        assert_eq!(row("alice  "), "alice 1 0.0 carol");
        assert!(text.contains("All 0 checks hold"));
    }

    #[test]
    fn a_failed_check_is_the_last_word() {
        let check = Check { name: "bob was heard".into(), ok: false, detail: "12 %".into(), seconds: 1.0 };
        let text = Report { checks: vec![check], ..report() }.text();
        assert!(text.ends_with("✗ bob was heard: 12 %\n") && !text.contains("hold,"), "{text}");
    }
}
