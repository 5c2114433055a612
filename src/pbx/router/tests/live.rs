use super::*;
use crate::core::UnixTime;
use crate::pbx::registrar::{self, Auth, Registrar};
use crate::pbx::{Accounts, policy};
use std::net::UdpSocket;
#[test]
#[ignore]
fn live() {
    let here: SocketAddr = "127.0.0.1:5566".parse().unwrap();
    let sock = UdpSocket::bind(here).unwrap();
    let mut domain = Domain::new("office");
    domain.add_address(here);
    let mut accounts = Accounts::new("office");
    for (u, p) in [("bob", "b0b"), ("alice", "a11ce")] {
        accounts.add(u, "", p).unwrap();
    }
    let mut rc = registrar::Config::new(domain.clone(), Auth::Digest, [1; 32]);
    rc.offer = match std::env::var("OFFER").as_deref() {
        Ok("1") => registrar::Offer::Md5First,
        Ok("2") => registrar::Offer::Md5,
        _ => registrar::Offer::ByAgent,
    };
    let mut reg = Registrar::new(rc, accounts, Rng::from_seed(1));
    let mut router = Router::new(Config::new(domain, here, here, [2; 32]), Rng::from_seed(2));
    let mut layer = Layer::new(Rng::from_seed(3), Default::default());
    let start = std::time::Instant::now();
    let mut buf = [0u8; 65536];
    let secs: u64 = std::env::var("LIVE").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    while start.elapsed().as_secs() < secs {
        let now = Instant::from_micros(start.elapsed().as_micros() as u64);
        let next = [layer.poll_timeout(), router.poll_timeout(), reg.poll_timeout()].into_iter().flatten().min();
        let wait = next
            .map_or(Duration::from_millis(100), |t| t.since(now))
            .clamp(Duration::from_micros(500), Duration::from_millis(100));
        sock.set_read_timeout(Some(wait)).unwrap();
        let got = sock.recv_from(&mut buf);
        let now = Instant::from_micros(start.elapsed().as_micros() as u64);
        let unix = UnixTime(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs());
        if let Ok((n, from)) = got {
            if let Ok(m) = Message::parse(&buf[..n]) {
                if m.validate().is_ok() {
                    layer.receive(now, m, Flow::udp(here, from));
                } else {
                    println!("invalid {:?}", m.validate());
                }
            }
        }
        layer.handle_timeout(now);
        router.handle_timeout(now);
        reg.handle_timeout(now);
        loop {
            if let Some(o) = layer.poll_output() {
                match o {
                    TxOutput::Send { flow, bytes } => {
                        let _ = sock.send_to(&bytes, flow.remote);
                    }
                    TxOutput::Request { tx, message, flow, .. } => {
                        if *message.method() == Method::Register && reg.serves(&message) {
                            let r = reg.on_register(now, unix, &message, &flow);
                            layer.respond(now, tx, r);
                        } else {
                            match policy::admit(&mut reg, &router, unix, &message) {
                                Ok(origin) => router.on_request(now, tx, message, &flow, &origin),
                                Err(r) => {
                                    layer.respond(now, tx, *r);
                                }
                            }
                        }
                    }
                    TxOutput::Cancel { invite, .. } => router.on_cancel(now, invite),
                    TxOutput::Response { tx, message } => router.on_response(now, tx, message),
                    TxOutput::Ack { message, flow } => router.on_ack(now, message, &flow),
                    TxOutput::Timeout { tx } => router.on_timeout(now, tx),
                    TxOutput::TransportError { tx } => router.on_transport_error(now, tx),
                    _ => {}
                }
            } else if let Some(o) = router.poll_output() {
                let via = |mut m: Message, b: &str| {
                    m.push_front("Via", format!("SIP/2.0/UDP {here};branch={b};rport"));
                    m
                };
                let way = |t: &Target| match t {
                    Target::Flow { flow, .. } => Some(*flow),
                    Target::Uri { uri } => {
                        crate::pbx::target::direct(&Uri::parse(uri).ok()?).map(|(_, a)| Flow::udp(here, a))
                    }
                    _ => None,
                };
                match o {
                    Output::Resolve { query, user, .. } => {
                        let r = if reg.hosts(&user) {
                            Resolution::Targets(reg.targets(now, &user))
                        } else {
                            Resolution::NotFound
                        };
                        router.resolved(now, query, r);
                    }
                    Output::Forward { branch, message, target, via_branch } => match way(&target) {
                        Some(f) => {
                            let c = layer.send_request(now, via(message, &via_branch), f);
                            router.forwarded(branch, c);
                        }
                        None => router.unsendable(now, branch),
                    },
                    Output::ForwardStateless { message, target, via_branch } => {
                        if let Some(f) = way(&target) {
                            layer.send_stateless(&via(message, &via_branch), f);
                        }
                    }
                    Output::Respond { tx, message } => {
                        layer.respond(now, tx, message);
                    }
                    Output::Cancel { tx } => {
                        layer.cancel(now, tx);
                    }
                }
            } else {
                break;
            }
        }
        while let Some(o) = reg.poll_output() {
            println!("{o:?}");
        }
    }
    println!("{:?} {:?} {:?} contexts {}", reg.counters(), router.counters(), layer.counters(), router.contexts());
}
