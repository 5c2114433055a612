//! Datagrams in.

use super::Event;
use super::counters::add;
use super::shared::Shared;
use crate::core::Flow;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;

/// Datagrams taken in one go before the task lets others run.
const BATCH: usize = 64;
const LARGEST: usize = 65_535;

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) socket: UdpSocket,
    pub(super) addr: SocketAddr,
}

/// Reads until the node is gone. A full event channel stops the reading; what then comes waits in the socket's buffer, and
/// the system drops what does not fit there.
pub(super) async fn receive(shared: Arc<Shared>, socket: Arc<Socket>) {
    let mut buffer = vec![0; LARGEST];
    loop {
        if socket.socket.readable().await.is_err() {
            return;
        }
        for _ in 0..BATCH {
            match socket.socket.try_recv_from(&mut buffer) {
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
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // An answer of the network to something that we sent: of no use here, but not to be spun on.
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        tokio::task::yield_now().await;
    }
}
