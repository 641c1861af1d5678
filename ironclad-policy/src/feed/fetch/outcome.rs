use std::time::{Duration, SystemTime};

use ironclad_core::audit::AuditError;

use super::FetchError;
use crate::feed::{CacheError, Rejection};

/// What became of a refresh.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It was not yet time: no request was sent.
    NotDue {
        /// When it will be.
        until: SystemTime,
    },
    /// The last good version is still the current one.
    NotModified,
    /// There is a new version. It is in the cache.
    Updated {
        /// Distinct prefixes that the version before did not have.
        added: usize,
        /// Distinct prefixes that only the version before had.
        removed: usize,
        /// Entries of the new version.
        entries: usize,
    },
    /// The cache is as it was: with the last good version, if there is one.
    Kept {
        /// Why.
        why: Why,
    },
}

/// Why a feed was kept as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// The content did not arrive.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The content arrived and was refused.
    #[error(transparent)]
    Content(#[from] Rejection),
    /// The cache cannot be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// An audit record was refused: without it a new version is refused.
    #[error("{error}{}", behind(cause))]
    Audit {
        /// What the sink says.
        error: AuditError,
        /// What the record was to say, where that is why the feed was kept.
        cause: Option<Box<Why>>,
    },
}

fn behind(cause: &Option<Box<Why>>) -> String {
    cause.as_ref().map_or_else(String::new, |cause| format!("; {cause}"))
}

impl Why {
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Fetch(error) => error.retry_after(),
            Self::Content(_) | Self::Cache(_) | Self::Audit { .. } => None,
        }
    }
}
