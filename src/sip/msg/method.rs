//! Methods (RFC 3261 section 7.1 and the extensions that a telephone meets).

use std::fmt;

use super::ParseError;
use super::lex;

macro_rules! methods {
    ($($variant:ident $text:literal $doc:literal),* $(,)?) => {
        /// A request method. Case-sensitive; any token is one.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Method {
            $(#[doc = $doc] $variant,)*
            /// A method not named above, as it stands in the message.
            Other(Box<str>),
        }

        impl Method {
            /// As it stands in a message.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Method::$variant => $text,)*
                    Method::Other(name) => name,
                }
            }

            fn known(name: &[u8]) -> Option<Method> {
                $(if name == $text.as_bytes() {
                    return Some(Method::$variant);
                })*
                None
            }
        }
    };
}

methods! {
    Invite "INVITE" "RFC 3261.",
    Ack "ACK" "RFC 3261.",
    Bye "BYE" "RFC 3261.",
    Cancel "CANCEL" "RFC 3261.",
    Register "REGISTER" "RFC 3261.",
    Options "OPTIONS" "RFC 3261.",
    Info "INFO" "RFC 6086.",
    Update "UPDATE" "RFC 3311.",
    Prack "PRACK" "RFC 3262.",
    Subscribe "SUBSCRIBE" "RFC 6665.",
    Notify "NOTIFY" "RFC 6665.",
    Publish "PUBLISH" "RFC 3903.",
    Message "MESSAGE" "RFC 3428.",
    Refer "REFER" "RFC 3515.",
}

impl Method {
    /// Reads a method.
    ///
    /// # Errors
    /// [`ParseError::Value`] where `name` is not a token.
    pub fn from_bytes(name: &[u8]) -> Result<Method, ParseError> {
        if let Some(method) = Method::known(name) {
            return Ok(method);
        }
        match std::str::from_utf8(name) {
            Ok(text) if lex::is_token(name) => Ok(Method::Other(text.into())),
            _ => Err(ParseError::Value),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
