//! SIP over WebSockets (RFC 7118): one message of SIP is one message there, text or binary.
//!
//! A connection that begins with an HTTP request becomes a WebSocket if it asks for the subprotocol `sip`; anything else that is asked for by
//! HTTP is refused. Pings are answered by the WebSocket itself, and so are pings by CRLF (RFC 5626). Left out: compression, which would
//! cost memory for each connection, and a check of Origin: what a page may do here is decided by digest, not by where it came from.

use super::Event;
use super::close::CloseReason;
use super::counters::add;
use super::shared::{Line, Shared};
use super::stream::{CLOSE_TIME, WRITE_TIME};
use crate::core::{ConnId, limits};
use crate::sip::frame::FrameError;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use std::sync::atomic::Ordering;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

/// The subprotocol's name (RFC 7118 section 4.1).
const SIP: &str = "sip";
/// For one connection, in bytes, each way.
const BUFFER: usize = 8 * 1024;
/// Messages written before they are flushed, at most.
const TOGETHER: usize = 64;

/// The server's side of the handshake (RFC 6455 section 4.2).
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Result<WebSocketStream<S>, Error> {
    let mut config = WebSocketConfig::default();
    (config.read_buffer_size, config.write_buffer_size) = (BUFFER, BUFFER);
    (config.max_message_size, config.max_frame_size) = (Some(limits::SIP_MESSAGE), Some(limits::SIP_MESSAGE));
    config.max_write_buffer_size = limits::SIP_MESSAGE * 4;
    accept_hdr_async_with_config(stream, agree, Some(config)).await
}

/// Takes who asks for SIP.
#[allow(clippy::result_large_err, reason = "the callback's type is the library's")]
fn agree(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    if offered.flat_map(|v| v.split(',')).any(|name| name.trim().eq_ignore_ascii_case(SIP)) {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SIP));
        return Ok(response);
    }
    let mut refusal = ErrorResponse::new(Some("This is SIP: ask for the WebSocket subprotocol \"sip\".\n".into()));
    *refusal.status_mut() = StatusCode::BAD_REQUEST;
    Err(refusal)
}

/// Runs the connection until it ends; says why.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    conn: ConnId,
    stream: WebSocketStream<S>,
    line: Line,
) -> CloseReason {
    let Line { writes, waiting, cut } = line;
    let (mut sink, mut source) = stream.split();
    let reading = async {
        loop {
            let bytes = match source.next().await {
                Some(Ok(Message::Text(text))) => Bytes::from(text),
                Some(Ok(Message::Binary(bytes))) => bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(_))) | None => return CloseReason::Remote,
                Some(Err(error)) => return reason(error),
            };
            match &bytes[..] {
                b"\r\n\r\n" => shared.write(conn, Bytes::from_static(b"\r\n")),
                b"\r\n" | b"" => {}
                _ => {
                    add(&shared.counters.frames_in);
                    if shared.events.send(Event::Frame { conn, bytes }).await.is_err() {
                        return CloseReason::Local;
                    }
                }
            }
        }
    };
    let writing = async {
        let (mut writes, mut taken) = (writes, Vec::new());
        while writes.recv_many(&mut taken, TOGETHER).await > 0 {
            let time = if writes.is_closed() { CLOSE_TIME } else { WRITE_TIME };
            let len: usize = taken.iter().map(Bytes::len).sum();
            let all = async {
                for bytes in taken.drain(..) {
                    sink.feed(message(bytes)).await?;
                }
                sink.flush().await
            };
            match timeout(time, all).await {
                Ok(Ok(())) => waiting.fetch_sub(len, Ordering::Relaxed),
                Ok(Err(error)) => return reason(error),
                Err(_) => return CloseReason::Stalled,
            };
        }
        let _ = timeout(CLOSE_TIME, sink.close()).await;
        CloseReason::Local
    };
    let why = tokio::select! {
        why = reading => why,
        why = writing => why,
        Ok(why) = cut => why,
    };
    if let CloseReason::Unframed(_) = why {
        add(&shared.counters.unframed);
    }
    why
}

/// Text wherever it can be: what some clients take alone.
fn message(bytes: Bytes) -> Message {
    match bytes.clone().try_into() {
        Ok(text) => Message::Text(text),
        Err(_) => Message::Binary(bytes),
    }
}

fn reason(error: Error) -> CloseReason {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => CloseReason::Remote,
        Error::Capacity(_) => CloseReason::Unframed(FrameError::TooLarge),
        Error::Io(error) => CloseReason::Broken(error),
        other => CloseReason::Broken(std::io::Error::new(std::io::ErrorKind::InvalidData, other)),
    }
}
