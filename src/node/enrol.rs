//! Invites, and what whoever shows no chain may ask: to redeem one or a device's code (by its long code, or an invite by a short one
//! in two steps), and to log in by name and password (SPEC section 5).

use super::Node;
use super::control::{CommandError, Reply};
use crate::core::{Flow, Instant};
use crate::identity::login::LOGIN_TYPE;
use crate::identity::{ENROLMENT_TYPE, INVITE_LIFETIME, JoinRequest, PAIRING_TYPE};
use crate::sip::msg::{Message, Method};
use crate::sip::tx::ServerTxId;

/// Most addresses in a code, to keep it short enough to be typed.
const INVITE_ADDRESSES: usize = 3;

impl Node {
    /// A one-time code for `user`.
    pub(super) fn invite(&mut self, now: Instant, user: &str, extension: Option<&str>) -> Result<Reply, CommandError> {
        let mut addrs = self.own_addresses();
        addrs.truncate(INVITE_ADDRESSES);
        let unix = self.unix(now);
        let Some(enroller) = self.identity.as_mut().and_then(|i| i.enroller.as_mut()) else {
            let what = "this device does not administer an office";
            return Err(CommandError::new(what, "ask on the device that ran `chordial office create`"));
        };
        let code = enroller.invite(user, extension, &addrs, INVITE_LIFETIME, unix, &mut self.rng).map_err(|fault| {
            CommandError::new(format!("no invite for {user}: {fault}"), "choose another name, or see `chordial status`")
        })?;
        self.save_identity();
        Ok(Reply::Invite { code: code.text(), expires: INVITE_LIFETIME.as_secs() })
    }

    /// A request on a link whose other end has no chain that holds.
    pub(super) fn on_stranger(&mut self, now: Instant, tx: ServerTxId, message: Message, flow: Flow) {
        if *message.method() == Method::Register && message.content_is(LOGIN_TYPE) {
            return self.on_login_request(now, tx, &message, flow);
        }
        if *message.method() == Method::Register && message.content_is(PAIRING_TYPE) {
            return self.on_pairing_request(now, tx, &message, flow);
        }
        if *message.method() != Method::Register || !message.content_is(ENROLMENT_TYPE) {
            self.count("requests of strangers refused");
            return self.answer(now, tx, &message, 403, "Members only");
        }
        let unix = self.unix(now);
        let source = flow.remote.ip();
        let answer = match (self.identity.as_mut(), JoinRequest::decode(message.body())) {
            (Some(identity), Ok(request)) => {
                let (codes, rng) = (&mut self.people.codes, &mut self.rng);
                match identity.enroller.as_mut() {
                    // A code of this user's own devices goes before the office's; a wrong one counts once.
                    Some(enroller) if !codes.knows(&request) => {
                        enroller.redeem(&request, source, unix, rng).ok().map(|answer| answer.encode())
                    }
                    _ => codes.redeem(identity, &request, source, unix).ok().map(|answer| answer.encode()),
                }
            }
            _ => None,
        };
        match answer {
            Some(answer) => {
                // On disk before it is sent: a code must not work twice.
                self.save_identity();
                let mut ok = Message::reply(&message, 200, "OK");
                ok.set_to_tag(&self.rng.token(6));
                ok.set_body(ENROLMENT_TYPE, answer);
                self.tx.respond(now, tx, ok);
                self.book_changed(now);
                tracing::info!(from = %flow.remote.ip(), "a code was redeemed");
            }
            None => {
                self.count("enrolments refused");
                tracing::warn!(from = %flow.remote.ip(), "an enrolment was refused");
                self.answer(now, tx, &message, 403, "Refused");
            }
        }
    }
}
