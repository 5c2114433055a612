//! Our ICE agent and one that other people wrote (the crate `webrtc-ice`), over loopback, each in both roles: they agree on a
//! pair, and what is not STUN passes both ways.

use chordial::core::Rng;
use chordial::io::media::clock;
use chordial::nat::ice::{Agent, Clocks, Gatherer, Output, Pair, is_stun};
use chordial::sdp::ice::{Candidate, Credentials, Ice};
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};
use webrtc_ice::agent::agent_config::AgentConfig;
use webrtc_ice::candidate::CandidateType;
use webrtc_ice::candidate::candidate_base::unmarshal_candidate;
use webrtc_ice::mdns::MulticastDnsMode;
use webrtc_ice::network_type::NetworkType;
use webrtc_util::Conn;

const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const OURS: &[u8] = b"\x80 what we say";
pub(crate) const THEIRS: &[u8] = b"\x80 what they say";

/// Our end, until a pair is chosen and their words came; what was chosen.
pub(crate) fn ours(socket: &UdpSocket, agent: &mut Agent) -> Pair {
    let (end, local) = (Instant::now() + DEADLINE, socket.local_addr().unwrap());
    let (mut chosen, mut heard) = (None, false);
    let mut buffer = [0; 2048];
    while Instant::now() < end {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            match is_stun(&buffer[..length]) {
                true => _ = agent.handle(clock::now(), local, from, &buffer[..length]),
                false => heard |= &buffer[..length] == THEIRS,
            }
        }
        if agent.poll_timeout().is_some_and(|due| due <= clock::now()) {
            agent.handle_timeout(clock::now());
        }
        while let Some(output) = agent.poll_output() {
            match output {
                Output::Send(datagram) => _ = socket.send_to(&datagram.bytes, datagram.to),
                Output::Selected(pair) => chosen = Some(pair),
                other => panic!("{other:?}"),
            }
        }
        if let Some(pair) = chosen {
            let _ = socket.send_to(OURS, pair.remote);
            if heard {
                return pair;
            }
        }
    }
    panic!("nothing within a minute: chosen {chosen:?}, heard {heard}");
}

fn meet(controlling: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut rng = Rng::from_seed(u64::from(controlling));
    let mut gatherer = Gatherer::default();
    gatherer.add_socket(clock::now(), socket.local_addr().unwrap(), &[], &mut rng);
    let credentials = Credentials::draw(&mut rng);
    let clocks = Clocks { now: clock::now(), system: Instant::now() };
    let mut agent = Agent::new(clocks, clock::now(), &credentials, controlling, rng.next_u64());
    gatherer.found().iter().for_each(|local| agent.add_local(clock::now(), local));

    let config = AgentConfig {
        network_types: vec![NetworkType::Udp4],
        candidate_types: vec![CandidateType::Host],
        multicast_dns_mode: MulticastDnsMode::Disabled,
        include_loopback: true,
        ip_filter: Arc::new(Some(Box::new(|ip| ip.is_loopback()))),
        is_controlling: !controlling,
        ..AgentConfig::default()
    };
    let (theirs, described) = runtime.block_on(async {
        let theirs = Arc::new(webrtc_ice::agent::Agent::new(config).await.unwrap());
        let (gathered, mut all) = tokio::sync::mpsc::channel(16);
        theirs.on_candidate(Box::new(move |candidate| {
            let gathered = gathered.clone();
            Box::pin(async move { _ = gathered.send(candidate.map(|c| c.marshal())).await })
        }));
        theirs.gather_candidates().unwrap();
        let mut candidates = Vec::new();
        while let Some(Some(line)) = all.recv().await {
            candidates.push(Candidate::parse(&line).unwrap_or_else(|| panic!("{line}")));
        }
        assert!(!candidates.is_empty());
        let (ufrag, pwd) = theirs.get_local_user_credentials().await;
        let text = candidates.iter().map(|c| format!("a=candidate:{c}\r\n")).collect::<String>();
        let described = format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n{text}");
        (theirs, Ice::parse_fragment(described.as_bytes()).unwrap())
    });
    for local in gatherer.candidates() {
        let candidate: Arc<dyn webrtc_ice::candidate::Candidate + Send + Sync> =
            Arc::new(unmarshal_candidate(&local.to_string()).unwrap());
        let entered = runtime.enter();
        theirs.add_remote_candidate(&candidate).unwrap();
        drop(entered);
    }
    let remote = described.candidates[0].addr;
    agent.set_remote(clock::now(), &described);
    let (ufrag, pwd) = (credentials.ufrag.clone(), credentials.pwd.reveal().clone());
    let there = runtime.spawn(async move {
        let (_keep, cancel) = tokio::sync::mpsc::channel(1);
        let conn: Arc<dyn Conn + Send + Sync> = match controlling {
            true => theirs.accept(cancel, ufrag, pwd).await.unwrap(),
            false => theirs.dial(cancel, ufrag, pwd).await.unwrap(),
        };
        let mut buffer = [0; 2048];
        loop {
            conn.send(THEIRS).await.unwrap();
            let heard = tokio::time::timeout(Duration::from_millis(50), conn.recv(&mut buffer)).await;
            if heard.is_ok_and(|length| length.is_ok_and(|n| &buffer[..n] == OURS)) {
                // Once more, should the last one have been early.
                conn.send(THEIRS).await.unwrap();
                return;
            }
        }
    });
    let pair = ours(&socket, &mut agent);
    assert_eq!((pair.local, pair.remote), (socket.local_addr().unwrap(), remote));
    let heard = runtime.block_on(async { tokio::time::timeout(DEADLINE, there).await });
    heard.expect("they hear us within a minute").unwrap();
}

#[test]
fn we_control_another_agent() {
    meet(true);
}

#[test]
fn another_agent_controls_us() {
    meet(false);
}
