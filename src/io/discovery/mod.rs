//! Other peers of the same overlay, found without being named: on the local network by mDNS and by SIP's own multicast, elsewhere by
//! the names that the user gave. What is found is handed to the node as a hint.

mod greeting;
mod mdns;
mod multicast;
pub(super) mod srv;

use crate::config::Discover;
use crate::core::{Id, Rng};
use crate::identity::TrustAnchor;
pub use mdns::browse;
use std::net::SocketAddr;

/// What the tag is derived for.
const TAG_CONTEXT: &str = "chordial discovery tag v1";

/// Looks on the local network, and is found there, until it is dropped.
pub(super) struct Finder {
    mdns: Option<mdns::Discovery>,
    multicast: Option<multicast::Multicast>,
}

impl Finder {
    /// Looks for peers of the overlay, and tells where `own` is, in the ways that are wanted and work here; none where none does.
    pub fn start(how: Discover, overlay: &TrustAnchor, own: Id, address: SocketAddr, rng: Rng) -> Option<Finder> {
        let tag = tag(overlay);
        let mdns = matches!(how, Discover::Lan | Discover::Mdns).then(|| {
            let started = mdns::Discovery::start(&tag, own, address);
            started
                .inspect_err(|fault| tracing::warn!(%fault, "peers on the local network are not looked for by mDNS"))
                .ok()
        });
        let multicast = matches!(how, Discover::Lan | Discover::Multicast).then(|| {
            let started = multicast::Multicast::start(&tag, own, address, rng);
            let warn = |fault: &std::io::Error| {
                tracing::warn!(%fault, "peers on the local network are not looked for by SIP multicast");
            };
            started.inspect_err(warn).ok()
        });
        let finder = Finder { mdns: mdns.flatten(), multicast: multicast.flatten() };
        (finder.mdns.is_some() || finder.multicast.is_some()).then_some(finder)
    }

    /// The next peer found, or found before and still there. Cancelling loses nothing.
    pub async fn next(&mut self) -> (Id, SocketAddr) {
        let Finder { mdns, multicast } = self;
        let by_mdns = async {
            match mdns {
                Some(mdns) => mdns.next().await,
                None => None,
            }
        };
        let by_multicast = async {
            match multicast {
                Some(multicast) => multicast.next().await,
                None => std::future::pending().await,
            }
        };
        let found = async {
            match by_mdns.await {
                Some(found) => found,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            found = found => found,
            found = by_multicast => found,
        }
    }
}

/// What peers of one overlay have in common, and others cannot read: 16 hexadecimal digits.
fn tag(overlay: &TrustAnchor) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(TAG_CONTEXT);
    hasher.update(overlay.overlay().as_bytes());
    if let TrustAnchor::Office { root, .. } = overlay {
        hasher.update(&[0]);
        hasher.update(&root.0);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_tells_overlays_apart_and_names_none() {
        let open = |name: &str| TrustAnchor::Open { overlay: name.into() };
        let mut rng = crate::core::Rng::from_seed(1);
        let mut office = || {
            let root = crate::identity::KeyPair::generate(&mut rng).public();
            TrustAnchor::Office { overlay: "hq.test".into(), root }
        };
        let tags = [tag(&open("hq.test")), tag(&open("other.test")), tag(&office()), tag(&office())];
        for (n, one) in tags.iter().enumerate() {
            assert!(one.len() == 16 && !tags[n + 1..].contains(one), "{tags:?}");
        }
        assert_eq!(tag(&open("hq.test")), tags[0]);
    }
}
