//! What the user agent and the media threads tell each other about a call's voice.

use super::{CallId, Output, State, Ua};
use crate::core::Instant;
use crate::media::codec;
use crate::sdp::Direction;
use crate::sdp::negotiate::{Agreed, CodecOffer, EventOffer, LocalMedia};
use std::net::SocketAddr;

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
    /// Audio source instead of the configured one.
    pub play: Option<String>,
    /// Audio sink instead of the configured one.
    pub record: Option<String>,
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

/// The description of our end.
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

    pub(super) fn start_media(&mut self, id: CallId, agreed: Agreed) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.codec = agreed.codec.name.clone();
        call.media_started = true;
        let plan = MediaPlan { agreed, play: call.play.clone(), record: call.record.clone() };
        self.out.push_back(Output::StartMedia { call: id, plan: Box::new(plan) });
    }
}
