//! 100,000 mutated inputs into each of the other parsers that eat what somebody else wrote: certificates, records,
//! enrolment, codes, overlay messages, configuration, accounts, control commands, WAV files. No panic; and the
//! process does not grow with the number of inputs.
//!
//! The draws are seeded; the parser and the round stand in the panic's message by the test's name and `round`.

use chordial::config::Config;
use chordial::core::{Id, Instant, Redacted, Rng, UnixTime};
use chordial::identity::login::{
    CHEAP, Credential, LoginAnswer, LoginAttempt, LoginRequest, PasswordParts, ShareAnswer, ShareRequest,
};
use chordial::identity::{
    Chain, ContactBody, Entry, EntryKind, Identity, InviteCode, JoinAnswer, JoinRequest, Joining, PairingAnswer,
    PairingInviter, PairingJoiner, PairingRequest, RecoverySheet, Settings, ShortCode, SignedEntry, resource_key,
};
use chordial::nat::turn::credential::Secret;
use chordial::nat::turn::peers::Peers;
use chordial::nat::turn::server::{Config as RelayConfig, Input as RelayInput, Output as RelayOutput};
use chordial::nat::turn::table::{Path, Table, Way};
use chordial::nat::turn::{Server, table};
use chordial::node::Grant;
use chordial::node::control::Command;
use chordial::overlay::carry::Carry;
use chordial::overlay::tier::{Ask, Rank};
use chordial::overlay::{PeerRef, Request, RequestKind, Route};
use chordial::pbx::Accounts;
use chordial::sip::msg::Message;
use chordial::stun;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const ROUNDS: usize = 100_000;
const NOW: UnixTime = UnixTime(1_800_000_000);

/// One to four changes: a bit, a byte, a cut, a copy of a piece somewhere else, a run of one byte.
fn mutate(rng: &mut Rng, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            1 if at < bytes.len() => bytes[at] = rng.next_u32() as u8,
            2 => bytes.truncate(at),
            3 => {
                let piece: Vec<u8> =
                    bytes.iter().skip(rng.below(bytes.len() as u64 + 1) as usize).take(24).copied().collect();
                bytes.splice(at..at, piece);
            }
            4 => {
                let byte = *b"\x00\xff\x1b\x9f\x7f\"\n=,[{".get(rng.below(11) as usize).unwrap_or(&0);
                bytes.splice(at..at, std::iter::repeat_n(byte, 1 + rng.below(9) as usize));
            }
            _ if at < bytes.len() => _ = bytes.remove(at),
            _ => {}
        }
    }
    bytes
}

fn rss_kb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// What grows is the whole process: one at a time.
static ONE: Mutex<()> = Mutex::new(());

/// Feeds mutated seeds; gives how many were accepted. Grows by less than what a leak of 200 bytes an input would make.
fn feed(name: &str, seeds: &[Vec<u8>], mut parser: impl FnMut(&[u8]) -> bool) -> usize {
    let _one_at_a_time = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut rng = Rng::from_seed(name.bytes().map(u64::from).sum());
    let mut accepted = 0;
    for _ in 0..ROUNDS / 10 {
        let seed = &seeds[rng.below(seeds.len() as u64) as usize];
        parser(&mutate(&mut rng, seed));
    }
    let before = rss_kb();
    for _ in 0..ROUNDS {
        let seed = &seeds[rng.below(seeds.len() as u64) as usize];
        accepted += usize::from(parser(&mutate(&mut rng, seed)));
    }
    let grown = rss_kb().saturating_sub(before);
    assert!(grown < 20_000, "{name}: {grown} kB more after {ROUNDS} inputs");
    for seed in seeds {
        assert!(parser(seed), "{name}: an unchanged seed is refused, so the rounds prove nothing");
    }
    accepted
}

fn entry(identity: &Identity) -> SignedEntry {
    let body = ContactBody {
        peer_id: identity.peer_id(),
        addrs: vec!["192.0.2.1:5061".parse().unwrap(), "[2001:db8::1]:5061".parse().unwrap()],
        user_agent: "chordial".into(),
        via: vec![(Id::sha1(b"s"), "192.0.2.2:5061".parse().unwrap())],
    };
    let entry = Entry {
        kind: EntryKind::Contact,
        aor: identity.aor(),
        device: identity.device_key(),
        sequence: 7,
        issued: NOW,
        lifetime: 600,
        body: body.encode(),
    };
    identity.sign_entry(entry).unwrap()
}

#[test]
fn certificates_records_and_enrolment() {
    let mut rng = Rng::from_seed(1);
    let open = Identity::open("lab.test", "bob", NOW, &mut rng).unwrap();
    let (mut office, sheet) = Identity::found("acme", "anna", Some("11"), NOW, &mut rng).unwrap();
    let addr: SocketAddr = "192.0.2.1:5061".parse().unwrap();
    let enroller = office.enroller.as_mut().unwrap();
    let code = enroller.invite("ben", None, &[addr], Duration::from_secs(600), NOW, &mut rng).unwrap();
    let code_text = code.text();
    let joining = Joining::new(code, "laptop", &mut rng).unwrap();
    let answer = enroller.redeem(&joining.request(), addr.ip(), NOW, &mut rng).unwrap();
    let entries = [entry(&open), entry(&office)];
    let encoded: Vec<_> = entries.iter().map(|e| e.encoded().to_vec()).collect();
    let key = resource_key(&open.aor());

    feed("signed entry", &encoded, |b| {
        // What still decodes must not verify, unless it is what was signed.
        let Ok(decoded) = SignedEntry::decode(b) else { return false };
        assert!(encoded.iter().any(|e| e == b) || open.anchor.verify_entry(&decoded, &key, NOW).is_err());
        true
    });
    feed("chain", &[open.chain.encoded().to_vec(), office.chain.encoded().to_vec()], |b| Chain::decode(b).is_ok());
    let bodies: Vec<_> = entries.iter().map(|e| e.entry().body.clone()).collect();
    feed("contact body", &bodies, |b| ContactBody::decode(b).is_ok());
    feed("join request", &[joining.request().encode()], |b| JoinRequest::decode(b).is_ok());
    feed("join answer", &[answer.encode()], |b| JoinAnswer::decode(b).is_ok());
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    feed("invite code", &[code_text.into_bytes()], |b| InviteCode::parse(&text(b)).is_ok());
    feed("recovery sheet", &[sheet.secret_text().into_bytes()], |b| RecoverySheet::parse("acme", &text(b)).is_ok());
}

#[test]
fn log_in_pairing_and_settings() {
    let mut rng = Rng::from_seed(7);
    let (office, _) = Identity::found("acme", "anna", None, NOW, &mut rng).unwrap();
    let key = office.user_key.clone().unwrap();
    let [enroller, user] = office.above_device() else { panic!("an office") };
    let parts = PasswordParts::make("anna", "acme", "a password", CHEAP, &mut rng).unwrap();
    let (credential, owned) = Credential::new(&parts, &key, enroller, user, NOW, &mut rng).unwrap();
    let request = LoginAttempt::new("anna", "acme", "a password", &mut rng).unwrap().request();
    let shares = std::array::from_fn(|n| (credential.masked[n], owned.keys[n].evaluate(&request.blinded).unwrap()));
    let answer = LoginAnswer { sealed: credential.sealed.clone(), shares };
    feed("credential", &[credential.encode()], |b| Credential::decode(b).is_ok_and(|c| c.owned(&key).is_some()));
    feed("login request", &[request.encode()], |b| LoginRequest::decode(b).is_ok());
    feed("login answer", &[answer.encode()], |b| LoginAnswer::decode(b).is_ok());
    let hold = ShareRequest::Hold { epoch: [1; 16], number: 2, key: owned.keys[2].to_bytes() };
    let evaluate = ShareRequest::Evaluate {
        user: "anna".into(),
        epoch: [2; 16],
        source: vec![10, 0, 0, 1],
        blinded: request.blinded,
    };
    feed("share request", &[hold.encode(), evaluate.encode()], |b| ShareRequest::decode(b).is_ok());
    feed("share answer", &[ShareAnswer::Bytes([3; 32]).encode()], |b| ShareAnswer::decode(b).is_ok());
    let hex = parts.to_hex().as_bytes().to_vec();
    feed("password parts", &[hex], |b| PasswordParts::from_hex(&String::from_utf8_lossy(b)).is_ok());
    let code = ShortCode::generate(&mut rng);
    let joiner = PairingJoiner::new(&code, office.device_key(), office.device_key(), &mut rng);
    let inviter = PairingInviter::new(&code, office.device_key(), &joiner.hello(), &mut rng).unwrap();
    feed("pairing request", &[joiner.hello().encode()], |b| PairingRequest::decode(b).is_ok());
    feed("pairing answer", &[inviter.hello().encode()], |b| PairingAnswer::decode(b).is_ok());
    let mut settings = Settings::default();
    let part = settings.set("contact/Ben", Some("sip:ben@acme"), [1; 8], NOW).unwrap();
    let sealed = settings.seal(part, "sip:anna+settings-0@acme", &key, &mut rng).unwrap();
    feed("sealed settings", &[sealed], |b| Settings::open(b, "sip:anna+settings-0@acme", &key).is_some());
    feed("settings file", &[settings.to_bytes().to_vec()], |b| Settings::from_bytes(b).is_ok());
}

#[test]
fn the_identity_file() {
    let mut rng = Rng::from_seed(2);
    let (office, _) = Identity::found("acme", "anna", None, NOW, &mut rng).unwrap();
    let open = Identity::open("lab.test", "bob", NOW, &mut rng).unwrap();
    let files: Vec<_> = [&office, &open].iter().map(|i| i.to_bytes().reveal().to_vec()).collect();
    feed("identity file", &files, |b| Identity::from_bytes(b, NOW).is_ok());
}

#[test]
fn overlay_messages() {
    let mut rng = Rng::from_seed(3);
    let identity = Identity::open("lab.test", "bob", NOW, &mut rng).unwrap();
    let peer =
        |n: u64| PeerRef { id: Id::sha1(&n.to_be_bytes()), addr: SocketAddr::from(([192, 0, 2, n as u8], 5061)) };
    let carry = Carry::new("lab.test", peer(1), 600);
    let key = resource_key(&identity.aor());
    let recursive = Route::Recursive { hops: 9, path: vec![peer(2), peer(3)] };
    let requests = [
        Request::Register { expires: 600 },
        Request::Query { target: key, route: recursive.clone() },
        Request::Fetch { key, replica: 1, aor: Some(identity.aor().into()), route: recursive },
        Request::Store { key, replica: 0, entries: vec![entry(&identity)], route: Route::Here },
        Request::Tier(Ask::Attach { rank: Some(Rank::Backup), expires: 600, other: Some(key), able: true }),
        Request::Tier(Ask::Put { key, entry: Box::new(entry(&identity)) }),
        Request::Tier(Ask::Dial { peer: peer(5) }),
    ];
    let mut wire = |request| {
        let mut message = carry.encode_request(request, peer(4).addr, &mut rng);
        message.push_front("Via", "SIP/2.0/TLS 192.0.2.1:5061;branch=z9hG4bK1");
        message.to_bytes().to_vec()
    };
    let seeds: Vec<_> = requests.iter().map(&mut wire).collect();
    let kinds = [RequestKind::Register, RequestKind::Query, RequestKind::Fetch, RequestKind::Store, RequestKind::Tier];
    feed("overlay request", &seeds, |b| {
        let Ok(message) = Message::parse(b) else { return false };
        if message.is_response() {
            kinds.iter().for_each(|kind| _ = carry.decode_response(&message, *kind));
        }
        carry.decode_request(&message).is_ok()
    });
}

#[test]
fn configuration_accounts_and_commands() {
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    feed("configuration", &[Config::example().into_bytes()], |b| Config::from_toml(&text(b)).is_ok());
    let mut accounts = Accounts::new("lab.test");
    accounts.add("kitchen", "by the window", "secret").unwrap();
    feed("accounts", &[accounts.to_toml().into_bytes()], |b| Accounts::from_toml("lab.test", &text(b)).is_ok());
    let csv = b"user,password,label\nkitchen,secret\n\"hall\",\"pass, word\",Hall\n".to_vec();
    feed("accounts as CSV", &[csv], |b| Accounts::new("lab.test").import_csv(&text(b)).is_ok());
    let commands: Vec<_> = [
        r#"{"command":"call","target":"bob","play":"wav:/tmp/a.wav","record":null,"duration":2.5}"#,
        r#"{"command":"lookup","target":"sip:bob@lab.test","iterative":true}"#,
        r#"{"command":"status"}"#,
    ]
    .iter()
    .map(|c| c.as_bytes().to_vec())
    .collect();
    feed("control command", &commands, |b| serde_json::from_slice::<Command>(b).is_ok());
}

#[cfg(feature = "io")]
#[test]
fn wav_files() {
    use chordial::io::audio::SourceSpec;
    // In memory where that can be: 100,000 files are written.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = dir.path().join("a.wav");
    let spec = SourceSpec::Wav(path.clone());
    let speech = include_bytes!("../../config/speech.wav");
    let mut short = speech[..1024.min(speech.len())].to_vec();
    // The lengths in the header are those of a file this short.
    let (riff, data) = ((short.len() - 8) as u32, (short.len() - 44) as u32);
    short[4..8].copy_from_slice(&riff.to_le_bytes());
    short[40..44].copy_from_slice(&data.to_le_bytes());
    feed("WAV file", &[short], |b| {
        std::fs::write(&path, b).unwrap();
        spec.open(48_000).is_ok()
    });
}

/// What a client with a good credential says, and bare STUN.
fn stun_seeds(secret: &Secret, client: SocketAddr) -> Vec<Vec<u8>> {
    use stun::attributes::{Lifetime, RequestedTransport, XorPeerAddress};
    let minted = secret.mint("ann", UnixTime(NOW.secs() + 1000));
    let key = stun::Key::long_term_md5(&minted.username, "fuzz", minted.password.reveal());
    let peer: SocketAddr = "9.9.9.9:5000".parse().unwrap();
    let mut seeds = Vec::new();
    for method in [0x001, 0x003, 0x004, 0x008, 0x009] {
        let mut message = stun::Message::new(stun::Class::Request, stun::Method(method), [method as u8; 12]);
        message.push(RequestedTransport::new(17));
        message.push(Lifetime::from_u32(600));
        message.push(XorPeerAddress::new(peer));
        message.push_raw(stun::raw::CHANNEL_NUMBER, &[0x40, 0, 0, 0]);
        message.push_credential(Some(&minted.username), "fuzz", &secret.nonce(Instant::ZERO, client));
        seeds.push(message.encode(stun::Seal { key: Some((&key, stun::Integrity::Sha1)), fingerprint: method == 1 }));
    }
    seeds.push(stun::channel_data(0x4000, b"speech", false).unwrap());
    let mut send = Vec::new();
    stun::write_data(&mut send, true, &[1; 12], peer, b"speech").unwrap();
    seeds.push(send);
    seeds
}

#[test]
fn stun_and_a_relay() {
    let (secret, client) = (Secret::new([1; 32]), "203.0.113.1:1000".parse().unwrap());
    let seeds = stun_seeds(&secret, client);
    let read = feed("stun", &seeds, |bytes| {
        let mut framer = stun::Framer::default();
        framer.push(bytes);
        while let Ok(Some(_)) = framer.next_message() {}
        let _ = (stun::classify(bytes), stun::read_send(bytes));
        stun::Parsed::read(bytes).is_ok() || stun::read_channel(bytes).is_some()
    });
    assert!(read > 1000, "{read}");
    let config = RelayConfig {
        realm: "fuzz".into(),
        secret,
        allocations: 8,
        of_one_user: 8,
        ports: (50_000, 60_000),
        addresses: vec!["198.51.100.1".parse().unwrap()],
        shown: Default::default(),
        faces: Vec::new(),
        peers: Peers::new(Vec::new(), Vec::new()),
    };
    let mut server = Server::new(Instant::ZERO, NOW, config, Rng::from_seed(1));
    let mut table = Table::new(Instant::ZERO, table::Ceilings::default());
    let path = Path::Datagram { socket: 0, local: None, client };
    let mut now = Instant::ZERO;
    let (asked, data) = seeds.split_at(5);
    let control = feed("a relay", asked, |bytes| {
        now += Duration::from_micros(500);
        if !matches!(table.from_client(now, &path, bytes), Way::Control) {
            return false;
        }
        server.handle(now, RelayInput::Message { path, bytes });
        server.handle_timeout(now);
        while let Some(output) = server.poll_output() {
            match output {
                RelayOutput::Open { wish, .. } => server.handle(now, RelayInput::Opened { wish, open: true }),
                RelayOutput::Change(change) => table.apply(now, change),
                RelayOutput::Answer { bytes, .. } => assert!(stun::Parsed::read(&bytes).is_ok()),
                RelayOutput::Dial { id, .. } => server.handle(now, RelayInput::Dialled { id, open: true }),
                RelayOutput::Close(_) | RelayOutput::Hang(_) | RelayOutput::Join { .. } | RelayOutput::Part(_) => {}
            }
        }
        true
    });
    assert!(control > 1000 && server.allocations() <= 8, "{control}");
    // With allocations there, or without: data goes somewhere or nowhere, and is no question.
    feed("a relay's data", data, |bytes| {
        now += Duration::from_micros(500);
        !matches!(table.from_client(now, &path, bytes), Way::Control) || stun::Parsed::read(bytes).is_ok()
    });
}

#[test]
fn grants() {
    let grant = Grant {
        hosts: vec!["192.0.2.1".parse().unwrap()],
        udp: 3478,
        streams: vec![443],
        realm: "office".into(),
        username: "1:ann".into(),
        password: Redacted::new("p".into()),
        lifetime: 60,
        load: 1,
        certificate: [0; 32],
    };
    assert!(feed("grants", &[grant.encode()], |bytes| Grant::decode(bytes).is_some()) > 1000);
}
