use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ironclad_core::ErrorChain;
use ironclad_core::audit::{AuditAction, AuditError, AuditSink};
use rustix::fs::FlockOperation;

use super::audit::Audit;
use super::dir::PrivateDir;
use super::state::{Content, FeedState};
use super::{FeedSpec, Rejection, Sha256Sum, reach};
use crate::list::{AddressList, ListError};

/// Bytes of the largest file of a feed's state.
const STATE: u64 = 64 << 10;

/// The last good versions of feeds, on the disk.
///
/// - A directory of mode 0700 that belongs to this user, with files of mode 0600. One that other users
///   may enter or own is refused. The directories above must be as trustworthy;
///   `/var/lib/ironclad/feeds` is a good place.
/// - A version is written under its checksum before `NAME.json` names it, each file aside, synced
///   and renamed: after a crash the old version is there, or the new one.
/// - What is read is verified against its checksum.
/// - What is written, and what goes wrong, leaves an audit record: [`AuditAction::FeedUpdate`],
///   [`FeedKeep`](AuditAction::FeedKeep), [`FeedDamage`](AuditAction::FeedDamage),
///   [`FeedMissing`](AuditAction::FeedMissing), [`FeedForget`](AuditAction::FeedForget). Without its
///   record a new version is refused.
/// - Processes may share a cache: a lock keeps one's reading from the other's writing.
///
/// ```
/// use std::sync::Arc;
/// use std::time::SystemTime;
///
/// use ironclad_core::audit::NoAudit;
/// use ironclad_policy::feed::{FeedCache, FeedSpec};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("feeds");
/// let cache = FeedCache::open(&path, "my-agent", Arc::new(NoAudit))?;
/// let drop = FeedSpec::new("drop", "https://feeds.example/drop.txt")?;
/// assert!(cache.load(&drop, SystemTime::now())?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FeedCache {
    dir: PrivateDir,
    audit: Audit,
}

/// Something of the cache cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The system said no.
    #[error("feed cache {}: cannot {doing}", path.display())]
    Io {
        /// The file or the directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Another user could have written it, or could read it.
    #[error("feed cache {}: {what}", path.display())]
    Untrusted {
        /// The file or the directory.
        path: PathBuf,
        /// Why, and what to do.
        what: String,
    },
    /// A file is not as it was written.
    #[error(
        "feed cache {}: {what}; without it the feed has no last good version until its next refresh",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The last good version was one by another description of the feed.
    #[error("feed cache, last good version")]
    List(#[from] ListError),
    /// The last good version has addresses that the feed must not have by its description of now.
    #[error("feed cache, last good version")]
    Unfit(#[source] Rejection),
    /// An audit record was refused. What it was to say has not been done, unless it went wrong by
    /// itself.
    #[error("feed cache: {error}{}", behind(cause))]
    Audit {
        /// What the sink says.
        error: AuditError,
        /// What the record was to say, where that is an error.
        cause: Option<Box<CacheError>>,
    },
}

fn behind(cause: &Option<Box<CacheError>>) -> String {
    cause.as_ref().map_or_else(String::new, |cause| format!("; {}", ErrorChain::new(cause)))
}

impl FeedCache {
    /// Opens the directory, or creates it; its parent has to be there. Audit records are those of
    /// `instance`, as Shield's are; for none, say
    /// [`NoAudit`](ironclad_core::audit::NoAudit).
    ///
    /// # Errors
    /// [`CacheError::Untrusted`] where it is not private, [`CacheError::Io`].
    pub fn open(
        dir: impl AsRef<Path>,
        instance: &str,
        audit: Arc<dyn AuditSink>,
    ) -> Result<Self, CacheError> {
        let audit = Audit::new(instance, audit);
        PrivateDir::open(dir.as_ref()).map(|dir| Self { dir, audit })
    }

    pub(super) fn record(&self, action: &AuditAction) -> Result<(), AuditError> {
        self.audit.record(action)
    }

    /// Records an error that says that something is damaged, and gives it back.
    pub(super) fn damaged(
        &self,
        spec: &FeedSpec,
        error: CacheError,
    ) -> Result<CacheError, CacheError> {
        if !matches!(error, CacheError::Damaged { .. }) {
            return Ok(error);
        }
        let (feed, reason) = (spec.name().to_owned(), ErrorChain::new(&error).to_string());
        match self.record(&AuditAction::FeedDamage { feed, reason }) {
            Ok(()) => Ok(error),
            Err(refused) => Err(CacheError::Audit { error: refused, cause: Some(Box::new(error)) }),
        }
    }

    /// The last good version of a feed, without network; none where there was no good version of
    /// this feed from this source yet. The list has the feed's name.
    ///
    /// `now` is the time at which what the content says of times is judged. Content that was good
    /// once stays: its number of entries is not checked again. Which addresses it has is: what the
    /// feed must not touch by now is not touched.
    ///
    /// # Errors
    /// [`CacheError::Damaged`] where files are not as they were written: treat the feed as one
    /// without a last good version, its next refresh fetches it anew. [`CacheError::List`] and
    /// [`CacheError::Unfit`] where the feed is described differently by now and the content is no such
    /// list. [`CacheError::Io`], [`CacheError::Untrusted`] and [`CacheError::Audit`].
    pub fn load(
        &self,
        spec: &FeedSpec,
        now: SystemTime,
    ) -> Result<Option<AddressList>, CacheError> {
        match self.last_good(spec, now) {
            Ok(last) => Ok(last.map(|(_, list)| list)),
            Err(error) => Err(self.damaged(spec, error).unwrap_or_else(|refused| refused)),
        }
    }

    /// What is known of a feed beside its content; none where nothing is of this source.
    ///
    /// # Errors
    /// [`CacheError::Damaged`], [`CacheError::Io`] and [`CacheError::Untrusted`].
    pub fn state(&self, spec: &FeedSpec) -> Result<Option<FeedState>, CacheError> {
        let _lock = self.dir.lock(FlockOperation::LockShared)?;
        self.read_state(spec)
    }

    /// Forgets all of a feed: its last good version, and that it failed.
    ///
    /// The next refresh is due at once and takes any number of entries within the bounds of the
    /// feed, as the first one does.
    ///
    /// # Errors
    /// [`CacheError::Io`], [`CacheError::Untrusted`] and [`CacheError::Audit`].
    pub fn forget(&self, spec: &FeedSpec) -> Result<(), CacheError> {
        self.record(&AuditAction::FeedForget { feed: spec.name().to_owned() })
            .map_err(|error| CacheError::Audit { error, cause: None })?;
        let _lock = self.dir.lock(FlockOperation::LockExclusive)?;
        self.dir.remove(&format!("{}.", spec.name()), &[])
    }

    /// The last good version, and what is known of it.
    pub(super) fn last_good(
        &self,
        spec: &FeedSpec,
        now: SystemTime,
    ) -> Result<Option<(Content, AddressList)>, CacheError> {
        let _lock = self.dir.lock(FlockOperation::LockShared)?;
        match self.read_state(spec)?.and_then(|state| state.content) {
            Some(content) => self.read(spec, &content, now).map(|list| Some((content, list))),
            None => Ok(None),
        }
    }

    /// Whether the content that `state` names is there, in its length at least.
    pub(super) fn is_whole(&self, spec: &FeedSpec, state: &FeedState) -> bool {
        state.content.as_ref().is_none_or(|content| {
            self.dir.length(&content.file_of(spec.name())) == Some(content.bytes)
        })
    }

    /// Changes what is known of a feed. `content` comes with the bytes that the state names from
    /// now on; nothing older is kept.
    pub(super) fn update(
        &self,
        spec: &FeedSpec,
        content: Option<(Content, &[u8])>,
        change: impl FnOnce(&mut FeedState),
    ) -> Result<(), CacheError> {
        let _lock = self.dir.lock(FlockOperation::LockExclusive)?;
        // Read again: another process may have written since.
        let mut state = match self.read_state(spec) {
            Ok(Some(state)) => state,
            Ok(None) | Err(CacheError::Damaged { .. }) => FeedState::of(spec),
            Err(error) => return Err(error),
        };
        if let Some((content, bytes)) = content {
            self.dir.write(&content.file_of(spec.name()), bytes)?;
            state.content = Some(content);
        }
        change(&mut state);
        self.write_state(spec, &state)
    }

    fn write_state(&self, spec: &FeedSpec, state: &FeedState) -> Result<(), CacheError> {
        let name = state_file(spec);
        let text = serde_json::to_vec(state).map_err(|error| CacheError::Io {
            path: self.dir.path(&name),
            doing: "put it into words",
            source: error.into(),
        })?;
        self.dir.write(&name, &text)?;
        let content = state.content.as_ref().map(|content| content.file_of(spec.name()));
        let kept: Vec<_> = content.into_iter().chain([name]).collect();
        self.dir.remove(&format!("{}.", spec.name()), &kept)
    }

    fn read_state(&self, spec: &FeedSpec) -> Result<Option<FeedState>, CacheError> {
        let name = state_file(spec);
        let Some(bytes) = self.dir.read(&name, STATE)? else { return Ok(None) };
        let damaged = |what| CacheError::Damaged { path: self.dir.path(&name), what };
        let state: FeedState = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(format!("it is no state of a feed ({error})")))?;
        if state.version != FeedState::VERSION {
            return Err(damaged(format!("its version is {}, not 1", state.version)));
        }
        Ok(Some(state).filter(|state| state.source == spec.source().to_string()))
    }

    fn read(
        &self,
        spec: &FeedSpec,
        content: &Content,
        now: SystemTime,
    ) -> Result<AddressList, CacheError> {
        let name = content.file_of(spec.name());
        let damaged =
            |what: &str| CacheError::Damaged { path: self.dir.path(&name), what: what.to_owned() };
        let bytes = self.dir.read(&name, content.bytes)?.ok_or_else(|| damaged("it is gone"))?;
        if Sha256Sum::of(&bytes) != content.sha256 {
            return Err(damaged("its content is not what its name says"));
        }
        let list = AddressList::parse(spec.name(), &bytes, &spec.options(now))?;
        reach::check(spec, &list).map_err(CacheError::Unfit)?;
        Ok(list)
    }
}

fn state_file(spec: &FeedSpec) -> String {
    format!("{}.json", spec.name())
}
