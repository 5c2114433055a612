//! Logging in by name and password: from strange machines, with supernodes that die, against people who guess.

use crate::raw::{Talk, Way};
use crate::world::{START, World};
use chordial::core::{Instant, Redacted, Rng, Transport};
use chordial::identity::login::{
    CHEAP, LOGIN_TYPE, LoginAnswer, LoginAttempt, LoginError, PasswordParts, Recovered, SHARE_TYPE, ShareAnswer,
    ShareRequest,
};
use chordial::identity::{INVITE_LIFETIME, Identity, JoinRequest, Joining};
use chordial::node::control::{Command, Reply};
use chordial::sip::msg::{Message, Method};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const OFFICE: &str = "office.example";
const PASSWORD: &str = "correct horse battery";

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A member of an office whose founder is `anna`.
pub fn invited(anna: &mut Identity, user: &str, rng: &mut Rng) -> Identity {
    let enroller = anna.enroller.as_mut().unwrap();
    let code = enroller.invite(user, None, &[], INVITE_LIFETIME, START, rng).unwrap();
    let joining = Joining::new(code, "desk", rng).unwrap();
    let request = JoinRequest::decode(&joining.request().encode()).unwrap();
    let answer = enroller.redeem(&request, [10, 0, 0, 9].into(), START, rng).unwrap();
    joining.finish(&answer, START).unwrap()
}

/// An office of these users, the first its founder, settled.
pub fn office(seed: u64, users: &[&str]) -> World {
    let mut world = World::new(seed);
    let mut rng = Rng::from_seed(seed);
    let (mut anna, _) = Identity::found(OFFICE, users[0], None, START, &mut rng).unwrap();
    let others: Vec<_> = users[1..].iter().map(|user| invited(&mut anna, user, &mut rng)).collect();
    world.member(anna, |_| {});
    for other in others {
        world.member(other, |_| {});
    }
    world.run(seconds(20));
    world
}

/// Sets a user's password at that user's node.
fn set_password(world: &mut World, host: usize, password: &str) -> Result<u32, String> {
    let user = world.hosts[host].identity.as_ref().unwrap().user().to_owned();
    let parts = PasswordParts::make(&user, OFFICE, password, CHEAP, &mut world.rng).unwrap();
    let request = world.command(host, Command::Password { parts: Redacted::new(parts.to_hex().to_string()) });
    world.until(seconds(60), "the password", |w| w.hosts[host].replies.contains_key(&request));
    let answer = world.hosts[host].replies.remove(&request).unwrap();
    world.run(seconds(5));
    match answer {
        Ok(Reply::Password { holders, .. }) => Ok(holders),
        Ok(other) => panic!("{other:?}"),
        Err(e) => Err(e.to_string()),
    }
}

/// A machine that is nobody's yet.
struct Stranger {
    raw: usize,
}

impl Stranger {
    fn new(world: &mut World) -> Stranger {
        Stranger { raw: world.raw() }
    }

    /// Asks a node over a link of a stranger.
    fn ask(&self, world: &mut World, host: usize, content_type: &str, body: Vec<u8>) -> Message {
        let to = world.hosts[host].overlay;
        let way = Way::Stream(world.dial(self.raw, Transport::Tls, to));
        let to = format!("sip:{to}");
        let mut talk = Talk::new(world, self.raw, way, &to, "sip:new@invalid", &to);
        let mut message = talk.request(world, Method::Register);
        message.set_body(content_type, body);
        talk.ask(world, &message)
    }

    /// Tries a password once: what it opens, or how many seconds to wait.
    fn try_once(
        &self,
        world: &mut World,
        host: usize,
        user: &str,
        password: &str,
    ) -> Result<Result<Recovered, LoginError>, u64> {
        let attempt = LoginAttempt::new(user, OFFICE, password, &mut world.rng).unwrap();
        let reply = self.ask(world, host, LOGIN_TYPE, attempt.request().encode());
        if reply.status() != 200 {
            assert_eq!(reply.status(), 503, "{}", reply.reason());
            return Err(reply.header("Retry-After").unwrap().parse().unwrap());
        }
        let answer = LoginAnswer::decode(reply.body()).unwrap();
        Ok(attempt.open(&answer, CHEAP, START + world.now.since(Instant::ZERO)))
    }

    /// The same, waiting as long as it is told to, like the command.
    fn log_in(&self, world: &mut World, host: usize, user: &str, password: &str) -> Result<Recovered, LoginError> {
        for _ in 0..10 {
            match self.try_once(world, host, user, password) {
                Ok(result) => return result,
                Err(wait) => world.run(seconds(wait)),
            }
        }
        panic!("never let through: {:?}", world.hosts[host].node.status(world.now).counters)
    }
}

fn users(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("u{n}")).collect()
}

fn office_of(seed: u64, n: usize) -> World {
    let users = users(n);
    office(seed, &users.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Which hosts hold a share of `user`: asked as that user's device would.
fn holders(world: &mut World, user: usize, epoch_of: &[u8; 16]) -> Vec<usize> {
    let identity = world.hosts[user].identity.clone().unwrap();
    (0..world.hosts.len())
        .filter(|host| !world.hosts[*host].dead)
        .collect::<Vec<_>>()
        .into_iter()
        .filter(|host| {
            let request = ShareRequest::Check { epoch: *epoch_of };
            as_member(world, *host, &identity, &request) == ShareAnswer::Yes
        })
        .collect()
}

fn as_member(world: &mut World, host: usize, identity: &Identity, request: &ShareRequest) -> ShareAnswer {
    let raw = world.raw();
    let unix = START + world.now.since(Instant::ZERO);
    world.raws[raw].proof = Some(Arc::new(identity.verified(unix).unwrap()));
    let reply = Stranger { raw }.ask(world, host, SHARE_TYPE, request.encode());
    assert_eq!(reply.status(), 200);
    ShareAnswer::decode(reply.body()).unwrap()
}

/// The epoch of the password that is set, out of the holders' files.
fn epochs(world: &World) -> BTreeMap<[u8; 16], usize> {
    use chordial::node::Saved;
    let mut epochs = BTreeMap::new();
    for host in &world.hosts {
        let Some((_, bytes)) = host.files.iter().find(|(what, _)| *what == Saved::Shares) else { continue };
        // A key begins with an array of three and a byte string of sixteen.
        for at in bytes.windows(2).enumerate().filter(|(_, w)| *w == [0x83, 0x50]).map(|(at, _)| at + 2) {
            if let Some(epoch) = bytes.get(at..at + 16) {
                *epochs.entry(epoch.try_into().unwrap()).or_insert(0) += 1;
            }
        }
    }
    epochs
}

#[test]
fn name_and_password_open_the_users_key_at_any_supernode() {
    let mut world = office_of(1, 6);
    assert_eq!(set_password(&mut world, 2, PASSWORD), Ok(4));
    let stranger = Stranger::new(&mut world);
    for host in 0..6 {
        let recovered = stranger.log_in(&mut world, host, "u2", PASSWORD).expect("right");
        assert_eq!(recovered.anchor(), world.hosts[2].identity.as_ref().unwrap().anchor);
        let unix = START + world.now.since(Instant::ZERO);
        let device = recovered.device("laptop", unix, &mut world.rng).unwrap();
        assert_eq!(device.aor(), format!("sip:u2@{OFFICE}"));
        // It is a member from then on: whom it asks answers.
        let answer = as_member(&mut world, host, &device, &ShareRequest::Decoys);
        assert!(matches!(answer, ShareAnswer::Bytes(_)));
        world.run(seconds(600));
    }
    let stranger = Stranger::new(&mut world);
    let wrong = stranger.log_in(&mut world, 3, "u2", "incorrect horse").map(|_| ());
    assert_eq!(wrong, Err(LoginError::Wrong));
    assert_eq!(wrong.unwrap_err().to_string(), "name or password is wrong");
    // u3 exists and has set no password, u99 does not exist.
    for nobody in ["u3", "u99"] {
        assert_eq!(stranger.log_in(&mut world, 3, nobody, PASSWORD).map(|_| ()), Err(LoginError::Wrong));
    }
}

#[test]
fn the_answer_does_not_tell_which_names_exist() {
    let mut world = office_of(2, 6);
    set_password(&mut world, 2, PASSWORD).unwrap();
    let stranger = Stranger::new(&mut world);
    let asked = |world: &mut World, host: usize, user: &str| {
        let attempt = LoginAttempt::new(user, OFFICE, PASSWORD, &mut Rng::from_seed(7)).unwrap();
        let begun = world.now;
        let reply = stranger.ask(world, host, LOGIN_TYPE, attempt.request().encode());
        let took = world.now.since(begun);
        world.run(seconds(300));
        (reply.status(), reply.body().to_vec(), took.as_millis())
    };
    let known = asked(&mut world, 0, "u2");
    let unknown = asked(&mut world, 0, "u9");
    assert_eq!((known.0, known.1.len(), known.2), (unknown.0, unknown.1.len(), unknown.2));
    // The same question has the same answer wherever it is asked, of both.
    for host in 1..6 {
        assert_eq!(asked(&mut world, host, "u2").1, known.1, "{host}");
        assert_eq!(asked(&mut world, host, "u9").1, unknown.1, "{host}");
    }
    // Both are slowed alike.
    let waits = ["u2", "u9"].map(|user| {
        let stranger = Stranger::new(&mut world);
        (0..30).map(|_| stranger.try_once(&mut world, 0, user, "wrong").err()).collect::<Vec<_>>()
    });
    assert!(waits[0].iter().any(Option::is_some));
    assert_eq!(waits[0], waits[1]);
}

#[test]
fn two_holders_may_die_and_their_shares_find_new_ones_without_the_password() {
    let mut world = office_of(3, 9);
    set_password(&mut world, 0, PASSWORD).unwrap();
    let epoch = *epochs(&world).keys().next().unwrap();
    let first = holders(&mut world, 0, &epoch);
    assert_eq!(first.len(), 4);
    assert!(!first.contains(&0), "the user's own device holds none while there are others");
    for host in &first[..2] {
        world.kill(*host);
    }
    world.run(seconds(30));
    let alive = (0..9).find(|h| !world.hosts[*h].dead && *h != 0).unwrap();
    let stranger = Stranger::new(&mut world);
    stranger.log_in(&mut world, alive, "u0", PASSWORD).expect("two are left");
    // The owner's device is online: the shares move.
    world.run(seconds(1800));
    let second = holders(&mut world, 0, &epoch);
    assert!(second.len() == 4 && !second.contains(&0), "{second:?}");
    assert!(first[2..].iter().all(|h| second.contains(h)), "{first:?} {second:?}");
    // Now even the two that were left may go, and the owner's device with them.
    for host in first[2..].iter().chain(&[0]) {
        world.kill(*host);
    }
    world.run(seconds(60));
    let alive = (0..9).find(|h| !world.hosts[*h].dead).unwrap();
    let stranger = Stranger::new(&mut world);
    let recovered = stranger.log_in(&mut world, alive, "u0", PASSWORD).expect("new holders");
    let unix = START + world.now.since(Instant::ZERO);
    assert_eq!(recovered.device("", unix, &mut world.rng).unwrap().user(), "u0");
}

#[test]
fn a_changed_password_is_the_only_one_and_the_old_keys_are_forgotten() {
    let mut world = office_of(4, 8);
    set_password(&mut world, 1, "the old one").unwrap();
    let old = *epochs(&world).keys().next().unwrap();
    set_password(&mut world, 1, "the new one").unwrap();
    let now = epochs(&world);
    assert!(!now.contains_key(&old), "a holder kept an old key");
    assert_eq!(now.values().sum::<usize>(), 4);
    let stranger = Stranger::new(&mut world);
    assert_eq!(stranger.log_in(&mut world, 2, "u1", "the old one").map(|_| ()), Err(LoginError::Wrong));
    assert!(stranger.log_in(&mut world, 2, "u1", "the new one").is_ok());
    // Even a member who kept the old record gets no answer under the old keys.
    let curious = world.hosts[3].identity.clone().unwrap();
    let blinded = LoginAttempt::new("u1", OFFICE, "the old one", &mut world.rng).unwrap().request().blinded;
    for host in 0..8 {
        let request = ShareRequest::Evaluate { user: "u1".into(), epoch: old, source: vec![host as u8], blinded };
        assert_eq!(as_member(&mut world, host, &curious, &request), ShareAnswer::No);
    }
}

#[test]
fn a_thousand_guesses_get_nowhere_and_the_owner_still_gets_in() {
    let mut world = office_of(5, 6);
    set_password(&mut world, 0, PASSWORD).unwrap();
    let guesser = Stranger::new(&mut world);
    let (mut answered, mut refused) = (0, 0);
    for n in 0..1000 {
        match guesser.try_once(&mut world, n % 6, "u0", &format!("guess {n}")) {
            Ok(result) => {
                assert_eq!(result.map(|_| ()), Err(LoginError::Wrong));
                answered += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(answered <= 60 && refused >= 940, "{answered} of 1000 were looked at");
    // From elsewhere the owner waits half a minute at most, and from the guesser's own network an hour.
    let begun = world.now;
    let owner = Stranger::new(&mut world);
    assert!(owner.log_in(&mut world, 1, "u0", PASSWORD).is_ok());
    assert!(world.now.since(begun) <= seconds(70), "{:?}", world.now.since(begun));
    assert!(guesser.log_in(&mut world, 1, "u0", PASSWORD).is_ok());
    assert!(world.now.since(begun) <= seconds(2 * 3600), "{:?}", world.now.since(begun));
}

#[test]
fn attempts_are_remembered_over_a_restart_and_shares_as_well() {
    let mut world = office_of(6, 5);
    set_password(&mut world, 0, PASSWORD).unwrap();
    let guesser = Stranger::new(&mut world);
    let exhaust = |world: &mut World| (0..40).find_map(|_| guesser.try_once(world, 1, "u0", "wrong").err());
    exhaust(&mut world).expect("slowed");
    world.run(seconds(3));
    for host in 1..5 {
        world.kill(host);
        world.run(seconds(20));
        world.return_with_shares(host);
        world.run(seconds(30));
    }
    let before: u64 = (1..5).map(|h| world.hosts[h].counter(world.now, "password attempts that came too early")).sum();
    let again = (0..4).filter(|_| guesser.try_once(&mut world, 1, "u0", "wrong").is_err()).count();
    let after: u64 = (1..5).map(|h| world.hosts[h].counter(world.now, "password attempts that came too early")).sum();
    assert!(again >= 2 && after > before, "{again} of 4 refused, {before} {after}");
    let owner = Stranger::new(&mut world);
    assert!(owner.log_in(&mut world, 1, "u0", PASSWORD).is_ok(), "no share was lost");
}

#[test]
fn one_supernode_is_too_few_and_two_are_enough() {
    let mut alone = office_of(7, 1);
    let no = set_password(&mut alone, 0, PASSWORD).unwrap_err();
    assert!(no.contains("fewer than two supernodes"), "{no}");
    let mut two = office_of(8, 2);
    assert_eq!(set_password(&mut two, 0, PASSWORD), Ok(2));
    let stranger = Stranger::new(&mut two);
    assert!(stranger.log_in(&mut two, 0, "u0", PASSWORD).is_ok());
    // More come: the shares that had no holder get one, and not a second one to whom has one.
    let mut three = office_of(9, 5);
    (0..4).rev().take(2).for_each(|h| three.kill(h));
    three.run(seconds(40));
    assert_eq!(set_password(&mut three, 0, PASSWORD), Ok(3));
    for host in [2, 3] {
        three.return_with_shares(host);
    }
    three.run(seconds(1800));
    let epoch = *epochs(&three).keys().next().unwrap();
    assert_eq!(holders(&mut three, 0, &epoch).len(), 4);
}

#[test]
fn strangers_ask_nothing_else_and_nonsense_is_refused() {
    let mut world = office_of(10, 3);
    let stranger = Stranger::new(&mut world);
    for request in [ShareRequest::Decoys, ShareRequest::Check { epoch: [0; 16] }, ShareRequest::Forget { keep: None }] {
        assert_eq!(stranger.ask(&mut world, 0, SHARE_TYPE, request.encode()).status(), 403);
    }
    for nonsense in [vec![], vec![0xff; 40], b"hello".to_vec()] {
        assert_eq!(stranger.ask(&mut world, 0, LOGIN_TYPE, nonsense).status(), 400);
    }
    // What is no group element is evaluated by nobody, and does not say whether the name exists.
    let mut request = LoginAttempt::new("u1", OFFICE, "x", &mut world.rng).unwrap().request();
    request.blinded = [0xff; 32];
    assert_eq!(stranger.ask(&mut world, 0, LOGIN_TYPE, request.encode()).status(), 503);
    // In an open overlay nobody logs in.
    let mut open = World::ring(11, &["alice", "bob"]);
    let stranger = Stranger::new(&mut open);
    let request = LoginAttempt::new("alice", "chordial", "x", &mut open.rng).unwrap().request();
    assert_eq!(stranger.ask(&mut open, 0, LOGIN_TYPE, request.encode()).status(), 503);
    let parts = PasswordParts::make("alice", "chordial", "x", CHEAP, &mut open.rng).unwrap();
    let no = open.ask(0, Command::Password { parts: Redacted::new(parts.to_hex().to_string()) }).unwrap_err();
    assert!(no.what.contains("open overlay"), "{no}");
}
