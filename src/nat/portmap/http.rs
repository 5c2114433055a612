//! As much HTTP/1.1 (RFC 9112) as a router's control server needs: one request a connection, one bounded answer.

use std::net::SocketAddr;

/// Largest answer read.
pub const LARGEST: usize = 256 * 1024;
/// Largest head of it.
const HEAD: usize = 16 * 1024;

/// `http://IP:PORT/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Server.
    pub addr: SocketAddr,
    /// With its query, from the slash on.
    pub path: String,
}

impl Url {
    /// Reads an absolute URL whose host is an IP address; a name would have to be looked up, and no router uses one.
    pub fn parse(text: &str) -> Option<Url> {
        let rest = text.trim().get(7..).filter(|_| text.trim()[..7].eq_ignore_ascii_case("http://"))?;
        let at = rest.find('/').unwrap_or(rest.len());
        let host = &rest[..at];
        let addr = host.parse().or_else(|_| format!("{host}:80").parse()).ok()?;
        Some(Url { addr, path: path(&rest[at..])? })
    }

    /// Reads a URL that may be relative to this one; an absolute one must lead to the same server.
    pub fn join(&self, text: &str) -> Option<Url> {
        let text = text.trim();
        if text.contains("://") {
            return Url::parse(text).filter(|url| url.addr == self.addr);
        }
        let path = if text.starts_with('/') { path(text)? } else { path(&format!("/{text}"))? };
        Some(Url { addr: self.addr, path })
    }

    /// A request for the page.
    pub fn get(&self) -> Vec<u8> {
        format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.path, self.addr).into_bytes()
    }
}

/// No byte that could begin another header field.
fn path(text: &str) -> Option<String> {
    let clean = text.bytes().all(|b| b.is_ascii_graphic());
    (clean && text.len() <= 1024).then(|| if text.is_empty() { "/".into() } else { text.to_owned() })
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// 200 and so on.
    pub status: u16,
    /// Decoded from its chunks.
    pub body: Vec<u8>,
}

/// How much of an answer is there.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// All of it.
    Done(Response),
    /// More is to come.
    More,
    /// It is no HTTP, or too large.
    Broken,
}

/// Reads what has come so far; `ended` when the server has closed.
pub fn read(bytes: &[u8], ended: bool) -> Progress {
    let unfinished = if ended { Progress::Broken } else { Progress::More };
    if bytes.len() > LARGEST {
        return Progress::Broken;
    }
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return if bytes.len() > HEAD { Progress::Broken } else { unfinished };
    };
    let Some(head) = std::str::from_utf8(&bytes[..end]).ok().filter(|_| end <= HEAD) else { return Progress::Broken };
    let mut lines = head.split("\r\n");
    let Some(status) = lines.next().and_then(status) else { return Progress::Broken };
    let (mut length, mut chunked) = (None, false);
    for (name, value) in lines.filter_map(|l| l.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            let Ok(n) = value.trim().parse::<usize>() else { return Progress::Broken };
            length = Some(n);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.to_ascii_lowercase().contains("chunked");
        }
    }
    let rest = &bytes[end + 4..];
    let body = match length {
        _ if chunked => match dechunk(rest) {
            Some(Some(body)) => body,
            Some(None) => return unfinished,
            None => return Progress::Broken,
        },
        Some(n) if rest.len() >= n => rest[..n].to_vec(),
        // Some routers count wrongly and close: what came is what there is.
        Some(_) | None if ended => rest.to_vec(),
        Some(n) if n > LARGEST => return Progress::Broken,
        Some(_) | None => return Progress::More,
    };
    Progress::Done(Response { status, body })
}

/// `HTTP/1.1 200 OK`
pub(super) fn status(line: &str) -> Option<u16> {
    let mut words = line.split_ascii_whitespace();
    let version = words.next()?;
    let status = words.next()?.parse().ok()?;
    (version.starts_with("HTTP/1.") && (100..600).contains(&status)).then_some(status)
}

/// The body out of its chunks (section 7.1): `None` when they are broken, `Some(None)` when more is to come.
fn dechunk(mut rest: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|w| w == b"\r\n") else {
            return if rest.len() > 64 { None } else { Some(None) };
        };
        let line = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok().filter(|n| *n <= LARGEST)?;
        if size == 0 {
            return Some(Some(body));
        }
        rest = &rest[end + 2..];
        let Some(chunk) = rest.get(..size) else { return Some(None) };
        body.extend(chunk);
        rest = match &rest[size..] {
            [b'\r', b'\n', rest @ ..] => rest,
            [] | [b'\r'] => return Some(None),
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::portmap::tests::mutated;

    fn done(body: &str) -> Progress {
        Progress::Done(Response { status: 200, body: body.into() })
    }

    #[test]
    fn urls_lead_to_one_server() {
        let url = Url::parse("HTTP://192.168.1.1:5000/rootDesc.xml?a=1").unwrap();
        assert_eq!((url.addr.to_string().as_str(), url.path.as_str()), ("192.168.1.1:5000", "/rootDesc.xml?a=1"));
        assert_eq!(Url::parse("http://192.168.1.1").unwrap().addr.port(), 80);
        assert_eq!(url.join("/ctl").unwrap().path, "/ctl");
        assert_eq!(url.join("ctl/IP").unwrap().path, "/ctl/IP");
        assert_eq!(url.join("http://192.168.1.1:5000/c").unwrap().path, "/c");
        assert_eq!(url.join("http://10.0.0.1:5000/c"), None);
        for bad in
            ["https://192.168.1.1/", "http://router.lan/", "http://1.1.1.1/a b", "http://1.1.1.1/a\r\nX: y", "", "htt"]
        {
            assert_eq!(Url::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_body_has_a_length_or_chunks_or_an_end() {
        let length = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        assert_eq!(read(length, false), done("hello"));
        assert_eq!(read(&length[..length.len() - 1], false), Progress::More);
        let open = b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\nhello";
        assert_eq!((read(open, false), read(open, true)), (Progress::More, done("hello")));
        let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
        assert_eq!(read(chunks, false), done("hello"));
        for cut in 45..chunks.len() - 5 {
            assert_eq!(read(&chunks[..cut], false), Progress::More, "{cut}");
        }
    }

    #[test]
    fn what_is_broken_or_endless_is_refused() {
        assert_eq!(read(b"SSH-2.0-x\r\n\r\n", false), Progress::Broken);
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", false), Progress::Broken);
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", false), Progress::Broken);
        assert_eq!(read(&vec![b'a'; HEAD + 1], false), Progress::Broken);
        assert_eq!(read(&vec![b'a'; LARGEST + 1], false), Progress::Broken);
        assert_eq!(read(b"HTTP/1.1 200", true), Progress::Broken);
        let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
        mutated(chunks, |bytes| drop((read(bytes, true), read(bytes, false))));
    }
}
