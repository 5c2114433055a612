//! Bytes by hand: a SIP client over UDP that writes its messages itself, so that it can write them wrongly.

use crate::tools::DEADLINE;
use md5::{Digest, Md5};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A client with a UDP socket of its own.
pub struct Client {
    socket: UdpSocket,
    server: SocketAddr,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The whole message.
    pub text: String,
}

impl Answer {
    /// The first value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    fn headers<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let name = name.to_owned();
        let fields = self.text.lines().filter_map(|l| l.split_once(':'));
        fields.filter(move |(n, _)| n.trim().eq_ignore_ascii_case(&name)).map(|(_, v)| v.trim())
    }
}

impl Client {
    /// For the server at `server`.
    pub fn new(server: SocketAddr) -> Client {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        Client { socket, server }
    }

    /// Our Contact and Via address.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Sends bytes as they are.
    pub fn send(&self, bytes: &[u8]) {
        // A datagram that the kernel refuses is as good as one lost.
        let _ = self.socket.send_to(bytes, self.server);
    }

    /// A request with the mandatory fields and `extra` ones, each ending in CRLF.
    pub fn request(&self, method: &str, uri: &str, extra: &str, body: &str) -> String {
        let (here, id) = (self.address(), fresh());
        let max_forwards = if extra.contains("Max-Forwards:") { "" } else { "Max-Forwards: 70\r\n" };
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {here};rport;branch=z9hG4bK{id}\r\n{max_forwards}\
             From: <sip:stranger@{here}>;tag=t{id}\r\nTo: <{uri}>\r\nCall-ID: {id}@{here}\r\n\
             CSeq: 1 {method}\r\nContact: <sip:stranger@{here}>\r\n{extra}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Sends a request, again every half second, until its final answer; an INVITE's is acknowledged when it refuses.
    pub fn exchange(&self, request: &str) -> Answer {
        let call_id = request.lines().find_map(|l| l.strip_prefix("Call-ID: ")).unwrap_or("none").to_owned();
        let end = Instant::now() + DEADLINE;
        let mut bytes = vec![0; 65_536];
        loop {
            self.send(request.as_bytes());
            while let Ok((n, _)) = self.socket.recv_from(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
                let status = text.strip_prefix("SIP/2.0 ").and_then(|t| t.get(..3)?.parse().ok()).unwrap_or(0);
                if status >= 200 && text.contains(&call_id) {
                    let answer = Answer { status, text };
                    if request.starts_with("INVITE ") && status >= 300 {
                        self.acknowledge(request, &answer);
                    }
                    return answer;
                }
            }
            assert!(Instant::now() < end, "no final answer to {request}");
        }
    }

    /// Registers our address as `user` of `domain`, answering a digest challenge with `password`; the final status.
    pub fn register(&mut self, user: &str, domain: &str, password: Option<&str>) -> u16 {
        let (here, id) = (self.address(), fresh());
        let request = |cseq: u32, extra: &str| {
            format!(
                "REGISTER sip:{domain} SIP/2.0\r\nVia: SIP/2.0/UDP {here};rport;branch=z9hG4bK{id}{cseq}\r\n\
                 Max-Forwards: 70\r\nFrom: <sip:{user}@{domain}>;tag=t{id}\r\nTo: <sip:{user}@{domain}>\r\n\
                 Call-ID: {id}@{here}\r\nCSeq: {cseq} REGISTER\r\nContact: <sip:{user}@{here}>\r\nExpires: 300\r\n\
                 {extra}Content-Length: 0\r\n\r\n"
            )
        };
        let first = self.exchange(&request(1, ""));
        let Some(password) = password.filter(|_| first.status == 401) else { return first.status };
        let challenge = first.headers("WWW-Authenticate").find(|c| !c.contains("SHA-"));
        let challenge = challenge.unwrap_or_else(|| panic!("no MD5 challenge in {}", first.text));
        let (realm, nonce) = (quoted(challenge, "realm"), quoted(challenge, "nonce"));
        let uri = format!("sip:{domain}");
        let ha1 = md5_hex(&format!("{user}:{realm}:{password}"));
        let ha2 = md5_hex(&format!("REGISTER:{uri}"));
        let response = md5_hex(&format!("{ha1}:{nonce}:00000001:c0ffee:auth:{ha2}"));
        let authorization = format!(
            "Authorization: Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\", algorithm=MD5, qop=auth, nc=00000001, cnonce=\"c0ffee\"{}\r\n",
            if challenge.contains("opaque=") {
                format!(", opaque=\"{}\"", quoted(challenge, "opaque"))
            } else {
                String::new()
            },
        );
        self.exchange(&request(2, &authorization)).status
    }

    fn acknowledge(&self, request: &str, answer: &Answer) {
        let keep = |name: &str| {
            let line = request.lines().find(|l| l.starts_with(name)).unwrap_or_default();
            format!("{line}\r\n")
        };
        let first = request.lines().next().unwrap_or_default().replacen("INVITE", "ACK", 1);
        let to = answer.header("To").unwrap_or_default();
        let (via, from, call_id) = (keep("Via:"), keep("From:"), keep("Call-ID:"));
        self.send(
            format!(
                "{first}\r\n{via}Max-Forwards: 70\r\n{from}To: {to}\r\n{call_id}CSeq: 1 ACK\r\n\
                 Content-Length: 0\r\n\r\n"
            )
            .as_bytes(),
        );
    }
}

fn quoted<'a>(challenge: &'a str, name: &str) -> &'a str {
    let after = challenge.split_once(&format!("{name}=\"")).map_or("", |(_, rest)| rest);
    after.split('"').next().unwrap_or("")
}

fn md5_hex(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

/// Different in every request of every test run.
fn fresh() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{:x}x{:x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
