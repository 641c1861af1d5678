use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::{CacheError, FeedCache, FeedSpec, FeedState, MIN_REFRESH, SpecError, schedule};
use crate::list::AddressList;

/// Feeds that share a cache. It has no thread of its own: the caller checks when a feed is due.
///
/// ```
/// use std::sync::Arc;
/// use std::time::SystemTime;
///
/// use ironclad_core::audit::NoAudit;
/// use ironclad_policy::feed::{FeedCache, FeedSet, FeedSpec};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("feeds");
/// let drop = FeedSpec::new("drop", "https://feeds.example/drop.txt")?;
/// let cache = FeedCache::open(&path, "my-agent", Arc::new(NoAudit))?;
/// let feeds = FeedSet::new(cache, [drop])?;
/// // At boot, before the network is up: what was good last.
/// for (spec, last_good) in feeds.load(SystemTime::now()) {
///     println!("{}: {:?}", spec.name(), last_good?.map(|list| list.entries().len()));
/// }
/// assert_eq!(feeds.due(SystemTime::now()).count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FeedSet {
    cache: FeedCache,
    specs: Vec<FeedSpec>,
    /// When a refresh failed that the cache could not store.
    held: Mutex<BTreeMap<String, SystemTime>>,
}

impl FeedSet {
    /// Feeds, each with a name of its own.
    ///
    /// # Errors
    /// [`SpecError::Duplicate`].
    pub fn new(
        cache: FeedCache,
        specs: impl IntoIterator<Item = FeedSpec>,
    ) -> Result<Self, SpecError> {
        let specs: Vec<_> = specs.into_iter().collect();
        let mut names = BTreeSet::new();
        match specs.iter().find(|spec| !names.insert(spec.name())) {
            Some(spec) => Err(SpecError::Duplicate { name: spec.name().to_owned() }),
            None => Ok(Self { cache, specs, held: Mutex::default() }),
        }
    }

    /// The cache.
    pub fn cache(&self) -> &FeedCache {
        &self.cache
    }

    /// The feeds, in the order in which they were given.
    pub fn specs(&self) -> &[FeedSpec] {
        &self.specs
    }

    /// The last good version of each feed, as by [`FeedCache::load`].
    pub fn load(
        &self,
        now: SystemTime,
    ) -> impl Iterator<Item = (&FeedSpec, Result<Option<AddressList>, CacheError>)> {
        self.specs.iter().map(move |spec| (spec, self.cache.load(spec, now)))
    }

    /// The feeds whose refresh is due. Those of which the cache has something damaged are.
    pub fn due(&self, now: SystemTime) -> impl Iterator<Item = &FeedSpec> {
        self.specs.iter().filter(move |spec| self.due_at(spec, now) <= now)
    }

    /// When the next refresh is due: not after `now` where one is by then, none without feeds.
    pub fn next_due(&self, now: SystemTime) -> Option<SystemTime> {
        self.specs.iter().map(|spec| self.due_at(spec, now)).min()
    }

    /// Where the disk is full or files are not trusted, no failure is written down: without this such
    /// a feed would be due again at once.
    pub(super) fn hold(&self, spec: &FeedSpec, now: SystemTime) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(spec.name().to_owned(), now);
    }

    fn due_at(&self, spec: &FeedSpec, now: SystemTime) -> SystemTime {
        let state = self.cache.state(spec).ok().flatten();
        let due = self.cache.due_at(spec, state.as_ref(), now);
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back holds nothing up.
        let failed = held.get(spec.name()).filter(|failed| **failed <= now);
        match failed.and_then(|failed| failed.checked_add(MIN_REFRESH / 2)) {
            Some(until) => due.max(until),
            None => due,
        }
    }
}

impl FeedCache {
    /// When the next refresh of a feed is due, as far as its state and the length of its content
    /// tell.
    pub(super) fn due_at(
        &self,
        spec: &FeedSpec,
        state: Option<&FeedState>,
        now: SystemTime,
    ) -> SystemTime {
        // A damaged one that fails to be replaced waits as other feeds do.
        let state = state.filter(|state| state.back_off.is_some() || self.is_whole(spec, state));
        schedule::next_due(spec, state, now)
    }
}
