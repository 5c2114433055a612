use super::attributes::*;
use super::*;

const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

/// RFC 5769 section 2.1.
fn sample_request() -> Vec<u8> {
    hex("00010058 2112a442 b7e7a701 bc34d686 fa87dfae 80220010 5354554e 20746573 7420636c 69656e74
         00240004 6e0001ff 80290008 932ff9b1 51263b36 00060009 6576746a 3a683676 59202020
         00080014 9aeaa70c bfd8cb56 781ef2b5 b2d3f249 c1b571a2 80280004 e57a3bcf")
}

#[test]
fn rfc5769_request() {
    let bytes = sample_request();
    let parsed = Parsed::read(&bytes).unwrap();
    assert_eq!((parsed.message.class, parsed.message.method), (Class::Request, Method::BINDING));
    assert_eq!(parsed.message.get::<Username>().unwrap().name(), "evtj:h6vY");
    assert_eq!(parsed.message.get::<Software>().unwrap().description(), "STUN test client");
    assert_eq!(parsed.message.get_raw(0x0024), Some(&[0x6e, 0x00, 0x01, 0xff][..]));
    assert!(parsed.fingerprint && parsed.verify(&Key::short_term(PASSWORD)));
    assert!(!parsed.verify(&Key::short_term("VOkJxbRl1RmTxUk/WvJxBT")));
    assert_eq!(parsed.message.not_understood(), [0x0024]);
}

#[test]
fn rfc5769_responses() {
    let v4 = hex("0101003c 2112a442 b7e7a701 bc34d686 fa87dfae 8022000b 74657374 20766563 746f7220
                  00200008 0001a147 e112a643 00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7 80280004 c07d4c96");
    let v6 = hex("01010048 2112a442 b7e7a701 bc34d686 fa87dfae 8022000b 74657374 20766563 746f7220
                  00200014 0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9 00080014 a382954e 4be67bf1 1784c97c 8292c275 bfe3ed41
                  80280004 c8fb0b4c");
    for (bytes, address) in [(v4, "192.0.2.1:32853"), (v6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")] {
        let parsed = Parsed::read(&bytes).unwrap();
        assert_eq!(parsed.message.class, Class::Success);
        assert_eq!(parsed.message.get::<XorMappedAddress>().unwrap().address(), address.parse().unwrap());
        assert!(parsed.fingerprint && parsed.verify(&Key::short_term(PASSWORD)));
    }
}

#[test]
fn rfc5769_long_term() {
    let bytes = hex("00010060 2112a442 78ad3433 c6ad72c0 29da412e 00060012 e3839ee3 8388e383 aae38383 e382afe3 82b90000
                     0015001c 662f2f34 39396b39 35346436 4f4c3334 6f4c3946 53547679 36347341 0014000b 6578616d 706c652e 6f726700
                     00080014 f6702465 6dd64a3e 02b8e071 2e85c9a2 8ca89666");
    let parsed = Parsed::read(&bytes).unwrap();
    let key = Key::long_term_md5("マトリックス", "example.org", "TheMatrIX");
    assert!(parsed.verify(&key) && !parsed.fingerprint);
    // Zero padding: written anew it is the same bytes.
    assert_eq!(parsed.message.encode(Seal { key: Some((&key, Integrity::Sha1)), fingerprint: false }), bytes);
}

#[test]
fn rfc8489_long_term_sha256() {
    let bytes = hex(RFC8489_B1);
    let parsed = Parsed::read(&bytes).unwrap();
    assert_eq!(parsed.integrity(), Some(Integrity::Sha256));
    assert_eq!(parsed.message.get_raw(raw::PASSWORD_ALGORITHM), Some(&[0, 2, 0, 0][..]));
    let key = Key::long_term_sha256("マトリックス", "example.org", "TheMatrIX");
    assert!(parsed.verify(&key));
    assert!(!parsed.verify(&Key::long_term_md5("マトリックス", "example.org", "TheMatrIX")));
}

#[test]
fn what_was_written_is_read() {
    let mut message = Message::new(Class::Request, Method::ALLOCATE, [7; 12]);
    message.push(RequestedTransport::new(17));
    message.push_credential(Some("1700000000:ann"), "chordial", "n0");
    message.push_raw(raw::PASSWORD_ALGORITHM, &[0, 2, 0, 0]);
    let key = Key::long_term_sha256("1700000000:ann", "chordial", "p");
    for integrity in [Integrity::Sha1, Integrity::Sha256] {
        let mut bytes = message.encode(Seal { key: Some((&key, integrity)), fingerprint: true });
        let parsed = Parsed::read(&bytes).unwrap();
        assert_eq!((parsed.integrity(), parsed.fingerprint), (Some(integrity), true));
        assert!(parsed.verify(&key));
        assert_eq!(parsed.message.get::<RequestedTransport>().unwrap().protocol(), 17);
        assert!(parsed.message.not_understood().is_empty());
        // The fingerprint sees a flipped bit.
        bytes[24] ^= 1;
        assert_eq!(Parsed::read(&bytes).unwrap_err(), Fault::Fingerprint);
    }
}

#[test]
fn attributes_behind_the_integrity_are_not_believed() {
    let key = Key::short_term("p");
    let message = Message::new(Class::Request, Method::BINDING, [1; 12]);
    let mut bytes = message.encode(Seal { key: Some((&key, Integrity::Sha1)), fingerprint: false });
    bytes.extend_from_slice(&[0x00, 0x06, 0x00, 0x04, b'e', b'v', b'i', b'l']);
    let length = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let parsed = Parsed::read(&bytes).unwrap();
    assert!(parsed.verify(&key));
    assert!(parsed.message.get::<Username>().is_none());
}

#[test]
fn cut_and_changed_bytes_are_refused_or_read_but_never_panic() {
    let bytes = sample_request();
    for end in 0..bytes.len() {
        assert!(Parsed::read(&bytes[..end]).is_err(), "{end}");
    }
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            let _ = Parsed::read(&changed);
            let _ = read_send(&changed);
            let _ = classify(&changed);
        }
    }
}

#[test]
fn indications_by_the_short_way_are_those_of_the_long_one() {
    for peer in ["192.0.2.7:5004", "[2001:db8::9]:40000"] {
        let peer = peer.parse().unwrap();
        for data in [&b"speech"[..], b"", b"four"] {
            let mut bytes = Vec::new();
            write_data(&mut bytes, true, &[9; 12], peer, data).unwrap();
            assert_eq!(read_send(&bytes), Some((Method::SEND, peer, data)));
            let parsed = Parsed::read(&bytes).unwrap();
            assert_eq!(parsed.message.get::<XorPeerAddress>().unwrap().address(), peer);
            assert_eq!(parsed.message.get::<Data>().unwrap().data(), data);
            assert!(bytes.len() <= data.len() + INDICATION_OVERHEAD);
        }
    }
    // An attribute that must be understood: the packet is dropped (RFC 8489 section 6.3.2).
    let mut message = Message::new(Class::Indication, Method::SEND, [1; 12]);
    message.push(XorPeerAddress::new("192.0.2.7:1".parse().unwrap()));
    message.push(Data::new(b"x".to_vec()).unwrap());
    message.push_raw(0x7001, b"what");
    assert_eq!(read_send(&message.encode(Seal::default())), None);
}

#[test]
fn kinds_by_the_first_byte() {
    assert_eq!(classify(&sample_request()), Kind::Stun);
    // Without the cookie it is nothing that is known.
    assert_eq!(classify(&[0; 20]), Kind::Unknown);
    let two = |first, second| classify(&[first, second, 0, 0]);
    assert_eq!((two(16, 0), two(19, 0)), (Kind::Zrtp, Kind::Zrtp));
    assert_eq!((two(20, 0), two(63, 0)), (Kind::Dtls, Kind::Dtls));
    assert_eq!((two(64, 0), two(79, 0)), (Kind::ChannelOrQuic, Kind::ChannelOrQuic));
    assert_eq!((two(80, 0), two(127, 0), two(192, 0)), (Kind::Quic, Kind::Quic, Kind::Quic));
    assert_eq!((two(128, 0), two(191, 96), two(128, 200)), (Kind::Rtp, Kind::Rtp, Kind::Rtcp));
    assert_eq!((two(4, 0), two(15, 0), classify(&[])), (Kind::Unknown, Kind::Unknown, Kind::Unknown));
}

#[test]
fn a_stream_is_cut_where_its_messages_end() {
    let request = sample_request();
    let mut stream = request.clone();
    stream.extend(channel_data(0x4001, b"abcde", true).unwrap());
    stream.extend(&request);
    for step in [1, 3, 50, stream.len()] {
        let (mut framer, mut got) = (Framer::default(), Vec::new());
        for piece in stream.chunks(step) {
            framer.push(piece);
            while let Some(message) = framer.next_message().unwrap() {
                got.push(message.to_vec());
            }
        }
        assert_eq!(got.len(), 3, "{step}");
        assert_eq!(read_channel(&got[1]), Some((0x4001, &b"abcde"[..])));
        assert_eq!((&got[0], &got[2]), (&request, &request));
    }
    let mut framer = Framer::default();
    framer.push(b"\x16\x03\x01\x02\x00");
    assert_eq!(framer.next_message(), Err(StreamFault));
    let mut framer = Framer::default();
    framer.push(&[0, 1, 0, 8, 0, 0, 0, 0, 0]);
    assert_eq!(framer.next_message(), Err(StreamFault));
}

/// RFC 8489 appendix B.1, with its erratum 6268.
const RFC8489_B1: &str = "00010090 2112a442 78ad3433 c6ad72c0 29da412e 001e0020 4a3cf38f ef6992bd a952c678 0417da0f 24819415 569e60b2 05c46e41 407f1704
     00150029 6f624d61 744a6f73 32414141 43662f2f 3439396b 39353464 364f4c33 346f4c39 46535476 79363473 41000000
     0014000b 6578616d 706c652e 6f726700 001d0004 00020000
     001c0020 b5c7bf00 5b6c52a2 1c51c5e8 92f81924 136296cb 927c4314 9309278c c6518e65";
