//! The lines that most lists consist of, an IPv4 address or prefix and nothing else, read byte by
//! byte; every other line takes the general way, which would read these alike.

use std::net::Ipv4Addr;

/// Reads a line such as `192.0.2.0/24` at the beginning of `text`: the address, the prefix length
/// and the bytes read, the line's end not among them. None where the line is anything else.
pub(super) fn prefix4(text: &[u8]) -> Option<(Ipv4Addr, u8, usize)> {
    let mut at = 0;
    let mut octets = [0; 4];
    for (place, octet) in octets.iter_mut().enumerate() {
        if place > 0 {
            at = after(text, at, b'.')?;
        }
        (*octet, at) = number(text, at)?;
    }
    let mut length = 32;
    if let Some(digits) = after(text, at, b'/') {
        (length, at) = number(text, digits)?;
    }
    (length <= 32 && matches!(text.get(at), None | Some(b'\n' | b'\r'))).then_some((
        octets.into(),
        length,
        at,
    ))
}

fn after(text: &[u8], at: usize, byte: u8) -> Option<usize> {
    (text.get(at) == Some(&byte)).then_some(at + 1)
}

/// A number from 0 to 255 without leading zeros, and where it ends.
fn number(text: &[u8], start: usize) -> Option<(u8, usize)> {
    let mut value = 0u32;
    let mut at = start;
    while let Some(digit @ b'0'..=b'9') = text.get(at) {
        if at == start + 3 {
            return None;
        }
        value = value * 10 + u32::from(digit - b'0');
        at += 1;
    }
    let plain = at == start + 1 || (at > start && text[start] != b'0');
    Some((u8::try_from(value).ok().filter(|_| plain)?, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the standard library makes of the first line.
    fn by_std(text: &str) -> Option<(Ipv4Addr, u8, usize)> {
        let line = text.split(['\n', '\r']).next()?;
        let (addr, length) = match line.split_once('/') {
            Some((addr, length)) => (
                addr,
                length.parse().ok().filter(|_| length == "0" || !length.starts_with(['0', '+']))?,
            ),
            None => (line, 32),
        };
        Some((addr.parse().ok()?, length, line.len())).filter(|_| length <= 32)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn agrees_with_std(text in "([0-9]{1,4}\\.){2,4}[0-9]{1,4}(/[0-9]{0,3})?[\\r\\n]?[0-9]?") {
            prop_assert_eq!(prefix4(text.as_bytes()), by_std(&text));
        }

        #[test]
        fn agrees_with_std_on_any_digits(text in "[0-9./\\n\\r +-]{0,24}") {
            prop_assert_eq!(prefix4(text.as_bytes()), by_std(&text));
        }

        #[test]
        fn takes_every_prefix(n in any::<u32>(), length in 0u8..=32, end in "(\\n|\\r\\n|\\r)?") {
            let addr = Ipv4Addr::from(n);
            for (line, length) in [(format!("{addr}/{length}"), length), (addr.to_string(), 32)] {
                let text = format!("{line}{end}");
                prop_assert_eq!(prefix4(text.as_bytes()), Some((addr, length, line.len())));
            }
        }
    }
}
