//! A second owner: another member's device becomes an enroller. That device draws the enroller's key, the administrator's signs it with
//! the root from the recovery sheet; the root is needed for that one signature and is kept nowhere.
//!
//! * request `[1]`, answer `[1, enroller key]`: the device shows the key that it has drawn;
//! * request `[2, enroller certificate]`, answer `[2]`: it takes the certificate, when the root of its own office has signed it for that key.

use super::cbor::{Reader, Writer, canonical};
use super::{Certificate, IdentityError, PublicKey};

/// Content type of all four bodies.
pub const OWNER_TYPE: &str = "application/chordial-owner+cbor";
const WHAT: &str = "message about an owner";

/// What the administrator's device says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OwnerAsk {
    /// Draw a key.
    Draw,
    /// Be an enroller by this certificate.
    Be(Box<Certificate>),
}

/// What the other device answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnerAnswer {
    /// The key that it has drawn.
    Drawn(PublicKey),
    /// It is an enroller.
    Done,
}

impl OwnerAsk {
    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            OwnerAsk::Draw => {
                let mut writer = Writer::array(1);
                writer.uint(1);
                writer.finish()
            }
            OwnerAsk::Be(certificate) => {
                let mut writer = Writer::array(2);
                writer.uint(2).raw(&certificate.encode());
                writer.finish()
            }
        }
    }

    /// Reads the canonical encoding and nothing else. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<OwnerAsk, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        let ask = match reader.list(2)? {
            1 => {
                reader.version(1)?;
                OwnerAsk::Draw
            }
            2 => {
                reader.version(2)?;
                OwnerAsk::Be(Box::new(Certificate::read(&mut reader)?))
            }
            _ => return Err(IdentityError::Malformed(WHAT)),
        };
        canonical(bytes, &ask.encode(), WHAT)?;
        Ok(ask)
    }
}

impl OwnerAnswer {
    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            OwnerAnswer::Drawn(key) => {
                let mut writer = Writer::array(2);
                writer.uint(1).bytes(&key.0);
                writer.finish()
            }
            OwnerAnswer::Done => {
                let mut writer = Writer::array(1);
                writer.uint(2);
                writer.finish()
            }
        }
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<OwnerAnswer, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        let answer = match reader.list(2)? {
            2 => {
                reader.version(1)?;
                OwnerAnswer::Drawn(PublicKey(reader.exact()?))
            }
            1 => {
                reader.version(2)?;
                OwnerAnswer::Done
            }
            _ => return Err(IdentityError::Malformed(WHAT)),
        };
        canonical(bytes, &answer.encode(), WHAT)?;
        Ok(answer)
    }
}
