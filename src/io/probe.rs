//! The UDP socket that a NAT is tested by ([`node::ProbeCommand`](crate::node::ProbeCommand)): opened for one test, at the address that the
//! system sends from towards the first server, and closed after it.

use super::network;
use crate::node::{Input, ProbeCommand, ProbeInput};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Longest answer read.
const LONGEST: usize = 1500;
const AFTER_ERROR: Duration = Duration::from_millis(50);

/// The socket, if there is one.
pub(super) struct Prober {
    node: mpsc::Sender<Input>,
    open: Option<(Arc<UdpSocket>, AbortHandle)>,
}

impl Prober {
    /// None yet; what comes goes to the node.
    pub fn new(node: mpsc::Sender<Input>) -> Prober {
        Prober { node, open: None }
    }

    /// Carries out what the node wants. Needs a tokio runtime.
    pub fn carry_out(&mut self, command: ProbeCommand) -> Option<ProbeInput> {
        match command {
            ProbeCommand::Open { towards } => Some(match self.open(towards) {
                Ok(local) => {
                    let gateway = match local.ip() {
                        IpAddr::V4(ip) => network::gateway(ip).map(IpAddr::V4),
                        IpAddr::V6(_) => None,
                    };
                    ProbeInput::Opened { local, gateway }
                }
                Err(fault) => ProbeInput::Failed { why: fault.to_string() },
            }),
            ProbeCommand::Send { to, bytes } => {
                // One that is not taken is sent again.
                if let Some((socket, _)) = &self.open {
                    let _ = socket.try_send_to(&bytes, to);
                }
                None
            }
            ProbeCommand::Close => {
                self.close();
                None
            }
        }
    }

    fn open(&mut self, towards: SocketAddr) -> io::Result<SocketAddr> {
        self.close();
        let ip = network::source(towards).ok_or(io::ErrorKind::NetworkUnreachable)?;
        let socket = std::net::UdpSocket::bind(SocketAddr::new(ip, 0))?;
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let local = socket.local_addr()?;
        let (reading, node) = (socket.clone(), self.node.clone());
        let task = tokio::spawn(async move {
            let mut buffer = [0; LONGEST];
            loop {
                // An ICMP error of an earlier datagram is no reason to end.
                let Ok((read, from)) = reading.recv_from(&mut buffer).await else {
                    tokio::time::sleep(AFTER_ERROR).await;
                    continue;
                };
                let bytes = buffer[..read].to_vec();
                // Full: a flood, or a busy node; the question is asked again.
                let _ = node.try_send(Input::Probe(ProbeInput::Datagram { from, bytes }));
            }
        });
        self.open = Some((socket, task.abort_handle()));
        Ok(local)
    }

    fn close(&mut self) {
        if let Some((_, task)) = self.open.take() {
            task.abort();
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.close();
    }
}
