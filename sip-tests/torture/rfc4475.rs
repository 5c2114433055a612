//! RFC 4475, section 3.

use chordial::sip::msg::{HeaderName, Message, Method, ParseError, Scheme, Uri};

use crate::Case;
use crate::Verdict::{self, Dropped, Refused, Valid};

macro_rules! cases {
    ($($section:literal $name:literal $verdict:expr;)*) => {
        &[$(Case {
            name: $name,
            section: $section,
            bytes: include_bytes!(concat!("rfc4475/", $name, ".dat")),
            verdict: $verdict,
        }),*]
    };
}

pub const CASES: &[Case] = cases! {
    "3.1.1.1" "wsinv" Valid;
    "3.1.1.2" "intmeth" Valid;
    "3.1.1.3" "esc01" Valid;
    "3.1.1.4" "escnull" Valid;
    "3.1.1.5" "esc02" Valid;
    "3.1.1.6" "lwsdisp" Valid;
    "3.1.1.7" "longreq" Valid;
    "3.1.1.8" "dblreq" Valid;
    "3.1.1.9" "semiuri" Valid;
    "3.1.1.10" "transports" Valid;
    "3.1.1.11" "mpart01" Valid;
    "3.1.1.12" "unreason" Valid;
    "3.1.1.13" "noreason" Valid;
    "3.1.2.1" "badinv01" Refused(400);
    "3.1.2.2" "clerr" Refused(400);
    "3.1.2.3" "ncl" Refused(400);
    "3.1.2.4" "scalar02" Refused(400);
    // A response: whatever the status, it is dropped.
    "3.1.2.5" "scalarlg" Refused(400);
    "3.1.2.6" "quotbal" Refused(400);
    "3.1.2.7" "ltgtruri" Refused(400);
    "3.1.2.8" "lwsruri" Refused(400);
    "3.1.2.9" "lwsstart" Refused(400);
    "3.1.2.10" "trws" Refused(400);
    "3.1.2.11" "escruri" Refused(400);
    // Only an element to which Date matters should refuse it.
    "3.1.2.12" "baddate" Valid;
    "3.1.2.13" "regbadct" Refused(400);
    "3.1.2.14" "badaspec" Refused(400);
    // The archive's message lacks the empty line too; see `a_display_name_with_a_comma` for the fault it is about.
    "3.1.2.15" "baddn" Dropped;
    "3.1.2.16" "badvers" Refused(505);
    "3.1.2.17" "mismatch01" Refused(400);
    // 400 is acceptable; a user agent that looks at the method first answers 501.
    "3.1.2.18" "mismatch02" Refused(400);
    "3.1.2.19" "bigcode" Dropped;
    // Falls back to the transaction identifier of RFC 2543.
    "3.2.1" "badbranch" Valid;
    "3.3.1" "insuf" Refused(400);
    "3.3.2" "unkscm" Valid;
    "3.3.3" "novelsc" Valid;
    "3.3.4" "unksm2" Valid;
    "3.3.5" "bext01" Valid;
    "3.3.6" "invut" Valid;
    "3.3.7" "regaut01" Valid;
    "3.3.8" "multi01" Refused(400);
    "3.3.9" "mcl01" Refused(400);
    "3.3.10" "bcast" Valid;
    "3.3.11" "zeromf" Valid;
    "3.3.12" "cparam01" Valid;
    "3.3.13" "cparam02" Valid;
    "3.3.14" "regescrt" Valid;
    "3.3.15" "sdp01" Valid;
    "3.4.1" "inv2543" Valid;
};

fn message(name: &str) -> Message {
    crate::find(CASES, name)
}

fn fault(name: &str) -> ParseError {
    message(name).validate().expect_err(name)
}

#[test]
fn wsinv() {
    let m = message("wsinv");
    assert_eq!(*m.method(), Method::Invite);
    let uri = Uri::parse(m.request_uri()).unwrap();
    assert!(uri.params.has("unknownparam"));
    assert_eq!(m.to_tag(), Some("1918181833n"));
    assert_eq!(m.from_tag(), Some("98asjd8"));
    let from = m.from().unwrap();
    assert_eq!(from.display.as_deref(), Some("J Rosenberg \\\""));
    assert_eq!(from.uri.to_string(), "sip:jdrosen@example.com");
    assert_eq!(m.max_forwards(), Some(68));
    assert_eq!((m.cseq().unwrap().number, m.cseq().unwrap().method), (9, Method::Invite));
    let vias = m.vias().unwrap();
    let hops: Vec<_> = vias.iter().map(|v| (v.transport.as_str(), v.host.as_str(), v.branch().unwrap())).collect();
    assert_eq!(
        hops,
        [
            ("UDP", "192.0.2.2", "390skdjuw"),
            ("TCP", "spindle.example.com", "z9hG4bK9ikj8"),
            ("UDP", "192.168.255.111", "z9hG4bK30239")
        ]
    );
    assert_eq!(m.header(HeaderName::Subject), Some(""));
    assert_eq!(m.header("newfangledheader"), Some("newfangled value continued newfangled value"));
    assert_eq!(m.header("UnknownHeaderWithUnusualValue"), Some(";;,,;;,;"));
    let route = &m.routes().unwrap()[0];
    assert_eq!(route.uri.params.get("unknownwith"), Some("value"));
    assert_eq!(route.uri.params.get("unknown-no-value"), Some(""));
    let contact = &m.contacts().unwrap()[0];
    assert_eq!(contact.display.as_deref(), Some("Quoted string \"\""));
    assert_eq!(contact.params.get("newparam"), Some("newvalue"));
    assert_eq!(contact.q(), Some(330));
    assert!(contact.params.has("secondparam"));
    assert_eq!(m.body().len(), 150);
}

#[test]
fn intmeth() {
    let m = message("intmeth");
    assert_eq!(m.method().as_str(), "!interesting-Method0123456789_*+`.%indeed'~");
    let uri = Uri::parse(m.request_uri()).unwrap();
    assert_eq!(uri.user.as_deref(), Some("1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"));
    assert_eq!(uri.password.as_deref(), Some("&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"));
    assert_eq!(uri.host, "example.com");
    assert_eq!(uri.to_string(), m.request_uri());
    assert_eq!(m.branch(), Some("z9hG4bK-.!%66*_+`'~"));
    assert_eq!(m.to().unwrap().display.as_deref(), Some("BEL:\u{7} NUL:\0 DEL:\u{7f}"));
    let from = m.from().unwrap();
    assert_eq!(from.display.as_deref(), Some("token1~` token2'+_ token3*%!.-"));
    assert_eq!(from.params.get("fromParam''~+*_!.-%"), Some("работающий"));
    assert_eq!(m.from_tag(), Some("_token~1'+`*%!-."));
    assert_eq!(m.call_id(), Some("intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"));
    assert_eq!(m.max_forwards(), Some(255));
    assert_eq!(m.header("extensionHeader-!.%*+_`'~"), Some("\u{feff}大停電"));
}

#[test]
fn escapes() {
    let m = message("esc01");
    let uri = Uri::parse(m.request_uri()).unwrap();
    assert_eq!(uri.user_unescaped().as_deref(), Some("sips:user@example.com"));
    assert_eq!(uri.host, "example.net");
    assert!(m.to().unwrap().uri.matches(&Uri::parse("sip:user@example.com").unwrap()));
    assert_eq!(m.from().unwrap().uri.user_unescaped().as_deref(), Some("I have spaces"));
    let contact = m.contacts().unwrap().remove(0);
    assert_eq!(contact.uri.user_unescaped().as_deref(), Some("caller"));
    // Escapes are decoded once: "value%41", not "valueA".
    let base = "sip:caller@host5.example.net;lr;name=";
    assert!(contact.uri.matches(&Uri::parse(&format!("{base}value%25%34%31")).unwrap()));
    assert!(!contact.uri.matches(&Uri::parse(&format!("{base}valueA")).unwrap()));

    let m = message("escnull");
    assert_eq!(m.to().unwrap().uri.canonical_aor(), "sip:null-\0-null@example.com");
    let contacts = m.contacts().unwrap();
    assert_eq!(contacts.len(), 2);
    assert!(!contacts[0].uri.matches(&contacts[1].uri));

    let m = message("esc02");
    assert_eq!(*m.method(), Method::Other("RE%47IST%45R".into()));
    assert_eq!(m.to().unwrap().display.as_deref(), Some("%Z%45"));
    assert_eq!(m.contacts().unwrap().len(), 2);
    assert_eq!(m.header("C%6Fntact"), Some("<sip:alias2@host2.example.com>"));
}

#[test]
fn lwsdisp_and_longreq() {
    let from = message("lwsdisp").from().unwrap();
    assert_eq!(from.display.as_deref(), Some("caller"));
    assert_eq!(from.uri.user.as_deref(), Some("caller"));

    let m = message("longreq");
    assert_eq!(m.vias().unwrap().len(), 34);
    assert_eq!(m.values(HeaderName::Via).last().unwrap().len(), m.headers("v").last().unwrap().len());
    assert_eq!(m.from_tag().unwrap().len(), 2 + 150 + 3);
    assert_eq!(m.to().unwrap().uri.port, Some(6000));
    assert_eq!(m.body().len(), 150);
}

#[test]
fn dblreq() {
    let m = message("dblreq");
    assert_eq!(*m.method(), Method::Register);
    assert!(m.body().is_empty());
    assert!(m.to_bytes().ends_with(b"Content-Length: 0\r\n\r\n"));
}

#[test]
fn semiuri_and_transports() {
    let uri = Uri::parse(message("semiuri").request_uri()).unwrap();
    assert_eq!(uri.user_unescaped().as_deref(), Some("user;par=u@example.net"));
    assert_eq!(uri.host, "example.com");
    assert!(uri.params.is_empty());
    let accepted: Vec<_> = message("semiuri").values(HeaderName::Accept).map(str::to_owned).collect();
    assert_eq!(accepted.len(), 6);
    assert_eq!(accepted[5], "message/sipfrag");

    let vias = message("transports").vias().unwrap();
    let names: Vec<_> = vias.iter().map(|via| via.transport.as_str()).collect();
    assert_eq!(names, ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"]);
}

#[test]
fn mpart01() {
    let m = message("mpart01");
    assert_eq!(m.body().len(), 553);
    assert!(m.body().windows(4).any(|w| w == [0x30, 0x82, 0x01, 0x52]));
    assert!(m.content_is("multipart/mixed"));
    assert_eq!(m.via().unwrap().rport(), Some(None));
}

#[test]
fn reason_phrases() {
    let m = message("unreason");
    assert_eq!(m.status(), 200);
    assert_eq!(m.reason(), "= 2**3 * 5**2 но сто девяносто девять - простое");
    assert_eq!(*m.method(), Method::Invite);
    let m = message("noreason");
    assert_eq!((m.status(), m.reason()), (100, ""));
    assert_eq!(Message::parse(b"SIP/2.0 100\r\n\r\n").unwrap().status(), 100, "a liberal receiver");
}

#[test]
fn faults_are_named() {
    assert_eq!(fault("badinv01"), ParseError::Header("Via"));
    assert_eq!(fault("clerr"), ParseError::Truncated);
    assert_eq!(fault("ncl"), ParseError::Header("Content-Length"));
    assert_eq!(fault("scalar02"), ParseError::Range("CSeq"));
    assert_eq!(fault("scalarlg"), ParseError::Range("CSeq"));
    assert_eq!(fault("quotbal"), ParseError::Header("To"));
    assert_eq!(fault("ltgtruri"), ParseError::RequestUri);
    assert_eq!(fault("lwsruri"), ParseError::RequestLine);
    assert_eq!(fault("lwsstart"), ParseError::RequestLine);
    assert_eq!(fault("trws"), ParseError::RequestLine);
    assert_eq!(fault("escruri"), ParseError::RequestUri);
    assert_eq!(fault("regbadct"), ParseError::Header("Contact"));
    assert_eq!(fault("badaspec"), ParseError::Header("To"));
    assert_eq!(fault("badvers"), ParseError::Version);
    assert_eq!(fault("mismatch01"), ParseError::CSeqMethod);
    assert_eq!(fault("insuf"), ParseError::Missing("From"));
    assert!(matches!(fault("multi01"), ParseError::Repeated(_)));
    assert_eq!(fault("mcl01"), ParseError::Repeated("Content-Length"));
}

/// Each fault of `scalar02` by itself.
#[test]
fn scalars_out_of_range() {
    let mut m = message("scalar02");
    m.set(HeaderName::CSeq, "1 REGISTER");
    assert_eq!(m.validate(), Err(ParseError::Range("Max-Forwards")));
    assert_eq!(m.max_forwards(), None);
    m.set(HeaderName::MaxForwards, 70);
    assert_eq!(m.validate(), Err(ParseError::Range("Expires")));
    assert_eq!(m.expires(), None);
    m.remove(HeaderName::Expires);
    assert_eq!(m.validate(), Err(ParseError::Range("Contact expires")));
    m.set(HeaderName::Contact, "<sip:user@host129.example.com>;expires=4294967295");
    assert_eq!(m.validate(), Ok(()));
}

#[test]
fn a_display_name_with_a_comma() {
    let case = CASES.iter().find(|case| case.name == "baddn").unwrap();
    let whole = [case.bytes, b"\r\n"].concat();
    assert_eq!(crate::judge(&whole), (Verdict::Refused(400), Some(ParseError::Header("From"))));
}

#[test]
fn a_request_with_a_fault_can_be_answered() {
    for name in ["badinv01", "clerr", "lwsstart", "badvers", "ncl", "multi01"] {
        let request = message(name);
        let fault = request.validate().unwrap_err();
        let reply = Message::reply(&request, fault.status(), &fault.reason());
        let read = Message::parse(&reply.to_bytes()).unwrap();
        assert_eq!(read.call_id(), request.call_id(), "{name}");
        assert_eq!(read.headers(HeaderName::Via).count(), request.headers(HeaderName::Via).count());
        assert_eq!(read.reason(), fault.to_string());
    }
}

#[test]
fn application_layer() {
    let scheme = |name: &str| Uri::parse(message(name).request_uri()).unwrap().scheme;
    assert_eq!(scheme("unkscm"), Scheme::Other("nobodyknowsthisscheme".into()));
    assert_eq!(scheme("novelsc"), Scheme::Other("soap.beep".into()));
    assert!(!message("unksm2").to().unwrap().uri.is_sip());
    assert_eq!(message("unksm2").contacts().unwrap()[0].uri.opaque, "John_Smith");

    let m = message("bext01");
    assert!(m.has_token(HeaderName::Require, "nothingsupportsthiseither"));
    assert_eq!(m.values(HeaderName::ProxyRequire).count(), 2);
    assert!(message("invut").content_is("application/unknownformat"));
    assert_eq!(message("regaut01").header(HeaderName::Authorization), Some("NoOneKnowsThisScheme opaque-data=here"));
    assert_eq!(message("bcast").vias().unwrap()[1].ip(), Some([255, 255, 255, 255].into()));
    assert_eq!(message("zeromf").max_forwards(), Some(0));
    assert_eq!(message("badbranch").branch(), Some("z9hG4bK"));
    assert!(!message("sdp01").has_token(HeaderName::Accept, "application/sdp"));

    let contact = message("cparam01").contacts().unwrap().remove(0);
    assert!(contact.params.has("unknownparam") && !contact.uri.params.has("unknownparam"));
    let contact = message("cparam02").contacts().unwrap().remove(0);
    assert!(!contact.params.has("unknownparam") && contact.uri.params.has("unknownparam"));
    let contact = message("regescrt").contacts().unwrap().remove(0);
    assert_eq!(contact.uri.header("route").as_deref(), Some("<sip:sip.example.com>"));
    assert_eq!(contact.uri.to_string(), "sip:user@example.com?Route=%3Csip:sip.example.com%3E");
}

#[test]
fn inv2543() {
    let m = message("inv2543");
    assert_eq!((m.branch(), m.from_tag(), m.max_forwards(), m.content_length()), (None, None, None, None));
    assert!(m.body().ends_with(b"m=audio 49217 RTP/AVP 0\r\n"));
    assert!(m.to().unwrap().params.has("user"));
    assert!(m.from().unwrap().uri.params.has("user"));
    assert_eq!(m.record_routes().unwrap()[0].uri.params.get("maddr"), Some("ss1.example.com"));
}
