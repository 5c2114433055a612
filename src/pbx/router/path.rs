//! The way that a request brings along (RFC 3261 section 16.4), and our own entry in it (16.6 step 4).

use super::pass::{Pass, Passes};
use crate::core::{Flow, Id, Transport};
use crate::pbx::Domain;
use crate::sip::msg::{HeaderName, Message, NameAddr, Uri};
use std::net::SocketAddr;

/// What stands in a request about where it goes, after our own part of it has been taken out.
pub(super) struct Path {
    /// The Request-URI.
    pub uri: Uri,
    /// A pass of ours proves the dialog.
    pub proven: bool,
    /// The flow that the pass wants it on.
    pub flow: Option<Flow>,
    /// The flow of a phone that was registered through here.
    pub way: Option<Flow>,
    /// The next Route that is left.
    pub next: Option<Uri>,
}

/// A request that brings a way that cannot be read.
pub(super) struct Unreadable(pub &'static str);

/// Takes our own entries out of a request's way: of a strict router before us (which puts our URI into the
/// Request-URI) and of a loose one (which leaves it on top of Route). Two entries of ours are the two sides of one
/// passage.
pub(super) fn enter(
    request: &mut Message,
    arrived: &Flow,
    domain: &Domain,
    passes: &Passes,
) -> Result<Path, Unreadable> {
    let mut uri = Uri::parse(request.request_uri()).map_err(|_| Unreadable("Malformed Request-URI"))?;
    let in_dialog = request.to_tag().is_some();
    let call_id = request.call_id().unwrap_or_default().to_owned();
    let mut passed: Vec<Option<Pass>> = Vec::new();
    if request.has(HeaderName::Route) && domain.covers(&uri) {
        let pass = pass_in(&uri, &call_id, passes);
        if pass.is_some() || uri.params.has("lr") {
            let mut routes: Vec<String> = request.values(HeaderName::Route).map(str::to_owned).collect();
            if let Some(last) = routes.pop() {
                let last = NameAddr::parse(&last).map_err(|_| Unreadable("Malformed Route header field"))?;
                request.set_request_uri(&last.uri.to_string());
                uri = last.uri;
                request.remove(HeaderName::Route);
                if !routes.is_empty() {
                    request.push_front(HeaderName::Route, routes.join(", "));
                }
                passed.push(pass);
            }
        }
    }
    let mut way = None;
    let next = loop {
        let Some(value) = request.values(HeaderName::Route).next() else { break None };
        let route = NameAddr::parse(value).map_err(|_| Unreadable("Malformed Route header field"))?;
        if !domain.covers(&route.uri) {
            break Some(route.uri);
        }
        if passed.len() >= OURS {
            return Err(Unreadable("Too Many Entries Of Ours In Route"));
        }
        way = way.or(way_in(&route.uri, passes));
        passed.push(pass_in(&route.uri, &call_id, passes));
        request.remove_first_value(HeaderName::Route);
    };
    let proven = in_dialog && passed.first().is_some_and(Option::is_some);
    let flow = match passed.as_slice() {
        [Some(only)] => only.flow.filter(|flow| !same_flow(flow, arrived)),
        [Some(_), .., Some(last)] => last.flow,
        _ => None,
    };
    Ok(Path { uri, proven, flow: flow.filter(|_| proven), way, next })
}

/// Whether a request of a dialog brings a pass of ours in its first entry.
pub(super) fn proves_dialog(request: &Message, domain: &Domain, passes: &Passes) -> bool {
    let Some(call_id) = request.call_id().filter(|_| request.to_tag().is_some()) else { return false };
    let ours = |uri: &Uri| domain.covers(uri) && pass_in(uri, call_id, passes).is_some();
    let Some(first) = request.values(HeaderName::Route).next() else { return false };
    NameAddr::parse(first).is_ok_and(|route| ours(&route.uri))
        || Uri::parse(request.request_uri()).is_ok_and(|uri| ours(&uri))
}

/// Our own entry on top of a request's Route.
fn top(request: &Message, domain: &Domain) -> Option<Uri> {
    let route = NameAddr::parse(request.values(HeaderName::Route).next()?).ok()?;
    domain.covers(&route.uri).then_some(route.uri)
}

/// Whether a request comes by a way that was written here for a phone.
pub(super) fn is_by_way(request: &Message, domain: &Domain, passes: &Passes) -> bool {
    top(request, domain).is_some_and(|uri| way_in(&uri, passes).is_some())
}

/// Whether a peer sends a phone's request on to us, who hold its account.
pub(super) fn is_from_edge(request: &Message, domain: &Domain) -> bool {
    top(request, domain).is_some_and(|uri| uri.params.has(EDGE))
}

/// Sends a phone's request on to the peer behind `uri`, which holds its account.
pub(super) fn send_from_edge(request: &mut Message, uri: &str) {
    request.push_front(HeaderName::Route, format_args!("<{uri};lr;{EDGE}>"));
}

/// Makes a request with a strict router next fit for it (16.6 step 6): its URI goes into the Request-URI, the
/// Request-URI to the end of Route.
pub(super) fn adapt_to_strict(request: &mut Message, next: &Uri) {
    if next.params.has("lr") {
        return;
    }
    let last = format!("<{}>", request.request_uri());
    request.remove_first_value(HeaderName::Route);
    request.push(HeaderName::Route, last);
    request.set_request_uri(&next.to_string());
}

/// Where one side of a passage meets us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Side {
    /// Address and parameters of our URI on this side.
    pub place: String,
    /// The flow, where only it leads to the other end.
    pub flow: Option<Flow>,
}

impl Side {
    /// A side in clear.
    pub fn clear(transport: Transport, address: SocketAddr, flow: Option<Flow>) -> Side {
        let place = match transport {
            Transport::Udp => address.to_string(),
            other => format!("{address};transport={other}"),
        };
        Side { place, flow }
    }

    /// The side of the peers' links.
    pub fn link(address: SocketAddr, transport: Transport, id: &Id, kept: bool) -> Side {
        let ob = if kept { ";ob" } else { "" };
        Side { place: format!("{address};transport={transport};peer-ID={id}{ob}"), flow: None }
    }
}

/// Writes our Record-Route: one entry where both sides meet us at the same place and one entry can tell them
/// apart, else one for each (RFC 5658), the callee's side on top. The node's own user agent is no side.
pub(super) fn record(request: &mut Message, caller: Option<&Side>, callee: Option<&Side>, passes: &Passes) {
    let call_id = request.call_id().unwrap_or_default().to_owned();
    let mut put = |place: &str, flow: Option<&Flow>| {
        let pass = passes.write(&call_id, flow);
        request.push_front(HeaderName::RecordRoute, format_args!("<sip:{pass}@{place};lr>"));
    };
    match (caller, callee) {
        (Some(a), Some(b)) if a.place == b.place && (a.flow.is_none() || b.flow.is_none()) => {
            put(&a.place, a.flow.as_ref().or(b.flow.as_ref()));
        }
        (caller, callee) => {
            for side in [caller, callee].into_iter().flatten() {
                put(&side.place, side.flow.as_ref());
            }
        }
    }
}

fn pass_in(uri: &Uri, call_id: &str, passes: &Passes) -> Option<Pass> {
    passes.read(call_id, uri.user.as_deref()?)
}

fn way_in(uri: &Uri, passes: &Passes) -> Option<Flow> {
    passes.read_way(uri.user.as_deref()?)
}

fn same_flow(a: &Flow, b: &Flow) -> bool {
    a.transport == b.transport
        && match (a.conn, b.conn) {
            (None, None) => a.remote == b.remote,
            (a, b) => a == b,
        }
}

/// The parameter that tells a phone's request, sent on by its edge, from the edge's own.
const EDGE: &str = "edge";
/// Entries of ours that one Route may hold: two for each time that a dialog spirals through here.
const OURS: usize = 8;
