//! A description to text, lines in the order of RFC 8866 section 5.

use super::{Attribute, Connection, Media, Origin, Session};
use std::fmt::{self, Display, Formatter};

impl Display for Session {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "v=0\r\no={}\r\ns={}\r\n", self.origin, self.name)?;
        lines(f, &self.lines, "iuep")?;
        connection(f, self.connection.as_ref())?;
        lines(f, &self.lines, "b")?;
        match self.times.as_slice() {
            [] => f.write_str("t=0 0\r\n")?,
            times => times.iter().try_for_each(|(kind, value)| write!(f, "{kind}={value}\r\n"))?,
        }
        others(f, &self.lines, "iuepb")?;
        attributes(f, &self.attributes)?;
        self.media.iter().try_for_each(|media| media.fmt(f))
    }
}

impl Display for Origin {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.user, self.session_id, self.version, self.address)
    }
}

impl Display for Connection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.net, self.kind, self.address)
    }
}

impl Display for Media {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "m={} {}", self.kind, self.port)?;
        if let Some(ports) = self.ports {
            write!(f, "/{ports}")?;
        }
        write!(f, " {}", self.proto)?;
        self.formats.iter().try_for_each(|format| write!(f, " {format}"))?;
        f.write_str("\r\n")?;
        lines(f, &self.lines, "i")?;
        connection(f, self.connection.as_ref())?;
        others(f, &self.lines, "i")?;
        attributes(f, &self.attributes)
    }
}

fn connection(f: &mut Formatter<'_>, connection: Option<&Connection>) -> fmt::Result {
    connection.map_or(Ok(()), |c| write!(f, "c={c}\r\n"))
}

fn lines(f: &mut Formatter<'_>, lines: &[(char, String)], kinds: &str) -> fmt::Result {
    let wanted = lines.iter().filter(|(kind, _)| kinds.contains(*kind));
    wanted.into_iter().try_for_each(|(kind, value)| write!(f, "{kind}={value}\r\n"))
}

fn others(f: &mut Formatter<'_>, lines: &[(char, String)], kinds: &str) -> fmt::Result {
    let wanted = lines.iter().filter(|(kind, _)| !kinds.contains(*kind));
    wanted.into_iter().try_for_each(|(kind, value)| write!(f, "{kind}={value}\r\n"))
}

fn attributes(f: &mut Formatter<'_>, attributes: &[Attribute]) -> fmt::Result {
    attributes.iter().try_for_each(|a| match &a.value {
        Some(value) => write!(f, "a={}:{value}\r\n", a.name),
        None => write!(f, "a={}\r\n", a.name),
    })
}
