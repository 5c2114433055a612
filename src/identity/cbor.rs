//! The one encoding of everything here: arrays, definite lengths, shortest integers, no maps, no floats, no tags.

use super::IdentityError;
use minicbor::{Decoder, Encoder};

/// Writes one item; a `Vec` takes whatever is written.
pub(super) struct Writer(Encoder<Vec<u8>>);

impl Writer {
    pub(super) fn array(len: usize) -> Writer {
        let mut writer = Writer(Encoder::new(Vec::new()));
        writer.nested(len);
        writer
    }

    /// An array inside; its `len` items follow.
    pub(super) fn nested(&mut self, len: usize) -> &mut Self {
        let _ = self.0.array(len as u64);
        self
    }

    pub(super) fn uint(&mut self, n: u64) -> &mut Self {
        let _ = self.0.u64(n);
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.0.bytes(bytes);
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        let _ = self.0.str(text);
        self
    }

    pub(super) fn null(&mut self) -> &mut Self {
        let _ = self.0.null();
        self
    }

    /// An item that is encoded already.
    pub(super) fn raw(&mut self, item: &[u8]) -> &mut Self {
        self.0.writer_mut().extend_from_slice(item);
        self
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0.into_writer()
    }
}

/// Reads items; every fault is `Malformed(what)`.
pub(super) struct Reader<'b> {
    inner: Decoder<'b>,
    what: &'static str,
}

impl<'b> Reader<'b> {
    /// `what` names the thing in errors.
    pub(super) fn new(bytes: &'b [u8], what: &'static str) -> Self {
        Reader { inner: Decoder::new(bytes), what }
    }

    fn malformed<T, E>(&self, result: Result<T, E>) -> Result<T, IdentityError> {
        result.map_err(|_| IdentityError::Malformed(self.what))
    }

    /// An array of exactly `len` items.
    pub(super) fn array(&mut self, len: u64) -> Result<(), IdentityError> {
        match self.inner.array() {
            Ok(Some(n)) if n == len => Ok(()),
            _ => Err(IdentityError::Malformed(self.what)),
        }
    }

    /// An array of at most `most` items; how many it has.
    pub(super) fn list(&mut self, most: u64) -> Result<usize, IdentityError> {
        match self.inner.array() {
            Ok(Some(n)) if n <= most => Ok(n as usize),
            _ => Err(IdentityError::Malformed(self.what)),
        }
    }

    pub(super) fn uint(&mut self) -> Result<u64, IdentityError> {
        let n = self.inner.u64();
        self.malformed(n)
    }

    pub(super) fn bytes(&mut self) -> Result<&'b [u8], IdentityError> {
        let bytes = self.inner.bytes();
        self.malformed(bytes)
    }

    /// A byte string of exactly `N` bytes.
    pub(super) fn exact<const N: usize>(&mut self) -> Result<[u8; N], IdentityError> {
        let bytes = self.bytes()?;
        self.malformed(<[u8; N]>::try_from(bytes))
    }

    pub(super) fn text(&mut self) -> Result<&'b str, IdentityError> {
        let text = self.inner.str();
        self.malformed(text)
    }

    /// The encoding of the next item, whatever it is; past it.
    pub(super) fn item(&mut self) -> Result<&'b [u8], IdentityError> {
        let from = self.inner.position();
        let skipped = self.inner.skip();
        self.malformed(skipped)?;
        self.inner.input().get(from..self.inner.position()).ok_or(IdentityError::Malformed(self.what))
    }

    /// True, and past it, when the next item is null.
    pub(super) fn is_null(&mut self) -> bool {
        let at = self.inner.position();
        if self.inner.null().is_ok() {
            return true;
        }
        self.inner.set_position(at);
        false
    }

    /// Refuses a version other than `version`, the first item of everything.
    pub(super) fn version(&mut self, version: u64) -> Result<(), IdentityError> {
        if self.uint()? == version { Ok(()) } else { Err(IdentityError::Malformed(self.what)) }
    }
}

/// Refuses bytes that are not what encoding the decoded thing gives; so also trailing bytes.
pub(super) fn canonical(bytes: &[u8], again: &[u8], what: &'static str) -> Result<(), IdentityError> {
    if bytes == again { Ok(()) } else { Err(IdentityError::NotCanonical(what)) }
}
