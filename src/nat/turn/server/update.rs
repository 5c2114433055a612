//! Refresh (RFC 8656 section 8), CreatePermission (section 10) and ChannelBind (section 12).

use super::super::peers::Verdict;
use super::super::table::{Change, Path, Slot, canonical};
use super::{Due, Output, Proved, Server, is_v4};
use crate::core::Instant;
use crate::stun::Message;
use crate::stun::attributes::{Lifetime, RequestedAddressFamily, XorPeerAddress};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Lifetimes (RFC 8656 sections 9 and 12).
const PERMISSION: Duration = Duration::from_secs(300);
const CHANNEL: Duration = Duration::from_secs(600);
/// Most permissions and channels of one allocation.
const PERMISSIONS: usize = 128;
const CHANNELS: usize = 128;

impl Server {
    pub(super) fn on_refresh(&mut self, now: Instant, proved: &Proved<'_>) {
        let zero = proved.message.get::<Lifetime>().is_some_and(|l| l.lifetime().is_zero());
        let Some(slot) = self.own(proved, zero) else { return };
        let Some(slot) = slot else {
            // It has gone already, which was the wish (RFC 8656 section 8.2).
            let mut answer = proved.message.success();
            answer.push(Lifetime::from_u32(0));
            return self.answer(proved, &answer);
        };
        if let Some(family) = proved.message.get::<RequestedAddressFamily>() {
            let v4 = is_v4(family);
            if !self.allocation(slot).is_some_and(|a| a.relayed.iter().any(|r| r.shown.is_ipv4() == v4)) {
                return self.refuse(proved, 443);
            }
        }
        let mut answer = proved.message.success();
        if zero {
            answer.push(Lifetime::from_u32(0));
            self.remove(slot);
        } else {
            let lifetime = super::allocate::lifetime(proved.message);
            answer.push(Lifetime::from_u32(lifetime));
            self.timers.set(Due::Allocation(slot), now + Duration::from_secs(lifetime.into()));
        }
        self.answer(proved, &answer);
        if zero && matches!(proved.path, Path::Stream { .. }) {
            self.put(Output::Hang(proved.path));
        }
    }

    pub(super) fn on_create_permission(&mut self, now: Instant, proved: &Proved<'_>) {
        let Some(Some(slot)) = self.own(proved, false) else { return };
        let peers: Vec<SocketAddr> = proved.message.all::<XorPeerAddress>().map(|p| canonical(p.address())).collect();
        if peers.is_empty() {
            return self.refuse(proved, 400);
        }
        // All or none (section 10.2).
        for peer in &peers {
            if let Err(code) = self.check(now, slot, peer.ip()) {
                return self.refuse(proved, code);
            }
        }
        let more =
            self.allocation(slot).map_or(0, |a| peers.iter().filter(|p| !a.permissions.contains_key(&p.ip())).count());
        if self.allocation(slot).is_some_and(|a| a.permissions.len() + more > PERMISSIONS) {
            return self.refuse(proved, 508);
        }
        for peer in peers {
            self.permit(now, slot, peer.ip());
        }
        self.answer(proved, &proved.message.success());
    }

    pub(super) fn on_channel_bind(&mut self, now: Instant, proved: &Proved<'_>) {
        let Some(Some(slot)) = self.own(proved, false) else { return };
        if self.allocation(slot).is_some_and(|a| a.stream) {
            // A TCP allocation has no channels (RFC 6062 section 3).
            return self.refuse(proved, 403);
        }
        let number = channel(proved.message);
        let peer = proved.message.get::<XorPeerAddress>().map(|p| canonical(p.address()));
        let (Some(number), Some(peer)) = (number, peer) else { return self.refuse(proved, 400) };
        if !crate::stun::is_channel(number) {
            return self.refuse(proved, 400);
        }
        if let Err(code) = self.check(now, slot, peer.ip()) {
            return self.refuse(proved, code);
        }
        let Some(allocation) = self.allocation(slot) else { return };
        let bound = allocation.channels.get(&number).copied();
        let elsewhere = allocation.channels.iter().any(|(n, p)| *p == peer && *n != number);
        // Neither another peer on this channel nor another channel for this peer (section 12.2).
        if bound.is_some_and(|p| p != peer) || elsewhere {
            return self.refuse(proved, 400);
        }
        let room = allocation.permissions.len() < PERMISSIONS || allocation.permissions.contains_key(&peer.ip());
        if !room || (bound.is_none() && allocation.channels.len() >= CHANNELS) {
            return self.refuse(proved, 508);
        }
        self.permit(now, slot, peer.ip());
        if let Some(allocation) = self.allocation_mut(slot) {
            allocation.channels.insert(number, peer);
        }
        self.timers.set(Due::Channel(slot, number), now + CHANNEL);
        if bound.is_none() {
            self.change(Change::Bind { slot, number, peer });
        }
        self.answer(proved, &proved.message.success());
    }

    /// The sender's own allocation on this 5-tuple; otherwise it is answered. With `gone_ok` that there is none is no fault.
    pub(super) fn own(&mut self, proved: &Proved<'_>, gone_ok: bool) -> Option<Option<Slot>> {
        let Some(slot) = self.by_path.get(&proved.path).copied() else {
            if gone_ok {
                return Some(None);
            }
            self.refuse(proved, 437);
            return None;
        };
        // A new credential of the same user goes on where the one that expired ended.
        let same = self.allocation(slot).is_some_and(|a| a.username == proved.username || a.who == proved.who);
        if !same {
            self.refuse(proved, 441);
            return None;
        }
        Some(Some(slot))
    }

    pub(super) fn check(&self, now: Instant, slot: Slot, ip: IpAddr) -> Result<(), u16> {
        let family = self.allocation(slot).is_some_and(|a| a.relayed.iter().any(|r| r.shown.is_ipv4() == ip.is_ipv4()));
        if !family {
            return Err(443);
        }
        if self.config.peers.verdict(now, ip) == Verdict::Refuse { Err(403) } else { Ok(()) }
    }

    fn permit(&mut self, now: Instant, slot: Slot, ip: IpAddr) {
        self.timers.set(Due::Permission(slot, ip), now + PERMISSION);
        let outside = self.config.peers.verdict(now, ip) == Verdict::Forward;
        if self.allocation_mut(slot).is_some_and(|a| a.permissions.insert(ip, ()).is_none()) {
            self.change(Change::Permit { slot, ip, outside });
        }
    }
}

/// CHANNEL-NUMBER.
fn channel(message: &Message) -> Option<u16> {
    let value = message.get_raw(crate::stun::raw::CHANNEL_NUMBER)?;
    Some(u16::from_be_bytes([*value.first()?, *value.get(1)?]))
}
