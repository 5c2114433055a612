//! Calls that end by themselves: the other end is there no more, or cannot be talked with as agreed. The BYE says why (RFC 3326), and
//! so does the report; whoever gets such a BYE reports what it says.

use super::{CallId, Ending, State, Ua};
use crate::core::Instant;
use crate::sip::msg::{HeaderName, Message, Params};

/// Longest text of another end that is shown.
const SHOWN: usize = 120;

/// Why a call cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nothing comes from the other end any more.
    Vanished,
    /// Its voice cannot be encrypted as agreed.
    Unsecured,
}

impl Cause {
    /// As the header `Reason` names it: Q.850's "recovery on timer expiry", or what an offer would have been refused with.
    const fn protocol(self) -> &'static str {
        match self {
            Cause::Vanished => "Q.850;cause=102",
            Cause::Unsecured => "SIP;cause=488",
        }
    }

    const fn ending(self) -> Ending {
        match self {
            Cause::Vanished => Ending::Lost,
            Cause::Unsecured => Ending::Failed,
        }
    }

    const fn status(self) -> u16 {
        match self {
            Cause::Vanished => 408,
            Cause::Unsecured => 488,
        }
    }
}

impl Ua {
    /// Ends a call by itself; `why` is for a person at either end.
    pub fn cut(&mut self, now: Instant, id: CallId, cause: Cause, why: String) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.state != State::Answered {
            return self.give_up(now, id, cause.status(), why);
        }
        let text: String = why.chars().filter(|c| !c.is_control() && !matches!(c, '"' | '\\')).collect();
        call.bye_reason = Some(format!("{};text=\"{text}\"", cause.protocol()));
        self.end_talk(id);
        self.finish(now, id, cause.ending(), cause.status(), why);
    }
}

/// What the other end's BYE says of a call that it has ended by itself.
pub(super) fn said(bye: &Message) -> Option<(Ending, u16, String)> {
    bye.values(HeaderName::Reason).find_map(|value| {
        let cause = [Cause::Vanished, Cause::Unsecured].into_iter().find(|c| {
            let (wanted, number) = c.protocol().split_once(';').unwrap_or_default();
            let mut parts = value.split(';').map(str::trim);
            parts.next().is_some_and(|p| p.eq_ignore_ascii_case(wanted))
                && parts.any(|p| p.eq_ignore_ascii_case(number))
        })?;
        let text = reason_text(value, SHOWN).unwrap_or_default();
        Some((cause.ending(), cause.status(), format!("ended there: {text}")))
    })
}

/// The text in a value of Reason (RFC 3326), `most` characters of it.
pub(super) fn reason_text(value: &str, most: usize) -> Option<String> {
    let (_, params) = value.split_once(';')?;
    let text = Params::parse(&format!(";{params}")).ok()?.get_unquoted("text")?.into_owned();
    Some(text.chars().filter(|c| !c.is_control()).take(most).collect())
}
