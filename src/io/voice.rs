//! Between the node's media commands and the media threads.

use super::audio::{SinkSpec, SourceSpec};
use super::media::{Engine, EngineError, Event, Remote, Voice};
use super::network;
use crate::media::codec;
use crate::media::session;
use crate::node::{MediaCommand, MediaInput};
use crate::secure::Keys;
use crate::ua::{CallId, MediaOpened, MediaPlan, MediaStats};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a digit sounds.
const DIGIT: Duration = Duration::from_millis(120);

/// The calls that the media threads carry, and what they play and record unless a call says otherwise.
pub(super) struct Voices {
    engine: Engine,
    source: SourceSpec,
    sink: SinkSpec,
    bind: IpAddr,
    opened: BTreeSet<CallId>,
    running: BTreeSet<CallId>,
}

impl Voices {
    pub fn new(engine: Engine, bind: IpAddr, source: SourceSpec, sink: SinkSpec) -> Voices {
        Voices { engine, source, sink, bind, opened: BTreeSet::new(), running: BTreeSet::new() }
    }

    /// Calls to come use another address of this machine.
    pub fn rebind(&mut self, bind: IpAddr) {
        self.bind = bind;
        self.engine.rebind(bind);
    }

    /// Carries out a command; what can be answered at once is answered.
    pub fn carry_out(&mut self, command: MediaCommand) -> Option<MediaInput> {
        match command {
            MediaCommand::Open { call } => {
                let beside = network::beside(self.bind);
                let first = self.opened.insert(call);
                let opened = match first {
                    true => self.engine.open(call.0, &beside),
                    false => self.engine.reopen(call.0, &beside),
                };
                match opened {
                    Ok(local) => {
                        let opened = MediaOpened { rtp: local.rtp, rtcp_port: local.rtcp.port() };
                        Some(MediaInput::Opened { call, opened, also: local.also, tcp: local.tcp })
                    }
                    Err(e) if first => Some(MediaInput::Failed { call, why: e.to_string() }),
                    Err(error) => {
                        tracing::warn!(call = call.0, %error, "a call under way gets no sockets on the new address");
                        None
                    }
                }
            }
            MediaCommand::Send { call, local, to, bytes } => {
                let sent = self.engine.send(call.0, local, to, bytes);
                sent.err().inspect(|e| tracing::debug!(%e, "a check was not sent")).and(None)
            }
            MediaCommand::Reach { call, relays } => match self.engine.reach(call.0, relays) {
                Ok(()) => None,
                Err(error) => {
                    tracing::debug!(call = call.0, %error, "no relay is looked for");
                    Some(MediaInput::Unreached { call, local: None })
                }
            },
            MediaCommand::Take { call, from, bytes } => {
                let taken = self.engine.take(call.0, from, bytes);
                taken.err().inspect(|e| tracing::debug!(%e, "a packet of a relay was lost")).and(None)
            }
            MediaCommand::Route { call, route } => {
                tracing::info!(call = call.0, ?route, "the way of the voice");
                let told = self.engine.route(call.0, route);
                told.err().inspect(|e| tracing::warn!(%e, "the voice keeps its old way")).and(None)
            }
            MediaCommand::Second { call, second } => {
                tracing::info!(call = call.0, route = ?second.as_ref().map(|s| s.route), "the second way of the voice");
                let told = self.engine.second(call.0, second);
                told.err().inspect(|e| tracing::warn!(%e, "the voice has one way")).and(None)
            }
            MediaCommand::Start { call, plan } => match self.start(call, &plan) {
                Ok(()) => None,
                Err(why) => Some(MediaInput::Failed { call, why }),
            },
            MediaCommand::Mute { call, muted } => {
                let told = self.engine.mute(call.0, muted);
                told.err().inspect(|e| tracing::warn!(%e, "a call is not muted as it was asked")).and(None)
            }
            MediaCommand::Dtmf { call, digit } => {
                let sent = self.engine.send_dtmf(call.0, &digit.to_string(), DIGIT);
                sent.err().inspect(|e| tracing::warn!(%e, "a digit was not sent")).and(None)
            }
            MediaCommand::Close { call } => {
                self.running.remove(&call);
                self.opened.remove(&call);
                match self.engine.close(call.0) {
                    Ok(()) => None,
                    // It was never opened: there are no figures to wait for.
                    Err(_) => Some(MediaInput::Closed { call, stats: MediaStats::default() }),
                }
            }
        }
    }

    fn start(&mut self, call: CallId, plan: &MediaPlan) -> Result<(), String> {
        let agreed = &plan.agreed;
        let codec = codec::find(&agreed.codec.name).ok_or_else(|| format!("no codec {}", agreed.codec.name))?;
        let session = session::Config {
            codec,
            payload_type: agreed.codec.payload_type,
            telephone_event: agreed.dtmf_pt.map(|pt| (pt, agreed.dtmf_clock)),
            ptime_ms: u8::try_from(agreed.ptime).unwrap_or(20),
            send: agreed.direction.sends(),
            receive: agreed.direction.receives(),
        };
        let remote = Remote { rtp: agreed.remote_rtp, rtcp: agreed.remote_rtcp, rtcp_mux: agreed.rtcp_mux };
        let secured = plan.secured.map(|s| (s.fingerprint, s.client));
        let voice = Voice { remote, session, secured, ice: plan.ice.is_some() };
        let muted = |e: EngineError| e.to_string();
        if self.running.contains(&call) {
            self.engine.mute(call.0, plan.silent).map_err(muted)?;
            return self.engine.update(call.0, voice).map_err(|e| e.to_string());
        }
        let source = plan.play.as_deref().map_or(Ok(self.source.clone()), source);
        let sink = plan.record.as_deref().map_or(Ok(self.sink.clone()), sink);
        let (source, sink) = (source?, sink?);
        self.engine.start_call(call.0, voice, &source, &sink).map_err(|e: EngineError| e.to_string())?;
        self.engine.mute(call.0, plan.silent).map_err(muted)?;
        self.running.insert(call);
        Ok(())
    }
}

/// A DTLS certificate for the calls of this run (P-256, self-signed: only its fingerprint counts).
pub(super) fn keys() -> Result<Keys, String> {
    let made = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).and_then(|key| {
        let params = rcgen::CertificateParams::new(Vec::new())?;
        Ok(Keys::new(params.self_signed(&key)?.der().to_vec(), key.serialize_der()))
    });
    made.map_err(|e| format!("no certificate for the encryption of calls: {e}"))
}

/// Reads `auto`, `device`, `device:NAME`, `wav:FILE`, `tone` or `null`.
pub(super) fn source(text: &str) -> Result<SourceSpec, String> {
    text.parse::<SourceSpec>().map_err(|e| e.to_string())
}

/// Reads `auto`, `device`, `device:NAME`, `wav:FILE` or `null`.
pub(super) fn sink(text: &str) -> Result<SinkSpec, String> {
    text.parse::<SinkSpec>().map_err(|e| e.to_string())
}

/// Hands what the media threads say to the node. They must not wait for it: what does not fit is dropped, and a call whose
/// last figures were dropped is reported without.
pub(super) fn tell(node: &mpsc::Sender<MediaInput>, event: Event) {
    let input = match event {
        Event::Dtmf { call, digit } => MediaInput::Dtmf { call: CallId(call), digit },
        Event::Ended { call, stats } => {
            let s = stats.session;
            let stats = MediaStats {
                sent: s.sent,
                received: s.received,
                lost: s.lost,
                jitter_ms: s.jitter_ms,
                rtt_ms: s.rtt_ms,
            };
            MediaInput::Closed { call: CallId(call), stats }
        }
        Event::Packet { call, local, from, bytes } => MediaInput::Packet { call: CallId(call), local, from, bytes },
        Event::Lanes { call, figures } => MediaInput::Lanes { call: CallId(call), figures },
        Event::Reached { call, local, relay } => MediaInput::Reached { call: CallId(call), local, relay },
        Event::Unreached { call, local } => MediaInput::Unreached { call: CallId(call), local },
        Event::Failed { call, error } => MediaInput::Failed { call: CallId(call), why: error.to_string() },
        Event::Quiet { call, quiet } => MediaInput::Quiet { call: CallId(call), quiet },
        Event::Unsecured { call, why } => MediaInput::Unsecured { call: CallId(call), why: why.into() },
        Event::AudioFailed { call, error } => return tracing::warn!(call, %error, "audio"),
        Event::Started { .. } | Event::SourceEnded { .. } | Event::RemoteBye { .. } | Event::Stats { .. } => return,
    };
    if node.try_send(input).is_err() {
        tracing::warn!("the node is too busy to hear from the media threads");
    }
}
