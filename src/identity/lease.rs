//! The body of a request for a lease: for how long the signing device wants to be the only one.
//!
//! Kind 17, `[1, seconds]`, under the AOR that names the lease; an empty body gives it back. The entry itself lives
//! [`LEASE_LIFETIME`], which has nothing to do with the time asked for: it says for how long the request may be shown, by clocks
//! that may be minutes apart, while the lease runs on the monotonic clocks of those who granted it.

use super::cbor::{Reader, Writer, canonical};
use super::{IdentityError, aor};
use std::time::Duration;

const WHAT: &str = "lease";
/// The shortest lease.
pub const SHORTEST_LEASE: Duration = Duration::from_secs(5);
/// The longest lease. Who cannot know whether somebody has it waits this long before granting it.
pub const LONGEST_LEASE: Duration = Duration::from_secs(120);
/// Life of a request's entry, in seconds: three times the difference allowed between two clocks.
pub const LEASE_LIFETIME: u32 = 900;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseBody {
    /// For how long.
    pub seconds: u16,
}

impl LeaseBody {
    /// For `span`, within what a lease may last.
    pub fn new(span: Duration) -> LeaseBody {
        let span = span.clamp(SHORTEST_LEASE, LONGEST_LEASE);
        LeaseBody { seconds: span.as_secs() as u16 }
    }

    /// The time asked for.
    pub fn span(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds))
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(2);
        writer.uint(1).uint(self.seconds.into());
        writer.finish()
    }

    /// Reads the canonical encoding of a time that a lease may last, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<LeaseBody, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(2)?;
        reader.version(1)?;
        let seconds = u16::try_from(reader.uint()?).map_err(|_| IdentityError::Malformed(WHAT))?;
        let body = LeaseBody { seconds };
        canonical(bytes, &body.encode(), WHAT)?;
        if body.span() < SHORTEST_LEASE || body.span() > LONGEST_LEASE {
            return Err(IdentityError::Malformed(WHAT));
        }
        Ok(body)
    }
}

/// The address that names a lease: `sip:WHAT.NAME@OVERLAY`, as in `park.7`, `queue.sales.3`, `trunk.berlin`.
///
/// # Errors
/// Where the two make no user part: letters, digits and `._+-`, 64 characters at most.
pub fn lease_aor(what: &str, name: &str, overlay: &str) -> Result<String, IdentityError> {
    aor(&format!("{what}.{name}"), overlay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_and_bounded() {
        for seconds in [5, 60, 120] {
            let body = LeaseBody { seconds };
            assert_eq!(LeaseBody::decode(&body.encode()), Ok(body));
            assert!((0..body.encode().len()).all(|n| LeaseBody::decode(&body.encode()[..n]).is_err()));
        }
        assert!(LeaseBody::decode(&LeaseBody { seconds: 4 }.encode()).is_err());
        assert!(LeaseBody::decode(&LeaseBody { seconds: 121 }.encode()).is_err());
        assert_eq!(LeaseBody::new(Duration::from_secs(9999)).span(), LONGEST_LEASE);
        assert_eq!(lease_aor("park", "7", "office").as_deref(), Ok("sip:park.7@office"));
        assert!(lease_aor("park", "a b", "office").is_err());
    }
}
