//! Which addresses a feed may speak of: how many in all, and which not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ironclad_core::{Cidr, Family};

use super::{FeedSpec, Rejection};
use crate::list::{AddressList, ListEntry};

/// Addresses of one's own host, link or network: what a feed of the Internet has no business with.
/// Lengths are those of RFC 1918, 6598, 1122, 3927, 4291 and 4193.
const PRIVATE: [(IpAddr, u8); 9] = [
    (v4(10, 0), 8),
    (v4(100, 64), 10),
    (v4(127, 0), 8),
    (v4(169, 254), 16),
    (v4(172, 16), 12),
    (v4(192, 168), 16),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
];

const fn v4(a: u8, b: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, 0, 0))
}

/// Holds the addresses of a list against what the feed may cover, and what it must not touch.
pub(super) fn check(spec: &FeedSpec, list: &AddressList) -> Result<(), Rejection> {
    let mut entries: Vec<&ListEntry> = list.entries().iter().collect();
    // One comes right before those that it covers.
    entries.sort_unstable_by_key(|entry| entry.cidr);
    for (family, limit) in [(Family::V4, spec.max_ipv4), (Family::V6, spec.max_ipv6)] {
        let of_family = || entries.iter().map(|e| e.cidr).filter(|cidr| cidr.family() == family);
        let covered = covered(of_family());
        if limit > 0 && covered > size(family, limit) {
            let fits = (0..limit).rev().find(|&length| covered <= size(family, length));
            let widest = of_family().min_by_key(|cidr| cidr.length());
            let widest = widest.unwrap_or(Cidr::host(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
            let fits = fits.unwrap_or_default();
            return Err(Rejection::TooWide { family, fits, limit, widest });
        }
    }
    let private = PRIVATE.iter().filter(|_| !spec.allow_private);
    let private = private.filter_map(|&(addr, length)| Cidr::new(addr, length).ok());
    let untouchable = private.map(|cidr| (cidr, true));
    let untouchable = untouchable.chain(spec.protect.iter().map(|&cidr| (cidr, false)));
    for (range, is_private) in untouchable {
        if let Some(entry) = touching(&entries, range) {
            let ListEntry { cidr, line } = *entry;
            return Err(Rejection::Untouchable { cidr, line, range, is_private });
        }
    }
    Ok(())
}

/// Addresses of a prefix, as many as a number can tell: of `::/0` one less.
fn size(family: Family, length: u8) -> u128 {
    let host = u32::from(family.bits().saturating_sub(length));
    1u128.checked_shl(host).unwrap_or(u128::MAX)
}

/// Distinct addresses of sorted prefixes of one family.
fn covered(sorted: impl Iterator<Item = Cidr>) -> u128 {
    let mut outer: Option<Cidr> = None;
    let mut sum = 0u128;
    for cidr in sorted {
        if !outer.is_some_and(|outer| outer.covers(cidr)) {
            sum = sum.saturating_add(size(cidr.family(), cidr.length()));
            outer = Some(cidr);
        }
    }
    sum
}

/// The first of sorted entries that has an address in common with a range.
fn touching<'a>(sorted: &[&'a ListEntry], range: Cidr) -> Option<&'a ListEntry> {
    // Those within the range follow one another.
    let from = sorted.partition_point(|entry| entry.cidr < range);
    if let Some(entry) = sorted.get(from).filter(|entry| range.covers(entry.cidr)) {
        return Some(entry);
    }
    // Those around it have its address and a shorter length: one place for each length.
    (0..range.length()).find_map(|length| {
        let around = Cidr::new(range.addr(), length).ok()?;
        let at = sorted.binary_search_by_key(&around, |entry| entry.cidr).ok()?;
        Some(sorted[at])
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(texts: &[&str]) -> AddressList {
        AddressList::from_cidrs("x", texts.iter().map(|text| text.parse().unwrap()))
    }

    fn problem(spec: &FeedSpec, texts: &[&str]) -> String {
        check(spec, &list(texts)).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn a_feed_covers_so_much_and_no_more() {
        let spec = FeedSpec::new("x", "/x").unwrap().allow_private(true);
        for (texts, expected) in [
            (&["0.0.0.0/0"][..], "fit into a /0 only, the widest is 0.0.0.0/0"),
            (&["0.0.0.0/1", "128.0.0.0/1"], "fit into a /0 only, the widest is 0.0.0.0/1"),
            (
                &["::/0"],
                "IPv6 prefixes have more addresses than a /18 (`coverage`): they fit into a /0",
            ),
            (&["2000::/4", "3000::/4"], "fit into a /3 only"),
            (&["1.0.0.0/6", "9.0.0.0/32"], "IPv4 prefixes have more addresses than a /6"),
            (
                &["1.0.0.0/7", "4.0.0.0/7", "9.9.9.9/32"],
                "fit into a /5 only, the widest is 0.0.0.0/7",
            ),
            (&["2a00::/18", "2b00::/128"], "fit into a /17 only"),
            (&["4.0.0.0/6"], ""),
            (&["4.0.0.0/6", "4.0.0.0/6", "5.0.0.0/8", "7.255.255.255/32"], ""),
            (&["2a00::/18", "2a00::1/128"], ""),
            (&["4.0.0.0/6", "2a00::/18"], ""),
            (&[], ""),
        ] {
            let problem = problem(&spec, texts);
            assert!(
                problem.contains(expected) && problem.is_empty() == expected.is_empty(),
                "{texts:?}: {problem}"
            );
        }
        let any = spec.clone().coverage(0, 0);
        assert_eq!(problem(&any, &["0.0.0.0/0", "::/0"]), "");
        let one = spec.coverage(32, 128);
        assert_eq!(problem(&one, &["192.0.2.1/32", "192.0.2.1/32", "2001:db8::1/128"]), "");
        assert!(problem(&one, &["192.0.2.0/31"]).contains("than a /32"));
        assert!(problem(&one, &["2001:db8::/127"]).contains("fit into a /127"));
    }

    #[test]
    fn what_is_private_or_protected_is_not_touched() {
        let spec = FeedSpec::new("x", "/x").unwrap().coverage(0, 0);
        for private in [
            "10.0.0.0/8",
            "10.255.255.255/32",
            "8.0.0.0/6",
            "100.64.0.1/32",
            "127.0.0.1/32",
            "169.254.169.254/32",
            "172.31.0.0/16",
            "192.168.0.0/16",
            "192.160.0.0/12",
            "0.0.0.0/0",
            "::1/128",
            "fd00::1/128",
            "fe80::/64",
            "::/0",
            "f000::/4",
        ] {
            let problem = problem(&spec, &["8.8.8.8/32", private]);
            assert!(
                problem.starts_with(&format!("line 2: {private} touches ")),
                "{private}: {problem}"
            );
            assert!(problem.contains("(`allow-private`)"), "{problem}");
        }
        for public in [
            "11.0.0.0/8",
            "9.255.255.255/32",
            "100.128.0.0/32",
            "172.32.0.0/16",
            "::2/128",
            "fe00::/16",
        ] {
            assert_eq!(problem(&spec, &[public]), "");
        }
        let open = spec.clone().allow_private(true);
        assert_eq!(problem(&open, &["10.0.0.0/8", "::1/128"]), "");
        let ours =
            open.protect(["192.0.2.0/24".parse().unwrap(), "2001:db8::7/128".parse().unwrap()]);
        for (text, range) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.255/32", "192.0.2.0/24"),
            ("192.0.0.0/16", "192.0.2.0/24"),
            ("2001:db8::/32", "2001:db8::7/128"),
        ] {
            assert_eq!(
                problem(&ours, &[text]),
                format!("line 1: {text} touches {range}, which the feed must not (`protect`)")
            );
        }
        assert_eq!(problem(&ours, &["192.0.3.0/24", "192.0.1.255/32", "2001:db8::8/128"]), "");
    }

    fn cidr() -> impl Strategy<Value = Cidr> {
        (any::<u8>(), 24u8..=32).prop_map(|(last, length)| {
            Cidr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), length).unwrap()
        })
    }

    proptest! {
        #[test]
        fn as_by_counting(cidrs in prop::collection::vec(cidr(), 0..20), range in cidr()) {
            let list = AddressList::from_cidrs("x", cidrs.iter().copied());
            let hosts = || (0..=255).map(|last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)));
            let count = hosts().filter(|&h| cidrs.iter().any(|cidr| cidr.contains(h))).count() as u128;
            let mut sorted: Vec<&ListEntry> = list.entries().iter().collect();
            sorted.sort_unstable_by_key(|entry| entry.cidr);
            prop_assert_eq!(covered(sorted.iter().map(|entry| entry.cidr)), count);
            let is_touched = hosts().any(|h| range.contains(h) && cidrs.iter().any(|c| c.contains(h)));
            let found = touching(&sorted, range);
            prop_assert_eq!(found.is_some(), is_touched);
            prop_assert!(found.is_none_or(|e| range.covers(e.cidr) || e.cidr.covers(range)));
        }
    }
}
