//! The audit file's only writer.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::chain::{Anchor, Digest, MAX_LINE, seal};
use super::tail::{Tail, TailFault};
use super::{AuditAction, AuditError, AuditSink};
use crate::ErrorChain;

/// When a record is safe from a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Each is on the disk before [`AuditSink::record`] returns (`fdatasync`): a power cut loses
    /// none of them. Costs what a write to the disk costs, for a few records per policy swap.
    #[default]
    EachRecord,
    /// The system writes when it likes. A crash of the agent loses nothing, a power cut may lose the
    /// last records, and where the file system leaves zeros in their place among whole lines, the
    /// chain is broken there.
    System,
}

/// A torn line that was found when the file was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// Where its bytes are kept: beside the file, with `.torn-SEQ` behind its name.
    pub kept: PathBuf,
    /// How many bytes.
    pub bytes: u64,
}

/// Keeps audit records in a file that only grows, one JSON object a line, each chained to the one
/// before by its hash. The [module](super) describes the format.
///
/// - One sink per file, in all processes: it holds an exclusive `flock` until it is dropped.
/// - The file is created with mode 0600. A symbolic link as the path's last part, what is no regular
///   file, a file of another user and one that other users may write are refused. The directories above
///   must be as trustworthy; `/var/log/ironclad` with mode 0700 is a good place.
/// - Opening reads the last line and goes on from there. It does not read the rest: call
///   [`verify_file`](super::verify_file) for that, with an anchor kept elsewhere.
/// - What a crash left of a last line is moved to a file of its own beside it, and a record says
///   so ([`AuditAction::Recover`], instance `audit`).
/// - A record that cannot be written whole, e.g. on a full disk, is taken back: the chain stays sound
///   and the next record finds its place.
/// - To rotate, drop the sink, move the file and open anew; the new file begins a chain of its own,
///   so keep the old one's [`anchor`](Self::anchor).
///
/// ```
/// use ironclad_core::audit::{AuditAction, AuditSink, JsonLinesSink, verify_file};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("audit.jsonl");
/// let sink = JsonLinesSink::open(&path)?;
/// sink.record("edge", &AuditAction::Confirm { generation: 7 })?;
/// assert_eq!(verify_file(&path, Some(sink.anchor()))?.records, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct JsonLinesSink {
    path: PathBuf,
    durability: Durability,
    recovered: Option<Recovered>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: Locked,
    last: Anchor,
    /// Length of the file: all of it whole lines.
    len: u64,
}

/// An audit file could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The system said no.
    #[error("audit file {}: cannot {doing}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Another sink has it.
    #[error(
        "audit file {}: another process (or another sink of this one) writes to it; stop that one or \
         choose another file (`fuser -v` shows who it is)", path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// It is not a file that only this user writes to.
    #[error("audit file {}: {what}", path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        what: String,
    },
    /// The chain cannot go on from its last line.
    #[error(
        "audit file {}: {what}. It was left as it is; move it aside as evidence and open again, which \
         begins a new chain", path.display()
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl JsonLinesSink {
    /// Opens or creates the file, each record safe on the disk before the action goes on.
    ///
    /// # Errors
    /// [`OpenError`]; the file is then as it was before.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path, Durability::default())
    }

    /// Opens or creates the file.
    ///
    /// # Errors
    /// [`OpenError`]; the file is then as it was before, but for a torn line that may have been set
    /// aside already.
    pub fn open_with(path: impl AsRef<Path>, durability: Durability) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        let io = |doing| {
            let path = path.clone();
            move |source| OpenError::Io { path, doing, source }
        };
        let file = open_trusted(&path)?;
        let len = file.metadata().map_err(io("look at it"))?.len();
        let Tail { anchor, len, torn } = Tail::read(&file, len).map_err(|fault| match fault {
            TailFault::Read(source) => io("read its end")(source),
            TailFault::Broken(what) => OpenError::Broken { path: path.clone(), what },
        })?;
        let recovered = if torn.is_empty() {
            None
        } else {
            let kept =
                set_aside(&path, anchor.seq + 1, &torn).map_err(io("set its torn line aside"))?;
            file.set_len(len).map_err(io("cut off its torn line"))?;
            Some(Recovered { kept, bytes: torn.len() as u64 })
        };
        sync_directory(&path).map_err(io("sync its directory"))?;

        let state = Mutex::new(State { file, last: anchor, len });
        let sink = Self { path, durability, recovered, state };
        if let Some(Recovered { kept, bytes }) = &sink.recovered {
            let action = AuditAction::Recover {
                kept: kept.display().to_string(),
                bytes: *bytes,
                sha256: Digest::of(&torn).to_string(),
            };
            sink.record("audit", &action).map_err(|error| OpenError::Io {
                path: sink.path.clone(),
                doing: "record that its torn line was set aside",
                source: io::Error::other(error),
            })?;
        }
        Ok(sink)
    }

    /// The last record's place in the chain, to be kept where the file's writer cannot write. Of an
    /// empty file record 0.
    pub fn anchor(&self) -> Anchor {
        self.state().last
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The torn line that was found when the file was opened, where there was one.
    pub fn recovered(&self) -> Option<&Recovered> {
        self.recovered.as_ref()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic between a write and the new length shows at the next record.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AuditSink for JsonLinesSink {
    fn record(&self, instance: &str, action: &AuditAction) -> Result<(), AuditError> {
        self.state()
            .append(instance, action, self.durability)
            .map_err(|what| AuditError(format!("{}: {what}", self.path.display())))
    }

    fn locked_file(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

/// A [`JsonLinesSink`] that opens its file at the first record.
///
/// A persistent Sentinel makes no record before its successor is admitted: such a file may be one that a rule protects,
/// which the kernel does not let a process open before. A first record fails where the file cannot be opened, and the
/// next one tries again.
#[derive(Debug)]
pub struct DeferredSink {
    path: PathBuf,
    durability: Durability,
    sink: Mutex<Option<JsonLinesSink>>,
}

impl DeferredSink {
    /// A sink for this file, each record safe on the disk before the action goes on.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::with(path, Durability::default())
    }

    /// A sink for this file.
    pub fn with(path: impl Into<PathBuf>, durability: Durability) -> Self {
        Self { path: path.into(), durability, sink: Mutex::default() }
    }

    /// The last record's place in the chain: see [`JsonLinesSink::anchor`]. None before the first record.
    pub fn anchor(&self) -> Option<Anchor> {
        self.sink().as_ref().map(JsonLinesSink::anchor)
    }

    fn sink(&self) -> MutexGuard<'_, Option<JsonLinesSink>> {
        // A panic leaves it open or not.
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AuditSink for DeferredSink {
    fn record(&self, instance: &str, action: &AuditAction) -> Result<(), AuditError> {
        let mut sink = self.sink();
        let open = match sink.take() {
            Some(open) => open,
            None => JsonLinesSink::open_with(&self.path, self.durability)
                .map_err(|error| AuditError(ErrorChain::new(&error).to_string()))?,
        };
        sink.insert(open).record(instance, action)
    }

    fn locked_file(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

/// A file with an exclusive lock.
#[derive(Debug)]
struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // A child that another thread is just starting has the file open until it calls exec, and
        // closing ours would leave the lock with it.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl State {
    fn append(
        &mut self,
        instance: &str,
        action: &AuditAction,
        durability: Durability,
    ) -> Result<(), String> {
        // Nanoseconds reach the 64th bit in the year 2554.
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        let (line, anchor) =
            seal(self.last, time, instance, action).map_err(|error| error.to_string())?;
        if line.len() > MAX_LINE {
            return Err(format!("a record of {} bytes; at most {MAX_LINE} are kept", line.len()));
        }
        self.check_alone()?;
        let written = (&*self.file).write_all(&line).and_then(|()| match durability {
            Durability::EachRecord => self.file.sync_data(),
            Durability::System => Ok(()),
        });
        if let Err(error) = written {
            return Err(match self.file.set_len(self.len) {
                Ok(()) => format!("{error}; make room or repair the disk, then try again"),
                Err(undo) => format!("{error}; nor could what was written be cut off: {undo}"),
            });
        }
        self.len += line.len() as u64;
        self.last = anchor;
        Ok(())
    }

    /// The lock is advisory: an editor, a log rotation or a thief does not take it.
    fn check_alone(&self) -> Result<(), String> {
        let meta = self.file.metadata().map_err(|error| format!("cannot look at it: {error}"))?;
        if meta.nlink() == 0 {
            return Err("it was deleted; open it anew, which begins a new chain".to_owned());
        }
        if meta.len() != self.len {
            return Err(format!(
                "it has {} bytes where {} were written: someone else changed it, or a write failed \
                 halfway; verify it and open it anew",
                meta.len(),
                self.len
            ));
        }
        Ok(())
    }
}

/// Opens, checks and locks.
fn open_trusted(path: &Path) -> Result<Locked, OpenError> {
    let untrusted =
        |what: &str| OpenError::Untrusted { path: path.to_owned(), what: what.to_owned() };
    let io = |doing, source| OpenError::Io { path: path.to_owned(), doing, source };
    // NONBLOCK: a FIFO or a terminal must not hold us up before we see what it is.
    let flags = OFlags::RDWR
        | OFlags::APPEND
        | OFlags::CLOEXEC
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY;
    // Before Linux 6.12, CREATE takes the lock of the directory also where the file exists, and any reader of the
    // directory may hold that lock.
    let opened = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            rustix::fs::open(path, flags | OFlags::CREATE, Mode::RUSR | Mode::WUSR)
        }
        opened => opened,
    };
    let file = match opened {
        Ok(fd) => File::from(fd),
        // BSDs answer MLINK.
        Err(Errno::LOOP | Errno::MLINK) => {
            return Err(untrusted("it is a symbolic link; name the file itself"));
        }
        Err(error) => return Err(io("open or create it", error.into())),
    };
    let meta = file.metadata().map_err(|error| io("look at it", error))?;
    if !meta.is_file() {
        return Err(untrusted("it is no regular file; name another"));
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        let what = format!("it belongs to user {}, who could change it; chown it", meta.uid());
        return Err(untrusted(&what));
    }
    if meta.mode() & 0o022 != 0 {
        let what =
            format!("its mode {:04o} lets other users write; chmod 600", meta.mode() & 0o7777);
        return Err(untrusted(&what));
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Locked(file)),
        Err(Errno::WOULDBLOCK) => Err(OpenError::Locked { path: path.to_owned() }),
        Err(error) => Err(io("lock it", error.into())),
    }
}

/// Keeps a torn line in a file of its own, safe on the disk, and returns where.
fn set_aside(path: &Path, seq: u64, torn: &[u8]) -> io::Result<PathBuf> {
    let name = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".torn-{seq}"));
        if number > 0 {
            name.push(format!(".{number}"));
        }
        PathBuf::from(name)
    };
    let mut number = 0;
    loop {
        let kept = name(number);
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&kept) {
            Ok(mut file) => {
                file.write_all(torn)?;
                file.sync_all()?;
                sync_directory(path)?;
                return Ok(kept);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// A new name is on the disk once its directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
