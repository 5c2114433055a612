//! Names that the user gave to join by, looked up: a host's addresses by the system's own resolver (which knows `/etc/hosts`,
//! split DNS and the like), a domain's SRV records (RFC 2782) by hickory.
//!
//! The service is `_chordial._tcp`, and where a domain has none of it, `_sips._tcp`, which leads outside SIP callers to the same
//! supernodes. A domain without either is taken for a host with the usual overlay port. Nothing is cached here: each
//! attempt asks again, with the name servers that the system has by then, so that a family's supernode behind dynamic DNS and a laptop that
//! changed networks are both served. Within a priority the heavier record goes first instead of by lot: all that are
//! named are dialled at nearly the same time anyway.

use crate::config::{Bootstrap, OVERLAY_PORT};
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::time::timeout;

/// The services asked for, in this order.
const SERVICES: [&str; 2] = ["_chordial._tcp", "_sips._tcp"];
/// For everything that one name leads to.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most SRV records followed.
const TARGETS: usize = 8;
/// Most addresses taken.
const ADDRESSES: usize = 16;

/// The overlay addresses behind a name, the preferred one first; an error for a person that names it.
pub(in crate::io) async fn resolve(name: &Bootstrap) -> Result<Vec<SocketAddr>, String> {
    match timeout(PATIENCE, look_up(name, TokioResolver::builder_tokio().and_then(|b| b.build()).ok())).await {
        Ok(addrs) if !addrs.is_empty() => Ok(addrs),
        Ok(_) => Err(format!("no address behind the name {name}")),
        Err(_) => Err(format!("the name servers do not answer for {name}")),
    }
}

async fn look_up(name: &Bootstrap, dns: Option<TokioResolver>) -> Vec<SocketAddr> {
    let mut addrs = match name {
        Bootstrap::Addr(addr) => vec![*addr],
        Bootstrap::Host { name, port } => host(name, *port).await,
        Bootstrap::Domain(domain) => {
            let mut addrs = Vec::new();
            for service in SERVICES {
                let Some(dns) = dns.as_ref().filter(|_| addrs.is_empty()) else { break };
                for (target, port) in targets(dns, &format!("{service}.{domain}.")).await {
                    addrs.extend(host(&target, port).await);
                }
            }
            if addrs.is_empty() { host(domain, OVERLAY_PORT).await } else { addrs }
        }
    };
    addrs.truncate(ADDRESSES);
    addrs
}

async fn host(name: &str, port: u16) -> Vec<SocketAddr> {
    match lookup_host((name, port)).await {
        Ok(addrs) => addrs.collect(),
        Err(fault) => {
            tracing::debug!(name, %fault, "not looked up");
            Vec::new()
        }
    }
}

/// Host and port of each SRV record, the preferred one first; empty where the service is "decidedly not available".
async fn targets(dns: &TokioResolver, name: &str) -> Vec<(String, u16)> {
    let found = match dns.srv_lookup(name).await {
        Ok(found) => found,
        Err(fault) => {
            tracing::debug!(name, %fault, "no SRV records");
            return Vec::new();
        }
    };
    let mut records: Vec<_> = found
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(srv) if !srv.target.is_root() && srv.port != 0 => {
                let target = srv.target.to_utf8();
                Some((srv.priority, Reverse(srv.weight), target.trim_end_matches('.').to_owned(), srv.port))
            }
            _ => None,
        })
        .collect();
    records.sort_unstable();
    records.into_iter().take(TARGETS).map(|(_, _, target, port)| (target, port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use std::net::{IpAddr, Ipv4Addr, UdpSocket};

    /// A name server on loopback that knows SRV records: (name, priority, weight, port, target).
    fn serve(records: &'static [(&'static str, u16, u16, u16, &'static str)]) -> TokioResolver {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((n, from)) = socket.recv_from(&mut query) {
                let _ = socket.send_to(&answer(&query[..n], records), from);
            }
        });
        let mut way = ConnectionConfig::udp();
        way.port = port;
        let server = NameServerConfig::new(IpAddr::V4(Ipv4Addr::LOCALHOST), true, vec![way]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build().unwrap()
    }

    /// RFC 1035 section 4.1, RFC 2782; names uncompressed.
    fn answer(query: &[u8], records: &[(&str, u16, u16, u16, &str)]) -> Vec<u8> {
        let (mut name, mut at) = (String::new(), 12);
        while query[at] != 0 {
            let label = &query[at + 1..at + 1 + usize::from(query[at])];
            name.push_str(&format!("{}.", String::from_utf8_lossy(label).to_lowercase()));
            at += label.len() + 1;
        }
        let question = &query[12..at + 5];
        let wanted: Vec<_> = records.iter().filter(|r| r.0 == name).collect();
        let status = if wanted.is_empty() { 3 } else { 0 };
        let mut out = vec![query[0], query[1], 0x81, 0x80 | status, 0, 1, 0, wanted.len() as u8, 0, 0, 0, 0];
        out.extend(question);
        for (owner, priority, weight, port, target) in wanted {
            let labels = |name: &str| {
                let mut out = Vec::new();
                for label in name.trim_end_matches('.').split('.').filter(|l| !l.is_empty()) {
                    out.push(label.len() as u8);
                    out.extend(label.bytes());
                }
                out.push(0);
                out
            };
            let (owner, target) = (labels(owner), labels(target));
            out.extend(owner);
            out.extend([0, 33, 0, 1, 0, 0, 0, 60]);
            out.extend((target.len() as u16 + 6).to_be_bytes());
            [priority, weight, port].iter().for_each(|n| out.extend(n.to_be_bytes()));
            out.extend(target);
        }
        out
    }

    async fn found(domain: &str, dns: TokioResolver) -> Vec<String> {
        let addrs = look_up(&domain.parse().unwrap(), Some(dns)).await;
        addrs.iter().map(SocketAddr::to_string).collect()
    }

    #[tokio::test]
    async fn srv_records_lead_to_supernodes_in_their_order() {
        const RECORDS: &[(&str, u16, u16, u16, &str)] = &[
            ("_chordial._tcp.hq.test.", 20, 0, 5065, "127.0.0.3."),
            ("_chordial._tcp.hq.test.", 10, 1, 5063, "127.0.0.1."),
            ("_chordial._tcp.hq.test.", 10, 9, 5064, "127.0.0.2."),
            ("_sips._tcp.hq.test.", 1, 1, 7000, "127.0.0.9."),
            ("_sips._tcp.sips.test.", 1, 1, 5071, "127.0.0.4."),
            ("_chordial._tcp.gone.test.", 0, 0, 0, "."),
        ];
        assert_eq!(found("hq.test", serve(RECORDS)).await, ["127.0.0.2:5064", "127.0.0.1:5063", "127.0.0.3:5065"]);
        assert_eq!(found("sips.test", serve(RECORDS)).await, ["127.0.0.4:5071"]);
        assert!(found("gone.test", serve(RECORDS)).await.is_empty());
        // Without SRV records a domain is a host.
        assert!(found("localhost", serve(RECORDS)).await.contains(&"127.0.0.1:5061".to_owned()));
        let host: Bootstrap = "localhost:6061".parse().unwrap();
        assert!(resolve(&host).await.unwrap().contains(&"127.0.0.1:6061".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_name_that_leads_nowhere_is_named() {
        let why = resolve(&Bootstrap::Host { name: "nosuch.invalid".into(), port: 5061 }).await.unwrap_err();
        assert!(why.contains("nosuch.invalid"), "{why}");
    }
}
