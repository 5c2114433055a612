//! The proxy on top of the transaction layer, driven by messages as they stand on the wire.

mod dialogs;
mod forks;
mod hostile;
mod requests;

use super::*;
use crate::core::{ConnId, Id, Transport};
use crate::pbx::Candidate;
use crate::sip::msg::Uri;
use crate::sip::tx::{Layer, Output as TxOutput};
use std::net::SocketAddr;
use std::time::Duration;

pub const CALLER: &str = "198.51.100.7:5060";
const HERE: &str = "192.0.2.1:5060";
const LINK: &str = "192.0.2.1:5061";

/// A node reduced to transactions and the proxy; what it sends lies in `sent`.
pub struct Node {
    pub layer: Layer,
    pub router: Router,
    pub now: Instant,
    pub sent: Vec<(Flow, Message)>,
    pub asked: Vec<(QueryId, String, Scope, bool)>,
    pub origin: Origin,
    /// Where transactions are not told what was sent.
    pub held: Option<Vec<BranchId>>,
}

pub fn flow(remote: &str) -> Flow {
    Flow::udp(HERE.parse().unwrap(), remote.parse().unwrap())
}

pub fn stream(remote: &str, conn: u64) -> Flow {
    Flow::stream(Transport::Tcp, HERE.parse().unwrap(), remote.parse().unwrap(), ConnId(conn))
}

pub fn peer(id: u64, remote: &str) -> (Target, Flow) {
    let addr = remote.parse().unwrap();
    let target = Target::Peer { uri: "sip:bob@office".into(), id: Id::from_u64(id), addr };
    (target, Flow::stream(Transport::Tls, LINK.parse().unwrap(), addr, ConnId(addr.port().into())))
}

pub fn uri(text: &str) -> Candidate {
    Target::Uri { uri: text.into() }.into()
}

pub fn with_q(text: &str, q: u16) -> Candidate {
    Candidate { q, ..uri(text) }
}

pub fn request(method: &str, target: &str, from: &str) -> Message {
    let mut m = Message::request(Method::from_bytes(method.as_bytes()).unwrap(), target);
    m.push("Via", format!("SIP/2.0/UDP {from};branch=z9hG4bK{method}1;rport"));
    m.push("Max-Forwards", 70);
    m.push("From", "<sip:caller@example.org>;tag=caller");
    m.push("To", "<sip:bob@office>");
    m.push("Call-ID", "call-1");
    m.push("CSeq", format!("1 {method}"));
    m.push("Contact", format!("<sip:caller@{from}>"));
    m
}

pub fn node() -> Node {
    let mut domain = Domain::new("office");
    domain.add_address(HERE.parse().unwrap());
    let here = HERE.parse().unwrap();
    let mut config = Config::new(domain, here, here, [9; 32]);
    config.max_contexts = 4;
    let mut router = Router::new(config, Rng::from_seed(1));
    let link = Link { address: LINK.parse().unwrap(), transport: Transport::Tls, id: Id::from_u64(1), kept: false };
    router.set_link(link);
    Node {
        layer: Layer::new(Rng::from_seed(2), crate::sip::tx::Config::default()),
        router,
        now: Instant::from_millis(1000),
        sent: Vec::new(),
        asked: Vec::new(),
        origin: Origin::Outside,
        held: None,
    }
}

impl Node {
    /// Takes a message from the wire.
    pub fn take(&mut self, message: &Message, from: Flow) {
        let message = Message::parse_bytes(message.to_bytes()).unwrap();
        message.validate().unwrap();
        self.layer.receive(self.now, message, from);
        self.run();
    }

    /// Takes the request and answers its question at once.
    pub fn call(&mut self, message: &Message, from: Flow, targets: Vec<Candidate>) {
        self.take(message, from);
        self.found(Resolution::Targets(targets));
    }

    pub fn found(&mut self, resolution: Resolution) {
        let (query, ..) = self.asked.pop().expect("nothing was asked");
        self.router.resolved(self.now, query, resolution);
        self.run();
    }

    /// Answers the newest request of this kind that was sent to `remote`.
    pub fn answer(&mut self, remote: &str, method: &str, status: u16) -> Message {
        let (flow, request) = self.to(remote, method);
        let mut response = Message::reply(&request, status, "Some Reason");
        response.set_to_tag(&format!("tag-{remote}"));
        request.headers("Record-Route").for_each(|value| response.push("Record-Route", value));
        response.push("Contact", format!("<sip:bob@{remote}>"));
        self.take(&response, flow);
        response
    }

    /// The newest request of this kind that was sent to `remote`.
    pub fn to(&self, remote: &str, method: &str) -> (Flow, Message) {
        let remote: SocketAddr = remote.parse().unwrap();
        let found = self
            .sent
            .iter()
            .rev()
            .find(|(flow, m)| flow.remote == remote && m.is_request() && m.method().as_str() == method);
        found.unwrap_or_else(|| panic!("no {method} to {remote} in {:?}", self.sent)).clone()
    }

    /// Methods or statuses of all that was sent to `remote`.
    pub fn heard(&self, remote: &str) -> Vec<String> {
        let remote: SocketAddr = remote.parse().unwrap();
        let to = self.sent.iter().filter(|(flow, _)| flow.remote == remote);
        to.map(|(_, m)| if m.is_request() { m.method().to_string() } else { m.status().to_string() }).collect()
    }

    /// The same with retransmissions taken for one.
    pub fn heard_once(&self, remote: &str) -> Vec<String> {
        let mut heard = self.heard(remote);
        heard.dedup();
        heard
    }

    /// The newest response to the caller.
    pub fn response(&self) -> &Message {
        let found = self.sent.iter().rev().find(|(flow, m)| m.is_response() && flow.remote == CALLER.parse().unwrap());
        &found.expect("no response").1
    }

    /// Lets time pass, every timer in its turn.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = [self.layer.poll_timeout(), self.router.poll_timeout()].into_iter().flatten().min();
            match next.filter(|at| *at <= end) {
                Some(at) => self.now = self.now.max(at),
                None => break,
            }
            self.layer.handle_timeout(self.now);
            self.run();
            self.router.handle_timeout(self.now);
            self.run();
        }
        self.now = end;
    }

    fn flow_of(target: &Target) -> Flow {
        match target {
            Target::Flow { flow, .. } => *flow,
            Target::Peer { addr, .. } => peer(0, &addr.to_string()).1,
            Target::Path { edge, .. } => peer(0, &edge.addr.to_string()).1,
            Target::Ua { .. } => flow("127.0.0.1:1"),
            Target::Uri { uri } => match Uri::parse(uri).ok().as_ref().and_then(crate::pbx::target::direct) {
                Some((Transport::Udp, addr)) => flow(&addr.to_string()),
                _ => flow("127.0.0.1:9"),
            },
        }
    }

    fn with_via(mut message: Message, flow: &Flow, branch: &str) -> Message {
        let (transport, at) = (flow.transport.via_name(), flow.local);
        message.push_front("Via", format!("SIP/2.0/{transport} {at};branch={branch};rport"));
        message
    }

    fn run(&mut self) {
        loop {
            if let Some(output) = self.layer.poll_output() {
                let (now, origin) = (self.now, self.origin.clone());
                match output {
                    TxOutput::Send { flow, bytes } => self.sent.push((flow, Message::parse_bytes(bytes).unwrap())),
                    TxOutput::Request { tx, message, flow, .. } => {
                        self.router.on_request(now, tx, message, &flow, &origin);
                    }
                    TxOutput::Cancel { invite, .. } => self.router.on_cancel(now, invite),
                    TxOutput::Response { tx, message } => self.router.on_response(now, tx, message),
                    TxOutput::Ack { message, flow } => self.router.on_ack(now, message, &flow),
                    TxOutput::Timeout { tx } => self.router.on_timeout(now, tx),
                    TxOutput::TransportError { tx } => self.router.on_transport_error(now, tx),
                    _ => {}
                }
            } else if let Some(output) = self.router.poll_output() {
                match output {
                    Output::Resolve { query, aor, scope, in_dialog, .. } => {
                        self.asked.push((query, aor, scope, in_dialog));
                    }
                    Output::Forward { branch, message, target, via_branch } => {
                        let flow = Node::flow_of(&target);
                        let message = Node::with_via(message, &flow, &via_branch);
                        match &mut self.held {
                            Some(held) => held.push(branch),
                            None => {
                                let client = self.layer.send_request(self.now, message, flow);
                                self.router.forwarded(branch, client);
                            }
                        }
                    }
                    Output::ForwardStateless { message, target, via_branch } => {
                        let flow = Node::flow_of(&target);
                        self.layer.send_stateless(&Node::with_via(message, &flow, &via_branch), flow);
                    }
                    Output::Respond { tx, message } => {
                        self.layer.respond(self.now, tx, message);
                    }
                    Output::Cancel { tx, .. } => {
                        self.layer.cancel(self.now, tx);
                    }
                }
            } else {
                return;
            }
        }
    }
}
