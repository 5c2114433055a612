//! What a user agent or proxy has to check before it acts (RFC 3261 sections 8.1.1, 8.2, 16.3).

use super::view::{in_field, list};
use super::{CSeq, HeaderName, Message, ParseError, addr, lex, uri, via};

/// Fields that may stand once only.
const SINGLE: [HeaderName<'static>; 8] = [
    HeaderName::From,
    HeaderName::To,
    HeaderName::CallId,
    HeaderName::CSeq,
    HeaderName::MaxForwards,
    HeaderName::ContentLength,
    HeaderName::ContentType,
    HeaderName::Expires,
];

impl Message {
    /// Checks start line, mandatory fields and the syntax and ranges of those that SIP acts on. A request with a
    /// fault is answered with [`ParseError::status`] and [`ParseError::reason`], a response is dropped.
    ///
    /// Not checked: the scheme of the Request-URI (416), Require (420), the body's type (415), fields that only tell
    /// something to people.
    ///
    /// # Errors
    /// The first fault found.
    pub fn validate(&self) -> Result<(), ParseError> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        for name in SINGLE {
            if self.positions(name).nth(1).is_some() {
                return Err(ParseError::Repeated(name.as_str()));
            }
        }
        self.check_request_uri()?;
        self.check_via()?;
        for name in [HeaderName::From, HeaderName::To] {
            let value = self.header(name).ok_or(ParseError::Missing(name.as_str()))?;
            addr::check(value).map_err(in_field(name.as_str()))?;
        }
        let call_id = self.header(HeaderName::CallId).ok_or(ParseError::Missing("Call-ID"))?;
        if call_id.is_empty() || call_id.bytes().any(|b| b <= b' ') {
            return Err(ParseError::Header("Call-ID"));
        }
        let cseq = CSeq::parse(self.header(HeaderName::CSeq).ok_or(ParseError::Missing("CSeq"))?)?;
        if cseq.method != self.method {
            return Err(ParseError::CSeqMethod);
        }
        self.check_number(HeaderName::MaxForwards, 255)?;
        self.check_number(HeaderName::Expires, u64::from(u32::MAX))?;
        self.check_number(HeaderName::MinExpires, u64::from(u32::MAX))?;
        self.check_number(HeaderName::ContentLength, u64::MAX)?;
        self.check_contacts()?;
        for name in [HeaderName::Route, HeaderName::RecordRoute] {
            for value in self.headers(name).flat_map(list) {
                addr::check(value).map_err(in_field(name.as_str()))?;
            }
        }
        Ok(())
    }

    fn check_request_uri(&self) -> Result<(), ParseError> {
        if self.is_response() {
            return Ok(());
        }
        match uri::split(self.request_uri()) {
            // URI headers do not belong in a Request-URI (RFC 3261 section 19.1.1, table 1).
            Some(parts) if parts.headers.is_none() => Ok(()),
            _ => Err(ParseError::RequestUri),
        }
    }

    /// The field of the top hop. What stands below is the business of those who put it there.
    fn check_via(&self) -> Result<(), ParseError> {
        let field = self.header(HeaderName::Via).ok_or(ParseError::Missing("Via"))?;
        list(field).try_for_each(|value| via::check(value).map_err(in_field("Via")))
    }

    fn check_contacts(&self) -> Result<(), ParseError> {
        for value in self.headers(HeaderName::Contact).flat_map(list).filter(|value| *value != "*") {
            addr::check(value).map_err(in_field("Contact"))?;
            if let Some(expires) = lex::find_param(lex::params_of(value), "expires")
                && let Some(number) = lex::number(expires)
                && number.is_none_or(|n| n > u64::from(u32::MAX))
            {
                return Err(ParseError::Range("Contact expires"));
            }
        }
        Ok(())
    }

    fn check_number(&self, name: HeaderName<'static>, most: u64) -> Result<(), ParseError> {
        let Some(value) = self.header(name) else { return Ok(()) };
        // Expires and its kin may carry a comment or parameters in other generations of SIP; ours are digits.
        match lex::number(value) {
            None => Err(ParseError::Header(name.as_str())),
            Some(Some(n)) if n <= most => Ok(()),
            Some(_) => Err(ParseError::Range(name.as_str())),
        }
    }
}
