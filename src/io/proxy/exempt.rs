//! Whom a proxy is not asked for: what `no_proxy` lists, and this machine.

use crate::nat::turn::peers::Prefix;
use std::net::IpAddr;

/// This machine.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// Addresses and names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Exempt {
    all: bool,
    nets: Vec<Prefix>,
    /// In small letters, with no dot before them.
    names: Vec<String>,
}

impl Exempt {
    /// This machine alone.
    pub(super) fn this_machine() -> Exempt {
        Exempt { nets: LOOPBACK.iter().filter_map(|net| net.parse().ok()).collect(), ..Exempt::default() }
    }

    /// And what a list as in `no_proxy` names: addresses, ADDRESS/BITS, domains (with all that is in them), `*`.
    pub(super) fn read(list: &str) -> Exempt {
        let mut exempt = Exempt::this_machine();
        for entry in list.split([',', ' ']).map(str::trim).filter(|e| !e.is_empty()) {
            let unbracketed = entry.strip_prefix('[').and_then(|e| e.strip_suffix(']')).unwrap_or(entry);
            match unbracketed.parse() {
                Ok(net) => exempt.nets.push(net),
                Err(_) if entry == "*" => exempt.all = true,
                Err(_) => {
                    let name = entry.strip_prefix('*').unwrap_or(entry);
                    exempt.names.push(name.trim_start_matches('.').to_ascii_lowercase());
                }
            }
        }
        exempt
    }

    /// Whether it has this address, or this name of it.
    pub(super) fn has(&self, ip: IpAddr, name: Option<&str>) -> bool {
        let name = name.map(str::to_ascii_lowercase).unwrap_or_default();
        let within =
            |domain: &String| name.strip_suffix(domain.as_str()).is_some_and(|r| r.is_empty() || r.ends_with('.'));
        self.all || self.nets.iter().any(|net| net.contains(ip)) || (!name.is_empty() && self.names.iter().any(within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(list: &str, ip: &str, name: &str) -> bool {
        Exempt::read(list).has(ip.parse().unwrap(), Some(name).filter(|n| !n.is_empty()))
    }

    #[test]
    fn what_no_proxy_lists_is_left_alone() {
        let list = "localhost, 10.0.0.0/8,192.0.2.7 .Corp.test,[2001:db8::1]";
        for (ip, name) in [
            ("10.1.2.3", ""),
            ("192.0.2.7", ""),
            ("2001:db8::1", ""),
            ("::ffff:10.1.2.3", ""),
            ("203.0.113.1", "sip.corp.TEST"),
            ("203.0.113.1", "corp.test"),
            ("127.9.9.9", ""),
            ("::1", ""),
        ] {
            assert!(has(list, ip, name), "{ip} {name}");
        }
        for (ip, name) in [("192.0.2.8", ""), ("203.0.113.1", ""), ("203.0.113.1", "xcorp.test"), ("2001:db8::2", "")] {
            assert!(!has(list, ip, name), "{ip} {name}");
        }
        assert!(has("*", "203.0.113.1", ""));
        assert!(has("", "127.0.0.1", "") && !has("", "203.0.113.1", "itsp.test"));
    }
}
