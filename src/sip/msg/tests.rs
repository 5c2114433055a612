use super::*;

const INVITE: &str = "INVITE sip:bob@biloxi.example.com SIP/2.0\r\n\
Via: SIP/2.0/UDP pc33.atlanta.example.com:5066;branch=z9hG4bK776asdhds;rport\r\n\
Max-Forwards: 70\r\n\
To: Bob <sip:bob@biloxi.example.com>\r\n\
From: \"Alice, \\\"A\\\"\" <sip:alice@atlanta.example.com>;tag=1928301774\r\n\
Call-ID: a84b4c76e66710@pc33.atlanta.example.com\r\n\
CSeq: 314159 INVITE\r\n\
Contact: <sip:alice@pc33.atlanta.example.com>\r\n\
Content-Type: application/sdp\r\n\
Content-Length: 4\r\n\
\r\nv=0\n";

#[test]
fn reads_and_writes_the_common_request() {
    let m = Message::parse(INVITE.as_bytes()).unwrap();
    assert_eq!(m.validate(), Ok(()));
    assert_eq!(m.to_bytes(), INVITE.as_bytes());
    assert_eq!(*m.method(), Method::Invite);
    assert_eq!(m.request_uri(), "sip:bob@biloxi.example.com");
    assert_eq!(m.branch(), Some("z9hG4bK776asdhds"));
    assert_eq!(m.from_tag(), Some("1928301774"));
    assert_eq!(m.to_tag(), None);
    assert_eq!(m.from().unwrap().display.as_deref(), Some("Alice, \"A\""));
    assert_eq!(m.cseq().unwrap().number, 314159);
    assert_eq!(m.body(), b"v=0\n");
}

fn invite() -> Message {
    Message::parse(INVITE.as_bytes()).unwrap()
}

fn with(fields: &str) -> Message {
    let text = format!("OPTIONS sip:b@h SIP/2.0\r\n{fields}\r\n\r\n");
    Message::parse(text.as_bytes()).unwrap()
}

fn text(message: &Message) -> String {
    String::from_utf8(message.to_bytes().to_vec()).unwrap()
}

#[test]
fn names_compare_as_the_rfc_says() {
    assert_eq!(HeaderName::new("v"), HeaderName::Via);
    assert_eq!(HeaderName::new("cALL-iD"), HeaderName::CallId);
    assert_eq!(HeaderName::new("i"), HeaderName::new("Call-ID"));
    assert_eq!(HeaderName::new("DHT-PeerID"), HeaderName::new("dht-peerid"));
    assert_ne!(HeaderName::new("DHT-PeerID"), HeaderName::new("DHT-Link"));
    assert_ne!(HeaderName::new("z"), HeaderName::Via);
    assert_eq!(HeaderName::new("X-y").as_str(), "X-y");
    assert_eq!(HeaderName::Supported.compact(), Some('k'));
    assert_eq!(HeaderName::CSeq.compact(), None);
}

#[test]
fn folded_values_read_flat_and_are_written_folded() {
    let source = "Subject: I know\r\n\tyou're there,   \r\n  pick up\r\nX: 1";
    let m = with(source);
    assert_eq!(m.header("s"), Some("I know you're there, pick up"));
    assert_eq!(m.header_bytes("s"), Some(&b"I know\r\n\tyou're there,   \r\n  pick up"[..]));
    assert!(text(&m).contains(source));
}

#[test]
fn foreign_bytes_stay() {
    let bytes = b"MESSAGE sip:b@h SIP/2.0\r\nFrom: \"Andr\xe9\" <sip:a@h>;tag=7\r\nX: \xff\r\nl: 2\r\n\r\n\x00\xff";
    let m = Message::parse(bytes).unwrap();
    assert_eq!(m.to_bytes(), &bytes[..]);
    assert_eq!(m.header_bytes("X"), Some(&b"\xff"[..]));
    assert_eq!(m.header("X"), Some("\u{fffd}"));
    assert_eq!(m.from_tag(), Some("7"));
    assert_eq!(m.from().unwrap().uri.user.as_deref(), Some("a"));
    let reply = Message::reply(&m, 200, "OK").to_bytes();
    assert!(reply.windows(6).any(|w| w == b"Andr\xe9\""));
}

#[test]
fn lists_respect_quotes_and_brackets() {
    let m = with("Contact: \"a, \\\"b\" <sip:a@h;x=1,2>;q=0.5 , sip:b@h;expires=9\r\nm: <sip:c@h>");
    let values: Vec<_> = m.values("Contact").collect();
    assert_eq!(values, ["\"a, \\\"b\" <sip:a@h;x=1,2>;q=0.5", "sip:b@h;expires=9", "<sip:c@h>"]);
    let m = with("Contact: sip:a@h;expires=70000000000, <sip:b@h>;q=1.000");
    let contacts = m.contacts().unwrap();
    assert_eq!((contacts[0].expires(), contacts[1].q()), (Some(u32::MAX), Some(1000)));
    assert!(with("Contact: *").has_star_contact());
    assert_eq!(with("Contact: *").contacts().unwrap().len(), 0);
    assert!(with("Require: a, 100REL").has_token("require", "100rel"));
    assert!(!with("Require: 100reliable").has_token("require", "100rel"));
}

#[test]
fn a_proxy_forwards_and_touches_nothing_else() {
    let mut m = Message::parse(
        b"INVITE sip:b@h SIP/2.0\r\nv : SIP/2.0/UDP a;branch=z9hG4bK1,\r\n SIP/2.0/TCP b;branch=z9hG4bK2\r\n\
          Route: <sip:p1;lr>  ,  <sip:p2;lr>\r\nrOUTE:<sip:p3>\r\nX:  as it is \r\nMax-Forwards:  9\r\n\r\nbody",
    )
    .unwrap();
    let mut via = m.via().unwrap();
    via.set_received([192, 0, 2, 1].into());
    via.set_rport(5070);
    assert!(m.replace_first_value(HeaderName::Via, &via));
    m.push_front(HeaderName::Via, Via::new("TCP", "::1", Some(5060), "z9hG4bK3"));
    m.push_front(HeaderName::RecordRoute, "<sip:me;lr>");
    assert_eq!(m.remove_first_value(HeaderName::Route).as_deref(), Some("<sip:p1;lr>"));
    m.set(HeaderName::MaxForwards, 8);
    m.set_request_uri("sip:c@d");
    assert_eq!(
        text(&m),
        "INVITE sip:c@d SIP/2.0\r\nRecord-Route: <sip:me;lr>\r\nVia: SIP/2.0/TCP [::1]:5060;branch=z9hG4bK3\r\n\
         v : SIP/2.0/UDP a;branch=z9hG4bK1;received=192.0.2.1;rport=5070,\r\n SIP/2.0/TCP b;branch=z9hG4bK2\r\n\
         Route: <sip:p2;lr>\r\nrOUTE:<sip:p3>\r\nX:  as it is \r\nMax-Forwards: 8\r\nContent-Length: 4\r\n\r\nbody",
        "and gives the length, which a stream needs"
    );
    assert_eq!(m.vias().unwrap().len(), 3);
    assert_eq!(m.remove_first_value(HeaderName::Route).as_deref(), Some("<sip:p2;lr>"));
    assert_eq!(m.remove_first_value(HeaderName::Route).as_deref(), Some("<sip:p3>"));
    assert_eq!(m.remove_first_value(HeaderName::Route), None);
    m.set_content_length();
    assert!(text(&m).ends_with("Content-Length: 4\r\n\r\nbody"));
}

#[test]
fn a_response_copies_what_it_has_to() {
    let mut reply = Message::reply(&invite(), 180, "Ringing");
    reply.set_to_tag("t1");
    reply.set_to_tag("t2");
    assert_eq!(reply.to_tag(), Some("t1"));
    assert_eq!((reply.status(), reply.reason(), reply.method()), (180, "Ringing", &Method::Invite));
    assert_eq!(reply.branch(), invite().branch());
    assert!(!reply.has(HeaderName::Contact) && !reply.has(HeaderName::MaxForwards));
    assert!(text(&reply).ends_with("Content-Length: 0\r\n\r\n"));
    let read = Message::parse(&reply.to_bytes()).unwrap();
    assert_eq!(read.validate(), Ok(()));
    assert_eq!(read.to_tag(), Some("t1"));
}

#[test]
fn built_messages_have_the_right_length_and_one_line_a_field() {
    let mut m = Message::request(Method::Message, "sip:b@h");
    m.push("From", "<sip:a@h>;tag=1\r\nEvil: yes");
    m.push("DHT-Link", "x");
    m.push(HeaderName::ContentLength, 99);
    assert!(!text(&m).contains("\nEvil"));
    assert!(text(&m).ends_with("Content-Length: 0\r\n\r\n"));
    m.set_body("text/plain", "hello");
    assert_eq!(m.content_length(), Some(5));
    assert!(m.content_is("TEXT/plain") && !m.content_is("text/plainer"));
    assert!(text(&m).ends_with("\r\n\r\nhello"));
    m.set_body("", Vec::new());
    assert_eq!((m.content_type(), m.content_length()), (None, Some(0)));
    let mut r = Message::response(200, "OK");
    assert_eq!(r.method().as_str(), "");
    r.push("CSeq", "1 BYE");
    assert_eq!(*r.method(), Method::Bye);
}

#[test]
fn what_cannot_be_answered_is_an_error() {
    let cases: [(&[u8], ParseError); 9] = [
        (b"", ParseError::Empty),
        (b"\r\n\r\n\r\n", ParseError::Empty),
        (b"hello\r\n\r\n", ParseError::StartLine),
        (b"GET / HTTP/1.1\r\n\r\n", ParseError::StartLine),
        (b"INVITE sip:a@b SIP/2.0\r\nVia: x\r\n", ParseError::Unterminated),
        (b"INVITE sip:a@b SIP/2.0\nVia: x\n\n", ParseError::StartLine),
        (b"SIP/2.0 99 Low\r\n\r\n", ParseError::StatusCode),
        (b"SIP/2.0 700 High\r\n\r\n", ParseError::StatusCode),
        (b"INV(TE sip:a@b SIP/2.0\r\n\r\n", ParseError::StartLine),
    ];
    for (bytes, fault) in cases {
        assert_eq!(Message::parse(bytes), Err(fault), "{}", bytes.escape_ascii());
    }
    assert_eq!(Message::parse(&[b' '; 70_000]), Err(ParseError::TooLarge));
}

#[test]
fn faults_have_a_status_and_a_name() {
    let change = |from: &str, to: &str| Message::parse(INVITE.replace(from, to).as_bytes()).unwrap().validate();
    assert_eq!(change("Max-Forwards: 70", "Max-Forwards: seventy"), Err(ParseError::Header("Max-Forwards")));
    assert_eq!(change("Call-ID: a84b4c76e66710@pc33.atlanta.example.com\r\n", ""), Err(ParseError::Missing("Call-ID")));
    assert_eq!(change("CSeq: 314159 INVITE", "CSeq: 314159 BYE"), Err(ParseError::CSeqMethod));
    assert_eq!(change("CSeq: 314159 INVITE", "CSeq: 4294967296 INVITE"), Err(ParseError::Range("CSeq")));
    assert_eq!(change("Content-Length: 4", "Content-Length: 5"), Err(ParseError::Truncated));
    assert_eq!(change("To: Bob", "NoColonHere\r\nTo: Bob"), Err(ParseError::HeaderLine));
    assert_eq!(change("To: Bob", "X: a\nVia: b\r\nTo: Bob"), Err(ParseError::HeaderLine));
    assert_eq!(change("INVITE sip:bob@biloxi.example.com", "INVITE sip:bob@"), Err(ParseError::RequestUri));
    assert_eq!(change("CSeq:", "f: <sip:x@y>\r\nCSeq:"), Err(ParseError::Repeated("From")));
    let fault = change("SIP/2.0\r\nVia", "SIP/3.0\r\nVia").unwrap_err();
    assert_eq!((fault.status(), fault.reason().as_str()), (505, "Version not supported"));
    assert_eq!(ParseError::Missing("To").reason(), "Missing To header field");

    let many = format!("{}\r\n\r\n", INVITE.split("\r\n\r\n").next().unwrap().to_owned() + &"\r\nX: y".repeat(300));
    let many = Message::parse(many.as_bytes()).unwrap();
    assert_eq!(many.validate().unwrap_err().status(), 513);
    assert_eq!(Message::reply(&many, 513, "Message Too Large").call_id(), many.call_id());
}

#[test]
fn uris_are_taken_apart_and_put_together() {
    let good = [
        "sip:alice@atlanta.example.com",
        "sips:alice:secretword@[2001:db8::1]:5061;transport=tcp?subject=project%20x&priority=urgent",
        "sip:user;par=u%40example.net@example.com;lr;ttl=15",
        "sip:+1-212-555-1212:1234@gateway.com;user=phone",
        "sip:a?b=c/d&e@h",
        "sip:192.0.2.1:5060",
        "sip:peer@127.0.0.1:7001;peer-ID=0123456789abcdef",
        "tel:+1-201-555-0123;phone-context=example.com",
        "tel:7042;phone-context=+1(914)",
        "urn:service:sos",
        "http://www.example.com/a?b#c",
    ];
    for text in good {
        assert_eq!(Uri::parse(text).unwrap().to_string(), text);
    }
    let bad = [
        "",
        "sip:",
        "sip:@h",
        "alice@h",
        "<sip:a@h>",
        "sip:a b@h",
        "sip:a@h;",
        "sip:a@h;=x",
        "sip:a@h:",
        "sip:a@h:65536",
        "sip:a@h:x",
        "sip:a@[::1",
        "sip:a@[::g]",
        "sip:a@::1",
        "sip:a@h?x",
        "sip:a%4@h",
        "tel:",
        "tel:abc xyz",
        "1sip:a@h",
        "sip:a@h;x=\"y\"",
    ];
    for text in bad {
        assert_eq!(Uri::parse(text), Err(ParseError::Uri), "{text}");
    }
    let uri = Uri::parse(good[1]).unwrap();
    assert_eq!((uri.user.as_deref(), uri.password.as_deref()), (Some("alice"), Some("secretword")));
    assert_eq!((uri.host.as_str(), uri.port, uri.params.get("TRANSPORT")), ("[2001:db8::1]", Some(5061), Some("tcp")));
    assert_eq!(uri.header("Subject").as_deref(), Some("project x"));
    let uri = Uri::parse(good[4]).unwrap();
    assert_eq!((uri.user.as_deref(), uri.host.as_str()), (Some("a?b=c/d&e"), "h"));
    assert_eq!(Uri::parse(good[7]).unwrap().params.get("phone-context"), Some("example.com"));
    assert_eq!(Uri::sip(Some("a b@c"), "::1", Some(5070)).to_string(), "sip:a%20b%40c@[::1]:5070");
}

#[test]
fn parameters_keep_their_order() {
    let mut uri = Uri::parse("sip:h;a=1;lr;B=2").unwrap();
    uri.params.set("b", "3");
    uri.params.set_flag("c");
    assert!(uri.params.remove("A") && !uri.params.remove("zz"));
    assert_eq!(uri.to_string(), "sip:h;lr;B=3;c");
    assert!(Uri::parse("sip:h;%6C%72").unwrap().params.has("lr"));
    let mut params = Params::parse("; a = \"x;\\\"y\" ;b").unwrap();
    assert_eq!(params.get("a"), Some("x;\\\"y"));
    assert_eq!(params.get_unquoted("a").as_deref(), Some("x;\"y"));
    params.set_quoted("b", "q\"");
    assert_eq!(params.to_string(), ";a=\"x;\\\"y\";b=\"q\\\"\"");
    for bad in [";", ";;a", "a;;b", "a=", "a=\"x", "a=\"x\"y", "=b", "a=b c", "a=<"] {
        assert!(Params::parse(bad).is_err(), "{bad}");
    }
    assert!(Params::parse("").unwrap().is_empty());
}

/// The examples of RFC 3261 section 19.1.4.
#[test]
fn equality_of_uris() {
    let same = |a: &str, b: &str| {
        let (a, b) = (Uri::parse(a).unwrap(), Uri::parse(b).unwrap());
        assert_eq!(a.matches(&b), b.matches(&a), "{a} {b}");
        a.matches(&b)
    };
    assert!(same("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"));
    assert!(same("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"));
    assert!(same("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"));
    let headers = "?Subject=next%20meeting";
    assert!(same(
        &format!("sip:biloxi.com;transport=tcp;method=REGISTER{headers}&To=sip:bob%40biloxi.com"),
        &format!("sip:biloxi.com;method=REGISTER;transport=tcp?To=sip:bob%40biloxi.com&{}", &headers[1..]),
    ));
    assert!(same("sip:alice@atlanta.com?subject=a&priority=b", "sip:alice@atlanta.com?priority=b&subject=a"));
    assert!(!same("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"));
    assert!(!same("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"));
    assert!(!same("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"));
    assert!(!same("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"));
    assert!(!same("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"));
    assert!(!same("sip:carol@chicago.com;security=off", "sip:carol@chicago.com;security=on"));
    assert!(!same("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"));
    assert!(!same("sip:a@h", "sips:a@h"));
    assert!(same("tel:+1-201-555", "tel:+1201.555") && !same("tel:1", "tel:1;phone-context=x"));
}

#[test]
fn addresses_of_record_are_canonical() {
    let aor = |text: &str| Uri::parse(text).unwrap().canonical_aor();
    assert_eq!(aor("sip:%62ob:pw@Office.Example:5070;transport=tcp?a=b"), "sip:bob@office.example");
    assert_eq!(aor("SIPS:Bob@office"), "sip:Bob@office");
    assert_eq!(aor("sip:Office"), "sip:office");
    assert_eq!(aor("tel:+1-(201)-555.0123;x=y"), "tel:+12015550123");
}

#[test]
fn name_addr_and_addr_spec() {
    let bare = NameAddr::parse("sip:a@h;user=phone ;tag=1").unwrap();
    assert!(bare.uri.params.is_empty());
    assert_eq!((bare.params.get("user"), bare.tag()), (Some("phone"), Some("1")));
    let named = NameAddr::parse("\"A \\\\ \\\"B\\\"\" < sip:a@h>;x");
    assert!(named.is_err());
    let named = NameAddr::parse("\"A \\\\ \\\"B\\\"\"<sip:a@h;user=phone?b=c>  ; x").unwrap();
    assert_eq!(named.display.as_deref(), Some("A \\ \"B\""));
    assert!(named.uri.params.has("user") && named.params.has("x"));
    assert_eq!(NameAddr::parse(&named.to_string()), Ok(named));
    assert_eq!(NameAddr::parse("J. Doe (home) <tel:12>").unwrap().display.as_deref(), Some("J. Doe (home)"));
    for bad in ["sip:a@h?b=c", "\"x <sip:a@h>", "\"x\" sip:a@h", "<sip:a@h", "<sip:a@h>x", "a, b <sip:a@h>", "<>", ""] {
        assert!(NameAddr::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn vias() {
    let via =
        Via::parse("SIP / 2.0 / UDP  first.example.com : 4000;ttl=16 ;maddr=224.2.0.1;branch=z9hG4bKa7c6a8dlze.1");
    let via = via.unwrap();
    assert_eq!((via.transport.as_str(), via.host.as_str(), via.port), ("UDP", "first.example.com", Some(4000)));
    assert_eq!(via.branch(), Some("z9hG4bKa7c6a8dlze.1"));
    let mut via = Via::parse("SIP/2.0/TLS [::1]:5061;rport;branch=x").unwrap();
    assert_eq!((via.rport(), via.received(), via.ip().is_some()), (Some(None), None, true));
    via.set_rport(7);
    via.set_received([10, 0, 0, 1].into());
    assert_eq!(via.to_string(), "SIP/2.0/TLS [::1]:5061;rport=7;branch=x;received=10.0.0.1");
    assert_eq!(Via::parse("SIP/1.0/UDP h"), Err(ParseError::Version));
    for bad in
        ["", "SIP/2.0/UDP", "SIP/2.0 h", "SIP/2.0/UDP h h", "SIP/2.0/UDP h:x", "SIP/2.0/U(P h", "SIP/2.0/UDP h;;"]
    {
        assert_eq!(Via::parse(bad), Err(ParseError::Value), "{bad}");
    }
}

#[test]
fn the_length_on_the_wire_is_known_before_it_is_written() {
    let received =
        Message::parse_bytes(bytes::Bytes::from_static(b"OPTIONS sip:a@b SIP/2.0\r\nl: 4\r\nX: y\r\n\r\nbody"))
            .unwrap();
    let mut edited = received.clone();
    edited.push("Via", "SIP/2.0/UDP a;branch=z9hG4bK1");
    let mut all = vec![received, edited];
    for len in [0, 1, 9, 10, 999, 1000] {
        let mut made = Message::request(Method::Message, "sip:a@b");
        made.push("To", "<sip:a@b>");
        all.push(made.clone());
        made.set_body("text/plain", vec![b'x'; len]);
        all.push(made.clone());
        made.remove(HeaderName::ContentLength);
        all.push(made.clone());
        made.push(HeaderName::ContentLength, 7);
        all.push(made);
    }
    for message in all {
        assert_eq!(message.wire_len(), message.to_bytes().len(), "{message:?}");
    }
}

#[test]
fn what_came_in_a_datagram_without_a_length_has_one_when_it_is_sent_on() {
    let came = b"SIP/2.0 180 Ringing\r\nVia: SIP/2.0/TLS a;branch=z9hG4bK1\r\nVia: SIP/2.0/TLS b;branch=z9hG4bK2\r\nCSeq: 1 INVITE\r\n\r\n";
    let mut ringing = Message::parse_bytes(bytes::Bytes::from_static(came)).unwrap();
    assert_eq!(ringing.to_bytes(), &came[..]);
    ringing.remove_first_value(HeaderName::Via);
    let sent = ringing.to_bytes();
    assert!(sent.ends_with(b"\r\nContent-Length: 0\r\n\r\n"), "{sent:?}");
    assert_eq!(ringing.wire_len(), sent.len());
    // One that is there stays as it is written.
    let mut long =
        Message::parse_bytes(bytes::Bytes::from_static(b"OPTIONS sip:a SIP/2.0\r\nl:  4\r\n\r\nbody")).unwrap();
    long.push("Other", "y");
    assert_eq!(long.to_bytes(), &b"OPTIONS sip:a SIP/2.0\r\nl:  4\r\nOther: y\r\n\r\nbody"[..]);
}
