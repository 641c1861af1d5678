//! What the files that rules name contained when Sentinel was last there.
//!
//! While rules are in force, what changes is what trusted and exempt processes change: a look at the
//! files takes that over, and says so. What changed between the last look and the next start was changed
//! while Sentinel was away.

mod file;
mod scope;
mod walk;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ironclad_core::audit::AuditAction;
use ironclad_policy::Sha256Sum;
use serde::{Deserialize, Serialize};

use crate::error::SentinelError;

pub(crate) use file::escaped;
use file::{Former, Loaded};
pub(crate) use scope::{Kind, Scope, Scopes};
use walk::Snapshot;

/// Changes of one look that leave audit records of their own; of more, the baseline's record has the
/// number.
const RECORDS: usize = 1024;

/// How the contents of guarded files are cached.
#[derive(Clone)]
#[non_exhaustive]
pub struct BaselineOptions {
    /// Most files: of more, none is said to be added or removed. Default: 65,536.
    pub files: usize,
    /// Bytes of the largest file that is read; of larger ones, size, owner and mode are compared alone.
    /// Default: 256 MiB.
    pub file_bytes: u64,
    /// Bytes that are read in all; of what comes behind, the same. Default: 4 GiB.
    pub total_bytes: u64,
    /// Is told how far a look has come, every [`Progress::FILES`] files, by the thread that looks.
    /// Default: none.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

impl Default for BaselineOptions {
    fn default() -> Self {
        Self { files: 65_536, file_bytes: 256 << 20, total_bytes: 4 << 30, progress: None }
    }
}

impl fmt::Debug for BaselineOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, file_bytes, total_bytes, .. } = self;
        write!(f, "BaselineOptions {{ {files} files, {file_bytes} bytes each, {total_bytes} }}")
    }
}

/// How far a look at guarded files has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Progress {
    /// Files so far.
    pub files: usize,
    /// Bytes that were read.
    pub bytes: u64,
}

impl Progress {
    /// How many files there are between two reports.
    pub const FILES: usize = 1024;
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileState {
    /// Its mode, without its type.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its size, in bytes.
    pub size: u64,
    /// What it contains; none where that was not read.
    pub sha256: Option<Sha256Sum>,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Change {
    /// It was not there.
    Added(FileState),
    /// It is not there.
    Removed(FileState),
    /// It has another content, or one that cannot be read any more.
    Content {
        /// What it was.
        before: FileState,
        /// What it is.
        after: FileState,
    },
    /// Mode, owner or size are others; of the size alone where the content was not read.
    Metadata {
        /// What it was.
        before: FileState,
        /// What it is.
        after: FileState,
    },
    /// The path of a rule leads elsewhere, by other symbolic links.
    Elsewhere {
        /// Where it led.
        before: PathBuf,
        /// Where it leads.
        after: PathBuf,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(_) => f.write_str("added"),
            Self::Removed(_) => f.write_str("removed"),
            Self::Content { before, after } => {
                let sum = |it: &FileState| match (&it.sha256, &it.unread) {
                    (Some(sum), _) => sum.to_string(),
                    (None, why) => why.clone().unwrap_or_default(),
                };
                write!(f, "changed: content, {} to {}", sum(before), sum(after))?;
                metadata(f, before, after)
            }
            Self::Metadata { before, after } => {
                f.write_str("changed")?;
                metadata(f, before, after)
            }
            Self::Elsewhere { before, after } => {
                let [before, after] = [before, after].map(|it| escaped(it));
                write!(f, "led elsewhere: {before} to {after}")
            }
        }
    }
}

fn metadata(f: &mut fmt::Formatter<'_>, before: &FileState, after: &FileState) -> fmt::Result {
    if before.mode != after.mode {
        write!(f, ", mode {:04o} to {:04o}", before.mode, after.mode)?;
    }
    if (before.uid, before.gid) != (after.uid, after.gid) {
        write!(f, ", owner {}:{} to {}:{}", before.uid, before.gid, after.uid, after.gid)?;
    }
    if before.size != after.size {
        write!(f, ", size {} to {}", before.size, after.size)?;
    }
    Ok(())
}

/// A file that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FileChange {
    /// Its path, without symbolic links; where a rule's path leads elsewhere, the rule's.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// What became of it.
    pub change: Change,
}

fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&escaped(path))
}

/// Whether there was a baseline to compare with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Compared {
    /// There was.
    With {
        /// When it was written: wall clock, nanoseconds since 1970 UTC.
        time: u64,
        /// SHA-256 of the file: that of the audit record that was left when it was written.
        sha256: Sha256Sum,
    },
    /// There was none: this is the first start, or somebody has removed it.
    Missing,
    /// It is not as it was written; it is kept as `baseline.damaged`.
    Damaged(String),
}

/// What changed while Sentinel was away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BaselineReport {
    /// With what the files were compared.
    pub compared: Compared,
    /// Files that are not as they were, by their paths.
    pub changes: Vec<FileChange>,
    /// Files that no rule named when the baseline was written: not among the changes.
    pub newly_named: usize,
    /// Files that were looked at.
    pub files: usize,
    /// Bytes of them that were read.
    pub bytes: u64,
    /// Files and directories that could not be read, and why.
    pub unread: Vec<Unread>,
    /// Whether there are more than [`BaselineOptions::files`], now or in the baseline.
    pub is_cut: bool,
}

/// What could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Unread {
    /// The file or directory.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

/// The baseline of an instance.
#[derive(Debug)]
pub(crate) struct Baseline {
    path: PathBuf,
    options: BaselineOptions,
    instance: String,
    /// Ends a look.
    stop: AtomicBool,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    scopes: Scopes,
    policy: String,
    snapshot: Snapshot,
}

/// What a look found, with the audit records of it.
pub(crate) struct Look {
    pub(crate) changes: Vec<FileChange>,
    pub(crate) records: Vec<AuditAction>,
}

impl Baseline {
    pub(crate) fn new(dir: &Path, instance: &str, options: BaselineOptions) -> Self {
        Self {
            path: dir.join(file::NAME),
            options,
            instance: instance.to_owned(),
            stop: AtomicBool::new(false),
            kept: Mutex::default(),
        }
    }

    /// Whoever looks, gives up; so does who looks later.
    pub(crate) fn end(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Why it could not be taken or kept.
    pub(crate) fn failed(&self, source: io::Error) -> SentinelError {
        SentinelError::Baseline { path: self.path.clone(), source }
    }

    fn own(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        // It is replaced as a whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares what is there with what was, and keeps what is there. Nothing is written yet.
    pub(crate) fn begin(
        &self,
        scopes: Scopes,
        policy: &str,
    ) -> io::Result<(BaselineReport, Vec<AuditAction>)> {
        let path = escaped(&self.path);
        let missing = |reason: String| AuditAction::BaselineMissing { path: path.clone(), reason };
        let mut snapshot = walk::take(&scopes, None, self.own(), &self.options, &self.stop)?;
        let (mut changes, mut newly_named, mut is_cut) = (Vec::new(), 0, snapshot.is_cut);
        let mut records = Vec::new();
        let compared = match file::load(&self.path)? {
            Loaded::Missing => {
                records.push(missing("there is none".to_owned()));
                Compared::Missing
            }
            Loaded::Damaged(why) => {
                records.push(missing(why.clone()));
                Compared::Damaged(why)
            }
            Loaded::Whole(Former { time, sha256, scopes: former, files, is_cut: was_cut }) => {
                is_cut |= was_cut;
                changes = scopes.led_elsewhere(&former);
                let named = |path: &Path| former.cover(path) && scopes.cover(path);
                let (found, fresh) = walk::compare(&files, &snapshot, is_cut, named);
                changes.extend(found);
                newly_named = fresh;
                records = recorded(&changes, true);
                records.push(AuditAction::Baseline {
                    path,
                    written: false,
                    files: files.len() as u64,
                    sha256: sha256.to_string(),
                    changes: changes.len() as u64,
                });
                Compared::With { time, sha256 }
            }
        };
        let unread = std::mem::take(&mut snapshot.unread);
        let (files, bytes) = (snapshot.files.len(), snapshot.bytes);
        *self.kept() = Some(Kept { scopes, policy: policy.to_owned(), snapshot });
        Ok((
            BaselineReport { compared, changes, newly_named, files, bytes, unread, is_cut },
            records,
        ))
    }

    /// Looks again, at what `scopes` name if there are any: what changed meanwhile was changed by who
    /// may. None before the first look.
    pub(crate) fn look(&self, scopes: Option<(Scopes, &str)>) -> io::Result<Option<Look>> {
        let mut kept = self.kept();
        let Some(former) = kept.as_ref() else { return Ok(None) };
        let is_other = scopes.is_some();
        let (scopes, policy) = scopes.unwrap_or_else(|| (former.scopes.clone(), &former.policy));
        let known = Some(&former.snapshot);
        let snapshot = walk::take(&scopes, known, self.own(), &self.options, &self.stop)?;
        let mut changes = scopes.led_elsewhere(&former.scopes);
        let named = |path: &Path| former.scopes.cover(path) && scopes.cover(path);
        let files = former.snapshot.files.iter();
        let files = files.map(|(path, seen)| (path.clone(), seen.state.clone())).collect();
        let is_cut = snapshot.is_cut || former.snapshot.is_cut;
        changes.extend(walk::compare(&files, &snapshot, is_cut, named).0);
        let policy = policy.to_owned();
        *kept = Some(Kept { scopes, policy, snapshot });
        drop(kept);
        let mut records = recorded(&changes, false);
        if is_other || !changes.is_empty() {
            records.extend(self.write(changes.len())?);
        }
        Ok(Some(Look { changes, records }))
    }

    /// Writes what is cached; `changes` are those since the last time.
    pub(crate) fn write(&self, changes: usize) -> io::Result<Option<AuditAction>> {
        let kept = self.kept();
        let Some(Kept { scopes, policy, snapshot }) = kept.as_ref() else { return Ok(None) };
        let sha256 = file::store(&self.path, &self.instance, policy, scopes, snapshot)?;
        Ok(Some(AuditAction::Baseline {
            path: escaped(&self.path),
            written: true,
            files: snapshot.files.len() as u64,
            sha256: sha256.to_string(),
            changes: changes as u64,
        }))
    }
}

fn recorded(changes: &[FileChange], away: bool) -> Vec<AuditAction> {
    let record = |it: &FileChange| AuditAction::FileChange {
        path: escaped(&it.path),
        change: it.change.to_string(),
        away,
    };
    changes.iter().take(RECORDS).map(record).collect()
}

#[cfg(test)]
mod tests;
