//! Shamir's sharing of a 32-byte key, 2 of 4, over GF(256).

use super::{SHARES, THRESHOLD};
use crate::core::Rng;
use blahaj::{Share, Sharks};
use rand_core::SeedableRng;
use zeroize::Zeroizing;

/// Share `i` (from 0) is the value at `i + 1`.
pub(super) fn split(key: &[u8; 32], rng: &mut Rng) -> Option<Zeroizing<[[u8; 32]; SHARES]>> {
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill(&mut *seed);
    let mut draws = rand_chacha::ChaCha20Rng::from_seed(*seed);
    let mut shares = Zeroizing::new([[0; 32]; SHARES]);
    let dealer = Sharks(THRESHOLD as u8);
    let dealt = dealer.dealer_rng(key, &mut draws);
    for (n, (share, out)) in dealt.zip(shares.iter_mut()).enumerate() {
        let bytes = Zeroizing::new(Vec::from(&share));
        let (x, value) = bytes.split_first()?;
        if usize::from(*x) != n + 1 {
            return None;
        }
        out.copy_from_slice(value);
    }
    Some(shares)
}

/// The key of two shares, each with its number from 0; `None` when they are one.
pub(super) fn join(a: (usize, &[u8; 32]), b: (usize, &[u8; 32])) -> Option<Zeroizing<[u8; 32]>> {
    if a.0 == b.0 {
        return None;
    }
    let share = |(n, value): (usize, &[u8; 32])| {
        let mut bytes = Zeroizing::new(vec![n as u8 + 1]);
        bytes.extend_from_slice(value);
        Share::try_from(bytes.as_slice()).ok()
    };
    let shares = [share(a)?, share(b)?];
    let key = Zeroizing::new(Sharks(THRESHOLD as u8).recover(&shares).ok()?);
    let mut out = Zeroizing::new([0; 32]);
    out.copy_from_slice(key.get(..32)?);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_two_shares_and_no_single_one() {
        let rng = &mut Rng::from_seed(5);
        let mut key = [0; 32];
        rng.fill(&mut key);
        let shares = split(&key, rng).expect("shares");
        for a in 0..SHARES {
            for b in 0..SHARES {
                let joined = join((a, &shares[a]), (b, &shares[b]));
                assert_eq!(joined.map(|k| *k), (a != b).then_some(key), "{a} {b}");
            }
        }
        // A share under another number gives another key.
        assert_ne!(join((0, &shares[1]), (1, &shares[0])).map(|k| *k), Some(key));
        // The same key shared again: a single share says nothing about it.
        let again = split(&key, rng).expect("shares");
        assert!((0..SHARES).all(|n| again[n] != shares[n]));
    }
}
