//! The types of the `rsip` crate at the library's edge, for programs that speak them.
//!
//! `rsip` has a closed list of methods, no compact names and no folded fields: what it cannot hold is refused with its
//! own error, names are given to it long and values unfolded, and the body byte for byte. Of a response to here its
//! reason phrase may be another one: `rsip` forgets that of a status it knows. Other headers keep name, value, order.

use ::rsip::{Error, Header, Headers, SipMessage, StatusCode};

use super::{HeaderName, Message, Method, ParseError};

impl TryFrom<&Message> for SipMessage {
    type Error = Error;

    fn try_from(message: &Message) -> Result<SipMessage, Error> {
        let mut head = match message.status() {
            0 => format!("{} {} SIP/2.0\r\n", message.method(), message.request_uri()),
            status => format!("SIP/2.0 {status} {}\r\n", message.reason()),
        };
        for (name, value) in message.fields() {
            let name = match HeaderName::new(name) {
                // As `rsip` knows it.
                HeaderName::Other(name) => name,
                known => known.as_str(),
            };
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut converted = SipMessage::try_from(head.as_bytes())?;
        *match &mut converted {
            SipMessage::Request(request) => request.body_mut(),
            SipMessage::Response(response) => response.body_mut(),
        } = message.body().to_vec();
        Ok(converted)
    }
}

impl TryFrom<&SipMessage> for Message {
    type Error = ParseError;

    fn try_from(message: &SipMessage) -> Result<Message, ParseError> {
        let (mut converted, headers, body): (_, &Headers, _) = match message {
            SipMessage::Request(request) => {
                let method = Method::from_bytes(request.method.to_string().as_bytes())?;
                (Message::request(method, &request.uri.to_string()), &request.headers, &request.body)
            }
            SipMessage::Response(response) => {
                let line = response.status_code.to_string();
                let phrase = match &response.status_code {
                    StatusCode::Other(_, reason) => reason.as_str(),
                    _ => line.split_once(' ').map_or("", |(_, phrase)| phrase),
                };
                let status = response.status_code.code();
                (100..700).contains(&status).then_some(()).ok_or(ParseError::StatusCode)?;
                (Message::response(status, phrase), &response.headers, &response.body)
            }
        };
        for header in headers.iter() {
            match header {
                Header::Other(name, value) => converted.push(name, value),
                header => {
                    let text = header.to_string();
                    let (name, value) = text.split_once(':').ok_or(ParseError::HeaderLine)?;
                    converted.push(name, value.trim_start());
                }
            }
        }
        converted.body = body.clone().into();
        Ok(converted)
    }
}
