//! Attachments, delegated operations and dial-backs. Each is a `REGISTER` to the peer itself with a `DHT-Tier` field:
//!
//! | `DHT-Tier` | To, Contact | body | answer |
//! |---|---|---|---|
//! | `attach` or `ask`, `;rank=primary\|backup;other=ID;able` | the sender, `Expires` > 0 | | 200 `attached;load=..;capacity=..;ring=..;wanted`, other supernodes as S*n* links; 302 to another |
//! | `detach` | the sender, `Expires: 0` | | 200 `done` |
//! | `get;mode=M` | To the resource, no Contact | | 200 or 404, `found;hops=..;retries=..;mode=M`, peers asked as `DHT-Path` |
//! | `put` | To the resource, Contact | the entry | 200 `written;acks=..` and the same; 412 with the later entry |
//! | `lease`, `give`, `take` | To the resource | as between peers | 200 `lease`, `written`, `taken` |
//! | `find;mode=M` | To `<sip:peer@0.0.0.0;peer-ID=X>` | | 200 `responsible` and the same, Contact the peer responsible |
//! | `dial-back` | the sender | | 200 `reachable` or `unreachable` |
//! | `dial` | To the peer to be reached | | the same |
//! | `gone` | To the peer that is gone | | 200 `done` |
//! | `wanted`, `;urgent` | the sender | | 200 `done` |

use super::body::{push_contacts, push_entries, read_entries};
use super::header::{Loose, NOWHERE};
use super::{CHUNK_TYPE, Carry, CarryError, LEASE_TYPE, OPTION, chunk, lease};
use crate::core::{Rng, UnixTime};
use crate::overlay::tier::{Answer, Ask, Offer, Rank, Way};
use crate::overlay::{Links, Mode, PeerRef, Response};
use crate::sip::msg::{Message, Method};
use std::fmt::Write;
use std::net::SocketAddr;

const HEADER: &str = "DHT-Tier";
const FAULT: CarryError = CarryError::Header(HEADER);

/// A kind with its parameters.
struct Fields<'m> {
    kind: &'m str,
    params: Vec<(&'m str, &'m str)>,
}

impl<'m> Fields<'m> {
    fn of(message: &'m Message) -> Option<Fields<'m>> {
        let mut parts = message.header(HEADER)?.split(';').map(str::trim);
        let kind = parts.next()?;
        Some(Fields { kind, params: parts.take(16).map(|p| p.split_once('=').unwrap_or((p, ""))).collect() })
    }

    fn get(&self, name: &str) -> Option<&'m str> {
        self.params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v)
    }

    fn number<N: std::str::FromStr>(&self, name: &str) -> Result<N, CarryError> {
        self.get(name).and_then(|v| v.parse().ok()).ok_or(FAULT)
    }

    fn mode(&self) -> Result<Mode, CarryError> {
        match self.get("mode") {
            None | Some("auto") => Ok(Mode::Auto),
            Some("sure") => Ok(Mode::Sure),
            Some("recursive") => Ok(Mode::Recursive),
            Some("iterative") => Ok(Mode::Iterative),
            Some(_) => Err(FAULT),
        }
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Auto => "auto",
        Mode::Sure => "sure",
        Mode::Recursive => "recursive",
        Mode::Iterative => "iterative",
    }
}

pub(super) fn is_tier(message: &Message) -> bool {
    message.has(HEADER)
}

impl Carry {
    pub(super) fn encode_ask(&self, ask: &Ask, to: SocketAddr, rng: &mut Rng) -> Message {
        let mut message = Message::request(Method::Register, &format!("sip:{to}"));
        let me = self.peer_uri(&self.me);
        let about = match ask {
            Ask::Get { key, aor, .. } => self.resource_uri(aor.as_deref(), key, 0),
            Ask::Put { key, entry } | Ask::Lease { key, entry } | Ask::Give { key, entry, .. } => {
                self.resource_uri(Some(&entry.entry().aor), key, 0)
            }
            Ask::Take { key, .. } => self.resource_uri(None, key, 0),
            Ask::Find { target, .. } => self.peer_uri(&PeerRef { id: *target, addr: NOWHERE }),
            Ask::Dial { peer } | Ask::Gone { peer } => self.peer_uri(peer),
            Ask::Attach { .. } | Ask::Detach | Ask::DialBack | Ask::Wanted { .. } => me.clone(),
        };
        message.push("Max-Forwards", 0);
        message.push("To", about);
        message.push("From", format_args!("{me};tag={}", rng.token(4)));
        message.push("Call-ID", rng.token(8));
        message.push("CSeq", "1 REGISTER");
        match ask {
            Ask::Attach { expires, .. } => {
                message.push("Contact", &me);
                message.push("Expires", expires);
            }
            Ask::Detach => {
                message.push("Contact", &me);
                message.push("Expires", 0);
            }
            Ask::Put { entry, .. } => {
                push_contacts(&mut message, std::slice::from_ref(entry));
                message.push("Expires", if entry.entry().is_removal() { 0 } else { entry.entry().lifetime });
            }
            _ => {}
        }
        message.push("Require", OPTION);
        message.push("Supported", OPTION);
        message.push("Request-Disposition", "redirect");
        message.push("DHT-PeerID", self.own_peer_id(None));
        let mut tier = String::from(match ask {
            Ask::Attach { rank: Some(_), .. } => "attach",
            Ask::Attach { rank: None, .. } => "ask",
            Ask::Detach => "detach",
            Ask::Get { .. } => "get",
            Ask::Put { .. } => "put",
            Ask::Find { .. } => "find",
            Ask::Lease { .. } => "lease",
            Ask::Give { .. } => "give",
            Ask::Take { .. } => "take",
            Ask::DialBack => "dial-back",
            Ask::Dial { .. } => "dial",
            Ask::Gone { .. } => "gone",
            Ask::Wanted { urgent: true } => "wanted;urgent",
            Ask::Wanted { urgent: false } => "wanted",
        });
        match ask {
            Ask::Attach { rank, other, able, .. } => {
                if let Some(rank) = rank {
                    tier.push_str(if *rank == Rank::Primary { ";rank=primary" } else { ";rank=backup" });
                }
                if let Some(other) = other {
                    let _ = write!(tier, ";other={}", self.space.show(other));
                }
                if *able {
                    tier.push_str(";able");
                }
            }
            Ask::Get { mode, .. } | Ask::Find { mode, .. } => {
                let _ = write!(tier, ";mode={}", mode_name(*mode));
            }
            _ => {}
        }
        message.push(HEADER, tier);
        match ask {
            Ask::Put { entry, .. } => push_entries(&mut message, std::slice::from_ref(entry)),
            Ask::Lease { entry, .. } => message.set_body(LEASE_TYPE, lease::encode_request(entry, None)),
            Ask::Give { entry, bytes, .. } => message.set_body(CHUNK_TYPE, chunk::encode_give(entry, bytes)),
            Ask::Take { hash, .. } => message.set_body(CHUNK_TYPE, chunk::encode_bytes(&hash.0)),
            _ => message.set_body("", Vec::new()),
        }
        message
    }

    pub(super) fn decode_ask(&self, message: &Message) -> Result<(PeerRef, Ask), CarryError> {
        let fields = Fields::of(message).ok_or(FAULT)?;
        let sender = self.read_peer_id(message, false)?;
        let to = Loose::parse(message.header("To").ok_or(CarryError::Header("To"))?).ok_or(CarryError::Header("To"))?;
        let about = || self.peer(&to)?.ok_or(CarryError::Header("To"));
        let own = || match about()? {
            // Nobody attaches another peer.
            peer if peer.id == sender.id => Ok(()),
            _ => Err(CarryError::BadId("peer-ID")),
        };
        let ask = match fields.kind {
            "attach" | "ask" => {
                own()?;
                let rank = match (fields.kind, fields.get("rank")) {
                    ("ask", _) => None,
                    (_, Some("primary")) => Some(Rank::Primary),
                    (_, Some("backup")) => Some(Rank::Backup),
                    _ => return Err(FAULT),
                };
                let other = fields.get("other").map(|id| self.target(id)).transpose()?;
                let expires = message.expires().ok_or(CarryError::Header("Expires"))?;
                Ask::Attach { rank, expires, other, able: fields.get("able").is_some() }
            }
            "detach" => {
                own()?;
                Ask::Detach
            }
            "get" => {
                let (key, _, aor) = self.resource(message, &to)?;
                Ask::Get { key, aor, mode: fields.mode()? }
            }
            "put" => {
                let (key, _, aor) = self.resource(message, &to)?;
                let mut entries = read_entries(message)?.into_iter();
                let (Some(entry), None) = (entries.next(), entries.next()) else { return Err(CarryError::Body) };
                if (self.resource_id)(&entry.entry().aor) != key || aor.as_deref() != Some(&entry.entry().aor) {
                    return Err(CarryError::BadId("resource-ID"));
                }
                Ask::Put { key, entry: Box::new(entry) }
            }
            "lease" => {
                let (key, _, _) = self.resource(message, &to)?;
                let (entry, None) = lease::decode_request(message.body())? else { return Err(CarryError::Body) };
                self.names(&entry, &key)?;
                Ask::Lease { key, entry: Box::new(entry) }
            }
            "give" | "take" => {
                let (key, _, _) = self.resource(message, &to)?;
                match chunk::decode_request(message.body())? {
                    chunk::Asked::Take(hash) => Ask::Take { key, hash },
                    chunk::Asked::Give(entry, bytes) => {
                        self.names(&entry, &key)?;
                        Ask::Give { key, entry: Box::new(entry), bytes }
                    }
                }
            }
            "find" => {
                let target = self.target(to.peer_id().ok_or(CarryError::Header("To"))?)?;
                Ask::Find { target, mode: fields.mode()? }
            }
            "dial-back" => {
                own()?;
                Ask::DialBack
            }
            "dial" => Ask::Dial { peer: about()? },
            "gone" => Ask::Gone { peer: about()? },
            "wanted" => Ask::Wanted { urgent: fields.get("urgent").is_some() },
            _ => return Err(FAULT),
        };
        Ok((sender, ask))
    }

    /// Status and reason of an answer.
    pub(super) fn answer_status(answer: &Answer) -> (u16, &'static str) {
        match answer {
            Answer::Found { entries, .. } if entries.is_empty() => (404, "Not Found"),
            _ => (200, "OK"),
        }
    }

    /// Everything of an answer but its start line and the fields that each answer has.
    pub(super) fn push_answer(&self, message: &mut Message, answer: &Answer) {
        let way_of = |way: &Way| format!("hops={};retries={};mode={}", way.hops, way.retries, mode_name(way.mode));
        match answer {
            Answer::Attached { offer, supernodes } => {
                let Offer { load, capacity, ring, unix, .. } = offer;
                let mut tier = format!("attached;load={load};capacity={capacity};ring={ring};unix={}", unix.secs());
                if offer.wanted {
                    tier.push_str(";wanted");
                }
                message.push("Expires", offer.expires);
                message.push(HEADER, tier);
                self.push_links(message, &Links { successors: supernodes.clone(), ..Links::default() });
            }
            Answer::Found { entries, way } => {
                push_contacts(message, entries);
                message.push(HEADER, format_args!("found;{}", way_of(way)));
                self.push_path(message, &way.asked);
            }
            Answer::Written { acks, way } => {
                message.push(HEADER, format_args!("written;acks={acks};{}", way_of(way)));
                self.push_path(message, &way.asked);
            }
            Answer::Responsible { peer, way } => {
                message.push("Contact", self.peer_uri(peer));
                message.push(HEADER, format_args!("responsible;{}", way_of(way)));
                self.push_path(message, &way.asked);
            }
            Answer::Lease(_) => message.push(HEADER, "lease"),
            Answer::Taken { .. } => message.push(HEADER, "taken"),
            Answer::Reachable(yes) => message.push(HEADER, if *yes { "reachable" } else { "unreachable" }),
            Answer::Done => message.push(HEADER, "done"),
        }
        match answer {
            Answer::Found { entries, .. } if !entries.is_empty() => push_entries(message, entries),
            Answer::Lease(answer) => message.set_body(LEASE_TYPE, lease::encode_answer(answer)),
            Answer::Taken { bytes } => message.set_body(CHUNK_TYPE, chunk::encode_bytes(bytes)),
            _ => message.set_body("", Vec::new()),
        }
    }

    pub(super) fn decode_answer(&self, message: &Message) -> Result<Response, CarryError> {
        let fields = Fields::of(message).ok_or(FAULT)?;
        let way = || -> Result<Way, CarryError> {
            let asked = self.read_path(message)?;
            Ok(Way { hops: fields.number("hops")?, asked, retries: fields.number("retries")?, mode: fields.mode()? })
        };
        let answer = match fields.kind {
            "attached" => {
                let offer = Offer {
                    expires: message.expires().ok_or(CarryError::Header("Expires"))?,
                    load: fields.number("load")?,
                    capacity: fields.number("capacity")?,
                    ring: fields.number("ring")?,
                    wanted: fields.get("wanted").is_some(),
                    unix: UnixTime(fields.number("unix")?),
                };
                Answer::Attached { offer, supernodes: self.read_links(message).successors }
            }
            "found" => {
                let entries = if message.status() == 200 { read_entries(message)? } else { Vec::new() };
                Answer::Found { entries, way: way()? }
            }
            "written" => Answer::Written { acks: fields.number("acks")?, way: way()? },
            "responsible" => {
                let contact = message.values("Contact").next().and_then(Loose::parse);
                let contact = contact.ok_or(CarryError::Header("Contact"))?;
                let peer = self.peer(&contact)?.ok_or(CarryError::Header("Contact"))?;
                Answer::Responsible { peer, way: way()? }
            }
            "lease" => Answer::Lease(lease::decode_answer(message.body())?),
            "taken" => Answer::Taken { bytes: chunk::decode_bytes(message.body())? },
            "reachable" => Answer::Reachable(true),
            "unreachable" => Answer::Reachable(false),
            "done" => Answer::Done,
            _ => return Err(FAULT),
        };
        Ok(Response::Tier(answer))
    }
}
