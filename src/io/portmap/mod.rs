//! The sockets of [`nat::portmap`](crate::nat::portmap): one UDP socket on this machine's address for PCP, NAT-PMP and the search, one TCP
//! connection for each question to a UPnP router. What comes of it goes to the node.

use crate::core::Rng;
use crate::io::media::clock;
use crate::nat::portmap::{LARGEST_ANSWER, Output, PortMap, Progress, read_answer};
use crate::node::Input;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// For one question to a UPnP router, from the connection to the end of its answer.
const HTTP_TIME: Duration = Duration::from_secs(6);
/// What the routers' lists show.
const LABEL: &str = "Chordial";
/// For the removal of a mapping.
const FAREWELL: Duration = Duration::from_millis(800);

/// Keeps a port of the router open until it is closed.
pub(super) struct PortMapper {
    close: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl PortMapper {
    /// Begins to ask. Needs a tokio runtime.
    ///
    /// # Errors
    /// The socket.
    pub fn start(
        internal: SocketAddrV4,
        gateway: Option<Ipv4Addr>,
        rng: Rng,
        node: mpsc::Sender<Input>,
    ) -> io::Result<PortMapper> {
        let socket = std::net::UdpSocket::bind((*internal.ip(), 0))?;
        socket.set_nonblocking(true)?;
        socket.set_multicast_ttl_v4(2)?;
        socket2::SockRef::from(&socket).set_multicast_if_v4(internal.ip())?;
        let socket = UdpSocket::from_std(socket)?;
        let map = PortMap::new(clock::now(), internal.into(), gateway, LABEL, rng);
        let (close, closing) = oneshot::channel();
        let task = tokio::spawn(run(map, *internal.ip(), socket, node, closing));
        Ok(PortMapper { close: Some(close), task })
    }

    /// Removes the mapping; waits for that a moment.
    pub async fn close(mut self) {
        if let Some(close) = self.close.take() {
            let _ = close.send(());
        }
        let _ = timeout(FAREWELL, &mut self.task).await;
    }
}

impl Drop for PortMapper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    mut map: PortMap,
    ip: Ipv4Addr,
    socket: UdpSocket,
    node: mpsc::Sender<Input>,
    mut closing: oneshot::Receiver<()>,
) {
    let (answers, mut answered) = mpsc::channel(4);
    let mut bytes = vec![0; 4096];
    loop {
        while let Some(output) = map.poll_output() {
            match output {
                Output::Datagram { to, bytes } => {
                    if let Err(fault) = socket.send_to(&bytes, to).await {
                        tracing::debug!(%to, %fault, "not sent to the router");
                    }
                }
                Output::Http { id, to, bytes } => {
                    let answers = answers.clone();
                    tokio::spawn(async move {
                        let answer = timeout(HTTP_TIME, ask(ip, to, &bytes)).await;
                        let _ = answers.send((id, answer.ok().and_then(Result::ok))).await;
                    });
                }
                Output::Mapped(mapping) => {
                    let _ = node.send(Input::Mapped { mapping }).await;
                }
                Output::Unmapped { why } => {
                    let _ = node.send(Input::Unmapped { why }).await;
                }
            }
        }
        let now = clock::now();
        let wait = map.poll_timeout().map_or(Duration::from_secs(3600), |at| at.since(now));
        tokio::select! {
            received = socket.recv_from(&mut bytes) => match received {
                Ok((n, from)) => map.on_datagram(clock::now(), from, &bytes[..n]),
                // A router without such a service says so by ICMP; the machine's timers go on.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some((id, answer)) = answered.recv() => {
                map.on_http(clock::now(), id, answer);
            }
            () = tokio::time::sleep(wait) => map.handle_timeout(clock::now()),
            _ = &mut closing => break,
        }
    }
    map.close();
    while let Some(output) = map.poll_output() {
        match output {
            Output::Datagram { to, bytes } => drop(socket.send_to(&bytes, to).await),
            Output::Http { to, bytes, .. } => drop(ask(ip, to, &bytes).await),
            Output::Mapped(_) | Output::Unmapped { .. } => {}
        }
    }
}

/// One request and its answer.
async fn ask(ip: Ipv4Addr, to: SocketAddr, bytes: &[u8]) -> io::Result<crate::nat::portmap::Answer> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(ip), 0))?;
    let mut stream = socket.connect(to).await?;
    stream.write_all(bytes).await?;
    let mut got = Vec::new();
    let mut piece = vec![0; 16 * 1024];
    loop {
        let n = stream.read(&mut piece).await?;
        got.extend_from_slice(&piece[..n]);
        match read_answer(&got, n == 0) {
            Progress::Done(answer) => return Ok(answer),
            Progress::More if got.len() <= LARGEST_ANSWER => {}
            Progress::More | Progress::Broken => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
