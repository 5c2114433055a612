//! Responses to SIP responses and back.

use super::body::{push_contacts, push_entries, read_entries};
use super::header::Loose;
use super::members::push_members;
use super::tier::is_tier;
use super::{CHUNK_TYPE, COMPARE_TYPE, Carry, CarryError, LEASE_TYPE, OPTION, chunk, compare, lease};
use crate::core::Rng;
use crate::overlay::{Failure, PeerRef, RequestKind, Response};
use crate::sip::msg::Message;

impl Carry {
    /// The answer to `request`. The tag of To is drawn from `rng`.
    pub fn encode_response(&self, request: &Message, response: &Response, rng: &mut Rng) -> Message {
        let (status, reason) = match response {
            Response::Admitted { .. }
            | Response::Bye
            | Response::Stored { .. }
            | Response::Cached { .. }
            | Response::Compared { .. }
            | Response::Chunk { .. }
            | Response::Members { .. } => (200, "OK"),
            Response::Lease(answer) if lease::is_refusal(answer) => (412, "Conditional Request Failed"),
            Response::Lease(_) => (200, "OK"),
            Response::Redirect { .. } => (302, "Moved Temporarily"),
            Response::Responsible { exact: true, .. } => (200, "OK"),
            Response::Responsible { exact: false, .. } => (404, "Not Found"),
            Response::Entries { entries, .. } if entries.is_empty() => (404, "Not Found"),
            Response::Entries { .. } => (200, "OK"),
            Response::Refused { .. } => (412, "Conditional Request Failed"),
            Response::Tier(answer) => Carry::answer_status(answer),
            Response::Failed(failure) => (failure.status(), failure_reason(*failure)),
        };
        let mut message = Message::reply(request, status, reason);
        message.set_to_tag(&rng.token(4));
        match response {
            Response::Admitted { .. } | Response::Stored { .. } => {
                for contact in request.headers("Contact") {
                    message.push("Contact", contact);
                }
                if let Some(expires) = request.expires() {
                    message.push("Expires", expires);
                }
            }
            Response::Redirect { closer, .. } => {
                message.push("Contact", self.peer_uri(closer));
            }
            Response::Responsible { exact: true, .. } => {
                message.push("Contact", self.peer_uri(&self.me));
                message.push("Expires", self.expires);
            }
            Response::Entries { entries, .. } | Response::Cached { entries, .. } => {
                push_contacts(&mut message, entries)
            }
            _ => {}
        }
        message.push("Require", OPTION);
        message.push("Supported", OPTION);
        let holder = match response {
            Response::Entries { responsible: false, .. } => Some("replica"),
            Response::Cached { .. } => Some("cache"),
            _ => None,
        };
        message.push("DHT-PeerID", self.own_peer_id(holder));
        match response {
            Response::Admitted { links } | Response::Redirect { links, .. } | Response::Stored { links } => {
                self.push_links(&mut message, links);
            }
            Response::Responsible { links, path, .. } | Response::Entries { links, path, .. } => {
                self.push_links(&mut message, links);
                self.push_path(&mut message, path);
            }
            Response::Cached { path, .. } => self.push_path(&mut message, path),
            Response::Bye
            | Response::Refused { .. }
            | Response::Members { .. }
            | Response::Compared { .. }
            | Response::Lease(_)
            | Response::Chunk { .. }
            | Response::Tier(_)
            | Response::Failed(_) => {}
        }
        match response {
            Response::Tier(answer) => self.push_answer(&mut message, answer),
            Response::Entries { entries, .. } | Response::Cached { entries, .. } if !entries.is_empty() => {
                push_entries(&mut message, entries);
            }
            Response::Members { news } if !news.is_empty() => push_members(&mut message, None, None, news),
            Response::Refused { current } => push_entries(&mut message, current),
            Response::Compared { unix, parts } => {
                message.set_body(COMPARE_TYPE, compare::encode_response(*unix, parts));
            }
            Response::Lease(answer) => message.set_body(LEASE_TYPE, lease::encode_answer(answer)),
            Response::Chunk { bytes } => message.set_body(CHUNK_TYPE, chunk::encode_bytes(bytes)),
            _ => message.set_body("", Vec::new()),
        }
        message
    }

    /// What a final response to a request of that kind says, and who says to be its sender (`None` where it does not say;
    /// never so for what is believed).
    ///
    /// # Errors
    /// What is wrong with it: as good as no answer.
    pub fn decode_response(
        &self,
        message: &Message,
        kind: RequestKind,
    ) -> Result<(Option<PeerRef>, Response), CarryError> {
        let status = message.status();
        if status < 200 {
            return Err(CarryError::Header("status"));
        }
        let believed = matches!((status, kind), (200 | 302 | 412, _) | (404, RequestKind::Query | RequestKind::Fetch))
            || status == 404 && kind == RequestKind::Tier && is_tier(message);
        if !believed {
            let sender = self.read_peer_id(message, false).ok();
            let failure = match (status, kind) {
                (404, RequestKind::Touch | RequestKind::Take) => Failure::NotHeld,
                _ => Failure::from_status(status),
            };
            return Ok((sender, Response::Failed(failure)));
        }
        let sender = self.read_peer_id(message, false)?;
        let links = self.read_links(message);
        let response = match (status, kind) {
            (302, RequestKind::Leave | RequestKind::Members | RequestKind::Compare | RequestKind::Take) => {
                return Err(CarryError::Header("status"));
            }
            (302, _) => {
                let contact = message.values("Contact").next().and_then(Loose::parse);
                let contact = contact.ok_or(CarryError::Header("Contact"))?;
                let closer = self.peer(&contact)?.ok_or(CarryError::Header("Contact"))?;
                Response::Redirect { closer, links }
            }
            (200, RequestKind::Register) => Response::Admitted { links },
            (200, RequestKind::Leave) => Response::Bye,
            (200 | 404, RequestKind::Query) => {
                Response::Responsible { exact: status == 200, links, path: self.read_path(message)? }
            }
            (200 | 404, RequestKind::Fetch) => {
                let entries = if status == 200 { read_entries(message)? } else { Vec::new() };
                let loose = message.header("DHT-PeerID").and_then(Loose::parse);
                let path = self.read_path(message)?;
                match loose.and_then(|l| l.get(&["holder"])) {
                    Some("cache") => Response::Cached { entries, path },
                    holder => Response::Entries { entries, responsible: holder != Some("replica"), links, path },
                }
            }
            (200, RequestKind::Members) if message.body().is_empty() => Response::Members { news: Vec::new() },
            (200, RequestKind::Members) => Response::Members { news: self.read_members(message)?.2 },
            (200, RequestKind::Compare) if message.content_is(COMPARE_TYPE) => {
                let (unix, parts) = compare::decode_response(message.body(), self.space)?;
                Response::Compared { unix, parts }
            }
            (200 | 412, RequestKind::Lease) if message.content_is(LEASE_TYPE) => {
                let answer = lease::decode_answer(message.body())?;
                if lease::is_refusal(&answer) != (status == 412) {
                    return Err(CarryError::Header("status"));
                }
                Response::Lease(answer)
            }
            (200, RequestKind::Take) if message.content_is(CHUNK_TYPE) => {
                Response::Chunk { bytes: chunk::decode_bytes(message.body())? }
            }
            (200, RequestKind::Store | RequestKind::Touch | RequestKind::Give) => Response::Stored { links },
            (200 | 404, RequestKind::Tier) => self.decode_answer(message)?,
            (412, RequestKind::Store | RequestKind::Touch | RequestKind::Give | RequestKind::Tier) => {
                Response::Refused { current: read_entries(message)? }
            }
            _ => Response::Failed(Failure::from_status(status)),
        };
        Ok((Some(sender), response))
    }
}

fn failure_reason(failure: Failure) -> &'static str {
    match failure {
        Failure::Bad => "Bad Request",
        Failure::Invalid => "Forbidden",
        Failure::NotHeld => "Not Found",
        Failure::Loop => "Loop Detected",
        Failure::TooManyHops => "Too Many Hops",
        Failure::OtherOverlay => "Not Acceptable Here",
        Failure::BadId => "Undecipherable",
        Failure::Busy => "Service Unavailable",
        Failure::NoAnswer => "Server Time-out",
        Failure::NotInRing => "Temporarily Unavailable",
        Failure::Status(_) => "Failed",
    }
}
