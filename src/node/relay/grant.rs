//! What a relay grants a member, in CBOR: an array of nine items, of which more may follow in later versions.

use crate::core::{Redacted, Transport};
use crate::nat::ice::RelayServer;
use minicbor::{Decoder, Encoder};
use std::net::{IpAddr, SocketAddr};

/// Version of these bodies.
const VERSION: u64 = 1;
/// Most addresses, and most ports of streams.
const HOSTS: u64 = 8;
const STREAMS: u64 = 4;
/// Longest text.
const TEXT: usize = 256;

/// A relay, and a credential for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its addresses, the one on the local network first.
    pub hosts: Vec<IpAddr>,
    /// Of STUN and TURN over UDP; 0: not served.
    pub udp: u16,
    /// Of TURN over TCP and TLS, each port both.
    pub streams: Vec<u16>,
    /// REALM.
    pub realm: String,
    /// USERNAME.
    pub username: String,
    /// Of the long-term credential.
    pub password: Redacted<String>,
    /// Seconds from now on.
    pub lifetime: u32,
    /// How many of its allocations are taken, percent.
    pub load: u8,
    /// SHA-256 of the certificate that its TLS shows.
    pub certificate: [u8; 32],
}

impl Grant {
    /// What asks for one.
    pub fn ask() -> Vec<u8> {
        let mut out = Encoder::new(Vec::new());
        // A `Vec` takes whatever is written.
        let _ = out.array(1).and_then(|o| o.u64(VERSION));
        out.into_writer()
    }

    /// It has addresses of both families.
    pub fn has_both(&self) -> bool {
        [true, false].iter().all(|v4| self.hosts.iter().any(|h| h.is_ipv4() == *v4))
    }

    /// It as a call uses it at this address; over TLS its certificate is known.
    pub fn server(&self, addr: SocketAddr, transport: Transport) -> RelayServer {
        RelayServer {
            addr,
            transport,
            certificate: (transport == Transport::Tls).then_some(self.certificate),
            both: self.has_both(),
            username: self.username.clone(),
            password: self.password.clone(),
        }
    }

    /// The body of an answer.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new(Vec::new());
        let _ = self.write(&mut out);
        out.into_writer()
    }

    fn write(&self, out: &mut Encoder<Vec<u8>>) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        out.array(10)?.u64(VERSION)?.array(self.hosts.len() as u64)?;
        for host in &self.hosts {
            out.str(&host.to_string())?;
        }
        out.u16(self.udp)?.array(self.streams.len() as u64)?;
        for port in &self.streams {
            out.u16(*port)?;
        }
        out.str(&self.realm)?.str(&self.username)?.str(self.password.reveal())?;
        out.u32(self.lifetime)?.u8(self.load)?.bytes(&self.certificate)?;
        Ok(())
    }

    /// Reads an answer; none where it is no grant.
    pub fn decode(bytes: &[u8]) -> Option<Grant> {
        let mut read = Decoder::new(bytes);
        let items = read.array().ok()??;
        if items < 10 || read.u64().ok()? != VERSION {
            return None;
        }
        let mut hosts = Vec::new();
        for _ in 0..read.array().ok()?.filter(|n| *n <= HOSTS)? {
            hosts.push(read.str().ok()?.parse().ok()?);
        }
        let udp = read.u16().ok()?;
        let mut streams = Vec::new();
        for _ in 0..read.array().ok()?.filter(|n| *n <= STREAMS)? {
            streams.push(read.u16().ok()?);
        }
        let mut text = || read.str().ok().filter(|t| t.len() <= TEXT).map(str::to_owned);
        let (realm, username, password) = (text()?, text()?, Redacted::new(text()?));
        let (lifetime, load) = (read.u32().ok()?, read.u8().ok()?.min(100));
        let certificate = read.bytes().ok()?.try_into().ok()?;
        let usable = !hosts.is_empty() && (udp != 0 || !streams.is_empty());
        usable.then_some(Grant { hosts, udp, streams, realm, username, password, lifetime, load, certificate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Grant {
        Grant {
            hosts: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            udp: 3478,
            streams: vec![443, 3478],
            realm: "office".into(),
            username: "1700000000:ann".into(),
            password: Redacted::new("secret".into()),
            lifetime: 3600,
            load: 7,
            certificate: [3; 32],
        }
    }

    #[test]
    fn there_and_back() {
        assert_eq!(Grant::decode(&grant().encode()), Some(grant()));
        assert_eq!(Grant::decode(&Grant::ask()), None);
        let nowhere = Grant { hosts: Vec::new(), ..grant() };
        assert_eq!(Grant::decode(&nowhere.encode()), None);
        let crowd = Grant { hosts: vec!["192.0.2.1".parse().unwrap(); 9], ..grant() };
        assert_eq!(Grant::decode(&crowd.encode()), None);
    }

    #[test]
    fn hostile_bytes_are_no_grant_and_no_panic() {
        let good = grant().encode();
        for end in 0..good.len() {
            assert_eq!(Grant::decode(&good[..end]), None);
        }
        for at in 0..good.len() {
            for value in [0, 0x1b, 0x5b, 0x7b, 0x9b, 0x9f, 0xff] {
                let mut changed = good.clone();
                changed[at] = value;
                let _ = Grant::decode(&changed);
            }
        }
    }
}
