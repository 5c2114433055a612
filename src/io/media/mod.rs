//! The media engine: threads that carry the voice of all calls, on one 20 ms clock.
//!
//! Whoever decides (the node, by way of its driver) opens a call's sockets with [`Engine::open`], tells
//! what signalling agreed on with [`Engine::start_call`] and [`Engine::update`], and ends it with
//! [`Engine::close`]. No method waits for a thread. What happens comes back through the callback as
//! [`Event`]s; it runs on a media thread and must not block.
//!
//! Each thread has its calls' sockets in one poll loop: datagrams are taken in when they come; every 20 ms,
//! by deadlines that do not drift, a frame is taken from each source, encoded and sent at once, and a frame
//! is played to each sink. Frames missed by a late wake-up are made up for; after a sleep of a second and
//! more (a suspended machine) the clock starts anew and the lost time is counted.
//!
//! Sources and sinks have their second 0 logged on [`clock`]: the moment at which the first sample of a
//! source is spoken, and at which the first sample of a sink is heard.
//!
//! Files are read and written on the media thread, through the page cache: a disk that stalls stalls its calls.
//!
//! A secured call speaks DTLS on its RTP socket before its voice and takes nothing in clear ([`crate::secure`]).
//!
//! With ICE a call has a socket on each address of this machine. STUN messages that come there are reported, not looked at; the voice,
//! RTCP and DTLS (told apart by RFC 7983) leave by the way that [`Engine::route`] told last; where [`Engine::second`] told one beside it,
//! both are probed here, and voice goes by either or both. Each of these addresses also takes and makes TCP connections, which are sockets
//! like the others to all of this.
//!
//! Left out until later work: forwarding and mixing.

mod call;
pub mod clock;
mod latch;
mod leg;
pub(super) mod ports;
mod stream;
mod tcp;
#[cfg(test)]
mod tests;
mod way;
mod worker;

pub use latch::Remote;
pub use ports::Local;

use crate::core::{Instant, Rng};
use crate::io::audio::{AudioError, SinkSpec, SourceSpec};
use crate::io::proxy::Proxy;
use crate::media::codec::CodecError;
use crate::media::dtmf::DtmfError;
use crate::media::session;
use crate::nat::ice::{Figures, Route, Second};
use crate::secure::{Fingerprint, Keys};
use ports::Ports;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use worker::{Command, Worker};

/// How the engine is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Address of the sockets.
    pub bind: IpAddr,
    /// Ports to choose from, RTP on an even one and RTCP on the next; none: the system chooses.
    pub ports: Option<RangeInclusive<u16>>,
    /// Threads that carry calls; 0: one for each processor, four at most.
    pub threads: usize,
    /// What calls are encrypted with.
    pub keys: Option<Keys>,
    /// Calls can be connected to over TCP, for ICE.
    pub tcp: bool,
    /// The HTTP proxy that relays are reached by over TLS where they cannot be straight.
    pub proxy: Option<Arc<Proxy>>,
}

/// What signalling agreed on for one call.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    /// The other end's addresses.
    pub remote: Remote,
    /// Codec, payload types and direction. Hold is `send: false, receive: false`.
    pub session: session::Config,
    /// Fingerprint of the other end's DTLS certificate and whether this end begins the handshake; none: in clear.
    pub secured: Option<(Fingerprint, bool)>,
    /// The way is found by ICE: `remote` says nothing, [`Engine::route`] tells the way.
    pub ice: bool,
}

/// What happens in a call.
#[derive(Debug)]
pub enum Event {
    /// Voice runs. Times are of [`clock::now`].
    Started {
        /// Which call.
        call: u64,
        /// When the first sample of the source is spoken.
        source_zero: Instant,
        /// When the first sample of the sink is heard.
        sink_zero: Instant,
    },
    /// The other end pressed a key.
    Dtmf {
        /// Which call.
        call: u64,
        /// Which key.
        digit: char,
    },
    /// The WAV source has been played; silence follows and the call stays.
    SourceEnded {
        /// Which call.
        call: u64,
    },
    /// The source or the sink failed and is left alone; the call stays.
    AudioFailed {
        /// Which call.
        call: u64,
        /// Why.
        error: AudioError,
    },
    /// The other end's stream said BYE.
    RemoteBye {
        /// Which call.
        call: u64,
    },
    /// Every second.
    Stats {
        /// Which call.
        call: u64,
        /// How it goes.
        stats: Box<CallStats>,
    },
    /// The call is closed, its recording complete; the last that is heard of it.
    Ended {
        /// Which call.
        call: u64,
        /// How it went.
        stats: Box<CallStats>,
    },
    /// A STUN message, or one of a relay's channels that is not the way's, came.
    Packet {
        /// Which call.
        call: u64,
        /// Address of the socket.
        local: SocketAddr,
        /// The sender.
        from: SocketAddr,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// How the two ways of a call are: when voice moves, and every second.
    Lanes {
        /// Which call.
        call: u64,
        /// Of both.
        figures: Figures,
    },
    /// Nothing was taken from the other end for a while: every second.
    Quiet {
        /// Which call.
        call: u64,
        /// For how long.
        quiet: Duration,
    },
    /// A relay of [`Engine::reach`] is reached: packets to and from it go by this socket.
    Reached {
        /// For which call.
        call: u64,
        /// Address of the socket.
        local: SocketAddr,
        /// The relay.
        relay: SocketAddr,
    },
    /// None is; or the connection to one has ended.
    Unreached {
        /// For which call.
        call: u64,
        /// Address of the socket that there was.
        local: Option<SocketAddr>,
    },
    /// The codec failed when the call was started or updated; the call has no voice.
    Failed {
        /// Which call.
        call: u64,
        /// Why.
        error: CodecError,
    },
    /// The call cannot be encrypted as agreed; nothing goes in or out.
    Unsecured {
        /// Which call.
        call: u64,
        /// Why.
        why: &'static str,
    },
}

/// Counters and measurements of one call.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct CallStats {
    /// Those of the session.
    pub session: session::Stats,
    /// When the first sample of the source was spoken.
    pub source_zero: Option<Instant>,
    /// When the first sample of the sink was heard.
    pub sink_zero: Option<Instant>,
    /// Where the other end's voice comes from, once it came.
    pub remote: Option<SocketAddr>,
    /// Datagrams from elsewhere, or not authentic, dropped.
    pub strangers: u64,
    /// Datagrams that the system would not send or receive.
    pub socket_errors: u64,
}

/// Why the engine did not do something.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No pair of ports is free.
    #[error("no free pair of media ports on {bind}{}: {source}", range.as_ref().map(|r| format!(" in {}-{}", r.start(), r.end())).unwrap_or_default())]
    Ports {
        /// Address.
        bind: IpAddr,
        /// The configured range.
        range: Option<RangeInclusive<u16>>,
        /// What the system said last.
        source: std::io::Error,
    },
    /// The media threads did not start.
    #[error("cannot start the media threads: {0}")]
    Thread(std::io::Error),
    /// The number is in use.
    #[error("call {0} is open already")]
    Open(u64),
    /// The call's voice runs already; an update was meant.
    #[error("the voice of call {0} runs already")]
    Running(u64),
    /// No such call.
    #[error("call {0} is not open")]
    Unknown(u64),
    /// The source or sink cannot be used.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// The digits cannot be sent.
    #[error(transparent)]
    Dtmf(#[from] DtmfError),
    /// The thread has more commands waiting than it takes.
    #[error("the media thread is overloaded")]
    Busy,
}

/// See the module. Dropping it ends all calls and waits for their recordings to be complete.
pub struct Engine {
    ports: Mutex<Ports>,
    rng: Mutex<Rng>,
    workers: Vec<Worker>,
    calls: Mutex<BTreeMap<u64, Known>>,
    snapshots: Snapshots,
}

/// The latest figures of each call; written by the media threads, several times a second.
type Snapshots = Arc<Mutex<BTreeMap<u64, CallStats>>>;
/// Where events go.
type OnEvent = Arc<Mutex<Box<dyn Fn(Event) + Send>>>;

/// What the engine remembers of an open call, to answer mistakes at once.
#[derive(Clone, Copy)]
struct Known {
    running: bool,
    telephone_event: bool,
}

impl Engine {
    /// Starts the threads. `rng` gives SSRCs and the like.
    pub fn start(config: EngineConfig, rng: Rng, on_event: Box<dyn Fn(Event) + Send>) -> Result<Engine, EngineError> {
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(4),
            threads => threads,
        };
        let snapshots = Snapshots::default();
        let on_event: OnEvent = Arc::new(Mutex::new(on_event));
        let zero = clock::now();
        let workers = (0..threads)
            .map(|index| {
                let (keys, proxy) = (config.keys.clone(), config.proxy.clone());
                Worker::start(index, zero, on_event.clone(), snapshots.clone(), keys, proxy)
            })
            .collect::<Result<_, _>>()
            .map_err(EngineError::Thread)?;
        let ports = Mutex::new(Ports::new(config.bind, config.ports, config.tcp));
        Ok(Engine { ports, rng: Mutex::new(rng), workers, calls: Mutex::default(), snapshots })
    }

    /// Sockets of calls to come are opened on another address of this machine.
    pub fn rebind(&self, bind: IpAddr) {
        lock(&self.ports).rebind(bind);
    }

    /// Opens the sockets of a call, for its SDP, with one on each of `beside`. `call` is a number of the caller's choice.
    pub fn open(&self, call: u64, beside: &[IpAddr]) -> Result<Local, EngineError> {
        if lock(&self.calls).contains_key(&call) {
            return Err(EngineError::Open(call));
        }
        let (local, sockets) = lock(&self.ports).open(beside)?;
        self.command(call, Command::Open { call, sockets })?;
        lock(&self.calls).insert(call, Known { running: false, telephone_event: false });
        Ok(local)
    }

    /// Opens further sockets for a call, on the addresses of now; those that it has stay until it ends.
    pub fn reopen(&self, call: u64, beside: &[IpAddr]) -> Result<Local, EngineError> {
        self.known(call)?;
        let (local, sockets) = lock(&self.ports).open(beside)?;
        self.command(call, Command::Open { call, sockets })?;
        Ok(local)
    }

    /// Sends a datagram by a socket of a call.
    pub fn send(&self, call: u64, local: SocketAddr, to: SocketAddr, bytes: Vec<u8>) -> Result<(), EngineError> {
        self.known(call)?;
        self.command(call, Command::Send { call, local, to, bytes })
    }

    /// Connects a call with the first of these relays (address and SHA-256 of the certificate) that can be reached over TLS.
    pub fn reach(&self, call: u64, relays: Vec<(SocketAddr, [u8; 32])>) -> Result<(), EngineError> {
        self.known(call)?;
        self.command(call, Command::Reach { call, relays })
    }

    /// Takes a packet of the voice in that came through a relay.
    pub fn take(&self, call: u64, from: SocketAddr, bytes: Vec<u8>) -> Result<(), EngineError> {
        self.known(call)?;
        self.command(call, Command::Take { call, from, bytes })
    }

    /// Tells the way of a call's voice; none: nothing is sent.
    pub fn route(&self, call: u64, route: Option<Route>) -> Result<(), EngineError> {
        self.known(call)?;
        self.command(call, Command::Route { call, route })
    }

    /// Tells a second way, by which a call's voice may go from now on as well; none: there is none any more.
    pub fn second(&self, call: u64, second: Option<Box<Second>>) -> Result<(), EngineError> {
        self.known(call)?;
        self.command(call, Command::Second { call, second })
    }

    /// Lets the voice of an opened call run. The audio is opened here, so that its errors come at once.
    pub fn start_call(&self, call: u64, voice: Voice, source: &SourceSpec, sink: &SinkSpec) -> Result<(), EngineError> {
        if self.known(call)?.running {
            return Err(EngineError::Running(call));
        }
        let rate = voice.session.codec.sample_rate;
        let (source, sink) = (source.open(rate)?, sink.open(rate)?);
        let rng = lock(&self.rng).fork();
        self.command(call, Command::Start { call, voice, source, sink, rng })?;
        self.agree(call, &voice)
    }

    /// Carries out a new agreement: another address, hold or resume, another codec. Source and sink go on.
    pub fn update(&self, call: u64, voice: Voice) -> Result<(), EngineError> {
        if !self.known(call)?.running {
            return Err(EngineError::Unknown(call));
        }
        let rng = lock(&self.rng).fork();
        self.command(call, Command::Update { call, voice, rng })?;
        self.agree(call, &voice)
    }

    /// Sends silence instead of the source.
    pub fn mute(&self, call: u64, muted: bool) -> Result<(), EngineError> {
        self.known(call)?;
        self.command(call, Command::Mute { call, muted })
    }

    /// Sends digits as telephone-events, each `duration` long (60 ms to 1 s).
    pub fn send_dtmf(&self, call: u64, digits: &str, duration: Duration) -> Result<(), EngineError> {
        if !self.known(call)?.telephone_event {
            return Err(DtmfError::NotAgreed.into());
        }
        for digit in digits.chars() {
            crate::rtp::event::code_of(digit).ok_or(DtmfError::Digit(digit))?;
        }
        self.command(call, Command::Dtmf { call, digits: digits.into(), duration })
    }

    /// Ends a call; [`Event::Ended`] follows, also for a call that was never started.
    pub fn close(&self, call: u64) -> Result<(), EngineError> {
        self.known(call)?;
        self.command(call, Command::Close { call })?;
        lock(&self.calls).remove(&call);
        Ok(())
    }

    /// The latest figures of a call whose voice runs, at most 200 ms old.
    pub fn stats(&self, call: u64) -> Option<CallStats> {
        lock(&self.snapshots).get(&call).copied()
    }

    fn agree(&self, call: u64, voice: &Voice) -> Result<(), EngineError> {
        let mut calls = lock(&self.calls);
        let known = calls.get_mut(&call).ok_or(EngineError::Unknown(call))?;
        *known = Known { running: true, telephone_event: voice.session.telephone_event.is_some() };
        Ok(())
    }

    fn known(&self, call: u64) -> Result<Known, EngineError> {
        lock(&self.calls).get(&call).copied().ok_or(EngineError::Unknown(call))
    }

    fn command(&self, call: u64, command: Command) -> Result<(), EngineError> {
        // `call % n` is below n, and there is always a worker.
        let worker = self.workers.get((call % self.workers.len().max(1) as u64) as usize);
        worker.ok_or(EngineError::Busy)?.send(command).map_err(|()| EngineError::Busy)
    }
}

/// A thread that died while holding a lock left counters behind, not broken invariants.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
