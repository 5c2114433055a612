//! Connections out.

use super::close::ConnectError;
use super::shared::{Line, Shared};
use super::{Event, stream};
use crate::core::{ConnId, Flow, Transport};
use crate::identity::{Expect, Proven};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// For TCP's own handshake.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Opens one connection and runs it to its end.
pub(super) async fn dial(
    shared: Arc<Shared>,
    conn: ConnId,
    transport: Transport,
    remote: SocketAddr,
    expect: Expect,
    line: Line,
) {
    if let Err(why) = attempt(&shared, conn, transport, remote, expect, line).await {
        shared.close(conn);
        let _ = shared.events.send(Event::ConnectFailed { conn, why }).await;
    }
}

async fn attempt(
    shared: &Shared,
    conn: ConnId,
    transport: Transport,
    remote: SocketAddr,
    expect: Expect,
    line: Line,
) -> Result<(), ConnectError> {
    let tls = match transport {
        Transport::Udp => return Err(ConnectError::NotAStream),
        Transport::Tcp => None,
        Transport::Tls => Some(shared.tls().ok_or(ConnectError::NoCredentials)?),
    };
    let tcp = match timeout(CONNECT_TIME, connect(shared.source, remote)).await {
        Ok(tcp) => tcp.map_err(|e| ConnectError::Io(remote, e))?,
        Err(_) => return Err(ConnectError::Timeout(remote)),
    };
    let local = tcp.local_addr().map_err(|e| ConnectError::Io(remote, e))?;
    let flow = Flow::stream(transport, local, remote, conn);
    let Some(tls) = tls else {
        opened(shared, Event::Connected { conn, flow, peer: Proven::Nobody }, &line).await;
        let why = stream::run(shared, conn, tcp, line).await;
        shared.closed(conn, why).await;
        return Ok(());
    };
    let (link, peer) = match timeout(shared.limits.handshake, tls.connect(tcp, remote, expect)).await {
        Ok(link) => link?,
        Err(_) => return Err(ConnectError::Timeout(remote)),
    };
    opened(shared, Event::Connected { conn, flow, peer }, &line).await;
    let why = stream::run(shared, conn, link, line).await;
    shared.closed(conn, why).await;
    Ok(())
}

/// Tells the node, unless it has closed the connection meanwhile.
async fn opened(shared: &Shared, event: Event, line: &Line) {
    if !line.writes.is_closed() {
        let _ = shared.events.send(event).await;
    }
}

async fn connect(listening: Option<SocketAddr>, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = stream::source_for(listening, remote) {
        socket.bind(source)?;
    }
    let stream = socket.connect(remote).await?;
    stream::tune(&stream);
    Ok(stream)
}
