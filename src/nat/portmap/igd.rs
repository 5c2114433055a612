//! UPnP Internet Gateway Device, versions 1 and 2: the search (SSDP, UPnP Device Architecture 1.1 section 1.3), the description, and the
//! SOAP actions of WANIPConnection and WANPPPConnection that map a TCP port.
//!
//! What a router says is taken from the address that said it alone: a description lies with whoever answered the search, the control
//! URL on the same server.

use super::http::{self, Url};
use super::xml;
use crate::nat::{Scope, scope};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where the search goes.
pub const SSDP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), 1900);
/// What is searched for.
const DEVICES: [&str; 2] =
    ["urn:schemas-upnp-org:device:InternetGatewayDevice:2", "urn:schemas-upnp-org:device:InternetGatewayDevice:1"];
/// The services that map ports, the best first.
const SERVICES: [&str; 4] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:2",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];
/// `ConflictInMappingEntry`: the port belongs to another machine.
pub const CONFLICT: u16 = 718;
/// `OnlyPermanentLeasesSupported`.
pub const PERMANENT_ONLY: u16 = 725;

/// The datagrams of one search.
pub fn searches() -> impl Iterator<Item = Vec<u8>> {
    DEVICES.iter().map(|device| {
        let lines = ["M-SEARCH * HTTP/1.1", "HOST: 239.255.255.250:1900", "MAN: \"ssdp:discover\"", "MX: 1"];
        format!("{}\r\nST: {device}\r\n\r\n", lines.join("\r\n")).into_bytes()
    })
}

/// The description's place, out of the answer to a search: with who answered, on a network of this kind.
pub fn location(bytes: &[u8], from: SocketAddr) -> Option<Url> {
    let text = std::str::from_utf8(bytes).ok().filter(|t| t.len() <= 4096)?;
    let mut lines = text.split("\r\n");
    if http::status(lines.next()?)? != 200 {
        return None;
    }
    let place =
        lines.filter_map(|l| l.split_once(':')).find(|(name, _)| name.trim().eq_ignore_ascii_case("location"))?;
    let near = matches!(scope(from.ip()), Scope::Private | Scope::Carrier | Scope::Link);
    Url::parse(place.1).filter(|url| near && url.addr.ip() == from.ip())
}

/// A service that maps ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// One of the four.
    kind: &'static str,
    control: Url,
}

/// What a SOAP action came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was done; the text of the answer.
    Done(String),
    /// `errorCode` of the fault; 0 where there is none.
    Fault(u16),
}

/// The best service of a description.
pub fn service(description: &str, at: &Url) -> Option<Service> {
    let mut base = None;
    let (mut kind, mut found): (Option<&'static str>, Vec<(&'static str, String)>) = (None, Vec::new());
    xml::texts(description, |path, text| match path {
        [.., "URLBase"] => base = Url::parse(&text).filter(|url| url.addr == at.addr),
        [.., "service", "serviceType"] => kind = SERVICES.iter().copied().find(|s| *s == text),
        [.., "service", "controlURL"] => found.extend(kind.take().map(|kind| (kind, text))),
        _ => {}
    });
    let rank = |kind: &str| SERVICES.iter().position(|s| *s == kind);
    let (kind, control) = found.into_iter().min_by_key(|(kind, _)| rank(kind))?;
    Some(Service { kind, control: base.as_ref().unwrap_or(at).join(&control)? })
}

impl Service {
    /// Where its actions are asked for.
    pub fn addr(&self) -> SocketAddr {
        self.control.addr
    }

    /// True where the router may be left to choose the port (WANIPConnection:2, `AddAnyPortMapping`).
    pub fn chooses(&self) -> bool {
        self.kind == SERVICES[0]
    }

    /// Asks for the address outside.
    pub fn external_address(&self) -> Vec<u8> {
        self.action("GetExternalIPAddress", &[])
    }

    /// Asks for a mapping; `any` lets the router choose another port. `lease` is seconds, 0 for ever.
    pub fn add(&self, internal: SocketAddr, external: u16, lease: u32, any: bool, label: &str) -> Vec<u8> {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", external.to_string()),
            ("NewProtocol", "TCP".into()),
            ("NewInternalPort", internal.port().to_string()),
            ("NewInternalClient", internal.ip().to_string()),
            ("NewEnabled", "1".into()),
            ("NewPortMappingDescription", label.into()),
            ("NewLeaseDuration", lease.to_string()),
        ];
        self.action(if any { "AddAnyPortMapping" } else { "AddPortMapping" }, &arguments)
    }

    /// Asks that a mapping be removed.
    pub fn delete(&self, external: u16) -> Vec<u8> {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", external.to_string()),
            ("NewProtocol", "TCP".into()),
        ];
        self.action("DeletePortMapping", &arguments)
    }

    fn action(&self, name: &str, arguments: &[(&str, String)]) -> Vec<u8> {
        let kind = self.kind;
        let inner: String = arguments.iter().map(|(n, v)| format!("<{n}>{}</{n}>", xml::escape(v))).collect();
        let body = format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
             <u:{name} xmlns:u=\"{kind}\">{inner}</u:{name}></s:Body></s:Envelope>\r\n"
        );
        let Url { addr, path } = &self.control;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {addr}\r\nContent-Type: text/xml; charset=\"utf-8\"\r\n\
             SOAPAction: \"{kind}#{name}\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        [head, body].concat().into_bytes()
    }
}

/// What an HTTP answer to an action says.
pub fn outcome(response: &http::Response) -> Outcome {
    let text = String::from_utf8_lossy(&response.body).into_owned();
    match response.status {
        200 => Outcome::Done(text),
        _ => Outcome::Fault(xml::first(&text, "errorCode").and_then(|c| c.parse().ok()).unwrap_or(0)),
    }
}

/// The port that the router chose for `AddAnyPortMapping`.
pub fn reserved_port(answer: &str) -> Option<u16> {
    xml::first(answer, "NewReservedPort")?.parse().ok().filter(|port| *port != 0)
}

/// The answer to [`Service::external_address`].
pub fn external_address(answer: &str) -> Option<Ipv4Addr> {
    xml::first(answer, "NewExternalIPAddress")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::portmap::tests::{DESCRIPTION, mutated};

    fn at() -> Url {
        Url::parse("http://192.168.1.1:5000/rootDesc.xml").unwrap()
    }

    #[test]
    fn a_location_lies_with_who_answers() {
        let answer = |place: &str| format!("HTTP/1.1 200 OK\r\nST: x\r\nLocation:{place}\r\n\r\n").into_bytes();
        let from = |text: &str| text.parse::<SocketAddr>().unwrap();
        let good = answer(" http://192.168.1.1:5000/rootDesc.xml");
        assert_eq!(location(&good, from("192.168.1.1:1900")), Some(at()));
        assert_eq!(location(&good, from("192.168.1.66:1900")), None, "another machine's word");
        assert_eq!(location(&answer("http://9.9.9.9/x"), from("9.9.9.9:1900")), None, "from outside");
        assert_eq!(
            location(b"NOTIFY * HTTP/1.1\r\nLocation: http://192.168.1.1/\r\n\r\n", from("192.168.1.1:1900")),
            None
        );
        mutated(&good, |bytes| drop(location(bytes, from("192.168.1.1:1900"))));
        let search = String::from_utf8(searches().next().unwrap()).unwrap();
        assert!(search.starts_with("M-SEARCH * HTTP/1.1\r\n") && search.ends_with("Device:2\r\n\r\n"), "{search}");
    }

    #[test]
    fn the_best_service_of_a_description_is_taken() {
        let service = service(DESCRIPTION, &at()).unwrap();
        assert_eq!((service.kind, service.control.path.as_str()), (SERVICES[0], "/ctl/IPConn"));
        assert!(service.chooses());
        let older = DESCRIPTION.replace("WANIPConnection:2", "Other:1");
        let older = super::service(&older, &at()).unwrap();
        assert_eq!((older.kind, older.chooses()), (SERVICES[3], false));
        let elsewhere = DESCRIPTION.replace("<controlURL>/ctl/IPConn", "<controlURL>http://10.9.9.9/ctl");
        assert_eq!(super::service(&elsewhere, &at()), None, "control on another server");
        mutated(DESCRIPTION.as_bytes(), |bytes| drop(super::service(&String::from_utf8_lossy(bytes), &at())));
    }

    #[test]
    fn actions_and_their_answers() {
        let service = service(DESCRIPTION, &at()).unwrap();
        let internal = "192.168.1.10:5061".parse().unwrap();
        let text = String::from_utf8(service.add(internal, 5062, 900, false, "a<b")).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert!(
            head.contains("SOAPAction: \"urn:schemas-upnp-org:service:WANIPConnection:2#AddPortMapping\""),
            "{head}"
        );
        let value = |name| xml::first(body, name);
        assert_eq!(value("NewInternalClient").as_deref(), Some("192.168.1.10"));
        assert_eq!(value("NewExternalPort").as_deref(), Some("5062"));
        assert_eq!(value("NewPortMappingDescription").as_deref(), Some("a<b"));
        let fault = "<s:Envelope><s:Body><s:Fault><detail><UPnPError><errorCode>718</errorCode></UPnPError></detail></s:Fault>\
                     </s:Body></s:Envelope>";
        let answer = |status, body: &str| outcome(&http::Response { status, body: body.into() });
        assert_eq!(answer(500, fault), Outcome::Fault(CONFLICT));
        assert_eq!(answer(404, "not here"), Outcome::Fault(0));
        let Outcome::Done(text) = answer(200, "<a><u:NewReservedPort>6000</u:NewReservedPort></a>") else { panic!() };
        assert_eq!(reserved_port(&text), Some(6000));
        assert_eq!(
            external_address("<x><NewExternalIPAddress>5.6.7.8</NewExternalIPAddress></x>"),
            Some([5, 6, 7, 8].into())
        );
        assert_eq!(external_address("<x><NewExternalIPAddress></NewExternalIPAddress></x>"), None);
    }
}
