//! The way of a request to a peer. Whoever hangs on supernodes is reached through these, by a Route that names them, and sends
//! through its own; a hop that fails is gone around:
//!
//! - a way that the callee's contact entry names is tried after the other;
//! - within a dialog, a proxy that is gone is taken out of the Route, and where the next one after it hangs on others, its contact
//!   entry is looked up anew: so a call survives the supernodes that it was made through.
//!
//! What fails is what cannot be sent, what nobody answers, and what is answered 430 (RFC 5626 section 5.3). A supernode that is
//! asked to reach a node that does not hang on it says 430 and looks nobody up: that is for those who know the dialog.
//!
//! Absent: an ACK that is lost with its proxy is not sent another way (the 2xx comes again by the old one and ends there).

use super::lookup::{Found, Op};
use super::{Node, Owner};
use crate::core::{Id, Instant};
use crate::overlay::PeerRef;
use crate::sip::msg::{HeaderName, Message, NameAddr, Uri};
use crate::sip::tx::{self, ClientTxId};
use crate::ua::Hop;
use std::collections::BTreeMap;

/// Requests that may go another way, at once.
const UNDER_WAY: usize = 8192;
/// Ways tried for one request.
const TRIES: usize = 5;

/// What became of a request that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// In this transaction.
    Tx(ClientTxId),
    /// Its way is being looked up; its owner hears of the transaction, or of the failure.
    Later,
    /// No way.
    No,
}

/// A request that can go another way.
#[derive(Debug)]
pub(super) struct Detour {
    /// Without our Via and without what its way adds.
    message: Message,
    hop: PeerRef,
    branch: String,
    owner: Owner,
    /// Whom it was sent to last.
    last: Option<Id>,
    tried: Vec<Id>,
    looked: bool,
    /// Its contact entry says that the peer is dialled itself, by now.
    direct: bool,
}

/// Those under way, and those whose way is being looked up.
#[derive(Debug, Default)]
pub(super) struct Detours {
    under_way: BTreeMap<ClientTxId, Detour>,
    waiting: BTreeMap<u64, Detour>,
}

impl Detours {
    pub fn forget(&mut self, tx: ClientTxId) {
        self.under_way.remove(&tx);
    }
}

enum Way {
    /// Through these, to the first of them, or to the hop itself.
    Go(Vec<PeerRef>),
    Lookup,
    None,
}

impl Node {
    /// Sends a request to a peer by the best way known.
    pub(super) fn send_to_peer(
        &mut self,
        now: Instant,
        message: Message,
        hop: PeerRef,
        branch: &str,
        owner: Owner,
    ) -> Sent {
        let (branch, tried) = (branch.to_owned(), Vec::new());
        let detour = Detour { message, hop, branch, owner, last: None, tried, looked: false, direct: false };
        self.send_detour(now, detour)
    }

    fn send_detour(&mut self, now: Instant, mut detour: Detour) -> Sent {
        match self.way(&detour) {
            Way::Go(through) => {
                let mut message = detour.message.clone();
                for peer in through.iter().rev() {
                    let uri = self.setup.peer_uri(None, peer);
                    message.push_front(HeaderName::Route, format_args!("<{uri};lr>"));
                }
                let to = through.first().copied().unwrap_or(detour.hop);
                let outside = message.to_tag().is_none();
                let forwarded = !through.is_empty() || message.has(HeaderName::Route) || is_kept(&message);
                if outside && forwarded {
                    self.prove_caller(now, &mut message);
                }
                let branch = match detour.last {
                    None => detour.branch.clone(),
                    Some(_) => self.another_branch(&detour.branch),
                };
                let next = Hop::Peer { id: to.id, addr: to.addr };
                let Some(tx) = self.send_straight(now, message, &next, &branch, detour.owner) else {
                    detour.tried.push(to.id);
                    return self.go_around(now, detour);
                };
                if (forwarded || !outside) && self.detours.under_way.len() < UNDER_WAY {
                    detour.last = Some(to.id);
                    self.detours.under_way.insert(tx, detour);
                    self.hurry_unheard(now, tx);
                }
                Sent::Tx(tx)
            }
            Way::Lookup => self.look_up_way(now, detour),
            Way::None => Sent::No,
        }
    }

    fn way(&self, detour: &Detour) -> Way {
        let id = detour.hop.id;
        let tried = |p: &PeerRef| detour.tried.contains(&p.id);
        // In the laboratory there are no links and nobody is behind anything.
        if (self.flows.has_peer(&id) || self.flows.locals().clear) && !tried(&detour.hop) {
            return Way::Go(Vec::new());
        }
        let outside = detour.message.to_tag().is_none();
        let me = self.overlay.as_ref().map(|o| o.me().id);
        let known = self.attach.way(&id).iter().copied().find(|p| !tried(p) && Some(p.id) != me);
        // An ordinary node sends what opens a dialog by its own supernode, which stays in it.
        let own = self.attach.via.iter().copied().find(|p| outside && !tried(p) && p.id != id);
        let kept = !detour.direct && (!self.attach.way(&id).is_empty() || names_kept(&detour.message, &id));
        // Whoever asks on behalf of others has been told a way, or learns that it is none any more.
        let may_look = !detour.looked && (!detour.tried.is_empty() || is_own(detour.owner));
        match (known, own) {
            (Some(known), Some(own)) if own.id != known.id && !self.flows.has_peer(&known.id) => {
                Way::Go(vec![own, known])
            }
            (Some(known), _) => Way::Go(vec![known]),
            (None, _) if may_look && (kept || !outside && tried(&detour.hop)) => Way::Lookup,
            (None, _) if kept => Way::None,
            (None, Some(own)) => Way::Go(vec![own]),
            (None, None) if tried(&detour.hop) => Way::None,
            (None, None) => Way::Go(Vec::new()),
        }
    }

    fn look_up_way(&mut self, now: Instant, mut detour: Detour) -> Sent {
        detour.looked = true;
        let aor = self.far_end(&detour.message);
        let room = self.detours.waiting.len() < UNDER_WAY;
        let Some(aor) = aor.filter(|_| room) else { return Sent::No };
        let number = self.ring.next();
        self.detours.waiting.insert(number, detour);
        self.begin_op(now, Op::Way { number }, &aor, crate::overlay::Mode::Auto);
        Sent::Later
    }

    /// The address of record of whoever a request is for.
    fn far_end(&self, message: &Message) -> Option<String> {
        let to = message.to().ok().and_then(|to| self.domain.user_of(&to.uri));
        let target = || Uri::parse(message.request_uri()).ok()?.user_unescaped().map(|u| u.into_owned());
        Some(self.domain.aor(&crate::identity::canonical_user(&to.or_else(target)?).ok()?))
    }

    /// The contact entry was looked up: what it says is known by now.
    pub(super) fn on_way(&mut self, now: Instant, number: u64, found: &Found) {
        let Some(mut detour) = self.detours.waiting.remove(&number) else { return };
        if let Some((peer, _)) = found.peers.iter().find(|(peer, _)| peer.id == detour.hop.id)
            && self.attach.way(&peer.id).is_empty()
        {
            (detour.hop, detour.direct) = (*peer, true);
        }
        let owner = detour.owner;
        let sent = self.send_detour(now, detour);
        self.tell_sent(now, owner, sent);
    }

    /// A request failed; true when it goes another way, or may.
    pub(super) fn detour(&mut self, now: Instant, tx: ClientTxId) -> bool {
        let Some(mut detour) = self.detours.under_way.remove(&tx) else { return false };
        let Some(last) = detour.last else { return false };
        detour.tried.push(last);
        let owner = detour.owner;
        match self.go_around(now, detour) {
            Sent::No => false,
            sent => {
                self.owners.remove(&tx);
                self.count("requests sent another way");
                self.tell_sent(now, owner, sent);
                true
            }
        }
    }

    /// Takes whoever failed out of the way.
    fn go_around(&mut self, now: Instant, mut detour: Detour) -> Sent {
        if detour.tried.len() >= TRIES {
            return Sent::No;
        }
        while let Some(route) = next_route(&detour.message)
            && let Hop::Peer { id, .. } = Hop::of(route)
            && detour.tried.contains(&id)
            && detour.hop.id == id
        {
            detour.message.remove_first_value(HeaderName::Route);
            let next = next_route(&detour.message).or_else(|| Uri::parse(detour.message.request_uri()).ok());
            match next.map(Hop::of) {
                Some(Hop::Peer { id, addr }) => detour.hop = PeerRef { id, addr },
                _ => return Sent::No,
            }
            let me = self.overlay.as_ref().map(|o| o.me().id);
            if Some(detour.hop.id) == me {
                return Sent::No;
            }
        }
        self.send_detour(now, detour)
    }

    fn tell_sent(&mut self, now: Instant, owner: Owner, sent: Sent) {
        match (owner, sent) {
            (owner, Sent::Tx(tx)) => self.sent_again(owner, tx),
            (_, Sent::Later) => {}
            (Owner::Ua(key), Sent::No) => self.ua.on_failure(now, key, 503),
            (Owner::Router(branch), Sent::No) => self.router.flow_failed(now, branch),
            (Owner::Overlay(_) | Owner::Exchange(_), Sent::No) => {}
        }
    }

    /// Another branch with the same mark against loops.
    fn another_branch(&mut self, branch: &str) -> String {
        let fresh = tx::new_branch(&mut self.rng);
        match branch.split_once('.') {
            Some((_, mark)) => format!("{fresh}.{mark}"),
            None => fresh,
        }
    }
}

fn is_own(owner: Owner) -> bool {
    matches!(owner, Owner::Ua(_))
}

fn next_route(message: &Message) -> Option<Uri> {
    let value = message.values(HeaderName::Route).next()?;
    NameAddr::parse(value).ok().map(|route| route.uri)
}

/// Whether the next hop that a message names is this peer, and reached over flows that it keeps.
fn names_kept(message: &Message, id: &Id) -> bool {
    let next = next_route(message).or_else(|| Uri::parse(message.request_uri()).ok());
    next.is_some_and(|uri| uri.params.has("ob") && uri.params.get("peer-ID").and_then(Id::from_hex) == Some(*id))
}

fn is_kept(message: &Message) -> bool {
    Uri::parse(message.request_uri()).is_ok_and(|uri| uri.params.has("ob"))
}
