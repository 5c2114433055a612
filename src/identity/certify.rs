//! What a member's device asks of an enroller: its place on the ring, its certificates again before they run out, and the right
//! to sign for standard phones.
//!
//! * request: `[1, chain, [name...], issued, signature]`, signed by the device over `[1, BLAKE3 of the chain, [name...], issued]`;
//! * answer: `[1, enroller certificate, user certificate, peer certificate, [adapter certificate...], [refused name...]]`, or
//!   `[2, [[peer-ID, address]...]]`: not an enroller; these are.
//!
//! Who answers needs no other proof than the certificates: only the root makes enrollers.

use super::cbor::{Reader, Writer, canonical};
use super::contact::{addr_bytes, read_addr};
use super::{Certificate, Chain, IdentityError, KeyPair, Purpose};
use crate::core::{Id, UnixTime};
use std::net::SocketAddr;
use std::time::Duration;

/// Content type of both bodies.
pub const CERTIFY_TYPE: &str = "application/chordial-certificates+cbor";
/// Most phone accounts asked for at once.
pub const MAX_ASKED: usize = 32;
/// Most enrollers named in a referral.
const MAX_REFERRED: usize = 16;
/// How old a request may be.
pub(super) const REQUEST_AGE: Duration = Duration::from_secs(600);
const REQUEST: &str = "request for certificates";
const ANSWER: &str = "answer with certificates";

/// A device asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertifyRequest {
    /// As whom it shows itself.
    pub chain: Chain,
    /// Phone accounts that it wants to sign for.
    pub phones: Vec<String>,
    /// When it asked.
    pub issued: UnixTime,
    signature: [u8; 64],
}

impl CertifyRequest {
    /// Signs with the device's key.
    pub(super) fn sign(device: &KeyPair, chain: Chain, phones: Vec<String>, issued: UnixTime) -> CertifyRequest {
        let mut request = CertifyRequest { chain, phones, issued, signature: [0; 64] };
        request.signature = device.sign(Purpose::Certify, &request.signed_bytes());
        request
    }

    /// True when the device that the chain is about has signed it.
    pub(super) fn is_signed(&self) -> bool {
        let device = self.chain.device();
        device.is_some_and(|device| device.verify(Purpose::Certify, &self.signed_bytes(), &self.signature))
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(5);
        writer.uint(1).raw(self.chain.encoded());
        write_names(&mut writer, &self.phones);
        writer.uint(self.issued.secs()).bytes(&self.signature);
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<CertifyRequest, IdentityError> {
        let mut reader = Reader::new(bytes, REQUEST);
        reader.array(5)?;
        reader.version(1)?;
        let chain = Chain::read(&mut reader)?;
        let phones = read_names(&mut reader)?;
        let request = CertifyRequest { chain, phones, issued: UnixTime(reader.uint()?), signature: reader.exact()? };
        canonical(bytes, &request.encode(), REQUEST)?;
        Ok(request)
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::array(4);
        writer.uint(1).bytes(blake3::hash(self.chain.encoded()).as_bytes());
        write_names(&mut writer, &self.phones);
        writer.uint(self.issued.secs());
        writer.finish()
    }
}

/// What an enroller grants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certified {
    pub(super) enroller: Certificate,
    pub(super) user: Certificate,
    pub(super) peer: Certificate,
    pub(super) adapters: Vec<Certificate>,
    /// Phone accounts that the device may not sign for.
    pub refused: Vec<String>,
}

impl Certified {
    /// Who signed it all.
    pub fn enroller(&self) -> &Certificate {
        &self.enroller
    }
}

/// What comes back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CertifyAnswer {
    /// From an enroller.
    Certified(Box<Certified>),
    /// From another member: peer-IDs and addresses of enrollers.
    Ask(Vec<(Id, SocketAddr)>),
}

impl CertifyAnswer {
    /// The encoding. Surplus addresses are left out.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            CertifyAnswer::Certified(c) => {
                let mut writer = Writer::array(6);
                writer.uint(1).raw(&c.enroller.encode()).raw(&c.user.encode()).raw(&c.peer.encode());
                writer.nested(c.adapters.len());
                for adapter in &c.adapters {
                    writer.raw(&adapter.encode());
                }
                write_names(&mut writer, &c.refused);
                writer.finish()
            }
            CertifyAnswer::Ask(peers) => {
                let peers = peers.get(..MAX_REFERRED).unwrap_or(peers);
                let mut writer = Writer::array(2);
                writer.uint(2).nested(peers.len());
                for (id, addr) in peers {
                    writer.nested(2).bytes(&id.0).bytes(&addr_bytes(addr));
                }
                writer.finish()
            }
        }
    }

    /// Reads the canonical encoding and nothing else. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<CertifyAnswer, IdentityError> {
        let mut reader = Reader::new(bytes, ANSWER);
        let answer = match reader.list(6)? {
            6 => {
                reader.version(1)?;
                let mut next = || Certificate::read(&mut reader);
                let (enroller, user, peer) = (next()?, next()?, next()?);
                let adapters = (0..reader.list(MAX_ASKED as u64)?).map(|_| Certificate::read(&mut reader));
                let adapters = adapters.collect::<Result<_, _>>()?;
                let refused = read_names(&mut reader)?;
                CertifyAnswer::Certified(Box::new(Certified { enroller, user, peer, adapters, refused }))
            }
            2 => {
                reader.version(2)?;
                let mut peers = Vec::new();
                for _ in 0..reader.list(MAX_REFERRED as u64)? {
                    reader.array(2)?;
                    let id = Id(reader.exact()?);
                    peers.push((id, read_addr(reader.bytes()?).ok_or(IdentityError::Malformed(ANSWER))?));
                }
                CertifyAnswer::Ask(peers)
            }
            _ => return Err(IdentityError::Malformed(ANSWER)),
        };
        canonical(bytes, &answer.encode(), ANSWER)?;
        Ok(answer)
    }
}

fn write_names(writer: &mut Writer, names: &[String]) {
    writer.nested(names.len());
    for name in names {
        writer.text(name);
    }
}

fn read_names(reader: &mut Reader<'_>) -> Result<Vec<String>, IdentityError> {
    (0..reader.list(MAX_ASKED as u64)?).map(|_| reader.text().map(str::to_owned)).collect()
}
