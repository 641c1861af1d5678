//! Whether content that was fetched may follow the last good version.

use ironclad_core::{Cidr, Family};

use super::{FeedSpec, Sha256Sum};
use crate::list::{AddressList, ListError};

/// Entries by which a version may always differ from the one before: small lists change a lot.
pub const FREE_CHANGE: usize = 100;

/// Why content was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// It is no list, or one that is too long.
    #[error(transparent)]
    List(#[from] ListError),
    /// It is not what its checksum says.
    #[error(
        "its SHA-256 is {found}, not {expected}: the file is not the one that was published, or both \
             were fetched while they changed"
    )]
    Checksum {
        /// As published.
        expected: Sha256Sum,
        /// Of the content.
        found: Sha256Sum,
    },
    /// Its prefixes have more addresses than those of the feed may have.
    #[error(
        "its {} prefixes have more addresses than a /{limit} (`coverage`): they fit into a /{fits} only, the \
             widest is {widest}", version(*family)
    )]
    TooWide {
        /// Of which version of IP.
        family: Family,
        /// The length of the smallest prefix that has as many addresses.
        fits: u8,
        /// The length of the prefix that has as many as are allowed.
        limit: u8,
        /// The widest of its prefixes.
        widest: Cidr,
    },
    /// One of its prefixes has an address that the feed must not have.
    #[error(
        "line {line}: {cidr} touches {range}, which {}",
        if *is_private { "is private (`allow-private`)" } else { "the feed must not (`protect`)" }
    )]
    Untouchable {
        /// The prefix.
        cidr: Cidr,
        /// The line that it stands on.
        line: u32,
        /// What it touches.
        range: Cidr,
        /// Whether that is private, and not named by the feed's description.
        is_private: bool,
    },
    /// It has fewer entries than it must have.
    #[error(
        "it has {entries} entries, and at least {min} are expected (`min_entries`, in a policy file \
             `entries.min`)"
    )]
    TooFew {
        /// How many it has.
        entries: usize,
        /// How many it must have.
        min: usize,
    },
    /// It is too much smaller than the last good version.
    #[error(
        "it has {after} entries after {before}, smaller by more than {percent} % (`max_shrink`, in a policy file \
             `change.shrink`): raise that, or forget the last good version, if this is meant"
    )]
    Shrunk {
        /// Entries of the last good version.
        before: usize,
        /// Its own.
        after: usize,
        /// What is allowed.
        percent: u32,
    },
    /// It is too much larger than the last good version.
    #[error(
        "it has {after} entries after {before}, larger by more than {percent} % (`max_growth`, in a policy file \
             `change.growth`): raise that, or forget the last good version, if this is meant"
    )]
    Grown {
        /// Entries of the last good version.
        before: usize,
        /// Its own.
        after: usize,
        /// What is allowed.
        percent: u32,
    },
}

fn version(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// Holds a list of `after` entries against the feed's bounds and the `before` of the last good one.
pub(super) fn check(spec: &FeedSpec, before: Option<usize>, after: usize) -> Result<(), Rejection> {
    if after < spec.min_entries {
        return Err(Rejection::TooFew { entries: after, min: spec.min_entries });
    }
    let Some(before) = before.filter(|before| before.abs_diff(after) > FREE_CHANGE) else {
        return Ok(());
    };
    let (was, is) = (before as u128, after as u128);
    if is * 100 < was * u128::from(100u32.saturating_sub(spec.max_shrink)) {
        return Err(Rejection::Shrunk { before, after, percent: spec.max_shrink });
    }
    if is * 100 > was * (100 + u128::from(spec.max_growth)) {
        return Err(Rejection::Grown { before, after, percent: spec.max_growth });
    }
    Ok(())
}

/// How many distinct prefixes `new` has that `old` has not, and the other way round.
pub(super) fn difference(old: Option<&AddressList>, new: &AddressList) -> (usize, usize) {
    let distinct = |list: &AddressList| {
        let mut cidrs: Vec<Cidr> = list.entries().iter().map(|entry| entry.cidr).collect();
        cidrs.sort_unstable();
        cidrs.dedup();
        cidrs
    };
    let (old, new) = (old.map(distinct).unwrap_or_default(), distinct(new));
    let common = old.iter().filter(|cidr| new.binary_search(cidr).is_ok()).count();
    (new.len() - common, old.len() - common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_exact() {
        let spec = FeedSpec::new("x", "/x").unwrap().entries(10, 10_000).change(50, 300);
        let verdict = |before, after| match check(&spec, before, after) {
            Ok(()) => "ok",
            Err(Rejection::TooFew { .. }) => "few",
            Err(Rejection::Shrunk { .. }) => "shrunk",
            Err(Rejection::Grown { .. }) => "grown",
            Err(_) => "other",
        };
        for (before, after, expected) in [
            (None, 9, "few"),
            (None, 10, "ok"),
            (None, 10_000, "ok"),
            (Some(1000), 0, "few"),
            (Some(1000), 500, "ok"),
            (Some(1000), 499, "shrunk"),
            (Some(1000), 4000, "ok"),
            (Some(1000), 4001, "grown"),
            (Some(110), 10, "ok"),
            (Some(111), 10, "shrunk"),
            (Some(1), 101, "ok"),
            (Some(1), 102, "grown"),
            (Some(0), 101, "grown"),
            (Some(usize::MAX), usize::MAX, "ok"),
            (Some(10), usize::MAX, "grown"),
        ] {
            assert_eq!(verdict(before, after), expected, "{before:?} {after}");
        }
        let free = spec.change(100, u32::MAX);
        assert!(check(&free, Some(usize::MAX), 10).is_ok());
        assert!(check(&free, Some(1), 10_000_000).is_ok());
    }

    #[test]
    fn differences_are_of_distinct_prefixes() {
        let list = |texts: &[&str]| {
            AddressList::from_cidrs("x", texts.iter().map(|text| text.parse().unwrap()))
        };
        let old = list(&["10.0.0.0/8", "10.0.0.0/8", "::1"]);
        let new = list(&["::2", "10.0.0.0/8", "10.0.0.0/9", "::2"]);
        assert_eq!(difference(Some(&old), &new), (2, 1));
        assert_eq!(difference(None, &new), (3, 0));
    }
}
