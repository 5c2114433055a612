//! What a raw end says: requests and responses written out, and its side of a dialog.

use crate::world::{Place, Received, World};
use bytes::Bytes;
use chordial::core::ConnId;
use chordial::sip::auth::{self, Credentials};
use chordial::sip::msg::{HeaderName, Message, Method};
use std::net::SocketAddr;
use std::time::Duration;

/// A description of one PCMU stream.
pub fn sdp(addr: &str, direction: &str) -> String {
    sdp_with(addr, "0", direction)
}

pub fn sdp_with(addr: &str, formats: &str, direction: &str) -> String {
    let (ip, port) = addr.split_once(':').unwrap();
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP {formats}\r\na={direction}\r\n"
    )
}

/// Where a raw end's messages go.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    Udp(SocketAddr),
    Stream(ConnId),
}

/// One end of a raw dialog, or a request outside of one.
#[derive(Debug, Clone)]
pub struct Talk {
    pub raw: usize,
    pub way: Way,
    pub uri: String,
    pub local: String,
    pub remote: String,
    pub call_id: String,
    pub cseq: u32,
    pub routes: Vec<String>,
    pub contact: String,
    branches: u32,
}

impl Talk {
    /// `from` and `to` without tags and brackets.
    pub fn new(world: &World, raw: usize, way: Way, uri: &str, from: &str, to: &str) -> Talk {
        let addr = world.raws[raw].addr;
        let n = world.raws[raw].inbox.len();
        Talk {
            raw,
            way,
            uri: uri.into(),
            local: format!("<{from}>;tag=raw{raw}{n}"),
            remote: format!("<{to}>"),
            call_id: format!("{raw}-{n}-{}@raw", world.now.as_micros()),
            cseq: 0,
            routes: Vec::new(),
            contact: match way {
                Way::Udp(_) => format!("<sip:raw@{addr}>"),
                Way::Stream(_) => format!("<sip:raw@{addr};transport=tcp>"),
            },
            branches: 0,
        }
    }

    /// The next request, with the next sequence number (ACK: the last).
    pub fn request(&mut self, world: &World, method: Method) -> Message {
        self.cseq += u32::from(method != Method::Ack);
        self.branches += 1;
        let addr = world.raws[self.raw].addr;
        let transport = if matches!(self.way, Way::Udp(_)) { "UDP" } else { "TCP" };
        let mut message = Message::request(method.clone(), &self.uri);
        let ends: String =
            format!("{}{}{}", self.call_id, self.local, self.remote).replace(|c: char| !c.is_alphanumeric(), "");
        let branch = format!("z9hG4bK{ends}.{}", self.branches);
        message.push("Via", format_args!("SIP/2.0/{transport} {addr};branch={branch};rport"));
        for route in &self.routes {
            message.push("Route", route);
        }
        message.push("Max-Forwards", 70);
        message.push("From", &self.local);
        message.push("To", &self.remote);
        message.push("Call-ID", &self.call_id);
        message.push("CSeq", format_args!("{} {method}", self.cseq));
        if matches!(method, Method::Invite | Method::Register) {
            message.push("Contact", &self.contact);
        }
        message
    }

    pub fn invite(&mut self, world: &World, body: &str) -> Message {
        let mut invite = self.request(world, Method::Invite);
        if !body.is_empty() {
            invite.set_body("application/sdp", body.as_bytes().to_vec());
        }
        invite
    }

    pub fn send(&self, world: &mut World, message: &Message) {
        send(world, self.raw, self.way, message.to_bytes());
    }

    /// Sends a request and brings its final response.
    pub fn ask(&mut self, world: &mut World, message: &Message) -> Message {
        self.send(world, message);
        self.finally(world, message)
    }

    /// The final response to a request that was sent.
    pub fn finally(&self, world: &mut World, request: &Message) -> Message {
        let (raw, branch) = (self.raw, request.branch().unwrap().to_owned());
        let fits = |r: &Received| r.message.status() >= 200 && r.message.branch() == Some(&*branch);
        let what = format!("a final response to {}", request.method());
        world.until(Duration::from_secs(40), &what, |w| w.raws[raw].inbox.iter().any(fits));
        world.raws[raw].inbox.iter().find(|r| fits(r)).unwrap().message.clone()
    }

    /// Learns tag, target and route set from a response to our INVITE.
    pub fn learn(&mut self, response: &Message) {
        self.remote = response.header("To").unwrap().into();
        self.uri = response.contacts().unwrap()[0].uri.to_string();
        let routes = response.record_routes().unwrap();
        self.routes = routes.iter().rev().map(|r| format!("<{}>", r.uri)).collect();
    }

    /// Sends the ACK of a 2xx.
    pub fn ack(&mut self, world: &mut World, body: &str) {
        let mut ack = self.request(world, Method::Ack);
        if !body.is_empty() {
            ack.set_body("application/sdp", body.as_bytes().to_vec());
        }
        self.send(world, &ack);
    }

    /// Calls until answered, with ACK.
    pub fn establish(&mut self, world: &mut World, body: &str) -> Message {
        let invite = self.invite(world, body);
        let ok = self.ask(world, &invite);
        assert_eq!(ok.status(), 200, "{}", ok.reason());
        self.learn(&ok);
        self.ack(world, "");
        world.run(Duration::from_millis(50));
        ok
    }

    pub fn bye(&mut self, world: &mut World) -> u16 {
        let bye = self.request(world, Method::Bye);
        self.ask(world, &bye).status()
    }

    /// Our side of a dialog whose INVITE came to us, with this response of ours.
    pub fn callee(world: &World, raw: usize, way: Way, invite: &Message, ok: &Message) -> Talk {
        let mut talk = Talk::new(world, raw, way, &invite.contacts().unwrap()[0].uri.to_string(), "sip:x@y", "sip:x@y");
        talk.local = ok.header("To").unwrap().into();
        talk.remote = invite.header("From").unwrap().into();
        talk.call_id = invite.call_id().unwrap().into();
        talk.routes = invite.record_routes().unwrap().iter().map(|r| format!("<{}>", r.uri)).collect();
        talk
    }
}

pub fn send(world: &mut World, raw: usize, way: Way, bytes: Bytes) {
    match way {
        Way::Udp(to) => {
            let from = world.raws[raw].addr;
            world.datagram(from, to, bytes);
        }
        Way::Stream(conn) => world.write(Place::Raw(raw), conn, bytes),
    }
}

/// Answers `request` that a raw end received; Contact, tag and body as for a call.
pub fn respond(world: &mut World, raw: usize, request: &Received, status: u16, body: &str) -> Message {
    let mut response = Message::reply(&request.message, status, "Because");
    if request.message.to_tag().is_none() && status > 100 {
        response.set_to_tag(&format!("raw{raw}callee"));
    }
    for route in request.message.headers("Record-Route") {
        response.push("Record-Route", route);
    }
    let addr = world.raws[raw].addr;
    let tcp = if request.conn.is_some() { ";transport=tcp" } else { "" };
    response.push("Contact", format_args!("<sip:raw@{addr}{tcp}>"));
    if !body.is_empty() {
        response.set_body("application/sdp", body.as_bytes().to_vec());
    }
    send(world, raw, way_back(request), response.to_bytes());
    response
}

pub fn way_back(request: &Received) -> Way {
    match (request.conn, request.from) {
        (Some(conn), _) => Way::Stream(conn),
        (None, Some(from)) => Way::Udp(from),
        (None, None) => unreachable!("it came somehow"),
    }
}

impl World {
    /// Requests of a method that a raw end has received.
    pub fn requests(&self, raw: usize, method: &Method) -> Vec<Received> {
        let fits = |r: &&Received| r.message.is_request() && r.message.method() == method;
        self.raws[raw].inbox.iter().filter(fits).cloned().collect()
    }

    /// Runs until a raw end has received `count` requests of a method; the last of them.
    pub fn until_request(&mut self, raw: usize, method: Method, count: usize) -> Received {
        let what = format!("{method} number {count}");
        self.until(Duration::from_secs(40), &what, |w| w.requests(raw, &method).len() >= count);
        self.requests(raw, &method).pop().unwrap()
    }
}

/// Registers with a digest password; the final response.
pub fn register(world: &mut World, raw: usize, way: Way, aor: &str, password: &str, expires: u32) -> Message {
    let (user, host) = aor.trim_start_matches("sip:").split_once('@').unwrap();
    let mut talk = Talk::new(world, raw, way, &format!("sip:{host}"), aor, aor);
    let mut message = talk.request(world, Method::Register);
    message.push("Expires", expires);
    let challenge = talk.ask(world, &message);
    if challenge.status() != 401 {
        return challenge;
    }
    let mut message = talk.request(world, Method::Register);
    message.push("Expires", expires);
    authorize(&mut message, &challenge, user, password);
    talk.ask(world, &message)
}

/// Puts the answer to a challenge into a request.
pub fn authorize(message: &mut Message, challenge: &Message, user: &str, password: &str) {
    let (asked, answer) = match challenge.status() {
        401 => (HeaderName::WwwAuthenticate, HeaderName::Authorization),
        _ => (HeaderName::ProxyAuthenticate, HeaderName::ProxyAuthorization),
    };
    let chosen = auth::choose(challenge.headers(asked)).unwrap();
    let with = Credentials {
        user,
        password,
        method: message.method().as_str(),
        uri: message.request_uri(),
        body: message.body(),
        nc: 1,
        cnonce: "0a4f113b",
    };
    let value = auth::answer(&chosen, &with);
    message.push(answer, value);
}
