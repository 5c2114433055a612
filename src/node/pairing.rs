//! Inviting by six digits ([`crate::identity::PairingInviter`] says why that is enough): the node shows them, a machine beside it
//! proves to know them and is handed the long invite code.
//!
//! One pairing at a time, for ten minutes, three proofs in all; then the invite behind it is taken back.

use super::Node;
use super::control::{CommandError, Event, Reply};
use crate::core::{Flow, Instant, Rng};
use crate::identity::{
    INVITE_LIFETIME, InviteCode, MAX_PAIRING_TRIES, PAIRING_TYPE, PairingAnswer, PairingInviter, PairingRequest,
    PublicKey, ShortCode,
};
use crate::sip::msg::Message;
use crate::sip::tx::ServerTxId;
use std::collections::VecDeque;
use std::time::Duration;

/// How long the digits are good.
const GOOD_FOR: Duration = Duration::from_secs(600);
/// Exchanges under way; the oldest gives way.
const SESSIONS: usize = 8;

/// The digits on the screen.
#[derive(Debug)]
pub(super) struct Pairing {
    user: String,
    code: ShortCode,
    invite: InviteCode,
    until: Instant,
    tries: u8,
    sessions: VecDeque<PairingInviter>,
}

/// What became of a stranger's message.
enum Outcome {
    Answer(PairingAnswer),
    Right(PairingAnswer),
    Wrong,
    Void,
}

impl Pairing {
    fn take(&mut self, request: &PairingRequest, own: PublicKey, rng: &mut Rng) -> Outcome {
        match request {
            PairingRequest::Hello { .. } => match PairingInviter::new(&self.code, own, request, rng) {
                Ok(inviter) => {
                    let answer = inviter.hello();
                    if self.sessions.len() >= SESSIONS {
                        self.sessions.pop_front();
                    }
                    self.sessions.push_back(inviter);
                    Outcome::Answer(answer)
                }
                Err(_) => Outcome::Wrong,
            },
            PairingRequest::Proof { session, proof } => {
                let Some(at) = self.sessions.iter().position(|s| s.session == *session) else { return Outcome::Wrong };
                let right = self.sessions.remove(at).and_then(|s| s.invite(proof, &self.invite, rng));
                if let Some(answer) = right {
                    return Outcome::Right(answer);
                }
                self.tries += 1;
                if self.tries >= MAX_PAIRING_TRIES { Outcome::Void } else { Outcome::Wrong }
            }
        }
    }
}

impl Node {
    /// Six digits for `user`. Those of an invite before are void from now on.
    pub(super) fn pair(&mut self, now: Instant, user: &str) -> Result<Reply, CommandError> {
        self.end_pairing();
        let addrs = [self.flows.locals().overlay];
        let unix = self.unix(now);
        let Some(enroller) = self.identity.as_mut().and_then(|i| i.enroller.as_mut()) else {
            let what = "this device does not administer an office";
            return Err(CommandError::new(what, "ask on the device that ran `chordial office create`"));
        };
        let invite = enroller.invite(user, None, &addrs, INVITE_LIFETIME, unix, &mut self.rng).map_err(|fault| {
            CommandError::new(format!("no invite for {user}: {fault}"), "choose another name, or see `chordial status`")
        })?;
        self.save_identity();
        let code = ShortCode::generate(&mut self.rng);
        let digits = code.text();
        let until = now + GOOD_FOR;
        let (user, sessions) = (user.to_owned(), VecDeque::new());
        self.pairing = Some(Pairing { user, code, invite, until, tries: 0, sessions });
        Ok(Reply::Pairing { digits, expires: GOOD_FOR.as_secs() })
    }

    /// A stranger's request with a body of [`PAIRING_TYPE`].
    pub(super) fn on_pairing_request(&mut self, now: Instant, tx: ServerTxId, message: &Message, flow: Flow) {
        if self.pairing.as_ref().is_some_and(|p| p.until <= now) {
            self.end_pairing();
        }
        if self.pairing.is_some() && !self.let_stranger(now, tx, message, flow.remote.ip()) {
            return;
        }
        let own = self.identity.as_ref().map(|i| i.device_key());
        let (Some(pairing), Some(own)) = (self.pairing.as_mut(), own) else {
            return self.answer(now, tx, message, 404, "Nobody is invited by digits here");
        };
        let Ok(request) = PairingRequest::decode(message.body()) else {
            self.count("pairing requests that make no sense");
            return self.answer(now, tx, message, 400, "Bad Request");
        };
        match pairing.take(&request, own, &mut self.rng) {
            Outcome::Answer(answer) => self.answer_exchange(now, tx, message, PAIRING_TYPE, answer.encode()),
            Outcome::Right(answer) => {
                tracing::info!(from = %flow.remote.ip(), "six digits were right");
                let user = self.pairing.take().map(|p| p.user).unwrap_or_default();
                self.answer_exchange(now, tx, message, PAIRING_TYPE, answer.encode());
                self.event(None, Event::Paired { user, right: true });
            }
            Outcome::Wrong => {
                self.count("pairings refused");
                self.answer(now, tx, message, 403, "Refused");
            }
            Outcome::Void => {
                self.count("pairings refused");
                tracing::warn!(from = %flow.remote.ip(), "three wrong codes: the invite is void");
                let user = self.end_pairing().unwrap_or_default();
                self.answer(now, tx, message, 403, "Refused");
                self.event(None, Event::Paired { user, right: false });
            }
        }
    }

    /// Takes the digits and the invite behind them back; whose they were.
    fn end_pairing(&mut self) -> Option<String> {
        let Pairing { user, invite, .. } = self.pairing.take()?;
        if let Some(enroller) = self.identity.as_mut().and_then(|i| i.enroller.as_mut())
            && enroller.withdraw(&invite)
        {
            self.save_identity();
        }
        Some(user)
    }
}
