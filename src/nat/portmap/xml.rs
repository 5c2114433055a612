//! As much XML as device descriptions and SOAP answers need: start tags, end tags and text, in one pass and without a tree.
//! Names are given without their prefix. Declarations, comments and attributes are passed over, and so is a document type: no entity
//! is ever defined, none but the five of XML is replaced, so nothing here grows beyond the text itself.

/// Deepest nesting followed.
const DEEPEST: usize = 64;

/// One step through a document.
#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    Open(&'a str),
    Close,
    Empty,
    Text(&'a str),
    Literal(&'a str),
}

/// Calls `each` with the path of names from the root and the text of every element that has any, in order. Stops at what is no
/// XML or nests too deep.
pub fn texts<'a>(text: &'a str, mut each: impl FnMut(&[&'a str], String)) {
    let (mut path, mut rest): (Vec<&str>, &str) = (Vec::new(), text);
    let mut held = String::new();
    while let Some(token) = next(&mut rest) {
        match token {
            Token::Open(name) if path.len() < DEEPEST => {
                path.push(name);
                held.clear();
            }
            Token::Open(_) => return,
            Token::Text(text) => held.push_str(&unescape(text)),
            Token::Literal(text) => held.push_str(text),
            Token::Empty => {}
            Token::Close => {
                let text = std::mem::take(&mut held);
                if !text.trim().is_empty() {
                    each(&path, text.trim().to_owned());
                }
                if path.pop().is_none() {
                    return;
                }
            }
        }
    }
}

/// The text of the first element of this name.
pub fn first(text: &str, name: &str) -> Option<String> {
    let mut found = None;
    texts(text, |path, text| {
        if found.is_none() && path.last() == Some(&name) {
            found = Some(text);
        }
    });
    found
}

/// `text` as it stands between tags.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn next<'a>(rest: &mut &'a str) -> Option<Token<'a>> {
    loop {
        let text = *rest;
        let Some(inner) = text.strip_prefix('<') else {
            let end = text.find('<').filter(|end| *end > 0)?;
            *rest = &text[end..];
            return Some(Token::Text(&text[..end]));
        };
        for (begin, end) in [("!--", "-->"), ("?", "?>")] {
            if let Some(inner) = inner.strip_prefix(begin) {
                *rest = &inner[inner.find(end)? + end.len()..];
            }
        }
        if rest.len() != text.len() {
            continue;
        }
        if let Some(inner) = inner.strip_prefix("![CDATA[") {
            let end = inner.find("]]>")?;
            *rest = &inner[end + 3..];
            return Some(Token::Literal(&inner[..end]));
        }
        let end = inner.find('>')?;
        let tag = &inner[..end];
        *rest = &inner[end + 1..];
        if tag.starts_with('!') {
            continue;
        }
        if tag.starts_with('/') {
            return Some(Token::Close);
        }
        if tag.ends_with('/') {
            return Some(Token::Empty);
        }
        let name = tag.split_ascii_whitespace().next()?;
        return Some(Token::Open(name.rsplit(':').next().unwrap_or(name)));
    }
}

fn unescape(text: &str) -> String {
    // The ampersand last: `&amp;lt;` is the text `&lt;`.
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    text.replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::portmap::tests::mutated;

    const TEXT: &str = "<?xml version=\"1.0\"?><!-- <no> --><root xmlns=\"urn:x\"><a:b c=\"d\"> one &amp;lt; </a:b>\
                        <e/><f><![CDATA[<raw>]]></f><g><h>in</h></g></root>";

    #[test]
    fn texts_come_with_their_paths() {
        let mut seen = Vec::new();
        texts(TEXT, |path, text| seen.push((path.join("/"), text)));
        let expected = [("root/b", "one &lt;"), ("root/f", "<raw>"), ("root/g/h", "in")];
        assert_eq!(seen, expected.map(|(path, text)| (path.to_owned(), text.to_owned())));
        assert_eq!(first(TEXT, "h").as_deref(), Some("in"));
        assert_eq!(first(TEXT, "e"), None);
        assert_eq!(first(&format!("<a>{}</a>", escape("<&>")), "a").as_deref(), Some("<&>"));
    }

    #[test]
    fn what_is_no_xml_ends_it() {
        for text in ["", "<", "<a", "<!--", "<?x", "text", "</a>", "<![CDATA[", "<>", "<a></b></c>"] {
            texts(text, |_, _| {});
        }
        let bomb = "<!DOCTYPE x [<!ENTITY a \"b\">]><x>&a;</x>";
        assert_eq!(first(bomb, "x").as_deref(), Some("&a;"));
        assert_eq!(first(&"<a>".repeat(100_000), "a"), None);
        mutated(TEXT.as_bytes(), |bytes| {
            texts(&String::from_utf8_lossy(bytes), |path, _| assert!(path.len() <= DEEPEST))
        });
    }
}
