//! Two peers make their sets of signed things one: revocations among all, the book of an office among its enrollers.
//!
//! Each item is known by the first 16 bytes of its BLAKE3. The ids fall into 64 buckets by their first 6 bits, and a bucket's digest
//! is the XOR of its ids' last 8 bytes: who holds the same set shows the same 64 digests, and the rest is named bucket by
//! bucket. (Whoever can choose items could make digests collide; it would hide from its own link what any other link brings.)
//!
//! * ask: `[1, digests (64 * 8), [wanted id...], [item...]]`
//! * answer: `[1, [[bucket, [id...]]...], [item...]]`, the buckets being those in which the answering end differs after it has taken
//!   the items of the request. No bucket: the sets are one.

use super::IdentityError;
use super::cbor::{Reader, Writer, canonical};
use std::collections::BTreeSet;

const WHAT: &str = "reconciliation";
const BUCKETS: usize = 64;
/// Most bytes of items in one message.
const MAX_ITEMS_BYTES: usize = 30 * 1024;
/// Most ids in one message.
const MAX_IDS: usize = 1024;
/// Most items in one message.
const MAX_ITEMS: usize = 256;

/// By what an item is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ItemId(pub [u8; 16]);

impl ItemId {
    /// Of an item's bytes.
    pub fn of(item: &[u8]) -> ItemId {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::derive_key("chordial reconciled item v1", item)[..16]);
        ItemId(id)
    }

    fn bucket(&self) -> usize {
        usize::from(self.0[0] >> 2)
    }
}

/// A set that is reconciled.
pub trait Reconciled {
    /// The ids of all items.
    fn ids(&self) -> Vec<ItemId>;
    /// An item's bytes.
    fn item(&self, id: &ItemId) -> Option<Vec<u8>>;
}

/// What one end asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    digests: Vec<u8>,
    wanted: Vec<ItemId>,
    /// Items for the other end, each as its owner encodes it.
    pub items: Vec<Vec<u8>>,
}

/// What the other answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    buckets: Vec<(u8, Vec<ItemId>)>,
    /// Items that were wanted.
    pub items: Vec<Vec<u8>>,
}

impl Ask {
    /// The first question, and the way to push items that the other end is known to lack.
    pub fn new(set: &impl Reconciled, items: Vec<Vec<u8>>) -> Ask {
        Ask { digests: digests(set), wanted: Vec::new(), items: fitting(items.into_iter()) }
    }

    /// The answer; `set` holds already what came with the question.
    pub fn answer(&self, set: &impl Reconciled) -> Reply {
        let own = digests(set);
        let differs =
            |bucket: usize| own.get(bucket * 8..bucket * 8 + 8) != self.digests.get(bucket * 8..bucket * 8 + 8);
        let ids = set.ids();
        let (mut buckets, mut named): (Vec<(u8, Vec<ItemId>)>, usize) = (Vec::new(), 0);
        for bucket in (0..BUCKETS).filter(|b| differs(*b)) {
            let in_bucket: Vec<_> = ids.iter().filter(|id| id.bucket() == bucket).copied().collect();
            named += in_bucket.len();
            if named > MAX_IDS && !buckets.is_empty() {
                break; // The next round names the others.
            }
            buckets.push((bucket as u8, in_bucket.into_iter().take(MAX_IDS).collect()));
        }
        Reply { buckets, items: fitting(self.wanted.iter().filter_map(|id| set.item(id))) }
    }

    /// True when both ends hold the same as far as the digests say.
    pub fn is_same(&self, set: &impl Reconciled) -> bool {
        self.digests == digests(set)
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(4);
        writer.uint(1).bytes(&self.digests);
        write_ids(&mut writer, &self.wanted);
        write_items(&mut writer, &self.items);
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Ask, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(4)?;
        reader.version(1)?;
        let digests = reader.exact::<{ BUCKETS * 8 }>()?.to_vec();
        let ask = Ask { digests, wanted: read_ids(&mut reader)?, items: read_items(&mut reader)? };
        canonical(bytes, &ask.encode(), WHAT)?;
        Ok(ask)
    }
}

impl Reply {
    /// The next question, when the sets are not one yet; `set` holds already what came with the answer. `None` also when neither
    /// end has anything for the other: what it names it has refused before.
    pub fn next(&self, set: &impl Reconciled) -> Option<Ask> {
        let own = set.ids();
        let (mut wanted, mut lacking) = (Vec::new(), Vec::new());
        for (bucket, theirs) in &self.buckets {
            let theirs: BTreeSet<_> = theirs.iter().copied().collect();
            let ours: BTreeSet<_> = own.iter().filter(|id| id.bucket() == usize::from(*bucket)).copied().collect();
            wanted.extend(theirs.difference(&ours).copied());
            lacking.extend(ours.difference(&theirs).copied());
        }
        wanted.truncate(MAX_IDS);
        let items = fitting(lacking.iter().filter_map(|id| set.item(id)));
        let more = !wanted.is_empty() || !items.is_empty();
        more.then(|| Ask { digests: digests(set), wanted, items })
    }

    /// True when both ends hold the same.
    pub fn is_same(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(3);
        writer.uint(1).nested(self.buckets.len());
        for (bucket, ids) in &self.buckets {
            writer.nested(2).uint(u64::from(*bucket));
            write_ids(&mut writer, ids);
        }
        write_items(&mut writer, &self.items);
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Reply, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(3)?;
        reader.version(1)?;
        let mut buckets = Vec::new();
        for _ in 0..reader.list(BUCKETS as u64)? {
            reader.array(2)?;
            let bucket = u8::try_from(reader.uint()?).ok().filter(|b| usize::from(*b) < BUCKETS);
            buckets.push((bucket.ok_or(IdentityError::Malformed(WHAT))?, read_ids(&mut reader)?));
        }
        let reply = Reply { buckets, items: read_items(&mut reader)? };
        canonical(bytes, &reply.encode(), WHAT)?;
        Ok(reply)
    }
}

fn digests(set: &impl Reconciled) -> Vec<u8> {
    let mut digests = vec![0; BUCKETS * 8];
    for id in set.ids() {
        let at = id.bucket() * 8;
        for (sum, byte) in digests.iter_mut().skip(at).take(8).zip(&id.0[8..]) {
            *sum ^= byte;
        }
    }
    digests
}

/// As many of `items` as one message takes.
fn fitting(items: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut bytes = 0;
    let fits = items.take(MAX_ITEMS).take_while(|item| {
        bytes += item.len() + 5;
        bytes <= MAX_ITEMS_BYTES
    });
    fits.collect()
}

fn write_ids(writer: &mut Writer, ids: &[ItemId]) {
    writer.nested(ids.len());
    for id in ids {
        writer.bytes(&id.0);
    }
}

fn read_ids(reader: &mut Reader<'_>) -> Result<Vec<ItemId>, IdentityError> {
    (0..reader.list(MAX_IDS as u64)?).map(|_| Ok(ItemId(reader.exact()?))).collect()
}

fn write_items(writer: &mut Writer, items: &[Vec<u8>]) {
    writer.nested(items.len());
    for item in items {
        writer.bytes(item);
    }
}

fn read_items(reader: &mut Reader<'_>) -> Result<Vec<Vec<u8>>, IdentityError> {
    (0..reader.list(MAX_ITEMS as u64)?).map(|_| Ok(reader.bytes()?.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Set(BTreeMap<ItemId, Vec<u8>>);

    impl Set {
        fn of(items: impl IntoIterator<Item = u32>) -> Set {
            let mut set = Set::default();
            set.take(&items.into_iter().map(|n| [&n.to_be_bytes()[..], &[7; 100]].concat()).collect::<Vec<_>>());
            set
        }

        fn take(&mut self, items: &[Vec<u8>]) {
            self.0.extend(items.iter().map(|i| (ItemId::of(i), i.clone())));
        }
    }

    impl Reconciled for Set {
        fn ids(&self) -> Vec<ItemId> {
            self.0.keys().copied().collect()
        }
        fn item(&self, id: &ItemId) -> Option<Vec<u8>> {
            self.0.get(id).cloned()
        }
    }

    /// Rounds until both ends say that they hold the same.
    fn rounds(a: &mut Set, b: &mut Set) -> usize {
        let mut ask = Ask::new(a, Vec::new());
        for round in 1..200 {
            let read = Ask::decode(&ask.encode()).expect("as written");
            b.take(&read.items);
            let reply = Reply::decode(&read.answer(b).encode()).expect("as written");
            a.take(&reply.items);
            if reply.is_same() {
                return round;
            }
            ask = match reply.next(a) {
                Some(next) => next,
                None => Ask::new(a, Vec::new()),
            };
        }
        panic!("no end");
    }

    #[test]
    fn two_sets_become_one_in_few_rounds() {
        for (a, b) in [(0..0, 0..0), (0..5, 0..5), (0..0, 0..50), (0..300, 290..291), (0..2000, 1500..4000)] {
            let same = a == b;
            let (mut one, mut two) = (Set::of(a), Set::of(b));
            let took = rounds(&mut one, &mut two);
            assert_eq!(one.0, two.0);
            assert!(if same { took == 1 } else { took > 1 }, "{took} rounds");
        }
    }

    #[test]
    fn no_message_outgrows_its_bounds() {
        let (one, two) = (Set::of(0..9000), Set::of(9000..9001));
        let ask = Ask::new(&one, one.0.values().cloned().collect());
        assert!(ask.encode().len() < 32 * 1024);
        let reply = ask.answer(&one);
        assert!(reply.is_same());
        let reply = Ask::new(&two, Vec::new()).answer(&one);
        assert!(reply.encode().len() < 32 * 1024);
        let next = reply.next(&two).expect("much to ask for");
        assert!(next.encode().len() < 50 * 1024 && next.answer(&one).encode().len() < 60 * 1024);
    }
}
