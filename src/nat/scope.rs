//! Who can reach an address, as far as the address itself tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everywhere.
    Public,
    /// In one private network (RFC 1918, RFC 4193).
    Private,
    /// Between a provider and its customers (100.64.0.0/10, RFC 6598).
    Carrier,
    /// On one link (RFC 3927, RFC 4291).
    Link,
    /// On this machine.
    Loopback,
    /// Nowhere: unspecified, multicast, documentation, reserved (RFC 6890).
    Special,
}

impl Scope {
    /// In words, for a person.
    pub fn text(self) -> &'static str {
        match self {
            Scope::Public => "public",
            Scope::Private => "private",
            Scope::Carrier => "the provider's own (carrier-grade NAT)",
            Scope::Link => "of one link only",
            Scope::Loopback => "this machine itself",
            Scope::Special => "no address of a host",
        }
    }
}

/// The scope of an address. An IPv4 address written as IPv6 has that of the IPv4 address.
pub fn scope(ip: IpAddr) -> Scope {
    match ip.to_canonical() {
        IpAddr::V4(ip) => scope_v4(ip),
        IpAddr::V6(ip) => scope_v6(ip),
    }
}

fn scope_v4(ip: Ipv4Addr) -> Scope {
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        _ if ip.is_loopback() => Scope::Loopback,
        _ if ip.is_private() => Scope::Private,
        _ if ip.is_link_local() => Scope::Link,
        (100, 64..=127, _) => Scope::Carrier,
        // "This network", protocol assignments, benchmarks, multicast and what is reserved.
        (0, ..) | (192, 0, 0) | (198, 18 | 19, _) | (224.., ..) => Scope::Special,
        _ if ip.is_documentation() => Scope::Special,
        _ => Scope::Public,
    }
}

fn scope_v6(ip: Ipv6Addr) -> Scope {
    match ip.segments() {
        _ if ip.is_loopback() => Scope::Loopback,
        [first, ..] if first & 0xffc0 == 0xfe80 => Scope::Link,
        [first, ..] if first & 0xfe00 == 0xfc00 => Scope::Private,
        [0x2001, 0xdb8, ..] => Scope::Special,
        // Global unicast is handed out from 2000::/3 only (RFC 4291, the registry of IANA).
        [first, ..] if first & 0xe000 == 0x2000 => Scope::Public,
        _ => Scope::Special,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_address() {
        for (text, expected) in [
            ("9.9.9.9", Scope::Public),
            ("100.63.255.255", Scope::Public),
            ("100.64.0.1", Scope::Carrier),
            ("100.127.255.255", Scope::Carrier),
            ("100.128.0.1", Scope::Public),
            ("10.0.0.1", Scope::Private),
            ("172.16.0.1", Scope::Private),
            ("172.32.0.1", Scope::Public),
            ("192.168.1.1", Scope::Private),
            ("169.254.3.4", Scope::Link),
            ("127.0.0.1", Scope::Loopback),
            ("0.0.0.0", Scope::Special),
            ("203.0.113.9", Scope::Special),
            ("224.0.1.75", Scope::Special),
            ("255.255.255.255", Scope::Special),
            ("2a00:1450::1", Scope::Public),
            ("2001:db8::1", Scope::Special),
            ("fd12::1", Scope::Private),
            ("fe80::1", Scope::Link),
            ("::1", Scope::Loopback),
            ("::", Scope::Special),
            ("ff02::1", Scope::Special),
            ("::ffff:192.168.1.1", Scope::Private),
        ] {
            assert_eq!(scope(text.parse().unwrap()), expected, "{text}");
        }
    }
}
