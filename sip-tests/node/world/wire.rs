//! Datagrams and streams between the places.

use super::*;

impl World {
    pub fn datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        if (self.lose)(from, to, &bytes) {
            return;
        }
        let at = self.now + ONE_WAY;
        if let Some(i) = self.hosts.iter().position(|h| h.sip == to || h.overlay == to) {
            if !self.hosts[i].silent {
                self.at(at, Place::Node(i), Arrival::Node(Input::Datagram { flow: Flow::udp(to, from), bytes }));
            }
        } else if let Some(i) = self.raws.iter().position(|r| r.addr == to) {
            self.at(at, Place::Raw(i), Arrival::Datagram(from, bytes));
        }
    }

    pub(super) fn connect(
        &mut self,
        host: usize,
        conn: ConnId,
        transport: Transport,
        remote: SocketAddr,
        expect: Expect,
    ) {
        let remote = self.hijacked.get(&remote).copied().unwrap_or(remote);
        let here = Place::Node(host);
        let there = self
            .hosts
            .iter()
            .position(|h| h.overlay == remote)
            .map_or(Duration::ZERO, |i| self.farther(Place::Node(i)));
        let late = self.now + (ONE_WAY + self.farther(here) + there) * 4;
        let refused = Arrival::Node(Input::ConnectFailed { conn, why: "refused".into() });
        self.conns += 1;
        let far = ConnId(self.conns);
        let from = SocketAddr::new(self.hosts[host].sip.ip(), 40_000 + (conn.0 % 20_000) as u16);
        let tls = transport == Transport::Tls;
        if let Some(i) = self.hosts.iter().position(|h| if tls { h.overlay == remote } else { h.sip == remote }) {
            let to = &self.hosts[i];
            if to.silent || self.hidden.contains(&remote) {
                return self.at(self.now + CONNECT_TIME, here, refused);
            }
            let (near_proof, far_proof) = match tls {
                true => {
                    // Whoever dials goes on with a peer whose chain holds alone; whoever is dialled takes others as strangers.
                    (self.hosts[host].proven_to(to), to.proven_to(&self.hosts[host]))
                }
                false => (Proven::Nobody, Proven::Nobody),
            };
            // What the link layer refuses of the end that is dialled.
            let other = tls
                && match (expect, &far_proof) {
                    (Expect::Member, Proven::Member(_)) => false,
                    (Expect::Peer(id), Proven::Member(peer)) => peer.peer_id != id,
                    (Expect::Foreign, ..) => to.anchor.is_none(),
                    _ => true,
                };
            if to.dead || other {
                return self.at(late, here, refused);
            }
            let far_proof = match (expect, to.verified.clone().zip(to.anchor.clone())) {
                (Expect::Foreign, Some((verified, anchor))) => {
                    Proven::Foreign(Arc::new(Foreign { anchor, verified: (*verified).clone() }))
                }
                _ => far_proof,
            };
            let flow = Flow::stream(transport, remote, from, far);
            self.join((here, conn), (Place::Node(i), far));
            self.at(self.now + ONE_WAY * 3, Place::Node(i), Arrival::Node(Input::Accepted { flow, peer: near_proof }));
            self.at(late, here, Arrival::Node(Input::Connected { conn, peer: far_proof }));
        } else if let Some(i) = self.raws.iter().position(|r| r.addr == remote && r.tcp) {
            let proof = match (self.raws[i].proof.clone(), self.raws[i].anchor.clone()) {
                (Some(verified), Some(anchor)) if tls => {
                    Proven::Foreign(Arc::new(Foreign { anchor, verified: (*verified).clone() }))
                }
                (proof, _) => proof.filter(|_| tls).into(),
            };
            self.join((here, conn), (Place::Raw(i), far));
            self.at(late, Place::Raw(i), Arrival::Opened(far));
            self.at(late, here, Arrival::Node(Input::Connected { conn, peer: proof }));
        } else {
            self.at(late, here, refused);
        }
    }

    /// A raw end dials a node's SIP port, or its link port as whom it proves to be.
    pub fn dial(&mut self, raw: usize, transport: Transport, remote: SocketAddr) -> ConnId {
        self.conns += 2;
        let (near, far) = (ConnId(self.conns - 1), ConnId(self.conns));
        let i = self.hosts.iter().position(|h| h.sip == remote || h.overlay == remote).unwrap();
        let from = SocketAddr::new(self.raws[raw].addr.ip(), 30_000 + (self.conns % 20_000) as u16);
        let flow = Flow::stream(transport, remote, from, far);
        let proof = self.raws[raw].proof.clone().filter(|_| transport == Transport::Tls);
        let peer = match (proof, self.raws[raw].anchor.clone()) {
            (Some(verified), Some(anchor)) => {
                Proven::Foreign(Arc::new(Foreign { anchor, verified: (*verified).clone() }))
            }
            (proof, _) => proof.into(),
        };
        self.join((Place::Raw(raw), near), (Place::Node(i), far));
        self.at(self.now + ONE_WAY, Place::Node(i), Arrival::Node(Input::Accepted { flow, peer }));
        self.run(ONE_WAY * 2);
        near
    }

    fn join(&mut self, a: (Place, ConnId), b: (Place, ConnId)) {
        self.streams.insert(a, Stream { far: b, free_at: self.now });
        self.streams.insert(b, Stream { far: a, free_at: self.now });
    }

    pub fn write(&mut self, from: Place, conn: ConnId, bytes: Bytes) {
        if (self.swallow)(&bytes) {
            return;
        }
        let Some(far) = self.streams.get(&(from, conn)).map(|s| s.far.0) else { return };
        let at = self.now + ONE_WAY + self.farther(from) + self.farther(far);
        let bytes = (self.rewrite)(&bytes).unwrap_or(bytes);
        let Some(stream) = self.streams.get_mut(&(from, conn)) else { return };
        let at = at.max(stream.free_at);
        stream.free_at = at;
        let (place, far) = stream.far;
        if bytes[..] == b"\r\n\r\n"[..] && matches!(place, Place::Node(i) if !self.hosts[i].silent) {
            // The driver at the far end answers a keep-alive by itself.
            if let Place::Node(i) = from {
                let back = at + ONE_WAY + self.farther(from) + self.farther(place);
                self.at(back, Place::Node(i), Arrival::Node(Input::Pong { conn }));
            }
            return;
        }
        match place {
            Place::Node(i) if self.hosts[i].silent => {}
            Place::Node(_) => self.at(at, place, Arrival::Node(Input::Frame { conn: far, bytes })),
            Place::Raw(_) => self.at(at, place, Arrival::Frame(far, bytes)),
        }
    }

    fn farther(&self, place: Place) -> Duration {
        match place {
            Place::Node(i) => self.far.get(&i).copied().unwrap_or_default(),
            Place::Raw(_) => Duration::ZERO,
        }
    }

    /// Both ends hear of it, as with real sockets.
    pub fn close(&mut self, from: Place, conn: ConnId) {
        let Some(stream) = self.streams.remove(&(from, conn)) else { return };
        self.streams.remove(&stream.far);
        self.ended(from, conn, self.now);
        self.ended(stream.far.0, stream.far.1, (self.now + ONE_WAY).max(stream.free_at));
    }

    fn ended(&mut self, place: Place, conn: ConnId, at: Instant) {
        let arrival = match place {
            Place::Node(_) => Arrival::Node(Input::Closed { conn }),
            Place::Raw(_) => Arrival::Closed(conn),
        };
        self.at(at, place, arrival);
    }

    /// Kills a node as `kill -9` does: its connections are reset.
    pub fn kill(&mut self, host: usize) {
        self.hosts[host].dead = true;
        let here = Place::Node(host);
        let conns: Vec<_> = self.streams.keys().filter(|(p, _)| *p == here).map(|(_, c)| *c).collect();
        for conn in conns {
            self.close(here, conn);
        }
    }

    /// Starts a killed node again, with what it had kept, at its old address.
    pub fn restart_kept(&mut self, host: usize) {
        let h = &self.hosts[host];
        let identity = h.identity.clone().expect("a peer");
        let mut config = Config::default();
        config.overlay.name = identity.overlay().to_owned();
        config.user.name = identity.user().to_owned();
        let others = self.hosts.iter().enumerate().filter(|(i, h)| *i != host && !h.dead);
        config.overlay.bootstrap = others.map(|(_, h)| h.overlay.into()).take(1).collect();
        let unix = START + self.now.since(Instant::ZERO);
        let mut setup = Setup::new(config, Some(identity), h.sip, h.overlay, unix);
        let file = |what| h.files.iter().find(|(kept, _)| *kept == what).map(|(_, bytes)| bytes.to_vec());
        (setup.shares, setup.attempts) = (file(Saved::Shares), file(Saved::Attempts));
        let node = Node::new(self.now, setup, self.rng.fork());
        let h = &mut self.hosts[host];
        (h.node, h.dead, h.wake) = (node, false, None);
        self.drain(host);
    }
}
