//! The registrar through whole exchanges, the phone's half of digest included.

use super::update::date;
use super::*;
use crate::core::Transport;
use crate::pbx::policy::{self, Origin};
use crate::pbx::router::{self, Router};
use crate::pbx::target::Target;
use crate::sip::auth::{Challenge, Credentials, answer, choose};
use crate::sip::msg::Method;

const T0: UnixTime = UnixTime(1_289_690_940);

fn domain() -> Domain {
    let mut domain = Domain::new("office");
    domain.add_address("192.0.2.1:5060".parse().unwrap());
    domain
}

fn registrar(auth: Auth) -> Registrar {
    let mut accounts = Accounts::new("office");
    accounts.add("bob", "", "b0b").unwrap();
    accounts.add("alice", "", "a11ce").unwrap();
    let mut config = Config::new(domain(), auth, [1; 32]);
    config.offer = Offer::Sha256First;
    (config.min_expires, config.max_expires, config.max_bindings) = (60, 600, 3);
    Registrar::new(config, accounts, Rng::from_seed(1))
}

fn udp() -> Flow {
    Flow::udp("192.0.2.1:5060".parse().unwrap(), "198.51.100.7:5060".parse().unwrap())
}

fn tcp(conn: u64, port: u16) -> Flow {
    let remote = format!("198.51.100.7:{port}").parse().unwrap();
    Flow::stream(Transport::Tcp, "192.0.2.1:5060".parse().unwrap(), remote, ConnId(conn))
}

fn register(user: &str, cseq: u32, fields: &[(&str, &str)]) -> Message {
    let mut m = Message::request(Method::Register, "sip:office");
    m.push("Via", "SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bKr");
    m.push("From", format!("<sip:{user}@office>;tag=1"));
    m.push("To", format!("<sip:{user}@office>"));
    m.push("Call-ID", "reg-1");
    m.push("CSeq", format!("{cseq} REGISTER"));
    m.push("Max-Forwards", 70);
    fields.iter().for_each(|(name, value)| m.push(*name, *value));
    m
}

fn now(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

/// Answers the challenge in `response`, the first or the last offered.
fn answered(request: &Message, response: &Message, user: &str, password: &str, nc: u32, last: bool) -> Message {
    let proxy = response.status() == 407;
    let (asks, says) = match proxy {
        true => ("Proxy-Authenticate", "Proxy-Authorization"),
        false => ("WWW-Authenticate", "Authorization"),
    };
    let challenge = match last {
        true => Challenge::parse(response.headers(asks).last().unwrap()).unwrap(),
        false => choose(response.headers(asks)).unwrap(),
    };
    let with = Credentials {
        user,
        password,
        method: request.method().as_str(),
        uri: request.request_uri(),
        body: request.body(),
        nc,
        cnonce: "c",
    };
    let mut again = request.clone();
    again.set(says, answer(&challenge, &with));
    let next = request.cseq().unwrap().number + 1;
    again.set("CSeq", format!("{next} {}", request.method()));
    again
}

fn contacts(response: &Message) -> Vec<String> {
    response.values("Contact").map(str::to_owned).collect()
}

fn news(registrar: &mut Registrar) -> Vec<String> {
    let mut news = Vec::new();
    while let Some(output) = registrar.poll_output() {
        news.push(match output {
            Output::Reachable { aor, .. } => format!("+{aor}"),
            Output::Unreachable { aor, .. } => format!("-{aor}"),
        });
    }
    news
}

#[test]
fn digest_exchange_with_either_algorithm() {
    for last in [false, true] {
        let mut r = registrar(Auth::Digest);
        let first = register("bob", 1, &[("Contact", "<sip:bob@198.51.100.7:5060>;expires=300;q=0.5")]);
        let asked = r.on_register(now(0), T0, &first, &udp());
        assert_eq!(asked.status(), 401);
        assert_eq!(asked.headers("WWW-Authenticate").count(), 2);
        assert!(asked.to_tag().is_some() && news(&mut r).is_empty());
        let ok = r.on_register(now(10), T0, &answered(&first, &asked, "bob", "b0b", 1, last), &udp());
        assert_eq!(ok.status(), 200);
        assert_eq!(contacts(&ok), ["<sip:bob@198.51.100.7:5060>;q=0.5;expires=300"]);
        assert_eq!(ok.header("Date"), Some("Sat, 13 Nov 2010 23:29:00 GMT"));
        assert_eq!(news(&mut r), ["+sip:bob@office"]);
        assert_eq!(r.targets(now(20), "bob")[0].q, 500);
    }
}

#[test]
fn what_is_offered_goes_by_the_phone() {
    let offered = |offer, agent: &str| {
        let mut r = registrar(Auth::Digest);
        r.config.offer = offer;
        let asked = r.on_register(now(0), T0, &register("bob", 1, &[("User-Agent", agent)]), &udp());
        let algorithms =
            asked.headers("WWW-Authenticate").map(|value| Challenge::parse(value).unwrap().algorithm.name());
        algorithms.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(offered(Offer::ByAgent, "Chordial/0.1"), "SHA-256 MD5");
    assert_eq!(offered(Offer::ByAgent, "baresip v1.0.0 (x86_64/linux)"), "MD5");
    assert_eq!(offered(Offer::Md5First, "Chordial/0.1"), "MD5 SHA-256");
    assert_eq!(offered(Offer::Md5, "Chordial/0.1"), "MD5");
    assert_eq!(offered(Offer::Sha256First, "baresip"), "SHA-256 MD5");
}

#[test]
fn nobody_registers_for_somebody_else() {
    let mut r = registrar(Auth::Digest);
    let first = register("bob", 1, &[("Contact", "<sip:x@198.51.100.7>")]);
    let asked = r.on_register(now(0), T0, &first, &udp());
    let stolen = r.on_register(now(0), T0, &answered(&first, &asked, "alice", "a11ce", 1, false), &udp());
    assert_eq!(stolen.status(), 403);
    let asked = r.on_register(now(0), T0, &first, &udp());
    let wrong = r.on_register(now(0), T0, &answered(&first, &asked, "bob", "guess", 1, false), &udp());
    assert_eq!(wrong.status(), 401);
    assert_eq!(r.counters().bad_credentials, 1);
    let ghost = register("ghost", 1, &[]);
    let asked = r.on_register(now(0), T0, &ghost, &udp());
    assert_eq!(asked.status(), 401, "does not tell who exists");
    assert!(r.bindings(now(0), "bob").is_empty() && news(&mut r).is_empty());
}

#[test]
fn a_nonce_is_used_up_by_its_count_and_by_time() {
    let mut r = registrar(Auth::Digest);
    let first = register("bob", 1, &[]);
    let asked = r.on_register(now(0), T0, &first, &udp());
    let good = answered(&first, &asked, "bob", "b0b", 1, false);
    assert_eq!(r.on_register(now(0), T0, &good, &udp()).status(), 200);
    let replay = r.on_register(now(0), T0, &good, &udp());
    assert_eq!(replay.status(), 401);
    assert!(replay.header("WWW-Authenticate").unwrap().contains("stale=true"));
    let next = answered(&first, &asked, "bob", "b0b", 2, false);
    assert_eq!(r.on_register(now(0), T0, &next, &udp()).status(), 200);
    let late = answered(&first, &asked, "bob", "b0b", 3, false);
    assert_eq!(r.on_register(now(0), T0 + Duration::from_secs(301), &late, &udp()).status(), 401);
}

#[test]
fn an_address_names_the_domain_too() {
    let mut r = registrar(Auth::None);
    let mut m = register("bob", 1, &[("Contact", "<sip:bob@198.51.100.7>")]);
    m.set_request_uri("sip:192.0.2.1");
    m.set("To", "<sip:bob@192.0.2.1>");
    assert!(r.serves(&m));
    assert_eq!(r.on_register(now(0), T0, &m, &udp()).status(), 200);
    assert_eq!(r.bindings(now(0), "bob").len(), 1);
    m.set_request_uri("sip:elsewhere.example");
    assert!(!r.serves(&m));
    m.set("To", "<sip:bob@elsewhere.example>");
    assert_eq!(r.on_register(now(0), T0, &m, &udp()).status(), 404);
    m.set("To", "<sip:carol@office>");
    assert_eq!(r.on_register(now(0), T0, &m, &udp()).status(), 404);
}

#[test]
fn bindings_come_change_and_go() {
    let mut r = registrar(Auth::None);
    let mut say = |cseq, fields: &[(&str, &str)]| {
        let response = r.on_register(now(0), T0, &register("bob", cseq, fields), &udp());
        (response.status(), contacts(&response), news(&mut r))
    };
    let two = [
        ("Contact", "<sip:a@198.51.100.7>, \"B, b\" <sip:b@203.0.113.9;transport=tcp>;expires=90"),
        ("Expires", "120"),
    ];
    assert_eq!(
        say(1, &two),
        (
            200,
            vec!["<sip:a@198.51.100.7>;expires=120".into(), "<sip:b@203.0.113.9;transport=tcp>;expires=90".into()],
            vec!["+sip:bob@office".into()]
        )
    );
    assert_eq!(say(1, &[]).1.len(), 2, "a query changes nothing, whatever its CSeq");
    // The same URI in another writing (RFC 3261 section 19.1.4); more than the longest is cut.
    let again = say(2, &[("Contact", "<sip:%61@198.51.100.7>;expires=9999")]);
    assert_eq!(again.1, ["<sip:%61@198.51.100.7>;expires=600", "<sip:b@203.0.113.9;transport=tcp>;expires=90"]);
    // Another transport is another URI.
    assert_eq!(say(3, &[("Contact", "<sip:b@203.0.113.9>;expires=0")]).1.len(), 2);
    assert_eq!(say(4, &[("Contact", "<sip:a@198.51.100.7>;expires=0")]).1.len(), 1);
    assert_eq!(say(5, &[("Contact", "*"), ("Expires", "0")]), (200, vec![], vec!["-sip:bob@office".into()]));
    assert_eq!(say(6, &[("Contact", "*"), ("Expires", "0")]), (200, vec![], vec![]));
}

#[test]
fn a_star_needs_expires_0_and_stands_alone() {
    let mut r = registrar(Auth::None);
    r.on_register(now(0), T0, &register("bob", 1, &[("Contact", "<sip:a@198.51.100.7>")]), &udp());
    for fields in [
        &[("Contact", "*")][..],
        &[("Contact", "*"), ("Expires", "60")],
        &[("Contact", "*"), ("Expires", "none")],
        &[("Contact", "*"), ("Contact", "<sip:a@198.51.100.7>"), ("Expires", "0")],
    ] {
        assert_eq!(r.on_register(now(0), T0, &register("bob", 2, fields), &udp()).status(), 400, "{fields:?}");
    }
    assert_eq!(r.bindings(now(0), "bob").len(), 1);
}

#[test]
fn order_within_a_call_id_and_all_or_nothing() {
    let mut r = registrar(Auth::None);
    let mut say = |m: &Message| r.on_register(now(0), T0, m, &udp()).status();
    assert_eq!(say(&register("bob", 5, &[("Contact", "<sip:a@198.51.100.7>")])), 200);
    let both = [("Contact", "<sip:new@198.51.100.7>, <sip:a@198.51.100.7>")];
    assert_eq!(say(&register("bob", 5, &both)), 500);
    assert_eq!(say(&register("bob", 4, &[("Contact", "*"), ("Expires", "0")])), 500);
    let mut other_call = register("bob", 1, &[("Contact", "<sip:a@198.51.100.7>")]);
    other_call.set("Call-ID", "reg-2");
    assert_eq!(say(&other_call), 200);
    for (field, status) in [
        ("<sip:new@198.51.100.7>, <sip:c@198.51.100.7>;expires=59", 423),
        ("<sip:new@198.51.100.7>, <sips:c@198.51.100.7>", 400),
        ("<sip:new@198.51.100.7>, <mailto:c@d>", 400),
        ("<sip:new@198.51.100.7>, <sip:c@", 400),
        ("<sip:n@1.1.1.1>, <sip:n@1.1.1.2>, <sip:n@1.1.1.3>", 403),
        ("<sip:n@1.1.1.1>, <sip:n@1.1.1.2>, <sip:n@1.1.1.3>, <sip:n@1.1.1.4>", 403),
    ] {
        assert_eq!(say(&register("bob", 9, &[("Contact", field)])), status, "{field}");
    }
    let bindings = r.bindings(now(0), "bob");
    assert_eq!(bindings.len(), 1);
    assert_eq!(bindings[0].uri, "sip:a@198.51.100.7");
}

#[test]
fn too_brief_says_how_long_and_extensions_which() {
    let mut r = registrar(Auth::None);
    let brief = register("bob", 1, &[("Contact", "<sip:a@198.51.100.7>"), ("Expires", "5")]);
    assert_eq!(r.on_register(now(0), T0, &brief, &udp()).header("Min-Expires"), Some("60"));
    let odd = register("bob", 1, &[("Require", "path, foo")]);
    let response = r.on_register(now(0), T0, &odd, &udp());
    assert_eq!((response.status(), response.header("Unsupported")), (420, Some("path, foo")));
    let vague = register("bob", 1, &[("Contact", "<sip:a@198.51.100.7>;expires=soon")]);
    let response = r.on_register(now(0), T0, &vague, &udp());
    assert_eq!(contacts(&response), ["<sip:a@198.51.100.7>;expires=600"]);
}

#[test]
fn bindings_expire_one_by_one() {
    let mut r = registrar(Auth::None);
    let fields = [("Contact", "<sip:a@198.51.100.7>;expires=60, <sip:b@198.51.100.8>;expires=90")];
    r.on_register(now(0), T0, &register("bob", 1, &fields), &udp());
    assert_eq!(news(&mut r), ["+sip:bob@office"]);
    assert_eq!(r.poll_timeout(), Some(now(60_000)));
    assert_eq!(r.targets(now(60_000), "bob").len(), 1, "not used past its time even before the timer ran");
    r.handle_timeout(now(60_000));
    assert_eq!((r.bindings(now(60_000), "bob").len(), news(&mut r).len()), (1, 0));
    assert_eq!(r.poll_timeout(), Some(now(90_000)));
    r.handle_timeout(now(90_000));
    assert_eq!(news(&mut r), ["-sip:bob@office"]);
    assert_eq!((r.poll_timeout(), r.users().count()), (None, 0));
}

#[test]
fn requests_go_back_the_way_the_registration_came() {
    let mut r = registrar(Auth::None);
    // Behind a NAT: it believes to be at 10.0.0.5.
    let mut behind = register("bob", 1, &[("Contact", "<sip:bob@10.0.0.5>")]);
    behind.set("Via", "SIP/2.0/UDP 10.0.0.5;branch=z9hG4bKr;received=198.51.100.7;rport=5060");
    r.on_register(now(0), T0, &behind, &udp());
    let flow = Target::Flow { uri: "sip:bob@10.0.0.5".into(), flow: udp() };
    assert_eq!(r.targets(now(1), "bob")[0].target, flow);
    // On a stream, and where its address says.
    let on_stream = register("alice", 1, &[("Contact", "<sip:alice@198.51.100.7:5062;transport=tcp>")]);
    r.on_register(now(0), T0, &on_stream, &tcp(7, 40_000));
    let uri = "sip:alice@198.51.100.7:5062;transport=tcp".to_owned();
    let over = |r: &Registrar| r.targets(now(1), "alice").into_iter().map(|c| c.target).collect::<Vec<_>>();
    assert_eq!(over(&r), [Target::Flow { uri: uri.clone(), flow: tcp(7, 40_000) }]);
    r.flow_closed(ConnId(8));
    assert_eq!(over(&r), [Target::Flow { uri: uri.clone(), flow: tcp(7, 40_000) }]);
    r.flow_closed(ConnId(7));
    assert_eq!(over(&r), [Target::Uri { uri }], "it may listen there");
    assert!(r.bindings(now(1), "alice")[0].closed);
    // On a stream behind a NAT there is no other way.
    behind.set("CSeq", "2 REGISTER");
    r.on_register(now(2), T0, &behind, &tcp(9, 40_001));
    r.flow_closed(ConnId(9));
    assert_eq!((r.targets(now(3), "bob").len(), r.bindings(now(3), "bob").len()), (0, 1));
    behind.set("CSeq", "3 REGISTER");
    r.on_register(now(4), T0, &behind, &tcp(10, 40_002));
    assert_eq!(r.targets(now(5), "bob").len(), 1);
}

#[test]
fn a_device_comes_back_under_another_contact_and_replaces_itself() {
    let mut r = registrar(Auth::None);
    let comes = |r: &mut Registrar, cseq, host: &str, device: &str, number: &str, supported: &str, conn: u64| {
        let contact =
            format!("<sip:x@{host}.invalid;transport=ws>;reg-id={number};+sip.instance=\"<urn:uuid:{device}>\"");
        let m = register("bob", cseq, &[("Contact", &contact), ("Supported", supported)]);
        let answer = r.on_register(now(0), T0, &m, &tcp(conn, 40_000));
        let conns = r.bindings(now(0), "bob").iter().map(|b| b.flow.conn.unwrap().0).collect::<Vec<_>>();
        (answer.header("Require").map(str::to_owned), conns)
    };
    let outbound = || Some("outbound".to_owned());
    assert_eq!(comes(&mut r, 1, "one", "a", "1", "path, outbound", 1), (outbound(), vec![1]));
    assert_eq!(comes(&mut r, 2, "two", "a", "1", "outbound", 2), (outbound(), vec![2]), "its page was loaded again");
    assert_eq!(comes(&mut r, 3, "two", "a", "2", "outbound", 3), (outbound(), vec![2, 3]), "a second flow");
    assert_eq!(comes(&mut r, 4, "six", "b", "1", "outbound", 4), (outbound(), vec![2, 3, 4]), "another device");
    let targets = r.targets(now(0), "bob");
    assert!(targets.iter().all(|c| matches!(c.target, Target::Flow { .. })), "{targets:?}");
    r.flow_closed(ConnId(2));
    assert_eq!(r.targets(now(0), "bob").len(), 2);
    // Who does not ask for it, or has no such number, is known by its contact.
    r.forget("bob");
    let mut comes = |cseq, host, number, supported, conn| comes(&mut r, cseq, host, "a", number, supported, conn);
    assert_eq!(comes(5, "one", "1", "path", 5), (None, vec![5]));
    assert_eq!(comes(6, "two", "0", "outbound", 6), (None, vec![5, 6]));
}

#[test]
fn a_full_user_loses_what_is_closed_first() {
    let mut r = registrar(Auth::None);
    for (n, port) in [(1, 40_001), (2, 40_002), (3, 40_003)] {
        let contact = format!("<sip:bob@198.51.100.7:{port};transport=tcp>");
        let m = register("bob", n, &[("Contact", &contact)]);
        assert_eq!(r.on_register(now(0), T0, &m, &tcp(u64::from(n), port)).status(), 200);
    }
    let fourth = register("bob", 4, &[("Contact", "<sip:bob@198.51.100.7:40004;transport=tcp>")]);
    assert_eq!(r.on_register(now(0), T0, &fourth, &tcp(4, 40_004)).status(), 403);
    r.flow_closed(ConnId(2));
    assert_eq!(r.on_register(now(0), T0, &fourth, &tcp(4, 40_004)).status(), 200);
    let conns: Vec<_> = r.bindings(now(0), "bob").iter().map(|b| b.flow.conn.unwrap().0).collect();
    assert_eq!(conns, [1, 3, 4]);
}

#[test]
fn streams_are_forgotten_with_their_bindings() {
    let mut r = registrar(Auth::None);
    let mut say = |cseq, contact: &str, flow: &Flow| {
        let m = register("bob", cseq, &[("Contact", contact)]);
        assert_eq!(r.on_register(now(0), T0, &m, flow).status(), 200);
        r.location.streams()
    };
    assert_eq!(say(1, "<sip:a@198.51.100.7>;expires=60", &tcp(1, 40_001)), 1);
    assert_eq!(say(2, "<sip:b@198.51.100.7>;expires=90", &tcp(1, 40_001)), 1);
    assert_eq!(say(3, "<sip:b@198.51.100.7>;expires=90", &tcp(2, 40_002)), 2);
    assert_eq!(say(4, "<sip:a@198.51.100.7>;expires=60, <sip:a@198.51.100.7>;expires=60", &tcp(1, 40_001)), 2);
    r.handle_timeout(now(60_000));
    assert_eq!(r.location.streams(), 1);
    r.handle_timeout(now(90_000));
    assert_eq!(r.location.streams(), 0);
}

#[test]
fn users_are_bounded() {
    let mut config = Config::new(domain(), Auth::None, [1; 32]);
    config.max_users = 1;
    let mut r = Registrar::new(config, Accounts::new("office"), Rng::from_seed(1));
    let fields = [("Contact", "<sip:a@198.51.100.7>")];
    assert_eq!(r.on_register(now(0), T0, &register("any", 1, &fields), &udp()).status(), 200);
    assert_eq!(r.on_register(now(0), T0, &register("more", 1, &fields), &udp()).status(), 503);
    assert_eq!(r.on_register(now(0), T0, &register("any", 2, &fields), &udp()).status(), 200);
    r.forget("any");
    assert_eq!(news(&mut r), ["+sip:any@office", "-sip:any@office"]);
    assert_eq!(r.on_register(now(0), T0, &register("more", 1, &fields), &udp()).status(), 200);
}

#[test]
fn a_call_from_a_phone_is_challenged_and_admitted() {
    let mut r = registrar(Auth::Digest);
    let address = "192.0.2.1:5060".parse().unwrap();
    let router = Router::new(router::Config::new(domain(), address, address, [2; 32]), Rng::from_seed(3));
    let call = |from: &str| {
        let mut m = Message::request(Method::Invite, "sip:alice@office");
        m.push("Via", "SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bKi");
        m.push("From", format!("<{from}>;tag=1"));
        m.push("To", "<sip:alice@office>");
        m.push("Call-ID", "call");
        m.push("CSeq", "1 INVITE");
        m
    };
    let admit = |r: &mut Registrar, message: &Message| policy::admit(r, &router, (now(0), T0), message, &udp());
    let invite = call("sip:bob@192.0.2.1");
    let asked = admit(&mut r, &invite).unwrap_err();
    assert_eq!((asked.status(), asked.headers("Proxy-Authenticate").count()), (407, 2));
    let good = answered(&invite, &asked, "bob", "b0b", 1, false);
    assert_eq!(admit(&mut r, &good), Ok(Origin::Phone { user: "bob".into(), edge: false }));
    let replay = admit(&mut r, &good).unwrap_err();
    assert!(replay.header("Proxy-Authenticate").unwrap().contains("stale=true"));
    let other = answered(&invite, &asked, "alice", "a11ce", 2, false);
    assert_eq!(admit(&mut r, &other).unwrap_err().status(), 403);
    let wrong = answered(&invite, &asked, "bob", "guess", 3, false);
    assert_eq!(admit(&mut r, &wrong).unwrap_err().status(), 407);
    assert_eq!(admit(&mut r, &call("sip:carol@office")).unwrap_err().status(), 407, "as if she were");
    assert_eq!(admit(&mut r, &call("sip:x@198.51.100.7")), Ok(Origin::Outside));
    assert_eq!(admit(&mut r, &call("tel:+4930")), Ok(Origin::Outside));
    let mut forged = call("sip:bob@office");
    forged.set("To", "<sip:alice@office>;tag=2");
    forged.push("Route", "<sip:AAAAAAAAAAA@192.0.2.1:5060;lr>");
    assert_eq!(admit(&mut r, &forged).unwrap_err().status(), 407);
}

#[test]
fn who_guesses_is_not_listened_to_and_hears_the_same() {
    let mut r = registrar(Auth::Digest);
    let first = register("bob", 1, &[]);
    let asked = r.on_register(now(0), T0, &first, &udp());
    let answer = |user: &str, password: &str, count: u32| {
        answered(&register(user, 2 + count, &[]), &asked, user, password, count, false)
    };
    let shape = |m: &Message| {
        let names: Vec<String> = m.fields().map(|(name, _)| name.to_owned()).collect();
        (m.status(), names)
    };
    let wrong = shape(&r.on_register(now(0), T0, &answer("bob", "guess", 1), &udp()));
    assert_eq!(wrong, shape(&r.on_register(now(0), T0, &answer("nobody", "guess", 2), &udp())));
    for n in 3..10 {
        assert_eq!(wrong, shape(&r.on_register(now(0), T0, &answer("bob", "guess", n), &udp())));
    }
    assert_eq!((r.counters().bad_credentials, r.counters().held_back), (6, 3));
    // Not even the right password, from there; but from elsewhere, and here again when the wait is over.
    assert_eq!(wrong, shape(&r.on_register(now(0), T0, &answer("bob", "b0b", 20), &udp())));
    let elsewhere = Flow::udp(udp().local, "203.0.113.5:5060".parse().unwrap());
    assert_eq!(r.on_register(now(0), T0, &answer("bob", "b0b", 21), &elsewhere).status(), 200);
    assert_eq!(r.on_register(now(2_000), T0, &answer("bob", "b0b", 22), &udp()).status(), 200);
}

#[test]
fn dates() {
    assert_eq!(date(UnixTime(0)), "Thu, 01 Jan 1970 00:00:00 GMT");
    assert_eq!(date(UnixTime(951_827_696)), "Tue, 29 Feb 2000 12:34:56 GMT");
    assert_eq!(date(UnixTime(1_709_251_199)), "Thu, 29 Feb 2024 23:59:59 GMT");
    assert_eq!(date(UnixTime(4_102_444_800)), "Fri, 01 Jan 2100 00:00:00 GMT");
}
