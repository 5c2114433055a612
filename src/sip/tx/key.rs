//! What a message is matched by.

use crate::core::Flow;
use crate::sip::msg::{MAGIC_COOKIE, Message, Method, Via};
use std::fmt::Write;
use std::net::SocketAddr;

/// RFC 3261 section 17.1.3: the branch, and the method because CANCEL shares it.
pub(super) fn client(out: &mut String, branch: &str, method: &Method) {
    out.clear();
    out.push_str(branch);
    out.push(' ');
    out.push_str(method.as_str());
}

/// RFC 3261 section 17.2.3. `method` is that of the transaction looked for: INVITE for an ACK or a CANCEL.
pub(super) fn server(out: &mut String, message: &Message, via: &Via, method: &Method) {
    out.clear();
    let branch = via.branch().unwrap_or("");
    out.push_str(branch);
    out.push(' ');
    out.push_str(&via.host);
    // Writing to a String cannot fail.
    let _ = write!(out, ":{} {}", via.port.unwrap_or(0), method.as_str());
    let has_cookie = branch.get(..MAGIC_COOKIE.len()).is_some_and(|c| c.eq_ignore_ascii_case(MAGIC_COOKIE));
    if !has_cookie {
        // An RFC 2543 peer. The To tag is left out: an ACK carries that of our response, the INVITE its own.
        let number = message.cseq().map_or(0, |c| c.number);
        let (from, call) = (message.from_tag().unwrap_or(""), message.call_id().unwrap_or(""));
        let _ = write!(out, " {from} {call} {number} {}", message.request_uri());
    }
}

/// RFC 3261 section 8.2.2.2: what a request keeps when it reaches us on several paths. None inside a dialog.
pub(super) fn merge(out: &mut String, message: &Message) -> bool {
    if message.to_tag().is_some() {
        return false;
    }
    out.clear();
    let number = message.cseq().map_or(0, |c| c.number);
    let (from, call) = (message.from_tag().unwrap_or(""), message.call_id().unwrap_or(""));
    let _ = write!(out, "{from} {call} {number} {}", message.method().as_str());
    true
}

/// Writes into the top Via where the request really came from (RFC 3261 section 18.2.1, RFC 3581 section 4).
pub(super) fn stamp(message: &mut Message, via: &mut Via, flow: &Flow) {
    let wants_port = via.rport().is_some();
    let honest = via.ip() == Some(flow.remote.ip()) && via.params.get("received").is_none();
    if honest && !wants_port {
        return;
    }
    via.set_received(flow.remote.ip());
    if wants_port {
        via.set_rport(flow.remote.port());
    }
    message.replace_first_value("Via", &*via);
}

/// Where the responses to a request with this top Via go (RFC 3261 section 18.2.2): back on a stream, and over UDP
/// to the source address, at the port of sent-by unless `rport` asks for the source port.
pub(super) fn response_flow(via: &Via, flow: &Flow) -> Flow {
    if flow.transport.is_reliable() || via.rport().is_some() {
        return *flow;
    }
    Flow { remote: SocketAddr::new(flow.remote.ip(), via.port.unwrap_or(5060)), ..*flow }
}
