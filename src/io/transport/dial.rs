//! Connections out.

use super::close::ConnectError;
use super::shared::{Line, Shared};
use super::{Event, stream};
use crate::config::PORT_443;
use crate::core::{ConnId, Flow, Transport};
use crate::identity::{Expect, Proven};
use crate::io::proxy::Tunnel;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// For TCP's own handshake.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How long a link is looked for at its own port alone.
const LEAD: Duration = Duration::from_millis(400);

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
        Transport::Udp | Transport::Ws | Transport::Wss => return Err(ConnectError::NotDialled(transport)),
        Transport::Tcp => None,
        Transport::Tls => Some(shared.tls().ok_or(ConnectError::NoCredentials)?),
    };
    let Some(tls) = tls else {
        let tcp = connect(shared.source, remote).await?;
        let local = tcp.local_addr().map_err(|e| ConnectError::Io(remote, e))?;
        let flow = Flow::stream(transport, local, remote, conn);
        opened(shared, Event::Connected { conn, flow, peer: Proven::Nobody }, &line).await;
        let why = stream::run(shared, conn, tcp, line).await;
        shared.closed(conn, why).await;
        return Ok(());
    };
    let over = |tcp: TcpStream, addr: SocketAddr| {
        let tls = tls.clone();
        async move {
            let local = tcp.local_addr().map_err(|e| ConnectError::Io(addr, e))?;
            match timeout(shared.limits.handshake, tls.connect(tcp, addr, expect)).await {
                Ok(link) => link.map(|(link, peer)| (link, peer, local)),
                Err(_) => Err(ConnectError::Timeout(addr)),
            }
        }
    };
    let link = |addr: SocketAddr| {
        let over = &over;
        async move { over(connect(shared.source, addr).await?, addr).await }
    };
    let straight = async {
        let Some(other) = other_port(remote) else { return link(remote).await };
        let lead = if shared.behind_443.load(Ordering::Relaxed) { Duration::ZERO } else { LEAD };
        let (won, second) = either(link(remote), lead, || link(other)).await?;
        if shared.behind_443.swap(second, Ordering::Relaxed) != second && second {
            tracing::info!(%remote, "nothing but port 443 leads there");
        }
        Ok(won)
    };
    let ((link, peer, local), _tunnel) =
        or_by_proxy(shared, (remote, None), straight, other_port(remote), over).await?;
    let flow = Flow::stream(transport, local, remote, conn);
    opened(shared, Event::Connected { conn, flow, peer }, &line).await;
    let why = stream::run(shared, conn, link, line).await;
    shared.closed(conn, why).await;
    Ok(())
}

/// Where a link is looked for besides: at the port that every network lets out.
fn other_port(remote: SocketAddr) -> Option<SocketAddr> {
    let there = SocketAddr::new(remote.ip(), PORT_443);
    (there != remote && !remote.ip().to_canonical().is_loopback()).then_some(there)
}

/// What the straight way has, or where that leads nowhere what is had `over` a tunnel of the proxy: to `before`, which it may rather allow,
/// or to `to` itself, with its name where it is known by one.
pub(super) async fn or_by_proxy<T, F: Future<Output = Result<T, ConnectError>>>(
    shared: &Shared,
    (to, name): (SocketAddr, Option<&str>),
    straight: impl Future<Output = Result<T, ConnectError>>,
    before: Option<SocketAddr>,
    over: impl Fn(TcpStream, SocketAddr) -> F,
) -> Result<(T, Option<Tunnel>), ConnectError> {
    let Some(proxy) = shared.proxy.as_ref().filter(|proxy| proxy.serves(to.ip(), name)) else {
        return Ok((straight.await?, None));
    };
    let prepare = |socket: &TcpSocket, at| match stream::source_for(shared.source, at) {
        Some(source) => socket.bind(source),
        None => Ok(()),
    };
    let over = &over;
    let tunnel = |addr: SocketAddr| async move {
        let (tcp, tunnel) = proxy.open(addr, prepare).await.map_err(ConnectError::Proxy)?;
        stream::tune(&tcp);
        Ok((over(tcp, addr).await?, Some(tunnel)))
    };
    let failed = OnceLock::new();
    let by_proxy = || async {
        let had = match before {
            None => tunnel(to).await,
            Some(before) => either(tunnel(before), LEAD, || tunnel(to)).await.map(|(had, _)| had),
        };
        had.map_err(|why| {
            let said = ConnectError::Timeout(to);
            _ = failed.set(why);
            said
        })
    };
    let straight = async { Ok((straight.await?, None)) };
    match either(straight, proxy.lead(LEAD), by_proxy).await {
        Ok((had, by_proxy)) => {
            proxy.won(by_proxy);
            Ok(had)
        }
        Err(why) => Err(match failed.into_inner() {
            Some(proxy) => ConnectError::NoWay { straight: Box::new(why), proxy: Box::new(proxy) },
            None => why,
        }),
    }
}

/// The outcome of the first that succeeds, and whether it was the second: begun when the first has failed, or not succeeded within `lead`.
/// Where both fail, the first one's reason. Who answered and is not who was meant is an answer: the second is not asked any more.
async fn either<T, F: Future<Output = Result<T, ConnectError>>>(
    first: impl Future<Output = Result<T, ConnectError>>,
    lead: Duration,
    second: impl FnOnce() -> F,
) -> Result<(T, bool), ConnectError> {
    let mut first = std::pin::pin!(first);
    let begun = timeout(lead, &mut first).await;
    let failed = match begun {
        Ok(Ok(done)) => return Ok((done, false)),
        Ok(Err(why)) if why.is_of_the_way() => Some(why),
        Ok(Err(why)) => return Err(why),
        Err(_) => None,
    };
    let mut second = std::pin::pin!(second());
    if let Some(why) = failed {
        return second.await.map(|done| (done, true)).map_err(|_| why);
    }
    tokio::select! {
        done = &mut first => match done {
            Err(why) if why.is_of_the_way() => second.await.map(|done| (done, true)).map_err(|_| why),
            done => done.map(|done| (done, false)),
        },
        done = &mut second => match done {
            Ok(done) => Ok((done, true)),
            Err(_) => first.await.map(|done| (done, false)),
        },
    }
}

/// Tells the node, unless it has closed the connection meanwhile.
pub(super) async fn opened(shared: &Shared, event: Event, line: &Line) {
    if !line.writes.is_closed() {
        let _ = shared.events.send(event).await;
    }
}

pub(super) async fn connect(listening: Option<SocketAddr>, remote: SocketAddr) -> Result<TcpStream, ConnectError> {
    match timeout(CONNECT_TIME, tcp(listening, remote)).await {
        Ok(tcp) => tcp.map_err(|e| ConnectError::Io(remote, e)),
        Err(_) => Err(ConnectError::Timeout(remote)),
    }
}

async fn tcp(listening: Option<SocketAddr>, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = stream::source_for(listening, remote) {
        socket.bind(source)?;
    }
    let stream = socket.connect(remote).await?;
    stream::tune(&stream);
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::pin::Pin;

    type Attempt = Pin<Box<dyn Future<Output = Result<u8, ConnectError>>>>;

    fn addr() -> SocketAddr {
        "192.0.2.1:5061".parse().unwrap()
    }

    fn fails(port: u16) -> Attempt {
        Box::pin(ready(Err(ConnectError::Timeout(SocketAddr::new(addr().ip(), port)))))
    }

    fn works(n: u8) -> Attempt {
        Box::pin(ready(Ok(n)))
    }

    async fn both(first: Attempt, second: Attempt) -> Result<(u8, bool), ConnectError> {
        either(first, Duration::ZERO, || second).await
    }

    #[test]
    fn another_port_of_the_same_address() {
        assert_eq!(other_port(addr()), Some("192.0.2.1:443".parse().unwrap()));
        for own in ["192.0.2.1:443", "127.0.0.1:5061", "[::1]:5061", "[::ffff:127.0.0.1]:5061"] {
            assert_eq!(other_port(own.parse().unwrap()), None, "{own}");
        }
    }

    #[tokio::test]
    async fn the_other_port_is_taken_where_the_first_leads_nowhere() {
        assert_eq!(both(works(1), works(2)).await.unwrap(), (1, false));
        assert_eq!(both(fails(1), works(2)).await.unwrap(), (2, true));
        assert_eq!(both(Box::pin(pending()), works(2)).await.unwrap(), (2, true));
        let slow: Attempt = Box::pin(async {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            Ok(1)
        });
        assert_eq!(both(slow, fails(2)).await.unwrap(), (1, false));
        assert!(matches!(both(fails(1), fails(2)).await, Err(ConnectError::Timeout(at)) if at.port() == 1));
    }

    #[tokio::test]
    async fn whoever_answers_as_another_is_an_answer() {
        let other: Attempt = Box::pin(ready(Err(ConnectError::NotTheOffice(addr()))));
        assert!(matches!(both(other, works(2)).await, Err(ConnectError::NotTheOffice(_))));
    }
}
