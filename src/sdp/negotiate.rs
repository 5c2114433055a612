//! Offer and answer (RFC 3264) for one audio stream over RTP.
//!
//! One codec is chosen: by the answerer in the offerer's order of preference, and the answer lists only it (and
//! telephone-event, RFC 4733), so that nobody switches codecs in the middle of a stream. Every stream that we do
//! not take (video, fax, a second audio stream, another profile) is refused with port 0 and the call goes on.
//! A late offer is `offer` in the 2xx and `complete` on the ACK's body. Hold is understood in both styles:
//! `sendonly`/`inactive`, and the connection address 0.0.0.0 (RFC 3264 section 8.4, RFC 2543). Multiplexed RTCP
//! is RFC 5761, its explicit port RFC 3605.
//!
//! Encryption is DTLS-SRTP (RFC 5763) in an offer that also reaches those who have none (RFC 8643): `RTP/AVP` with `a=fingerprint`
//! and `a=setup`, RTCP multiplexed; an offer with the profile `UDP/TLS/RTP/SAVP` or `SAVPF` is answered in kind. What keys
//! are worth is for the caller of this module to know.
//!
//! ICE (RFC 8839) is offered where [`LocalMedia::ice`] is there, with RTCP multiplexed, and agreed when both ends say it and
//! multiplex. An offer whose default address is none of its candidates has passed something that rewrites addresses:
//! `a=ice-mismatch` is answered and the default address counts.
//!
//! Left out: SDES (`RTP/SAVP` is refused) and bundles (their attributes are not answered, which is how one declines them); a
//! second component for RTCP; the updated offer that tells third parties which pair was chosen (RFC 8839 section 4.4.1).

use super::ice::Ice;
use super::{Attribute, Connection, Direction, Media, Origin, RtpMap, Session};
use std::net::SocketAddr;

/// A codec of ours, in the order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecOffer {
    /// Encoding name: `opus`, `PCMU`, `PCMA`.
    pub name: &'static str,
    /// Payload type in our offers; an answer takes the offerer's.
    pub payload_type: u8,
    /// RTP clock in Hz.
    pub clock_rate: u32,
    /// Channels in the `rtpmap`: 2 for Opus (RFC 7587), 1 for G.711.
    pub channels: u8,
    /// Our format parameters, empty for none.
    pub fmtp: String,
}

/// A telephone-event payload type of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventOffer {
    /// Payload type in our offers.
    pub payload_type: u8,
    /// RTP clock in Hz; RFC 4733 wants that of the codec beside it.
    pub clock_rate: u32,
}

/// What our descriptions say about encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalKeys {
    /// Value of `a=fingerprint` (RFC 8122).
    pub fingerprint: String,
    /// Value of [`STATEMENT`], empty for none.
    pub statement: String,
}

/// What the other end's description says about encryption, once both have agreed to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteKeys {
    /// Value of `a=fingerprint`.
    pub fingerprint: String,
    /// Our end begins the handshake (`a=setup:active`).
    pub active: bool,
    /// Value of [`STATEMENT`], empty for none.
    pub statement: String,
}

/// Attribute by which a device vouches for a description's fingerprint; unknown to others and ignored by them.
pub const STATEMENT: &str = "x-chordial-device";

/// What our end has and wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalMedia {
    /// Where we receive RTP, as the other end is told.
    pub addr: SocketAddr,
    /// Where we receive RTCP when it is not multiplexed.
    pub rtcp_port: u16,
    /// Whether RTCP may share the RTP port.
    pub rtcp_mux: bool,
    /// Our codecs, best first.
    pub codecs: Vec<CodecOffer>,
    /// Key presses as events; empty for none.
    pub dtmf: Vec<EventOffer>,
    /// Packet time in milliseconds that we ask for.
    pub ptime: u32,
    /// Session identifier of the `o=` line, the same throughout a dialog.
    pub session_id: u64,
    /// Version of the `o=` line; to be raised with each description that differs from the one before.
    pub version: u64,
    /// What we want: `SendOnly` or `Inactive` puts the other end on hold.
    pub direction: Direction,
    /// Encryption; none to neither offer nor accept it.
    pub keys: Option<LocalKeys>,
    /// ICE; none to neither offer nor accept it.
    pub ice: Option<Ice>,
}

/// A codec that both ends have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codec {
    /// Encoding name in our spelling when answering, in the answer's otherwise.
    pub name: String,
    /// Payload type that we send with.
    pub payload_type: u8,
    /// Payload type that the other end sends with; nearly always the same.
    pub receive_type: u8,
    /// RTP clock in Hz.
    pub clock_rate: u32,
    /// Channels.
    pub channels: u8,
    /// The other end's format parameters: what it wants to receive. Empty if none.
    pub fmtp: String,
}

/// What came out of a negotiation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Where RTP goes. Unspecified (0.0.0.0) when the other end holds in the old style; `direction` then forbids sending.
    pub remote_rtp: SocketAddr,
    /// Where RTCP goes.
    pub remote_rtcp: SocketAddr,
    /// RTCP shares the RTP port.
    pub rtcp_mux: bool,
    /// The codec to send, and to expect.
    pub codec: Codec,
    /// Further codecs that the other end may switch to by itself, because the answer listed them.
    pub alternatives: Vec<Codec>,
    /// Payload type to send telephone-events with.
    pub dtmf_pt: Option<u8>,
    /// Payload type on which telephone-events arrive.
    pub dtmf_receive_pt: Option<u8>,
    /// RTP clock of the telephone-events in Hz.
    pub dtmf_clock: u32,
    /// Which way media flow, as we see it.
    pub direction: Direction,
    /// Packet time in milliseconds that the other end would like to receive.
    pub ptime: u32,
    /// Position of the stream in both descriptions.
    pub index: usize,
    /// Encryption; none: in clear.
    pub keys: Option<RemoteKeys>,
    /// The other end's ICE; none: media go to the addresses above.
    pub ice: Option<Ice>,
}

impl Agreed {
    /// True when the other end has put us on hold.
    pub fn held_by_remote(&self) -> bool {
        !self.direction.sends()
    }
}

/// Why there is no agreement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiateError {
    /// No audio stream over plain RTP with a port (towards an offer: 488).
    #[error("no audio stream over RTP/AVP")]
    NoAudio,
    /// The audio stream has none of our codecs (towards an offer: 488).
    #[error("no common codec")]
    NoCodec,
    /// The audio stream has no address or a host name (towards an offer: 488).
    #[error("no IP address for the audio stream")]
    NoAddress,
    /// The answer has other streams than the offer.
    #[error("the answer does not fit the offer")]
    Mismatch,
    /// The answer refuses the stream with port 0.
    #[error("the answer refuses the audio stream")]
    Refused,
}

/// A first offer.
pub fn offer(local: &LocalMedia) -> Session {
    let mut session = describe(local);
    session.media.push(offered(local));
    session
}

/// A further offer in a dialog whose last description of ours was `previous`: the streams keep their places
/// (RFC 3264 section 8), refused ones stay refused, and no payload type changes its meaning (section 8.3.2): what
/// the stream at `index` used goes first under the number it had. An `index` beyond the end appends the stream.
pub fn offer_again(previous: &Session, index: usize, local: &LocalMedia) -> Session {
    let mut session = describe(local);
    session.media = previous.media.iter().map(refused).collect();
    match previous.media.get(index).zip(session.media.get_mut(index)) {
        Some((before, place)) => *place = offered(&renumbered(before, local)),
        None => session.media.push(offered(local)),
    }
    session
}

/// Answers `offer`: our description, and what is agreed.
pub fn answer(offer: &Session, local: &LocalMedia) -> Result<(Session, Agreed), NegotiateError> {
    let mut fault = NegotiateError::NoAudio;
    for (index, media) in offer.media.iter().enumerate() {
        let secured = is_dtls(&media.proto) && local.keys.is_some();
        if media.kind != "audio" || media.port == 0 || !(is_plain_rtp(&media.proto) || secured) {
            continue;
        }
        match answer_stream(offer, index, media, local) {
            Ok((answered, agreed)) => {
                let mut session = describe(local);
                session.times.clone_from(&offer.times);
                session.media = offer.media.iter().map(refused).collect();
                session.media[index] = answered;
                return Ok((session, agreed));
            }
            Err(why) => fault = why,
        }
    }
    Err(fault)
}

/// What is agreed once our `offer` was answered by `answer`.
pub fn complete(offer: &Session, answer: &Session) -> Result<Agreed, NegotiateError> {
    let index = offer.media.iter().position(|m| m.kind == "audio" && m.port != 0).ok_or(NegotiateError::NoAudio)?;
    let ours = &offer.media[index];
    let theirs = answer.media.get(index).ok_or(NegotiateError::Mismatch)?;
    if theirs.kind != ours.kind {
        return Err(NegotiateError::Mismatch);
    }
    if theirs.port == 0 {
        return Err(NegotiateError::Refused);
    }
    let mut codecs = Vec::new();
    let mut events = Vec::new();
    for (pt, map) in formats(theirs) {
        let Some((receive_type, _)) =
            formats(ours).find(|(_, our)| our.matches(&map.name, map.clock_rate, map.channels))
        else {
            continue;
        };
        if is_event(&map) {
            events.push((pt, receive_type, map.clock_rate));
        } else {
            codecs.push(Codec {
                name: map.name,
                payload_type: pt,
                receive_type,
                clock_rate: map.clock_rate,
                channels: map.channels,
                fmtp: theirs.fmtp(pt).unwrap_or("").into(),
            });
        }
    }
    let wanted = offer.direction_of(ours);
    let mux = ours.attribute("rtcp-mux").is_some() && theirs.attribute("rtcp-mux").is_some();
    let offered_keys = ours.attribute("fingerprint").is_some();
    let keys = if offered_keys && mux { remote_keys(answer, theirs, Setup::of_answer) } else { None };
    let ice = if ours.attribute("ice-ufrag").is_some() && mux { remote_ice(answer, theirs) } else { None };
    Ok(Agreed { keys, ice, ..agree(answer, theirs, index, codecs, &events, wanted, mux)? })
}

/// The answer to one acceptable stream.
fn answer_stream(
    offer: &Session,
    index: usize,
    media: &Media,
    local: &LocalMedia,
) -> Result<(Media, Agreed), NegotiateError> {
    let chosen = formats(media)
        .find_map(|(pt, map)| {
            let ours = local.codecs.iter().find(|c| map.matches(c.name, c.clock_rate, c.channels))?;
            Some((pt, ours))
        })
        .ok_or(NegotiateError::NoCodec)?;
    let (pt, ours) = chosen;
    let codec = Codec {
        name: ours.name.into(),
        payload_type: pt,
        receive_type: pt,
        clock_rate: ours.clock_rate,
        channels: ours.channels,
        fmtp: media.fmtp(pt).unwrap_or("").into(),
    };
    let events: Vec<_> = formats(media)
        .filter(|(_, map)| is_event(map) && local.dtmf.iter().any(|e| e.clock_rate == map.clock_rate))
        .map(|(pt, map)| (pt, pt, map.clock_rate))
        .collect();
    let mux = local.rtcp_mux && media.attribute("rtcp-mux").is_some();
    let agreed = agree(offer, media, index, vec![codec], &events, local.direction, mux)?;
    let keys = if local.keys.is_some() && mux { remote_keys(offer, media, Setup::of_offer) } else { None };
    if keys.is_none() && is_dtls(&media.proto) {
        return Err(NegotiateError::NoAudio);
    }
    let wants_ice = local.ice.is_some() && mux;
    let ice = if wants_ice { remote_ice(offer, media) } else { None };
    let mismatch = wants_ice && ice.is_none() && Ice::of(offer, media).is_some();
    let agreed = Agreed { keys, ice, ..agreed };

    let mut answered = Media::new("audio", local.addr.port(), &media.proto, Vec::new());
    push_codec(&mut answered, pt, ours);
    if let Some(pt) = agreed.dtmf_pt {
        push_event(&mut answered, EventOffer { payload_type: pt, clock_rate: agreed.dtmf_clock });
    }
    finish(&mut answered, local, agreed.direction, mux);
    if let (Some(ours), Some(theirs)) = (&local.keys, &agreed.keys) {
        push_keys(&mut answered, ours, if theirs.active { "active" } else { "passive" });
    }
    match (&local.ice, &agreed.ice) {
        (Some(ours), Some(_)) => ours.push(&mut answered),
        _ if mismatch => answered.attributes.push(Attribute::flag("ice-mismatch")),
        _ => {}
    }
    Ok((answered, agreed))
}

/// Who begins the handshake.
enum Setup {}

impl Setup {
    /// Whether we do, as the answerer of this `a=setup`.
    fn of_offer(setup: &str) -> Option<bool> {
        match setup {
            "actpass" | "passive" => Some(true),
            "active" => Some(false),
            _ => None,
        }
    }

    /// Whether we do, having offered `actpass`.
    fn of_answer(setup: &str) -> Option<bool> {
        match setup {
            "active" => Some(false),
            "passive" => Some(true),
            _ => None,
        }
    }
}

/// What a section, or its session, says about encryption.
fn remote_keys(session: &Session, media: &Media, active: fn(&str) -> Option<bool>) -> Option<RemoteKeys> {
    let value = |name: &str| {
        let own = media.attribute(name);
        own.or_else(|| session.attributes.iter().find(|a| a.name == name).and_then(|a| a.value.as_deref()))
    };
    Some(RemoteKeys {
        fingerprint: value("fingerprint")?.to_owned(),
        active: active(value("setup")?.trim())?,
        statement: value(STATEMENT).unwrap_or_default().to_owned(),
    })
}

/// What a section says of ICE, unless its default address is none of its candidates (RFC 8839 section 4.2.5) or the other end has
/// found that of ours. Where candidates are to follow, there may be none yet.
fn remote_ice(session: &Session, media: &Media) -> Option<Ice> {
    let ice = Ice::of(session, media).filter(|_| media.attribute("ice-mismatch").is_none())?;
    let default = session.connection_of(media).and_then(Connection::to_ip).map(|ip| SocketAddr::new(ip, media.port));
    let fits = default.is_some_and(|d| d.ip().is_unspecified() || ice.candidates.iter().any(|c| c.addr == d));
    (fits || (ice.candidates.is_empty() && ice.trickle)).then_some(ice)
}

fn push_keys(media: &mut Media, keys: &LocalKeys, setup: &str) {
    media.attributes.push(Attribute::new("fingerprint", &keys.fingerprint));
    media.attributes.push(Attribute::new("setup", setup));
    if !keys.statement.is_empty() {
        media.attributes.push(Attribute::new(STATEMENT, &keys.statement));
    }
}

/// Puts together what both directions share. `remote` is the section of the other end's description `session`.
fn agree(
    session: &Session,
    remote: &Media,
    index: usize,
    mut codecs: Vec<Codec>,
    events: &[(u8, u8, u32)],
    wanted: Direction,
    rtcp_mux: bool,
) -> Result<Agreed, NegotiateError> {
    if codecs.is_empty() {
        return Err(NegotiateError::NoCodec);
    }
    let codec = codecs.remove(0);
    let ip = session.connection_of(remote).and_then(Connection::to_ip).ok_or(NegotiateError::NoAddress)?;
    let mut theirs = session.direction_of(remote);
    if ip.is_unspecified() {
        theirs = Direction::new(theirs.sends(), false);
    }
    let remote_rtp = SocketAddr::new(ip, remote.port);
    let remote_rtcp = match remote.rtcp() {
        _ if rtcp_mux => remote_rtp,
        Some((port, address)) => SocketAddr::new(address.and_then(|a| a.to_ip()).unwrap_or(ip), port),
        None => SocketAddr::new(ip, remote.port.saturating_add(1)),
    };
    let event = events.iter().find(|e| e.2 == codec.clock_rate).or_else(|| events.iter().find(|e| e.2 == 8000));
    let most = remote.max_ptime().unwrap_or(u32::MAX);
    Ok(Agreed {
        remote_rtp,
        remote_rtcp,
        rtcp_mux,
        codec,
        alternatives: codecs,
        dtmf_pt: event.map(|e| e.0),
        dtmf_receive_pt: event.map(|e| e.1),
        dtmf_clock: event.map_or(8000, |e| e.2),
        direction: wanted.and(theirs.reversed()),
        ptime: remote.ptime().unwrap_or(DEFAULT_PTIME).min(most),
        index,
        keys: None,
        ice: None,
    })
}

/// The session part of our descriptions.
fn describe(local: &LocalMedia) -> Session {
    let address = Connection::ip(local.addr.ip());
    Session {
        origin: Origin {
            user: "-".into(),
            session_id: local.session_id.to_string(),
            version: local.version.to_string(),
            address: address.clone(),
        },
        name: "-".into(),
        connection: Some(address),
        lines: Vec::new(),
        times: vec![('t', "0 0".into())],
        attributes: Vec::new(),
        media: Vec::new(),
    }
}

fn offered(local: &LocalMedia) -> Media {
    let mut media = Media::new("audio", local.addr.port(), "RTP/AVP", Vec::new());
    for codec in &local.codecs {
        push_codec(&mut media, codec.payload_type, codec);
    }
    for event in &local.dtmf {
        push_event(&mut media, *event);
    }
    finish(&mut media, local, local.direction, local.rtcp_mux);
    if let Some(keys) = &local.keys {
        push_keys(&mut media, keys, "actpass");
    }
    if let Some(ice) = &local.ice {
        ice.push(&mut media);
    }
    media
}

/// `local` with the payload types that `before`, our last description of the stream, used.
fn renumbered(before: &Media, local: &LocalMedia) -> LocalMedia {
    let used: Vec<(u8, RtpMap)> = formats(before).collect();
    let mut taken: Vec<u8> = used.iter().map(|(pt, _)| *pt).collect();
    let mut number = |name: &str, clock_rate: u32, channels: u8, wish: u8| {
        if let Some((pt, _)) = used.iter().find(|(_, map)| map.matches(name, clock_rate, channels)) {
            return *pt;
        }
        let free = std::iter::once(wish).chain(DYNAMIC).find(|pt| !taken.contains(pt)).unwrap_or(wish);
        taken.push(free);
        free
    };
    let mut local = local.clone();
    // In the order that they had: nobody switches codecs because of a hold.
    let place = |c: &CodecOffer| used.iter().position(|(_, map)| map.matches(c.name, c.clock_rate, c.channels));
    local.codecs.sort_by_key(|c| place(c).unwrap_or(usize::MAX));
    for codec in &mut local.codecs {
        codec.payload_type = number(codec.name, codec.clock_rate, codec.channels, codec.payload_type);
    }
    for event in &mut local.dtmf {
        event.payload_type = number(EVENT, event.clock_rate, 1, event.payload_type);
    }
    local
}

/// The same stream with port 0, without its attributes.
fn refused(media: &Media) -> Media {
    Media::new(&media.kind, 0, &media.proto, media.formats.clone())
}

fn push_codec(media: &mut Media, pt: u8, codec: &CodecOffer) {
    let map = RtpMap { name: codec.name.into(), clock_rate: codec.clock_rate, channels: codec.channels };
    media.formats.push(pt.to_string());
    media.attributes.push(Attribute::new("rtpmap", format_args!("{pt} {map}")));
    if !codec.fmtp.is_empty() {
        media.attributes.push(Attribute::new("fmtp", format_args!("{pt} {}", codec.fmtp)));
    }
}

fn push_event(media: &mut Media, event: EventOffer) {
    let EventOffer { payload_type: pt, clock_rate } = event;
    media.formats.push(pt.to_string());
    media.attributes.push(Attribute::new("rtpmap", format_args!("{pt} {EVENT}/{clock_rate}")));
    // The sixteen keys (RFC 4733 section 2.4.1).
    media.attributes.push(Attribute::new("fmtp", format_args!("{pt} 0-15")));
}

fn finish(media: &mut Media, local: &LocalMedia, direction: Direction, mux: bool) {
    if local.rtcp_port != local.addr.port().wrapping_add(1) {
        media.attributes.push(Attribute::new("rtcp", if mux { local.addr.port() } else { local.rtcp_port }));
    }
    if mux {
        media.attributes.push(Attribute::flag("rtcp-mux"));
    }
    media.attributes.push(Attribute::new("ptime", local.ptime));
    media.attributes.push(Attribute::flag(direction.name()));
}

/// The payload types of a section in order, each with what it stands for.
fn formats(media: &Media) -> impl Iterator<Item = (u8, RtpMap)> + '_ {
    media.formats.iter().filter_map(|format| {
        let pt = format.parse().ok()?;
        Some((pt, media.rtpmap(pt)?))
    })
}

fn is_event(map: &RtpMap) -> bool {
    map.name.eq_ignore_ascii_case(EVENT)
}

fn is_dtls(proto: &str) -> bool {
    matches!(proto, "UDP/TLS/RTP/SAVP" | "UDP/TLS/RTP/SAVPF")
}

fn is_plain_rtp(proto: &str) -> bool {
    matches!(proto, "RTP/AVP" | "RTP/AVPF")
}

const EVENT: &str = "telephone-event";
/// Payload types whose meaning a description gives (RFC 3551 section 6).
const DYNAMIC: std::ops::RangeInclusive<u8> = 96..=127;
/// RFC 3551 section 4.2.
const DEFAULT_PTIME: u32 = 20;
