//! Joining an open overlay by a contact link: a family, whose members invite each other and which nobody administers.
//!
//! The link has all that is needed: the overlay's name, addresses to join by, and the inviter's key. So the new member makes a key of
//! its own, and has the inviter as its first contact, by that very key; with the link's token it becomes the inviter's contact at the first call.

use super::disk::{self, DataDir};
use super::driver::unix_now;
use super::office::{OfficeError, free};
use crate::identity::{Acquaintances, Contact, ContactLink, FullError, Identity, Root, split_aor};

/// Writes an identity for `user`, with the inviter as a contact and their supernodes as the peers to join by.
///
/// # Errors
/// [`OfficeError`]: the directory is somebody's; the link leads into an office; the name is none, or the inviter's.
pub fn join(data: &DataDir, link: ContactLink, user: &str) -> Result<Identity, OfficeError> {
    free(data)?;
    let (inviter, overlay) = split_aor(&link.aor).map(|(user, o)| (user.to_owned(), o.to_owned())).unwrap_or_default();
    if link.root != Root::Open {
        return Err(OfficeError::NoFamily(overlay));
    }
    if user == inviter {
        return Err(OfficeError::InvitersName(inviter));
    }
    let mut rng = super::seed::rng().map_err(|source| OfficeError::System { what: "reading randomness", source })?;
    let identity = Identity::open(&overlay, user, unix_now(), &mut rng).map_err(OfficeError::Name)?;
    let mut known = Acquaintances::default();
    let ContactLink { aor, user_key: key, root, addrs, token } = link;
    let peers: String = addrs.iter().map(|addr| format!("{addr}\n")).collect();
    let added = known.add(Contact { name: inviter, aor, root, key, addrs, token, by: String::new() });
    if let Err(FullError::Name(fault)) = added {
        return Err(OfficeError::Name(fault));
    }
    data.write(disk::FOREIGN, &known.to_bytes())?;
    data.write(disk::PEERS, peers.as_bytes())?;
    // Last: without it the directory is nobody's, and joining can be tried again.
    data.write(disk::IDENTITY, identity.to_bytes().reveal())?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Rng;
    use crate::identity::{KeyFingerprint, RingToken, RootFingerprint, Standing};

    fn link(root: Root) -> ContactLink {
        let token = Some(RingToken::generate(&mut Rng::from_seed(1)));
        let addrs = vec!["192.0.2.1:5061".parse().unwrap(), "192.0.2.2:5061".parse().unwrap()];
        ContactLink { aor: "sip:anna@family".into(), user_key: KeyFingerprint([7; 16]), root, addrs, token }
    }

    #[test]
    fn the_inviter_is_the_first_contact() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let office = link(Root::Office(RootFingerprint([1; 16])));
        assert!(matches!(join(&data, office, "ben"), Err(OfficeError::NoFamily(name)) if name == "family"));
        assert!(matches!(join(&data, link(Root::Open), "anna"), Err(OfficeError::InvitersName(_))));
        assert!(matches!(join(&data, link(Root::Open), "b n"), Err(OfficeError::Name(_))));
        let identity = join(&data, link(Root::Open), "ben").unwrap();
        assert_eq!((identity.aor().as_str(), identity.is_of_an_office()), ("sip:ben@family", false));
        let known = Acquaintances::from_bytes(&data.read(disk::FOREIGN).unwrap().unwrap()).unwrap();
        let anna = known.person("sip:anna@family").unwrap();
        assert_eq!((known.standing(&anna), anna.key), (Standing::Contact, KeyFingerprint([7; 16])));
        assert!(known.contact("anna").is_some_and(|c| c.token.is_some()));
        assert_eq!(data.read(disk::PEERS).unwrap().unwrap(), b"192.0.2.1:5061\n192.0.2.2:5061\n");
        assert!(matches!(join(&data, link(Root::Open), "ben"), Err(OfficeError::Taken(_))));
    }
}
