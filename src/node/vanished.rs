//! Calls whose other end is gone without a word. With ICE: nobody has answered a check or a probe for half a minute (the consent of
//! RFC 7675 section 5.1 is over; a restart was tried long before). Without: no RTP and no RTCP for `[media] rtp_timeout` seconds, unless
//! one end holds the other. The call ends with a BYE that says so, for whoever is there still.

use super::{MediaCommand, Node, Output};
use crate::core::Instant;
use crate::ua::{CallId, Cause, MediaPlan};
use std::collections::BTreeSet;
use std::time::Duration;

/// Without consent, a call ends.
const CONSENT: Duration = Duration::from_secs(30);

/// Calls without ICE that the other end's voice is expected in.
#[derive(Debug, Default)]
pub(super) struct Expected(BTreeSet<CallId>);

impl Node {
    /// What was agreed, in the beginning and whenever it changes.
    pub(super) fn expect_voice(&mut self, call: CallId, plan: &MediaPlan) {
        let both = plan.agreed.direction.sends() && plan.agreed.direction.receives();
        if both && plan.ice.is_none() {
            self.expected.0.insert(call);
        } else {
            self.expected.0.remove(&call);
        }
    }

    pub(super) fn expect_no_voice(&mut self, call: CallId) {
        self.expected.0.remove(&call);
    }

    /// Nothing has come for so long.
    pub(super) fn on_quiet(&mut self, now: Instant, call: CallId, quiet: Duration) {
        let most = Duration::from_secs(self.setup.config.media.rtp_timeout.into());
        if most.is_zero() || quiet < most || !self.expected.0.contains(&call) {
            return;
        }
        self.count("calls whose other end vanished");
        let why = format!("nothing has come from the other end for {} s", quiet.as_secs());
        self.ua.cut(now, call, Cause::Vanished, why);
    }

    /// The other end's consent to be sent to is over on every way.
    pub(super) fn on_consent_over(&mut self, now: Instant, call: CallId) {
        self.count("calls whose other end vanished");
        self.out.push_back(Output::Media(MediaCommand::Route { call, route: None }));
        let why = format!("the other end has not answered for {} s", CONSENT.as_secs());
        self.ua.cut(now, call, Cause::Vanished, why);
    }

    /// The voice of a call cannot be encrypted as agreed: the other end shows another certificate than its device has signed for, or
    /// the handshake comes to no end.
    pub(super) fn on_unsecured(&mut self, now: Instant, call: CallId, why: &str) {
        self.count("calls that could not be encrypted as agreed");
        self.calls.failed_security(call);
        self.ua.cut(now, call, Cause::Unsecured, format!("not encrypted as agreed: {why}"));
    }
}

/// When a call whose other end was there last at `alive` ends.
pub(super) fn consent_over(alive: Instant) -> Instant {
    alive + CONSENT
}
