//! Datagrams of one round. Those with the same way and size go by one system call (GSO).

use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

/// Most datagrams before they are sent.
pub(super) const DATAGRAMS: usize = 256;
/// Most bytes that go by one call: a datagram's largest.
const TOGETHER: usize = 65_000;

/// A socket and what the system can do for it.
pub(super) struct Socket {
    pub(super) io: mio::net::UdpSocket,
    pub(super) state: UdpSocketState,
}

impl Socket {
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Socket> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Socket { io: mio::net::UdpSocket::from_std(socket), state })
    }
}

/// Where a datagram goes out. The order is that in which they are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Exit {
    /// Which socket, as [`super::packets`] numbers them.
    pub(super) socket: usize,
    pub(super) to: SocketAddr,
    /// The address of this machine it is to come from.
    pub(super) from: Option<IpAddr>,
}

/// What waits.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    waiting: Vec<(Exit, Range<usize>)>,
    together: Vec<u8>,
}

impl Batch {
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= DATAGRAMS
    }

    /// Adds a datagram, which `write` appends.
    pub(super) fn push(&mut self, exit: Exit, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.waiting.push((exit, start..self.bytes.len()));
    }

    /// Sends all; how many the system did not take.
    pub(super) fn flush<'s>(&mut self, socket: impl Fn(usize) -> Option<&'s Socket>) -> u64 {
        // Stable: what goes to one place keeps its order.
        if self.waiting.len() > 1 {
            self.waiting.sort_by_key(|(exit, _)| *exit);
        }
        let (mut lost, mut at) = (0, 0);
        while let Some((exit, range)) = self.waiting.get(at).cloned() {
            let Some(through) = socket(exit.socket) else {
                (lost, at) = (lost + 1, at + 1);
                continue;
            };
            let most = through.state.max_gso_segments().min(TOGETHER / range.len().max(1)).max(1);
            let run = self.run(at, most);
            let contents = if run == 1 {
                &self.bytes[range.clone()]
            } else {
                self.together.clear();
                for (_, part) in &self.waiting[at..at + run] {
                    self.together.extend_from_slice(&self.bytes[part.clone()]);
                }
                &self.together[..]
            };
            let transmit = Transmit {
                destination: exit.to,
                ecn: None,
                contents,
                segment_size: (run > 1).then_some(range.len()),
                src_ip: exit.from,
            };
            // A full buffer, an unreachable peer: a datagram may be lost.
            if through.state.try_send(UdpSockRef::from(&through.io), &transmit).is_err() {
                lost += run as u64;
            }
            at += run;
        }
        self.waiting.clear();
        self.bytes.clear();
        lost
    }

    /// How many from `at` on go together: the same exit and size, only the last may be smaller.
    fn run(&self, at: usize, most: usize) -> usize {
        let (exit, first) = &self.waiting[at];
        let mut run = 1;
        while run < most {
            match self.waiting.get(at + run) {
                Some((other, range)) if other == exit && range.len() == first.len() => run += 1,
                Some((other, range)) if other == exit && range.len() < first.len() && !range.is_empty() => {
                    return run + 1;
                }
                _ => break,
            }
        }
        run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_arrive_whole_and_in_order() {
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let sockets = [Socket::new(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap()];
        let exit = |to: &std::net::UdpSocket| Exit { socket: 0, to: to.local_addr().unwrap(), from: None };
        let mut batch = Batch::default();
        for i in 0..20u8 {
            let length = if i == 9 { 50 } else { 100 };
            batch.push(exit(&receiver), |out| out.resize(out.len() + length, i));
            batch.push(exit(&other), |out| out.push(i));
        }
        batch.push(Exit { socket: 7, ..exit(&other) }, |out| out.push(0));
        assert_eq!(batch.flush(|at| sockets.get(at)), 1);
        let mut buffer = [0; 2000];
        for i in 0..20u8 {
            let read = receiver.recv(&mut buffer).unwrap();
            assert_eq!((read, buffer[0]), (if i == 9 { 50 } else { 100 }, i));
            assert_eq!((other.recv(&mut buffer).unwrap(), buffer[0]), (1, i));
        }
    }
}
