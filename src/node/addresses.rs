//! Who may see where this device is, in a call that comes in. Before the answer nobody is told: a call rings without a description.
//! With the answer the caller learns the addresses of the sockets, or, where `[media] addresses` says so and it is no contact, those of
//! relays alone: then no check leaves a socket either, so the caller's machine never hears from this one.
//!
//! A contact is whom `chordial contacts` lists: by the key in an open overlay and for people of other overlays, by the name in
//! an office, which gives each name once. Left out: whom this device calls, who has to be found by the addresses in the offer.

use super::Node;
use super::calls::Callee;
use crate::config::Addresses;
use crate::core::Instant;
use crate::identity::{Standing, split_aor};
use crate::ua::{CallId, Direction};

impl Node {
    /// Only relays' addresses are told in this call; to be asked before the first are.
    pub(super) fn hides_addresses(&mut self, now: Instant, call: CallId) -> bool {
        if self.setup.config.media.addresses == Addresses::Everybody {
            return false;
        }
        let summary = self.ua.summaries(now).into_iter().find(|s| s.call == call);
        let Some(summary) = summary.filter(|s| s.direction == Direction::In) else { return false };
        !self.is_contact(call, &summary.with) && self.ua.hide_addresses(call)
    }

    fn is_contact(&mut self, call: CallId, caller: &str) -> bool {
        if self.caller(call).is_some_and(|party| party.standing == Standing::Contact) {
            return true;
        }
        // Where names are anybody's to claim, only keys count.
        let Some((user, overlay)) = split_aor(caller).filter(|_| !self.is_open()) else { return false };
        if overlay != self.domain.overlay() {
            return false;
        }
        self.setup.config.media.members_are_contacts || self.is_own(user) || self.lists(caller)
    }

    /// One of the user's contacts is this member.
    fn lists(&self, aor: &str) -> bool {
        let is = |target: &&str| matches!(self.callee(target), Ok(Callee::Aor { aor: known, .. }) if known == aor);
        self.contact_targets().iter().any(is)
    }
}
