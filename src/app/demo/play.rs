//! The demo's plot: seven peers form a ring, a standard phone registers, lookups, calls with speech, the
//! peer that holds the callee's registration dies, calls again.

use super::hearing::{SINK, SOURCE, Sound, hearing, second_zero};
use super::report::{Call, Hearing, Lookup, Peer, Report};
use super::ring_state::{Cast, Ring, cast, closed};
use super::show::Show;
use super::stage::{Role, Stage, ask, unexpected};
use crate::app::Failure;
use crate::core::Id;
use crate::io::seed;
use crate::node::control::{CallReport, Command, LookupReport, Reply, Status};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Plays it all. What kept it from going on is the error; what merely was not as it should be is a failed check.
///
/// # Errors
/// A step that the following ones need did not succeed.
pub async fn play(stage: &mut Stage, show: &mut Show) -> Result<Report, Failure> {
    let props = Props::write(stage)?;
    let ring = gather(stage, show, &props).await?;
    let key = |user: &str| Id::sha1(aor(user).as_bytes());
    let parts = cast(&ring, &USERS, REGISTRAR, key).ok_or_else(|| {
        Failure::said(
            "no peer holds the registration of another one's user",
            "run the demo again: keys are new each time",
        )
    })?;
    let mut report = Report { overlay: OVERLAY.into(), callee: parts.callee.clone(), ..Default::default() };
    report.key = key(&parts.callee).to_string();
    report.holder = parts.holder.clone();

    register_phone(stage, show, &props, &parts).await?;
    find_users(stage, show, &parts).await?;
    report.lookups = lookups(stage, show, &parts.callee).await?;
    for (name, status) in statuses(stage, USERS.into_iter()).await? {
        let address = status.listen.overlay.map(|a| a.to_string()).unwrap_or_default();
        let records = status.overlay.records;
        report.peers.push(Peer { name, peer_id: status.peer_id, address, records, dead: false });
    }
    report.peers.sort_by(|a, b| a.peer_id.cmp(&b.peer_id));

    show.step(format!("{} and {} talk; so do the standard phone and {}", parts.caller, parts.callee, parts.other));
    let before = (ended(stage, &parts.callee).await?.len(), ended(stage, &parts.other).await?.len());
    let (first, phone_out) = tokio::join!(
        call(stage, &props, 1, (&parts.caller, &parts.callee), before.0),
        call(stage, &props, 2, (PHONE, &parts.other), before.1),
    );
    let (first, phone_out) = (first?, phone_out?);
    talked(show, &first, "");
    talked(show, &phone_out, "");

    show.step(format!("killing {}, which holds the registration of {}", parts.holder, parts.callee));
    let before = (ended(stage, &parts.callee).await?.len(), ended(stage, PHONE).await?.len());
    stage.kill(&parts.holder);
    let died = Instant::now();
    let killed = format!("{} had held the registration of {}", parts.holder, parts.callee);
    show.check(format!("{} was killed without warning", parts.holder), true, killed);
    report.peers.iter_mut().filter(|p| p.name == parts.holder).for_each(|p| p.dead = true);
    let (again, phone_in, healed) = tokio::join!(
        call(stage, &props, 3, (&parts.caller, &parts.callee), before.0),
        call(stage, &props, 4, (&parts.other, PHONE), before.1),
        healed(stage, &parts.holder, died),
    );
    let (again, phone_in) = (again?, phone_in?);
    talked(show, &again, " at once");
    talked(show, &phone_in, "");
    report.healed_ms = healed.map(|h| h.as_secs_f64() * 1000.0);
    if let Some(healed) = healed {
        show.check("the survivors closed the ring again", true, format!("in {:.0} ms", healed.as_secs_f64() * 1000.0));
    }
    report.calls = vec![first, phone_out, again, phone_in];

    show.step("everybody leaves");
    if let Some(fallen) = stage.fallen() {
        show.check("nobody else fell", false, fallen);
    }
    let late = stage.stop().await;
    let detail = if late.is_empty() { String::new() } else { format!("killed: {}", late.join(", ")) };
    show.check("all left when asked", late.is_empty(), detail);
    let stumbled: Vec<String> = stage.panics();
    show.check("no thread panicked", stumbled.is_empty(), stumbled.join("; "));
    Ok(report)
}

/// The files that the actors need.
struct Props {
    speech: PathBuf,
    sound: Sound,
    config: PathBuf,
    accounts: PathBuf,
    password: PathBuf,
}

impl Props {
    fn write(stage: &Stage) -> Result<Props, Failure> {
        let mut rng = seed::rng().map_err(|source| Failure::System { what: "cannot make a password", source })?;
        let password = rng.token(16);
        let speech = stage.write("speech.wav", SPEECH)?;
        Ok(Props {
            sound: Sound::read(&speech)?,
            speech,
            config: stage.write("demo.toml", CONFIG.as_bytes())?,
            accounts: stage.write("phones.csv", format!("{PHONE},{password}\n").as_bytes())?,
            password: stage.write("deskphone.password", format!("{password}\n").as_bytes())?,
        })
    }

    /// What every actor is started with: a voice and an ear.
    fn flags(&self, stage: &Stage, name: &str) -> Vec<String> {
        let mut flags: Vec<String> = ["--config", &self.config.display().to_string()].map(Into::into).into();
        flags.extend(["--auto-answer", "--log", "info", "--audio-in"].map(Into::into));
        flags.push(format!("wav:{}", self.speech.display()));
        flags.extend(["--audio-out".into(), format!("wav:{}", ear(stage, name).display())]);
        flags
    }
}

/// Where an actor records what it hears when it is called.
fn ear(stage: &Stage, name: &str) -> PathBuf {
    stage.root().join(format!("{name}.heard.wav"))
}

async fn gather(stage: &mut Stage, show: &mut Show, props: &Props) -> Result<Ring, Failure> {
    show.step(format!("starting {} peers", USERS.len()));
    let mut first = None;
    for name in USERS {
        let mut flags = props.flags(stage, name);
        flags.extend(["--open", "--overlay", OVERLAY].map(Into::into));
        if name == REGISTRAR {
            flags.extend(["--phones".into(), props.accounts.display().to_string()]);
        }
        if let Some(addr) = &first {
            flags.extend(["--bootstrap".into(), format!("{addr}")]);
        }
        let status = stage.start(&Role { name: name.into(), flags, peer: true }).await?;
        first = first.or(status.listen.overlay);
    }
    show.step("the peers form a ring");
    let ring = wait_for_ring(stage, RING).await?;
    show.check(format!("{} peers formed one ring", ring.peers.len()), true, "successors and predecessors agree");
    Ok(ring)
}

async fn wait_for_ring(stage: &mut Stage, limit: Duration) -> Result<Ring, Failure> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(fallen) = stage.fallen() {
            return Err(Failure::said(fallen, "see its log"));
        }
        match closed(&statuses(stage, USERS.into_iter()).await?) {
            Ok(ring) => return Ok(ring),
            Err(why) if Instant::now() > deadline => {
                let what = format!("the ring has not closed within {} s: {why}", limit.as_secs());
                return Err(Failure::said(what, "see the logs"));
            }
            Err(_) => sleep(POLL).await,
        }
    }
}

/// How long after the death of `dead` the others had closed the ring without it.
async fn healed(stage: &Stage, dead: &str, died: Instant) -> Option<Duration> {
    while died.elapsed() < HEALED {
        let all = statuses(stage, USERS.into_iter().filter(|u| *u != dead)).await.ok()?;
        if closed(&all).is_ok() {
            return Some(died.elapsed());
        }
        sleep(POLL).await;
    }
    None
}

async fn statuses<'a>(stage: &Stage, users: impl Iterator<Item = &'a str>) -> Result<Vec<(String, Status)>, Failure> {
    let mut all = Vec::new();
    for name in users {
        all.push((name.to_owned(), stage.status(name).await?));
    }
    Ok(all)
}

/// Starts the standard phone and waits until its registrar shows it.
async fn register_phone(stage: &mut Stage, show: &mut Show, props: &Props, parts: &Cast) -> Result<(), Failure> {
    show.step(format!("a standard phone registers with {}", parts.registrar));
    let registrar = stage.status(&parts.registrar).await?.listen.sip;
    let registrar = registrar.ok_or_else(|| Failure::said("the registrar has no SIP port", "see its log"))?;
    let mut flags = props.flags(stage, PHONE);
    flags.extend(["--registrar".into(), registrar.to_string()]);
    flags.extend(["--password-file".into(), props.password.display().to_string()]);
    stage.start(&Role { name: PHONE.into(), flags, peer: false }).await?;
    let aor = aor(PHONE);
    let deadline = Instant::now() + REGISTERED;
    loop {
        let status = stage.status(&parts.registrar).await?;
        let contacts = status.registrations.iter().find(|r| r.aor == aor).map(|r| r.contacts.join(", "));
        if let Some(contacts) = contacts.filter(|c| !c.is_empty()) {
            show.check(format!("a standard phone registered with {}", parts.registrar), true, contacts);
            return Ok(());
        }
        if let Some(fallen) = stage.fallen() {
            return Err(Failure::said(fallen, "see its log"));
        }
        if Instant::now() > deadline {
            let what = format!("{aor} is not registered after {} s", REGISTERED.as_secs());
            return Err(Failure::said(what, "see the logs of the phone and of its registrar"));
        }
        sleep(POLL).await;
    }
}

/// Waits until everybody can be found.
async fn find_users(stage: &Stage, show: &mut Show, parts: &Cast) -> Result<(), Failure> {
    show.step("everybody registers");
    let deadline = Instant::now() + REGISTERED;
    for user in USERS.into_iter().chain([PHONE]) {
        while !lookup(stage, &parts.caller, user).await?.found {
            if Instant::now() > deadline {
                let what = format!("{} cannot be found by {}", aor(user), parts.caller);
                return Err(Failure::said(what, "see its log"));
            }
            sleep(POLL).await;
        }
    }
    show.check("all users are found", true, format!("{} and {PHONE}", USERS.join(", ")));
    Ok(())
}

/// Everybody looks `user` up.
async fn lookups(stage: &Stage, show: &mut Show, user: &str) -> Result<Vec<Lookup>, Failure> {
    show.step(format!("everybody looks {user} up"));
    let mut all = Vec::new();
    for from in USERS {
        all.push(Lookup { from: from.into(), report: lookup(stage, from, user).await? });
    }
    let found = all.iter().filter(|l| l.report.found).count();
    show.check(format!("{user} is found from every peer"), found == all.len(), format!("{found} of {}", all.len()));
    let hops = all.iter().map(|l| l.report.hops).max().unwrap_or(0);
    let far = all.iter().filter(|l| l.report.found && l.report.hops >= 1).count();
    let detail = format!("{far} of {} took one or more, {hops} at most", all.len());
    show.check("a lookup takes at least one hop", far > 0, detail);
    Ok(all)
}

async fn lookup(stage: &Stage, from: &str, target: &str) -> Result<LookupReport, Failure> {
    match stage.ask(from, &Command::Lookup { target: aor(target), iterative: false }).await? {
        Reply::Lookup(report) => Ok(report),
        other => Err(unexpected(from, &other)),
    }
}

/// The ended calls of an actor, latest first.
async fn ended(stage: &Stage, name: &str) -> Result<Vec<CallReport>, Failure> {
    match stage.ask(name, &Command::Calls).await? {
        Reply::Calls { ended, .. } => Ok(ended),
        other => Err(unexpected(name, &other)),
    }
}

/// One call from the first to the second of `ends`, with the speech played by both; `before` calls had ended at the
/// second one. Returns when both ends have closed their recordings.
async fn call(stage: &Stage, props: &Props, n: u32, ends: (&str, &str), before: usize) -> Result<Call, Failure> {
    let (from, to) = ends;
    let heard = stage.root().join(format!("call{n}-{from}.wav"));
    let command = Command::Call {
        target: aor(to),
        play: Some(format!("wav:{}", props.speech.display())),
        record: Some(format!("wav:{}", heard.display())),
        duration: Some(props.sound.seconds() + TAIL),
        account: None,
    };
    let limit = CALL + Duration::from_secs_f64(props.sound.seconds());
    let caller = match ask(&stage.data(from), &command, from, limit).await? {
        Reply::Call(report) => report,
        other => return Err(unexpected(from, &other)),
    };
    if caller.result != "completed" {
        let what = format!("{from} called {to}: {} ({} {})", caller.result, caller.status, caller.reason);
        return Err(Failure::said(what, "see the logs of both"));
    }
    let deadline = Instant::now() + HUNG_UP;
    let callee = loop {
        let reports = ended(stage, to).await?;
        if reports.len() > before && !reports.is_empty() {
            break reports[0].clone();
        }
        if Instant::now() > deadline {
            return Err(Failure::said(format!("{to} does not know that the call is over"), "see its log"));
        }
        sleep(POLL).await;
    };
    // The next call to this end replaces its recording.
    let other = stage.root().join(format!("call{n}-{to}.wav"));
    let copied = fs::copy(ear(stage, to), &other);
    copied.map_err(|source| Failure::File { action: "copy", path: ear(stage, to), source })?;
    let moment = |name: &str, what| {
        let log = fs::read(stage.log(name)).unwrap_or_default();
        second_zero(&String::from_utf8_lossy(&log), what)
    };
    let listen = |speaker: &str, listener: &str, recording: &PathBuf| -> Result<Hearing, Failure> {
        let recording = Sound::read(recording)?;
        Ok(hearing(&props.sound, moment(speaker, SOURCE), &recording, moment(listener, SINK)))
    };
    let (there, back) = (listen(from, to, &other)?, listen(to, from, &heard)?);
    Ok(Call { from: from.into(), to: to.into(), caller, callee, there, back })
}

/// A call as a check: it was, packets went both ways, and both were heard.
fn talked(show: &mut Show, call: &Call, how: &str) {
    let (there, back) = (call.there.share, call.back.share);
    let both = [&call.caller, &call.callee];
    let ok = there >= HEARD && back >= HEARD && both.iter().all(|r| r.sent > 0 && r.received > 0);
    let (sent, lost) = (call.caller.sent + call.callee.sent, call.caller.lost + call.callee.lost);
    let detail = format!(
        "set up in {:.0} ms, {}, {:.0} % and {:.0} % of the speech, {lost} of {sent} packets lost",
        call.caller.setup_ms,
        call.caller.codec,
        there * 100.0,
        back * 100.0,
    );
    show.check(format!("{} called {}{how}, both were heard", call.from, call.to), ok, detail);
}

fn aor(user: &str) -> String {
    format!("sip:{user}@{OVERLAY}")
}

const OVERLAY: &str = "demo";
const USERS: [&str; 7] = ["alice", "bob", "carol", "dave", "erin", "frank", "grace"];
/// The peer that serves the standard phone.
const REGISTRAR: &str = "grace";
const PHONE: &str = "deskphone";
const SPEECH: &[u8] = include_bytes!("../../../config/speech.wav");
/// What has no flag: links are tended more often, so that the ring closes while somebody watches.
const CONFIG: &str = "[overlay]\nstabilize_ms = 250\n\n[phone]\ndomain = \"demo\"\n";
/// Share of the speech that has to be heard.
const HEARD: f64 = 0.9;
/// Seconds that a call goes on after the speech.
const TAIL: f64 = 0.6;
const POLL: Duration = Duration::from_millis(100);
const RING: Duration = Duration::from_secs(15);
const HEALED: Duration = Duration::from_secs(8);
const REGISTERED: Duration = Duration::from_secs(10);
/// Set-up and end of a call, beside the speech.
const CALL: Duration = Duration::from_secs(15);
const HUNG_UP: Duration = Duration::from_secs(3);
