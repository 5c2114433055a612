//! The joiner's way to an enroller (SPEC section 5): a link dialled with the new device's key and no chain yet, one
//! REGISTER with the request in its body, the answer in the 200. Nothing listens meanwhile.

use super::transport::{Config, Credentials, Endpoint, Event};
use crate::core::{ConnId, Rng, Transport};
use crate::identity::{ENROLMENT_TYPE, JoinAnswer, Joining};
use crate::sip::msg::{Message, Method};
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;
use tokio::time::timeout;

/// Why no enroller answered.
#[derive(Debug, Error)]
pub enum EnrolFault {
    /// It was asked and said no: the code is wrong, spent or expired, or was tried too often.
    #[error("{addr} refuses the code ({status} {reason})")]
    Refused {
        /// The enroller.
        addr: SocketAddr,
        /// Its SIP status.
        status: u16,
        /// Its words.
        reason: String,
    },
    /// None of the code's addresses could be reached; the last one's fault.
    #[error("{addr} cannot be reached: {why}")]
    Unreachable {
        /// The address.
        addr: SocketAddr,
        /// Why, for a person.
        why: String,
    },
    /// Its answer is none.
    #[error("{addr} answers what this version does not understand")]
    Answer {
        /// The enroller.
        addr: SocketAddr,
    },
}

/// Asks the enroller at one of `addrs`, the first that can be reached.
///
/// # Errors
/// [`EnrolFault`].
pub async fn enrol(joining: &Joining, addrs: &[SocketAddr], rng: &mut Rng) -> Result<JoinAnswer, EnrolFault> {
    let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
    let mut last = EnrolFault::Unreachable { addr: nobody, why: "the code names no address".into() };
    for addr in addrs {
        match timeout(LIMIT, ask(joining, *addr, rng)).await {
            Ok(Err(e @ EnrolFault::Unreachable { .. })) => last = e,
            Ok(answer) => return answer,
            Err(_) => last = EnrolFault::Unreachable { addr: *addr, why: "it does not answer".into() },
        }
    }
    Err(last)
}

async fn ask(joining: &Joining, addr: SocketAddr, rng: &mut Rng) -> Result<JoinAnswer, EnrolFault> {
    let unreachable = |why: String| EnrolFault::Unreachable { addr, why };
    let config = Config { credentials: Some(Credentials::joining(joining)), ..Config::default() };
    let (endpoint, mut events) = Endpoint::bind(config).map_err(|e| unreachable(e.to_string()))?;
    let conn = ConnId(1);
    endpoint.connect(conn, Transport::Tls, addr, None);
    while let Some(event) = events.recv().await {
        match event {
            Event::Connected { flow, .. } => {
                endpoint.write(conn, request(joining, addr, flow.local, rng).to_bytes());
            }
            Event::Frame { bytes, .. } => {
                let message = Message::parse_bytes(bytes).map_err(|_| EnrolFault::Answer { addr })?;
                if !message.is_response() || message.status() < 200 {
                    continue;
                }
                return match message.status() {
                    200 => JoinAnswer::decode(message.body()).map_err(|_| EnrolFault::Answer { addr }),
                    status => Err(EnrolFault::Refused { addr, status, reason: message.reason().to_owned() }),
                };
            }
            Event::ConnectFailed { why, .. } => return Err(unreachable(why.to_string())),
            Event::Closed { why, .. } => return Err(unreachable(why.to_string())),
            Event::Datagram { .. } | Event::Accepted { .. } => {}
        }
    }
    Err(unreachable("the link ended".into()))
}

fn request(joining: &Joining, addr: SocketAddr, local: SocketAddr, rng: &mut Rng) -> Message {
    let mut m = Message::request(Method::Register, &format!("sip:{addr};transport=tls"));
    m.push("Via", &format!("SIP/2.0/TLS {local};branch=z9hG4bK{}", rng.token(12)));
    m.push("Max-Forwards", "70");
    m.push("From", &format!("<sip:join@{addr}>;tag={}", rng.token(8)));
    m.push("To", &format!("<sip:join@{addr}>"));
    m.push("Call-ID", &rng.token(16));
    m.push("CSeq", "1 REGISTER");
    m.set_body(ENROLMENT_TYPE, joining.request().encode());
    m
}

const LIMIT: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{INVITE_LIFETIME, Identity, InviteCode, JoinRequest};
    use crate::io::transport::Listen;
    use crate::io::{seed, wall};

    /// An office whose enroller answers one link: with what it makes of each request.
    async fn office(rng: &mut Rng) -> (SocketAddr, Identity, tokio::sync::mpsc::Sender<Identity>) {
        let (identity, _) = Identity::found("acme", "ann", None, wall::now(), rng).unwrap();
        let config = Config {
            overlay: Some(Listen::Tls("127.0.0.1:0".parse().unwrap())),
            credentials: Some(Credentials::of(&identity)),
            ..Config::default()
        };
        let (endpoint, mut events) = Endpoint::bind(config).unwrap();
        let addr = endpoint.overlay_addr().unwrap();
        let (sender, mut books) = tokio::sync::mpsc::channel::<Identity>(1);
        let mut rng = rng.fork();
        tokio::spawn(async move {
            let mut office = books.recv().await.unwrap();
            while let Some(event) = events.recv().await {
                let Event::Frame { conn, bytes } = event else { continue };
                let message = Message::parse_bytes(bytes).unwrap();
                message.validate().unwrap();
                let request = JoinRequest::decode(message.body()).unwrap();
                let enroller = office.enroller.as_mut().unwrap();
                let reply = match enroller.redeem(&request, addr.ip(), wall::now(), &mut rng) {
                    Ok(answer) => {
                        let mut ok = Message::reply(&message, 200, "OK");
                        ok.set_body(ENROLMENT_TYPE, answer.encode());
                        ok
                    }
                    Err(_) => Message::reply(&message, 403, "Refused"),
                };
                endpoint.write(conn, reply.to_bytes());
            }
        });
        (addr, identity, sender)
    }

    #[tokio::test]
    async fn a_code_makes_a_member_once() {
        let mut rng = seed::rng().unwrap();
        let (addr, mut founder, book) = office(&mut rng).await;
        let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let enroller = founder.enroller.as_mut().unwrap();
        // The first address does not answer; the second does.
        let code = enroller.invite("bob", None, &[nobody, addr], INVITE_LIFETIME, wall::now(), &mut rng).unwrap();
        book.send(founder.clone()).await.unwrap();

        let typed = InviteCode::parse(&code.text()).unwrap();
        let joining = Joining::new(typed.clone(), "laptop", &mut rng).unwrap();
        let answer = enrol(&joining, &typed.addrs, &mut rng).await.unwrap();
        let bob = joining.finish(&answer, wall::now()).unwrap();
        assert_eq!(bob.aor(), "sip:bob@acme");
        founder.anchor.verify_chain(&bob.chain, wall::now()).unwrap();

        let thief = Joining::new(typed.clone(), "thief", &mut rng).unwrap();
        let e = enrol(&thief, &typed.addrs, &mut rng).await.unwrap_err();
        assert!(matches!(e, EnrolFault::Refused { status: 403, .. }), "{e}");
    }

    #[tokio::test]
    async fn a_code_of_another_office_is_not_shown_to_this_one() {
        let mut rng = seed::rng().unwrap();
        let (addr, founder, book) = office(&mut rng).await;
        book.send(founder).await.unwrap();
        let (mut other, _) = Identity::found("other", "eve", None, wall::now(), &mut rng).unwrap();
        let enroller = other.enroller.as_mut().unwrap();
        let code = enroller.invite("bob", None, &[addr], INVITE_LIFETIME, wall::now(), &mut rng).unwrap();
        let joining = Joining::new(code.clone(), "laptop", &mut rng).unwrap();
        let e = enrol(&joining, &code.addrs, &mut rng).await.unwrap_err();
        assert!(matches!(e, EnrolFault::Unreachable { .. }), "{e}");
        let e = enrol(&joining, &[], &mut rng).await.unwrap_err().to_string();
        assert!(e.contains("the code names no address"), "{e}");
    }
}
