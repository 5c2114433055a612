//! Founding an office, and joining one by a code: what happens before a node runs.

use super::disk::{self, DataDir, DiskError};
use super::driver::unix_now;
use super::transport::{BindError, Config, Credentials, Endpoint, Event};
use crate::core::{ConnId, Transport};
use crate::identity::{
    ENROLMENT_TYPE, EnrolError, Identity, IdentityError, InviteCode, JoinAnswer, Joining, RecoverySheet,
};
use crate::sip::msg::{HeaderName, Message, Method, Via};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::mpsc;

/// How long one enroller address may take.
const ANSWER: Duration = Duration::from_secs(8);

/// Why an office was not founded or joined.
#[derive(Debug, Error)]
pub enum OfficeError {
    /// The directory belongs to somebody already.
    #[error("{0} already holds an identity")]
    Taken(String),
    /// The name of the office or of the user.
    #[error("{0}")]
    Name(IdentityError),
    /// What was typed is no code.
    #[error("the code cannot be read: {0}")]
    Code(EnrolError),
    /// Nobody answers at the addresses in the code.
    #[error("no answer from {0}")]
    NoAnswer(String),
    /// The enroller says no, and does not say why.
    #[error("the code was refused")]
    Refused,
    /// Whoever answered is not of the code's office.
    #[error("the answer is not from the office of this code: {0}")]
    Foreign(EnrolError),
    /// The data directory.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A socket or the link's certificate.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The operating system refused something else.
    #[error("{what}: {source}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl OfficeError {
    /// What to do next.
    pub fn next(&self) -> &'static str {
        match self {
            OfficeError::Taken(_) => "choose another --data",
            OfficeError::Name(_) => "choose another name",
            OfficeError::Code(_) => "check it for a typing error",
            OfficeError::NoAnswer(_) => "see that the administrator's chordial runs and can be reached from here",
            OfficeError::Refused => "ask the administrator for a new code; one works once, for a day",
            OfficeError::Foreign(_) => "do not go on; ask the administrator for a new code by another way",
            OfficeError::Disk(_) => "check its owner and mode, or choose another --data",
            OfficeError::Bind(_) | OfficeError::System { .. } => "see the cause and try again",
        }
    }
}

/// Founds an office: writes the founder's identity, gives the sheet that is printed once and kept nowhere.
///
/// # Errors
/// [`OfficeError`].
pub fn create(data: &DataDir, office: &str, user: &str) -> Result<(Identity, RecoverySheet), OfficeError> {
    free(data)?;
    let mut rng = super::seed::rng().map_err(|source| OfficeError::System { what: "reading randomness", source })?;
    let (identity, sheet) = Identity::found(office, user, None, unix_now(), &mut rng).map_err(OfficeError::Name)?;
    data.write(disk::IDENTITY, identity.to_bytes().reveal())?;
    Ok((identity, sheet))
}

/// Joins an office: redeems the code at one of its addresses and writes the identity that comes back. The enroller's
/// address is kept as the first peer to join by.
///
/// # Errors
/// [`OfficeError`].
pub fn join(data: &DataDir, code: &str, label: &str) -> Result<Identity, OfficeError> {
    free(data)?;
    let code = InviteCode::parse(code).map_err(OfficeError::Code)?;
    let addrs = code.addrs.clone();
    let mut rng = super::seed::rng().map_err(|source| OfficeError::System { what: "reading randomness", source })?;
    let joining = Joining::new(code, label, &mut rng).map_err(OfficeError::Name)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| OfficeError::System { what: "starting the runtime", source })?;
    let (answer, addr) = runtime.block_on(redeem(&joining, &addrs, &rng.token(8)))?;
    let identity = joining.finish(&answer, unix_now()).map_err(OfficeError::Foreign)?;
    data.write(disk::IDENTITY, identity.to_bytes().reveal())?;
    data.write(disk::PEERS, format!("{addr}\n").as_bytes())?;
    Ok(identity)
}

fn free(data: &DataDir) -> Result<(), OfficeError> {
    match data.read(disk::IDENTITY)? {
        Some(_) => Err(OfficeError::Taken(data.path().display().to_string())),
        None => Ok(()),
    }
}

async fn redeem(joining: &Joining, addrs: &[SocketAddr], token: &str) -> Result<(JoinAnswer, SocketAddr), OfficeError> {
    let credentials = Some(Credentials::joining(joining));
    let config = Config { credentials, ..Config::default() };
    let (endpoint, mut events) = Endpoint::bind(config)?;
    for (n, addr) in addrs.iter().enumerate() {
        let conn = ConnId(n as u64 + 1);
        endpoint.connect(conn, Transport::Tls, *addr, None);
        endpoint.write(conn, request(joining, *addr, token).to_bytes());
        match tokio::time::timeout(ANSWER, answer(&mut events, conn)).await {
            Ok(Some(reply)) if reply.status() == 200 => {
                let answer = JoinAnswer::decode(reply.body()).map_err(|e| OfficeError::Foreign(e.into()))?;
                return Ok((answer, *addr));
            }
            Ok(Some(_)) => return Err(OfficeError::Refused),
            Ok(None) | Err(_) => endpoint.close(conn),
        }
    }
    let list: Vec<_> = addrs.iter().map(SocketAddr::to_string).collect();
    Err(OfficeError::NoAnswer(list.join(", ")))
}

/// The final response on this connection; none when it closes first.
async fn answer(events: &mut mpsc::Receiver<Event>, wanted: ConnId) -> Option<Message> {
    while let Some(event) = events.recv().await {
        match event {
            Event::Frame { conn, bytes } if conn == wanted => match Message::parse_bytes(bytes) {
                Ok(message) if message.status() >= 200 => return Some(message),
                _ => {}
            },
            Event::ConnectFailed { conn, why } if conn == wanted => {
                tracing::warn!(%why, "the enroller cannot be reached");
                return None;
            }
            Event::Closed { conn, .. } if conn == wanted => return None,
            _ => {}
        }
    }
    None
}

fn request(joining: &Joining, addr: SocketAddr, token: &str) -> Message {
    let uri = format!("sip:{addr};transport=tls");
    let mut message = Message::request(Method::Register, &uri);
    message.push(HeaderName::Via, Via::new("TLS", "enrolment.invalid", None, &format!("z9hG4bK{token}")));
    message.push(HeaderName::MaxForwards, 1);
    message.push(HeaderName::From, format_args!("<sip:stranger@enrolment.invalid>;tag={token}"));
    message.push(HeaderName::To, format_args!("<{uri}>"));
    message.push(HeaderName::CallId, token);
    message.push(HeaderName::CSeq, "1 REGISTER");
    message.set_body(ENROLMENT_TYPE, joining.request().encode());
    message
}
