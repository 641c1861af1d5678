//! Feeds: address lists that others publish and that change.
//!
//! A [`FeedSpec`] says where a feed comes from and which versions are accepted; a [`FeedCache`] keeps its last
//! good version on the disk; a [`FeedSet`] knows what is due when. With the feature `fetch` a
//! `Fetcher` refreshes it over HTTPS, or from a file.
//!
//! The last good version stays until the next has been fetched whole, read, counted, held against
//! the last one, and written. It survives restarts and is there at boot, before the network is.
//!
//! `docs/feeds.md` has the whole story.
#![cfg_attr(
    feature = "fetch",
    doc = r#"
```no_run
# use std::sync::Arc;
use std::time::SystemTime;

use ironclad_policy::feed::{FeedCache, FeedSet, FeedSpec, Fetcher, Outcome};

# let audit = Arc::new(ironclad_core::audit::NoAudit);
let cache = FeedCache::open("/var/lib/ironclad/feeds", "my-agent", audit)?;
let drop = FeedSpec::new("drop", "https://feeds.example/drop.txt")?;
let feeds = FeedSet::new(cache, [drop])?;
let fetcher = Fetcher::new();
for (spec, outcome) in feeds.refresh_due(&fetcher, SystemTime::now()) {
    match outcome {
        Outcome::Updated { added, removed, entries } => {
            println!("{}: {entries} entries, {added} new, {removed} gone", spec.name());
        }
        Outcome::Kept { why } => eprintln!("{}: kept as it was: {why}", spec.name()),
        _ => {}
    }
}
# Ok::<(), Box<dyn std::error::Error>>(())
```
"#
)]

mod audit;
mod bounds;
mod cache;
mod checksum;
mod dir;
#[cfg(feature = "fetch")]
mod fetch;
#[cfg(feature = "document")]
mod named;
mod reach;
mod schedule;
mod set;
mod source;
mod spec;
mod state;

pub use bounds::{FREE_CHANGE, Rejection};
pub use cache::{CacheError, FeedCache};
pub use checksum::Checksum;
#[cfg(feature = "fetch")]
pub use fetch::{FetchError, Fetcher, Outcome, RootsError, Why};
pub use schedule::{MAX_BACK_OFF, MAX_RETRY_AFTER, MIN_REFRESH, next_due};
pub use set::FeedSet;
pub use source::{Source, SourceError, Url};
pub use spec::{FeedSpec, IfMissing, SpecError};
pub use state::{BackOff, Content, FeedState};

pub use crate::sha256::{ChecksumError, Sha256Sum};
