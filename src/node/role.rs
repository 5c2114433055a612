//! Supernode or ordinary: what the owner and the device's certificate say, and what is shown of it.

use super::control::{AttachedStatus, PeerStatus, TierStatus};
use super::{Node, Setup};
use crate::identity::Verified;
use crate::overlay::PeerRef;
use crate::overlay::tier::{Config, Rank, Role, Standing, Wish};
use std::time::Duration;

/// Whether a device may have a place on the ring: only where an enroller has drawn it.
pub(super) fn may_be_supernode(device: &Verified) -> bool {
    device.has_place
}

/// The tier's settings.
pub(super) fn tier(setup: &Setup) -> Config {
    let tier = &setup.config.tier;
    let verified = setup.identity.as_ref().and_then(|i| i.verified(setup.unix).ok());
    Config {
        wish: match setup.config.overlay.role.as_str() {
            "ordinary" => Wish::Ordinary,
            // In the laboratory every peer is in the ring, as in the drafts.
            "supernode" => Wish::Supernode,
            _ if setup.config.overlay.lab_clear => Wish::Supernode,
            _ => Wish::Auto,
        },
        may_be_supernode: verified.as_ref().is_none_or(may_be_supernode),
        clear: setup.config.overlay.lab_clear,
        capacity: tier.capacity.max(1),
        settled: Duration::from_secs(u64::from(tier.settled_seconds)),
        min_memory: u64::from(tier.min_memory_mb),
        max_load: tier.max_load_percent,
        ..Config::default()
    }
}

impl Node {
    /// The role in a word.
    pub(super) fn role_name(&self) -> &'static str {
        let Some(overlay) = self.overlay.as_ref() else { return "phone" };
        match overlay.status().tier.map(|t| t.role) {
            None | Some(Role::Supernode) => "supernode",
            Some(Role::Ordinary) => "ordinary",
            Some(Role::Outside) if self.setup.config.overlay.role == "ordinary" => "ordinary",
            Some(Role::Outside) => "joining",
        }
    }

    /// An ordinary node that knows no supernode.
    pub(super) fn awaits_supernode(&self) -> bool {
        let role = self.overlay.as_ref().and_then(|o| o.status().tier).map(|t| t.role);
        role == Some(Role::Outside) && self.setup.config.overlay.role == "ordinary" && !self.ring.has_untried()
    }

    pub(super) fn tier_status(&self) -> Option<TierStatus> {
        let standing = self.overlay.as_ref()?.status().tier?;
        Some(shown(&standing))
    }

    /// Rows of `peers` beyond the ring's.
    pub(super) fn tier_peers(&self) -> Vec<(PeerRef, &'static str)> {
        let Some(standing) = self.overlay.as_ref().and_then(|o| o.status().tier) else { return Vec::new() };
        let mut rows = Vec::new();
        rows.extend(standing.primary.map(|(p, _)| (p, "primary")));
        rows.extend(standing.backup.map(|(p, _)| (p, "backup")));
        rows.extend(standing.attached.iter().map(|(p, _)| (*p, "attached")));
        rows
    }
}

fn shown(standing: &Standing) -> TierStatus {
    let hang = |(peer, rtt): &(PeerRef, Duration)| PeerStatus {
        rtt_ms: Some(rtt.as_secs_f64() * 1000.0),
        ..super::command::peer(peer)
    };
    TierStatus {
        why: standing.why.clone(),
        primary: standing.primary.as_ref().map(hang),
        backup: standing.backup.as_ref().map(hang),
        attached: standing
            .attached
            .iter()
            .map(|(p, rank)| AttachedStatus {
                peer_id: p.id.to_string(),
                address: p.addr.to_string(),
                rank: if *rank == Rank::Primary { "primary" } else { "backup" }.into(),
            })
            .collect(),
        capacity: standing.capacity,
    }
}
