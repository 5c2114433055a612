//! Pairs of UDP ports: RTP on an even one, RTCP on the next (RFC 3550 section 11); with ICE, TCP on the next as well.

use super::EngineError;
use socket2::SockRef;
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;

/// Expedited forwarding (46) where the DSCP stands: in the upper six bits.
pub(in crate::io) const EXPEDITED: u32 = 46 << 2;
/// Tries when the system chooses; each fails only if its neighbour is taken.
const TRIES: u32 = 64;

/// Where a call's sockets are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Local {
    /// RTP.
    pub rtp: SocketAddr,
    /// RTCP.
    pub rtcp: SocketAddr,
    /// Further ones for both, on other addresses of this machine.
    pub also: Vec<SocketAddr>,
    /// Where TCP connections are waited for: the port of RTCP on each of these addresses.
    pub tcp: Vec<SocketAddr>,
}

/// The sockets of a call.
pub(super) struct Sockets {
    pub(super) rtp: UdpSocket,
    pub(super) rtcp: UdpSocket,
    pub(super) also: Vec<UdpSocket>,
    pub(super) tcp: Vec<TcpListener>,
}

/// Gives out pairs, going round the range so that a port rests before it is used again.
pub(super) struct Ports {
    bind: IpAddr,
    range: Option<RangeInclusive<u16>>,
    next: u16,
    tcp: bool,
}

impl Ports {
    pub(super) fn new(bind: IpAddr, range: Option<RangeInclusive<u16>>, tcp: bool) -> Self {
        let next = range.as_ref().map_or(0, |range| *range.start());
        Ports { bind, range, next, tcp }
    }

    pub(super) fn rebind(&mut self, bind: IpAddr) {
        self.bind = bind;
    }

    /// A pair, and one more socket on each of `beside`, where that can be had.
    pub(super) fn open(&mut self, beside: &[IpAddr]) -> Result<(Local, Sockets), EngineError> {
        let result = match self.range.clone() {
            Some(range) => self.within(range),
            None => self.anywhere(),
        };
        let sockets =
            result.map_err(|source| EngineError::Ports { bind: self.bind, range: self.range.clone(), source });
        sockets.and_then(|mut sockets| {
            let failed = |source| EngineError::Ports { bind: self.bind, range: self.range.clone(), source };
            let rtp = sockets.rtp.local_addr().map_err(failed)?;
            let rtcp = sockets.rtcp.local_addr().map_err(failed)?;
            let others = beside.iter().filter(|ip| **ip != self.bind);
            // The same port, which a firewall may have been opened for, where it is free.
            sockets.also = others.filter_map(|ip| bind(*ip, rtp.port()).or_else(|_| bind(*ip, 0)).ok()).collect();
            let also: Vec<_> = sockets.also.iter().filter_map(|s| s.local_addr().ok()).collect();
            if self.tcp {
                let at = |voice: &SocketAddr| listener(SocketAddr::new(voice.ip(), voice.port().checked_add(1)?)).ok();
                sockets.tcp = std::iter::once(&rtp).chain(&also).filter_map(at).collect();
            }
            let tcp = sockets.tcp.iter().filter_map(|s| s.local_addr().ok()).collect();
            let local = Local { rtp, rtcp, also, tcp };
            Ok((local, sockets))
        })
    }

    fn within(&mut self, range: RangeInclusive<u16>) -> Result<Sockets, Error> {
        let (first, last) = (range.start().next_multiple_of(2), *range.end());
        let pairs = (u32::from(last) + 1).saturating_sub(u32::from(first)) / 2;
        let mut failure = Error::new(ErrorKind::AddrInUse, "the range holds no pair");
        for _ in 0..pairs {
            let inside = self.next >= first && self.next.is_multiple_of(2) && self.next < last;
            let port = if inside { self.next } else { first };
            self.next = port.saturating_add(2);
            match self.pair(port) {
                Ok(sockets) => return Ok(sockets),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn anywhere(&self) -> Result<Sockets, Error> {
        let mut failure = Error::from(ErrorKind::AddrInUse);
        // Held until the end, so that the system does not offer the same odd port again.
        let mut odd = Vec::new();
        for _ in 0..TRIES {
            let rtp = self.bind(0)?;
            let port = rtp.local_addr()?.port();
            if !port.is_multiple_of(2) || port == u16::MAX - 1 {
                odd.push(rtp);
                continue;
            }
            match self.bind(port + 1) {
                Ok(rtcp) => return Ok(Sockets { rtp, rtcp, also: Vec::new(), tcp: Vec::new() }),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn pair(&self, port: u16) -> Result<Sockets, Error> {
        let (rtp, rtcp) = (self.bind(port)?, self.bind(port.saturating_add(1))?);
        Ok(Sockets { rtp, rtcp, also: Vec::new(), tcp: Vec::new() })
    }

    fn bind(&self, port: u16) -> Result<UdpSocket, Error> {
        bind(self.bind, port)
    }
}

fn bind(ip: IpAddr, port: u16) -> Result<UdpSocket, Error> {
    let socket = UdpSocket::bind(SocketAddr::new(ip, port))?;
    socket.set_nonblocking(true)?;
    mark(&SockRef::from(&socket), ip.is_ipv4());
    Ok(socket)
}

/// On a port that no voice socket of the call has: addresses tell them apart.
fn listener(at: SocketAddr) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What leaves by this socket is voice: expedited forwarding (RFC 3246, RFC 8837 section 5), in IPv4's TOS or IPv6's traffic class.
pub(in crate::io) fn mark(socket: &SockRef<'_>, v4: bool) {
    // A system that forbids it carries voice as anything else.
    let _ = if v4 { socket.set_tos_v4(EXPEDITED) } else { socket.set_tclass_v6(EXPEDITED) };
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn pairs_are_even_and_next_to_each_other() {
        let mut ports = Ports::new(LOOPBACK, None, false);
        let pairs: Vec<_> = (0..20).map(|_| ports.open(&[]).unwrap()).collect();
        for (local, _) in &pairs {
            assert!(local.rtp.port().is_multiple_of(2));
            assert_eq!(local.rtcp.port(), local.rtp.port() + 1);
        }
    }

    #[test]
    fn connections_come_to_the_port_after_the_voice() {
        let (local, sockets) = Ports::new(LOOPBACK, None, true).open(&[]).unwrap();
        assert_eq!(local.tcp, [SocketAddr::new(LOOPBACK, local.rtp.port() + 1)]);
        assert!(std::net::TcpStream::connect(local.tcp[0]).is_ok());
        drop(sockets);
        let without = Ports::new(LOOPBACK, None, false).open(&[]).unwrap().0;
        assert_eq!(without.tcp, []);
        assert!(std::net::TcpStream::connect(SocketAddr::new(LOOPBACK, without.rtp.port() + 1)).is_err());
    }

    #[test]
    fn every_socket_is_marked_as_voice() {
        let six = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
        for ip in [LOOPBACK, six] {
            let (_, sockets) = Ports::new(ip, None, false).open(&[LOOPBACK, six]).unwrap();
            assert!(!sockets.also.is_empty());
            for socket in [&sockets.rtp, &sockets.rtcp].into_iter().chain(&sockets.also) {
                let v4 = socket.local_addr().unwrap().is_ipv4();
                let socket = SockRef::from(socket);
                let marked = if v4 { socket.tos_v4() } else { socket.tclass_v6() };
                assert_eq!(marked.unwrap(), EXPEDITED);
            }
        }
    }

    #[test]
    fn a_range_is_kept_to_and_runs_out() {
        let free = Ports::new(LOOPBACK, None, false).open(&[]).unwrap().0.rtp.port();
        let mut ports = Ports::new(LOOPBACK, Some(free - 1..=free + 1), false);
        let (local, held) = ports.open(&[]).unwrap();
        assert_eq!(local.rtp.port(), free);
        let error = ports.open(&[]).err().unwrap().to_string();
        assert!(error.contains(&format!("{}-{}", free - 1, free + 1)), "{error}");
        drop(held);
        assert!(ports.open(&[]).is_ok());
    }
}
