//! One open connection: reads messages, writes what waits.

use super::Event;
use super::close::CloseReason;
use super::counters::add;
use super::shared::{Line, Shared};
use crate::core::ConnId;
use crate::sip::frame::{Frame, FrameError, Framer};
use crate::sip::msg::Message;
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// For one write, however large; then the other end counts as stalled.
pub(super) const WRITE_TIME: Duration = Duration::from_secs(20);
/// For what is left to write when we close.
pub(super) const CLOSE_TIME: Duration = Duration::from_secs(5);
/// From the first byte of a message to its last.
const MESSAGE_TIME: Duration = Duration::from_secs(60);
/// For the other end to read why it is thrown out.
const FAREWELL_TIME: Duration = Duration::from_millis(500);
/// Written in one go.
const WRITE_BATCH: usize = 64 * 1024;

/// Runs the connection until it ends; says why.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    conn: ConnId,
    stream: S,
    line: Line,
) -> CloseReason {
    let Line { writes, waiting, cut } = line;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mid_write = AtomicBool::new(false);
    let mut farewell = None;
    let why = {
        let writing = write(&mut writer, writes, &mid_write, |n| {
            waiting.fetch_sub(n, Ordering::Relaxed);
        });
        let reading = read(shared, conn, &mut reader, &mut farewell);
        tokio::select! {
            why = reading => why,
            why = writing => why,
            Ok(why) = cut => why,
        }
    };
    match &why {
        CloseReason::Unframed(_) | CloseReason::Unfinished => add(&shared.counters.unframed),
        _ => {}
    }
    if let Some(bytes) = farewell.filter(|_| !mid_write.load(Ordering::Relaxed)) {
        // Not reading on would make the system reset the connection, and the answer would be lost with it.
        let last = async {
            writer.write_all(&bytes).await?;
            writer.shutdown().await?;
            tokio::io::copy(&mut (&mut reader).take(1 << 20), &mut tokio::io::sink()).await
        };
        let _ = timeout(FAREWELL_TIME, last).await;
    }
    why
}

/// What every TCP socket of ours is set to.
pub(super) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive =
        socket2::TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
    let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Reads messages into events until the stream ends or cannot be cut.
async fn read(
    shared: &Shared,
    conn: ConnId,
    reader: &mut (impl AsyncRead + Unpin),
    farewell: &mut Option<Bytes>,
) -> CloseReason {
    let mut framer = Framer::new();
    let mut buffer = vec![0; 16 * 1024];
    let mut begun: Option<Instant> = None;
    loop {
        let got = match begun {
            None => reader.read(&mut buffer).await,
            Some(begun) => match timeout_at(begun + MESSAGE_TIME, reader.read(&mut buffer)).await {
                Ok(got) => got,
                Err(_) => return CloseReason::Unfinished,
            },
        };
        match got {
            Ok(0) => return CloseReason::Remote,
            Ok(n) => framer.push(buffer.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return CloseReason::Remote,
            Err(error) => return CloseReason::Broken(error),
        }
        loop {
            match framer.next() {
                Ok(Some(Frame::Message(bytes))) => {
                    begun = None;
                    add(&shared.counters.frames_in);
                    if shared.events.send(Event::Frame { conn, bytes }).await.is_err() {
                        return CloseReason::Local;
                    }
                }
                Ok(Some(Frame::KeepAlive)) => shared.write(conn, Bytes::from_static(b"\r\n")),
                Ok(Some(Frame::Pong)) => {
                    if shared.events.send(Event::Pong { conn }).await.is_err() {
                        return CloseReason::Local;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    *farewell = answer(&framer, error);
                    return CloseReason::Unframed(error);
                }
            }
        }
        if framer.buffered() == 0 {
            begun = None;
        } else if begun.is_none() {
            begun = Some(Instant::now());
        }
    }
}

/// Writes what waits, as much as there is in one go, until there will be no more.
async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    mut writes: tokio::sync::mpsc::Receiver<Bytes>,
    mid_write: &AtomicBool,
    written: impl Fn(usize),
) -> CloseReason {
    let mut batch = BytesMut::new();
    let mut taken = Vec::new();
    while writes.recv_many(&mut taken, 64).await > 0 {
        // Closed already: nobody waits for a slow end then.
        let time = if writes.is_closed() { CLOSE_TIME } else { WRITE_TIME };
        mid_write.store(true, Ordering::Relaxed);
        let mut pieces = taken.drain(..).peekable();
        while let Some(piece) = pieces.next() {
            batch.extend_from_slice(&piece);
            if batch.len() < WRITE_BATCH && pieces.peek().is_some() {
                continue;
            }
            let all = async {
                writer.write_all(&batch).await?;
                writer.flush().await
            };
            match timeout(time, all).await {
                Ok(Ok(())) => written(batch.len()),
                Ok(Err(error)) => return CloseReason::Broken(error),
                Err(_) => return CloseReason::Stalled,
            }
            batch.clear();
        }
        mid_write.store(false, Ordering::Relaxed);
    }
    let _ = timeout(CLOSE_TIME, writer.shutdown()).await;
    CloseReason::Local
}

/// What a request that cannot be cut out of the stream is answered, where enough of it is there.
fn answer(framer: &Framer, error: FrameError) -> Option<Bytes> {
    let head = Message::parse_bytes(framer.failed_head()?).ok()?;
    let answerable = head.is_request() && head.via().is_ok() && head.method().as_str() != "ACK";
    answerable.then(|| Message::reply(&head, error.status(), &error.to_string()).to_bytes())
}

/// The address that a connection comes from, for one that listens on one address only.
pub(super) fn source_for(listening: Option<SocketAddr>, remote: SocketAddr) -> Option<SocketAddr> {
    let ip = listening?.ip();
    let same = ip.is_ipv4() == remote.is_ipv4() && ip.is_loopback() == remote.ip().is_loopback();
    (same && !ip.is_unspecified()).then(|| SocketAddr::new(ip, 0))
}
