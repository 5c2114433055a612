//! Comparisons as bodies, deterministic CBOR. A request is `[1, scattered (0 or 1), unix, [range...]]`, an answer `[1, unix,
//! [part...]]`; a range is `[from, to, entries, digest]`, a part `[0, [range...]]` or `[1, from, to, [entry...]]`, an entry `[key,
//! replica, dictionary key's hash, sequence, expires]`.

use super::CarryError;
use crate::core::{Id, UnixTime};
use crate::overlay::{Brief, IdSpace, Part, Range};
use minicbor::{Decoder, Encoder};

type Body = Encoder<Vec<u8>>;

pub(super) fn encode_request(scattered: bool, unix: UnixTime, ranges: &[Range]) -> Vec<u8> {
    let mut body = Encoder::new(Vec::new());
    // Writing to a vector does not fail.
    let _ = body.array(4).and_then(|b| b.u8(1)).and_then(|b| b.u8(scattered.into())).and_then(|b| b.u64(unix.secs()));
    write_ranges(&mut body, ranges);
    body.into_writer()
}

pub(super) fn decode_request(bytes: &[u8], space: IdSpace) -> Result<(bool, UnixTime, Vec<Range>), CarryError> {
    let mut read = Read { from: Decoder::new(bytes), space };
    let decoded = (|| {
        read.array(4)?;
        read.one()?;
        let scattered = match read.uint()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some((scattered, UnixTime(read.uint()?), read.ranges()?))
    })();
    let (scattered, unix, ranges) = decoded.ok_or(CarryError::Body)?;
    if encode_request(scattered, unix, &ranges) != bytes {
        return Err(CarryError::Body);
    }
    Ok((scattered, unix, ranges))
}

pub(super) fn encode_response(unix: UnixTime, parts: &[Part]) -> Vec<u8> {
    let mut body = Encoder::new(Vec::new());
    let _ =
        body.array(3).and_then(|b| b.u8(1)).and_then(|b| b.u64(unix.secs())).and_then(|b| b.array(parts.len() as u64));
    for part in parts {
        match part {
            Part::Ranges(ranges) => {
                let _ = body.array(2).and_then(|b| b.u8(0));
                write_ranges(&mut body, ranges);
            }
            Part::Entries { from, to, entries } => {
                let _ = body.array(4).and_then(|b| b.u8(1)).and_then(|b| b.bytes(&from.0)).and_then(|b| b.bytes(&to.0));
                let _ = body.array(entries.len() as u64);
                for e in entries {
                    let _ = body.array(5).and_then(|b| b.bytes(&e.key.0)).and_then(|b| b.u8(e.replica));
                    let _ = body.u64(e.entry).and_then(|b| b.u64(e.sequence)).and_then(|b| b.u64(e.expires.secs()));
                }
            }
        }
    }
    body.into_writer()
}

pub(super) fn decode_response(bytes: &[u8], space: IdSpace) -> Result<(UnixTime, Vec<Part>), CarryError> {
    let mut read = Read { from: Decoder::new(bytes), space };
    let decoded = (|| {
        read.array(3)?;
        read.one()?;
        let unix = UnixTime(read.uint()?);
        let parts = (0..read.list(Range::MOST)?).map(|_| read.part()).collect::<Option<Vec<_>>>()?;
        Some((unix, parts))
    })();
    let (unix, parts) = decoded.ok_or(CarryError::Body)?;
    if encode_response(unix, &parts) != bytes { Err(CarryError::Body) } else { Ok((unix, parts)) }
}

fn write_ranges(body: &mut Body, ranges: &[Range]) {
    let _ = body.array(ranges.len() as u64);
    for range in ranges {
        let _ = body.array(4).and_then(|b| b.bytes(&range.from.0)).and_then(|b| b.bytes(&range.to.0));
        let _ = body.u32(range.entries).and_then(|b| b.bytes(&range.digest));
    }
}

struct Read<'b> {
    from: Decoder<'b>,
    space: IdSpace,
}

impl Read<'_> {
    fn array(&mut self, len: u64) -> Option<()> {
        (self.from.array().ok()?? == len).then_some(())
    }

    fn list(&mut self, most: usize) -> Option<u64> {
        self.from.array().ok()?.filter(|n| *n <= most as u64)
    }

    fn one(&mut self) -> Option<()> {
        (self.uint()? == 1).then_some(())
    }

    fn uint(&mut self) -> Option<u64> {
        self.from.u64().ok()
    }

    fn id(&mut self) -> Option<Id> {
        let id = Id(self.from.bytes().ok()?.try_into().ok()?);
        self.space.contains(&id).then_some(id)
    }

    fn ranges(&mut self) -> Option<Vec<Range>> {
        let range = |read: &mut Self| {
            read.array(4)?;
            let (from, to, entries) = (read.id()?, read.id()?, read.from.u32().ok()?);
            Some(Range { from, to, entries, digest: read.from.bytes().ok()?.try_into().ok()? })
        };
        (0..self.list(Range::MOST)?).map(|_| range(self)).collect()
    }

    fn part(&mut self) -> Option<Part> {
        match (self.from.array().ok()??, self.uint()?) {
            (2, 0) => Some(Part::Ranges(self.ranges()?)),
            (4, 1) => {
                let (from, to) = (self.id()?, self.id()?);
                let brief = |read: &mut Self| {
                    read.array(5)?;
                    let (key, replica) = (read.id()?, u8::try_from(read.uint()?).ok()?);
                    let (entry, sequence, expires) = (read.uint()?, read.uint()?, UnixTime(read.uint()?));
                    Some(Brief { key, replica, entry, sequence, expires })
                };
                let entries = (0..self.list(Part::MOST)?).map(|_| brief(self)).collect::<Option<Vec<_>>>()?;
                Some(Part::Entries { from, to, entries })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Vec<Range> {
        (0..3)
            .map(|n| Range { from: Id([n; 20]), to: Id([n + 1; 20]), entries: 70 * u32::from(n), digest: [n; 16] })
            .collect()
    }

    #[test]
    fn both_ways_and_nothing_else() {
        let space = IdSpace::SHA1;
        let request = encode_request(true, UnixTime(1_800_000_000), &ranges());
        assert_eq!(decode_request(&request, space), Ok((true, UnixTime(1_800_000_000), ranges())));
        let brief = Brief { key: Id([9; 20]), replica: 1, entry: u64::MAX, sequence: 7, expires: UnixTime(8) };
        let parts =
            vec![Part::Ranges(ranges()), Part::Entries { from: Id([1; 20]), to: Id([2; 20]), entries: vec![brief; 4] }];
        let response = encode_response(UnixTime(5), &parts);
        assert_eq!(decode_response(&response, space), Ok((UnixTime(5), parts)));
        for bytes in [&request, &response] {
            for n in 0..bytes.len() {
                assert!(decode_request(&bytes[..n], space).is_err() && decode_response(&bytes[..n], space).is_err());
                let mut changed = bytes.clone();
                for value in [0u8, 0x1b, 0x3b, 0x5b, 0x7f, 0x9b, 0x9f, 0xff] {
                    changed[n] = value;
                    // Whatever it is then, it is what encoding it gives, or refused.
                    let _ = (decode_request(&changed, space), decode_response(&changed, space));
                }
            }
            let longer = [bytes, &[0][..]].concat();
            assert!(decode_request(&longer, space).is_err() && decode_response(&longer, space).is_err());
        }
        let many = vec![ranges()[0]; Range::MOST + 1];
        assert!(decode_request(&encode_request(false, UnixTime(0), &many), space).is_err());
    }
}
