//! Two offices founded at the same time become one: people, phones, contacts and names; whoever was off, was revoked or lies.

use crate::people::{found, knows_revoked, wait};
use crate::raw::{Talk, Way, register, respond, sdp, way_back};
use crate::security::{on_link_of, redeem_at};
use crate::world::{START, World};
use chordial::core::Transport;
use chordial::identity::{
    Ask, Identity, InviteCode, JoinAnswer, Joining, MERGE_TYPE, MoveAsk, REVOCATIONS_TYPE, Revocation, Revocations,
    Successor, TrustAnchor,
};
use chordial::node::control::{CallReport, Command, Event, MergeReport, Renamed, Reply};
use chordial::sip::msg::{Message, Method};
use std::sync::Arc;
use std::time::Duration;

const ANNA: usize = 0;
const BEN: usize = 1;
const CARL: usize = 2;
const ANTON: usize = 3;
const CARL2: usize = 4;
const DORA: usize = 5;
const ED: usize = 6;
const FINN: usize = 7;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn invited(world: &mut World, by: usize, user: &str) -> Identity {
    let command = Command::Invite { user: user.into(), extension: None };
    let Ok(Reply::Invite { code, .. }) = world.ask(by, command) else { panic!() };
    let joining = Joining::new(InviteCode::parse(&code).unwrap(), "desk", &mut world.rng).unwrap();
    let ok = redeem_at(world, by, &joining.request());
    let unix = world.unix();
    joining.finish(&JoinAnswer::decode(ok.body()).unwrap(), unix).unwrap()
}

/// anna's office with ben and carl; anton's with another carl, dora, ed and finn. ed is revoked, finn is off.
fn offices(seed: u64) -> World {
    offices_in(World::new(seed))
}

fn offices_in(mut world: World) -> World {
    for (overlay, founder, others) in
        [("a.example", "anna", &["ben", "carl"][..]), ("b.example", "anton", &["carl", "dora", "ed", "finn"][..])]
    {
        let (identity, _) = Identity::found(overlay, founder, Some("100"), START, &mut world.rng).unwrap();
        let by = world.member(identity, |c| c.user.auto_answer = true);
        world.run(seconds(3));
        for user in others {
            let identity = invited(&mut world, by, user);
            world.member(identity, |c| c.user.auto_answer = true);
            world.run(seconds(8));
        }
    }
    world.run(seconds(30));
    world.ask(ANTON, Command::OfficeRevoke { target: "ed".into() }).unwrap();
    world.run(seconds(5));
    world.kill(FINN);
    world.run(seconds(40));
    world
}

fn code(world: &mut World) -> String {
    let Ok(Reply::Invite { code, .. }) = world.ask(ANNA, Command::OfficeMerge { code: None }) else { panic!() };
    code
}

fn merge(world: &mut World, code: &str) -> MergeReport {
    match wait(world, ANTON, Command::OfficeMerge { code: Some(code.into()) }) {
        Ok(Reply::Merge(report)) => *report,
        other => panic!("{other:?}"),
    }
}

fn office_of(world: &World, host: usize) -> String {
    world.hosts[host].identity.as_ref().unwrap().overlay().to_owned()
}

fn until_moved(world: &mut World, hosts: &[usize]) {
    for host in hosts {
        let arrived = |w: &World| {
            let status = w.hosts[*host].node.status(w.now);
            office_of(w, *host) == "a.example"
                && status.overlay.state == "joined"
                && !status.overlay.successors.is_empty()
        };
        world.until(seconds(120), "the move", arrived);
    }
}

/// A call of three seconds that is answered by itself.
fn calls(world: &mut World, from: usize, target: &str, whom: usize) -> CallReport {
    let before = world.hosts[whom].ended().len();
    let request = world.command(
        from,
        Command::Call { target: target.into(), play: None, record: None, duration: Some(3.0), account: None },
    );
    let (report, _) = world.report(from, request, seconds(30));
    assert_eq!(report.result, "completed", "{from} calls {target}: {report:?}");
    world.run(seconds(2));
    assert_eq!(world.hosts[whom].ended().len(), before + 1, "{from} calls {target}");
    report
}

/// Asks a host something over a link that proves to be `who`'s, of another overlay or of its own.
fn asks(world: &mut World, (raw, way): (usize, Way), to: usize, kind: &str, body: Vec<u8>) -> Message {
    let uri = format!("sip:{}", world.hosts[to].overlay);
    let mut talk = Talk::new(world, raw, way, &uri, "sip:x@invalid", &uri);
    let mut message = talk.request(world, Method::Register);
    message.set_body(kind, body);
    talk.ask(world, &message)
}

fn foreign_end(world: &mut World, who: &Identity, to: usize) -> (usize, Way) {
    let (raw, unix) = (world.raw(), world.unix());
    world.raws[raw].proof = Some(Arc::new(who.verified(unix).unwrap()));
    world.raws[raw].anchor = Some(who.anchor.clone());
    let to = world.hosts[to].overlay;
    let conn = world.dial(raw, Transport::Tls, to);
    (raw, Way::Stream(conn))
}

#[test]
fn two_offices_become_one() {
    let mut world = offices(61);
    world.ask(DORA, Command::ContactAdd { name: "Boss".into(), target: "carl".into() }).unwrap();
    // A phone of the office that ends.
    let add = Command::PhoneAdd { user: "desk".into(), label: String::new(), password: "secret".into() };
    wait(&mut world, ANTON, add).unwrap();
    let phone = world.raw();
    let way = Way::Udp(world.hosts[ANTON].sip);
    assert_eq!(register(&mut world, phone, way, "sip:desk@b.example", "secret", 3600).status(), 200);
    world.run(seconds(5));
    // A call is under way: it is not cut, and its two ends go when it is over.
    let long = world.call(DORA, "carl");
    world.until_voice(CARL2, 1);

    let code = code(&mut world);
    for (host, wrong) in [(ANNA, code.as_str()), (DORA, code.as_str()), (ANTON, "nonsense")] {
        assert!(wait(&mut world, host, Command::OfficeMerge { code: Some(wrong.into()) }).is_err(), "{host}");
    }
    let Ok(Reply::Invite { code: invite, .. }) = world.ask(ANNA, Command::Invite { user: "x".into(), extension: None })
    else {
        panic!()
    };
    let error = wait(&mut world, ANTON, Command::OfficeMerge { code: Some(invite) }).unwrap_err();
    assert!(error.what.contains("not for merging"), "{error}");
    let report = merge(&mut world, &code);
    let renamed = |was: &str, is: &str| Renamed { was: was.into(), is: is.into() };
    assert_eq!(report.renamed, [renamed("100", "1002"), renamed("carl", "carl2")]);
    assert_eq!((report.continues_as.as_str(), report.merged_users), ("a.example", 4));
    // Both administrators see it.
    let told = |(_, e): &(_, Event)| matches!(e, Event::OfficeMerged { renamed, users: 4, .. } if renamed.len() == 2);
    assert!(world.hosts[ANNA].events.iter().any(told));

    until_moved(&mut world, &[ANTON]);
    world.run(seconds(60));
    assert_eq!((office_of(&world, DORA), office_of(&world, CARL2)), ("b.example".into(), "b.example".into()));
    assert_eq!(world.hosts[DORA].node.status(world.now).calls.len(), 1, "the call goes on");
    world.hang_up(DORA);
    assert_eq!(world.report(DORA, long, seconds(10)).0.result, "completed");
    until_moved(&mut world, &[DORA, CARL2]);
    world.run(seconds(60));

    let who = [(ANNA, "anna"), (BEN, "ben"), (CARL, "carl"), (ANTON, "anton"), (CARL2, "carl2"), (DORA, "dora")];
    for (from, _) in who {
        for (whom, name) in who.iter().filter(|(whom, _)| *whom != from) {
            calls(&mut world, from, name, *whom);
        }
    }
    calls(&mut world, BEN, "1002", ANTON);
    calls(&mut world, BEN, "100", ANNA);
    // Old addresses and contacts lead to whom they meant.
    calls(&mut world, DORA, "Boss", CARL2);
    calls(&mut world, ANTON, "carl@b.example", CARL2);
    // The phone is registered still, is called, and registers again with its old password.
    let before = world.requests(phone, &Method::Invite).len();
    let request = world.call(BEN, "desk");
    let invite = world.until_request(phone, Method::Invite, before + 1);
    let ok = respond(&mut world, phone, &invite, 200, &sdp("10.9.0.1:7000", "sendrecv"));
    world.run(seconds(2));
    let mut talk = Talk::callee(&world, phone, way_back(&invite), &invite.message, &ok);
    assert_eq!(talk.bye(&mut world), 200);
    assert_eq!(world.report(BEN, request, seconds(5)).0.result, "completed");
    assert_eq!(register(&mut world, phone, way, "sip:desk@b.example", "secret", 3600).status(), 200);

    // Whoever was off finds nobody where the office was, hears where it is, and comes.
    let (finn, mut config) = (world.hosts[FINN].identity.clone().unwrap(), chordial::config::Config::default());
    config.user.auto_answer = true;
    world.restart_as(FINN, finn, config);
    until_moved(&mut world, &[FINN]);
    world.run(seconds(30));
    calls(&mut world, CARL, "finn", FINN);
    calls(&mut world, FINN, "carl2", CARL2);
    // Whoever was revoked does not, whatever it shows.
    let ed = world.hosts[ED].identity.clone().unwrap();
    assert_eq!(ed.overlay(), "b.example");
    let end = foreign_end(&mut world, &ed, ANNA);
    let ask = MoveAsk::sign(&ed, "a.example", world.unix()).unwrap().encode();
    assert_eq!(asks(&mut world, end, ANNA, MERGE_TYPE, ask).status(), 403);
    assert_eq!(found(&mut world, BEN, "ed"), 0);
}

#[test]
fn who_went_over_finds_ways_for_voice_as_before() {
    let mut world = World::new(63);
    (world.encrypts, world.ice) = (true, true);
    let mut world = offices_in(world);
    assert_eq!(calls(&mut world, ANTON, "dora", DORA).transport, "udp", "by ICE");
    let code = code(&mut world);
    merge(&mut world, &code);
    until_moved(&mut world, &[ANTON, DORA]);
    world.run(seconds(60));
    for (from, target, whom) in [(ANTON, "dora", DORA), (BEN, "dora", DORA), (DORA, "ben", BEN)] {
        let report = calls(&mut world, from, target, whom);
        assert_eq!((report.transport.as_str(), report.security.as_str()), ("udp", "dtls-srtp"), "{target}");
    }
}

#[test]
fn nobody_else_says_where_an_office_continues() {
    let mut world = offices(62);
    let (eve, _) = Identity::found("b.example", "eve", None, START, &mut world.rng).unwrap();
    let away = Identity::found("evil.example", "eve", None, START, &mut world.rng).unwrap().0;
    let TrustAnchor::Office { root, .. } = away.anchor else { panic!() };
    let successor = || Successor { addrs: vec!["10.66.0.1:5061".parse().unwrap()], renamed: Vec::new() };
    let forged = Revocation::of_office(&eve, root, "evil.example", successor(), world.unix()).unwrap();
    let dora = world.hosts[DORA].identity.clone().unwrap();
    assert!(Revocation::of_office(&dora, root, "evil.example", successor(), world.unix()).is_err(), "no enroller");
    // A member of the very office brings it.
    let end = on_link_of(&mut world, DORA, CARL2);
    let ask = Ask::new(&Revocations::default(), vec![forged.encode()]).encode();
    asks(&mut world, end, DORA, REVOCATIONS_TYPE, ask);
    world.run(seconds(90));
    assert_eq!(office_of(&world, DORA), "b.example");
    assert_eq!(found(&mut world, DORA, "anton"), 1);
    // The other office takes in nobody whose office was not merged, and no offer without the code.
    let end = foreign_end(&mut world, &dora, ANNA);
    let ask = MoveAsk::sign(&dora, "a.example", world.unix()).unwrap().encode();
    assert_eq!(asks(&mut world, end, ANNA, MERGE_TYPE, ask).status(), 403);
    let mut wrong = InviteCode::parse(&code(&mut world)).unwrap();
    let good = wrong.clone();
    wrong = InviteCode::of_kind(good.kind, good.root, &good.addrs, &mut world.rng);
    let refused = wait(&mut world, ANTON, Command::OfficeMerge { code: Some(wrong.text()) }).unwrap_err();
    assert!(refused.what.contains("does not take this one in (403)"), "{refused}");
    // Nor does somebody else at the administrator's address get the offer.
    world.hijacked.insert(world.hosts[ANNA].overlay, world.hosts[DORA].overlay);
    assert!(wait(&mut world, ANTON, Command::OfficeMerge { code: Some(good.text()) }).is_err());
    world.hijacked.clear();
    world.run(seconds(60));
    assert_eq!(office_of(&world, ANTON), "b.example");
    assert!(!knows_revoked(&world, CARL), "an office hears nothing of the other's revocations");
    // With the right code it goes.
    merge(&mut world, &good.text());
    until_moved(&mut world, &[ANTON, CARL2, DORA]);
}
