use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ironclad_core::{Cidr, Family};

use super::error::Problem;

const ADDRESS: &str = "an IPv4 or IPv6 address, a prefix or a range";
const IPV4: &str = "an IPv4 address: four numbers from 0 to 255 with dots between them";
const IPV6: &str =
    "an IPv6 address: eight groups of up to four hexadecimal digits, or fewer and `::`";
const LENGTH4: &str = "a prefix length from /0 to /32, or a netmask";
const LENGTH6: &str = "a prefix length from /0 to /128";

/// The addresses that an entry stands for.
pub(super) enum Spec {
    /// An address or a prefix.
    One {
        cidr: Cidr,
        /// Whether it was written with host bits.
        host_bits: bool,
    },
    /// The prefixes of a range, in order.
    Range(Vec<Cidr>),
}

/// Reads `body`, which neither begins nor ends with white space and is not empty: an address, a
/// prefix or a range, and nothing after it.
pub(super) fn parse(body: &[u8]) -> Result<Spec, Problem<'_>> {
    let (head, tail) = split(body, |b| b == b'-' || b.is_ascii_whitespace());
    let (spec, rest) = match tail.trim_ascii_start() {
        // A length below zero, and no range.
        [b'-', ..] if head.ends_with(b"/") => {
            let (word, rest) = split(body, |b| b.is_ascii_whitespace());
            (network(word)?, rest)
        }
        [b'-', last @ ..] => {
            if !head.iter().any(|b| matches!(b, b'.' | b':')) {
                return Err(Problem::new(first_word(body), ADDRESS));
            }
            let (last, rest) = split(last.trim_ascii_start(), |b| b.is_ascii_whitespace());
            (range(head, last)?, rest)
        }
        rest => (network(head)?, rest),
    };
    match rest.trim_ascii_start() {
        [] => Ok(spec),
        rest => Err(Problem::new(rest, "the end of the line, or a comment after `#` or `;`")),
    }
}

/// `text` up to its first white space.
pub(super) fn first_word(text: &[u8]) -> &[u8] {
    split(text, |b| b.is_ascii_whitespace()).0
}

fn split(text: &[u8], at: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|&b| at(b)).unwrap_or(text.len()))
}

/// Reads an address or a prefix.
pub(super) fn network(word: &[u8]) -> Result<Spec, Problem<'_>> {
    let (addr_text, length_text) = split(word, |b| b == b'/');
    if addr_text.is_empty() {
        return Err(Problem::new(word, ADDRESS));
    }
    let addr = address(addr_text)?;
    let max = Family::of(addr).bits();
    let length = match length_text {
        [] => max,
        [_, digits @ ..] => match (number(digits).filter(|&length| length <= max), addr) {
            (Some(length), _) => length,
            (None, IpAddr::V4(addr)) if digits.contains(&b'.') => netmask(addr, length_text)?,
            (None, IpAddr::V4(_)) => return Err(Problem::new(length_text, LENGTH4)),
            (None, IpAddr::V6(_)) => return Err(Problem::new(length_text, LENGTH6)),
        },
    };
    let cidr = Cidr::new(addr, length).map_err(|_| Problem::new(word, ADDRESS))?;
    match mapped(cidr) {
        Some(addr) => Err(mapped_problem(word, format_args!("{addr}/{}", length - 96))),
        None => Ok(Spec::One { cidr, host_bits: cidr.addr() != addr }),
    }
}

fn range<'a>(first_text: &'a [u8], last_text: &'a [u8]) -> Result<Spec, Problem<'a>> {
    let alone = |text: &'a [u8]| match text.contains(&b'/') {
        true => Err(Problem::new(
            text,
            "an address without a prefix length, because it is one end of a range",
        )),
        false => address(text),
    };
    let first = alone(first_text)?;
    if last_text.is_empty() {
        return Err(Problem::new(last_text, "the last address of the range"));
    }
    let last = alone(last_text)?;
    let family = Family::of(first);
    if Family::of(last) != family {
        let expected = match family {
            Family::V4 => "an IPv4 address, as at the other end of the range",
            Family::V6 => "an IPv6 address, as at the other end of the range",
        };
        return Err(Problem::new(last_text, expected));
    }
    let cidrs = Cidr::range(first, last).ok_or_else(|| {
        Problem::new(last_text, "a last address that is not below the first of the range")
    })?;
    let end = |addr, text| {
        let plain = mapped(Cidr::host(addr))?;
        Some(mapped_problem(text, format_args!("{plain}")))
    };
    match cidrs.iter().any(|&cidr| mapped(cidr).is_some()) {
        true => end(first, first_text)
            .or_else(|| end(last, last_text))
            .map_or(Ok(Spec::Range(cidrs)), Err),
        false => Ok(Spec::Range(cidrs)),
    }
}

/// The IPv4 address in a prefix of `::ffff:0:0/96`; none for that block itself, which stands in
/// lists of addresses that must not be seen.
fn mapped(cidr: Cidr) -> Option<Ipv4Addr> {
    match cidr.addr() {
        IpAddr::V6(addr) if cidr.length() > 96 => addr.to_ipv4_mapped(),
        _ => None,
    }
}

fn mapped_problem<'a>(at: &'a [u8], plain: std::fmt::Arguments<'_>) -> Problem<'a> {
    Problem::new(at, format!("`{plain}`, because packets never carry IPv4-mapped addresses"))
}

fn address(word: &[u8]) -> Result<IpAddr, Problem<'_>> {
    let parsed = std::str::from_utf8(word).ok().and_then(|text| match text.contains(':') {
        true => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        false => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    });
    parsed.ok_or_else(|| no_address(word))
}

/// What is wrong with a word that is no address.
#[cold]
fn no_address(word: &[u8]) -> Problem<'_> {
    let text = word.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    if let Some(at) = text.find('\0') {
        return Problem::new(&word[at..=at], "text without NUL bytes");
    }
    if let Some(wrong) = word.get(text.len()..=text.len()) {
        return Problem::new(wrong, "text in UTF-8");
    }
    let colons = text.matches(':').count();
    if let (Some(at), 1..) = (text.find('%'), colons) {
        return Problem::new(
            &word[at..],
            "an IPv6 address without a zone, which means nothing on other hosts",
        );
    }
    if let Some((addr, port)) = text.split_once(':') {
        if colons == 1 && addr.parse::<Ipv4Addr>().is_ok() {
            return Problem::new(&word[word.len() - port.len() - 1..], "an address without a port");
        }
    }
    if colons > 0 && text.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) {
        return Problem::new(word, IPV6);
    }
    if text.contains('.') && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let zero = |octet: &str| octet.len() > 1 && octet.starts_with('0');
        return match text.split('.').any(zero) {
            true => Problem::new(
                word,
                "an IPv4 address without leading zeros, which some programs read as octal",
            ),
            false => Problem::new(word, IPV4),
        };
    }
    Problem::new(word, ADDRESS)
}

/// A number of one to three digits without leading zeros.
fn number(digits: &[u8]) -> Option<u8> {
    let plain = match digits {
        [b'0', _, ..] | [] => false,
        digits => digits.iter().all(u8::is_ascii_digit),
    };
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

/// The prefix length that a netmask stands for; `text` begins with the slash.
fn netmask(addr: Ipv4Addr, text: &[u8]) -> Result<u8, Problem<'_>> {
    let mask = std::str::from_utf8(&text[1..]).ok().and_then(|mask| mask.parse::<Ipv4Addr>().ok());
    match mask.map(u32::from) {
        // As a netmask it would be all addresses, as a router's wildcard just this one.
        Some(0) if !addr.is_unspecified() => Err(Problem::new(
            text,
            "a prefix length, because this mask has two meanings: /0 or /32",
        )),
        Some(mask) if mask.leading_ones() + mask.trailing_zeros() == 32 => {
            Ok(mask.leading_ones() as u8)
        }
        _ => Err(Problem::new(
            text,
            "a netmask of ones before zeros, such as 255.255.0.0, or a prefix length",
        )),
    }
}
