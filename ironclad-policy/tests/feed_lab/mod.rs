//! A cache in a directory of its own, a server, and a feed between them.
#![allow(dead_code)] // Each test uses a part of it.

pub(crate) mod audit;
pub(crate) mod server;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use audit::Records;
use ironclad_policy::feed::{CacheError, FeedCache, FeedSpec, Fetcher, Outcome, Why};
use server::{Connection, Request, Server};

/// Some day in 2027.
pub(crate) fn at(hours: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + hours * 3600)
}

/// So many different addresses.
pub(crate) fn list(entries: u32) -> String {
    (0..entries).map(|n| format!("10.{}.{}.{}\n", n >> 16, n >> 8 & 255, n & 255)).collect()
}

/// The cache of an agent without an audit sink.
pub(crate) fn open(path: impl AsRef<Path>) -> Result<FeedCache, CacheError> {
    FeedCache::open(path, "lab", Arc::<Records>::default())
}

pub(crate) struct Lab {
    pub(crate) server: Server,
    pub(crate) cache: FeedCache,
    /// What `cache` has recorded.
    pub(crate) records: Arc<Records>,
    pub(crate) fetcher: Fetcher,
    pub(crate) temporary: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new(
        handler: impl Fn(&Request, &mut Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::with(Server::start(None, handler), Fetcher::new())
    }

    pub(crate) fn with(server: Server, fetcher: Fetcher) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let records = Arc::<Records>::default();
        let cache = FeedCache::open(dir.path().join("feeds"), "lab", records.clone()).unwrap();
        Self { server, cache, records, fetcher, temporary: dir }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.temporary.path().join("feeds")
    }

    /// The cache as another process sees it.
    pub(crate) fn reopened(&self) -> FeedCache {
        open(self.dir()).unwrap()
    }

    pub(crate) fn spec(&self, path: &str) -> FeedSpec {
        FeedSpec::new("f", &self.server.url(path))
            .unwrap()
            .danger_allow_http(true)
            .allow_private(true)
            .timeout(Duration::from_secs(15))
    }

    pub(crate) fn refresh(&self, spec: &FeedSpec, hours: u64) -> Outcome {
        self.fetcher.refresh(spec, &self.cache, at(hours))
    }

    #[track_caller]
    pub(crate) fn updated(&self, spec: &FeedSpec, hours: u64) -> (usize, usize, usize) {
        match self.refresh(spec, hours) {
            Outcome::Updated { added, removed, entries } => (added, removed, entries),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn kept(&self, spec: &FeedSpec, hours: u64) -> Why {
        match self.refresh(spec, hours) {
            Outcome::Kept { why } => why,
            other => panic!("{other:?}"),
        }
    }

    /// The entries of the last good version, as a process that starts anew finds them.
    #[track_caller]
    pub(crate) fn last_good(&self, spec: &FeedSpec) -> Option<usize> {
        let list = self.reopened().load(spec, at(0)).unwrap();
        list.map(|list| list.entries().len())
    }
}
