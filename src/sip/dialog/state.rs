//! The state of one dialog (RFC 3261 section 12).

use super::Refusal;
use crate::core::Rng;
use crate::sip::msg::{HeaderName, Message, Method, NameAddr, Scheme, Uri};
use std::time::Duration;

/// What a dialog is known by, from this end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DialogId {
    /// Call-ID.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
    /// The other end's tag; empty for an RFC 2543 peer.
    pub remote_tag: String,
}

/// Where a dialog stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Made by a provisional response.
    Early,
    /// Made or confirmed by a 2xx.
    Confirmed,
}

/// Whether a dialog outlives a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It goes on.
    Alive,
    /// It is over: 481 or 408, the answer to a BYE, or a refused first INVITE.
    Gone,
}

/// Why no dialog can be made of a request and its response; the other end's fault (400 where it sent the request).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DialogError {
    /// No Call-ID, CSeq, From or To, or a malformed one.
    #[error("no Call-ID, CSeq, From or To")]
    Header,
    /// The tag of the end that has to give one is absent.
    #[error("no tag")]
    Tag,
    /// No usable Contact in a request.
    #[error("no usable Contact")]
    Contact,
    /// A malformed Record-Route.
    #[error("malformed Record-Route")]
    RecordRoute,
}

/// One dialog, from this end.
#[derive(Clone, Debug)]
pub struct Dialog {
    id: DialogId,
    state: State,
    /// Our From, with tag.
    local: String,
    /// Our To, with tag.
    remote: String,
    local_seq: u32,
    remote_seq: Option<u32>,
    routes: Vec<NameAddr>,
    target: Uri,
    contact: Option<String>,
    secure: bool,
    /// We made the Call-ID.
    caller: bool,
    /// An INVITE of ours has no final response yet.
    ours_pending: bool,
    /// An INVITE of theirs has no final response yet.
    theirs_pending: bool,
    /// The target that their pending INVITE brings if it is accepted.
    next_target: Option<Uri>,
}

impl DialogId {
    /// The dialog that a received message belongs to, seen from here; none without a Call-ID or our tag.
    pub fn of_received(message: &Message) -> Option<DialogId> {
        let (local, remote) = match message.is_request() {
            true => (message.to_tag(), message.from_tag()),
            false => (message.from_tag(), message.to_tag()),
        };
        Some(DialogId {
            call_id: message.call_id()?.into(),
            local_tag: local?.into(),
            remote_tag: remote.unwrap_or("").into(),
        })
    }
}

impl Dialog {
    /// At the caller: from our request and the response (101-199 or 2xx with a tag) that makes the dialog.
    pub fn from_uac(request: &Message, response: &Message) -> Result<Dialog, DialogError> {
        let id = DialogId::of_received(response).ok_or(DialogError::Header)?;
        if id.remote_tag.is_empty() {
            return Err(DialogError::Tag);
        }
        let confirmed = response.status() >= 200;
        let mut dialog = Dialog {
            id,
            state: if confirmed { State::Confirmed } else { State::Early },
            local: text(request, HeaderName::From)?,
            remote: text(response, HeaderName::To)?,
            local_seq: request.cseq().map_err(|_| DialogError::Header)?.number,
            remote_seq: None,
            routes: Vec::new(),
            // Until a Contact says better; RFC 2543 peers may never say.
            target: Uri::parse(request.request_uri()).map_err(|_| DialogError::Header)?,
            contact: request.header(HeaderName::Contact).map(String::from),
            secure: request.request_uri().get(..5).is_some_and(|s| s.eq_ignore_ascii_case("sips:")),
            caller: true,
            ours_pending: !confirmed,
            theirs_pending: false,
            next_target: None,
        };
        dialog.learn(response)?;
        Ok(dialog)
    }

    /// At the callee: from the request and our response (101-199 or 2xx) to it, which has our tag, Contact and the
    /// request's Record-Route ([`copy_record_route`](Dialog::copy_record_route)).
    pub fn from_uas(request: &Message, response: &Message) -> Result<Dialog, DialogError> {
        let confirmed = response.status() >= 200;
        let contact = request.contacts().ok().and_then(|c| c.into_iter().next()).ok_or(DialogError::Contact)?;
        Ok(Dialog {
            id: DialogId {
                call_id: request.call_id().ok_or(DialogError::Header)?.into(),
                local_tag: response.to_tag().ok_or(DialogError::Tag)?.into(),
                remote_tag: request.from_tag().unwrap_or("").into(),
            },
            state: if confirmed { State::Confirmed } else { State::Early },
            local: text(response, HeaderName::To)?,
            remote: text(request, HeaderName::From)?,
            local_seq: 0,
            remote_seq: Some(request.cseq().map_err(|_| DialogError::Header)?.number),
            routes: request.record_routes().map_err(|_| DialogError::RecordRoute)?,
            target: contact.uri,
            contact: response.header(HeaderName::Contact).map(String::from),
            secure: request.request_uri().get(..5).is_some_and(|s| s.eq_ignore_ascii_case("sips:")),
            caller: false,
            ours_pending: false,
            theirs_pending: !confirmed && *request.method() == Method::Invite,
            next_target: None,
        })
    }

    /// Copies the Record-Route fields of a request into the response that makes a dialog (RFC 3261 section 12.1.1).
    pub fn copy_record_route(request: &Message, response: &mut Message) {
        for route in request.headers(HeaderName::RecordRoute) {
            response.push(HeaderName::RecordRoute, route);
        }
    }

    /// The next request of ours (RFC 3261 section 12.2.1.1): complete but for Via, body, and credentials. An INVITE
    /// counts as pending from now on; see [`may_invite`](Dialog::may_invite). ACK and CANCEL are made elsewhere
    /// ([`ack`](Dialog::ack), the transaction layer).
    pub fn request(&mut self, method: Method) -> Message {
        self.local_seq = self.local_seq.wrapping_add(1) & 0x7fff_ffff;
        self.ours_pending |= method == Method::Invite;
        let mut message = self.skeleton(method.clone(), self.local_seq);
        let refreshes = [Method::Invite, Method::Update, Method::Subscribe, Method::Refer, Method::Notify];
        if refreshes.contains(&method)
            && let Some(contact) = &self.contact
        {
            message.push(HeaderName::Contact, contact);
        }
        message
    }

    /// Gives a request of ours that was challenged the next number, which it returns.
    pub fn renumber(&mut self, message: &mut Message) -> u32 {
        self.local_seq = self.local_seq.wrapping_add(1) & 0x7fff_ffff;
        let method = message.method().clone();
        message.set(HeaderName::CSeq, format_args!("{} {method}", self.local_seq));
        self.local_seq
    }

    /// The ACK for a 2xx to `invite`, a request of ours: the same sequence number and credentials
    /// (RFC 3261 section 13.2.2.4). Complete but for Via and, after a late offer, the body.
    pub fn ack(&self, invite: &Message) -> Message {
        let number = invite.cseq().map_or(self.local_seq, |c| c.number);
        let mut message = self.skeleton(Method::Ack, number);
        for name in [HeaderName::Authorization, HeaderName::ProxyAuthorization] {
            for value in invite.headers(name) {
                message.push(name, value);
            }
        }
        message
    }

    /// Takes a request within this dialog: checks its sequence number and, of an INVITE, that none is pending; a new
    /// target counts at once, that of an INVITE when it is accepted. The refusal is answered, and the dialog goes on.
    pub fn receive(&mut self, request: &Message) -> Result<(), Refusal> {
        let method = request.method();
        if matches!(method, Method::Ack | Method::Cancel) {
            return Ok(());
        }
        let number = request.cseq().map_err(|_| Refusal::Malformed)?.number;
        if self.remote_seq.is_some_and(|last| number <= last) {
            return Err(Refusal::OutOfOrder);
        }
        let invite = *method == Method::Invite;
        if invite && self.theirs_pending {
            return Err(Refusal::InProgress);
        }
        // The number is used up even by a request that is refused from here on.
        self.remote_seq = Some(number);
        if invite && self.ours_pending {
            return Err(Refusal::Glare);
        }
        let contact = request.contacts().map_err(|_| Refusal::Malformed)?.into_iter().next().map(|c| c.uri);
        match method {
            Method::Invite => {
                self.theirs_pending = true;
                self.next_target = contact;
            }
            Method::Update | Method::Subscribe | Method::Refer | Method::Notify => {
                self.target = contact.unwrap_or_else(|| self.target.clone());
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes that we gave their pending INVITE this final status.
    pub fn answered(&mut self, status: u16) {
        if status < 200 {
            return;
        }
        self.theirs_pending = false;
        let target = self.next_target.take();
        if status < 300 {
            self.state = State::Confirmed;
            self.target = target.unwrap_or_else(|| self.target.clone());
        }
    }

    /// Takes a response to a request of ours within this dialog, or to the INVITE that made it.
    pub fn receive_response(&mut self, response: &Message) -> Fate {
        let (status, method) = (response.status(), response.method());
        if status < 200 {
            return Fate::Alive;
        }
        let first = self.state == State::Early && *method == Method::Invite;
        if *method == Method::Invite {
            self.ours_pending = false;
        }
        if status < 300 {
            match method {
                Method::Bye => return Fate::Gone,
                // A 2xx without a usable target keeps the one we have: hanging up must stay possible.
                Method::Invite if first => {
                    let _ = self.learn(response);
                    self.state = State::Confirmed;
                }
                Method::Invite | Method::Update | Method::Subscribe | Method::Refer | Method::Notify => {
                    let _ = self.learn_target(response);
                }
                _ => {}
            }
            return Fate::Alive;
        }
        let challenged = matches!(status, 401 | 407);
        match method {
            Method::Bye if !challenged => Fate::Gone,
            _ if first || matches!(status, 408 | 481) => Fate::Gone,
            _ => Fate::Alive,
        }
    }

    /// Notes that a request of ours timed out or could not be sent: as good as a 408 (RFC 3261 section 12.2.1.2).
    pub fn failed(&mut self, method: &Method) -> Fate {
        if *method == Method::Invite {
            self.ours_pending = false;
        }
        Fate::Gone
    }

    /// Replaces what we tell the other end as our Contact from the next request on.
    pub fn set_contact(&mut self, contact: &str) {
        self.contact = Some(contact.into());
    }

    /// What it is known by.
    pub fn id(&self) -> &DialogId {
        &self.id
    }

    /// Early or confirmed.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether an INVITE may be sent now: none is pending on either side (RFC 3261 section 14.1).
    pub fn may_invite(&self) -> bool {
        !self.ours_pending && !self.theirs_pending
    }

    /// How long to wait before an INVITE that got a 491 is tried again (RFC 3261 section 14.1).
    pub fn glare_delay(&self, rng: &mut Rng) -> Duration {
        let ms = match self.caller {
            true => 2100 + 10 * rng.below(191),
            false => 10 * rng.below(201),
        };
        Duration::from_millis(ms)
    }

    /// Where the next request goes: the first route, strict or loose, else the remote target.
    pub fn next_hop(&self) -> &Uri {
        self.routes.first().map_or(&self.target, |route| &route.uri)
    }

    /// The other end's Contact.
    pub fn remote_target(&self) -> &Uri {
        &self.target
    }

    /// The route set, next hop first.
    pub fn routes(&self) -> &[NameAddr] {
        &self.routes
    }

    /// The other end's address with its tag, as it stands in our To.
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// Our address with our tag, as it stands in our From.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The dialog was made by a request to a `sips:` URI.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Route set and target from the response that makes or confirms the dialog.
    fn learn(&mut self, response: &Message) -> Result<(), DialogError> {
        let mut routes = response.record_routes().map_err(|_| DialogError::RecordRoute)?;
        routes.reverse();
        self.routes = routes;
        self.learn_target(response)
    }

    fn learn_target(&mut self, response: &Message) -> Result<(), DialogError> {
        let contacts = response.contacts().map_err(|_| DialogError::Contact)?;
        if let Some(contact) = contacts.into_iter().next() {
            self.target = contact.uri;
        }
        Ok(())
    }

    /// Request-URI and Route (RFC 3261 section 12.2.1.1), From, To, Call-ID, CSeq, Max-Forwards.
    fn skeleton(&self, method: Method, number: u32) -> Message {
        let strict = self.routes.first().filter(|first| !first.uri.params.has("lr"));
        let mut message = match strict {
            None => Message::request(method.clone(), &self.target.to_string()),
            Some(first) => Message::request(method.clone(), &as_request_uri(&first.uri)),
        };
        for route in self.routes.iter().skip(usize::from(strict.is_some())) {
            message.push(HeaderName::Route, route);
        }
        if strict.is_some() {
            message.push(HeaderName::Route, NameAddr::new(self.target.clone()));
        }
        message.push(HeaderName::MaxForwards, 70);
        message.push(HeaderName::From, &self.local);
        message.push(HeaderName::To, &self.remote);
        message.push(HeaderName::CallId, &self.id.call_id);
        message.push(HeaderName::CSeq, format_args!("{number} {method}"));
        message
    }
}

/// A strict router's URI, without what may not stand in a Request-URI (RFC 3261 section 19.1.1).
fn as_request_uri(uri: &Uri) -> String {
    let mut uri = uri.clone();
    if matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
        uri.headers.clear();
        uri.params.remove("method");
    }
    uri.to_string()
}

fn text(message: &Message, name: HeaderName<'static>) -> Result<String, DialogError> {
    message.header(name).map(String::from).ok_or(DialogError::Header)
}
