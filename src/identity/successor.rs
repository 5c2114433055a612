//! "This office continues as that one": what the statement says beside the other office's root and name, and what a device that has
//! moved remembers of where it came from.
//!
//! The statement is a [`Revocation`](super::Revocation) of the kind 4, signed by the root or an enroller of the office that ends, and is kept and
//! passed on like the others. Its last field is a byte string `[[address...], [[old name, new name]...]]`: where the enroller answers who
//! admits the members, and whose names are others there.
//!
//! The file of a device that has moved: `[1, [overlay, root key], statement]`.

use super::cbor::{Reader, Writer, canonical};
use super::contact::{addr_bytes, read_addrs};
use super::own::{read_anchor, write_anchor};
use super::{IdentityError, MAX_CODE_ADDRS, Revocation, RevokedKey, TrustAnchor, canonical_user, split_aor};
use std::net::SocketAddr;

/// Most users of an office that is merged into another: its list has to fit into one message.
pub const MAX_MERGED: usize = 512;
/// Most names that may be others: of each user two.
const MAX_RENAMED: usize = 2 * MAX_MERGED;
const WHAT: &str = "statement that an office continues";

/// Where an office continues.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Successor {
    /// Where its enroller answers.
    pub addrs: Vec<SocketAddr>,
    /// Names that are others there: old and new.
    pub renamed: Vec<(String, String)>,
}

impl Successor {
    /// The last field of the statement.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(2);
        writer.nested(self.addrs.len());
        for addr in &self.addrs {
            writer.bytes(&addr_bytes(addr));
        }
        writer.nested(self.renamed.len());
        for (old, new) in &self.renamed {
            writer.nested(2).text(old).text(new);
        }
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else.
    pub(super) fn decode(bytes: &[u8]) -> Result<Successor, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(2)?;
        let addrs = read_addrs(&mut reader, MAX_CODE_ADDRS)?;
        let mut renamed = Vec::new();
        for _ in 0..reader.list(MAX_RENAMED as u64)? {
            reader.array(2)?;
            let (old, new) = (reader.text()?.to_owned(), reader.text()?.to_owned());
            if canonical_user(&old)? != old || canonical_user(&new)? != new {
                return Err(IdentityError::UserName);
            }
            renamed.push((old, new));
        }
        let successor = Successor { addrs, renamed };
        canonical(bytes, &successor.encode(), WHAT)?;
        Ok(successor)
    }
}

/// The office that a device has come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Former {
    /// Its name and root.
    pub anchor: TrustAnchor,
    /// By what it ended.
    pub statement: Revocation,
}

impl Former {
    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::array(3);
        writer.uint(1);
        write_anchor(&mut writer, &self.anchor);
        writer.bytes(&self.statement.encode());
        writer.finish()
    }

    /// Reads the file, and checks that the statement is that office's.
    pub fn from_bytes(bytes: &[u8]) -> Result<Former, IdentityError> {
        const FILE: &str = "file of the former office";
        let mut reader = Reader::new(bytes, FILE);
        reader.array(3)?;
        reader.version(1)?;
        let anchor = read_anchor(&mut reader)?;
        let former = Former { anchor, statement: Revocation::decode(reader.bytes()?)? };
        canonical(bytes, &former.to_bytes(), FILE)?;
        former.statement.verify(&former.anchor)?;
        match former.statement.what {
            RevokedKey::Office => Ok(former),
            _ => Err(IdentityError::Shape("office")),
        }
    }

    /// An address of record of the former office as it is now; none for any other.
    pub fn translate(&self, aor: &str) -> Option<String> {
        let (user, overlay) = split_aor(aor)?;
        let here = overlay == self.anchor.overlay();
        here.then(|| format!("sip:{}@{}", self.rename(user), self.statement.name))
    }

    /// A user of the former office as it is called now.
    pub fn rename<'a>(&'a self, user: &'a str) -> &'a str {
        let renamed = self.statement.successor.iter().flat_map(|s| &s.renamed);
        renamed.into_iter().find(|(old, _)| old == user).map_or(user, |(_, new)| new)
    }
}
