//! Names of users and overlays, and the address of record (AOR) made of them.
//!
//! Stricter than a SIP URI may be: lower case, few characters, so that two names that look alike to people are one.

use super::IdentityError;
use crate::core::Id;

/// Lower-cases and checks a user name or extension: 1 to 64 of `a-z 0-9 . _ + -`.
pub fn canonical_user(user: &str) -> Result<String, IdentityError> {
    let user = user.to_ascii_lowercase();
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._+-".contains(&b);
    if (1..=64).contains(&user.len()) && user.bytes().all(good) { Ok(user) } else { Err(IdentityError::UserName) }
}

/// Lower-cases and checks the name of an overlay: a host name of 1 to 63 of `a-z 0-9 . -`.
pub fn canonical_overlay(overlay: &str) -> Result<String, IdentityError> {
    let overlay = overlay.to_ascii_lowercase();
    let end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
    let bytes = overlay.as_bytes();
    let fine = bytes.len() <= 63 && end(bytes.first()) && end(bytes.last()) && overlay.bytes().all(good);
    if fine && !overlay.contains("..") { Ok(overlay) } else { Err(IdentityError::OverlayName) }
}

/// The canonical AOR `sip:USER@OVERLAY`, whatever the case of what is given.
pub fn aor(user: &str, overlay: &str) -> Result<String, IdentityError> {
    Ok(format!("sip:{}@{}", canonical_user(user)?, canonical_overlay(overlay)?))
}

/// User and overlay of a canonical AOR; `None` for anything else, also for the same in capitals.
pub fn split_aor(aor: &str) -> Option<(&str, &str)> {
    let (user, overlay) = aor.strip_prefix("sip:")?.split_once('@')?;
    let canonical =
        canonical_user(user).is_ok_and(|u| u == user) && canonical_overlay(overlay).is_ok_and(|o| o == overlay);
    canonical.then_some((user, overlay))
}

/// Where the records of a canonical AOR are on the ring: its SHA-1.
pub fn resource_key(aor: &str) -> Id {
    Id::sha1(aor.as_bytes())
}

/// Checks a device label: at most 64 bytes, no control characters.
pub(super) fn check_label(label: &str) -> Result<(), IdentityError> {
    if label.len() <= 64 && !label.chars().any(char::is_control) { Ok(()) } else { Err(IdentityError::Label) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling() {
        assert_eq!(aor("Bob", "Office.Example").as_deref(), Ok("sip:bob@office.example"));
        assert_eq!(split_aor("sip:bob@office"), Some(("bob", "office")));
        for bad in
            ["sip:Bob@office", "sip:bob@office;x=1", "sips:bob@office", "bob@office", "sip:@office", "sip:b%6fb@o"]
        {
            assert_eq!(split_aor(bad), None, "{bad}");
        }
        for bad in ["", "a b", "\u{43e}lga", "a@b", &"a".repeat(65)] {
            assert_eq!(canonical_user(bad), Err(IdentityError::UserName), "{bad}");
        }
        for bad in ["", "-a", "a.", "a..b", "a b", "a:5060", &"a".repeat(64)] {
            assert_eq!(canonical_overlay(bad), Err(IdentityError::OverlayName), "{bad}");
        }
    }
}
