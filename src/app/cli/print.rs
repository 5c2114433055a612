//! Answers for a person: aligned, short, the most important first.

use crate::core::UnixTime;
use crate::node::control::{
    AccountStatus, CallReport, CallStatus, ContactStatus, DeviceStatus, LookupReport, MessageEntry, MessageState,
    OfficeDevice, OfficeReport, PathStatus, PeerStatus, PhoneStatus, RelayOffer, Renamed, Reply, Status,
    StrangersReport,
};
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
        Reply::Relays { relays } if relays.is_empty() => {
            "no relay is known; supernodes are asked, unless their owners switched it off".into()
        }
        Reply::Relays { relays } => table(relays.iter().map(relay_row)),
        Reply::Lookup(report) => lookup(report),
        Reply::Call(report) => call_line(report),
        Reply::Calls { calls, ended } => list_calls(calls, ended),
        Reply::Phones { phones } if phones.is_empty() => "no accounts; make one with chordial phone add USER".into(),
        Reply::Phones { phones } => table(phones.iter().map(phone_row)),
        Reply::Invite { code, expires } => {
            format!("{code}\nworks once, for {}; on the other device: chordial join CODE", span(*expires))
        }
        Reply::Merge(report) => {
            format!(
                "this office continues as {}: {}{}\nits devices go over by themselves, those that are off within 90 days",
                report.continues_as,
                count(report.merged_users, "user"),
                renamed(&report.renamed)
            )
        }
        Reply::Devices { devices } => table(devices.iter().map(device_row)),
        Reply::Office(report) => office(report),
        Reply::Sent { sent } => match sent.state {
            MessageState::Delivered => format!("delivered to {}", sent.to),
            _ => format!("waits for {}; it is kept for seven days", sent.to),
        },
        Reply::Messages { messages } if messages.is_empty() => "no messages".into(),
        Reply::Messages { messages } => messages.iter().map(|m| message_line(m) + "\n").collect(),
        Reply::Pairing { digits, expires } => {
            format!(
                "{digits}\nworks once, for {}; on the other machine, on this network: chordial join",
                span(*expires)
            )
        }
        Reply::Contacts { contacts } if contacts.is_empty() => {
            "no contacts; make one with chordial contacts add NAME TARGET".into()
        }
        Reply::Contacts { contacts } => table(contacts.iter().map(|c| [c.name.clone(), c.target.clone()])),
        Reply::Password { holders, needed } => {
            let spare = match holders - needed.min(holders) {
                0 => "all of them have to run".into(),
                n => format!("any {needed} open it, {} may be gone", n),
            };
            format!("password set; {} hold a share of your key, {spare}", count(*holders as usize, "supernode"))
        }
        Reply::ContactLink { link, .. } => link.clone(),
        Reply::Accounts { accounts } if accounts.is_empty() => {
            "no accounts; write a table [[account]] into the configuration".into()
        }
        Reply::Accounts { accounts } => accounts.iter().map(account_lines).collect::<String>().trim_end().into(),
        Reply::Strangers(report) => strangers(report),
        Reply::Done { done } => done.clone(),
    }
}

/// One line, and one more where something is wrong.
fn account_lines(a: &AccountStatus) -> String {
    let state = match a.state.as_str() {
        "registered" => format!("registered for {} by {}", span(a.expires), a.server),
        other => other.to_owned(),
    };
    let kept = if a.outbound { ", flow kept" } else { "" };
    let mut line = format!("{}  {}  {state}{kept}\n", a.name, a.aor);
    if !a.error.is_empty() {
        let _ = writeln!(line, "  {}; {}; again in {}", a.error, a.next, span(a.again));
    }
    line
}

fn device_row(d: &DeviceStatus) -> [String; 4] {
    let seen = d.last_seen.map_or("not registered".into(), |at| format!("last seen {}", date(at)));
    let state = match (d.revoked, d.this) {
        (true, _) => "revoked",
        (false, true) => "this device",
        (false, false) => "",
    };
    [d.key.clone(), d.label.clone(), seen, state.into()]
}

fn office(o: &OfficeReport) -> String {
    let mut rows: Vec<[String; 4]> = Vec::new();
    let word = |revoked: bool| if revoked { "revoked" } else { "" }.to_owned();
    for user in &o.users {
        let names = [vec![user.user.clone()], user.extensions.clone()].concat().join(", ");
        rows.push([names, user.key.clone(), String::new(), word(user.revoked)]);
        rows.extend(user.devices.iter().map(|d| office_device(d, "  device")));
    }
    rows.extend(o.other_devices.iter().map(|d| office_device(d, "device")));
    rows.extend(
        o.delegations.iter().map(|(phone, by)| [format!("phone {phone}"), by.clone(), String::new(), String::new()]),
    );
    for invite in &o.invites {
        rows.push([
            format!("invited {}", invite.user),
            format!("for {}", span(invite.expires)),
            String::new(),
            String::new(),
        ]);
    }
    let mut text = table(rows);
    for name in &o.conflicts {
        let _ = writeln!(text, "two keys hold the name {name}: revoke one of them by its key");
    }
    let _ = writeln!(text, "{} administer the office {}", count(o.administrators.len(), "device"), o.office);
    text
}

fn office_device(d: &OfficeDevice, what: &str) -> [String; 4] {
    let state = match (d.revoked, d.may_adapt) {
        (true, _) => "revoked",
        (false, true) => "may take phones",
        (false, false) => "",
    };
    [what.into(), d.key.clone(), d.label.clone(), state.into()]
}

/// Days since 1970 to year, month and day, by the proleptic Gregorian calendar; UTC.
fn date(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let of_era = z % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year_of_era + era * 400 + next;
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60)
}

fn strangers(r: &StrangersReport) -> String {
    let mut text = match r.may_ring.as_str() {
        "anyone" => "anyone from outside may ring\n".to_owned(),
        "nobody" => "nobody from outside may ring\n".to_owned(),
        "known" => "contacts and who was met before may ring\n".to_owned(),
        _ => "contacts may ring\n".to_owned(),
    };
    let row = |what: &str, c: &ContactStatus| {
        let by =
            if c.introduced_by.is_empty() { String::new() } else { format!(", introduced by {}", c.introduced_by) };
        [what.to_owned(), c.name.clone(), c.aor.clone(), format!("key {}", c.key), format!("of {}{by}", c.overlay_key)]
    };
    let mut rows: Vec<[String; 5]> = r.contacts.iter().map(|c| row("contact", c)).collect();
    rows.extend(r.known.iter().map(|c| row("known", c)));
    rows.extend(r.introduced.iter().map(|c| row("introduced", c)));
    rows.extend(r.knocks.iter().map(|k| {
        let what = if k.changed { "CHANGED KEY" } else { "knocked" };
        let times = if k.times > 1 { format!("{} times", k.times) } else { String::new() };
        [what.to_owned(), times, k.aor.clone(), format!("key {}", k.key), format!("of {}", k.overlay_key)]
    }));
    rows.extend(r.blocked.iter().map(|b| ["blocked".into(), String::new(), b.clone(), String::new(), String::new()]));
    text.push_str(&table(rows));
    if !r.introduced.is_empty() {
        text.push_str("chordial contacts accept KEY takes up who was introduced\n");
    }
    if !r.knocks.is_empty() {
        text.push_str("chordial contacts accept ADDRESS takes up who knocked; chordial block ADDRESS ends it\n");
    }
    text
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

/// A message in a line; a text of several lines follows indented.
pub fn message_line(m: &MessageEntry) -> String {
    let (arrow, other) = if m.direction == "in" { ("from", &m.from) } else { ("to", &m.to) };
    let state = match m.state {
        MessageState::Unread => "unread",
        MessageState::Read => "read",
        MessageState::Sent => "sent",
        MessageState::Waits => "waits",
        MessageState::Delivered => "delivered",
        MessageState::Failed => "failed",
        MessageState::Expired => "expired",
    };
    let how = match (m.direction.as_str(), m.sealed, m.verified.is_empty()) {
        ("in", true, false) => format!("sealed, signed by {}", m.verified),
        ("in", ..) => "in clear, sender not proven".into(),
        (_, true, _) => "sealed".into(),
        _ => "in clear".into(),
    };
    // What others write does not steer the terminal.
    let plain = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
    let text: String = m.text.replace("\r\n", "\n").chars().map(plain).collect();
    let text = text.trim_end().replace('\n', "\n    ");
    let gap = if text.contains('\n') { "\n    " } else { " " };
    let why = if m.reason.is_empty() { String::new() } else { format!(", {} {}", m.status, m.reason) };
    format!("message {} {arrow} {other} ({state}{why}; {}; {how}):{gap}{text}", m.number, when(m.sent))
}

/// A second since 1970 as `2027-01-15 08:00 UTC`.
fn when(secs: u64) -> String {
    let (year, month, day) = UnixTime(secs).civil();
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", secs / 3600 % 24, secs / 60 % 60)
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
        if let Some(tier) = &s.tier {
            row("because", tier.why.clone());
            for (name, peer) in [("primary", &tier.primary), ("backup", &tier.backup)] {
                if let Some(peer) = peer {
                    let rtt = peer.rtt_ms.map_or(String::new(), |ms| format!("  {ms:.1} ms"));
                    row(name, format!("{}{rtt}", peer_text(peer)));
                }
            }
            for (i, a) in tier.attached.iter().enumerate() {
                let name =
                    if i == 0 { format!("attached {}/{}", tier.attached.len(), tier.capacity) } else { String::new() };
                row(&name, format!("{}  {}  as its {}", a.peer_id, a.address, a.rank));
            }
        }
        row("predecessor", o.predecessor.as_ref().map_or("none".into(), peer_text));
        for (i, peer) in o.successors.iter().enumerate() {
            row(if i == 0 { "successors" } else { "" }, peer_text(peer));
        }
        for (i, peer) in o.fingers.iter().enumerate() {
            row(if i == 0 { "fingers" } else { "" }, peer_text(peer));
        }
        row("records", o.records.to_string());
    }
    if let Some(relay) = &s.relay {
        let at = relay.udp.first().map_or("none".into(), |a| format!("{a} (UDP, TCP, TLS)"));
        let also: String =
            relay.tcp.iter().filter(|t| !relay.udp.contains(t)).map(|t| format!(", {t} (TCP, TLS)")).collect();
        let shut = relay.shut.as_ref().map_or(String::new(), |why| format!("; not at port 443: {why}"));
        let carried = format!(
            "{}; {} packets, {} bytes",
            count(relay.allocations as usize, "allocation"),
            relay.packets,
            relay.bytes
        );
        row("relay", relay.why.clone().map_or(format!("{at}{also}{shut}; {carried}"), |why| format!("none: {why}")));
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
    if !s.reach.says.is_empty() {
        row("reach", s.reach.says.clone());
    }
    if let Some(next) = &s.reach.next {
        row("", next.clone());
    }
    if let Some(nat) = &s.nat {
        let against = nat.against.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        row("nat", format!("{}; as {against} saw it at {}", nat.says, when(nat.when)));
        row("", format!("mapping {}, filtering {}", nat.mapping, nat.filtering));
    }
    if let Some(proxy) = &s.proxy {
        let used = match proxy.tunnels {
            0 => "nothing goes by it now".to_owned(),
            n => format!("{} out by it", count(n as usize, "connection")),
        };
        row("proxy", format!("{} ({}), HTTP: {used}", proxy.proxy, proxy.named));
        if let Some(fault) = &proxy.fault {
            row("", fault.clone());
        }
    }
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
    // In an office there is one, and nothing to say of it.
    for key in r.keys.iter().filter(|k| r.claims > 1 || !k.standing.is_empty()) {
        let by = if key.introduced_by.is_empty() {
            String::new()
        } else {
            format!(", introduced by {}", key.introduced_by.join(", "))
        };
        let call = if r.claims > 1 { format!(": chordial call {}", key.target) } else { String::new() };
        let _ = write!(text, "\n  key      {}, {}{by}{call}", key.name, standing(&key.standing));
    }
    text
}

/// How a key stands, in words.
fn standing(word: &str) -> &str {
    match word {
        "own" => "your own",
        "contact" => "a contact",
        "known" => "met before",
        "new-key" => "never met",
        "changed" => "NOT THE KEY that is known",
        other => other,
    }
}

fn list_calls(calls: &[CallStatus], ended: &[CallReport]) -> String {
    let mut text = match calls {
        [] => "no call is under way\n".into(),
        _ => table(calls.iter().map(call_row)),
    };
    for call in calls.iter().filter(|c| !c.paths.is_empty()) {
        let ways: Vec<_> = call.paths.iter().map(path_words).collect();
        let _ = writeln!(text, "call {} has two ways: {}", call.call, ways.join("; "));
    }
    for report in ended {
        let _ = writeln!(text, "ended: {}", call_line(report));
    }
    text
}

fn path_words(p: &PathStatus) -> String {
    let active = if p.active { "voice goes by it" } else { "ready" };
    let rtt = p.rtt_ms.map_or("not answered yet".into(), |ms| format!("{ms:.0} ms"));
    let loss = if p.loss > 0.0 { format!(", {:.0} % lost", p.loss * 100.0) } else { String::new() };
    format!("{} ({active}, {rtt}{loss})", p.path)
}

/// Who holds whom, in words.
pub fn held(here: bool, there: bool) -> &'static str {
    match (here, there) {
        (false, false) => "nobody is on hold any longer",
        (true, false) => "the other end is on hold",
        (false, true) => "put on hold by the other end",
        (true, true) => "on hold by both ends",
    }
}

fn call_row(c: &CallStatus) -> [String; 5] {
    let talk = if c.talk_s > 0.0 { format!("{:.0} s", c.talk_s) } else { String::new() };
    let by = if c.held_by.is_empty() { String::new() } else { format!(" ({})", c.held_by) };
    let muted = if c.muted { ", muted" } else { "" };
    let state = format!("{}{by}{muted}", c.state);
    [c.call.to_string(), c.direction.clone(), c.with.clone(), state, format!("{} {talk}", c.codec)]
}

fn peer_row(p: &PeerStatus) -> [String; 4] {
    let rtt = p.rtt_ms.map_or(String::new(), |ms| format!("{ms:.1} ms"));
    [p.peer_id.clone(), p.address.clone(), p.links.join(","), rtt]
}

/// Names that are others after a merge, behind a line.
pub fn renamed(renamed: &[Renamed]) -> String {
    let all: Vec<_> = renamed.iter().map(|r| format!("{} is {}", r.was, r.is)).collect();
    if all.is_empty() { String::new() } else { format!("; renamed, since the name was somebody's: {}", all.join(", ")) }
}

fn phone_row(p: &PhoneStatus) -> [String; 4] {
    let contacts = if p.contacts.is_empty() { "not registered".into() } else { p.contacts.join(", ") };
    let also = if p.also.is_empty() { String::new() } else { format!("also at {}", p.also.join(", ")) };
    [p.user.clone(), p.label.clone(), contacts, also]
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

fn relay_row(r: &RelayOffer) -> [String; 5] {
    let hosts: Vec<_> = r.hosts.iter().map(ToString::to_string).collect();
    let streams: Vec<_> = r.streams.iter().map(ToString::to_string).collect();
    let ports = format!("udp {} tcp,tls {}", r.udp, streams.join(","));
    let state = format!("{:.1} ms, {} % taken, for {}", r.rtt_ms, r.load_percent, span(r.seconds));
    [hosts.join(" "), ports, r.username.clone(), r.password.clone(), state]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_827_696), "2000-02-29 12:34 UTC");
        assert_eq!(date(1_800_000_000), "2027-01-15 08:00 UTC");
    }

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
