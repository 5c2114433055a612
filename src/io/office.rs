//! Founding an office, joining one by a code, recovery and backup: what happens before a node runs.

use super::disk::{self, DataDir, DiskError};
use super::driver::unix_now;
use super::proxy::Proxy;
use super::transport::{BindError, Config, Credentials, Endpoint, Event};
use crate::core::{ConnId, Transport};
use crate::identity::login::LoginError;
use crate::identity::{
    BackupError, CodeKind, DeviceAnswer, ENROLMENT_TYPE, EnrolError, Identity, IdentityError, InviteCode, JoinAnswer,
    Joining, RecoverySheet, open_backup, seal_backup,
};
use crate::sip::msg::{HeaderName, Message, Method, Via};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::mpsc;

/// What an archive holds: keys, book, accounts, revocations, peers, offices that were merged.
const BACKED_UP: [&str; 6] = [disk::IDENTITY, disk::PHONES, disk::REVOCATIONS, disk::PEERS, disk::FORMER, disk::MERGES];
/// How long one enroller address may take.
pub(super) const ANSWER: Duration = Duration::from_secs(8);

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
    /// No supernode of the office was found.
    #[error("no peer of the office {0} was found")]
    NotFound(String),
    /// Name or password.
    #[error("{0}")]
    Login(LoginError),
    /// Too many attempts, or not now.
    #[error("the office wants no further attempt for {0} seconds")]
    Later(u64),
    /// What the password opened names another root than the link leads to.
    #[error("{0} is not of the office that the password opens")]
    FalseOffice(SocketAddr),
    /// A contact link of somebody who is in an office.
    #[error("the link leads into the office {0}, which one joins by an invite")]
    NoFamily(String),
    /// The name is the inviter's own.
    #[error("{0} is who invites")]
    InvitersName(String),
    /// Nobody on the network shows six digits.
    #[error("no machine here waits for a short code")]
    NobodyPairs,
    /// More than one does.
    #[error("several machines here wait for a short code: {0}")]
    SeveralPair(String),
    /// The digits are wrong, or somebody sits between.
    #[error("the short code was refused")]
    WrongDigits,
    /// The enroller says no, and does not say why.
    #[error("the code was refused")]
    Refused,
    /// Whoever answered is not of the code's office.
    #[error("the answer is not from the office of this code: {0}")]
    Foreign(EnrolError),
    /// The recovery sheet.
    #[error("the recovery sheet cannot be read: {0}")]
    Sheet(EnrolError),
    /// An archive.
    #[error("{0}")]
    Backup(#[from] BackupError),
    /// What an archive or the directory holds is no identity.
    #[error("the identity in it cannot be used: {0}")]
    Identity(IdentityError),
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
            OfficeError::NotFound(_) => "name a peer of it with --via HOST:PORT",
            OfficeError::Login(_) => {
                "try again; whoever has a device of yours can set a new one with chordial password"
            }
            OfficeError::Later(_) => "try again then",
            OfficeError::FalseOffice(_) => "do not go on; name another peer with --via",
            OfficeError::NoFamily(_) => "ask an administrator there for chordial invite USER",
            OfficeError::InvitersName(_) => "choose another --name; their further devices are theirs to add",
            OfficeError::NobodyPairs => {
                "run chordial office invite USER --pair there, or name that machine with --via HOST:PORT"
            }
            OfficeError::SeveralPair(_) => "name the right one with --via HOST:PORT",
            OfficeError::WrongDigits => "read them off the screen again; after three wrong ones a new invite is needed",
            OfficeError::Refused => {
                "ask for a new code; one works once, an administrator's for a day, a device's for an hour"
            }
            OfficeError::Foreign(_) => "do not go on; ask the administrator for a new code by another way",
            OfficeError::Sheet(_) => "type the groups as they are on the sheet",
            OfficeError::Backup(BackupError::Closed) => "type the passphrase again, or take another copy of the file",
            OfficeError::Backup(_) => "name a file that chordial office backup wrote",
            OfficeError::Identity(_) => "take another copy, or ask the administrator for a new code",
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
    join_by(data, InviteCode::parse(code).map_err(OfficeError::Code)?, label)
}

pub(super) fn join_by(data: &DataDir, code: InviteCode, label: &str) -> Result<Identity, OfficeError> {
    free(data)?;
    if code.kind == CodeKind::Merge {
        return Err(OfficeError::Code(EnrolError::NotACode));
    }
    let addrs = code.addrs.clone();
    let mut rng = super::seed::rng().map_err(|source| OfficeError::System { what: "reading randomness", source })?;
    let joining = Joining::new(code, label, &mut rng).map_err(OfficeError::Name)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| OfficeError::System { what: "starting the runtime", source })?;
    let (answer, addr) = runtime.block_on(redeem(&joining, &addrs, &rng.token(8)))?;
    let foreign = |fault: IdentityError| OfficeError::Foreign(fault.into());
    let identity = match joining.kind() {
        CodeKind::Invite => joining.finish(&JoinAnswer::decode(&answer).map_err(foreign)?, unix_now()),
        CodeKind::Merge => return Err(OfficeError::Code(EnrolError::NotACode)),
        CodeKind::Device => joining.finish_device(&DeviceAnswer::decode(&answer).map_err(foreign)?, unix_now()),
    };
    let identity = identity.map_err(OfficeError::Foreign)?;
    data.write(disk::IDENTITY, identity.to_bytes().reveal())?;
    data.write(disk::PEERS, format!("{addr}\n").as_bytes())?;
    Ok(identity)
}

/// Makes this machine an administrator's by the office's recovery sheet, with new keys and an empty book.
///
/// # Errors
/// [`OfficeError`].
pub fn recover(data: &DataDir, office: &str, user: &str, sheet: &str) -> Result<Identity, OfficeError> {
    free(data)?;
    let sheet = RecoverySheet::parse(office, sheet).map_err(OfficeError::Sheet)?;
    let mut rng = super::seed::rng().map_err(|source| OfficeError::System { what: "reading randomness", source })?;
    let identity = Identity::restore(&sheet, user, None, unix_now(), &mut rng).map_err(OfficeError::Name)?;
    data.write(disk::IDENTITY, identity.to_bytes().reveal())?;
    Ok(identity)
}

/// The archive of everything in the data directory that a device must not lose.
///
/// # Errors
/// [`OfficeError`].
pub fn backup(data: &DataDir, passphrase: &str) -> Result<Vec<u8>, OfficeError> {
    let mut files = Vec::new();
    for name in BACKED_UP {
        if let Some(bytes) = data.read(name)? {
            files.push((name.to_owned(), bytes));
        }
    }
    let mut rng = super::seed::rng().map_err(|source| OfficeError::System { what: "reading randomness", source })?;
    Ok(seal_backup(&files, passphrase, &mut rng)?)
}

/// Writes the files of an archive into a directory that holds no identity. The identity is written last: a restore that was
/// cut short can be repeated.
///
/// # Errors
/// [`OfficeError`].
pub fn restore(data: &DataDir, archive: &[u8], passphrase: &str) -> Result<Identity, OfficeError> {
    free(data)?;
    let files = open_backup(archive, passphrase)?;
    let bytes = files.iter().find(|(name, _)| name == disk::IDENTITY).map(|(_, bytes)| bytes);
    let bytes = bytes.ok_or(BackupError::NotABackup)?;
    let identity = Identity::from_bytes(bytes, unix_now()).map_err(OfficeError::Identity)?;
    // Names that this version knows, and none that leads elsewhere.
    for (name, bytes) in files.iter().filter(|(n, _)| BACKED_UP.contains(&n.as_str()) && n != disk::IDENTITY) {
        data.write(name, bytes)?;
    }
    data.write(disk::IDENTITY, bytes)?;
    Ok(identity)
}

pub(crate) fn free(data: &DataDir) -> Result<(), OfficeError> {
    match data.read(disk::IDENTITY)? {
        Some(_) => Err(OfficeError::Taken(data.path().display().to_string())),
        None => Ok(()),
    }
}

async fn redeem(joining: &Joining, addrs: &[SocketAddr], token: &str) -> Result<(Vec<u8>, SocketAddr), OfficeError> {
    let credentials = Some(Credentials::joining(joining));
    let config =
        Config { credentials, proxy: Proxy::of_environment(|name| std::env::var(name).ok()), ..Config::default() };
    let (endpoint, mut events) = Endpoint::bind(config)?;
    for (n, addr) in addrs.iter().enumerate() {
        let conn = ConnId(n as u64 + 1);
        endpoint.connect(conn, Transport::Tls, *addr, None);
        let body = joining.request().encode();
        endpoint.write(conn, request(*addr, token, ENROLMENT_TYPE, body).to_bytes());
        match tokio::time::timeout(ANSWER, answer(&mut events, conn)).await {
            Ok(Some(reply)) if reply.status() == 200 => {
                return Ok((reply.body().to_vec(), *addr));
            }
            Ok(Some(_)) => return Err(OfficeError::Refused),
            Ok(None) | Err(_) => endpoint.close(conn),
        }
    }
    let list: Vec<_> = addrs.iter().map(SocketAddr::to_string).collect();
    Err(OfficeError::NoAnswer(list.join(", ")))
}

/// The final response on this connection; none when it closes first.
pub(super) async fn answer(events: &mut mpsc::Receiver<Event>, wanted: ConnId) -> Option<Message> {
    while let Some(event) = events.recv().await {
        match event {
            Event::Frame { conn, bytes } if conn == wanted => match Message::parse_bytes(bytes) {
                Ok(message) if message.status() >= 200 => return Some(message),
                _ => {}
            },
            Event::ConnectFailed { conn, why } if conn == wanted => {
                tracing::warn!(%why, "it cannot be reached");
                return None;
            }
            Event::Closed { conn, .. } if conn == wanted => return None,
            _ => {}
        }
    }
    None
}

/// What a stranger asks the peer at `addr`.
pub(super) fn request(addr: SocketAddr, token: &str, content_type: &str, body: Vec<u8>) -> Message {
    let uri = format!("sip:{addr};transport=tls");
    let mut message = Message::request(Method::Register, &uri);
    message.push(HeaderName::Via, Via::new("TLS", "enrolment.invalid", None, &format!("z9hG4bK{token}")));
    message.push(HeaderName::MaxForwards, 1);
    message.push(HeaderName::From, format_args!("<sip:stranger@enrolment.invalid>;tag={token}"));
    message.push(HeaderName::To, format_args!("<{uri}>"));
    message.push(HeaderName::CallId, token);
    message.push(HeaderName::CSeq, "1 REGISTER");
    message.set_body(content_type, body);
    message
}
