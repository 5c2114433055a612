//! What a proxy answers to CONNECT: the head of an HTTP response (RFC 9112), and not a byte more.

use super::Fault;
use std::io;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Longest head, bytes.
const LONGEST: usize = 8 * 1024;
/// Heads of interim responses (1xx) before the one that counts.
const INTERIM: usize = 4;
/// How every answer begins.
const BEGIN: &[u8] = b"HTTP/1.";

/// What counts of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Status code.
    pub(super) code: u16,
    /// It would take a user name and a password.
    pub(super) basic: bool,
}

impl Answer {
    pub(super) async fn of(tcp: &mut TcpStream) -> Result<Answer, Fault> {
        for _ in 0..INTERIM {
            let answer = Answer::read(&head(tcp).await?).ok_or(Fault::NotHttp)?;
            if !(100..200).contains(&answer.code) {
                return Ok(answer);
            }
        }
        Err(Fault::Endless)
    }

    fn read(head: &[u8]) -> Option<Answer> {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.lines();
        let mut words = lines.next()?.strip_prefix("HTTP/1.")?.split(' ');
        words.next().filter(|minor| minor.len() == 1 && minor.bytes().all(|b| b.is_ascii_digit()))?;
        let code = words.next().filter(|code| code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit()))?;
        let offers = |line: &str| {
            let (name, value) = line.split_once(':')?;
            // A field may offer several ways, separated by commas as their parameters are.
            let basic = |way: &str| way.trim().split(' ').next().is_some_and(|w| w.eq_ignore_ascii_case("basic"));
            (name.eq_ignore_ascii_case("proxy-authenticate") && value.split(',').any(basic)).then_some(())
        };
        let basic = lines.any(|line| offers(line).is_some());
        Some(Answer { code: code.parse().ok()?, basic })
    }
}

/// Reads up to the empty line and leaves what follows in the socket.
async fn head(tcp: &mut TcpStream) -> Result<Vec<u8>, Fault> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let got = tcp.peek(&mut piece).await.map_err(Fault::Broken)?;
        if got == 0 {
            return Err(Fault::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        let before = head.len();
        head.extend_from_slice(piece.get(..got).unwrap_or_default());
        if head.iter().zip(BEGIN).any(|(a, b)| a != b) {
            return Err(Fault::NotHttp);
        }
        let end = end(&head);
        if end.unwrap_or(head.len()) > LONGEST {
            return Err(Fault::Endless);
        }
        let taken = end.map_or(got, |end| end.saturating_sub(before));
        tcp.read_exact(piece.get_mut(..taken).unwrap_or_default()).await.map_err(Fault::Broken)?;
        if let Some(end) = end {
            head.truncate(end);
            return Ok(head);
        }
    }
}

/// Behind the empty line; a line may end without CR (RFC 9112 section 2.2).
fn end(head: &[u8]) -> Option<usize> {
    let after = |mark: &[u8]| head.windows(mark.len()).position(|w| w == mark).map(|at| at + mark.len());
    [after(b"\n\r\n"), after(b"\n\n")].into_iter().flatten().min()
}
