//! What the user agent and the media threads tell each other about a call's voice.

use super::{CallId, Output, State, Ua};
use crate::config;
use crate::core::Instant;
use crate::identity::{KeyPair, PublicKey};
use crate::media::codec;
use crate::sdp::Direction;
use crate::sdp::ice::{self, Candidate, Credentials};
use crate::sdp::negotiate::{Agreed, CodecOffer, EventOffer, LocalKeys, LocalMedia};
use crate::secure::{Fingerprint, Role, Statement};
use std::net::SocketAddr;

/// What this user agent encrypts with.
#[derive(Debug, Clone)]
pub struct VoiceKeys {
    /// Signs for the fingerprint.
    pub device: KeyPair,
    /// Of the DTLS certificate that the media threads show.
    pub fingerprint: Fingerprint,
}

/// A call's encryption, as agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Secured {
    /// Of the certificate that the other end has to show.
    pub fingerprint: Fingerprint,
    /// This end begins the handshake.
    pub client: bool,
    /// The device that signed for the fingerprint; none when nobody did, as a standard phone.
    pub signer: Option<PublicKey>,
}

/// Which description of a call is meant: what its signature covers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Described<'a> {
    pub role: Role,
    pub call_id: &'a str,
    /// The offerer's.
    pub tag: &'a str,
}

/// The sockets taken for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaOpened {
    /// RTP, as the other end is told.
    pub rtp: SocketAddr,
    /// RTCP's port.
    pub rtcp_port: u16,
}

/// How a call's voice flows.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaPlan {
    /// Codec, addresses, direction.
    pub agreed: Agreed,
    /// Encryption; none: in clear.
    pub secured: Option<Secured>,
    /// ICE; none: media go to the address in `agreed`.
    pub ice: Option<IcePlan>,
    /// Audio source instead of the configured one.
    pub play: Option<String>,
    /// Audio sink instead of the configured one.
    pub record: Option<String>,
    /// Silence goes out instead of the source: muted, on hold, or not answered yet.
    pub silent: bool,
}

/// A call's ICE, as agreed. Other credentials of the other end than before are a restart (RFC 8445 section 9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IcePlan {
    /// Ours.
    pub local: Credentials,
    /// The other end's, with its candidates so far.
    pub remote: ice::Ice,
    /// This end made the first offer.
    pub controlling: bool,
}

/// A call's ICE while it is talked over.
#[derive(Debug, Default)]
pub(super) struct CallIce {
    /// Where this end may be; empty: no ICE in this call.
    pub candidates: Vec<Candidate>,
    /// How many of them the other end knows.
    pub told: usize,
    /// Of our latest description.
    pub local: Option<Credentials>,
    /// Of the other end's latest.
    pub remote: Option<ice::Ice>,
    /// This end made the first offer.
    pub controlling: bool,
}

/// A call's last figures.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MediaStats {
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets received.
    pub received: u64,
    /// RTP packets lost on the way here.
    pub lost: u64,
    /// Interarrival jitter, milliseconds.
    pub jitter_ms: f64,
    /// Round trip by RTCP, milliseconds.
    pub rtt_ms: Option<f64>,
}

/// Our codecs in the order of preference, those with no static payload type from 96 on (RFC 3551).
fn offers(names: &[String]) -> Vec<CodecOffer> {
    let found = names.iter().filter_map(|name| codec::find(name)).enumerate();
    let offer = |(n, codec): (usize, &codec::Codec)| CodecOffer {
        name: codec.name,
        payload_type: codec.static_payload_type.unwrap_or(96 + n as u8 % 4),
        clock_rate: codec.clock_rate,
        channels: codec.channels,
        fmtp: codec.fmtp.to_owned(),
    };
    found.map(offer).collect()
}

/// The description of our end, without encryption.
pub(super) fn local(opened: MediaOpened, codecs: &[String], session_id: u64, version: u64) -> LocalMedia {
    let codecs = offers(codecs);
    let mut dtmf: Vec<EventOffer> = Vec::new();
    for codec in &codecs {
        if dtmf.iter().all(|d| d.clock_rate != codec.clock_rate) {
            let payload_type = if codec.clock_rate == 8_000 { 101 } else { 102 };
            dtmf.push(EventOffer { payload_type, clock_rate: codec.clock_rate });
        }
    }
    LocalMedia {
        addr: opened.rtp,
        rtcp_port: opened.rtcp_port,
        rtcp_mux: false,
        codecs,
        dtmf,
        ptime: 20,
        session_id,
        version,
        direction: Direction::SendRecv,
        keys: None,
        ice: None,
    }
}

impl Ua {
    /// The sockets of [`Output::OpenMedia`] are there.
    pub fn media_opened(&mut self, now: Instant, id: CallId, opened: MediaOpened) {
        let Some(call) = self.calls.get_mut(&id) else {
            self.out.push_back(Output::CloseMedia { call: id });
            return;
        };
        call.opened = Some(opened);
        self.go_on(now, id);
    }

    /// Where this end of a call may be, all that is known by now: from the first sockets until the call ends, and again whenever
    /// one more is found. Without any, the call has no ICE.
    pub fn candidates(&mut self, id: CallId, candidates: Vec<Candidate>) {
        if let Some(call) = self.calls.get_mut(&id).filter(|_| self.profile.ice != config::Ice::Off) {
            call.ice.candidates = candidates;
            self.trickle(id);
        }
    }

    /// The sockets of [`Output::OpenMedia`] could not be had.
    pub fn media_failed(&mut self, now: Instant, id: CallId, why: &str) {
        self.give_up(now, id, 500, format!("no media: {why}"));
    }

    /// The last figures of a call whose media were closed; the call's report goes out with them.
    pub fn media_closed(&mut self, now: Instant, id: CallId, stats: MediaStats) {
        let Some(call) = self.calls.get(&id) else { return };
        if call.state == State::Ending {
            self.report(now, id, stats);
        }
    }

    /// The same with our keys, signed for.
    pub(super) fn local_keyed(&self, now: Instant, local: LocalMedia, described: Described<'_>) -> LocalMedia {
        let Some(keys) = &self.profile.keys else { return local };
        let Described { role, call_id, tag } = described;
        let statement = Statement { role, call_id, tag, fingerprint: keys.fingerprint };
        let statement = statement.sign(&keys.device, self.unix(now));
        let keys = LocalKeys { fingerprint: keys.fingerprint.to_string(), statement };
        LocalMedia { rtcp_mux: true, keys: Some(keys), ..local }
    }

    /// The same with ICE under these credentials, where the call has it.
    pub(super) fn local_ice(&mut self, id: CallId, local: LocalMedia, credentials: Option<&Credentials>) -> LocalMedia {
        let (Some(call), Some(credentials)) = (self.calls.get_mut(&id), credentials) else { return local };
        if call.ice.candidates.is_empty() {
            return local;
        }
        call.ice.told = call.ice.candidates.len();
        let candidates = call.ice.candidates.clone();
        let ice = ice::Ice { credentials: credentials.clone(), lite: false, trickle: true, candidates };
        LocalMedia { rtcp_mux: true, ice: Some(ice), ..local }
    }

    /// What was agreed, with what was agreed about encryption.
    pub(super) fn with_keys(
        &self,
        now: Instant,
        agreed: Agreed,
        described: Described<'_>,
    ) -> Result<(Agreed, Option<Secured>), String> {
        let secured = self.secured(now, &agreed, described).map_err(str::to_owned)?;
        Ok((agreed, secured))
    }

    /// What was agreed about encryption; `described` is the other end's description. An error when there has to be some and is
    /// none, or when the fingerprint or the signature for it is not what it should be.
    pub(super) fn secured(
        &self,
        now: Instant,
        agreed: &Agreed,
        described: Described<'_>,
    ) -> Result<Option<Secured>, &'static str> {
        if self.profile.ice == config::Ice::On && agreed.ice.is_none() {
            return Err("the other end has no ICE");
        }
        let Some(keys) = &agreed.keys else {
            return if self.profile.encrypted_only { Err("the other end does not encrypt") } else { Ok(None) };
        };
        let fingerprint = Fingerprint::parse(&keys.fingerprint).ok_or("a fingerprint of another kind than SHA-256")?;
        let Described { role, call_id, tag } = described;
        let signer = match keys.statement.as_str() {
            "" => None,
            value => {
                let statement = Statement { role, call_id, tag, fingerprint };
                let signer = statement.signer(value, self.unix(now));
                Some(signer.ok_or("the keys of the call were changed on the way, or a clock is wrong")?)
            }
        };
        Ok(Some(Secured { fingerprint, client: keys.active, signer }))
    }

    pub(super) fn start_media(&mut self, id: CallId, agreed: Agreed, secured: Option<Secured>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.codec = agreed.codec.name.clone();
        call.media_started = true;
        call.ice.remote = agreed.ice.clone();
        let both = call.ice.local.clone().zip(agreed.ice.clone());
        let ice = both.map(|(local, remote)| IcePlan { local, remote, controlling: call.ice.controlling });
        let (play, record, silent) = (call.play.clone(), call.record.clone(), call.is_silent());
        let plan = MediaPlan { agreed, secured, ice, play, record, silent };
        let caller = call.invited_by.clone();
        self.out.push_back(Output::StartMedia { call: id, caller, plan: Box::new(plan) });
    }
}
