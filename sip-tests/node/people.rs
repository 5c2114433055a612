//! People of an office and their devices: a second device without an administrator, revocations, several administrators,
//! certificates asked for over links.

use crate::security::redeem;
use crate::world::{START, World};
use chordial::core::UnixTime;
use chordial::identity::{
    CertifyAnswer, DeviceAnswer, Identity, InviteCode, JoinAnswer, Joining, RecoverySheet, Revocation, RevokedKey,
};
use chordial::node::Saved;
use chordial::node::control::{Command, CommandError, DeviceStatus, Event, OfficeReport, Reply};
use std::time::Duration;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// An office whose founder is host 0; these users join by invites and are the next hosts.
pub fn office(seed: u64, users: &[&str]) -> (World, RecoverySheet) {
    let mut world = World::new(seed);
    let (anna, sheet) = Identity::found("office.example", "anna", Some("100"), START, &mut world.rng).unwrap();
    world.member(anna, |_| {});
    world.run(seconds(3));
    for user in users {
        let identity = invited(&mut world, user);
        world.member(identity, |_| {});
        world.run(seconds(8));
    }
    world.run(seconds(15));
    (world, sheet)
}

/// Who redeems an invite of host 0.
pub fn invited(world: &mut World, user: &str) -> Identity {
    let command = Command::Invite { user: user.into(), extension: None };
    let Ok(Reply::Invite { code, .. }) = world.ask(0, command) else { panic!() };
    let joining = Joining::new(InviteCode::parse(&code).unwrap(), "desk", &mut world.rng).unwrap();
    let ok = redeem(world, &joining.request());
    let unix = unix(world);
    joining.finish(&JoinAnswer::decode(ok.body()).unwrap(), unix).unwrap()
}

pub fn unix(world: &World) -> UnixTime {
    world.unix()
}

/// A further device of the user at `host`, by a code that is redeemed there.
pub fn further(world: &mut World, host: usize, label: &str, with_key: bool) -> Identity {
    let command = Command::DeviceAdd { label: Some(label.into()), with_key };
    let Ok(Reply::Invite { code, .. }) = world.ask(host, command) else { panic!() };
    let joining = Joining::new(InviteCode::parse(&code).unwrap(), "unnamed", &mut world.rng).unwrap();
    let ok = crate::security::redeem_at(world, host, &joining.request());
    assert_eq!(ok.status(), 200);
    joining.finish_device(&DeviceAnswer::decode(ok.body()).unwrap(), unix(world)).unwrap()
}

pub fn wait(world: &mut World, host: usize, command: Command) -> Result<Reply, CommandError> {
    let request = world.command(host, command);
    world.until(seconds(10), "the answer", |w| w.hosts[host].replies.contains_key(&request));
    world.hosts[host].replies.remove(&request).unwrap()
}

pub fn found(world: &mut World, host: usize, who: &str) -> usize {
    match wait(world, host, Command::Lookup { target: who.into(), iterative: false }) {
        Ok(Reply::Lookup(report)) => report.contacts.len(),
        other => panic!("{other:?}"),
    }
}

pub fn devices(world: &mut World, host: usize) -> Vec<DeviceStatus> {
    match wait(world, host, Command::Devices) {
        Ok(Reply::Devices { devices }) => devices,
        other => panic!("{other:?}"),
    }
}

pub fn users(world: &mut World, host: usize) -> OfficeReport {
    match world.ask(host, Command::OfficeUsers) {
        Ok(Reply::Office(report)) => {
            // Over the control socket it stays what it is.
            let line = serde_json::to_string(&Reply::Office(report.clone())).unwrap();
            assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), Reply::Office(report.clone()));
            *report
        }
        other => panic!("{other:?}"),
    }
}

pub fn key(world: &World, host: usize) -> String {
    world.hosts[host].identity.as_ref().unwrap().device_key().to_string()
}

pub fn knows_revoked(world: &World, host: usize) -> bool {
    world.hosts[host].events.iter().any(|(_, e)| matches!(e, Event::Revoked { .. }))
}

#[test]
fn a_second_device_needs_no_administrator_and_gets_its_place_from_one() {
    let (mut world, _) = office(1, &["ben", "carl"]);
    let mobile = further(&mut world, 1, "mobile", false);
    assert_eq!((mobile.user(), mobile.has_place(), mobile.user_key.is_some()), ("ben", false, false));
    // It knows ben's first device alone, which is no enroller and names the one that is.
    let first = world.hosts[1].overlay;
    let host = world.member(mobile, |config| config.overlay.bootstrap = vec![first.into()]);
    world.until(seconds(30), "a place on the ring", |w| w.hosts[host].identity.as_ref().unwrap().has_place());
    world.until_event(host, "joined", |e| matches!(e, Event::Joined { .. }));
    world.run(seconds(15));
    assert_eq!(found(&mut world, 2, "ben"), 2);

    // Both ring.
    world.call(2, "ben");
    world.until_ringing_at(1);
    world.until_ringing_at(host);

    let list = devices(&mut world, 1);
    assert_eq!(list.len(), 2, "{list:?}");
    let row = list.iter().find(|d| d.label == "mobile").unwrap();
    assert!(!row.this && !row.revoked && row.last_seen.is_some() && row.key == key(&world, host), "{row:?}");

    // Kept: the new chain, before anything else.
    assert!(world.hosts[host].files.iter().any(|(what, _)| *what == Saved::Identity));
    // The administrator sees whose device it is.
    let ben = users(&mut world, 0).users.into_iter().find(|u| u.user == "ben").unwrap();
    assert!(ben.devices.iter().any(|d| d.label == "mobile"), "{ben:?}");
}

#[test]
fn a_code_for_a_device_works_once_at_the_device_that_showed_it() {
    let (mut world, _) = office(2, &["ben"]);
    let command = || Command::DeviceAdd { label: None, with_key: true };
    let Ok(Reply::Invite { code, .. }) = world.ask(1, command()) else { panic!() };
    let code = InviteCode::parse(&code).unwrap();
    let joining = Joining::new(code.clone(), "laptop", &mut world.rng).unwrap();
    // Not at another device, not even the administrator's.
    assert_eq!(crate::security::redeem_at(&mut world, 0, &joining.request()).status(), 403);
    let ok = crate::security::redeem_at(&mut world, 1, &joining.request());
    let laptop = joining.finish_device(&DeviceAnswer::decode(ok.body()).unwrap(), START).unwrap();
    let ben = world.hosts[1].identity.clone().unwrap();
    assert_eq!(laptop.user_key.as_ref().map(|k| k.public()), ben.user_key.as_ref().map(|k| k.public()));
    // The answer was lost: the same device asks again. Another one does not get in.
    assert_eq!(crate::security::redeem_at(&mut world, 1, &joining.request()).status(), 200);
    let thief = Joining::new(code, "thief", &mut world.rng).unwrap();
    assert_eq!(crate::security::redeem_at(&mut world, 1, &thief.request()).status(), 403);
    // Another user's answer is not taken for ben's.
    let Ok(Reply::Invite { code, .. }) = world.ask(0, command()) else { panic!() };
    let annas = Joining::new(InviteCode::parse(&code).unwrap(), "x", &mut world.rng).unwrap();
    let ok = redeem(&mut world, &annas.request());
    assert!(joining.finish_device(&DeviceAnswer::decode(ok.body()).unwrap(), START).is_err());
    // A device without the user's key shows no codes and says where they are to be had.
    let mobile = further(&mut world, 1, "mobile", false);
    let host = world.member(mobile, |_| {});
    let error = world.ask(host, command()).unwrap_err();
    assert!(error.what.contains("does not hold your user key"), "{error}");
}

#[test]
fn a_revoked_device_is_out_within_seconds_everywhere() {
    let (mut world, _) = office(3, &["ben", "carl", "dora", "emil"]);
    let mobile = further(&mut world, 1, "mobile", false);
    let host = world.member(mobile, |_| {});
    world.until_event(host, "joined", |e| matches!(e, Event::Joined { .. }));
    world.run(seconds(20));
    assert_eq!(found(&mut world, 2, "ben"), 2);
    let Ok(Reply::Done { done }) = wait(&mut world, 1, Command::DeviceRemove { device: "mobile".into() }) else {
        panic!()
    };
    assert!(done.contains("mobile"), "{done}");
    world.run(seconds(3));
    for at in 0..=4 {
        assert!(knows_revoked(&world, at), "host {at} has not heard it");
        assert!(world.hosts[at].files.iter().any(|(what, _)| *what == Saved::Revocations), "host {at} did not keep it");
        assert_eq!(found(&mut world, at, "ben"), 1, "host {at} still finds the revoked device");
    }
    assert!(knows_revoked(&world, host), "whom it concerns hears it as well");
    assert!(devices(&mut world, 1).iter().any(|d| d.label == "mobile" && d.revoked));
    // It calls, and is nobody.
    world.run(seconds(5));
    let request = world.call(host, "carl");
    let (report, _) = world.report(host, request, seconds(60));
    assert_ne!(report.result, "completed");
    assert!(world.hosts[2].events.iter().all(|(_, e)| !matches!(e, Event::Incoming { .. })));
    // The tables of the others are without it soon.
    world.run(seconds(60));
    let gone = world.hosts[host].identity.as_ref().unwrap().peer_id().to_string();
    for at in 0..=4 {
        let status = world.hosts[at].node.status(world.now);
        assert!(status.overlay.successors.iter().all(|p| p.peer_id != gone), "host {at}");
    }
    // Who stays goes on.
    let request = world.call(2, "ben");
    world.until_ringing_at(1);
    world.answer(1);
    world.run(seconds(1));
    world.hang_up(1);
    assert_eq!(world.report(2, request, seconds(10)).0.result, "completed");
}

#[test]
fn the_administrator_revokes_a_user_and_the_name_is_free_again() {
    let (mut world, _) = office(4, &["ben", "carl"]);
    assert!(world.ask(1, Command::OfficeRevoke { target: "carl".into() }).is_err(), "ben is no administrator");
    world.ask(0, Command::OfficeRevoke { target: "ben".into() }).unwrap();
    world.run(seconds(3));
    assert!(knows_revoked(&world, 2));
    assert_eq!(found(&mut world, 2, "ben"), 0);
    let row = users(&mut world, 0).users.into_iter().find(|u| u.user == "ben").unwrap();
    assert!(row.revoked);
    let again = world.ask(0, Command::OfficeRevoke { target: "ben".into() }).unwrap_err();
    assert!(again.what.contains("no user or device"), "{again}");
    let new = invited(&mut world, "ben");
    world.member(new, |_| {});
    world.run(seconds(20));
    assert_eq!(found(&mut world, 2, "ben"), 1);
    let nobody = world.ask(0, Command::OfficeRevoke { target: "anna".into() }).unwrap_err();
    assert!(nobody.what.contains("own"), "{nobody}");
}

#[test]
fn a_peer_that_returns_hears_what_it_missed_before_it_lets_anybody_in() {
    let (mut world, _) = office(5, &["ben", "carl", "dora"]);
    world.kill(2);
    world.run(seconds(20));
    // While carl is away, ben is revoked.
    world.ask(0, Command::OfficeRevoke { target: "ben".into() }).unwrap();
    world.run(seconds(3));
    let carl = world.returning(2);
    // Ben, who knows where carl is, is there with a call before anybody else.
    let (raw, way) = crate::security::on_link_of(&mut world, carl, 1);
    let uri = format!("sip:carl@{}", world.hosts[carl].overlay);
    let mut talk = crate::raw::Talk::new(&world, raw, way, &uri, "sip:ben@office.example", "sip:carl@office.example");
    let invite = talk.invite(&world, &crate::raw::sdp("10.9.0.1:7000", "sendrecv"));
    talk.send(&mut world, &invite);
    world.run(seconds(10));
    assert!(knows_revoked(&world, carl));
    assert!(world.hosts[carl].events.iter().all(|(_, e)| !matches!(e, Event::Incoming { .. })), "ben got in");
}

#[test]
fn a_peer_that_was_cut_off_catches_up_by_itself() {
    let (mut world, _) = office(6, &["ben", "carl", "dora"]);
    // Nothing that tells of revocations reaches anybody for a while.
    world.swallow = Box::new(|bytes| bytes.windows(20).any(|w| w == b"chordial-revocations"));
    world.ask(0, Command::OfficeRevoke { target: "ben".into() }).unwrap();
    world.run(seconds(30));
    assert!(!knows_revoked(&world, 2) && !knows_revoked(&world, 3));
    world.swallow = Box::new(|_| false);
    world.run(seconds(130));
    assert!(knows_revoked(&world, 2) && knows_revoked(&world, 3));
}

#[test]
fn revocations_of_who_may_not_are_refused() {
    let (mut world, _) = office(7, &["ben", "carl"]);
    let ben = world.hosts[1].identity.clone().unwrap();
    let carl = world.hosts[2].identity.clone().unwrap();
    let (foreign, sheet) = Identity::found("office.example", "eve", None, START, &mut world.rng).unwrap();
    let root = Revocation::by_root(&sheet, RevokedKey::Device, carl.device_key(), "", START).unwrap();
    let enroller = Revocation::sign(&foreign, RevokedKey::Device, carl.device_key(), "", START).unwrap();
    for forged in [root, enroller] {
        assert!(forged.verify(&ben.anchor).is_err());
    }
    // A member may say that carl's device is not its own any more: it never was.
    let odd = Revocation::sign(&ben, RevokedKey::Device, carl.device_key(), "", START).unwrap();
    odd.verify(&ben.anchor).unwrap();
    assert!(Revocation::sign(&ben, RevokedKey::User, carl.chain.user_key().unwrap(), "", START).is_err());
    let mut set = chordial::identity::Revocations::default();
    set.note(odd);
    assert!(set.revoked().check(&carl.verified(START).unwrap()).is_ok());
}

#[test]
fn a_members_phone_is_delegated_by_the_administrators_word() {
    let (mut world, _) = office(8, &["ben"]);
    let add = || Command::PhoneAdd { user: "lobby".into(), label: String::new(), password: "secret".into() };
    let refused = wait(&mut world, 1, add()).unwrap_err();
    let device = key(&world, 1);
    assert!(refused.next.contains(&format!("chordial office adapters allow {device}")), "{refused}");
    world.ask(0, Command::OfficeAdapters { device: device.clone(), allow: true }).unwrap();
    wait(&mut world, 1, add()).unwrap();
    assert!(world.hosts[1].identity.as_ref().unwrap().phone_identity("lobby", unix(&world)).is_ok());
    let phones = users(&mut world, 0).delegations;
    assert_eq!(phones, [("lobby".to_owned(), device.clone())]);
    // Names of people are nobody's phones, whatever is allowed.
    for taken in ["anna", "100"] {
        let command = Command::PhoneAdd { user: taken.into(), label: String::new(), password: "secret".into() };
        assert!(wait(&mut world, 1, command).is_err(), "{taken}");
    }
    // An administrator's other device needs no word.
    let second = further(&mut world, 0, "second", false);
    let host = world.member(second, |_| {});
    world.until_event(host, "joined", |e| matches!(e, Event::Joined { .. }));
    world.run(seconds(10));
    let command = Command::PhoneAdd { user: "gate".into(), label: String::new(), password: "secret".into() };
    wait(&mut world, host, command).unwrap();
}

#[test]
fn two_administrators_keep_one_book_and_show_a_name_given_twice() {
    let (mut world, sheet) = office(9, &["ben", "carl"]);
    let wrong = Identity::found("office.example", "eve", None, START, &mut world.rng).unwrap().1.secret_text();
    for bad in ["nonsense", wrong.as_str()] {
        let error = wait(&mut world, 0, Command::OwnerAdd { user: "ben".into(), sheet: bad.into() }).unwrap_err();
        assert!(error.what.contains("recovery sheet"), "{error}");
    }
    wait(&mut world, 0, Command::OwnerAdd { user: "ben".into(), sheet: sheet.secret_text() }).unwrap();
    world.run(seconds(20));
    let names = |report: &OfficeReport| report.users.iter().map(|u| u.user.clone()).collect::<Vec<_>>();
    let (annas, bens) = (users(&mut world, 0), users(&mut world, 1));
    assert_eq!(names(&bens), ["anna", "ben", "carl"]);
    assert_eq!((annas.users, annas.administrators.len()), (bens.users, bens.administrators.len()));
    assert!(world.ask(1, Command::Invite { user: "carl".into(), extension: None }).is_err(), "ben knows carl");

    // The founder's machine is lost; the other goes on.
    world.kill(0);
    world.run(seconds(20));
    world.ask(1, Command::OfficeRevoke { target: "carl".into() }).unwrap();
    assert!(world.ask(1, Command::Invite { user: "carl".into(), extension: None }).is_ok());
    // What both know after all, they know by themselves: two books that grew apart, and one name twice.
    let mut rng = chordial::core::Rng::from_seed(77);
    let mut third = Identity::restore(&sheet, "anna", None, unix(&world), &mut rng).unwrap();
    let pages = world.hosts[1].files.iter().find(|(what, _)| *what == Saved::Identity).unwrap().1.clone();
    let ben = Identity::from_bytes(&pages, unix(&world)).unwrap();
    for page in ben.enroller.as_ref().unwrap().book().reconciled().values() {
        third.enroller.as_mut().unwrap().learn(page, unix(&world)).unwrap();
    }
    assert_eq!(third.enroller.as_ref().unwrap().conflicts(), ["anna"]);
}

#[test]
fn certificates_are_renewed_in_the_year_before_they_run_out() {
    let (mut world, _) = office(10, &["ben"]);
    // Of everything below the enroller's own certificate, which only the root renews.
    let end = |w: &World| {
        let ben = w.hosts[1].identity.as_ref().unwrap();
        ben.chain.certificates().iter().skip(1).map(|c| c.not_after).min()
    };
    let before = end(&world);
    // Nine and a half years on; everything else stands still.
    world.jump(Duration::from_secs(3500 * 24 * 3600));
    world.run(seconds(2 * 3600));
    let later = unix(&world);
    let ben = world.hosts[1].identity.clone().unwrap();
    let after = end(&world);
    assert!(after > before, "{after:?} {before:?}");
    assert!(ben.verified(later).is_ok() && ben.has_place() && !ben.needs_enroller(later));
    let anna = world.hosts[0].identity.as_ref().unwrap();
    assert!(!anna.needs_enroller(later), "an enroller renews itself");
}

#[test]
fn damaged_answers_with_certificates_are_not_taken() {
    let (world, _) = office(11, &["ben"]);
    let ben = world.hosts[1].identity.clone().unwrap();
    let mut anna = world.hosts[0].identity.clone().unwrap();
    let request = ben.certify_request(Vec::new(), START);
    let (anchor, mut rng) = (anna.anchor.clone(), chordial::core::Rng::from_seed(3));
    let enroller = anna.enroller.as_mut().unwrap();
    let granted = enroller.certify(&request, ben.device_key(), &anchor, START, &mut rng).unwrap();
    let good = CertifyAnswer::Certified(Box::new(granted)).encode();
    let mut taken = 0;
    for n in 0..4000 {
        let mut bytes = good.clone();
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << (n % 8);
        if let Ok(CertifyAnswer::Certified(granted)) = CertifyAnswer::decode(&bytes) {
            taken += u32::from(ben.clone().certified(&granted, START).is_ok());
        }
    }
    assert_eq!(taken, 0);
    let CertifyAnswer::Certified(granted) = CertifyAnswer::decode(&good).unwrap() else { panic!() };
    assert!(ben.clone().certified(&granted, START).is_ok());
}
