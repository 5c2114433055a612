//! Holding one share's key of a user, and answering under it.

use super::{KEEP_ATTEMPTS, seconds};
use crate::core::{Flow, Instant};
use crate::identity::Verified;
use crate::identity::login::{Held, SHARE_TYPE, ShareAnswer, ShareRequest};
use crate::node::Node;
use crate::sip::msg::Message;
use crate::sip::tx::ServerTxId;

impl Node {
    /// A member's request about shares.
    pub(in crate::node) fn on_share_request(&mut self, now: Instant, tx: ServerTxId, message: &Message, flow: Flow) {
        let (Some(peer), Ok(request)) = (self.flows.peer(&flow).cloned(), ShareRequest::decode(message.body())) else {
            self.count("requests about password shares that make no sense");
            return self.answer(now, tx, message, 400, "Bad Request");
        };
        let answer = self.answer_share(now, &peer, &request);
        self.answer_exchange(now, tx, message, SHARE_TYPE, answer.encode());
    }

    /// What `from` is answered, a member.
    pub(super) fn answer_share(&mut self, now: Instant, from: &Verified, request: &ShareRequest) -> ShareAnswer {
        let unix = self.unix(now);
        let book = &mut self.login.book;
        match request {
            ShareRequest::Hold { epoch, number, key } => {
                let held = book.hold(&from.user, from.user_key, *epoch, *number, key, unix);
                if held == Held::New {
                    self.save_shares();
                }
                if held == Held::No {
                    self.count("password shares not taken");
                }
                if held == Held::No { ShareAnswer::No } else { ShareAnswer::Yes }
            }
            ShareRequest::Check { epoch } => match book.check(&from.user, from.user_key, *epoch, unix) {
                true => ShareAnswer::Yes,
                false => ShareAnswer::No,
            },
            ShareRequest::Forget { keep } => {
                if book.forget(&from.user, from.user_key, *keep) {
                    self.save_shares();
                }
                ShareAnswer::Yes
            }
            ShareRequest::Evaluate { user, epoch, source, blinded } => {
                let counted = self.login.attempts.at_holder(user, &from.peer_id, source, unix);
                if let Err(wait) = counted {
                    self.count("password attempts that came too early");
                    return ShareAnswer::Wait(seconds(wait));
                }
                self.login.save.get_or_insert(now + KEEP_ATTEMPTS);
                match self.login.book.evaluate(user, epoch, blinded) {
                    Some(evaluation) => ShareAnswer::Bytes(evaluation),
                    None => ShareAnswer::No,
                }
            }
            ShareRequest::Decoys => match &book.decoys {
                Some(decoys) => ShareAnswer::Bytes(*decoys.secret()),
                None => ShareAnswer::No,
            },
        }
    }
}
