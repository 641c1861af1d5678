//! Digests of protected files, kept across restarts.
//!
//! While rules are in force, only trusted and exempt processes change protected files: a comparison reports
//! the changes, and updates the baseline. Changes between the last comparison and the next start happened while
//! Sentinel was stopped.

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

use crate::error::{Failure, SentinelError};

pub(crate) use file::escaped;
use file::{Former, Loaded};
pub(crate) use scope::{Kind, Scope, Scopes};
use walk::Snapshot;

/// Changes of one comparison that have audit records of their own. The record of the baseline has the number
/// of all.
const RECORDS: usize = 1024;

/// Limits of a baseline.
#[derive(Clone)]
#[non_exhaustive]
pub struct BaselineOptions {
    /// Most files. If there are more, added and removed files are not reported. Default: 65,536.
    pub files: usize,
    /// Size in bytes of the largest file that is read. Of larger files, only size, owner and mode are compared.
    /// Default: 256 MiB.
    pub file_bytes: u64,
    /// Bytes that are read in all. Of files after that, only size, owner and mode are compared. Default: 4 GiB.
    pub total_bytes: u64,
    /// A callback for the progress of a comparison, every [`Progress::FILES`] files, on the thread that
    /// compares. Default: none.
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

/// The progress of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Progress {
    /// Files so far.
    pub files: usize,
    /// Bytes read so far.
    pub bytes: u64,
}

impl Progress {
    /// The number of files between two reports.
    pub const FILES: usize = 1024;
}

/// The recorded state of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileState {
    /// Its mode, without the file type.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its size, in bytes.
    pub size: u64,
    /// The digest of its content. None if it was not read.
    pub sha256: Option<Sha256Sum>,
    /// Why it was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

/// The change of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Change {
    /// The file did not exist.
    Added(FileState),
    /// The file does not exist any more.
    Removed(FileState),
    /// The content differs, or cannot be read any more.
    Content {
        /// The old state.
        before: FileState,
        /// The new state.
        after: FileState,
    },
    /// Mode, owner or size differ. The size matters alone if the content was not read.
    Metadata {
        /// The old state.
        before: FileState,
        /// The new state.
        after: FileState,
    },
    /// The path of a rule resolves to another file, by other symbolic links.
    Elsewhere {
        /// The old target.
        before: PathBuf,
        /// The new target.
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
                write!(f, "resolves elsewhere: {before} to {after}")
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

/// A file that has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FileChange {
    /// Its path, without symbolic links; for [`Change::Elsewhere`], the path of the rule.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// The change.
    pub change: Change,
}

fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&escaped(path))
}

/// Whether there was an earlier baseline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Compared {
    /// There was one.
    With {
        /// When the baseline was written: wall clock, nanoseconds since 1970 UTC.
        time: u64,
        /// SHA-256 of the baseline file, which the audit record of writing it has, too.
        sha256: Sha256Sum,
    },
    /// There was none: this is the first start, or the file was removed.
    Missing,
    /// The file differs from what was written. It is renamed to `baseline.damaged`.
    Damaged(String),
}

/// Changes while Sentinel was stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BaselineReport {
    /// The baseline that files were compared with.
    pub compared: Compared,
    /// Changed files, by path.
    pub changes: Vec<FileChange>,
    /// Files that no rule named when the baseline was written. They are not among the changes.
    pub newly_named: usize,
    /// Compared files.
    pub files: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// Files and directories that could not be read, and why.
    pub unread: Vec<Unread>,
    /// Whether there are more than [`BaselineOptions::files`], now or in the baseline.
    pub is_cut: bool,
    /// Why the new baseline was not written: the file system of the state directory is full. The next start compares
    /// files with the former one.
    pub unwritten: Option<String>,
}

/// A file or directory that could not be read.
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
    /// Ends a comparison.
    stop: AtomicBool,
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    scopes: Scopes,
    policy: String,
    snapshot: Snapshot,
}

/// The result of a comparison, with its audit records.
pub(crate) struct Comparison {
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
            current: Mutex::default(),
        }
    }

    /// Ends comparisons that are under way, and later ones.
    pub(crate) fn end(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// The error of a baseline that could not be read or written.
    pub(crate) fn failed(&self, source: io::Error) -> SentinelError {
        Failure::Baseline { path: self.path.clone(), source }.into()
    }

    fn own(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        // It is replaced as a whole.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares files with the baseline of the earlier agent. Does not write the new baseline.
    pub(crate) fn begin(
        &self,
        scopes: Scopes,
        policy: &str,
    ) -> io::Result<(BaselineReport, Vec<AuditAction>)> {
        let path = escaped(&self.path);
        let missing = |reason: String| AuditAction::BaselineMissing { path: path.clone(), reason };
        let mut snapshot = walk::read(&scopes, None, self.own(), &self.options, &self.stop)?;
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
                changes = scopes.moved_targets(&former);
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
        let (files, bytes, unwritten) = (snapshot.files.len(), snapshot.bytes, None);
        *self.current() = Some(Current { scopes, policy: policy.to_owned(), snapshot });
        let report = BaselineReport {
            compared,
            changes,
            newly_named,
            files,
            bytes,
            unread,
            is_cut,
            unwritten,
        };
        Ok((report, records))
    }

    /// Compares files with the last comparison, of other `scopes` if they are given. Changes were made by
    /// trusted or exempt processes. None before [`begin`](Self::begin).
    pub(crate) fn compare(&self, scopes: Option<(Scopes, &str)>) -> io::Result<Option<Comparison>> {
        let mut current = self.current();
        let Some(former) = current.as_ref() else { return Ok(None) };
        let is_other = scopes.is_some();
        let (scopes, policy) = scopes.unwrap_or_else(|| (former.scopes.clone(), &former.policy));
        let known = Some(&former.snapshot);
        let snapshot = walk::read(&scopes, known, self.own(), &self.options, &self.stop)?;
        let mut changes = scopes.moved_targets(&former.scopes);
        let named = |path: &Path| former.scopes.cover(path) && scopes.cover(path);
        let files = former.snapshot.files.iter();
        let files = files.map(|(path, seen)| (path.clone(), seen.state.clone())).collect();
        let is_cut = snapshot.is_cut || former.snapshot.is_cut;
        changes.extend(walk::compare(&files, &snapshot, is_cut, named).0);
        let policy = policy.to_owned();
        *current = Some(Current { scopes, policy, snapshot });
        drop(current);
        let mut records = recorded(&changes, false);
        if is_other || !changes.is_empty() {
            records.extend(self.write(changes.len())?);
        }
        Ok(Some(Comparison { changes, records }))
    }

    /// Writes the baseline. `changes` is the number of changes since the last one was written.
    pub(crate) fn write(&self, changes: usize) -> io::Result<Option<AuditAction>> {
        let current = self.current();
        let Some(Current { scopes, policy, snapshot }) = current.as_ref() else { return Ok(None) };
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
