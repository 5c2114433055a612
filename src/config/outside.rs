//! `[[account]]`: an account of this user at an outside registrar.

use crate::core::Transport;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Most accounts of one device.
pub const MAX_ACCOUNTS: usize = 16;

/// What stands in the example file after the keys: tables that may come more than once, and have no default.
pub const EXAMPLE: &str = "
# An account of this user with an outside registrar, SIP provider or PBX; any number of these tables up to 16. Calls by it ring this user as all
# others do. `chordial accounts` shows how they are.
# [[account]]
# What it is called here, for `chordial call --account NAME`.
# name = \"work\"
# The address of record.
# aor = \"sip:4930123@sip.example.net\"
# The registrar, HOST or HOST:PORT; a host is looked up by RFC 3263 (NAPTR, SRV, A, AAAA). Empty: the domain of the aor.
# registrar = \"\"
# Where every request goes first, HOST or HOST:PORT. Empty: the registrar.
# proxy = \"\"
# udp, tcp or tls. Empty: what the DNS says, else udp. tls: the certificate has to be good for the domain of the aor, or for the proxy.
# transport = \"\"
# PEM file of the authorities that tls trusts. Empty: those of this machine.
# ca_file = \"\"
# The user of the digest. Empty: the user of the aor.
# user = \"\"
# A file whose first line is the password, or the environment variable that has it. It does not stand in this file.
# password_file = \"\"
# password_env = \"\"
# Registration asked for, seconds.
# expires = 600
# RFC 5626: the flow of the registration is kept and used where the registrar agrees to it.
# outbound = true
# Calls do not show the address of record (RFC 3323): From is anonymous, and Privacy: id asks the provider to show no other.
# private = false
# Dialled numbers that begin so are called by this account: [\"+\", \"0\"].
# numbers = []
# Plain SIP addresses of domains that are nobody else's are called by this account. Those of its own domain are in any case.
# uris = false
# Further sources of its calls beside the servers found, ADDRESS or ADDRESS/BITS.
# trusted = []
# Several machines of one office have this table, and one of them at a time is registered, by a lease; another takes over when it dies.
# shared = false
# Whom calls for these numbers (users of the called address) ring, and whom all others do: { \"4930100\" = \"anna\" }. Empty: this user.
# dids = {}
# reception = \"\"
";

/// One account.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutsideAccount {
    /// What it is called here.
    pub name: String,
    /// Address of record.
    pub aor: String,
    /// HOST or HOST:PORT; empty: the domain of `aor`.
    pub registrar: String,
    /// HOST or HOST:PORT; empty: the registrar.
    pub proxy: String,
    /// `udp`, `tcp`, `tls`, or empty.
    pub transport: String,
    /// PEM file; empty: the machine's.
    pub ca_file: PathBuf,
    /// Digest user; empty: the user of `aor`.
    pub user: String,
    /// Its first line is the password.
    pub password_file: PathBuf,
    /// The environment variable that has it.
    pub password_env: String,
    /// Seconds; 0: 600.
    pub expires: u32,
    /// RFC 5626; on unless it says `false`.
    pub outbound: Option<bool>,
    /// RFC 3323.
    pub private: bool,
    /// Beginnings of numbers.
    pub numbers: Vec<String>,
    /// Takes plain SIP addresses.
    pub uris: bool,
    /// Further sources of calls.
    pub trusted: Vec<String>,
    /// One machine at a time has it.
    pub shared: bool,
    /// Whom calls for these numbers ring.
    pub dids: BTreeMap<String, String>,
    /// Whom calls for other numbers ring; empty: this user.
    pub reception: String,
}

impl OutsideAccount {
    /// What is wrong with it, for a person.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("[[account]] {}: {what}", self.name));
        let named = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || self.name.len() > 32 || !self.name.chars().all(named) {
            return wrong("name is missing, or has other characters than letters, digits, - _ .");
        }
        let aor = self.aor.strip_prefix("sip:").and_then(|rest| rest.split_once('@'));
        if aor.is_none_or(|(user, host)| user.is_empty() || host.is_empty()) {
            return wrong("aor is to be sip:USER@DOMAIN");
        }
        let transports = [Transport::Udp, Transport::Tcp, Transport::Tls];
        let known = Transport::from_name(&self.transport).is_some_and(|t| transports.contains(&t));
        if !self.transport.is_empty() && !known {
            return wrong("transport is to be udp, tcp or tls");
        }
        if !self.password_file.as_os_str().is_empty() && !self.password_env.is_empty() {
            return wrong("password_file and password_env are both given");
        }
        for (key, host) in [("registrar", &self.registrar), ("proxy", &self.proxy)] {
            if !host.is_empty() && host_port(host).is_none() {
                return wrong(&format!("{key} is to be HOST or HOST:PORT"));
            }
        }
        Ok(())
    }

    /// User and domain of the address of record.
    pub fn user_and_domain(&self) -> (&str, &str) {
        self.aor.strip_prefix("sip:").and_then(|rest| rest.split_once('@')).unwrap_or_default()
    }

    /// Host and port of the registrar.
    pub fn registrar(&self) -> (String, Option<u16>) {
        let named = if self.registrar.is_empty() { self.user_and_domain().1 } else { &self.registrar };
        host_port(named).unwrap_or_default()
    }

    /// Host and port of what every request goes to first.
    pub fn first(&self) -> (String, Option<u16>) {
        host_port(&self.proxy).filter(|_| !self.proxy.is_empty()).unwrap_or_else(|| self.registrar())
    }
}

/// `HOST`, `HOST:PORT`, `[V6]`, `[V6]:PORT`; addresses of version 6 come back without the brackets.
pub fn host_port(text: &str) -> Option<(String, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, behind) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        let port = match behind.strip_prefix(':') {
            Some(port) => Some(port.parse().ok().filter(|p| *p != 0)?),
            None if behind.is_empty() => None,
            None => return None,
        };
        return Some((host.to_owned(), port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok().filter(|p| *p != 0)?)),
        None => (text, None),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (!host.is_empty() && host.len() <= 253 && host.chars().all(fits)).then(|| (host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let read = |text: &str| host_port(text);
        assert_eq!(read("SIP.example.net"), Some(("sip.example.net".into(), None)));
        assert_eq!(read("10.0.0.1:5070"), Some(("10.0.0.1".into(), Some(5070))));
        assert_eq!(read("[2001:db8::1]:5061"), Some(("2001:db8::1".into(), Some(5061))));
        assert_eq!(read("[2001:db8::1]"), Some(("2001:db8::1".into(), None)));
        for wrong in ["", ":5060", "host:", "host:0", "host:99999", "a b", "host;x=1", "[::1", "[::1]x", "[host]"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_faulty_account_is_named() {
        let good = OutsideAccount { name: "work".into(), aor: "sip:anna@itsp.test".into(), ..Default::default() };
        assert_eq!(good.check(), Ok(()));
        assert_eq!((good.registrar(), good.first()), (("itsp.test".into(), None), ("itsp.test".into(), None)));
        let proxied = OutsideAccount { proxy: "edge.itsp.test:5070".into(), ..good.clone() };
        assert_eq!(proxied.first(), ("edge.itsp.test".into(), Some(5070)));
        for faulty in [
            OutsideAccount { name: "a b".into(), ..good.clone() },
            OutsideAccount { aor: "anna@itsp.test".into(), ..good.clone() },
            OutsideAccount { aor: "sip:@itsp.test".into(), ..good.clone() },
            OutsideAccount { transport: "sctp".into(), ..good.clone() },
            OutsideAccount { registrar: "host:0".into(), ..good.clone() },
            OutsideAccount { password_file: "x".into(), password_env: "X".into(), ..good.clone() },
        ] {
            assert!(faulty.check().is_err(), "{faulty:?}");
        }
    }
}
