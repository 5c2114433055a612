//! What surrounds a node on the network and follows it when the machine moves: the addresses that others are told, the search on
//! the local network, the port that a router opens.

use super::discovery::Finder;
use super::network;
use super::portmap::PortMapper;
use crate::config::{Discover, MapPort};
use crate::core::{Id, Rng};
use crate::identity::TrustAnchor;
use crate::nat::{Scope, scope};
use crate::node::Input;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// What does not change while the program runs.
#[derive(Debug, Clone)]
pub(super) struct Fixed {
    /// As the sockets say.
    pub sip_listen: SocketAddr,
    /// As the sockets say.
    pub overlay_listen: SocketAddr,
    /// Links are taken over IPv6 too, at the same port.
    pub both_families: bool,
    /// The user named the address.
    pub advertise: Option<SocketAddr>,
    /// A peer or a registrar that the user named.
    pub towards: Option<SocketAddr>,
    /// Whose peer this is; none for a plain SIP phone.
    pub overlay: Option<(TrustAnchor, Id)>,
    pub discover: Discover,
    pub map_port: MapPort,
}

/// Where this machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub sip: SocketAddr,
    pub overlay: SocketAddr,
    /// Beside `overlay`.
    pub also: Vec<SocketAddr>,
}

/// The place, and what was begun there.
pub(super) struct Surroundings {
    fixed: Fixed,
    place: Place,
    finder: Option<Finder>,
    mapper: Option<PortMapper>,
    rng: Rng,
    node: mpsc::Sender<Input>,
    look: Interval,
}

impl Fixed {
    /// Where the machine is now.
    pub fn place(&self) -> Place {
        let sip = network::told(self.sip_listen, self.advertise.map(|a| a.ip()), self.towards);
        let overlay = self.advertise.unwrap_or_else(|| network::told(self.overlay_listen, None, self.towards));
        let v6 = network::global_v6().filter(|_| self.both_families && !overlay.ip().is_loopback());
        let also = v6.map(|ip| SocketAddr::new(ip, self.overlay_listen.port())).filter(|a| *a != overlay);
        Place { sip, overlay, also: also.into_iter().collect() }
    }

    /// The address for which a router is asked: a private one that the user has not named another for.
    pub fn mappable(&self, place: &Place) -> Option<SocketAddrV4> {
        let wanted = self.map_port == MapPort::Auto && self.advertise.is_none() && self.overlay.is_some();
        match place.overlay {
            SocketAddr::V4(addr)
                if wanted && matches!(scope(IpAddr::V4(*addr.ip())), Scope::Private | Scope::Carrier) =>
            {
                Some(addr)
            }
            _ => None,
        }
    }
}

impl Surroundings {
    /// Begins the searches at `place`. Needs a tokio runtime.
    pub fn begin(fixed: Fixed, place: Place, rng: Rng, node: mpsc::Sender<Input>) -> Surroundings {
        let mut look = interval(network::LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut here = Surroundings { fixed, place, finder: None, mapper: None, rng, node, look };
        here.settle();
        here
    }

    /// The next peer found on the local network, or the news that this machine has moved. Cancelling loses nothing.
    pub async fn next(&mut self) -> Input {
        loop {
            let found = async {
                match self.finder.as_mut() {
                    Some(finder) => finder.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                (id, addr) = found => return Input::Found { addr, id },
                _ = self.look.tick() => {}
            }
            if let Some(moved) = self.look() {
                return moved;
            }
        }
    }

    /// Where calls to come open their sockets.
    pub fn media_address(&self) -> IpAddr {
        self.place.sip.ip()
    }

    /// Removes what was left with the router.
    pub async fn close(&mut self) {
        if let Some(mapper) = self.mapper.take() {
            mapper.close().await;
        }
    }

    fn look(&mut self) -> Option<Input> {
        let place = self.fixed.place();
        // Without any network the old address is as good as none, and perhaps the next one too.
        let gone = place.overlay.ip().is_loopback() && !self.place.overlay.ip().is_loopback();
        if place == self.place || gone {
            return None;
        }
        let moved = place.overlay != self.place.overlay;
        self.place = place.clone();
        if moved {
            self.settle();
        }
        Some(Input::Moved { sip: place.sip, overlay: place.overlay, also: place.also })
    }

    /// Begins here what ended elsewhere.
    fn settle(&mut self) {
        if let Some(old) = self.finder.take() {
            // It says goodbye, which takes a moment.
            tokio::task::spawn_blocking(move || drop(old));
        }
        self.mapper = None;
        let here = self.place.overlay;
        if let Some((anchor, id)) = self.fixed.overlay.as_ref().filter(|_| !here.ip().is_loopback()) {
            self.finder = Finder::start(self.fixed.discover, anchor, *id, here, self.rng.fork());
        }
        if let Some(internal) = self.fixed.mappable(&self.place) {
            let gateway = network::gateway(*internal.ip());
            let started = PortMapper::start(internal, gateway, self.rng.fork(), self.node.clone());
            self.mapper = started.inspect_err(|fault| tracing::warn!(%fault, "no router is asked for a port")).ok();
        }
    }
}
