//! An HTTP proxy as a file or the environment names it: `HOST:PORT`, with `USER@` or `USER:PASSWORD@` before it.

use super::host_port;
use crate::core::Redacted;
use serde::{Deserialize, Serialize};

/// Where URLs of the scheme `http` lead that name no port.
const HTTP: u16 = 80;
/// What comes before the host in environments, and may in files.
const SCHEME: &str = "http://";

/// Which proxy is gone through where nothing else leads out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HttpProxy {
    /// That of the environment.
    #[default]
    Auto,
    /// None.
    Off,
    /// This one.
    At(ProxyAddr),
}

/// Where a proxy is, and as whom it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyAddr {
    /// A name or an address, of version 6 without brackets.
    pub host: String,
    /// TCP.
    pub port: u16,
    /// User name (RFC 7617), where it wants one.
    pub user: Option<String>,
    /// Password, where it stands beside the user.
    pub password: Option<Redacted<String>>,
}

impl ProxyAddr {
    /// Reads `HOST:PORT` or an URL of the scheme `http`; `user` and `password` are written in the way of URLs (`%40` for `@`).
    pub fn read(text: &str) -> Option<ProxyAddr> {
        let text = text.trim();
        let scheme = text.get(..SCHEME.len()).is_some_and(|s| s.eq_ignore_ascii_case(SCHEME));
        let rest = if scheme { &text[SCHEME.len()..] } else { text };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (who, place) = rest.rsplit_once('@').map_or((None, rest), |(who, place)| (Some(who), place));
        let (host, port) = host_port(place)?;
        let port = port.or(scheme.then_some(HTTP))?;
        let (user, password) = match who.map(|who| who.split_once(':').map_or((who, None), |(u, p)| (u, Some(p)))) {
            Some((user, password)) => (Some(unescaped(user)?), password.map(unescaped)),
            None => (None, None),
        };
        // The colon ends a user name in Basic (RFC 7617 section 2).
        if user.as_ref().is_some_and(|user| user.is_empty() || user.contains(':')) || password == Some(None) {
            return None;
        }
        Some(ProxyAddr { host, port, user, password: password.flatten().map(Redacted::new) })
    }

    /// `HOST:PORT`.
    pub fn place(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl TryFrom<String> for HttpProxy {
    type Error = &'static str;

    fn try_from(text: String) -> Result<HttpProxy, &'static str> {
        match text.as_str() {
            "auto" => Ok(HttpProxy::Auto),
            "off" => Ok(HttpProxy::Off),
            // What was written may hold a password: it is not repeated.
            _ => ProxyAddr::read(&text)
                .map(HttpProxy::At)
                .ok_or("nat.http_proxy is written auto, off, HOST:PORT or USER@HOST:PORT"),
        }
    }
}

impl From<HttpProxy> for String {
    fn from(proxy: HttpProxy) -> String {
        match proxy {
            HttpProxy::Auto => "auto".into(),
            HttpProxy::Off => "off".into(),
            HttpProxy::At(at) => {
                let password = at.password.as_ref().map_or(String::new(), |p| format!(":{}", escaped(p.reveal())));
                let who = at.user.as_ref().map_or(String::new(), |user| format!("{}{password}@", escaped(user)));
                format!("{who}{}", at.place())
            }
        }
    }
}

/// `%XX` for what it stands for (RFC 3986 section 2.1).
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digit = |b: u8| char::from(b).to_digit(16);
                u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?
            }
            _ => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The other way round.
fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_as_people_write_them() {
        let read = |text| ProxyAddr::read(text).map(|p| (p.place(), p.user, p.password.map(|p| p.reveal().clone())));
        let plain = |place: &str| Some((place.to_owned(), None, None));
        assert_eq!(read("proxy.test:3128"), plain("proxy.test:3128"));
        assert_eq!(read("HTTP://10.0.0.1:8080/"), plain("10.0.0.1:8080"));
        assert_eq!(read("http://proxy.test"), plain("proxy.test:80"));
        assert_eq!(read("[2001:db8::1]:3128"), plain("[2001:db8::1]:3128"));
        let anna = |password: Option<&str>| Some(("p:1".to_owned(), Some("anna".into()), password.map(str::to_owned)));
        assert_eq!(read("anna@p:1"), anna(None));
        assert_eq!(read("http://anna:s%40f%3At@p:1"), anna(Some("s@f:t")));
        for wrong in
            ["", "proxy", "socks5://p:1", "https://p:1", "p:0", "@p:1", "a%3Ab:c@p:1", "a%4:b@p:1", "a:%ff@p:1"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_written_out_is_read_again_and_no_password_is_repeated() {
        for text in ["auto", "off", "p:1", "anna:s%40f%3At@[::1]:3128"] {
            let proxy = HttpProxy::try_from(text.to_owned()).unwrap();
            assert_eq!(String::from(proxy.clone()), text);
            assert!(!format!("{proxy:?}").contains("s@f"), "{proxy:?}");
        }
        let fault = HttpProxy::try_from("anna:secret@nowhere".to_owned()).unwrap_err();
        assert!(!fault.contains("secret"), "{fault}");
    }
}
