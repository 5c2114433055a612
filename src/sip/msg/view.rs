//! Views: fields by name, lists, and the typed values of the fields that SIP itself stands on.

use super::{CSeq, HeaderName, Message, NameAddr, ParseError, Via, addr, lex};

impl Message {
    /// The value of the first field of this name, unfolded. Bytes that are no UTF-8 show as U+FFFD.
    pub fn header<'n>(&self, name: impl Into<HeaderName<'n>>) -> Option<&str> {
        self.headers(name).next()
    }

    /// The same as it stands on the wire: every byte, folds included.
    pub fn header_bytes<'n>(&self, name: impl Into<HeaderName<'n>>) -> Option<&[u8]> {
        let name = name.into();
        self.positions(name).next().and_then(|i| self.fields.get(i)).map(|field| self.wire_value(field))
    }

    /// The unfolded values of all fields of this name, in order.
    pub fn headers<'n, 'm>(&'m self, name: impl Into<HeaderName<'n>>) -> impl Iterator<Item = &'m str> {
        self.positions(name.into()).filter_map(|i| self.fields.get(i)).map(|field| self.text(field.view))
    }

    /// The comma-separated values of all fields of this name, in order. Commas in quoted strings and angle brackets
    /// separate nothing. For fields that are lists: not for Date, Subject, or digest credentials.
    pub fn values<'n, 'm>(&'m self, name: impl Into<HeaderName<'n>>) -> impl Iterator<Item = &'m str> {
        self.headers(name).flat_map(list).filter(|value| !value.is_empty())
    }

    /// True where a list field such as Require, Supported or Allow holds this token, in any case.
    pub fn has_token<'n>(&self, name: impl Into<HeaderName<'n>>, token: &str) -> bool {
        self.values(name).any(|value| value.eq_ignore_ascii_case(token))
    }

    /// True where there is a field of this name.
    pub fn has<'n>(&self, name: impl Into<HeaderName<'n>>) -> bool {
        self.positions(name.into()).next().is_some()
    }

    /// All fields in order: names as they were written, and unfolded values.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|field| (self.written_name(field), self.text(field.view)))
    }

    /// The top Via.
    ///
    /// # Errors
    /// [`ParseError::Missing`] or [`ParseError::Header`]; [`ParseError::Version`] for another protocol.
    pub fn via(&self) -> Result<Via, ParseError> {
        Via::parse(self.values(HeaderName::Via).next().ok_or(ParseError::Missing("Via"))?).map_err(in_field("Via"))
    }

    /// All Vias, the top one first.
    ///
    /// # Errors
    /// As [`via`](Message::via), for the first that is malformed.
    pub fn vias(&self) -> Result<Vec<Via>, ParseError> {
        self.values(HeaderName::Via).map(|value| Via::parse(value).map_err(in_field("Via"))).collect()
    }

    /// The branch of the top Via.
    pub fn branch(&self) -> Option<&str> {
        let params = lex::params_of(self.values(HeaderName::Via).next()?);
        lex::find_param(params, "branch").filter(|branch| !branch.is_empty())
    }

    /// From.
    ///
    /// # Errors
    /// [`ParseError::Missing`] or [`ParseError::Header`].
    pub fn from(&self) -> Result<NameAddr, ParseError> {
        self.one_address(HeaderName::From)
    }

    /// To.
    ///
    /// # Errors
    /// [`ParseError::Missing`] or [`ParseError::Header`].
    pub fn to(&self) -> Result<NameAddr, ParseError> {
        self.one_address(HeaderName::To)
    }

    /// The tag of From, where there is one.
    pub fn from_tag(&self) -> Option<&str> {
        self.tag(HeaderName::From)
    }

    /// The tag of To, where there is one.
    pub fn to_tag(&self) -> Option<&str> {
        self.tag(HeaderName::To)
    }

    /// Call-ID.
    pub fn call_id(&self) -> Option<&str> {
        self.header(HeaderName::CallId).filter(|id| !id.is_empty())
    }

    /// CSeq.
    ///
    /// # Errors
    /// [`ParseError::Missing`], [`ParseError::Header`] or [`ParseError::Range`].
    pub fn cseq(&self) -> Result<CSeq, ParseError> {
        CSeq::parse(self.header(HeaderName::CSeq).ok_or(ParseError::Missing("CSeq"))?)
    }

    /// The addresses in Contact, in order. `Contact: *` gives none: see [`has_star_contact`](Message::has_star_contact).
    ///
    /// # Errors
    /// [`ParseError::Header`] where one of them is malformed.
    pub fn contacts(&self) -> Result<Vec<NameAddr>, ParseError> {
        let values = self.values(HeaderName::Contact).filter(|value| *value != "*");
        values.map(|value| NameAddr::parse(value).map_err(in_field("Contact"))).collect()
    }

    /// True for `Contact: *` (RFC 3261 section 10.2.2).
    pub fn has_star_contact(&self) -> bool {
        self.values(HeaderName::Contact).any(|value| value == "*")
    }

    /// Route, the next hop first.
    ///
    /// # Errors
    /// [`ParseError::Header`].
    pub fn routes(&self) -> Result<Vec<NameAddr>, ParseError> {
        self.addresses(HeaderName::Route)
    }

    /// Record-Route, as it stands in the message.
    ///
    /// # Errors
    /// [`ParseError::Header`].
    pub fn record_routes(&self) -> Result<Vec<NameAddr>, ParseError> {
        self.addresses(HeaderName::RecordRoute)
    }

    /// Every address of a list field such as Path or P-Asserted-Identity.
    ///
    /// # Errors
    /// [`ParseError::Header`].
    pub fn addresses<'n>(&self, name: impl Into<HeaderName<'n>>) -> Result<Vec<NameAddr>, ParseError> {
        let name = name.into();
        self.values(name).map(|value| NameAddr::parse(value).map_err(in_field(known(name)))).collect()
    }

    /// Max-Forwards, 0..=255; `None` where it is absent or malformed.
    pub fn max_forwards(&self) -> Option<u8> {
        u8::try_from(lex::number(self.header(HeaderName::MaxForwards)?)??).ok()
    }

    /// Expires in seconds; `None` where it is absent or malformed.
    pub fn expires(&self) -> Option<u32> {
        u32::try_from(lex::number(self.header(HeaderName::Expires)?)??).ok()
    }

    /// Content-Length in bytes, as it is written; `None` where it is absent or malformed.
    pub fn content_length(&self) -> Option<usize> {
        usize::try_from(lex::number(self.header(HeaderName::ContentLength)?)??).ok()
    }

    /// Content-Type with its parameters.
    pub fn content_type(&self) -> Option<&str> {
        self.header(HeaderName::ContentType).filter(|value| !value.is_empty())
    }

    /// True where the media type of Content-Type is this one (`application/sdp`), whatever its parameters and case.
    pub fn content_is(&self, media_type: &str) -> bool {
        let is = |value: &str| {
            let media = value.split(';').next().unwrap_or_default();
            let mut halves = media.split('/').map(lex::trim_str);
            let mut wanted = media_type.split('/');
            halves.by_ref().zip(wanted.by_ref()).all(|(a, b)| a.eq_ignore_ascii_case(b))
                && halves.next().is_none()
                && wanted.next().is_none()
        };
        self.content_type().is_some_and(is)
    }

    pub(super) fn positions(&self, name: HeaderName<'_>) -> impl Iterator<Item = usize> {
        let code = name.code();
        let is = move |field: &super::message::Field| {
            field.code == code && (code != 0 || self.written_name(field).eq_ignore_ascii_case(name.as_str()))
        };
        self.fields.iter().enumerate().filter(move |(_, field)| is(field)).map(|(i, _)| i)
    }

    pub(super) fn written_name(&self, field: &super::message::Field) -> &str {
        let name = self.bytes(field.line).get(..usize::from(field.name_len)).unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }

    fn one_address(&self, name: HeaderName<'static>) -> Result<NameAddr, ParseError> {
        let value = self.header(name).ok_or(ParseError::Missing(name.as_str()))?;
        NameAddr::parse(value).map_err(in_field(name.as_str()))
    }

    fn tag(&self, name: HeaderName<'static>) -> Option<&str> {
        let params = addr::split(self.header(name)?)?.params?;
        lex::find_param(params, "tag").filter(|tag| !tag.is_empty())
    }
}

/// The elements of one field's list, empty ones too.
pub(super) fn list(value: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let (element, tail) = lex::split_outside(rest?, b',');
        rest = tail;
        Some(lex::trim_str(element))
    })
}

/// Says which field a fault is in.
pub(super) fn in_field(name: &'static str) -> impl Fn(ParseError) -> ParseError {
    move |fault| match fault {
        ParseError::Value | ParseError::Uri => ParseError::Header(name),
        fault => fault,
    }
}

fn known(name: HeaderName<'_>) -> &'static str {
    match HeaderName::from_code(name.code(), "") {
        HeaderName::Other(_) => "address",
        name => name.as_str(),
    }
}
