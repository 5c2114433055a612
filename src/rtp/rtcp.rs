//! RTCP compound packets (RFC 3550 section 6): sender and receiver reports, CNAME, BYE.

use super::RtpError;
use bytes::{Bytes, BytesMut};
use rtcp::goodbye::Goodbye;
use rtcp::receiver_report::ReceiverReport;
use rtcp::reception_report::ReceptionReport;
use rtcp::sender_report::SenderReport;
use rtcp::source_description::{SdesType, SourceDescription};
use webrtc_util::marshal::{Marshal, Unmarshal};

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const BLOCK: usize = 24;

/// What one receiver says about one source (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReportBlock {
    /// The source that the block is about.
    pub ssrc: u32,
    /// Loss since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost in all, 24 bits signed: duplicates can make it negative.
    pub lost: i32,
    /// Highest sequence number received, with its cycles above.
    pub highest: u32,
    /// Interarrival jitter in ticks of the RTP clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report; 0 if there was none.
    pub last_sr: u32,
    /// Time since that report arrived, in 1/65536 s.
    pub delay_since_last_sr: u32,
}

/// One packet of a compound packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Control {
    /// SR: from a participant that sends.
    SenderReport {
        /// Who reports.
        ssrc: u32,
        /// Sender's clock in NTP format (32.32 s).
        ntp: u64,
        /// The same instant in RTP clock ticks.
        rtp_time: u32,
        /// Packets sent in all.
        packets: u32,
        /// Payload bytes sent in all.
        octets: u32,
        /// What it heard.
        blocks: Vec<ReportBlock>,
    },
    /// RR: from a participant that only listens.
    ReceiverReport {
        /// Who reports.
        ssrc: u32,
        /// What it heard.
        blocks: Vec<ReportBlock>,
    },
    /// SDES: the CNAME of each source that gave one; other items are dropped.
    SourceDescription {
        /// Sources and their canonical names.
        cnames: Vec<(u32, Bytes)>,
    },
    /// BYE.
    Goodbye {
        /// Sources that leave.
        sources: Vec<u32>,
        /// Why; often empty.
        reason: Bytes,
    },
    /// Any other type, unread.
    Other {
        /// RTCP packet type.
        packet_type: u8,
    },
}

/// Reads a compound packet, with the checks of RFC 3550 section A.2. Reduced-size RTCP (RFC 5506) is
/// not negotiated and so refused.
pub fn parse(datagram: &[u8]) -> Result<Vec<Control>, RtpError> {
    let mut controls = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let [first, packet_type, high, low, ..] = *rest else { return Err(RtpError::Short) };
        if first >> 6 != 2 {
            return Err(RtpError::Version);
        }
        if controls.is_empty() && !matches!(packet_type, SENDER_REPORT | RECEIVER_REPORT) {
            return Err(RtpError::NoReport);
        }
        let length = (usize::from(u16::from_be_bytes([high, low])) + 1) * 4;
        let mut packet = rest.get(..length).ok_or(RtpError::Short)?;
        rest = rest.get(length..).unwrap_or_default();
        if first & 0x20 != 0 {
            // Only the last packet may be padded (section 6.4.1), and in whole words.
            let count = usize::from(packet.last().copied().unwrap_or_default());
            if !rest.is_empty() || count == 0 || !count.is_multiple_of(4) || count > length - 4 {
                return Err(RtpError::Padding);
            }
            packet = &packet[..length - count];
        }
        controls.push(one(packet, packet_type, usize::from(first & 0x1f))?);
    }
    if controls.is_empty() { Err(RtpError::Short) } else { Ok(controls) }
}

/// Writes a compound packet. RFC 3550 section 6.1 wants a report first and a CNAME in each.
pub fn write(controls: &[Control]) -> Bytes {
    let mut out = BytesMut::new();
    for control in controls {
        let written = match control {
            Control::SenderReport { ssrc, ntp, rtp_time, packets, octets, blocks } => SenderReport {
                ssrc: *ssrc,
                ntp_time: *ntp,
                rtp_time: *rtp_time,
                packet_count: *packets,
                octet_count: *octets,
                reports: blocks.iter().take(31).map(block_out).collect(),
                ..Default::default()
            }
            .marshal(),
            Control::ReceiverReport { ssrc, blocks } => ReceiverReport {
                ssrc: *ssrc,
                reports: blocks.iter().take(31).map(block_out).collect(),
                ..Default::default()
            }
            .marshal(),
            // By hand: the crate ends chunks and reasons with a padding count where RFC 3550 (6.5, 6.6) wants
            // null octets, and announces it as padding of the packet.
            Control::SourceDescription { cnames } => {
                let mut body = Vec::new();
                for (source, cname) in cnames.iter().take(31) {
                    let text = &cname[..cname.len().min(255)];
                    body.extend(source.to_be_bytes());
                    body.extend([1, text.len() as u8]);
                    body.extend(text);
                    body.resize((body.len() / 4 + 1) * 4, 0);
                }
                out.extend(frame(SOURCE_DESCRIPTION, cnames.len().min(31), body));
                continue;
            }
            Control::Goodbye { sources, reason } => {
                let mut body: Vec<u8> = sources.iter().take(31).flat_map(|source| source.to_be_bytes()).collect();
                if !reason.is_empty() {
                    let text = &reason[..reason.len().min(255)];
                    body.push(text.len() as u8);
                    body.extend(text);
                }
                out.extend(frame(GOODBYE, sources.len().min(31), body));
                continue;
            }
            Control::Other { .. } => continue,
        };
        // All bounds that the crate checks are kept above, so nothing is lost here.
        out.extend_from_slice(&written.unwrap_or_default());
    }
    out.freeze()
}

/// The middle 32 bits of an NTP time, as LSR wants them.
pub const fn middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// Microseconds as an NTP interval (32.32 s).
pub const fn ntp_from_micros(us: u64) -> u64 {
    ((us / 1_000_000) << 32) | (((us % 1_000_000) << 32) / 1_000_000)
}

fn frame(packet_type: u8, count: usize, mut body: Vec<u8>) -> Vec<u8> {
    body.resize(body.len().next_multiple_of(4), 0);
    let words = (body.len() / 4) as u16;
    let mut packet = vec![0x80 | count as u8, packet_type];
    packet.extend(words.to_be_bytes());
    packet.append(&mut body);
    packet
}

fn one(packet: &[u8], packet_type: u8, count: usize) -> Result<Control, RtpError> {
    // Padding is cut: the crate must not see its flag, nor a length that counts it.
    let mut plain = BytesMut::from(packet);
    plain[0] &= 0xdf;
    let words = u16::try_from(packet.len() / 4 - 1).map_err(|_| RtpError::Malformed("RTCP length"))?;
    plain[2..4].copy_from_slice(&words.to_be_bytes());
    let mut plain = plain.freeze();
    match packet_type {
        SENDER_REPORT => {
            if packet.len() < 28 + count * BLOCK {
                return Err(RtpError::Short);
            }
            let sr = SenderReport::unmarshal(&mut plain).map_err(|_| RtpError::Malformed("sender report"))?;
            Ok(Control::SenderReport {
                ssrc: sr.ssrc,
                ntp: sr.ntp_time,
                rtp_time: sr.rtp_time,
                packets: sr.packet_count,
                octets: sr.octet_count,
                blocks: sr.reports.iter().map(block_in).collect(),
            })
        }
        RECEIVER_REPORT => {
            if packet.len() < 8 + count * BLOCK {
                return Err(RtpError::Short);
            }
            let rr = ReceiverReport::unmarshal(&mut plain).map_err(|_| RtpError::Malformed("receiver report"))?;
            Ok(Control::ReceiverReport { ssrc: rr.ssrc, blocks: rr.reports.iter().map(block_in).collect() })
        }
        SOURCE_DESCRIPTION => {
            check_chunks(&packet[4..], count)?;
            let sdes =
                SourceDescription::unmarshal(&mut plain).map_err(|_| RtpError::Malformed("source description"))?;
            let cnames = sdes
                .chunks
                .iter()
                .filter_map(|chunk| {
                    let item = chunk.items.iter().find(|item| item.sdes_type == SdesType::SdesCname)?;
                    Some((chunk.source, item.text.clone()))
                })
                .collect();
            Ok(Control::SourceDescription { cnames })
        }
        GOODBYE => {
            let reason = packet.get(4 + count * 4..).ok_or(RtpError::Short)?;
            if reason.first().is_some_and(|length| usize::from(*length) >= reason.len()) {
                return Err(RtpError::Malformed("reason for leaving"));
            }
            let bye = Goodbye::unmarshal(&mut plain).map_err(|_| RtpError::Malformed("BYE"))?;
            Ok(Control::Goodbye { sources: bye.sources, reason: bye.reason })
        }
        packet_type => Ok(Control::Other { packet_type }),
    }
}

/// Walks `count` SDES chunks: each item within bounds, each chunk ended and padded to a whole word.
fn check_chunks(mut bytes: &[u8], count: usize) -> Result<(), RtpError> {
    const FAULT: RtpError = RtpError::Malformed("source description");
    for _ in 0..count {
        let mut at = 4;
        while *bytes.get(at).ok_or(FAULT)? != 0 {
            at += 2 + usize::from(*bytes.get(at + 1).ok_or(FAULT)?);
        }
        bytes = bytes.get((at / 4 + 1) * 4..).ok_or(FAULT)?;
    }
    if bytes.is_empty() { Ok(()) } else { Err(FAULT) }
}

fn block_in(block: &ReceptionReport) -> ReportBlock {
    ReportBlock {
        ssrc: block.ssrc,
        fraction_lost: block.fraction_lost,
        lost: ((block.total_lost << 8) as i32) >> 8,
        highest: block.last_sequence_number,
        jitter: block.jitter,
        last_sr: block.last_sender_report,
        delay_since_last_sr: block.delay,
    }
}

fn block_out(block: &ReportBlock) -> ReceptionReport {
    ReceptionReport {
        ssrc: block.ssrc,
        fraction_lost: block.fraction_lost,
        total_lost: (block.lost.clamp(-0x80_0000, 0x7f_ffff) as u32) & 0xff_ffff,
        last_sequence_number: block.highest,
        jitter: block.jitter,
        last_sender_report: block.last_sr,
        delay: block.delay_since_last_sr,
    }
}
