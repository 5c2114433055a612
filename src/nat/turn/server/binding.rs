//! Where a client is seen from (RFC 8489), and how its NAT behaves (RFC 5780 section 6.1): answers from the other port or the other address
//! where the relay has them. Padding and RESPONSE-PORT are not served: the one makes large answers, the other sends them elsewhere.

use super::super::table::Path;
use super::Server;
use crate::core::Instant;
use crate::stun::attributes::{OtherAddress, ResponseOrigin, XorMappedAddress};
use crate::stun::{Class, Message, Method, Parsed, Seal, TransactionId, raw};
use std::net::{IpAddr, SocketAddr};

impl Server {
    pub(super) fn on_binding(&mut self, now: Instant, path: Path, parsed: &Parsed<'_>) {
        let client = super::super::table::canonical(path.client());
        let mut answer = parsed.message.success();
        answer.push(XorMappedAddress::new(client));
        let Path::Datagram { socket, local, .. } = path else {
            return self.answer_unproven(now, path, &answer, parsed.fingerprint);
        };
        let change = parsed.message.get_raw(raw::CHANGE_REQUEST).and_then(|c| c.last().copied()).unwrap_or(0);
        let (other_ip, other_port) = (change & raw::CHANGE_IP != 0, change & raw::CHANGE_PORT != 0);
        let face = self.config.faces.get(usize::from(socket)).copied();
        let from = match (other_ip || other_port, face) {
            (false, _) => Some(usize::from(socket)),
            (true, Some(face)) => self.face(face, other_ip, other_port),
            (true, None) => None,
        };
        let Some(from) = from else {
            // What asks for an address that is not there (RFC 5780 section 6.1.4 leaves 420 for it).
            let mut answer = parsed.message.error(420);
            answer.push_unknown(&[raw::CHANGE_REQUEST]);
            return self.answer_unproven(now, path, &answer, parsed.fingerprint);
        };
        if let Some(face) = face {
            // A socket for all addresses of this machine answers from the one that was written to.
            let own = |f: SocketAddr| {
                let ip = local.map(|l| l.to_canonical()).filter(|l| l.is_ipv4() == f.is_ipv4());
                let known = |ip: &IpAddr| self.config.faces.iter().any(|f| f.ip() == *ip);
                ip.filter(|ip| !known(ip)).map_or(f, |ip| SocketAddr::new(ip, f.port()))
            };
            let origin = self.config.faces.get(from).copied().unwrap_or(face);
            answer.push(ResponseOrigin::new(own(origin)));
            let at = |face: usize| self.config.faces.get(face).copied();
            let other = self.face(face, true, true).and_then(at);
            if let Some(other) = other.or_else(|| self.face(face, false, true).and_then(at).map(own)) {
                answer.push(OtherAddress::new(other));
            }
        }
        if !self.thrift.spend(now, client.ip()) {
            self.counters.spared += 1;
            return;
        }
        let bytes = answer.encode(Seal { key: None, fingerprint: parsed.fingerprint });
        let path = match path {
            Path::Datagram { local, client, socket } if from != usize::from(socket) => {
                let local = self.config.faces.get(from).map(SocketAddr::ip).filter(|_| other_ip).or(local);
                Path::Datagram { socket: from as u16, local, client }
            }
            path => path,
        };
        self.put(super::Output::Answer { path, bytes });
    }

    /// A Binding answer that nobody asked for here: whoever did was proven, and is at `to`.
    pub(super) fn on_asked_for(&mut self, now: Instant, to: SocketAddr, id: TransactionId) {
        let of_family = |f: &SocketAddr| f.is_ipv4() == to.is_ipv4();
        let Some(socket) = self.config.faces.iter().position(of_family) else { return };
        if !self.thrift.spend(now, to.ip()) {
            self.counters.spared += 1;
            return;
        }
        let mut answer = Message::new(Class::Success, Method::BINDING, id);
        answer.push(XorMappedAddress::new(to));
        let path = Path::Datagram { socket: socket as u16, local: None, client: to };
        self.put(super::Output::Answer { path, bytes: answer.encode(Seal::default()) });
    }

    /// The socket at another address, another port, or both.
    fn face(&self, of: SocketAddr, ip: bool, port: bool) -> Option<usize> {
        self.config
            .faces
            .iter()
            .position(|f| f.is_ipv4() == of.is_ipv4() && (f.ip() != of.ip()) == ip && (f.port() != of.port()) == port)
    }
}
