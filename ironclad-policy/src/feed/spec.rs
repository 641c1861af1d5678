use std::time::{Duration, SystemTime};

use ironclad_core::Cidr;

use super::{Checksum, Sha256Sum, Source, SourceError};
use crate::list::{BadLines, ListFormat, ListOptions};

/// Characters of a feed's name.
const NAME: usize = 64;

/// A feed: its name, its source, and which versions are accepted.
///
/// ```
/// use std::time::Duration;
///
/// use ironclad_policy::feed::FeedSpec;
/// use ironclad_policy::list::ListFormat;
///
/// let feodo = FeedSpec::new("feodo", "https://feeds.example/ipblocklist.csv")?
///     .format(ListFormat::csv_column("dst_ip"))
///     .refresh(Duration::from_secs(15 * 60))
///     .max_bytes(1 << 20);
/// assert_eq!(feodo.name(), "feodo");
/// # Ok::<(), ironclad_policy::feed::SpecError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedSpec {
    name: String,
    source: Source,
    /// How the content is laid out. Default: [`ListFormat::Lines`].
    pub format: ListFormat,
    /// What becomes of content with bad lines. Default: [`BadLines::Strict`].
    pub bad_lines: BadLines,
    /// Bad lines that [`BadLines::Lenient`] puts up with. Default: 100,000.
    pub max_skipped: u64,
    /// Time from one successful refresh to the next, at least a minute. Default: 1 hour.
    pub refresh: Duration,
    /// Time for a refresh as a whole: looking the host up, connecting, redirects, the body to its
    /// last byte, and the checksum's file. Default: 2 minutes.
    pub timeout: Duration,
    /// Bytes of the content, as they are sent and after unpacking. Default: 32 MiB.
    pub max_bytes: u64,
    /// Entries that there must be. Default: 1.
    pub min_entries: usize,
    /// Entries that there may be. Default: 1,000,000.
    pub max_entries: usize,
    /// How much smaller than the last good version the next may be, in percent of its entries.
    /// Default: 50. At 100 any size will do.
    ///
    /// Neither this nor [`max_growth`](Self::max_growth) refuses changes of up to
    /// [`FREE_CHANGE`](super::FREE_CHANGE) entries.
    pub max_shrink: u32,
    /// How much larger than the last good version the next may be, in percent of its entries.
    /// Default: 300, four times as large.
    pub max_growth: u32,
    /// How many IPv4 addresses its prefixes may have together: as many as a prefix of this length
    /// has. At 0 all of them. Default: 6, one address in 64.
    pub max_ipv4: u8,
    /// The same of IPv6. Default: 18, about one in 90 of those that are assigned.
    pub max_ipv6: u8,
    /// What the feed must not touch: a version with an address of these is refused. Default: nothing.
    pub protect: Vec<Cidr>,
    /// Whether it may have addresses of one's own host, link or network: 10.0.0.0/8, 100.64.0.0/10,
    /// 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16, ::1, fc00::/7, fe80::/10. A version
    /// with one of them is refused otherwise. Default: no.
    pub allow_private: bool,
    /// What becomes of policies that name the feed while it has no good version. Default:
    /// [`IfMissing::Empty`].
    pub if_missing: IfMissing,
    /// What the content is compared with. Default: nothing.
    pub checksum: Option<Checksum>,
    /// Whether to fetch over plain HTTP what the source, or the checksum's, says so. A host that is
    /// on the way can then write the feed. Default: no.
    pub allow_http: bool,
}

/// What becomes of policies that name a feed of which there is no good version: not yet, or not any
/// more, because the cache is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IfMissing {
    /// It stands empty, and the rest of the policy protects. The
    /// [report](crate::list::ListReport::missing) of the list and an audit record say so.
    #[default]
    Empty,
    /// There is no policy without it: the one in force stays, or there is none.
    Refuse,
}

/// A feed cannot be as it was described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Its name is no name.
    #[error(
        "`{}` is no name of a feed: use 1 to {NAME} lower-case letters, digits, `-` and `_`, the first of \
         them a letter or a digit", name.chars().take(80).flat_map(char::escape_debug).collect::<String>()
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Its source is none.
    #[error("the source of feed `{name}`")]
    Source {
        /// The feed.
        name: String,
        /// What is wrong with the source.
        source: SourceError,
    },
    /// Two feeds have one name.
    #[error("there are two feeds called `{name}`: give one of them another name")]
    Duplicate {
        /// The name.
        name: String,
    },
}

impl FeedSpec {
    /// A feed with the defaults.
    ///
    /// The name identifies the feed in the cache, in errors and in explanations of verdicts:
    /// 1 to 64 lower-case letters, digits, `-` and `_`. The source is `https://…`, `http://…`
    /// (together with [`danger_allow_http`](Self::danger_allow_http)), `file:///…` or an absolute
    /// path.
    ///
    /// # Errors
    /// [`SpecError::Name`] and [`SpecError::Source`].
    pub fn new(name: &str, source: &str) -> Result<Self, SpecError> {
        let is_first = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let is_name = name.len() <= NAME
            && name.bytes().next().is_some_and(|b| is_first(&b))
            && name.bytes().all(|b| is_first(&b) || b == b'-' || b == b'_');
        let name = name.to_owned();
        if !is_name {
            return Err(SpecError::Name { name });
        }
        let source = match source.parse() {
            Ok(source) => source,
            Err(source) => return Err(SpecError::Source { name, source }),
        };
        Ok(Self {
            name,
            source,
            format: ListFormat::default(),
            bad_lines: BadLines::default(),
            max_skipped: ListOptions::default().max_skipped,
            refresh: Duration::from_secs(60 * 60),
            timeout: Duration::from_secs(2 * 60),
            max_bytes: 32 << 20,
            min_entries: 1,
            max_entries: 1_000_000,
            max_shrink: 50,
            max_growth: 300,
            max_ipv4: 6,
            max_ipv6: 18,
            protect: Vec::new(),
            allow_private: false,
            if_missing: IfMissing::default(),
            checksum: None,
            allow_http: false,
        })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The source.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Sets how the content is laid out.
    pub fn format(mut self, format: ListFormat) -> Self {
        self.format = format;
        self
    }

    /// Sets what becomes of content with bad lines.
    pub fn bad_lines(mut self, bad_lines: BadLines) -> Self {
        self.bad_lines = bad_lines;
        self
    }

    /// Sets how many bad lines [`BadLines::Lenient`] puts up with.
    pub fn max_skipped(mut self, max_skipped: u64) -> Self {
        self.max_skipped = max_skipped;
        self
    }

    /// Sets the time from one successful refresh to the next.
    pub fn refresh(mut self, refresh: Duration) -> Self {
        self.refresh = refresh;
        self
    }

    /// Sets the time for a refresh as a whole.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the bytes of the largest content.
    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Sets how many entries there must be, and how many there may be.
    pub fn entries(mut self, min: usize, max: usize) -> Self {
        (self.min_entries, self.max_entries) = (min, max);
        self
    }

    /// Sets by how many percent a version may be smaller or larger than the one before.
    pub fn change(mut self, max_shrink: u32, max_growth: u32) -> Self {
        (self.max_shrink, self.max_growth) = (max_shrink, max_growth);
        self
    }

    /// Sets how many addresses its prefixes may have together: as many as an IPv4 prefix of one
    /// length, and an IPv6 prefix of the other.
    pub fn coverage(mut self, max_ipv4: u8, max_ipv6: u8) -> Self {
        (self.max_ipv4, self.max_ipv6) = (max_ipv4, max_ipv6);
        self
    }

    /// Adds to what the feed must not touch.
    pub fn protect(mut self, cidrs: impl IntoIterator<Item = Cidr>) -> Self {
        self.protect.extend(cidrs);
        self
    }

    /// Sets whether it may have addresses of one's own host, link or network.
    pub fn allow_private(mut self, allow: bool) -> Self {
        self.allow_private = allow;
        self
    }

    /// Sets what becomes of policies that name it while it has no good version.
    pub fn if_missing(mut self, if_missing: IfMissing) -> Self {
        self.if_missing = if_missing;
        self
    }

    /// Sets the checksum of content that never changes.
    pub fn sha256(mut self, sum: Sha256Sum) -> Self {
        self.checksum = Some(Checksum::Pinned(sum));
        self
    }

    /// Sets where the content's checksum is published.
    ///
    /// # Errors
    /// [`SpecError::Source`].
    pub fn sha256_at(mut self, source: &str) -> Result<Self, SpecError> {
        let source = source
            .parse()
            .map_err(|source| SpecError::Source { name: self.name.clone(), source })?;
        self.checksum = Some(Checksum::At(source));
        Ok(self)
    }

    /// Allows plain HTTP where the source says so: any host on the path can write the feed.
    pub fn danger_allow_http(mut self, allow: bool) -> Self {
        self.allow_http = allow;
        self
    }

    /// How the content is read at the time `at`.
    pub(super) fn options(&self, at: SystemTime) -> ListOptions {
        ListOptions::new()
            .format(self.format.clone())
            .at(at)
            .bad_lines(self.bad_lines)
            .max_skipped(self.max_skipped)
            .max_bytes(self.max_bytes)
            .max_entries(self.max_entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_directory() {
        for name in ["a", "0", "feodo-c2_v4", &"x".repeat(64)] {
            assert_eq!(FeedSpec::new(name, "/x").unwrap().name(), name);
        }
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a.b",
            "-a",
            "_a",
            "A",
            "ä",
            "a b",
            "a\0",
            &"x".repeat(65),
        ] {
            let error = FeedSpec::new(name, "/x").unwrap_err();
            assert!(matches!(error, SpecError::Name { .. }), "{name}");
        }
        let error = FeedSpec::new("a", "list.txt").unwrap_err();
        assert_eq!(
            ironclad_core::ErrorChain::new(&error).to_string(),
            "the source of feed `a`: `list.txt` is no source of a feed: expected https://, file:/// or an absolute path"
        );
        assert!(FeedSpec::new("a", "/x").unwrap().sha256_at("x").is_err());
    }
}
