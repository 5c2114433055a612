//! Names of header fields: the known ones as variants, with their compact forms (RFC 3261 section 7.3.3).

use std::fmt;

macro_rules! names {
    ($($variant:ident $text:literal $compact:literal),* $(,)?) => {
        /// The name of a header field. Compares without regard to case, and a compact form equals the long one.
        #[derive(Clone, Copy, Debug)]
        #[allow(missing_docs)] // each variant is the field of its name
        pub enum HeaderName<'a> {
            $($variant,)*
            /// A name not among those above, as it was written.
            Other(&'a str),
        }

        const KNOWN: &[(&str, HeaderName<'static>, u8)] = &[$(($text, HeaderName::$variant, $compact)),*];

        impl<'a> HeaderName<'a> {
            /// The long form, or the unknown name as it was written.
            pub const fn as_str(&self) -> &'a str {
                match *self {
                    $(HeaderName::$variant => $text,)*
                    HeaderName::Other(name) => name,
                }
            }
        }

        #[repr(u8)]
        enum Order {
            $($variant,)*
        }

        impl HeaderName<'_> {
            /// 1 and up for a known name, 0 for any other.
            pub(super) const fn code(&self) -> u8 {
                match self {
                    $(HeaderName::$variant => Order::$variant as u8 + 1,)*
                    HeaderName::Other(_) => 0,
                }
            }
        }
    };
}

// In the order of KNOWN a code is an index plus one. Third column: the compact form, 0 for none.
names! {
    Accept "Accept" 0,
    AcceptContact "Accept-Contact" b'a',
    AcceptEncoding "Accept-Encoding" 0,
    AcceptLanguage "Accept-Language" 0,
    AlertInfo "Alert-Info" 0,
    Allow "Allow" 0,
    AllowEvents "Allow-Events" b'u',
    AuthenticationInfo "Authentication-Info" 0,
    Authorization "Authorization" 0,
    CallId "Call-ID" b'i',
    CallInfo "Call-Info" 0,
    Contact "Contact" b'm',
    ContentDisposition "Content-Disposition" 0,
    ContentEncoding "Content-Encoding" b'e',
    ContentLanguage "Content-Language" 0,
    ContentLength "Content-Length" b'l',
    ContentType "Content-Type" b'c',
    CSeq "CSeq" 0,
    Date "Date" 0,
    Diversion "Diversion" 0,
    ErrorInfo "Error-Info" 0,
    Event "Event" b'o',
    Expires "Expires" 0,
    From "From" b'f',
    HistoryInfo "History-Info" 0,
    Identity "Identity" b'y',
    InReplyTo "In-Reply-To" 0,
    Join "Join" 0,
    MaxForwards "Max-Forwards" 0,
    MimeVersion "MIME-Version" 0,
    MinExpires "Min-Expires" 0,
    MinSe "Min-SE" 0,
    Organization "Organization" 0,
    PAssertedIdentity "P-Asserted-Identity" 0,
    PPreferredIdentity "P-Preferred-Identity" 0,
    Path "Path" 0,
    Priority "Priority" 0,
    Privacy "Privacy" 0,
    ProxyAuthenticate "Proxy-Authenticate" 0,
    ProxyAuthorization "Proxy-Authorization" 0,
    ProxyRequire "Proxy-Require" 0,
    RAck "RAck" 0,
    Reason "Reason" 0,
    RecordRoute "Record-Route" 0,
    ReferTo "Refer-To" b'r',
    ReferredBy "Referred-By" b'b',
    RejectContact "Reject-Contact" b'j',
    Replaces "Replaces" 0,
    ReplyTo "Reply-To" 0,
    RequestDisposition "Request-Disposition" b'd',
    Require "Require" 0,
    RetryAfter "Retry-After" 0,
    Route "Route" 0,
    RSeq "RSeq" 0,
    Server "Server" 0,
    ServiceRoute "Service-Route" 0,
    SessionExpires "Session-Expires" b'x',
    SipEtag "SIP-ETag" 0,
    SipIfMatch "SIP-If-Match" 0,
    Subject "Subject" b's',
    SubscriptionState "Subscription-State" 0,
    Supported "Supported" b'k',
    Timestamp "Timestamp" 0,
    To "To" b't',
    Unsupported "Unsupported" 0,
    UserAgent "User-Agent" 0,
    Via "Via" b'v',
    Warning "Warning" 0,
    WwwAuthenticate "WWW-Authenticate" 0,
}

const SLOTS: usize = 256;
/// Open-addressed table from a hash of length, first and last letter to a code, made at compile time.
const TABLE: [u8; SLOTS] = table();
/// From a lower-case letter to the code of the compact form.
const COMPACT: [u8; 26] = compact();

const fn slot(name: &[u8]) -> usize {
    let first = name[0] | 0x20;
    let last = name[name.len() - 1] | 0x20;
    let middle = name[name.len() / 2] | 0x20;
    (name.len() * 31 + first as usize * 7 + last as usize * 3 + middle as usize * 13) % SLOTS
}

const fn table() -> [u8; SLOTS] {
    let mut table = [0; SLOTS];
    let mut i = 0;
    while i < KNOWN.len() {
        let mut at = slot(KNOWN[i].0.as_bytes());
        while table[at] != 0 {
            at = (at + 1) % SLOTS;
        }
        table[at] = i as u8 + 1;
        i += 1;
    }
    table
}

const fn compact() -> [u8; 26] {
    let mut letters = [0; 26];
    let mut i = 0;
    while i < KNOWN.len() {
        if KNOWN[i].2 != 0 {
            letters[(KNOWN[i].2 - b'a') as usize] = i as u8 + 1;
        }
        i += 1;
    }
    letters
}

/// The code of a name in any case, long or compact; 0 where it is not known.
pub(super) fn code_of(name: &[u8]) -> u8 {
    match name {
        [] => 0,
        [letter] if letter.is_ascii_alphabetic() => COMPACT[usize::from((letter | 0x20) - b'a')],
        [_] => 0,
        _ => {
            let mut at = slot(name);
            loop {
                match TABLE[at] {
                    0 => return 0,
                    code if KNOWN[usize::from(code) - 1].0.as_bytes().eq_ignore_ascii_case(name) => return code,
                    _ => at = (at + 1) % SLOTS,
                }
            }
        }
    }
}

impl<'a> HeaderName<'a> {
    /// Recognises a name in any case, long or compact.
    pub fn new(name: &'a str) -> HeaderName<'a> {
        HeaderName::from_code(code_of(name.as_bytes()), name)
    }

    pub(super) fn from_code(code: u8, written: &'a str) -> HeaderName<'a> {
        match usize::from(code).checked_sub(1).and_then(|i| KNOWN.get(i)) {
            Some((_, name, _)) => *name,
            None => HeaderName::Other(written),
        }
    }

    /// The one-letter form, where there is one.
    pub fn compact(&self) -> Option<char> {
        let (_, _, letter) = KNOWN.get(usize::from(self.code()).checked_sub(1)?)?;
        (*letter != 0).then_some(char::from(*letter))
    }
}

impl<'a> From<&'a str> for HeaderName<'a> {
    fn from(name: &'a str) -> Self {
        HeaderName::new(name)
    }
}

impl<'a> From<&'a String> for HeaderName<'a> {
    fn from(name: &'a String) -> Self {
        HeaderName::new(name)
    }
}

impl PartialEq for HeaderName<'_> {
    fn eq(&self, other: &HeaderName<'_>) -> bool {
        match (self, other) {
            (HeaderName::Other(a), HeaderName::Other(b)) => a.eq_ignore_ascii_case(b),
            _ => self.code() == other.code(),
        }
    }
}

impl Eq for HeaderName<'_> {}

impl fmt::Display for HeaderName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
