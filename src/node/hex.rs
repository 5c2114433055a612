//! Bytes as hexadecimal digits, in header fields and files.

/// Lower-case digits, two a byte.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|d| char::from(DIGITS[usize::from(d)])).collect()
}

/// And back, of either case; nothing but digits.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    let digit = |d: u8| char::from(d).to_digit(16).map(|d| d as u8);
    let pairs = text.len().is_multiple_of(2).then(|| text.chunks(2))?;
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_and_nothing_else() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&all)), Some(all));
        assert_eq!(unhex("0aFf"), Some(vec![10, 255]));
        for bad in ["0", "+f", "0x", "g0", "é"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }
}
