//! Which of several final responses goes back (RFC 3261 section 16.7 steps 6 and 7).

use crate::sip::msg::{HeaderName, Message};

/// How one branch ended.
pub(super) struct Final {
    pub status: u16,
    /// The response with our Via taken off; none where we say so ourselves.
    pub message: Option<Message>,
}

/// The index of the best final response: any 6xx; else the lowest class; in it what helps the caller to try again,
/// then what a person did, then what nobody did. A cancelled call is told as such.
pub(super) fn choose(finals: &[Final], cancelled: bool) -> Option<usize> {
    let rank = |status: u16| match status {
        600.. => (0, 0),
        487 if cancelled => (1, 0),
        401 | 407 | 415 | 420 | 484 => (4, 0),
        486 => (4, 1),
        430 | 480 => (4, 3),
        404 | 410 | 481 => (4, 4),
        408 => (4, 5),
        487 => (4, 6),
        400..500 => (4, 2),
        503 => (5, 1),
        _ => (status / 100, 0),
    };
    finals.iter().enumerate().min_by_key(|(i, f)| (rank(f.status), *i)).map(|(i, _)| i)
}

/// Puts the challenges of all other 401 and 407 responses into the one that was chosen.
pub(super) fn add_challenges(chosen: &mut Message, others: &[Final]) {
    let others = others.iter().filter(|f| matches!(f.status, 401 | 407)).filter_map(|f| f.message.as_ref());
    for other in others {
        for name in [HeaderName::WwwAuthenticate, HeaderName::ProxyAuthenticate] {
            for value in other.headers(name) {
                chosen.push(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(statuses: &[u16], cancelled: bool) -> u16 {
        let finals: Vec<_> = statuses.iter().map(|&status| Final { status, message: None }).collect();
        finals[choose(&finals, cancelled).unwrap()].status
    }

    #[test]
    fn order() {
        assert_eq!(best(&[404, 603, 302], false), 603);
        assert_eq!(best(&[486, 302, 500], false), 302);
        assert_eq!(best(&[500, 404, 408], false), 404);
        assert_eq!(best(&[486, 407, 404], false), 407);
        assert_eq!(best(&[408, 480, 486], false), 486);
        assert_eq!(best(&[487, 486], false), 486);
        assert_eq!(best(&[487, 486], true), 487);
        assert_eq!(best(&[503, 501], false), 501);
        assert_eq!(best(&[480, 488], false), 488);
        assert!(choose(&[], false).is_none());
    }
}
