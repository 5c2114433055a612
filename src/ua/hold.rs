//! Hold, resume and mute by this end. The other end's own hold is understood with every description of it (`within`).
//!
//! Who is held hears silence, not nothing: a stream that stops looks like a broken one to many ends, and closes the pinholes of NATs.
//! Left out: music on hold.

use super::{CallId, Output, State, Ua, UaEvent};
use crate::core::Instant;

impl Ua {
    /// Puts the other end on hold, or takes it back; [`UaEvent::HoldAnswered`] follows. False when the call is not answered.
    pub fn hold(&mut self, now: Instant, id: CallId, hold: bool) -> bool {
        let Some(call) = self.calls.get_mut(&id).filter(|c| c.state == State::Answered && c.talk.is_some()) else {
            return false;
        };
        let under_way = call.talk.as_ref().and_then(|t| t.reoffer.as_ref()).filter(|r| !r.answered);
        let coming = call.wish.hold.or(under_way.and_then(|r| r.wish.hold));
        if coming.is_none() && call.held == hold {
            self.hold_settled(now, id, hold, Ok(()));
            return true;
        }
        // Nothing of what is said meanwhile goes out.
        if hold {
            self.out.push_back(Output::Mute { call: id, muted: true });
        }
        call.wish.hold = Some(hold);
        self.reoffer(now, id);
        true
    }

    /// Sends silence instead of what is said here, or that again. False when the call is not answered.
    pub fn mute(&mut self, id: CallId, muted: bool) -> bool {
        let Some(call) = self.calls.get_mut(&id).filter(|c| c.state == State::Answered) else { return false };
        call.muted = muted;
        let muted = call.is_silent();
        self.out.push_back(Output::Mute { call: id, muted });
        true
    }

    /// What became of [`Ua::hold`].
    pub(super) fn hold_settled(&mut self, now: Instant, id: CallId, hold: bool, result: Result<(), (u16, String)>) {
        if result.is_err()
            && let Some(call) = self.calls.get(&id)
        {
            let muted = call.is_silent();
            self.out.push_back(Output::Mute { call: id, muted });
        }
        self.event(UaEvent::HoldAnswered { call: id, hold, result: result.clone() });
        self.on_held_for_transfer(now, id, hold, result);
    }
}
