//! Joining an office by six digits: find the machine that shows them, prove to know them, take the long code, enrol by that.

use super::discovery;
use super::disk::DataDir;
use super::office::{ANSWER, OfficeError, answer, free, join_by, request};
use super::proxy::Proxy;
use super::transport::{Config, Credentials, Endpoint, Event};
use crate::core::{ConnId, Rng, Transport};
use crate::identity::{
    Identity, InviteCode, KeyPair, PAIRING_TYPE, PairingAnswer, PairingJoiner, PairingRequest, PublicKey, ShortCode,
};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long peers are looked for on the local network.
const LOOK: Duration = Duration::from_secs(3);

/// Joins by the digits at one of `via`, or at whichever machine of the local network waits for some.
///
/// # Errors
/// [`OfficeError`].
pub fn join(
    data: &DataDir,
    code: &ShortCode,
    via: &[SocketAddr],
    label: &str,
    told: impl Fn(&str),
) -> Result<Identity, OfficeError> {
    free(data)?;
    let mut rng = super::seed::rng().map_err(|source| OfficeError::System { what: "reading randomness", source })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| OfficeError::System { what: "starting the runtime", source })?;
    let invite = runtime.block_on(pair(code, via, &mut rng, &told))?;
    told("enrolling");
    join_by(data, invite, label)
}

async fn pair(
    code: &ShortCode,
    via: &[SocketAddr],
    rng: &mut Rng,
    told: &impl Fn(&str),
) -> Result<InviteCode, OfficeError> {
    let mut addrs = via.to_vec();
    if addrs.is_empty() {
        told("looking for the inviter on the local network");
        addrs = discovery::browse(LOOK).await.unwrap_or_default();
    }
    let link = KeyPair::generate(rng);
    let credentials = Some(Credentials::stranger(link.clone(), None));
    let config =
        Config { credentials, proxy: Proxy::of_environment(|name| std::env::var(name).ok()), ..Config::default() };
    let (endpoint, mut events) = Endpoint::bind(config)?;
    // Everybody is asked for a first message, which costs nobody a try; who waits for digits answers.
    let mut waiting = Vec::new();
    for (n, addr) in addrs.iter().enumerate() {
        let conn = ConnId(n as u64 + 1);
        endpoint.connect(conn, Transport::Tls, *addr, None);
        let Ok(Some(inviter)) = tokio::time::timeout(ANSWER, opened(&mut events, conn)).await else { continue };
        let joiner = PairingJoiner::new(code, link.public(), inviter, rng);
        let hello = request(*addr, &rng.token(8), PAIRING_TYPE, joiner.hello().encode());
        endpoint.write(conn, hello.to_bytes());
        if let Ok(Some(reply)) = tokio::time::timeout(ANSWER, answer(&mut events, conn)).await
            && reply.status() == 200
            && let Ok(theirs) = PairingAnswer::decode(reply.body())
        {
            waiting.push((conn, *addr, joiner, theirs));
        }
    }
    if waiting.len() > 1 {
        let list: Vec<_> = waiting.iter().map(|(_, addr, ..)| addr.to_string()).collect();
        return Err(OfficeError::SeveralPair(list.join(", ")));
    }
    let (conn, addr, joiner, theirs) = waiting.pop().ok_or(OfficeError::NobodyPairs)?;
    told(&format!("pairing with {addr}"));
    let (proof, key) = joiner.prove(&theirs).map_err(|_| OfficeError::WrongDigits)?;
    let PairingRequest::Proof { session, .. } = proof else { return Err(OfficeError::WrongDigits) };
    endpoint.write(conn, request(addr, &rng.token(8), PAIRING_TYPE, proof.encode()).to_bytes());
    let reply = tokio::time::timeout(ANSWER, answer(&mut events, conn)).await;
    let Ok(Some(reply)) = reply else { return Err(OfficeError::NoAnswer(addr.to_string())) };
    let sealed = PairingAnswer::decode(reply.body()).ok().filter(|_| reply.status() == 200);
    sealed.and_then(|sealed| key.open(&session, &sealed)).ok_or(OfficeError::WrongDigits)
}

/// The key that the link proves for its other end; none when it does not come up.
async fn opened(events: &mut mpsc::Receiver<Event>, wanted: ConnId) -> Option<PublicKey> {
    while let Some(event) = events.recv().await {
        match event {
            Event::Connected { conn, peer, .. } if conn == wanted => return peer.member().map(|p| p.device),
            Event::ConnectFailed { conn, .. } | Event::Closed { conn, .. } if conn == wanted => return None,
            _ => {}
        }
    }
    None
}
