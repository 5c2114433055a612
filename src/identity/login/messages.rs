//! What members say to the holders of shares, and to each other about decoys: bodies of [`SHARE_TYPE`].
//!
//! | request | from | answer |
//! |---|---|---|
//! | `[1, 1, epoch, number, OPRF key]` hold | a device of the user | `[1, 1]` held, `[1, 0]` not |
//! | `[1, 2, epoch]` check | a device of the user | `[1, 1]` held, `[1, 0]` not |
//! | `[1, 3, epoch or null]` forget every epoch but this one | a device of the user | `[1, 1]` |
//! | `[1, 4, user, epoch, source, blinded]` evaluate | a member | `[1, 2, evaluation]`, `[1, 0]` not held, `[1, 3, seconds]` to wait |
//! | `[1, 5]` the decoys' secret | a member | `[1, 2, secret]`, `[1, 0]` none |

use super::super::cbor::{Reader, Writer, canonical};
use super::super::{IdentityError, canonical_user};
use super::ELEMENT;
use super::oprf::OprfKey;
use zeroize::Zeroizing;

/// Content type of these bodies.
pub const SHARE_TYPE: &str = "application/chordial-share+cbor";

const WHAT: &str = "share message";
/// An address of a stranger, as bytes.
const MAX_SOURCE: usize = 16;

/// What a holder is asked. Whose share it is, is for the first three whoever the link proves.
#[derive(Clone, PartialEq, Eq)]
pub enum ShareRequest {
    /// Keep this key of ours.
    Hold {
        /// Of which password.
        epoch: [u8; 16],
        /// Of which share, from 0.
        number: u8,
        /// The OPRF key.
        key: Zeroizing<[u8; 32]>,
    },
    /// Do you still hold it?
    Check {
        /// Of which password.
        epoch: [u8; 16],
    },
    /// Forget what is older or was taken back.
    Forget {
        /// All but this; `None`: everything.
        keep: Option<[u8; 16]>,
    },
    /// A stranger asks for an evaluation.
    Evaluate {
        /// Whom it says to be.
        user: String,
        /// Of which password.
        epoch: [u8; 16],
        /// Its address, as the asking supernode sees it.
        source: Vec<u8>,
        /// The blinded password.
        blinded: [u8; ELEMENT],
    },
    /// The secret that unknown names are answered from.
    Decoys,
}

/// What a holder answers.
#[derive(Clone, PartialEq, Eq)]
pub enum ShareAnswer {
    /// Not held; or, to a hold, not to be held.
    No,
    /// Held, done.
    Yes,
    /// An evaluation, or the decoys' secret.
    Bytes([u8; 32]),
    /// Too many attempts: again in so many seconds.
    Wait(u64),
}

impl ShareRequest {
    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer;
        match self {
            ShareRequest::Hold { epoch, number, key } => {
                writer = Writer::array(5);
                writer.uint(1).uint(1).bytes(epoch).uint((*number).into()).bytes(&**key);
            }
            ShareRequest::Check { epoch } => {
                writer = Writer::array(3);
                writer.uint(1).uint(2).bytes(epoch);
            }
            ShareRequest::Forget { keep } => {
                writer = Writer::array(3);
                writer.uint(1).uint(3);
                match keep {
                    Some(epoch) => writer.bytes(epoch),
                    None => writer.null(),
                };
            }
            ShareRequest::Evaluate { user, epoch, source, blinded } => {
                writer = Writer::array(6);
                writer.uint(1).uint(4).text(user).bytes(epoch).bytes(source).bytes(blinded);
            }
            ShareRequest::Decoys => {
                writer = Writer::array(2);
                writer.uint(1).uint(5);
            }
        }
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<ShareRequest, IdentityError> {
        let malformed = IdentityError::Malformed(WHAT);
        let mut reader = Reader::new(bytes, WHAT);
        let items = reader.list(6)?;
        reader.version(1)?;
        let request = match (reader.uint()?, items) {
            (1, 5) => ShareRequest::Hold {
                epoch: reader.exact()?,
                number: u8::try_from(reader.uint()?).map_err(|_| malformed)?,
                key: Zeroizing::new(reader.exact()?),
            },
            (2, 3) => ShareRequest::Check { epoch: reader.exact()? },
            (3, 3) => ShareRequest::Forget { keep: if reader.is_null() { None } else { Some(reader.exact()?) } },
            (4, 6) => ShareRequest::Evaluate {
                user: canonical_user(reader.text()?)?,
                epoch: reader.exact()?,
                source: reader.bytes()?.to_vec(),
                blinded: reader.exact()?,
            },
            (5, 2) => ShareRequest::Decoys,
            _ => return Err(malformed),
        };
        match &request {
            ShareRequest::Hold { number, key, .. }
                if usize::from(*number) >= super::SHARES || OprfKey::from_bytes(key).is_none() =>
            {
                return Err(malformed);
            }
            ShareRequest::Evaluate { source, .. } if source.len() > MAX_SOURCE => {
                return Err(IdentityError::TooLarge(WHAT));
            }
            _ => {}
        }
        canonical(bytes, &request.encode(), WHAT)?;
        Ok(request)
    }
}

impl std::fmt::Debug for ShareRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ShareRequest::Hold { .. } => "Hold",
            ShareRequest::Check { .. } => "Check",
            ShareRequest::Forget { .. } => "Forget",
            ShareRequest::Evaluate { .. } => "Evaluate",
            ShareRequest::Decoys => "Decoys",
        })
    }
}

impl ShareAnswer {
    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer;
        match self {
            ShareAnswer::No | ShareAnswer::Yes => {
                writer = Writer::array(2);
                writer.uint(1).uint(u64::from(*self == ShareAnswer::Yes));
            }
            ShareAnswer::Bytes(bytes) => {
                writer = Writer::array(3);
                writer.uint(1).uint(2).bytes(bytes);
            }
            ShareAnswer::Wait(seconds) => {
                writer = Writer::array(3);
                writer.uint(1).uint(3).uint(*seconds);
            }
        }
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<ShareAnswer, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        let items = reader.list(3)?;
        reader.version(1)?;
        let answer = match (reader.uint()?, items) {
            (0, 2) => ShareAnswer::No,
            (1, 2) => ShareAnswer::Yes,
            (2, 3) => ShareAnswer::Bytes(reader.exact()?),
            (3, 3) => ShareAnswer::Wait(reader.uint()?),
            _ => return Err(IdentityError::Malformed(WHAT)),
        };
        canonical(bytes, &answer.encode(), WHAT)?;
        Ok(answer)
    }
}

impl std::fmt::Debug for ShareAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ShareAnswer::No => "No",
            ShareAnswer::Yes => "Yes",
            ShareAnswer::Bytes(_) => "Bytes",
            ShareAnswer::Wait(_) => "Wait",
        })
    }
}
