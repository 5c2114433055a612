//! Bytes to a description.

use super::{Attribute, Connection, MAX_MEDIA, Media, Origin, SdpError, Session};

/// Reads a whole description.
pub(super) fn session(bytes: &[u8]) -> Result<Session, SdpError> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .enumerate()
        .map(|(n, line)| (n + 1, line))
        .filter(|(_, line)| !line.trim().is_empty());
    match lines.next() {
        Some((_, line)) if line.trim_end() == "v=0" => {}
        _ => return Err(SdpError::Version),
    }
    let mut origin = None;
    let mut session = Session {
        origin: Origin { user: "-".into(), session_id: "0".into(), version: "0".into(), address: unspecified() },
        name: "-".into(),
        connection: None,
        lines: Vec::new(),
        times: Vec::new(),
        attributes: Vec::new(),
        media: Vec::new(),
    };
    for (number, line) in lines {
        let (kind, value) = split(line).ok_or(SdpError::Line(number))?;
        if kind == 'm' {
            if session.media.len() >= MAX_MEDIA {
                return Err(SdpError::TooMany);
            }
            session.media.push(media(value).ok_or(SdpError::Media(number))?);
            continue;
        }
        let part = session.media.last_mut();
        match (kind, part) {
            ('c', Some(media)) => {
                // Several c= lines in one section are multicast layers (RFC 8866 5.7): the first counts.
                let connection = connection(value).ok_or(SdpError::Connection(number))?;
                media.connection.get_or_insert(connection);
            }
            ('a', Some(media)) => media.attributes.push(attribute(value)),
            (_, Some(media)) => media.lines.push((kind, value.into())),
            ('o', None) => origin = Some(self::origin(value).ok_or(SdpError::Origin)?),
            ('s', None) => session.name = value.into(),
            ('c', None) => session.connection = Some(connection(value).ok_or(SdpError::Connection(number))?),
            ('t' | 'r', None) => session.times.push((kind, value.into())),
            ('a', None) => session.attributes.push(attribute(value)),
            (_, None) => session.lines.push((kind, value.into())),
        }
    }
    session.origin = origin.ok_or(SdpError::Origin)?;
    Ok(session)
}

fn split(line: &str) -> Option<(char, &str)> {
    let (kind, value) = line.split_once('=')?;
    let mut letters = kind.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) if letter.is_ascii_alphabetic() => Some((letter, value.trim_end())),
        _ => None,
    }
}

fn origin(value: &str) -> Option<Origin> {
    let mut words = value.split_ascii_whitespace();
    let user = words.next()?.into();
    let session_id = digits(words.next()?)?;
    let version = digits(words.next()?)?;
    let address = connection_of(&mut words)?;
    words.next().is_none().then_some(Origin { user, session_id, version, address })
}

fn digits(word: &str) -> Option<String> {
    word.bytes().all(|b| b.is_ascii_digit()).then(|| word.into())
}

fn connection(value: &str) -> Option<Connection> {
    connection_of(&mut value.split_ascii_whitespace())
}

fn connection_of<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Connection> {
    Some(Connection { net: words.next()?.into(), kind: words.next()?.into(), address: words.next()?.into() })
}

fn attribute(value: &str) -> Attribute {
    match value.split_once(':') {
        Some((name, value)) => Attribute { name: name.into(), value: Some(value.into()) },
        None => Attribute { name: value.into(), value: None },
    }
}

fn media(value: &str) -> Option<Media> {
    let mut words = value.split_ascii_whitespace();
    let kind = words.next()?;
    let (port, ports) = match words.next()?.split_once('/') {
        Some((port, ports)) => (port.parse().ok()?, Some(ports.parse().ok()?)),
        None => (value.split_ascii_whitespace().nth(1)?.parse().ok()?, None),
    };
    let proto = words.next()?;
    let formats: Vec<String> = words.map(String::from).collect();
    if formats.is_empty() {
        return None;
    }
    Some(Media { ports, ..Media::new(kind, port, proto, formats) })
}

fn unspecified() -> Connection {
    Connection { net: "IN".into(), kind: "IP4".into(), address: "0.0.0.0".into() }
}
