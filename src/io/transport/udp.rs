//! Datagrams in.

use super::Event;
use super::counters::add;
use super::shared::Shared;
use crate::core::Flow;
use bytes::Bytes;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;

/// Datagrams taken in one go before the task lets others run.
const BATCH: usize = 64;
const LARGEST: usize = 65_535;

/// One UDP socket, with a second handle to send by.
#[derive(Debug)]
pub(super) struct Socket {
    reading: UdpSocket,
    /// Sending asks the system itself: tokio would say "not ready" until it has heard of the socket.
    sending: std::net::UdpSocket,
    pub(super) addr: SocketAddr,
}

impl Socket {
    /// Of a socket that does not block.
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Socket> {
        let (addr, sending) = (socket.local_addr()?, socket.try_clone()?);
        Ok(Socket { reading: UdpSocket::from_std(socket)?, sending, addr })
    }

    /// True when the system took all of it.
    pub(super) fn send(&self, bytes: &[u8], remote: SocketAddr) -> bool {
        matches!(self.sending.send_to(bytes, remote), Ok(n) if n == bytes.len())
    }
}

/// Reads until the node is gone. A full event channel stops the reading; what then comes waits in the socket's buffer, and
/// the system drops what does not fit there.
pub(super) async fn receive(shared: Arc<Shared>, socket: Arc<Socket>) {
    let mut buffer = vec![0; LARGEST];
    loop {
        if socket.reading.readable().await.is_err() {
            return;
        }
        for _ in 0..BATCH {
            match socket.reading.try_recv_from(&mut buffer) {
                Ok((len, remote)) => {
                    let bytes = buffer.get(..len).unwrap_or_default();
                    // Line ends and zeroes keep a NAT open and say nothing.
                    if bytes.iter().all(|b| matches!(b, b'\r' | b'\n' | 0)) {
                        continue;
                    }
                    add(&shared.counters.datagrams_in);
                    let event =
                        Event::Datagram { flow: Flow::udp(socket.addr, remote), bytes: Bytes::copy_from_slice(bytes) };
                    if shared.events.send(event).await.is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An answer of the network to something that we sent: of no use here, but not to be spun on.
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        tokio::task::yield_now().await;
    }
}
