//! What must be accepted, and everything that must not be.

use super::*;
use crate::core::{Rng, UnixTime};

pub(super) const NOW: UnixTime = UnixTime(1_800_000_000);

pub(super) fn entry_for(identity: &Identity, sequence: u64) -> Entry {
    Entry {
        kind: EntryKind::Contact,
        aor: identity.aor(),
        device: identity.device_key(),
        sequence,
        issued: NOW,
        lifetime: 3600,
        body: ContactBody { peer_id: identity.peer_id(), addrs: vec![], user_agent: "test".into() }.encode(),
    }
}

#[test]
fn open_entry_is_accepted() {
    let identity = Identity::open("lab", "Bob", NOW, &mut Rng::from_seed(1)).expect("names are fine");
    let signed = identity.sign_entry(entry_for(&identity, 1)).expect("own name");
    let read = SignedEntry::decode(signed.encoded()).expect("canonical");
    assert_eq!(read, signed);
    let key = resource_key("sip:bob@lab");
    assert_eq!(identity.anchor.verify_entry(&read, &key, NOW), Ok(()));
    let verified = identity.anchor.verify_chain(read.chain(), NOW).expect("own chain");
    assert_eq!((verified.user.as_str(), verified.peer_id), ("bob", identity.peer_id()));
}
