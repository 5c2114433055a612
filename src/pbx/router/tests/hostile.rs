//! Damaged messages and answers in any order: nothing panics, nothing stays.

use super::*;

#[test]
fn damaged_messages_leave_nothing_behind() {
    let mut rng = Rng::from_seed(7);
    let mut n = node();
    n.router.core.config.max_contexts = 64;
    let mut templates = Vec::new();
    for method in ["INVITE", "ACK", "BYE", "MESSAGE", "FROB"] {
        let mut m = request(method, "sip:bob@office;x=1?a=b", CALLER);
        m.push("Route", "<sip:abc@192.0.2.1:5060;lr>, \"x, y\" <sip:10.0.0.2;lr>");
        m.push("Proxy-Require", "a,b");
        m.push("Max-Breadth", 3);
        m.push("Proxy-Authorization", "Digest realm=\"office\"");
        templates.push(m.to_bytes());
        ["Route", "Proxy-Require"].iter().for_each(|f| _ = m.remove(*f));
        templates.push(m.to_bytes());
    }
    for round in 0..4000u64 {
        let mut bytes = templates[rng.below(10) as usize].to_vec();
        for _ in 0..rng.below(5) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(3) {
                0 => bytes[at] = rng.next_u32() as u8,
                1 => _ = bytes.remove(at),
                _ => bytes.insert(at, b" ,;:<>\"@%=?\r"[rng.below(12) as usize]),
            }
        }
        n.origin = match rng.below(3) {
            0 => Origin::Outside,
            1 => Origin::Dialog,
            _ => Origin::Phone { user: "alice".into(), edge: false },
        };
        // Not validated: the proxy stands on its own.
        if let Ok(m) = Message::parse(&bytes) {
            n.layer.receive(n.now, m, flow(CALLER));
            n.run();
        }
        if let Some((query, ..)) = n.asked.pop() {
            let found = match rng.below(4) {
                0 => Resolution::NotFound,
                1 => Resolution::Ambiguous(vec!["not a uri".into()]),
                _ => Resolution::Targets(vec![uri("sip:bob@10.0.0.1"), with_q("odd", rng.below(1001) as u16)]),
            };
            n.router.resolved(n.now, query, found);
            n.run();
        }
        let requests: Vec<_> = n.sent.drain(..).filter(|(_, m)| m.is_request()).collect();
        for (flow, m) in requests {
            let mut response = Message::reply(&m, 100 + rng.below(600) as u16, "Any");
            if rng.below(8) == 0 {
                response.remove(["Via", "CSeq", "To"][rng.below(3) as usize]);
            }
            n.layer.receive(n.now, response, flow);
            n.run();
        }
        if round % 16 == 0 {
            n.pass(Duration::from_millis(rng.below(5000)));
        }
    }
    n.pass(Duration::from_secs(400));
    assert!(n.router.counters().forwarded > 100, "{:?}", n.router.counters());
    let core = &n.router.core;
    assert_eq!((n.router.contexts(), n.router.acks.len(), n.router.by_server.len()), (0, 0, 0));
    assert_eq!((core.timers.len(), core.by_client.len(), core.out.dropped()), (0, 0, 0));
}
