use super::*;

const ONE: &[u8] = b"OPTIONS sip:a@b SIP/2.0\r\nX: y\r\nl : 3\r\n\r\nabc";
const TWO: &[u8] = b"SIP/2.0 200 OK\r\nContent-Length:\r\n 0\r\n\r\n";

fn all(framer: &mut Framer) -> Vec<Frame> {
    std::iter::from_fn(|| framer.next().unwrap()).collect()
}

#[test]
fn any_cut_gives_the_same_messages() {
    let stream = [ONE, TWO, ONE].concat();
    for step in 1..stream.len() {
        let mut framer = Framer::new();
        let mut frames = Vec::new();
        for piece in stream.chunks(step) {
            framer.push(piece);
            frames.extend(all(&mut framer));
        }
        let expected = [ONE, TWO, ONE].map(|m| Frame::Message(Bytes::copy_from_slice(m)));
        assert_eq!(frames, expected, "pieces of {step}");
        assert_eq!(framer.buffered(), 0);
    }
}

#[test]
fn a_short_message_behind_a_long_one_that_came_in_pieces() {
    let long = [b"OPTIONS sip:a@b SIP/2.0\r\nX: ".as_slice(), &[b'y'; 500], b"\r\nl: 0\r\n\r\n"].concat();
    let mut framer = Framer::new();
    let mut frames = Vec::new();
    for piece in [long.as_slice(), TWO].concat().chunks(100) {
        framer.push(piece);
        frames.extend(all(&mut framer));
    }
    assert_eq!(frames, [long.as_slice(), TWO].map(|m| Frame::Message(Bytes::copy_from_slice(m))));
}

#[test]
fn keep_alives_between_messages() {
    let mut framer = Framer::new();
    framer.push(b"\r\n\r\n");
    framer.push(ONE);
    framer.push(b"\r\n");
    framer.push(TWO);
    let kinds = all(&mut framer);
    assert_eq!(kinds.len(), 4);
    assert_eq!(kinds[0], Frame::KeepAlive);
    assert_eq!(kinds[2], Frame::Pong);
}

#[test]
fn a_ping_in_halves_is_a_ping() {
    let mut framer = Framer::new();
    framer.push(b"\r\n");
    assert_eq!(framer.next(), Ok(Some(Frame::Pong)));
    framer.push(b"\r\n");
    assert_eq!(framer.next(), Ok(Some(Frame::KeepAlive)));
    framer.push(b"\r");
    assert_eq!(framer.next(), Ok(None));
    framer.push(b"\n\r\n");
    assert_eq!(framer.next(), Ok(Some(Frame::KeepAlive)));
}

#[test]
fn what_cannot_be_cut_is_refused_for_good() {
    let cases: [(&[u8], FrameError); 7] = [
        (b"OPTIONS sip:a@b SIP/2.0\r\nl: 1\r\n 2\r\n\r\n", FrameError::ContentLength),
        (b"OPTIONS sip:a@b SIP/2.0\r\nX: y\nl: 2\r\n\r\n", FrameError::NoContentLength),
        (b"OPTIONS sip:a@b SIP/2.0\r\nVia: x\r\n\r\n", FrameError::NoContentLength),
        (b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: -1\r\n\r\n", FrameError::ContentLength),
        (b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 1\r\nl: 2\r\n\r\n", FrameError::ContentLength),
        (b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 65530\r\n\r\n", FrameError::TooLarge),
        (b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 99999999999999999999999\r\n\r\n", FrameError::TooLarge),
    ];
    for (bytes, error) in cases {
        let mut framer = Framer::new();
        framer.push(bytes);
        assert_eq!(framer.next(), Err(error));
        framer.push(ONE);
        assert_eq!(framer.next(), Err(error));
        assert!(framer.failed_head().unwrap().ends_with(b"\r\n\r\n"));
    }
}

#[test]
fn an_endless_header_section_is_refused() {
    let mut framer = Framer::new();
    framer.push(b"OPTIONS sip:a@b SIP/2.0\r\n");
    let filler = [b"X: ".as_slice(), &[b'a'; 1000], b"\r\n"].concat();
    let mut refused = None;
    for round in 0..100 {
        framer.push(&filler);
        if let Err(error) = framer.next() {
            refused = Some((round, error));
            break;
        }
    }
    let (round, error) = refused.unwrap();
    assert_eq!(error, FrameError::TooLarge);
    assert!((30..36).contains(&round));
    assert!(framer.failed_head().unwrap().starts_with(b"OPTIONS"));
}
