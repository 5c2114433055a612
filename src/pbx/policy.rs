//! Who a request from outside the overlay's links is taken for.
//!
//! A peer's link proves who it is, and the node says [`Origin::Peer`] itself. What comes over clear UDP or TCP proves
//! nothing; [`decide`] takes it for
//!
//! | From | | taken for |
//! |---|---|---|
//! | (any) | in a dialog that went through here, as our own Record-Route shows | [`Origin::Dialog`] |
//! | user of this overlay, held here | right credentials of that user | [`Origin::Phone`] |
//! | user of this overlay, held here | none, stale or wrong credentials | challenged, 407 |
//! | user of this overlay, held here | another user's credentials | refused, 403 |
//! | user of this overlay, not held here | | challenged, 407, whatever comes: who asks does not learn who is held here |
//! | elsewhere | | [`Origin::Outside`]: reaches users hosted here where anyone may ring, nothing else |
//!
//! A peer to which the phone of another comes sends its requests on to who holds its account, where the digest is asked for
//! ([`admit_from_edge`]).
//!
//! Without authentication (a laboratory) any user of this overlay is believed to be one's phone.
//!
//! Who calls from outside and may not have anything carried elsewhere may still not ring here: [`receive`] says who does, by
//! the user's choice (`strangers`) and by how the caller stands. A caller of another overlay is [`Origin::Foreign`], with a
//! proven key; one in clear proves nothing and rings only where anyone may.
//!
//! A phone that hides its From (`anonymous@anonymous.invalid`) is a stranger: it would have to be told by its flow,
//! which UDP does not prove.

use super::Candidate;
use super::registrar::{Auth, Registrar};
use super::router::Router;
use crate::config::Strangers;
use crate::core::{Flow, Id, Instant, UnixTime};
use crate::identity::Standing;
use crate::sip::auth::Verdict;
use crate::sip::msg::{HeaderName, Message};
use std::net::IpAddr;

/// What a peer says of a call that came in from outside there: by which account, who calls, for whom it was before.
pub const OUTSIDE_CALLER: HeaderName<'static> = HeaderName::Other("Outside-Caller");

/// Where a request came from, as far as that is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A standard phone whose account is held here.
    Phone {
        /// The account's user name.
        user: String,
        /// Another peer carries its requests.
        edge: bool,
    },
    /// A standard phone whose account others hold: its requests are carried to the first of them that is there.
    Edge {
        /// Who holds it, the first before the others (by `q`).
        adapters: Vec<Candidate>,
    },
    /// Another peer, over its link.
    Peer {
        /// The user whose device it is.
        user: String,
        /// The peer-ID that its link proved.
        id: Id,
    },
    /// This node's own user agent.
    Ua {
        /// Its user name.
        user: String,
    },
    /// A device of another overlay, over a link: reaches users of this overlay, nothing else.
    Foreign,
    /// Whoever calls in by an account of this node's user: reaches that user, nothing else.
    Account {
        /// Where a NAT shows this node to that registrar.
        seen: Option<std::net::SocketAddr>,
    },
    /// Nobody known, inside a dialog that was let through here before.
    Dialog,
    /// Nobody known.
    Outside,
}

impl Origin {
    /// True for those whose requests are carried anywhere; the others reach what is hosted here or a dialog of theirs.
    pub const fn is_member(&self) -> bool {
        matches!(self, Origin::Phone { .. } | Origin::Peer { .. } | Origin::Ua { .. })
    }
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Take it, as from this origin.
    Admit(Origin),
    /// Answer 407, with `stale=true` where the password was right.
    Challenge {
        /// Only the nonce is too old.
        stale: bool,
    },
    /// Answer 403.
    Refuse,
}

/// The policy. `claims` is the user of this overlay whom From names, `in_dialog` that the request's route proves its
/// dialog, `held` whether an account is held here, and `verify` checks the request's Proxy-Authorization.
pub fn decide(
    claims: Option<&str>,
    in_dialog: bool,
    auth: Auth,
    held: impl FnOnce(&str) -> bool,
    verify: impl FnOnce() -> Verdict,
) -> Decision {
    let Some(user) = claims.filter(|_| !in_dialog) else {
        return Decision::Admit(if in_dialog { Origin::Dialog } else { Origin::Outside });
    };
    let phone = || Decision::Admit(Origin::Phone { user: user.to_owned(), edge: false });
    match auth {
        Auth::None => phone(),
        Auth::Digest => match verify() {
            Verdict::Ok(proven) if proven == user && held(user) => phone(),
            Verdict::Ok(_) => Decision::Refuse,
            Verdict::Stale => Decision::Challenge { stale: true },
            Verdict::Bad | Verdict::Missing => Decision::Challenge { stale: false },
        },
    }
}

/// What is done with the call of somebody from another overlay whose key is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reception {
    /// It rings.
    Ring,
    /// It is refused and shown once, so that the user can take the caller up.
    Knock,
    /// The same, with the warning that another key was known.
    Changed,
    /// It is declined, and nothing is shown.
    Decline,
}

/// Whether a caller of another overlay rings. `token` that the caller has shown the word of a contact link.
pub fn receive(strangers: Strangers, standing: Standing, token: bool) -> Reception {
    match (strangers, standing) {
        (Strangers::Nobody, _) | (_, Standing::Blocked) => Reception::Decline,
        (_, Standing::Changed) => Reception::Changed,
        (_, Standing::Contact) | (Strangers::Anyone, _) | (Strangers::Known, Standing::Known) => Reception::Ring,
        _ if token => Reception::Ring,
        _ => Reception::Knock,
    }
}

/// Applies the policy to a request (not ACK, CANCEL or REGISTER) that came over clear UDP or TCP.
///
/// # Errors
/// The response to refuse it with: 400, 403 or 407.
pub fn admit(
    registrar: &mut Registrar,
    router: &Router,
    (now, unix): (Instant, UnixTime),
    request: &Message,
    flow: &Flow,
) -> Result<Origin, Box<Message>> {
    let Ok(from) = request.from() else {
        return Err(Box::new(registrar.refuse(request, 400, "Malformed From header field")));
    };
    let claims = registrar.domain().user_of(&from.uri);
    let in_dialog = claims.is_some() && router.proves_dialog(request);
    settle(registrar, (now, unix), request, (claims, in_dialog), Some(flow.remote.ip()))
}

/// The same for what a member's peer sends on for a phone, from outside of any dialog: the digest is the proof, and From may name
/// the overlay by that peer's address.
///
/// # Errors
/// The response to refuse it with: 400, 403 or 407.
pub fn admit_from_edge(
    registrar: &mut Registrar,
    at: (Instant, UnixTime),
    request: &Message,
) -> Result<Origin, Box<Message>> {
    let Ok(from) = request.from() else {
        return Err(Box::new(registrar.refuse(request, 400, "Malformed From header field")));
    };
    match settle(registrar, at, request, (registrar.domain().user_behind(&from.uri), false), None)? {
        Origin::Phone { user, .. } => Ok(Origin::Phone { user, edge: true }),
        _ => Err(Box::new(registrar.refuse(request, 403, "Forbidden"))),
    }
}

fn settle(
    registrar: &mut Registrar,
    (now, unix): (Instant, UnixTime),
    request: &Message,
    (claims, in_dialog): (Option<String>, bool),
    source: Option<IpAddr>,
) -> Result<Origin, Box<Message>> {
    let held = claims.as_deref().is_some_and(|user| registrar.accounts().get(user).is_some());
    let auth = registrar.auth();
    match decide(claims.as_deref(), in_dialog, auth, |_| held, || registrar.authenticate(now, unix, request, source)) {
        Decision::Admit(origin) => Ok(origin),
        Decision::Challenge { stale } => Err(Box::new(registrar.challenge(unix, request, stale))),
        Decision::Refuse => Err(Box::new(registrar.refuse(request, 403, "Forbidden"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(claims: Option<&str>, in_dialog: bool, auth: Auth, verdict: Verdict) -> Decision {
        decide(claims, in_dialog, auth, |user| user == "bob", || verdict)
    }

    fn bob() -> Decision {
        Decision::Admit(Origin::Phone { user: "bob".into(), edge: false })
    }

    #[test]
    fn a_phone_proves_its_user() {
        let bob_claimed = |verdict| with(Some("bob"), false, Auth::Digest, verdict);
        assert_eq!(bob_claimed(Verdict::Ok("bob".into())), bob());
        assert_eq!(bob_claimed(Verdict::Ok("alice".into())), Decision::Refuse);
        assert_eq!(bob_claimed(Verdict::Missing), Decision::Challenge { stale: false });
        assert_eq!(bob_claimed(Verdict::Bad), Decision::Challenge { stale: false });
        assert_eq!(bob_claimed(Verdict::Stale), Decision::Challenge { stale: true });
    }

    #[test]
    fn users_of_other_peers_do_not_speak_in_clear() {
        // As a wrong password of one that is held: nobody learns who is.
        let challenged = Decision::Challenge { stale: false };
        assert_eq!(with(Some("carol"), false, Auth::Digest, Verdict::Bad), challenged);
        assert_eq!(with(Some("carol"), false, Auth::Digest, Verdict::Missing), challenged);
        assert_eq!(with(Some("carol"), false, Auth::Digest, Verdict::Ok("bob".into())), Decision::Refuse);
    }

    #[test]
    fn strangers_and_dialogs() {
        assert_eq!(with(None, false, Auth::Digest, Verdict::Missing), Decision::Admit(Origin::Outside));
        assert_eq!(with(None, false, Auth::None, Verdict::Missing), Decision::Admit(Origin::Outside));
        assert_eq!(with(Some("bob"), true, Auth::Digest, Verdict::Missing), Decision::Admit(Origin::Dialog));
        assert_eq!(with(Some("carol"), true, Auth::Digest, Verdict::Missing), Decision::Admit(Origin::Dialog));
    }

    #[test]
    fn who_rings_from_another_overlay() {
        use Standing as S;
        use Strangers::{Anyone, Contacts, Known, Nobody};
        let rings = |strangers| {
            let all = [S::Contact, S::Known, S::Stranger, S::Changed, S::Blocked];
            all.map(|standing| receive(strangers, standing, false) == Reception::Ring)
        };
        assert_eq!(rings(Contacts), [true, false, false, false, false]);
        assert_eq!(rings(Known), [true, true, false, false, false]);
        assert_eq!(rings(Anyone), [true, true, true, false, false]);
        assert_eq!(rings(Nobody), [false; 5]);
        for (strangers, standing, what) in [
            (Contacts, S::Stranger, Reception::Ring),
            (Contacts, S::Changed, Reception::Changed),
            (Contacts, S::Blocked, Reception::Decline),
            (Nobody, S::Stranger, Reception::Decline),
        ] {
            assert_eq!(receive(strangers, standing, true), what, "{strangers:?} {standing:?}");
        }
    }

    #[test]
    fn a_laboratory_believes() {
        assert_eq!(with(Some("bob"), false, Auth::None, Verdict::Missing), bob());
    }
}
