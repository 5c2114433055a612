//! Allocate (RFC 8656 section 7, RFC 6062 section 5.1).

use super::super::table::{Change, Path, Slot, Socket};
use super::{Allocation, Due, Output, Proved, Relayed, Server, is_v4};
use crate::core::Instant;
use crate::stun::attributes::{
    AdditionalAddressFamily, DontFragment, EvenPort, Lifetime, RequestedAddressFamily, RequestedTransport,
    ReservationToken, XorMappedAddress, XorRelayAddress,
};
use crate::stun::{Integrity, Key, Message, Method, Seal, raw};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Default and longest lifetime (RFC 8656 section 3.2 recommends both), seconds.
const LIFETIME: u32 = 600;
const LIFETIME_MAX: u32 = 3600;
/// How long a reserved port waits (section 7.2: at least 30 s).
const RESERVED: Duration = Duration::from_secs(30);
/// Most sockets asked for at once.
const WISHES: usize = 256;
/// Ports tried until one is free.
const TRIES: u8 = 16;

/// Protocols, as IANA numbers them.
const UDP: u8 = 17;
const TCP: u8 = 6;

/// Sockets that were asked for, and what for.
#[derive(Debug)]
pub(super) struct Wish {
    path: Path,
    request: Message,
    username: String,
    who: String,
    key: Key,
    integrity: Integrity,
    fingerprint: bool,
    relayed: Vec<Relayed>,
    /// Of TCP.
    stream: bool,
    /// The last of `relayed` is kept for another allocation.
    reserve: bool,
    even: bool,
    lacking: Option<u16>,
    tries: u8,
    /// Nobody waits for it any more.
    gone: bool,
}

impl Wish {
    pub(super) fn path(&self) -> Path {
        self.path
    }

    pub(super) fn give_up(&mut self) {
        self.gone = true;
    }

    fn proved(&self) -> Proved<'_> {
        Proved {
            path: self.path,
            message: &self.request,
            username: self.username.clone(),
            who: self.who.clone(),
            key: self.key.clone(),
            integrity: self.integrity,
            fingerprint: self.fingerprint,
        }
    }
}

/// The lifetime that is given for the one that is asked, seconds.
pub(super) fn lifetime(message: &Message) -> u32 {
    let asked = message.get::<Lifetime>().map_or(LIFETIME, |l| l.lifetime().as_secs().min(u64::from(u32::MAX)) as u32);
    asked.clamp(LIFETIME, LIFETIME_MAX)
}

impl Server {
    pub(super) fn on_allocate(&mut self, now: Instant, proved: Proved<'_>) {
        if let Some(slot) = self.by_path.get(&proved.path).copied() {
            // The same request again: its answer was lost.
            return match self.allocation(slot).is_some_and(|a| a.id == proved.message.id) {
                true => self.answer_allocated(&proved, slot, lifetime(proved.message)),
                false => self.refuse(&proved, 437),
            };
        }
        if self.wishes.values().any(|w| w.path == proved.path) {
            return;
        }
        let Some(transport) = proved.message.get::<RequestedTransport>() else { return self.refuse(&proved, 400) };
        let stream = match transport.protocol() {
            UDP => false,
            TCP => true,
            _ => return self.refuse(&proved, 442),
        };
        // A stream at one end is none at the other; nor are there datagrams, or pairs of ports.
        let not_of_streams = proved.message.get::<EvenPort>().is_some()
            || proved.message.get::<ReservationToken>().is_some()
            || proved.message.get::<DontFragment>().is_some()
            || !matches!(proved.path, Path::Stream { .. });
        if stream && (not_of_streams || self.by_data.contains_key(&proved.path)) {
            return self.refuse(&proved, 400);
        }
        let mine = self.by_user.get(&proved.who).copied().unwrap_or(0);
        let wished = self.wishes.values().filter(|w| w.who == proved.who).count();
        if mine + wished >= self.config.of_one_user {
            return self.refuse(&proved, 486);
        }
        if self.by_path.len() + self.wishes.len() >= self.config.allocations || self.wishes.len() >= WISHES {
            return self.refuse(&proved, 508);
        }
        let family = proved.message.get::<RequestedAddressFamily>();
        let additional = proved.message.get::<AdditionalAddressFamily>();
        let even = proved.message.get::<EvenPort>().cloned();
        if let Some(token) = proved.message.get::<ReservationToken>() {
            return match even.is_some() || family.is_some() || additional.is_some() {
                true => self.refuse(&proved, 400),
                false => self.allocate_reserved(now, &proved, token.token()),
            };
        }
        let reserve = even.as_ref().is_some_and(EvenPort::is_requested);
        // The additional one can only be IPv6 beside IPv4 (RFC 8656 section 7.2).
        let additional_ok = additional.is_none_or(|a| {
            a.address_family() == stun_codec::rfc8656::attributes::AddressFamily::V6 && family.is_none() && !reserve
        });
        if !additional_ok {
            return self.refuse(&proved, 400);
        }
        let v4 = family.is_none_or(is_v4);
        let mut relayed = Vec::new();
        let Some(first) = self.relayed(proved.path, v4) else { return self.refuse(&proved, 440) };
        relayed.push(first);
        if reserve && let Some(second) = self.relayed(proved.path, v4) {
            relayed.push(second);
        }
        let mut lacking = None;
        if additional.is_some() {
            match self.relayed(proved.path, false) {
                Some(second) => relayed.push(second),
                None => lacking = Some(440),
            }
        }
        let wish = Wish {
            path: proved.path,
            request: proved.message.clone(),
            username: proved.username,
            who: proved.who,
            key: proved.key,
            integrity: proved.integrity,
            fingerprint: proved.fingerprint,
            relayed,
            stream,
            reserve,
            even: even.is_some(),
            lacking,
            tries: 0,
            gone: false,
        };
        self.wish(wish);
    }

    pub(super) fn on_opened(&mut self, now: Instant, number: u64, open: bool) {
        let Some(mut wish) = self.wishes.remove(&number) else { return };
        if wish.gone {
            for relayed in &wish.relayed {
                if open { self.close_socket(relayed.socket) } else { self.free(relayed.socket) }
            }
            return;
        }
        if !open {
            wish.tries += 1;
            if wish.tries < TRIES {
                return self.wish(wish);
            }
            for relayed in &wish.relayed {
                self.free(relayed.socket);
            }
            return self.refuse(&wish.proved(), 508);
        }
        let mut reservation = None;
        if wish.reserve
            && wish.relayed.len() > 1
            && let Some(kept) = wish.relayed.pop()
        {
            let token = self.rng.next_u64();
            self.reservations.insert(token, kept);
            self.timers.set(Due::Reservation(token), now + RESERVED);
            reservation = Some(token);
        }
        let relayed = std::mem::take(&mut wish.relayed);
        let (stream, lacking) = (wish.stream, wish.lacking);
        self.establish(now, &wish.proved(), stream, relayed, reservation, lacking);
    }

    fn allocate_reserved(&mut self, now: Instant, proved: &Proved<'_>, token: u64) {
        let Some(relayed) = self.reservations.remove(&token) else { return self.refuse(proved, 508) };
        self.timers.cancel(&Due::Reservation(token));
        self.establish(now, proved, false, vec![relayed], None, None);
    }

    fn establish(
        &mut self,
        now: Instant,
        proved: &Proved<'_>,
        stream: bool,
        relayed: Vec<Relayed>,
        reservation: Option<u64>,
        lacking: Option<u16>,
    ) {
        let at = self.allocations.iter().position(Option::is_none).unwrap_or(self.allocations.len());
        if at == self.allocations.len() {
            self.allocations.push(None);
        }
        let slot = Slot(at as u32);
        let table = relayed.iter().map(|r| (r.shown, r.socket)).collect();
        self.allocations[at] = Some(Allocation {
            path: proved.path,
            username: proved.username.clone(),
            who: proved.who.clone(),
            stream,
            id: proved.message.id,
            reservation,
            lacking,
            relayed,
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
        });
        self.by_path.insert(proved.path, slot);
        *self.by_user.entry(proved.who.clone()).or_default() += 1;
        let lifetime = lifetime(proved.message);
        self.timers.set(Due::Allocation(slot), now + Duration::from_secs(lifetime.into()));
        // What has no datagrams is not in the table.
        if !stream {
            self.change(Change::Open { slot, path: proved.path, relayed: table });
        }
        self.answer_allocated(proved, slot, lifetime);
    }

    fn answer_allocated(&mut self, proved: &Proved<'_>, slot: Slot, lifetime: u32) {
        debug_assert_eq!(proved.message.method, Method::ALLOCATE);
        let mut answer = proved.message.success();
        let Some(allocation) = self.allocation(slot) else { return };
        for relayed in &allocation.relayed {
            answer.push(XorRelayAddress::new(relayed.shown));
        }
        answer.push(Lifetime::from_u32(lifetime));
        answer.push(XorMappedAddress::new(super::super::table::canonical(proved.path.client())));
        if let Some(token) = allocation.reservation {
            answer.push(ReservationToken::new(token));
        }
        if let Some(code) = allocation.lacking {
            // IPv6, class and number of the code (RFC 8656 section 18.12).
            answer.push_raw(raw::ADDRESS_ERROR_CODE, &[2, 0, (code / 100) as u8, (code % 100) as u8]);
        }
        let seal = Seal { key: Some((&proved.key, proved.integrity)), fingerprint: proved.fingerprint };
        let bytes = answer.encode(seal);
        self.put(Output::Answer { path: proved.path, bytes });
    }

    /// A socket that is not open yet, at the address that the client found this machine by, or at another one of the family.
    fn relayed(&mut self, path: Path, v4: bool) -> Option<Relayed> {
        let local = match path {
            Path::Datagram { local, .. } => local.map(|l| l.to_canonical()),
            Path::Stream { .. } => None,
        };
        let own = &self.config.addresses;
        let ip = local.filter(|l| l.is_ipv4() == v4 && own.contains(l));
        let ip = ip.or_else(|| own.iter().copied().find(|a| a.is_ipv4() == v4))?;
        let shown = self.config.shown.get(&ip).copied().filter(|s| s.is_ipv4() == v4).unwrap_or(ip);
        let socket = self.free_socket();
        Some(Relayed { socket, bound: SocketAddr::new(ip, 0), shown: SocketAddr::new(shown, 0) })
    }

    /// Draws ports and asks for the sockets.
    fn wish(&mut self, mut wish: Wish) {
        let (first, last) = self.config.ports;
        let range = u64::from(last.saturating_sub(first)) + 1;
        let drawn = first + self.rng.below(range) as u16;
        let even = if drawn % 2 == 1 && wish.even { drawn.checked_sub(1).filter(|p| *p >= first) } else { Some(drawn) };
        // The range begins with an odd port, and that was drawn.
        let drawn = even.unwrap_or(drawn.saturating_add(1));
        let pair = wish.reserve;
        for (i, relayed) in wish.relayed.iter_mut().enumerate() {
            let port = drawn.saturating_add(if pair { i as u16 } else { 0 });
            relayed.bound.set_port(port);
            relayed.shown.set_port(port);
        }
        self.last_wish += 1;
        let number = self.last_wish;
        let stream = wish.stream;
        let sockets: Vec<(Socket, SocketAddr)> = wish.relayed.iter().map(|r| (r.socket, r.bound)).collect();
        self.wishes.insert(number, wish);
        self.put(Output::Open { wish: number, sockets, stream });
    }

    /// A socket that was never opened.
    fn free(&mut self, socket: Socket) {
        if let Some(used) = self.sockets.get_mut(socket.0 as usize) {
            *used = false;
        }
    }
}
