//! An open overlay, where any key may claim a name: whom a call reaches, who is shown to call, whose word counts.

use crate::forks::second_device;
use crate::messages::{seconds, send, shown};
use crate::world::{START, World};
use chordial::identity::{
    ContactLink, Identity, Introduction, KeyFingerprint, Known, Letter, LetterId, Root, SignedIntroduction,
    SignedLetter,
};
use chordial::node::Saved;
use chordial::node::control::{
    CallReport, Command, CommandError, Event, LookupReport, MessageEntry, MessageState, Reply, RingRight,
    StrangersReport,
};
use std::time::Duration;

/// The short fingerprint of a host's user.
fn key(world: &World, host: usize) -> String {
    world.hosts[host].verified.as_ref().unwrap().user_key.to_string()
}

/// Who has rung at a host: key and standing of each.
fn callers(world: &World, host: usize) -> Vec<(String, String)> {
    let rung = world.hosts[host].events.iter().filter_map(|(_, e)| match e {
        Event::Incoming { key, standing, .. } => Some((key.clone(), standing.clone())),
        _ => None,
    });
    rung.collect()
}

/// A call that is not answered: what its caller is told.
fn refused(world: &mut World, from: usize, target: &str) -> CallReport {
    let request = world.call(from, target);
    world.report(from, request, seconds(20)).0
}

/// Calls, is answered, talks, hangs up.
fn talk(world: &mut World, from: usize, target: &str, to: usize) {
    let (rung, voices) = (callers(world, to).len(), world.hosts[from].plans().len());
    let request = world.call(from, target);
    world.until(seconds(20), "the incoming call", |w| callers(w, to).len() > rung);
    world.answer(to);
    world.until_voice(from, voices + 1);
    world.run(seconds(1));
    world.hang_up(from);
    let (report, _) = world.report(from, request, seconds(8));
    assert_eq!(report.result, "completed", "{report:?}");
    world.run(seconds(2));
}

/// Rings `to` and nobody of `others`; then hangs up.
fn rings(world: &mut World, from: usize, target: &str, to: usize, others: &[usize]) {
    let before: Vec<_> = others.iter().map(|host| callers(world, *host).len()).collect();
    let rung = callers(world, to).len();
    let request = world.call(from, target);
    world.until(seconds(20), "the incoming call", |w| callers(w, to).len() > rung);
    world.run(seconds(2));
    world.hang_up(from);
    world.report(from, request, seconds(8));
    let after: Vec<_> = others.iter().map(|host| callers(world, *host).len()).collect();
    assert_eq!(after, before, "somebody else rang");
    world.run(seconds(1));
}

fn lookup(world: &mut World, host: usize, target: &str) -> LookupReport {
    let request = world.command(host, Command::Lookup { target: target.into(), iterative: true });
    world.until(seconds(20), "the lookup", |w| w.hosts[host].replies.contains_key(&request));
    match world.hosts[host].replies.remove(&request) {
        Some(Ok(Reply::Lookup(report))) => report,
        other => panic!("{other:?}"),
    }
}

/// Key and standing of each who claims a name.
fn standings(world: &mut World, host: usize, target: &str) -> Vec<(String, String)> {
    let mut rows: Vec<_> = lookup(world, host, target).keys.into_iter().map(|k| (k.key, k.standing)).collect();
    rows.sort();
    rows
}

fn rows(pairs: [(String, &str); 2]) -> Vec<(String, String)> {
    let mut rows: Vec<_> = pairs.into_iter().map(|(key, word)| (key, word.to_owned())).collect();
    rows.sort();
    rows
}

fn strangers(world: &mut World, host: usize) -> StrangersReport {
    match world.ask(host, Command::Strangers) {
        Ok(Reply::Strangers(report)) => report,
        other => panic!("{other:?}"),
    }
}

fn link(world: &mut World, host: usize, ring: RingRight) -> String {
    match world.ask(host, Command::ContactLink { ring }) {
        Ok(Reply::ContactLink { link, .. }) => link,
        other => panic!("{other:?}"),
    }
}

fn accept(world: &mut World, host: usize, who: &str) -> Result<Reply, CommandError> {
    world.ask(host, Command::ContactAccept { who: who.into(), name: None })
}

/// `to` becomes a contact of `from`, by link.
pub fn know(world: &mut World, from: usize, to: usize) {
    let link = link(world, to, RingRight::Ask);
    accept(world, from, &link).unwrap();
}

fn introduce(
    world: &mut World,
    host: usize,
    who: &str,
    to: &str,
    withdraw: bool,
) -> Result<MessageEntry, CommandError> {
    let request = world.command(host, Command::Introduce { who: who.into(), to: to.into(), withdraw });
    world.until(seconds(60), "the message's answer", |w| w.hosts[host].replies.contains_key(&request));
    match world.hosts[host].replies.remove(&request) {
        Some(Ok(Reply::Sent { sent })) => Ok(*sent),
        Some(Err(e)) => Err(e),
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_two_who_claim_a_name_the_one_met_before_is_called() {
    // 0 bob, 1 carol, 2 anna; 3 another anna, who comes later.
    let mut world = World::ring(1, &["bob", "carol", "anna"]);
    talk(&mut world, 0, "anna", 2);
    world.peer("anna", |_| {});
    world.run(seconds(20));
    let (first, second) = (key(&world, 2), key(&world, 3));
    assert_eq!(standings(&mut world, 0, "anna"), rows([(first.clone(), "known"), (second.clone(), "changed")]));
    assert_eq!(standings(&mut world, 1, "anna"), rows([(first.clone(), "new-key"), (second.clone(), "new-key")]));
    assert_eq!(lookup(&mut world, 1, "anna").keys.iter().filter(|k| k.name == format!("anna ({first})")).count(), 1);

    rings(&mut world, 0, "anna", 2, &[3]);
    send(&mut world, 0, "anna", "only you").unwrap();
    assert!(shown(&world, 3).is_empty());
    // Who has met neither is asked, and told how to say which.
    let report = refused(&mut world, 1, "anna");
    assert_eq!((report.result.as_str(), report.status), ("failed", 300));
    for key in [&first, &second] {
        assert!(report.reason.contains(&format!("anna~{key}")), "{}", report.reason);
    }
    assert!(send(&mut world, 1, "anna", "who?").unwrap_err().what.contains("300"));
    rings(&mut world, 1, &format!("anna~{}", second.replace('-', "")), 3, &[2]);
    // What was only rung is not met; what was answered is.
    assert_eq!(refused(&mut world, 1, "anna").status, 300);
    talk(&mut world, 1, &format!("anna~{second}"), 3);
    rings(&mut world, 1, "anna", 3, &[2]);
    rings(&mut world, 0, &format!("anna~{second}"), 3, &[2]);
    rings(&mut world, 0, "anna", 2, &[3]);
}

#[test]
fn another_key_in_the_place_of_a_known_one_is_told_and_not_called() {
    let mut world = World::ring(2, &["bob", "anna", "carol"]);
    talk(&mut world, 0, "anna", 1);
    world.ask(1, Command::Stop).unwrap();
    world.run(seconds(20));
    world.kill(1);
    let imposter = world.peer("anna", |_| {});
    world.run(seconds(20));
    let (known, new) = (key(&world, 1), key(&world, imposter));
    let report = refused(&mut world, 0, "anna");
    assert_eq!(report.status, 300, "{report:?}");
    assert!(report.reason.contains("ANOTHER KEY") && report.reason.contains(&format!("anna~{new}")), "{report:?}");
    assert!(callers(&world, imposter).is_empty());
    let told = |e: &Event| matches!(e, Event::Knocked { aor, key, changed: true } if aor == "sip:anna@chordial" && *key == new);
    assert_eq!(world.hosts[0].events.iter().filter(|(_, e)| told(e)).count(), 1);
    let warnings = world.hosts[0].node.status(world.now).warnings;
    assert!(warnings.iter().any(|w| w.what.contains(&known) && w.what.contains(&new)), "{warnings:?}");
    // What is written to her waits for her: the overlay still knows her device.
    assert_eq!(send(&mut world, 0, "anna", "is it you?").unwrap().state, MessageState::Waits);
    world.run(seconds(200));
    assert!(shown(&world, imposter).is_empty());

    // Also when it is the other one who calls or writes.
    talk(&mut world, imposter, "bob", 0);
    assert_eq!(callers(&world, 0), [(new.clone(), "changed".to_owned())]);
    send(&mut world, imposter, "bob", "it is me").unwrap();
    let last = shown(&world, 0).pop().unwrap();
    assert_eq!((last.verified, last.standing), (new.clone(), "changed".to_owned()));
    // Talking to it does not make it the one that is known; that is for the user to say.
    assert_eq!(refused(&mut world, 0, "anna").status, 300);
    talk(&mut world, 0, &format!("anna~{new}"), imposter);
    assert_eq!(refused(&mut world, 0, "anna").status, 300);
    accept(&mut world, 0, &new).unwrap();
    rings(&mut world, 0, "anna", imposter, &[]);
    assert!(world.hosts[0].node.status(world.now).warnings.is_empty());
}

#[test]
fn a_new_device_of_somebody_known_is_no_change_and_keys_survive_a_restart() {
    let mut world = World::ring(3, &["bob", "carol"]);
    let anna = Identity::open("chordial", "anna", START, &mut world.rng).unwrap();
    let laptop = second_device(&anna, &mut world);
    world.member(anna, |_| {});
    world.run(seconds(15));
    talk(&mut world, 0, "anna", 2);
    assert!(world.hosts[0].saved.contains(&Saved::Foreign));
    world.kill(2);
    world.member(laptop, |_| {});
    let other = world.peer("anna", |_| {});
    world.run(seconds(30));
    world.kill(0);
    world.run(seconds(5));
    world.restart(0, &[1], 0);
    world.run(seconds(30));
    // The laptop rings by the key that was met with the desk.
    rings(&mut world, 0, "anna", 3, &[other]);
}

#[test]
fn who_calls_is_shown_with_how_the_key_stands() {
    let mut world = World::ring(4, &["bob", "anna"]);
    let anna = key(&world, 1);
    rings(&mut world, 1, "bob", 0, &[]);
    // Ringing is not meeting.
    talk(&mut world, 1, "bob", 0);
    rings(&mut world, 1, "bob", 0, &[]);
    know(&mut world, 0, 1);
    rings(&mut world, 1, "bob", 0, &[]);
    let words: Vec<_> = callers(&world, 0).into_iter().map(|(key, word)| (key == anna, word)).collect();
    let expected = ["new-key", "new-key", "known", "contact"].map(|word| (true, word.to_owned()));
    assert_eq!(words, expected);
    // A blocked key neither rings nor writes, and claims no name.
    let eve = world.peer("anna", |_| {});
    world.run(seconds(20));
    world.ask(0, Command::ContactForget { name: "anna".into() }).unwrap();
    assert_eq!(refused(&mut world, 0, "anna").status, 300);
    rings(&mut world, eve, "bob", 0, &[]);
    talk(&mut world, eve, "bob", 0);
    let eve_key = key(&world, eve);
    world.ask(0, Command::Block { target: eve_key }).unwrap();
    assert_eq!(refused(&mut world, eve, "bob").status, 603);
    let before = shown(&world, 0).len();
    assert!(send(&mut world, eve, "bob", "still me").is_err());
    assert_eq!(shown(&world, 0).len(), before);
    world.ask(0, Command::ContactForget { name: "anna@chordial".into() }).unwrap();
    rings(&mut world, 0, "anna", 1, &[eve]);
}

#[test]
fn a_contact_link_of_the_same_overlay_makes_both_contacts_at_the_first_call() {
    let mut world = World::ring(5, &["anna", "bob", "carol"]);
    let text = link(&mut world, 0, RingRight::Once);
    assert_eq!(ContactLink::parse(&text).unwrap().root, Root::Open);
    accept(&mut world, 1, &text).unwrap();
    assert!(strangers(&mut world, 0).contacts.is_empty());
    talk(&mut world, 1, "anna", 0);
    assert_eq!(callers(&world, 0), [(key(&world, 1), "contact".to_owned())]);
    let contact = strangers(&mut world, 0).contacts.pop().unwrap();
    assert_eq!((contact.aor.as_str(), contact.key), ("sip:bob@chordial", key(&world, 1)));
    // It was for one, and once: whoever found the link is nobody.
    accept(&mut world, 2, &text).unwrap();
    talk(&mut world, 2, "anna", 0);
    assert_eq!(strangers(&mut world, 0).contacts.len(), 1);
    assert_eq!(callers(&world, 0)[1], (key(&world, 2), "new-key".to_owned()));
    assert_eq!(world.hosts[0].counter(world.now, "callers whose proof does not hold"), 1);
    // One's own link, and a contact of another key under the same name, are refused.
    assert!(accept(&mut world, 0, &text).unwrap_err().what.contains("of this overlay"));
    let anna = world.peer("anna", |_| {});
    world.run(seconds(15));
    let other = link(&mut world, anna, RingRight::Ask);
    assert!(accept(&mut world, 1, &other).is_err());
}

#[test]
fn a_contact_introduces_somebody() {
    // 0 bob, 1 carla, 2 anna, 3 another anna.
    let mut world = World::ring(6, &["bob", "carla", "anna", "anna"]);
    know(&mut world, 0, 1);
    know(&mut world, 1, 2);
    let anna = key(&world, 2);
    assert_eq!(refused(&mut world, 0, "anna").status, 300);
    let sent = introduce(&mut world, 1, "anna", "bob", false).unwrap();
    assert!(sent.text.contains("introduces anna") && sent.sealed, "{sent:?}");
    let told = |e: &Event| matches!(e, Event::Introduced { name, key, by, .. } if name == "anna" && *key == anna && by == "carla");
    assert_eq!(world.hosts[0].events.iter().filter(|(_, e)| told(e)).count(), 1);
    assert!(shown(&world, 0).is_empty(), "it is no message to read");
    // It is offered, not taken.
    let report = refused(&mut world, 0, "anna");
    assert!(report.reason.contains(&format!("anna~{anna} (introduced by carla)")), "{}", report.reason);
    assert_eq!(strangers(&mut world, 0).introduced[0].introduced_by, "sip:carla@chordial");
    accept(&mut world, 0, "anna").unwrap();
    let report = strangers(&mut world, 0);
    let contact = report.contacts.iter().find(|c| c.name == "anna").unwrap();
    assert_eq!((&contact.key, contact.introduced_by.as_str()), (&anna, "sip:carla@chordial"));
    assert!(report.introduced.is_empty());
    rings(&mut world, 0, "anna", 2, &[3]);
}

#[test]
fn a_word_that_is_withdrawn_old_or_no_contacts_counts_for_nothing() {
    // 0 bob, 1 carla (a contact), 2 anna, 3 eve (no contact).
    let mut world = World::ring(7, &["bob", "carla", "anna", "eve"]);
    know(&mut world, 0, 1);
    know(&mut world, 1, 2);
    know(&mut world, 3, 2);
    introduce(&mut world, 3, "anna", "bob", false).unwrap();
    assert_eq!(world.hosts[0].counter(world.now, "introductions by those who are no contacts"), 1);
    assert!(accept(&mut world, 0, "anna").is_err());
    introduce(&mut world, 1, "anna", "bob", false).unwrap();
    world.run(seconds(2));
    introduce(&mut world, 1, "anna", "bob", true).unwrap();
    assert!(strangers(&mut world, 0).introduced.is_empty());
    assert!(accept(&mut world, 0, "anna").is_err());
    world.run(seconds(2));
    introduce(&mut world, 1, "anna", "bob", false).unwrap();
    assert_eq!(strangers(&mut world, 0).introduced.len(), 1);
    world.jump(Duration::from_secs(91 * 24 * 3600));
    assert!(strangers(&mut world, 0).introduced.is_empty());
    assert!(accept(&mut world, 0, "anna").is_err());
    assert_eq!(strangers(&mut world, 0).contacts.len(), 1);
}

#[test]
fn forged_introductions() {
    // 0 bob, 1 carla (his contact), 2 eve.
    let mut world = World::ring(8, &["bob", "carla", "eve"]);
    know(&mut world, 0, 1);
    let identity = |world: &World, host: usize| world.hosts[host].identity.clone().unwrap();
    let (carla, eve) = (identity(&world, 1), identity(&world, 2));
    let said = |to: &str| {
        let who = Known { aor: "sip:anna@chordial".into(), root: Root::Open, key: KeyFingerprint([6; 16]) };
        let (to, name) = (to.to_owned(), "anna".to_owned());
        Introduction { to, who, name, addrs: Vec::new(), issued: START, withdrawn: false }
    };
    let bob = "sip:bob@chordial";
    // Eve's own word, and carla's word to somebody else; by eve's letter and as a text that bob is handed.
    let own = SignedIntroduction::sign(said(bob), &eve).text();
    let elsewhere = SignedIntroduction::sign(said("sip:eve@chordial"), &carla).text();
    for text in [&own, &elsewhere, &"chordial-introduction:00".to_owned()] {
        send(&mut world, 2, "bob", text).unwrap();
        assert!(accept(&mut world, 0, text).is_err(), "{text}");
    }
    // A true word of carla's to bob, in a letter of eve's: whose word it is and who brings it are not the same.
    let carried = SignedIntroduction::sign(said(bob), &carla).text();
    send(&mut world, 2, "bob", &carried).unwrap();
    let report = strangers(&mut world, 0);
    assert_eq!((report.introduced.len(), report.contacts.len()), (0, 1));
    assert_eq!(world.hosts[0].counter(world.now, "introductions by those who are no contacts"), 1);
    assert_eq!(world.hosts[0].counter(world.now, "introductions that do not hold"), 3);
    // By carla herself it counts; and bob may be handed the text, since it is signed.
    accept(&mut world, 0, &carried).unwrap();
    assert_eq!(strangers(&mut world, 0).contacts[1].introduced_by, "sip:carla@chordial");

    // A letter that names carla and is signed by eve is none.
    let letter = Letter {
        id: LetterId::generate(&mut world.rng),
        from: "sip:carla@chordial".into(),
        to: bob.into(),
        sent_ms: START.secs() * 1000,
        text: own,
    };
    assert!(SignedLetter::sign(letter, &eve).is_err());
}
