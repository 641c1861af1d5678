//! From a source to the cache, or nothing.

use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

use ironclad_core::audit::AuditAction;

use super::body::Deadline;
use super::http::{self, Answer, Request, Validators};
use super::{FetchError, Fetcher, Outcome, Why, file};
use crate::feed::{
    CacheError, Checksum, Content, FeedCache, FeedSet, FeedSpec, Rejection, Sha256Sum, Source,
    bounds, reach, schedule,
};
use crate::list::AddressList;

/// Bytes of the largest file of checksums.
const CHECKSUMS: u64 = 1 << 20;

impl FeedSet {
    /// Refreshes the feeds that are due, one after the other, and says what became of each. One that
    /// fails does not keep other feeds from being refreshed.
    pub fn refresh_due<'a>(
        &'a self,
        fetcher: &Fetcher,
        now: SystemTime,
    ) -> Vec<(&'a FeedSpec, Outcome)> {
        let refresh = |spec| {
            let outcome = fetcher.refresh(spec, self.cache(), now);
            if matches!(outcome, Outcome::Kept { .. }) {
                self.hold(spec, now);
            }
            (spec, outcome)
        };
        self.due(now).map(refresh).collect()
    }
}

impl Fetcher {
    /// Refreshes a feed if it is due.
    ///
    /// The new version is fetched whole, compared with its checksum, read, counted and held against
    /// the last good one before anything is written; whatever goes wrong, the last good version
    /// stays. That a refresh was begun is written before a request is sent: an agent that is
    /// restarted over and over sends no more requests than one that is not.
    ///
    /// `now` is the time by the clock: what is due, and what the content says of times, is judged
    /// by it.
    ///
    /// A new version, and why one was refused, are recorded by the cache's audit sink; that nothing
    /// was requested or has changed is not.
    pub fn refresh(&self, spec: &FeedSpec, cache: &FeedCache, now: SystemTime) -> Outcome {
        let why = match self.refresh_unrecorded(spec, cache, now) {
            Ok(outcome) => return outcome,
            Err(why) => why,
        };
        let (feed, reason) = (spec.name().to_owned(), why.to_string());
        let why = match cache.record(&AuditAction::FeedKeep { feed, reason }) {
            Err(error) if !matches!(why, Why::Audit { .. }) => {
                Why::Audit { error, cause: Some(Box::new(why)) }
            }
            _ => why,
        };
        Outcome::Kept { why }
    }

    fn refresh_unrecorded(
        &self,
        spec: &FeedSpec,
        cache: &FeedCache,
        now: SystemTime,
    ) -> Result<Outcome, Why> {
        let failures = match cache.state(spec) {
            Ok(state) => {
                let until = cache.due_at(spec, state.as_ref(), now);
                if until > now {
                    return Ok(Outcome::NotDue { until });
                }
                state.and_then(|state| state.back_off).map_or(1, |b| b.failures.saturating_add(1))
            }
            Err(error) => match cache.damaged(spec, error)? {
                CacheError::Damaged { .. } => 1,
                error => return Err(error.into()),
            },
        };
        // That it fails, until it has not.
        let jitter = RandomState::new().hash_one(now) as u32;
        let failed = |retry_after| schedule::back_off(spec, failures, retry_after, now, jitter);
        let begun = cache.update(spec, None, |state| {
            state.attempted_at = now;
            state.back_off = Some(failed(None));
        });
        begun?;
        self.attempt(spec, cache, now).inspect_err(|why| {
            if let Some(asked) = why.retry_after() {
                // Where that cannot be written there is still what was written before.
                let _ = cache.update(spec, None, |state| {
                    state.back_off = Some(failed(Some(asked)));
                });
            }
        })
    }

    fn attempt(&self, spec: &FeedSpec, cache: &FeedCache, now: SystemTime) -> Result<Outcome, Why> {
        let deadline = Deadline::after(spec.timeout);
        let last = match cache.last_good(spec, now) {
            Ok(last) => last,
            Err(error) => match cache.damaged(spec, error)? {
                // As good as none.
                CacheError::Damaged { .. } | CacheError::List(_) | CacheError::Unfit(_) => None,
                error => return Err(error.into()),
            },
        };
        let since = last.as_ref().map_or_else(Validators::default, |(content, _)| Validators {
            etag: content.etag.clone(),
            last_modified: content.last_modified.clone(),
        });
        let answer = self.get(spec, spec.source(), spec.max_bytes, deadline, since, now)?;
        let Answer::Content { bytes, validators } = answer else {
            cache.update(spec, None, |state| {
                state.back_off = None;
                state.content.iter_mut().for_each(|content| content.fetched_at = now);
            })?;
            return Ok(Outcome::NotModified);
        };
        let sha256 = Sha256Sum::of(&bytes);
        self.verify(spec, sha256, deadline, now)?;
        let list =
            AddressList::parse(spec.name(), &bytes, &spec.options(now)).map_err(Rejection::List)?;
        let entries = list.entries().len();
        bounds::check(spec, last.as_ref().map(|(content, _)| content.entries), entries)?;
        reach::check(spec, &list)?;

        let content = Content {
            sha256,
            bytes: bytes.len() as u64,
            entries,
            fetched_at: now,
            etag: validators.etag,
            last_modified: validators.last_modified,
        };
        if last.as_ref().is_some_and(|(content, _)| content.sha256 == sha256) {
            cache.update(spec, Some((content, &bytes)), |state| state.back_off = None)?;
            return Ok(Outcome::NotModified);
        }
        let (added, removed) = bounds::difference(last.as_ref().map(|(_, list)| list), &list);
        let action = AuditAction::FeedUpdate {
            feed: spec.name().to_owned(),
            source: spec.source().origin(),
            sha256: sha256.to_string(),
            entries: entries as u64,
            added: added as u64,
            removed: removed as u64,
        };
        cache.record(&action).map_err(|error| Why::Audit { error, cause: None })?;
        cache.update(spec, Some((content, &bytes)), |state| state.back_off = None)?;
        Ok(Outcome::Updated { added, removed, entries })
    }

    fn get(
        &self,
        spec: &FeedSpec,
        source: &Source,
        max_bytes: u64,
        deadline: Deadline,
        since: Validators,
        now: SystemTime,
    ) -> Result<Answer, FetchError> {
        match source {
            Source::Web(url) => {
                let allow_http = spec.allow_http;
                let request = Request { url, allow_http, max_bytes, deadline, since, now };
                http::get(&self.agent, &request)
            }
            Source::File(path) => Ok(Answer::Content {
                bytes: file::read(path, max_bytes)?,
                validators: Validators::default(),
            }),
        }
    }

    fn verify(
        &self,
        spec: &FeedSpec,
        found: Sha256Sum,
        deadline: Deadline,
        now: SystemTime,
    ) -> Result<(), Why> {
        let expected = match &spec.checksum {
            None => return Ok(()),
            Some(Checksum::Pinned(sum)) => *sum,
            Some(Checksum::At(source)) => {
                let none = Validators::default();
                let name = spec.source().file_name();
                let text = match self.get(spec, source, CHECKSUMS, deadline, none, now)? {
                    Answer::Content { bytes, .. } => String::from_utf8_lossy(&bytes).into_owned(),
                    Answer::NotModified => String::new(),
                };
                Sha256Sum::find(&text, &name).ok_or(FetchError::NoChecksum { name })?
            }
        };
        match found == expected {
            true => Ok(()),
            false => Err(Rejection::Checksum { expected, found }.into()),
        }
    }
}
