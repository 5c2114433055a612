//! Connections in.

use super::close::CloseReason;
use super::counters::add;
use super::link::wants_link;
use super::shared::{Admission, Shared};
use super::{Event, stream};
use crate::core::{Flow, Transport};
use crate::identity::Proven;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::rustls::server::ClientHello;
use tokio_rustls::server::{StartHandshake, TlsStream};

/// Takes links that came to another port than the overlay's, where something else is served too: whoever listens there has read the
/// beginning of their handshake.
#[derive(Clone)]
pub struct Incoming(pub(super) Arc<Shared>);

impl Incoming {
    /// True for a handshake that begins a link: it names the links' protocol.
    pub fn is_link(hello: &ClientHello<'_>) -> bool {
        hello.alpn().is_some_and(|mut names| names.any(wants_link))
    }

    /// Goes on with such a handshake and serves the link to its end.
    pub async fn take(self, begun: StartHandshake<TcpStream>, remote: SocketAddr) {
        let Incoming(shared) = self;
        let Some(admission) = shared.admit(remote.ip()) else { return };
        let (Ok(local), Some(tls)) = (begun.io.local_addr(), shared.tls()) else { return };
        stream::tune(&begun.io);
        link(&shared, tls.resume(begun), (local, remote), admission).await;
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Incoming")
    }
}

/// Accepts until the endpoint is dropped.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener, transport: Transport) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                // One too many is closed by dropping it here.
                let Some(admission) = shared.admit(remote.ip()) else { continue };
                let shared = shared.clone();
                tokio::spawn(async move { serve(shared, stream, remote, transport, admission).await });
            }
            // Out of file descriptors, or the other end was gone before we came.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn serve(shared: Arc<Shared>, tcp: TcpStream, remote: SocketAddr, transport: Transport, admission: Admission) {
    let Ok(local) = tcp.local_addr() else { return };
    stream::tune(&tcp);
    if transport != Transport::Tls {
        let conn = shared.numbers.next();
        let flow = Flow::stream(transport, local, remote, conn);
        add(&shared.counters.accepted);
        let line = shared.open(conn);
        if shared.events.send(Event::Accepted { conn, flow, peer: Proven::Nobody }).await.is_ok() {
            let why = stream::run(&shared, conn, tcp, line).await;
            shared.closed(conn, why).await;
        }
        return;
    }
    let Some(tls) = shared.tls() else { return };
    link(&shared, tls.accept(tcp), (local, remote), admission).await;
}

/// A link from its handshake to its end.
async fn link(
    shared: &Arc<Shared>,
    handshake: impl Future<Output = io::Result<(TlsStream<TcpStream>, Proven)>>,
    (local, remote): (SocketAddr, SocketAddr),
    mut admission: Admission,
) {
    let conn = shared.numbers.next();
    let flow = Flow::stream(Transport::Tls, local, remote, conn);
    let (link, peer) = match timeout(shared.limits.handshake, handshake).await {
        Ok(Ok(link)) => link,
        Ok(Err(_)) => return add(&shared.counters.handshakes_failed),
        Err(_) => return add(&shared.counters.handshakes_slow),
    };
    let stranger = matches!(peer, Proven::Nobody);
    let admitted = match peer {
        Proven::Nobody => admission.as_stranger(),
        Proven::Foreign(_) => admission.as_foreign(),
        Proven::Member(_) => true,
    };
    if !admitted {
        return;
    }
    add(&shared.counters.accepted);
    if stranger {
        add(&shared.counters.strangers);
    }
    let line = shared.open(conn);
    if shared.events.send(Event::Accepted { conn, flow, peer }).await.is_err() {
        return;
    }
    let running = stream::run(shared, conn, link, line);
    let why = match stranger {
        true => timeout(shared.limits.stranger, running).await.unwrap_or(CloseReason::Stranger),
        false => running.await,
    };
    shared.closed(conn, why).await;
}
