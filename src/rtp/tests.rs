use super::event::{TelephoneEvent, code_of, digit_of};
use super::rtcp::{Control, ReportBlock};
use super::*;
use crate::core::Rng;
use bytes::Bytes;

fn voice() -> Packet {
    Packet {
        marker: true,
        payload_type: 111,
        sequence: 65535,
        timestamp: 0xfedc_ba98,
        ssrc: 7,
        payload: Bytes::from_static(b"voice"),
    }
}

fn report() -> Vec<Control> {
    let blocks = vec![ReportBlock {
        ssrc: 9,
        fraction_lost: 26,
        lost: -3,
        highest: 0x0001_0002,
        jitter: 44,
        last_sr: 0x1234_5678,
        delay_since_last_sr: 65536,
    }];
    vec![
        Control::SenderReport { ssrc: 7, ntp: u64::MAX / 3, rtp_time: 160, packets: 50, octets: 8000, blocks },
        Control::SourceDescription { cnames: vec![(7, Bytes::from_static(b"k3@call"))] },
        Control::Goodbye { sources: vec![7], reason: Bytes::from_static(b"over") },
    ]
}

#[test]
fn a_packet_has_the_layout_of_rfc_3550() {
    let bytes = voice().to_bytes();
    assert_eq!(&bytes[..], b"\x80\xef\xff\xff\xfe\xdc\xba\x98\x00\x00\x00\x07voice");
    assert_eq!(Packet::parse(&bytes), Ok(voice()));
}

#[test]
fn csrcs_extensions_and_padding_are_skipped() {
    let mut bytes = vec![0xb2, 0xef, 0xff, 0xff, 0xfe, 0xdc, 0xba, 0x98, 0, 0, 0, 7];
    bytes.extend([1; 8]);
    // A one-byte-form extension whose only element claims more bytes than there are.
    bytes.extend([0xbe, 0xde, 0, 1, 0x1f, 0, 0, 0]);
    bytes.extend(b"voice");
    bytes.extend([0, 0, 3]);
    assert_eq!(Packet::parse(&bytes), Ok(voice()));
}

#[test]
fn each_fault_has_its_name() {
    assert_eq!(Packet::parse(b""), Err(RtpError::Short));
    assert_eq!(Packet::parse(&[0x40; 12]), Err(RtpError::Version));
    assert_eq!(Packet::parse(&[0x8f; 12]), Err(RtpError::Short));
    assert_eq!(Packet::parse(&[0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]), Err(RtpError::Short));
    assert_eq!(Packet::parse(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(RtpError::Padding));
    assert_eq!(Packet::parse(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]), Err(RtpError::Padding));
    assert_eq!(rtcp::parse(b""), Err(RtpError::Short));
    let bye = [0x81, 203, 0, 1, 0, 0, 0, 7];
    assert_eq!(rtcp::parse(&bye), Err(RtpError::NoReport));
    assert_eq!(rtcp::parse(&[0x81, 201, 0, 1, 0, 0, 0, 7]), Err(RtpError::Short));
}

#[test]
fn a_compound_packet_survives_both_ways() {
    let bytes = rtcp::write(&report());
    assert!(is_rtcp(&bytes) && !is_rtcp(&voice().to_bytes()));
    assert_eq!(rtcp::parse(&bytes), Ok(report()));
    let only = [Control::ReceiverReport { ssrc: 1, blocks: vec![] }];
    assert_eq!(&rtcp::write(&only)[..], &[0x80, 201, 0, 1, 0, 0, 0, 1]);
}

#[test]
fn a_padded_compound_packet_and_unknown_types_are_read() {
    let mut bytes = rtcp::write(&report()[..2]).to_vec();
    bytes.extend([0xa1, 203, 0, 2, 0, 0, 0, 7, 0, 0, 0, 4]);
    assert_eq!(rtcp::parse(&bytes).unwrap()[2], Control::Goodbye { sources: vec![7], reason: Bytes::new() });
    let mut padded_first = vec![0xa0, 201, 0, 2, 0, 0, 0, 7, 0, 0, 0, 4];
    assert!(rtcp::parse(&padded_first).is_ok());
    padded_first.extend([0x81, 203, 0, 1, 0, 0, 0, 7]);
    assert_eq!(rtcp::parse(&padded_first), Err(RtpError::Padding), "only the last one may be padded");
    let mut bytes = rtcp::write(&report()[..1]).to_vec();
    bytes.extend([0x80, 204, 0, 0]);
    assert_eq!(rtcp::parse(&bytes).unwrap()[1], Control::Other { packet_type: 204 });
}

#[test]
fn ntp_intervals() {
    assert_eq!(rtcp::ntp_from_micros(1_500_000), 0x1_8000_0000);
    assert_eq!(rtcp::middle(0x1_8000_0000), 0x1_8000);
}

#[test]
fn the_sixteen_digits() {
    for (code, digit) in "0123456789*#ABCD".chars().enumerate() {
        assert_eq!(code_of(digit), Some(code as u8));
        assert_eq!(digit_of(code as u8), Some(digit));
    }
    assert_eq!((code_of('b'), code_of('E'), code_of('é'), digit_of(16)), (Some(13), None, None, None));
    let event = TelephoneEvent { event: 11, end: true, volume: 10, duration: 0x0320 };
    assert_eq!(event.to_bytes(), [11, 0x8a, 3, 0x20]);
    assert_eq!(TelephoneEvent::parse(&event.to_bytes()), Ok(event));
    assert_eq!(TelephoneEvent::parse(&[1, 2, 3]), Err(RtpError::Short));
}

/// A hundred thousand packets, each a good one with a few bytes changed, cut or added.
#[test]
fn no_mutation_panics() {
    let mut rng = Rng::from_seed(1);
    let mut extended = vec![0xb1, 0x60, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0xbe, 0xde, 0, 2];
    extended.extend([0x10, 1, 0x21, 2, 3, 0, 0, 0, 9, 9, 9, 3]);
    let seeds = [voice().to_bytes().to_vec(), rtcp::write(&report()).to_vec(), extended];
    let mut accepted = 0;
    for round in 0..100_000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len() as u64 + 1) as usize;
            match rng.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, rng.next_u32() as u8),
                _ if at < bytes.len() => bytes[at] = rng.next_u32() as u8,
                _ => bytes.extend_from_slice(&rng.next_u64().to_be_bytes()),
            }
        }
        accepted += u32::from(Packet::parse(&bytes).is_ok());
        accepted += u32::from(rtcp::parse(&bytes).is_ok());
        let _ = TelephoneEvent::parse(&bytes);
    }
    assert!(accepted > 10_000, "the mutations must leave some packets alive, {accepted} were");
}
