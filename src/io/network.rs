//! This machine on its networks: the address that others are told, the router, and when any of it changes.

use crate::nat::{Scope, scope};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// How often the addresses are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(3);

/// The address that others are told for a socket: its own, or where it is bound to all, the one that the system uses
/// towards the first peer (else towards the world, else that of the first network it is on: a LAN may have no router).
pub(super) fn told(listen: SocketAddr, advertise: Option<IpAddr>, towards: Option<SocketAddr>) -> SocketAddr {
    if let Some(ip) = advertise {
        return SocketAddr::new(ip, listen.port());
    }
    if !listen.ip().is_unspecified() {
        return listen;
    }
    let source =
        towards.and_then(source).filter(|ip| !ip.is_loopback() || towards.is_some_and(|t| t.ip().is_loopback()));
    let source = source.or_else(|| source_to_world(Ipv4Addr::UNSPECIFIED.into())).or_else(local_address);
    let source = source.or_else(|| source_to_world(Ipv6Addr::UNSPECIFIED.into()));
    SocketAddr::new(source.unwrap_or(Ipv4Addr::LOCALHOST.into()), listen.port())
}

/// The address that the system sends from towards `to`.
pub(super) fn source(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    // Connecting a datagram socket sends nothing; it only asks for the route.
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|a| a.ip())
}

fn source_to_world(family: IpAddr) -> Option<IpAddr> {
    let world: IpAddr = match family {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    source(SocketAddr::new(world, 9))
}

/// An address of this machine on a network it is on, IPv4 before IPv6; none where there is but loopback.
fn local_address() -> Option<IpAddr> {
    let addrs = if_addrs::get_if_addrs().ok()?;
    let outside = addrs.iter().filter(|i| !i.is_loopback() && !i.is_link_local()).map(|i| i.ip());
    outside.min_by_key(|ip| (ip.is_ipv6(), *ip))
}

/// Addresses that a call's media may come to besides `bind`: those of all networks that this machine is on; none on loopback.
pub(super) fn beside(bind: IpAddr) -> Vec<IpAddr> {
    const MOST: usize = 6;
    if bind.is_loopback() {
        return Vec::new();
    }
    let Ok(addrs) = if_addrs::get_if_addrs() else { return Vec::new() };
    let usable = addrs.iter().filter(|i| !i.is_loopback() && !i.is_link_local()).map(|i| i.ip());
    let mut others: Vec<_> = usable.filter(|ip| *ip != bind && !ip.is_unspecified()).collect();
    others.sort_by_key(|ip| (ip.is_ipv6(), *ip));
    others.dedup();
    others.truncate(MOST);
    others
}

/// The addresses of this machine, loopback last.
pub(super) fn own_addresses() -> Vec<IpAddr> {
    let mut all: Vec<_> = if_addrs::get_if_addrs().unwrap_or_default().iter().map(if_addrs::Interface::ip).collect();
    all.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6(), *ip));
    all.dedup();
    all
}

/// A global IPv6 address of this machine: the one that it sends from, which lasts as long as that may (RFC 6724, RFC 8981).
pub(super) fn global_v6() -> Option<IpAddr> {
    // Of no network that we know of, and given to this machine all the same: a laboratory.
    source_to_world(Ipv6Addr::UNSPECIFIED.into()).filter(|ip| matches!(scope(*ip), Scope::Public | Scope::Special))
}

/// The router that leads out of the network on which `ip` lies; none where the system does not say (Linux says).
pub(super) fn gateway(ip: Ipv4Addr) -> Option<Ipv4Addr> {
    let addrs = if_addrs::get_if_addrs().ok()?;
    let name = addrs.into_iter().find(|i| i.ip() == IpAddr::V4(ip))?.name;
    default_route(&std::fs::read_to_string("/proc/net/route").ok()?, &name)
}

/// The gateway of the best default route by an interface, out of `/proc/net/route`: addresses are words in the machine's byte order.
fn default_route(table: &str, interface: &str) -> Option<Ipv4Addr> {
    const GATEWAY: u32 = 2;
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let [name, destination, gateway, flags, _, _, metric, mask, ..] = fields[..] else { return None };
        let word = |text| u32::from_str_radix(text, 16).ok();
        let leads = name == interface && word(destination)? == 0 && word(mask)? == 0 && word(flags)? & GATEWAY != 0;
        let gateway = Ipv4Addr::from(word(gateway)?.to_ne_bytes());
        leads.then_some((metric.parse::<u32>().ok()?, gateway))
    });
    routes.min().map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_best_default_route_of_the_interface_is_taken() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t0100A8C0\t0003\t0\t0\t200\t00000000\t0\t0\t0\n\
                     eth0\t00000000\t0200A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                     wlan0\t00000000\t0300A8C0\t0003\t0\t0\t1\t00000000\t0\t0\t0\n\
                     eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
                     short line\n";
        assert_eq!(default_route(table, "eth0"), Some(Ipv4Addr::new(192, 168, 0, 2)));
        assert_eq!(default_route(table, "wlan0"), Some(Ipv4Addr::new(192, 168, 0, 3)));
        assert_eq!(default_route(table, "eth1"), None);
        assert_eq!(default_route("", "eth0"), None);
    }

    #[test]
    fn what_is_named_is_told() {
        let any: SocketAddr = "0.0.0.0:5061".parse().unwrap();
        let named: SocketAddr = "127.0.0.1:7".parse().unwrap();
        assert_eq!(told(named, None, None), named);
        assert_eq!(told(any, Some("9.9.9.9".parse().unwrap()), None), "9.9.9.9:5061".parse().unwrap());
        let near = told(any, None, Some(named));
        assert_eq!(near, "127.0.0.1:5061".parse().unwrap());
    }
}
