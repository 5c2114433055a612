//! A 3xx is followed (RFC 3261 section 8.1.3.4): its Contacts one after the other in the order of their `q`, nobody twice, and not for
//! ever.

use super::call::State;
use super::{CallId, Ua, UaEvent};
use crate::sip::msg::{Message, Uri};

/// Most places that one call is sent to by others.
const PLACES: usize = 10;

impl Ua {
    /// Remembers where a 3xx sends the caller.
    pub(super) fn on_redirected(&mut self, id: CallId, response: &Message) {
        // 380 describes another service for a person; its Contacts are no places to ring.
        if !matches!(response.status(), 300 | 301 | 302 | 305) {
            return;
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        let mut contacts = response.contacts().unwrap_or_default();
        contacts.sort_by_key(|c| std::cmp::Reverse(c.q().unwrap_or(1000)));
        for contact in contacts.into_iter().filter(|c| c.uri.is_sip()) {
            let mut uri = contact.uri;
            // Fields that somebody else wrote have no business in our INVITE.
            uri.headers.clear();
            uri.params.remove("method");
            let known = call.legs.iter().any(|l| Uri::parse(&l.target.uri).is_ok_and(|u| u.matches(&uri)));
            let uri = uri.to_string();
            if known || call.with == uri || call.visited.len() >= PLACES || call.visited.contains(&uri) {
                continue;
            }
            call.visited.push(uri.clone());
            call.redirects.push_back(uri);
        }
    }

    /// Goes to the next place, once all others have refused: [`UaEvent::Redirected`]; false when there is none.
    pub(super) fn follow(&mut self, id: CallId) -> bool {
        let Some(call) = self.calls.get_mut(&id).filter(|c| !c.is_over() && c.talk.is_none()) else { return false };
        let Some(to) = call.redirects.pop_front() else { return false };
        call.state = State::LookingUp;
        self.event(UaEvent::Redirected { call: id, to });
        true
    }
}
