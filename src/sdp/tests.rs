use super::negotiate::{self, CodecOffer, EventOffer, LocalMedia, NegotiateError};
use super::*;
use proptest::prelude::*;

fn local(addr: &str) -> LocalMedia {
    let addr: std::net::SocketAddr = addr.parse().unwrap();
    LocalMedia {
        addr,
        rtcp_port: addr.port() + 1,
        rtcp_mux: true,
        codecs: vec![
            CodecOffer {
                name: "opus",
                payload_type: 96,
                clock_rate: 48000,
                channels: 2,
                fmtp: "useinbandfec=1".into(),
            },
            CodecOffer { name: "PCMU", payload_type: 0, clock_rate: 8000, channels: 1, fmtp: String::new() },
            CodecOffer { name: "PCMA", payload_type: 8, clock_rate: 8000, channels: 1, fmtp: String::new() },
        ],
        dtmf: vec![EventOffer { payload_type: 101, clock_rate: 8000 }],
        ptime: 20,
        session_id: 7,
        version: 1,
        direction: Direction::SendRecv,
        keys: None,
        ice: None,
    }
}

fn sdp(media: &str) -> Session {
    Session::parse(
        format!("v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n{media}").as_bytes(),
    )
    .unwrap()
}

#[test]
fn reads_and_writes_every_kind_of_line() {
    let text = "v=0\r\no=jdoe 3724394400 3724394405 IN IP4 198.51.100.1\r\ns=Call to John Smith\r\n\
        i=SDP Offer #1\r\nu=http://www.jdoe.example.com/home.html\r\ne=Jane Doe <jane@jdoe.example.com>\r\n\
        p=+1 617 555-6011\r\nc=IN IP4 198.51.100.1\r\nb=AS:64\r\nt=0 0\r\nr=7d 1h 0 25h\r\nk=prompt\r\na=recvonly\r\n\
        m=audio 49170 RTP/AVP 0\r\nm=audio 49180/2 RTP/AVP 0\r\ni=second\r\nc=IN IP6 2001:db8::2\r\nb=AS:32\r\na=sendrecv\r\n\
        m=video 51372 RTP/AVP 99\r\nc=IN IP6 2001:db8::2\r\na=rtpmap:99 h263-1998/90000\r\na=x-flag\r\n";
    let session = Session::parse(text.as_bytes()).unwrap();
    assert_eq!(session.to_string(), text);
    assert_eq!(session.media.len(), 3);
    assert_eq!(session.direction_of(&session.media[0]), Direction::RecvOnly);
    assert_eq!(session.direction_of(&session.media[1]), Direction::SendRecv);
    assert_eq!(session.media[1].ports, Some(2));
    assert_eq!(session.connection_of(&session.media[2]).unwrap().to_ip(), Some("2001:db8::2".parse().unwrap()));
    assert_eq!(session.connection_of(&session.media[0]).unwrap().to_ip(), Some("198.51.100.1".parse().unwrap()));
}

#[test]
fn reads_bare_line_feeds_and_no_last_line_end() {
    let session = Session::parse(b"v=0\no=- 1 2 IN IP4 h\ns=-\nc=IN IP4 192.0.2.1/127\nm=audio 9 RTP/AVP 0").unwrap();
    assert_eq!(session.media[0].port, 9);
    assert_eq!(session.connection.as_ref().unwrap().to_ip(), Some("192.0.2.1".parse().unwrap()));
    assert_eq!(session.origin.address.to_ip(), None);
}

#[test]
fn names_the_fault() {
    let bad = |text: &str| Session::parse(text.as_bytes()).unwrap_err();
    assert_eq!(bad(""), SdpError::Version);
    assert_eq!(bad("v=1\r\n"), SdpError::Version);
    assert_eq!(bad("v=0\r\ns=-\r\n"), SdpError::Origin);
    assert_eq!(bad("v=0\r\no=- x 1 IN IP4 h\r\n"), SdpError::Origin);
    assert_eq!(bad("v=0\r\nnonsense\r\n"), SdpError::Line(2));
    assert_eq!(bad("v=0\r\no=- 1 1 IN IP4 h\r\nc=IN\r\n"), SdpError::Connection(3));
    assert_eq!(bad("v=0\r\no=- 1 1 IN IP4 h\r\nm=audio 99999 RTP/AVP 0\r\n"), SdpError::Media(3));
    assert_eq!(bad("v=0\r\no=- 1 1 IN IP4 h\r\nm=audio 9 RTP/AVP\r\n"), SdpError::Media(3));
    let many = format!("v=0\r\no=- 1 1 IN IP4 h\r\n{}", "m=audio 9 RTP/AVP 0\r\n".repeat(MAX_MEDIA + 1));
    assert_eq!(bad(&many), SdpError::TooMany);
}

#[test]
fn two_of_us_agree_on_opus() {
    let (a, b) = (local("192.0.2.1:4000"), local("[2001:db8::5]:5000"));
    let offer = negotiate::offer(&a);
    let offer = Session::parse(&offer.to_bytes()).unwrap();
    let (answer, at_b) = negotiate::answer(&offer, &b).unwrap();
    let answer = Session::parse(&answer.to_bytes()).unwrap();
    assert_eq!(answer.media[0].formats, ["96", "101"]);
    assert_eq!(answer.media[0].rtpmap(96).unwrap().to_string(), "opus/48000/2");
    let at_a = negotiate::complete(&offer, &answer).unwrap();
    assert_eq!(at_b.remote_rtp, a.addr);
    assert_eq!(at_a.remote_rtp, b.addr);
    assert_eq!(at_a.remote_rtcp, b.addr);
    assert!(at_a.rtcp_mux && at_b.rtcp_mux);
    for agreed in [&at_a, &at_b] {
        assert_eq!(
            (agreed.codec.name.as_str(), agreed.codec.payload_type, agreed.codec.clock_rate),
            ("opus", 96, 48000)
        );
        assert_eq!(agreed.codec.fmtp, "useinbandfec=1");
        assert_eq!((agreed.dtmf_pt, agreed.dtmf_clock, agreed.ptime), (Some(101), 8000, 20));
        assert_eq!(agreed.direction, Direction::SendRecv);
    }
}

#[test]
fn answers_in_the_offerers_order_with_its_payload_types() {
    let offer = sdp("m=audio 6000 RTP/AVP 18 8 111 0 97\r\na=rtpmap:111 OPUS/48000/2\r\na=fmtp:111 stereo=1\r\n\
        a=rtpmap:97 telephone-event/8000\r\na=ptime:30\r\na=maxptime:20\r\n");
    let (answer, agreed) = negotiate::answer(&offer, &local("192.0.2.1:4000")).unwrap();
    assert_eq!(agreed.codec.name, "PCMA");
    assert_eq!((agreed.dtmf_pt, agreed.ptime), (Some(97), 20));
    assert_eq!(answer.media[0].formats, ["8", "97"]);
    assert!(!agreed.rtcp_mux);
    assert_eq!(agreed.remote_rtcp, "192.0.2.9:6001".parse().unwrap());
    assert!(answer.media[0].attribute("rtcp-mux").is_none());

    let mut opus_only = local("192.0.2.1:4000");
    opus_only.codecs.truncate(1);
    let (answer, agreed) = negotiate::answer(&offer, &opus_only).unwrap();
    assert_eq!((agreed.codec.payload_type, agreed.codec.fmtp.as_str()), (111, "stereo=1"));
    assert_eq!(answer.media[0].fmtp(111), Some("useinbandfec=1"));
}

#[test]
fn static_payload_types_need_no_rtpmap_and_events_take_the_codecs_clock() {
    let (_, agreed) = negotiate::answer(&sdp("m=audio 6000 RTP/AVP 0\r\n"), &local("192.0.2.1:4000")).unwrap();
    assert_eq!((agreed.codec.name.as_str(), agreed.dtmf_pt), ("PCMU", None));
    let mut ours = local("192.0.2.1:4000");
    ours.dtmf.push(EventOffer { payload_type: 102, clock_rate: 48000 });
    let offer =
        sdp("m=audio 6000 RTP/AVP 96 100 99\r\na=rtpmap:96 opus/48000/2\r\na=rtpmap:100 telephone-event/8000\r\n\
        a=rtpmap:99 telephone-event/48000\r\n");
    let (_, agreed) = negotiate::answer(&offer, &ours).unwrap();
    assert_eq!((agreed.dtmf_pt, agreed.dtmf_clock), (Some(99), 48000));
}

#[test]
fn video_fax_and_secured_streams_are_refused_and_the_call_goes_on() {
    let offer = sdp(
        "m=video 7000 RTP/AVP 31\r\nm=audio 7002 RTP/SAVP 0\r\nm=audio 7004 RTP/AVP 0\r\nm=image 7006 udptl t38\r\n\
        m=audio 7008 RTP/AVP 8\r\n",
    );
    let (answer, agreed) = negotiate::answer(&offer, &local("192.0.2.1:4000")).unwrap();
    let ports: Vec<_> = answer.media.iter().map(|m| m.port).collect();
    assert_eq!(ports, [0, 0, 4000, 0, 0]);
    assert_eq!((answer.media[3].kind.as_str(), answer.media[3].proto.as_str()), ("image", "udptl"));
    assert_eq!(agreed.index, 2);
    // A later offer of ours keeps the places.
    let mut hold = local("192.0.2.1:4000");
    hold.direction = Direction::SendOnly;
    hold.version = 2;
    let again = negotiate::offer_again(&answer, agreed.index, &hold);
    let ports: Vec<_> = again.media.iter().map(|m| m.port).collect();
    assert_eq!(ports, [0, 0, 4000, 0, 0]);
    assert_eq!(again.direction_of(&again.media[2]), Direction::SendOnly);
    assert_eq!(again.origin.version, "2");
}

#[test]
fn a_further_offer_keeps_what_the_numbers_mean() {
    let us = local("192.0.2.1:4000");
    let theirs = sdp("m=audio 6000 RTP/AVP 96 101\r\na=rtpmap:96 telephone-event/8000\r\na=rtpmap:101 PCMA/8000\r\n");
    let (answer, agreed) = negotiate::answer(&theirs, &us).unwrap();
    let again = negotiate::offer_again(&answer, agreed.index, &us);
    let meant = |pt| again.media[0].rtpmap(pt).unwrap().to_string();
    assert_eq!(again.media[0].formats, ["101", "97", "0", "96"]);
    assert_eq!(
        (meant(101), meant(96), meant(97)),
        ("PCMA/8000".into(), "telephone-event/8000".into(), "opus/48000/2".into())
    );
    // What was offered is offered again just so.
    let first = negotiate::offer(&us);
    assert_eq!(negotiate::offer_again(&first, 0, &us), first);
}

#[test]
fn a_hundred_thousand_mutations() {
    let us = local("192.0.2.1:4000");
    let base = negotiate::offer(&us).to_bytes();
    let mut rng = crate::core::Rng::from_seed(1);
    for _ in 0..100_000 {
        let mut bytes = base.clone();
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(3) {
                0 => bytes[at] = rng.next_u32() as u8,
                1 => bytes.truncate(at + 1),
                _ => bytes.insert(at, b"\n=:/ 0a9\xff"[rng.below(9) as usize]),
            }
        }
        if let Ok(session) = Session::parse(&bytes) {
            let _ = negotiate::answer(&session, &us);
            assert!(session.to_string().len() < 2 * bytes.len() + 200);
        }
    }
}

#[test]
fn hold_in_both_styles() {
    let us = local("192.0.2.1:4000");
    let direction =
        |text: &str| negotiate::answer(&sdp(text), &us).map(|(s, a)| (s.direction_of(&s.media[0]), a)).unwrap();
    let (answered, agreed) = direction("m=audio 6000 RTP/AVP 0\r\na=sendonly\r\n");
    assert_eq!((answered, agreed.held_by_remote()), (Direction::RecvOnly, true));
    let (answered, agreed) = direction("m=audio 6000 RTP/AVP 0\r\na=inactive\r\n");
    assert_eq!((answered, agreed.direction), (Direction::Inactive, Direction::Inactive));
    let (answered, agreed) = direction("m=audio 6000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n");
    assert_eq!((answered, agreed.held_by_remote()), (Direction::RecvOnly, true));
    let (answered, agreed) = direction("m=audio 6000 RTP/AVP 0\r\na=recvonly\r\n");
    assert_eq!((answered, agreed.held_by_remote()), (Direction::SendOnly, false));

    let mut holding = us.clone();
    holding.direction = Direction::SendOnly;
    let offer = negotiate::offer(&holding);
    let (answer, at_them) = negotiate::answer(&offer, &local("192.0.2.9:6000")).unwrap();
    assert!(at_them.held_by_remote());
    let at_us = negotiate::complete(&offer, &answer).unwrap();
    assert_eq!(at_us.direction, Direction::SendOnly);
}

#[test]
fn an_answer_may_renumber_list_several_or_refuse() {
    let offer = negotiate::offer(&local("192.0.2.1:4000"));
    let answer = sdp("m=audio 6000 RTP/AVP 0 120 8\r\na=rtpmap:120 opus/48000/2\r\na=rtcp:6005 IN IP4 192.0.2.77\r\n");
    let agreed = negotiate::complete(&offer, &answer).unwrap();
    assert_eq!(agreed.codec.name, "PCMU");
    assert_eq!((agreed.alternatives[0].payload_type, agreed.alternatives[0].receive_type), (120, 96));
    assert_eq!(agreed.remote_rtcp, "192.0.2.77:6005".parse().unwrap());
    let fault = |text: &str| negotiate::complete(&offer, &sdp(text)).unwrap_err();
    assert_eq!(fault("m=audio 0 RTP/AVP 0\r\n"), NegotiateError::Refused);
    assert_eq!(fault("m=video 6 RTP/AVP 0\r\n"), NegotiateError::Mismatch);
    assert_eq!(fault(""), NegotiateError::Mismatch);
    assert_eq!(fault("m=audio 6 RTP/AVP 18\r\n"), NegotiateError::NoCodec);
    assert_eq!(fault("m=audio 6 RTP/AVP 0\r\nc=IN IP4 host.example\r\n"), NegotiateError::NoAddress);
}

#[test]
fn nothing_in_common_is_said() {
    let us = local("192.0.2.1:4000");
    assert_eq!(negotiate::answer(&sdp("m=video 7000 RTP/AVP 31\r\n"), &us).unwrap_err(), NegotiateError::NoAudio);
    assert_eq!(negotiate::answer(&sdp("m=audio 7000 RTP/AVP 18\r\n"), &us).unwrap_err(), NegotiateError::NoCodec);
    assert_eq!(negotiate::answer(&sdp(""), &us).unwrap_err(), NegotiateError::NoAudio);
}

#[test]
fn rtcp_on_an_odd_port_is_said() {
    let mut us = local("192.0.2.1:4000");
    us.rtcp_mux = false;
    us.rtcp_port = 4100;
    let offer = negotiate::offer(&us);
    let (_, at_them) = negotiate::answer(&offer, &local("192.0.2.9:6000")).unwrap();
    assert_eq!(at_them.remote_rtcp, "192.0.2.1:4100".parse().unwrap());
    assert!(!at_them.rtcp_mux);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Session::parse(&bytes);
    }

    #[test]
    fn mutated_descriptions_never_panic(at in 0usize..400, byte: u8, cut in 0usize..400) {
        let us = local("192.0.2.1:4000");
        let mut bytes = negotiate::offer(&us).to_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(bytes.len().saturating_sub(cut / 20));
        if let Ok(session) = Session::parse(&bytes) {
            let _ = negotiate::answer(&session, &us);
            let _ = negotiate::complete(&negotiate::offer(&us), &session);
            let written = session.to_string();
            prop_assert_eq!(Session::parse(written.as_bytes()).map(|s| s.to_string()), Ok(written));
        }
    }
}

fn with_ice(addr: &str, candidates: &[&str]) -> LocalMedia {
    let credentials = ice::Credentials::draw(&mut crate::core::Rng::from_seed(addr.len() as u64));
    let candidates = candidates.iter().map(|c| ice::Candidate::parse(c).unwrap()).collect();
    let ice = ice::Ice { credentials, lite: false, trickle: true, second: false, candidates };
    LocalMedia { ice: Some(ice), ..local(addr) }
}

const HERE: &str = "1 1 UDP 2130706431 192.0.2.1 4000 typ host";
const THERE: &str = "1 1 UDP 2130706431 192.0.2.2 5000 typ host";

#[test]
fn both_ends_learn_each_others_candidates() {
    let (ours, theirs) = (with_ice("192.0.2.1:4000", &[HERE]), with_ice("192.0.2.2:5000", &[THERE]));
    let offer = Session::parse(&negotiate::offer(&ours).to_bytes()).unwrap();
    let (answer, there) = negotiate::answer(&offer, &theirs).unwrap();
    let here = negotiate::complete(&offer, &Session::parse(&answer.to_bytes()).unwrap()).unwrap();
    assert_eq!((there.ice, here.ice), (ours.ice, theirs.ice));
    assert!(here.rtcp_mux && there.rtcp_mux);
}

#[test]
fn who_has_no_ice_is_sent_to_where_the_description_says() {
    let ours = with_ice("192.0.2.1:4000", &[HERE]);
    let offer = negotiate::offer(&ours);
    let (answer, there) = negotiate::answer(&offer, &local("192.0.2.2:5000")).unwrap();
    assert!(answer.media[0].attributes.iter().all(|a| !a.name.starts_with("ice") && a.name != "candidate"));
    let here = negotiate::complete(&offer, &answer).unwrap();
    assert_eq!((here.ice, here.remote_rtp), (None, "192.0.2.2:5000".parse().unwrap()));
    assert_eq!((there.ice, there.remote_rtp), (None, "192.0.2.1:4000".parse().unwrap()));
    // One that does not multiplex would need checks for RTCP, which are not made.
    let two_ports = LocalMedia { rtcp_mux: false, ..with_ice("192.0.2.2:5000", &[THERE]) };
    let (answer, there) = negotiate::answer(&offer, &two_ports).unwrap();
    assert_eq!((there.ice, negotiate::complete(&offer, &answer).unwrap().ice), (None, None));
}

#[test]
fn an_offer_whose_address_was_rewritten_is_answered_with_mismatch() {
    let ours = with_ice("192.0.2.1:4000", &[HERE]);
    let text = String::from_utf8(negotiate::offer(&ours).to_bytes()).unwrap();
    let rewritten = text.replace("c=IN IP4 192.0.2.1", "c=IN IP4 203.0.113.9");
    let (answer, there) =
        negotiate::answer(&Session::parse(rewritten.as_bytes()).unwrap(), &with_ice("192.0.2.2:5000", &[THERE]))
            .unwrap();
    assert_eq!((there.ice, there.remote_rtp), (None, "203.0.113.9:4000".parse().unwrap()));
    assert!(answer.media[0].attribute("ice-mismatch").is_some() && answer.media[0].attribute("ice-ufrag").is_none());
    assert_eq!(negotiate::complete(&negotiate::offer(&ours), &answer).unwrap().ice, None);
}

#[test]
fn an_ice_lite_end_is_known_as_one() {
    let offer = negotiate::offer(&with_ice("192.0.2.1:4000", &[HERE]));
    let answer = format!(
        "v=0\r\no=- 1 1 IN IP4 192.0.2.2\r\ns=-\r\nc=IN IP4 192.0.2.2\r\nt=0 0\r\na=ice-lite\r\n\
         m=audio 5000 RTP/AVP 0\r\na=rtcp-mux\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=candidate:{THERE}\r\n"
    );
    let ice = negotiate::complete(&offer, &Session::parse(answer.as_bytes()).unwrap()).unwrap().ice.unwrap();
    assert!(ice.lite && !ice.trickle && ice.candidates.len() == 1);
}
