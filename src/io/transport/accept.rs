//! Connections in.

use super::close::CloseReason;
use super::counters::add;
use super::shared::{Admission, Shared};
use super::{Event, stream};
use crate::core::{Flow, Transport};
use crate::identity::Proven;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

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

async fn serve(
    shared: Arc<Shared>,
    tcp: TcpStream,
    remote: SocketAddr,
    transport: Transport,
    mut admission: Admission,
) {
    let Ok(local) = tcp.local_addr() else { return };
    stream::tune(&tcp);
    let conn = shared.numbers.next();
    let flow = Flow::stream(transport, local, remote, conn);
    if transport != Transport::Tls {
        add(&shared.counters.accepted);
        let line = shared.open(conn);
        if shared.events.send(Event::Accepted { conn, flow, peer: Proven::Nobody }).await.is_ok() {
            let why = stream::run(&shared, conn, tcp, line).await;
            shared.closed(conn, why).await;
        }
        return;
    }
    let Some(tls) = shared.tls() else { return };
    let (link, peer) = match timeout(shared.limits.handshake, tls.accept(tcp)).await {
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
    let running = stream::run(&shared, conn, link, line);
    let why = match stranger {
        true => timeout(shared.limits.stranger, running).await.unwrap_or(CloseReason::Stranger),
        false => running.await,
    };
    shared.closed(conn, why).await;
}
