//! Feeds that a document declares.

use ironclad_core::Cidr;
use serde::Deserialize;

use super::quantities::{self, DocumentBytes, DocumentTime};
use super::{Document, DocumentError, values};
use crate::list::BadLines;

/// A feed: where it comes from, and which versions are accepted. What is not said is as of `FeedSpec`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DocumentFeed {
    /// `https://…`, `file:///…`, an absolute path, or `http://…` where that is allowed.
    pub source: String,
    /// How the content is laid out.
    #[serde(default)]
    pub format: DocumentFeedFormat,
    /// The column that has the addresses, of CSV.
    pub column: Option<String>,
    /// What becomes of content with lines that cannot be read.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::BadLines"))]
    pub bad_lines: BadLines,
    /// Bad lines that are skipped at most.
    pub max_skipped: Option<u64>,
    /// From one success to the next, such as `15m`.
    #[cfg_attr(feature = "schema", schemars(with = "Option<super::schema::Time>"))]
    pub refresh: Option<DocumentTime>,
    /// For a refresh as a whole.
    #[cfg_attr(feature = "schema", schemars(with = "Option<super::schema::Time>"))]
    pub timeout: Option<DocumentTime>,
    /// Of the content, as it is sent and after unpacking.
    #[cfg_attr(feature = "schema", schemars(with = "Option<super::schema::Bytes>"))]
    pub max_bytes: Option<DocumentBytes>,
    /// How many entries there must be, and may be.
    #[serde(default)]
    pub entries: DocumentEntries,
    /// By how many percent a version may differ from the last good one.
    #[serde(default)]
    pub change: DocumentChange,
    /// How many addresses all prefixes together may have.
    #[serde(default)]
    pub coverage: DocumentCoverage,
    /// Addresses that the feed must not touch.
    #[serde(default, deserialize_with = "values::exact_some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<String>"))]
    pub protect: Vec<Cidr>,
    /// Whether it may have addresses of one's own host, link or network.
    #[serde(default)]
    pub allow_private: bool,
    /// What becomes of the policy while the feed has no good version.
    #[serde(default)]
    pub if_missing: DocumentIfMissing,
    /// The checksum of content that never changes.
    #[cfg_attr(feature = "schema", schemars(with = "Option<super::schema::Sha256>"))]
    pub sha256: Option<String>,
    /// Where the content's checksum is published.
    pub sha256_at: Option<String>,
    /// Whether to use plain HTTP: any host on the path can then write the feed.
    #[serde(default)]
    pub danger_allow_http: bool,
}

/// How the content of a feed is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DocumentFeedFormat {
    /// An entry a line.
    #[default]
    Lines,
    /// A table.
    Csv,
    /// STIX 2.1.
    Stix,
}

/// What becomes of a policy while a feed that it names has no good version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DocumentIfMissing {
    /// The feed stands empty; a report and an audit record say so.
    #[default]
    Empty,
    /// There is no policy.
    Refuse,
}

/// How many entries a feed must have, and may have.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DocumentEntries {
    /// At least.
    pub min: Option<u32>,
    /// At most.
    pub max: Option<u32>,
}

/// By how many percent of its entries a version of a feed may differ from the last good one.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DocumentChange {
    /// By how many it may be smaller.
    #[cfg_attr(feature = "schema", schemars(with = "Option<super::schema::Percent>"))]
    pub shrink: Option<u32>,
    /// By how many it may be larger.
    pub growth: Option<u32>,
}

/// How many addresses the prefixes of a feed may have together: as many as one prefix of this length.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DocumentCoverage {
    /// Such as `/6`.
    #[serde(default, deserialize_with = "quantities::ipv4_length")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::Length"))]
    pub ipv4: Option<u8>,
    /// Such as `/18`.
    #[serde(default, deserialize_with = "quantities::ipv6_length")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::Length"))]
    pub ipv6: Option<u8>,
}

#[cfg(not(all(unix, feature = "feed")))]
impl Document {
    pub(super) fn check_feeds(&self) -> Result<(), DocumentError> {
        if self.feeds.is_empty() {
            return Ok(());
        }
        let what = "this program was built without the feature `feed`: it has no feeds that a file declares";
        let fault = super::fault::Fault::value(what);
        Err(self.refuse([super::place::Step::from("feeds")], fault))
    }
}

#[cfg(all(unix, feature = "feed"))]
mod specs {
    use super::*;
    use crate::document::check::steps;
    use crate::document::fault::Fault;
    use crate::document::place::Step;
    use crate::feed::{Checksum, FeedSpec, IfMissing, MIN_REFRESH, Source, SpecError};
    use crate::list::ListFormat;

    impl Document {
        pub(in crate::document) fn check_feeds(&self) -> Result<(), DocumentError> {
            self.feed_specs().map(drop)
        }

        /// The feeds that the file declares, by name. Give them to a
        /// [`FeedSet`](crate::feed::FeedSet), and that to the [`Sources`](super::super::Sources) of
        /// the policy.
        ///
        /// ```
        /// use std::sync::Arc;
        ///
        /// use ironclad_core::audit::NoAudit;
        /// use ironclad_policy::document::{Document, Sources};
        /// use ironclad_policy::feed::{FeedCache, FeedSet};
        ///
        /// let text = "
        /// feeds:
        ///   drop: { source: \"https://feeds.example/drop.txt\", refresh: 12h }
        /// sets:
        ///   - { id: 1, name: hijacked, action: drop, feeds: drop }
        /// ";
        /// # let dir = tempfile::tempdir()?;
        /// # let path = dir.path().join("feeds");
        /// let document = Document::parse("rules.yaml", text)?;
        /// let cache = FeedCache::open(&path, "my-agent", Arc::new(NoAudit))?;
        /// let feeds = FeedSet::new(cache, document.feed_specs()?)?;
        /// let policy = document.policy_from(&mut Sources::new("/etc").feeds(&mut &feeds))?;
        /// let reports: Vec<String> = policy.reports().map(|report| report.to_string()).collect();
        /// assert_eq!(reports, ["drop: stands empty: it has no good version yet"]);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        ///
        /// # Errors
        /// Those of [`parse`](Self::parse), where the document has been changed since.
        pub fn feed_specs(&self) -> Result<Vec<FeedSpec>, DocumentError> {
            self.feeds.iter().map(|(name, feed)| self.feed_spec(name, feed)).collect()
        }

        fn feed_spec(&self, name: &str, feed: &DocumentFeed) -> Result<FeedSpec, DocumentError> {
            let mut spec = FeedSpec::new(name, &feed.source).map_err(|error| match error {
                SpecError::Source { source, .. } => {
                    self.refuse(steps!["feeds", name, "source"], Fault::value(source))
                }
                error => self.refuse_key("feeds", name, Fault::value(error)),
            })?;
            spec = describe(spec, feed).map_err(|(key, fault)| {
                self.refuse(steps!["feeds", name].into_iter().chain(key), fault)
            })?;
            Ok(spec)
        }
    }

    /// What is wrong, and the keys that lead there.
    type Unfit = (Vec<Step>, Fault);

    fn unfit(key: &[&str], what: impl std::fmt::Display) -> Unfit {
        (key.iter().map(|key| Step::from(*key)).collect(), Fault::value(what))
    }

    fn describe(mut spec: FeedSpec, feed: &DocumentFeed) -> Result<FeedSpec, Unfit> {
        spec.format = match (feed.format, &feed.column) {
            (DocumentFeedFormat::Csv, Some(column)) => ListFormat::csv_column(column),
            (_, Some(_)) => return Err(unfit(&["column"], "columns are those of `format: csv`")),
            (DocumentFeedFormat::Csv, None) => ListFormat::csv(),
            (DocumentFeedFormat::Lines, None) => ListFormat::Lines,
            (DocumentFeedFormat::Stix, None) => ListFormat::Stix,
        };
        spec.bad_lines = feed.bad_lines;
        spec.max_skipped = feed.max_skipped.unwrap_or(spec.max_skipped);
        if let Some(DocumentTime(refresh)) = feed.refresh {
            if refresh < MIN_REFRESH {
                let what = format_args!("shorter than {}s", MIN_REFRESH.as_secs()).to_string();
                return Err(unfit(&["refresh"], what));
            }
            spec.refresh = refresh;
        }
        spec.timeout = feed.timeout.map_or(spec.timeout, |DocumentTime(timeout)| timeout);
        spec.max_bytes = feed.max_bytes.map_or(spec.max_bytes, |DocumentBytes(bytes)| bytes);
        let DocumentEntries { min, max } = feed.entries;
        spec.min_entries = min.map_or(spec.min_entries, |min| min as usize);
        spec.max_entries = max.map_or(spec.max_entries, |max| max as usize);
        if spec.min_entries > spec.max_entries {
            let (min, max) = (spec.min_entries, spec.max_entries);
            return Err(unfit(&["entries"], format!("at least {min} and at most {max} is never")));
        }
        let DocumentChange { shrink, growth } = feed.change;
        if let Some(shrink) = shrink.filter(|shrink| *shrink > 100) {
            return Err(unfit(&["change", "shrink"], format!("`{shrink}` is not from 0 to 100")));
        }
        spec.max_shrink = shrink.unwrap_or(spec.max_shrink);
        spec.max_growth = growth.unwrap_or(spec.max_growth);
        spec.max_ipv4 = feed.coverage.ipv4.unwrap_or(spec.max_ipv4);
        spec.max_ipv6 = feed.coverage.ipv6.unwrap_or(spec.max_ipv6);
        spec.protect = feed.protect.clone();
        spec.allow_private = feed.allow_private;
        spec.allow_http = feed.danger_allow_http;
        spec.if_missing = match feed.if_missing {
            DocumentIfMissing::Empty => IfMissing::Empty,
            DocumentIfMissing::Refuse => IfMissing::Refuse,
        };
        spec = match (&feed.sha256, &feed.sha256_at) {
            (None, None) => spec,
            (Some(_), Some(_)) => {
                return Err(unfit(&["sha256-at"], "there is `sha256`, too: say one of them"));
            }
            (Some(sum), None) => {
                spec.sha256(sum.parse().map_err(|error| unfit(&["sha256"], error))?)
            }
            (None, Some(at)) => spec.sha256_at(at).map_err(|error| match error {
                SpecError::Source { source, .. } => unfit(&["sha256-at"], source),
                error => unfit(&["sha256-at"], error),
            })?,
        };
        let checksum = match &spec.checksum {
            Some(Checksum::At(source)) => Some(("sha256-at", source)),
            _ => None,
        };
        let sources = [("source", spec.source())].into_iter().chain(checksum);
        for (key, source) in sources {
            if matches!(source, Source::Web(url) if !url.is_secure()) && !spec.allow_http {
                let what = "over plain HTTP any host on the path can write the feed: use https, or say `danger-allow-http: true`";
                return Err(unfit(&[key], what));
            }
        }
        Ok(spec)
    }
}
