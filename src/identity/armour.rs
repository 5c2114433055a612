//! Bytes as people copy them: base32 (the alphabet of Crockford: no I, L, O, U) in groups of five, the fifth symbol of each
//! a check of the other four and of the group's place, and 16 bits of BLAKE3 over everything at the end. A mistyped or
//! swapped group is named; what a group's check lets through (1 in 31 at worst) the end catches.

use super::EnrolError;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const GROUP: usize = 4;
const SUM: usize = 2;

/// `bytes` as groups, joined by `-`.
pub(super) fn armour(bytes: &[u8]) -> String {
    let mut all = bytes.to_vec();
    all.extend_from_slice(&checksum(bytes));
    let symbols = to_symbols(&all);
    let mut text = String::with_capacity(symbols.len() * 3 / 2);
    for (place, group) in symbols.chunks(GROUP).enumerate() {
        if place > 0 {
            text.push('-');
        }
        for symbol in group.iter().copied().chain([check(place, group)]) {
            text.push(ALPHABET[usize::from(symbol & 31)].into());
        }
    }
    text
}

/// The bytes of `text`, in any case, with dashes and blanks anywhere. `Typo(n)` names the first group (from 1) that does
/// not check; `NotACode` when there is something that no code holds, or less than one.
pub(super) fn unarmour(text: &str) -> Result<Vec<u8>, EnrolError> {
    let mut symbols = Vec::new();
    for c in text.chars().filter(|c| *c != '-' && !c.is_whitespace()) {
        symbols.push(symbol(c).ok_or(EnrolError::NotACode)?);
        if symbols.len() > 512 {
            return Err(EnrolError::NotACode);
        }
    }
    let mut data = Vec::with_capacity(symbols.len());
    for (place, group) in symbols.chunks(GROUP + 1).enumerate() {
        let Some((last, group)) = group.split_last() else { continue };
        if group.is_empty() || check(place, group) != *last {
            return Err(EnrolError::Typo(place + 1));
        }
        data.extend_from_slice(group);
    }
    let groups = data.len().div_ceil(GROUP);
    let bytes = from_symbols(&data).ok_or(EnrolError::Typo(groups))?;
    match bytes.split_last_chunk::<SUM>() {
        Some((bytes, sum)) if *sum == checksum(bytes) => Ok(bytes.to_vec()),
        Some(_) => Err(EnrolError::Typo(groups)),
        None => Err(EnrolError::NotACode),
    }
}

/// `bytes` in the same alphabet without groups and checks: for what programs hand to each other in a header field.
pub(super) fn base32(bytes: &[u8]) -> String {
    to_symbols(bytes).iter().map(|s| char::from(ALPHABET[usize::from(s & 31)])).collect()
}

/// What [`base32`] wrote, of at most `most` symbols; none for anything else.
pub(super) fn from_base32(text: &str, most: usize) -> Option<Vec<u8>> {
    if text.len() > most {
        return None;
    }
    let value = |c: u8| ALPHABET.iter().position(|a| *a == c).map(|at| at as u8);
    from_symbols(&text.bytes().map(value).collect::<Option<Vec<_>>>()?)
}

fn checksum(bytes: &[u8]) -> [u8; SUM] {
    let hash = blake3::derive_key("chordial armour v1", bytes);
    [hash[0], hash[1]]
}

/// Weighted, modulo a prime: finds every single wrong symbol (but for 0 against Z) and every swapped pair.
fn check(place: usize, group: &[u8]) -> u8 {
    let sum: usize = group.iter().enumerate().map(|(i, s)| (i + 2) * usize::from(*s)).sum();
    ((sum + place * 7 + 3) % 31) as u8
}

fn symbol(c: char) -> Option<u8> {
    let c = match c.to_ascii_uppercase() {
        'I' | 'L' => '1',
        'O' => '0',
        c => c,
    };
    ALPHABET.iter().position(|a| char::from(*a) == c).map(|at| at as u8)
}

fn to_symbols(bytes: &[u8]) -> Vec<u8> {
    let (mut symbols, mut bits, mut have) = (Vec::new(), 0u32, 0);
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        have += 8;
        while have >= 5 {
            have -= 5;
            symbols.push((bits >> have & 31) as u8);
        }
        bits &= (1 << have) - 1;
    }
    if have > 0 {
        symbols.push((bits << (5 - have) & 31) as u8);
    }
    symbols
}

/// `None` when what pads the last symbol is not zero or is a whole symbol.
fn from_symbols(symbols: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut have) = (Vec::new(), 0u32, 0);
    for symbol in symbols {
        bits = (bits << 5) | u32::from(*symbol);
        have += 5;
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have) as u8);
        }
        bits &= (1 << have) - 1;
    }
    (have < 5 && bits == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_for_all_lengths() {
        for len in 1..60u8 {
            let bytes: Vec<u8> = (0..len).map(|n| n.wrapping_mul(37) ^ len).collect();
            let text = armour(&bytes);
            assert_eq!(unarmour(&text), Ok(bytes.clone()), "{text}");
            assert_eq!(unarmour(&text.to_lowercase().replace('-', " ").replace('0', "o")), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_wrong_symbol_is_found_and_its_group_named() {
        let text = armour(b"thirty bytes of something long");
        let (mut named, mut tried) = (0, 0);
        for (at, old) in text.char_indices().filter(|(_, c)| *c != '-') {
            for new in ALPHABET.iter().map(|a| char::from(*a)).filter(|new| *new != old) {
                let mut wrong = text.clone();
                wrong.replace_range(at..=at, &new.to_string());
                let result = unarmour(&wrong);
                assert!(matches!(result, Err(EnrolError::Typo(_))), "{wrong} {result:?}");
                tried += 1;
                named += usize::from(result == Err(EnrolError::Typo(at / 6 + 1)));
            }
        }
        assert!(named * 100 > tried * 99, "{named} of {tried} named");
    }

    #[test]
    fn swapped_groups_and_lost_ends_are_found() {
        let text = armour(b"thirty bytes of something long");
        let mut groups: Vec<&str> = text.split('-').collect();
        groups.swap(2, 3);
        assert_eq!(unarmour(&groups.join("-")), Err(EnrolError::Typo(3)));
        for cut in 0..text.len() {
            assert!(unarmour(&text[..cut]).is_err(), "{cut}");
        }
        assert_eq!(unarmour("what?"), Err(EnrolError::NotACode));
    }
}
