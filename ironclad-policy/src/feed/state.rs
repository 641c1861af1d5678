use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{FeedSpec, Sha256Sum};

/// What the cache knows of a feed beside its content. Kept as a small JSON file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FeedState {
    /// The form of the file; there is but one.
    pub version: u32,
    /// The source that all of this is about.
    pub source: String,
    /// When a refresh was last begun.
    #[serde(with = "seconds")]
    pub attempted_at: SystemTime,
    /// Since when, and until when, refreshes fail; none after one that did not.
    pub back_off: Option<BackOff>,
    /// The last good version; none before the first.
    pub content: Option<Content>,
}

/// Refreshes that failed in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BackOff {
    /// How many. One that the agent did not live to see the end of counts.
    pub failures: u32,
    /// When the next is due.
    #[serde(with = "seconds")]
    pub until: SystemTime,
}

/// A version of a feed that was read, counted and written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Content {
    /// Its checksum, by which it is found and verified.
    pub sha256: Sha256Sum,
    /// Its length in bytes.
    pub bytes: u64,
    /// How many entries it had when it was accepted.
    pub entries: usize,
    /// When it was fetched, or found unchanged.
    #[serde(with = "seconds")]
    pub fetched_at: SystemTime,
    /// The server's `ETag`, as it was sent.
    pub etag: Option<String>,
    /// The server's `Last-Modified`, as it was sent.
    pub last_modified: Option<String>,
}

impl FeedState {
    pub(super) const VERSION: u32 = 1;

    /// Of a feed of which nothing is known.
    pub(super) fn of(spec: &FeedSpec) -> Self {
        Self {
            version: Self::VERSION,
            source: spec.source().to_string(),
            attempted_at: UNIX_EPOCH,
            back_off: None,
            content: None,
        }
    }
}

impl Content {
    pub(super) fn file_of(&self, feed: &str) -> String {
        format!("{feed}.{}.list", self.sha256)
    }
}

/// Seconds since 1970 UTC.
mod seconds {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let since = Duration::from_secs(u64::deserialize(from)?);
        let time = UNIX_EPOCH.checked_add(since);
        time.ok_or_else(|| serde::de::Error::custom("a time that is too far away"))
    }
}
