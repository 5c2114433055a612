//! An administrator is lost or goes rogue: the root ends it, and the office goes on.

use crate::people::{found, key, knows_revoked, office, unix, users, wait};
use crate::world::World;
use chordial::core::Rng;
use chordial::identity::{INVITE_LIFETIME, Identity, Joining};
use chordial::node::control::{Command, Event};
use std::time::Duration;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn revoke(target: &str, sheet: &str) -> Command {
    Command::EnrollerRevoke { target: target.into(), sheet: sheet.into(), since: None }
}

/// Whom a copy of a lost administrator's identity enrols, under any date.
fn smuggled(world: &World, by: &mut Identity, user: &str) -> Identity {
    let (rng, enroller) = (&mut Rng::from_seed(99), by.enroller.as_mut().unwrap());
    let early = chordial::core::UnixTime(unix(world).secs() - 60);
    let code = enroller.invite(user, None, &[], INVITE_LIFETIME, early, rng).unwrap();
    let joining = Joining::new(code, "x", rng).unwrap();
    let answer = enroller.redeem(&joining.request(), [192, 0, 2, 1].into(), early, rng).unwrap();
    joining.finish(&answer, early).unwrap()
}

#[test]
fn the_root_ends_an_administrator_and_whom_it_enrolled_stays() {
    let (mut world, sheet) = office(31, &["ben", "carl", "dora"]);
    wait(&mut world, 0, Command::OwnerAdd { user: "ben".into(), sheet: sheet.secret_text() }).unwrap();
    world.run(seconds(30));
    let lost = key(&world, 0);
    // Ben's own word is not enough, nor is another office's root.
    let refused = world.ask(1, Command::OfficeRevoke { target: lost.clone() }).unwrap_err();
    assert!(refused.next.contains(&format!("chordial office revoke {lost} --by-root")), "{refused}");
    let wrong = Identity::found("office.example", "eve", None, unix(&world), &mut Rng::from_seed(7)).unwrap().1;
    for bad in ["nonsense", &wrong.secret_text()] {
        assert!(world.ask(1, revoke(&lost, bad)).unwrap_err().what.contains("recovery sheet"));
    }
    assert!(world.ask(1, revoke("nobody", &sheet.secret_text())).unwrap_err().what.contains("no administrator"));
    let own = key(&world, 1);
    assert!(world.ask(1, revoke(&own, &sheet.secret_text())).unwrap_err().what.contains("own"));
    assert!(!knows_revoked(&world, 2));

    // Anna's machine runs on in wrong hands.
    let pages = world.hosts[0].files.iter().rev().find(|(what, _)| *what == chordial::node::Saved::Identity);
    let mut copy = Identity::from_bytes(&pages.unwrap().1, unix(&world)).unwrap();
    let done = format!("{:?}", world.ask(1, revoke(&lost, &sheet.secret_text())).unwrap());
    assert!(done.contains("anna, ben") || done.contains("carl"), "{done}");
    world.run(seconds(3));
    for at in 1..=3 {
        assert!(knows_revoked(&world, at), "host {at} has not heard it");
        assert_eq!(found(&mut world, at, "anna"), 0, "host {at}");
        assert_eq!(found(&mut world, at, "carl"), 1, "host {at}");
    }
    let enroller = copy.enroller.as_ref().unwrap().certificate().subject.to_string();
    let again = world.ask(1, revoke(&enroller, &sheet.secret_text()));
    assert!(again.is_ok(), "the root may say it again: {again:?}");
    let request = world.call(0, "carl");
    assert_ne!(world.report(0, request, seconds(60)).0.result, "completed");
    // Whoever the lost key lets in now is nobody, under whatever date.
    let eve = smuggled(&world, &mut copy, "eve");
    let host = world.member(eve, |config| config.overlay.bootstrap.clear());
    let ben = world.hosts[1].overlay;
    let eve = world.hosts[host].identity.clone().unwrap();
    world.kill(host);
    let mut config = chordial::config::Config::default();
    (config.overlay.name, config.user.name) = ("office.example".into(), "eve".into());
    config.overlay.bootstrap = vec![ben.into()];
    world.restart_as(host, eve, config);
    world.run(seconds(20));
    let joined =
        |w: &World| w.hosts[host].events.iter().any(|(_, e)| matches!(e, Event::Joined { peers } if *peers > 0));
    assert!(!joined(&world));
    assert_eq!(found(&mut world, 2, "eve"), 0);

    // Within minutes nobody leans on the lost key any more, and everybody calls everybody.
    world.run(seconds(120));
    for at in 1..=3 {
        let me = world.hosts[at].identity.as_ref().unwrap();
        let signed = me.chain.certificates();
        let good = world.hosts[1].identity.as_ref().unwrap().chain.certificates()[0].subject;
        assert!(signed[0].subject == good && signed[1].issuer == good && me.has_place(), "host {at}");
    }
    let request = world.call(2, "dora");
    world.until_ringing_at(3);
    world.answer(3);
    world.run(seconds(1));
    world.hang_up(3);
    assert_eq!(world.report(2, request, seconds(10)).0.result, "completed");
    // Names go on being unique, and the office takes in new ones.
    assert!(users(&mut world, 1).users.iter().all(|u| u.user != "eve"));
    assert!(world.ask(1, Command::Invite { user: "carl".into(), extension: None }).is_err());
    assert!(world.ask(1, Command::Invite { user: "eve".into(), extension: None }).is_ok());
}
