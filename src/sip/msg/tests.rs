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
