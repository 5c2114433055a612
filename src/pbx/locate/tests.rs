use super::*;

type Zone = Vec<(&'static str, RecordKind, Record)>;

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Record {
    Record::Srv { priority, weight, port, target: target.into() }
}

fn ip(text: &str) -> Record {
    Record::Address(text.parse().expect("address"))
}

fn naptr(order: u16, service: &str, replacement: &str) -> Record {
    Record::Naptr { order, preference: 0, service: service.into(), replacement: replacement.into() }
}

/// Everything that is found, in order, and the questions that it took.
fn found(uri: &str, overlay_only: bool, zone: &Zone, rng: &mut Rng) -> (Vec<String>, Vec<String>) {
    let mut locate = Locate::new(&Uri::parse(uri).expect("URI"), overlay_only);
    let (mut places, mut asked) = (Vec::new(), Vec::new());
    while let Some(question) = locate.next_question() {
        asked.push(question.name.clone());
        let fits = |(name, kind, _): &&(&str, RecordKind, Record)| *name == question.name && *kind == question.kind;
        let records = zone.iter().filter(fits).map(|(_, _, record)| record.clone()).collect();
        places.extend(locate.answered(records, rng).iter().map(|p| format!("{} {}", p.transport, p.addr)));
    }
    (places, asked)
}

#[test]
fn an_overlay_comes_first_and_plain_sip_after_it() {
    use RecordKind::{Address, Srv};
    let zone: Zone = vec![
        ("_sips._tcp.b.office", Srv, srv(10, 0, 5061, "s1.b.office.")),
        ("_sips._tcp.b.office", Srv, srv(20, 0, 5071, "S2.B.Office.")),
        ("_sip._udp.b.office", Srv, srv(0, 0, 5060, "pbx.b.office")),
        ("s1.b.office", Address, ip("192.0.2.1")),
        ("s1.b.office", Address, ip("2001:db8::1")),
        ("s2.b.office", Address, ip("192.0.2.2")),
        ("pbx.b.office", Address, ip("192.0.2.9")),
        ("b.office", Address, ip("192.0.2.99")),
    ];
    let rng = &mut Rng::from_seed(1);
    let overlay = ["tls 192.0.2.1:5061", "tls [2001:db8::1]:5061", "tls 192.0.2.2:5071"];
    let (places, _) = found("sip:bob@B.Office", false, &zone, rng);
    assert_eq!(places, [&overlay[..], &["udp 192.0.2.9:5060"]].concat(), "the domain's own address is not asked");
    assert_eq!(found("sip:bob@b.office", true, &zone, rng).0, overlay, "nothing in clear");
    assert_eq!(found("sip:bob@b.office;transport=tls", false, &zone, rng).0, overlay);
    assert_eq!(found("sip:bob@b.office;transport=udp", false, &zone, rng).0, ["udp 192.0.2.9:5060"]);
    assert_eq!(found("sip:bob@b.office;transport=tcp", false, &zone, rng).0, ["tcp 192.0.2.99:5060"]);
    assert_eq!(found("sip:bob@b.office:5080", false, &zone, rng).0, ["udp 192.0.2.99:5080"]);
    assert!(found("sip:bob@b.office:5080", true, &zone, rng).0.is_empty());
    assert!(found("sip:bob@b.office;transport=sctp", false, &zone, rng).0.is_empty());
}

#[test]
fn naptr_names_the_services_and_their_order() {
    use RecordKind::{Address, Naptr, Srv};
    let zone: Zone = vec![
        ("host.example", Naptr, naptr(20, "SIP+D2U", "u.host.example.")),
        ("host.example", Naptr, naptr(10, "sip+d2t", "t.host.example.")),
        ("host.example", Naptr, naptr(5, "SIPS+D2T", "s.host.example.")),
        ("u.host.example", Srv, srv(0, 0, 5060, "a.example")),
        ("t.host.example", Srv, srv(0, 0, 5070, "a.example")),
        ("a.example", Address, ip("192.0.2.1")),
    ];
    let (places, asked) = found("sip:bob@host.example", false, &zone, &mut Rng::from_seed(1));
    assert_eq!(places, ["tcp 192.0.2.1:5070", "udp 192.0.2.1:5060"]);
    assert!(!asked.contains(&"_sip._udp.host.example".to_owned()));
    // Nothing but an address; a service that is said not to be there; nothing at all.
    let zone: Zone = vec![("a.example", Address, ip("192.0.2.1"))];
    assert_eq!(found("sip:a@a.example", false, &zone, &mut Rng::from_seed(1)).0, ["udp 192.0.2.1:5060"]);
    let mut none = zone.clone();
    none.push(("_sip._udp.a.example", Srv, srv(0, 0, 0, ".")));
    assert!(found("sip:a@a.example", false, &none, &mut Rng::from_seed(1)).0.is_empty());
    assert!(found("sip:a@b.example", false, &zone, &mut Rng::from_seed(1)).0.is_empty());
}

#[test]
fn weights_are_shares() {
    use RecordKind::{Address, Srv};
    let zone: Zone = vec![
        ("_sip._udp.d.example", Srv, srv(0, 75, 1, "h.example")),
        ("_sip._udp.d.example", Srv, srv(0, 25, 2, "h.example")),
        ("_sip._udp.d.example", Srv, srv(9, 1000, 3, "h.example")),
        ("h.example", Address, ip("192.0.2.1")),
    ];
    let (rng, mut first) = (&mut Rng::from_seed(7), 0);
    for _ in 0..2000 {
        let (places, _) = found("sip:a@d.example", false, &zone, rng);
        assert_eq!((places.len(), places[2].as_str()), (3, "udp 192.0.2.1:3"));
        first += usize::from(places[0].ends_with(":1"));
    }
    assert!((1350..1650).contains(&first), "{first} of 2000 for a share of 75 in 100");
}

#[test]
fn answers_without_end_end() {
    let mut locate = Locate::new(&Uri::parse("sip:a@d.example").expect("URI"), false);
    let (mut questions, mut places, rng) = (0, 0, &mut Rng::from_seed(1));
    while let Some(question) = locate.next_question() {
        questions += 1;
        let records = (0..100u16).map(|n| match question.kind {
            RecordKind::Naptr => naptr(n, "SIP+D2U", &format!("s{n}.example")),
            RecordKind::Srv => srv(n, n, n, &format!("h{n}.example")),
            RecordKind::Address => ip("192.0.2.1"),
        });
        places += locate.answered(records.collect(), rng).len();
    }
    assert!(questions <= QUESTIONS && places <= QUESTIONS * ADDRESSES, "{questions} {places}");
}
