//! Which URIs mean this overlay. An address of record is `sip:USER@OVERLAY`; a phone that knows only our IP address
//! says `sip:USER@ADDRESS:PORT` and means the same.
//!
//! A port that is written has to be ours; one that is not written is taken for ours, since phones leave it out of
//! From and To whatever the port is that they send to. The overlay's name counts with any port.

use crate::core::{Flow, Id};
use crate::sip::msg::{Scheme, Uri};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// The overlay's name and our own names and addresses.
#[derive(Clone, Debug)]
pub struct Domain {
    overlay: String,
    addresses: Vec<SocketAddr>,
    names: Vec<(String, Option<u16>)>,
    /// This peer's identifier: a URI that names another one is not ours, whatever its address (private ones are many's).
    peer: Option<Id>,
    /// How this overlay was called for those who are here, and whose names were others then.
    former: Option<(String, BTreeMap<String, String>)>,
}

impl Domain {
    /// The overlay called `overlay`, without any address yet.
    pub fn new(overlay: &str) -> Domain {
        let (addresses, names, peer, former) = Default::default();
        Domain { overlay: overlay.to_ascii_lowercase(), addresses, names, peer, former }
    }

    /// Adds an address at which we take SIP. One that says "any" (`0.0.0.0`) names nobody and is left out.
    pub fn add_address(&mut self, address: SocketAddr) {
        if !address.ip().is_unspecified() && !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
    }

    /// Names under another overlay's name mean this one's, some of them renamed. Without effect where both are called alike.
    pub fn set_former(&mut self, overlay: &str, renamed: BTreeMap<String, String>) {
        if overlay != self.overlay {
            self.former = Some((overlay.to_ascii_lowercase(), renamed));
        }
    }

    /// Sets this peer's identifier.
    pub fn set_peer(&mut self, id: Id) {
        self.peer = Some(id);
    }

    /// An address of ours is another one now.
    pub fn replace_address(&mut self, old: SocketAddr, new: SocketAddr) {
        if old != new {
            self.addresses.retain(|a| *a != old);
            self.add_address(new);
        }
    }

    /// Adds a host name of ours; without a port it counts with any.
    pub fn add_name(&mut self, host: &str, port: Option<u16>) {
        self.names.push((host.to_ascii_lowercase(), port));
    }

    /// The overlay's name in lower case, which is the digest realm too.
    pub fn overlay(&self) -> &str {
        &self.overlay
    }

    /// True where the host (and port) of a SIP URI are the overlay's or ours.
    pub fn covers(&self, uri: &Uri) -> bool {
        if !uri.is_sip() {
            return false;
        }
        if let (Some(me), Some(named)) = (self.peer, uri.params.get("peer-ID").and_then(Id::from_hex)) {
            return me == named;
        }
        if let Some(ip) = uri.ip() {
            return self.addresses.iter().any(|a| same_ip(a.ip(), ip) && uri.port.is_none_or(|p| p == a.port()));
        }
        let host = uri.host.strip_suffix('.').unwrap_or(&uri.host);
        host.eq_ignore_ascii_case(&self.overlay)
            || self.former.as_ref().is_some_and(|(name, _)| host.eq_ignore_ascii_case(name))
            || self.names.iter().any(|(name, port)| {
                host.eq_ignore_ascii_case(name) && (port.is_none() || uri.port.is_none() || uri.port == *port)
            })
    }

    /// The user whom a URI names in this overlay, escapes decoded; none for a URI without user or of another domain.
    pub fn user_of(&self, uri: &Uri) -> Option<String> {
        let user = uri.user_unescaped().filter(|user| !user.is_empty())?;
        let renamed = self.former.as_ref().filter(|(name, _)| uri.host.eq_ignore_ascii_case(name));
        let now = renamed.and_then(|(_, renamed)| renamed.get(user.as_ref()).cloned());
        self.covers(uri).then(|| now.unwrap_or_else(|| user.into_owned()))
    }

    /// The same where another peer has found the URI to name this overlay: by its own address, perhaps.
    pub fn user_behind(&self, uri: &Uri) -> Option<String> {
        let by_address = || uri.ip().and(uri.user_unescaped()).filter(|user| !user.is_empty()).map(|u| u.into_owned());
        self.user_of(uri).or_else(by_address)
    }

    /// The same for a Request-URI, where `tel:` numbers mean the overlay's users of that name
    /// (RFC 3261 section 19.1.6); their visual separators are dropped.
    pub fn callee_of(&self, uri: &Uri) -> Option<String> {
        match uri.scheme {
            Scheme::Tel => uri.canonical_aor().strip_prefix("tel:").map(str::to_owned),
            _ => self.user_of(uri),
        }
    }

    /// The canonical address of record of a user, `sip:USER@OVERLAY`, not escaped: a key, not for the wire.
    pub fn aor(&self, user: &str) -> String {
        format!("sip:{user}@{}", self.overlay)
    }
}

/// True where a URI leads to the far end of `flow` by itself: its host is that address and its port that port.
pub(super) fn leads_to_remote(uri: &Uri, flow: &Flow) -> bool {
    let port = uri.port.unwrap_or(5060);
    uri.ip().is_some_and(|ip| same_ip(ip, flow.remote.ip())) && port == flow.remote.port()
}

/// Equality that does not tell an IPv4 address from the same mapped into IPv6.
pub(super) fn same_ip(a: IpAddr, b: IpAddr) -> bool {
    a.to_canonical() == b.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> Domain {
        let mut domain = Domain::new("Office.Example");
        domain.add_address("192.0.2.1:5070".parse().unwrap());
        domain.add_address("[2001:db8::1]:5060".parse().unwrap());
        domain.add_address("0.0.0.0:5060".parse().unwrap());
        domain.add_name("pbx.local", Some(5070));
        domain
    }

    fn user(uri: &str) -> Option<String> {
        domain().user_of(&Uri::parse(uri).unwrap())
    }

    #[test]
    fn the_overlay_and_our_addresses_are_one_domain() {
        for uri in [
            "sip:bob@office.example",
            "sip:bob@OFFICE.EXAMPLE.;transport=tcp",
            "sips:bob@office.example:9999",
            "sip:bob@192.0.2.1:5070",
            "sip:bob@192.0.2.1",
            "sip:%62ob@pbx.local",
            "sip:bob@[2001:DB8:0::1]:5060",
        ] {
            assert_eq!(user(uri).as_deref(), Some("bob"), "{uri}");
        }
    }

    #[test]
    fn others_are_not() {
        for uri in [
            "sip:bob@192.0.2.1:5060",
            "sip:bob@192.0.2.2",
            "sip:bob@0.0.0.0:5060",
            "sip:bob@pbx.local:5060",
            "sip:bob@example",
            "sip:office.example",
            "tel:123",
            "mailto:bob@office.example",
        ] {
            assert_eq!(user(uri), None, "{uri}");
        }
    }

    #[test]
    fn a_dialled_number_is_a_user() {
        let callee = |uri: &str| domain().callee_of(&Uri::parse(uri).unwrap());
        assert_eq!(callee("tel:+49-30(1)2").as_deref(), Some("+493012"));
        assert_eq!(callee("sip:42@office.example").as_deref(), Some("42"));
    }
}
