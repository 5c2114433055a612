//! Peer URIs, `DHT-PeerID`, `DHT-Link` and `DHT-Path`.

use super::{ALGORITHM, Carry, CarryError, DHT_NAME};
use crate::core::Id;
use crate::overlay::{Links, PeerRef};
use crate::sip::msg::Message;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Links read from one message.
const MAX_LINKS: usize = 64;
/// Peers of a path read from one message.
pub(super) const MAX_PATH: usize = 64;
const SIP_PORT: u16 = 5060;
const PEER_ID: [&str; 3] = ["peer-id", "peerid", "pid"];

/// A URI with every parameter beside it and behind it, as loosely as the drafts write them.
pub(super) struct Loose<'m> {
    pub user: &'m str,
    pub addr: Option<SocketAddr>,
    params: Vec<(&'m str, &'m str)>,
}

impl<'m> Loose<'m> {
    pub fn parse(text: &'m str) -> Option<Loose<'m>> {
        // A quoted display name may hold anything.
        let text = text.trim_start();
        let text = match text.strip_prefix('"') {
            Some(rest) => &rest[rest.find('"')? + 1..],
            None => text,
        };
        let text = text.find('<').map_or(text, |at| &text[at + 1..]).trim_start();
        let rest = strip_prefix_ignore_case(text, "sips:").or_else(|| strip_prefix_ignore_case(text, "sip:"))?;
        let end = rest.find(|c: char| ";>?".contains(c) || c.is_whitespace()).unwrap_or(rest.len());
        let (core, tail) = rest.split_at(end);
        let (user, host) = core.rsplit_once('@').unwrap_or(("", core));
        let params = tail
            .split([';', '>'])
            .map(str::trim)
            .filter(|p| !p.is_empty())
            .map(|p| {
                let (name, value) = p.split_once('=').unwrap_or((p, ""));
                (name.trim(), value.trim().trim_matches('"'))
            })
            .collect();
        Some(Loose { user, addr: socket_addr(host), params })
    }

    pub fn get(&self, names: &[&str]) -> Option<&'m str> {
        self.params.iter().find(|(n, _)| names.iter().any(|name| n.eq_ignore_ascii_case(name))).map(|(_, v)| *v)
    }

    /// The identifier of a peer URI; `None` for another URI.
    pub fn peer_id(&self) -> Option<&'m str> {
        self.get(&PEER_ID)
    }
}

fn strip_prefix_ignore_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

fn socket_addr(host: &str) -> Option<SocketAddr> {
    if let Ok(addr) = host.parse::<SocketAddr>() {
        return Some(addr);
    }
    let ip = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, SIP_PORT))
}

/// The address of a search (dSIP section 5.3.1): no peer listens there.
pub(super) const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Carry {
    /// `<sip:peer@HOST:PORT;peer-ID=X>`.
    pub(super) fn peer_uri(&self, peer: &PeerRef) -> String {
        match peer.addr {
            NOWHERE => format!("<sip:peer@0.0.0.0;peer-ID={}>", self.space.show(&peer.id)),
            addr => format!("<sip:peer@{addr};peer-ID={}>", self.space.show(&peer.id)),
        }
    }

    /// The value of this peer's `DHT-PeerID`.
    pub(super) fn own_peer_id(&self, holder: Option<&str>) -> String {
        let mut value = self.peer_uri(&self.me);
        let _ =
            write!(value, ";algorithm={ALGORITHM};dht={DHT_NAME};overlay={};expires={}", self.overlay, self.expires);
        if let Some(holder) = holder {
            let _ = write!(value, ";holder={holder}");
        }
        value
    }

    pub(super) fn push_links(&self, message: &mut Message, links: &Links) {
        let mut push = |peer: &PeerRef, kind: char, depth: usize| {
            let uri = self.peer_uri(peer);
            message.push("DHT-Link", format_args!("{uri};link={kind}{depth};expires={}", self.expires));
        };
        for (i, peer) in links.predecessors.iter().enumerate() {
            push(peer, 'P', i + 1);
        }
        for (i, peer) in links.successors.iter().enumerate() {
            push(peer, 'S', i + 1);
        }
        for (exponent, peer) in &links.fingers {
            push(peer, 'F', usize::from(*exponent));
        }
    }

    pub(super) fn push_path(&self, message: &mut Message, path: &[PeerRef]) {
        for peer in path {
            message.push("DHT-Path", self.peer_uri(peer));
        }
    }

    /// The sender. `joining`: a peer that registers may leave the overlay's parameters open (`*`).
    pub(super) fn read_peer_id(&self, message: &Message, joining: bool) -> Result<PeerRef, CarryError> {
        const HEADER: CarryError = CarryError::Header("DHT-PeerID");
        let value = message.header("DHT-PeerID").ok_or(HEADER)?;
        let loose = Loose::parse(value).ok_or(HEADER)?;
        let fits = |value: &str, own: &str| value.eq_ignore_ascii_case(own) || joining && value == "*";
        if !loose.get(&["algorithm"]).is_some_and(|v| fits(v, ALGORITHM)) {
            return Err(CarryError::OtherHash);
        }
        if !loose.get(&["dht", "dht-param"]).is_some_and(|v| fits(v, DHT_NAME)) {
            return Err(CarryError::OtherDht);
        }
        if !loose.get(&["overlay"]).is_some_and(|v| fits(v, &self.overlay)) {
            return Err(CarryError::OtherOverlay);
        }
        self.peer(&loose)?.ok_or(HEADER)
    }

    /// The peer that a URI names, `None` where it names none; 493 where its identifier is not its address's.
    pub(super) fn peer(&self, loose: &Loose<'_>) -> Result<Option<PeerRef>, CarryError> {
        let Some(id) = loose.peer_id() else { return Ok(None) };
        let id = self.space.parse(id).ok_or(CarryError::BadId("peer-ID"))?;
        let Some(addr) = loose.addr else { return Ok(None) };
        if self.peer_id.is_some_and(|f| f(addr) != id) {
            return Err(CarryError::BadId("peer-ID"));
        }
        Ok(Some(PeerRef { id, addr }))
    }

    /// The links; one that cannot be used is passed over: they are hints.
    pub(super) fn read_links(&self, message: &Message) -> Links {
        let (mut predecessors, mut successors, mut fingers) = (Vec::new(), Vec::new(), Vec::new());
        for value in message.values("DHT-Link").take(MAX_LINKS) {
            let Some(loose) = Loose::parse(value) else { continue };
            let Ok(Some(peer)) = self.peer(&loose) else { continue };
            let Some(link) = loose.get(&["link"]) else { continue };
            let Some((kind, depth)) = link.split_at_checked(1) else { continue };
            let Ok(depth) = depth.parse::<u8>() else { continue };
            match kind {
                // P0 and S0 are the sender.
                "P" | "p" if depth > 0 => predecessors.push((depth, peer)),
                "S" | "s" if depth > 0 => successors.push((depth, peer)),
                "F" | "f" if depth < self.space.bits() => fingers.push((depth, peer)),
                _ => {}
            }
        }
        let by_depth = |mut list: Vec<(u8, PeerRef)>| {
            list.sort_by_key(|(depth, _)| *depth);
            list.into_iter().map(|(_, peer)| peer).collect()
        };
        fingers.sort_by_key(|(exponent, _)| *exponent);
        Links { predecessors: by_depth(predecessors), successors: by_depth(successors), fingers }
    }

    pub(super) fn read_path(&self, message: &Message) -> Result<Vec<PeerRef>, CarryError> {
        const HEADER: CarryError = CarryError::Header("DHT-Path");
        let mut path = Vec::new();
        for value in message.values("DHT-Path") {
            if path.len() >= MAX_PATH {
                return Err(HEADER);
            }
            let loose = Loose::parse(value).ok_or(HEADER)?;
            path.push(self.peer(&loose)?.ok_or(HEADER)?);
        }
        Ok(path)
    }

    /// An identifier that is only looked for.
    pub(super) fn target(&self, text: &str) -> Result<Id, CarryError> {
        self.space.parse(text).ok_or(CarryError::BadId("peer-ID"))
    }
}
