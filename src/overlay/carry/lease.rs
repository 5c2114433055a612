//! Leases as bodies, deterministic CBOR. A request is `[1, entry]` of the asker, or `[1, entry, fence, over, left]` of the responsible peer
//! to those who have to agree; times are milliseconds. An answer is `[1, 0, fence, left]` granted, `[1, 1, fence, knows, width]`
//! agreed, `[1, 2, entry, fence, left]` held by another, `[1, 3, left]` later, `[1, 4, fence]` behind; the first two are a 200, the others a 412.

use super::CarryError;
use crate::core::limits;
use crate::identity::SignedEntry;
use crate::overlay::{LeaseAnswer, Vote};
use minicbor::{Decoder, Encoder};
use std::time::Duration;

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn encode_request(entry: &SignedEntry, vote: Option<&Vote>) -> Vec<u8> {
    let mut body = Encoder::new(Vec::new());
    // Writing to a vector does not fail.
    let _ = body.array(if vote.is_some() { 5 } else { 2 }).and_then(|b| b.u8(1)).and_then(|b| b.bytes(entry.encoded()));
    if let Some(vote) = vote {
        let _ = body.u64(vote.fence).and_then(|b| b.u64(vote.over)).and_then(|b| b.u64(ms(vote.left)));
    }
    body.into_writer()
}

pub(super) fn decode_request(bytes: &[u8]) -> Result<(SignedEntry, Option<Vote>), CarryError> {
    let decoded = (|| {
        let mut read = Decoder::new(bytes);
        let len = read.array().ok()??;
        (read.u8().ok()? == 1).then_some(())?;
        let entry = entry(&mut read)?;
        let vote = match len {
            2 => None,
            5 => Some(Vote { fence: read.u64().ok()?, over: read.u64().ok()?, left: span(&mut read)? }),
            _ => return None,
        };
        Some((entry, vote))
    })();
    let (entry, vote) = decoded.ok_or(CarryError::Body)?;
    if encode_request(&entry, vote.as_ref()) == bytes { Ok((entry, vote)) } else { Err(CarryError::Body) }
}

pub(super) fn encode_answer(answer: &LeaseAnswer) -> Vec<u8> {
    let mut body = Encoder::new(Vec::new());
    let _ = match answer {
        LeaseAnswer::Granted { fence, left } => head(&mut body, 4, 0).u64(*fence).and_then(|b| b.u64(ms(*left))),
        LeaseAnswer::Agreed { fence, knows, width } => {
            head(&mut body, 5, 1).u64(*fence).and_then(|b| b.u8((*knows).into())).and_then(|b| b.u8(*width))
        }
        LeaseAnswer::Held { entry, fence, left } => {
            head(&mut body, 5, 2).bytes(entry.encoded()).and_then(|b| b.u64(*fence)).and_then(|b| b.u64(ms(*left)))
        }
        LeaseAnswer::Later { left } => head(&mut body, 3, 3).u64(ms(*left)),
        LeaseAnswer::Behind { fence } => head(&mut body, 3, 4).u64(*fence),
    };
    body.into_writer()
}

pub(super) fn decode_answer(bytes: &[u8]) -> Result<LeaseAnswer, CarryError> {
    let decoded = (|| {
        let mut read = Decoder::new(bytes);
        let len = read.array().ok()??;
        (read.u8().ok()? == 1).then_some(())?;
        let answer = match (len, read.u8().ok()?) {
            (4, 0) => LeaseAnswer::Granted { fence: read.u64().ok()?, left: span(&mut read)? },
            (5, 1) => {
                let (fence, knows, width) = (read.u64().ok()?, read.u8().ok()? == 1, read.u8().ok()?);
                LeaseAnswer::Agreed { fence, knows, width }
            }
            (5, 2) => {
                let entry = Box::new(entry(&mut read)?);
                LeaseAnswer::Held { entry, fence: read.u64().ok()?, left: span(&mut read)? }
            }
            (3, 3) => LeaseAnswer::Later { left: span(&mut read)? },
            (3, 4) => LeaseAnswer::Behind { fence: read.u64().ok()? },
            _ => return None,
        };
        Some(answer)
    })();
    let answer = decoded.ok_or(CarryError::Body)?;
    if encode_answer(&answer) == bytes { Ok(answer) } else { Err(CarryError::Body) }
}

/// True for an answer that says no.
pub(super) fn is_refusal(answer: &LeaseAnswer) -> bool {
    !matches!(answer, LeaseAnswer::Granted { .. } | LeaseAnswer::Agreed { .. })
}

fn head(body: &mut Encoder<Vec<u8>>, len: u64, which: u8) -> &mut Encoder<Vec<u8>> {
    let _ = body.array(len).and_then(|b| b.u8(1)).and_then(|b| b.u8(which));
    body
}

fn entry(read: &mut Decoder<'_>) -> Option<SignedEntry> {
    let bytes = read.bytes().ok()?;
    if bytes.len() > limits::RECORD_ENTRY {
        return None;
    }
    SignedEntry::decode(bytes).ok()
}

fn span(read: &mut Decoder<'_>) -> Option<Duration> {
    // An hour is more than any time that is said here.
    read.u64().ok().filter(|ms| *ms <= 3_600_000).map(Duration::from_millis)
}
