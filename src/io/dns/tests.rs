//! Against a small DNS server on loopback.

use super::*;
use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::Record as Answered;
use hickory_resolver::proto::rr::rdata::{A, NAPTR, SRV};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::UdpSocket;

type Zone = BTreeMap<(&'static str, RecordType), Vec<RData>>;

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("name")
}

fn zone() -> Zone {
    let srv = |priority, port, target| RData::SRV(SRV::new(priority, 7, port, name(target)));
    let boxed = |text: &str| text.as_bytes().to_vec().into_boxed_slice();
    let naptr = NAPTR::new(10, 20, boxed("s"), boxed("SIP+D2U"), boxed(""), name("_sip._udp.b.test."));
    Zone::from([
        (("_sips._tcp.b.test.", RecordType::SRV), vec![srv(10, 5061, "s1.b.test."), srv(20, 5071, "s2.b.test.")]),
        (("b.test.", RecordType::NAPTR), vec![RData::NAPTR(naptr)]),
        (("s1.b.test.", RecordType::A), vec![RData::A(A::new(192, 0, 2, 1))]),
    ])
}

/// Serves the zone; where it listens, and how many questions came.
async fn server() -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let at = socket.local_addr().expect("bound");
    let questions = Arc::new(AtomicUsize::new(0));
    let count = questions.clone();
    tokio::spawn(async move {
        let (zone, mut buffer) = (zone(), [0; 1500]);
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::Relaxed);
            let Ok(request) = Message::from_vec(&buffer[..len]) else { continue };
            let mut response = Message::response(request.metadata.id, OpCode::Query);
            response.metadata.message_type = MessageType::Response;
            let Some(query) = request.queries.first().cloned() else { continue };
            let wanted = query.name().to_ascii().to_ascii_lowercase();
            let found = zone.iter().find(|((n, kind), _)| *n == wanted && *kind == query.query_type());
            if !zone.keys().any(|(n, _)| *n == wanted) {
                response.metadata.response_code = ResponseCode::NXDomain;
            }
            for data in found.map(|(_, data)| data.clone()).unwrap_or_default() {
                response.add_answer(Answered::from_rdata(query.name().clone(), 60, data));
            }
            response.add_query(query);
            let _ = socket.send_to(&response.to_vec().expect("encodes"), from).await;
        }
    });
    (at, questions)
}

async fn answer(dns: &mut Dns, query: u64, name: &str, kind: RecordKind) -> Option<Vec<Record>> {
    dns.ask(query, Question { name: name.into(), kind });
    let (of, records) =
        tokio::time::timeout(Duration::from_secs(30), dns.answered()).await.expect("in time").expect("one");
    assert_eq!(of, query);
    records
}

#[tokio::test]
async fn records_are_asked_for_once() {
    let (at, questions) = server().await;
    let mut dns = Dns::new(Some(at));
    let mut found = answer(&mut dns, 1, "_sips._tcp.b.test", RecordKind::Srv).await.unwrap();
    found.sort_by_key(|r| match r {
        Record::Srv { priority, .. } => *priority,
        _ => 0,
    });
    let srv = |priority, port, target: &str| Record::Srv { priority, weight: 7, port, target: target.into() };
    assert_eq!(found, [srv(10, 5061, "s1.b.test."), srv(20, 5071, "s2.b.test.")]);
    let (service, replacement) = ("SIP+D2U".into(), "_sip._udp.b.test.".into());
    let naptr = Record::Naptr { order: 10, preference: 20, service, replacement };
    assert_eq!(answer(&mut dns, 2, "b.test", RecordKind::Naptr).await.unwrap(), [naptr]);
    let ip = Record::Address([192, 0, 2, 1].into());
    assert_eq!(answer(&mut dns, 3, "s1.b.test", RecordKind::Address).await.unwrap(), [ip]);
    let before = questions.load(Ordering::Relaxed);
    assert_eq!(answer(&mut dns, 4, "_sips._tcp.b.test", RecordKind::Srv).await.map(|r| r.len()), Some(2));
    assert_eq!(questions.load(Ordering::Relaxed), before, "it is kept for its TTL");
}

#[tokio::test]
async fn nothing_and_nobody_are_answers_too() {
    let (at, _) = server().await;
    let mut dns = Dns::new(Some(at));
    assert_eq!(answer(&mut dns, 1, "_sips._tcp.nowhere.test", RecordKind::Srv).await, Some(Vec::new()));
    assert_eq!(answer(&mut dns, 2, "not a name..", RecordKind::Address).await, Some(Vec::new()));
    // A port where nobody listens.
    let closed = UdpSocket::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    let mut dns = Dns::new(Some(closed));
    assert_eq!(answer(&mut dns, 3, "b.test", RecordKind::Address).await, None);
    // More at once than are taken: each has its answer all the same.
    for query in 0..200 {
        dns.ask(query, Question { name: "b.test".into(), kind: RecordKind::Naptr });
    }
    for _ in 0..200 {
        tokio::time::timeout(Duration::from_secs(30), dns.answered()).await.expect("in time").expect("one");
    }
}
