use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use ironclad_core::abi;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open, statfs};

use crate::error::BpfError;
use crate::interface::LinkName;
use crate::inventory::Holder;
use crate::persistent::{LINK_DIRECTORY_PREFIX, LINK_PREFIX, SOCKETS, SOCKETS_STAGED};
use crate::pseudo_fs::PROC;
use crate::sys;

/// Magic number of a bpffs (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Prefix of a directory that is renamed once everything is pinned in it.
const STAGED_PREFIX: &str = "new_";

/// The conventional mount point of bpffs.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Where an instance keeps its pins: `<bpffs>/ironclad/<instance>/v<abi>/`.
///
/// Holding it holds the instance's lock: two agents cannot run one instance. The kernel releases
/// the lock however the process ends.
#[derive(Debug)]
pub struct PinDirectory {
    instance: PathBuf,
    // Held for its flock(2).
    _lock: OwnedFd,
}

impl PinDirectory {
    /// Opens, and creates where needed, an instance's directory under the bpffs at `bpffs`.
    ///
    /// # Errors
    /// `BpfErrorKind::PinDirectory` where `bpffs` is none, the name is unfit (letters, digits, `-`
    /// and `_`, at most 64), another agent holds the instance, or another ABI version's pins are there.
    pub fn open(bpffs: &Path, instance: &str) -> Result<Self, BpfError> {
        check_name(bpffs, instance)?;
        let path = bpffs.join("ironclad").join(instance);
        // A process that can write to these directories can remove the protection, or prevent it.
        for dir in [bpffs.join("ironclad"), path.clone(), path.join(format!("v{}", abi::VERSION))] {
            check_owner(&dir)?;
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|source| BpfError::pin(&path, "creating the directory", source))?;
        let this = Self { _lock: lock(&path)?, instance: path };
        for name in names_in(&this.instance)? {
            let path = this.instance.join(&name);
            if name.starts_with(STAGED_PREFIX) {
                // A persist that was cut off before its rename: nothing refers to it.
                remove_pins(&path)?;
            } else if name != this.version_name() {
                return Err(BpfError::pin_directory(
                    path,
                    format!("it is not of ABI version {}", abi::VERSION),
                    "detach with the version that made it, or remove the directory to drop its protection",
                ));
            }
        }
        Ok(this)
    }

    fn version_name(&self) -> String {
        format!("v{}", abi::VERSION)
    }

    /// The directory of this ABI version.
    pub fn path(&self) -> PathBuf {
        self.instance.join(self.version_name())
    }

    /// The pins of Shield's links, where the directory holds all of `names`: `None` where it does not
    /// exist.
    ///
    /// # Errors
    /// `BpfErrorKind::PinDirectory` where it holds only some, or things that are not Ironclad's.
    pub(crate) fn shield(&self, names: &[&str]) -> Result<Option<Vec<PathBuf>>, BpfError> {
        // What was cut off before its rename has no use.
        remove_pins(&self.path().join(SOCKETS_STAGED))?;
        let found =
            find(&self.path(), names, |name| name == SOCKETS || LinkName::parse(name).is_some())?;
        Ok(found.map(|mut pins| {
            pins.retain(|path| !path.ends_with(SOCKETS));
            pins.sort();
            pins
        }))
    }

    /// Pins of links for socket rules and those that begin with `also`, where the instance has any:
    /// `None` where it has not.
    ///
    /// # Errors
    /// `BpfErrorKind::PinDirectory` where it holds only some of `names`, or things that are not
    /// Ironclad's.
    pub(crate) fn sockets(
        &self,
        names: &[&str],
        also: &str,
    ) -> Result<Option<Vec<PathBuf>>, BpfError> {
        let is_extra = |name: &str| name.starts_with(LINK_PREFIX) || name.starts_with(also);
        find(&self.path().join(SOCKETS), names, is_extra)
    }

    /// Sentinel's directories of links, where the directory holds all of `names`: `None` where it does
    /// not exist.
    ///
    /// # Errors
    /// `BpfErrorKind::PinDirectory` where it holds only some, or things that are not Ironclad's.
    pub(crate) fn sentinel(&self, names: &[&str]) -> Result<Option<Vec<PathBuf>>, BpfError> {
        find(&self.path(), names, |name| name.starts_with(LINK_DIRECTORY_PREFIX))
    }

    /// Pins what socket rules need, beside the pins that there are: all of it, or nothing.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where bpffs refuses.
    pub fn persist_sockets(&self, pins: &[(String, BorrowedFd<'_>)]) -> Result<(), BpfError> {
        let staged = self.path().join(SOCKETS_STAGED);
        let inner: Vec<(String, BorrowedFd<'_>)> = pins
            .iter()
            .filter_map(|(name, fd)| {
                Some((name.strip_prefix(SOCKETS)?.trim_start_matches('/').to_owned(), *fd))
            })
            .collect();
        pin_all(&staged, &self.path().join(SOCKETS), &inner)
    }

    /// Removes what [`persist_sockets`](Self::persist_sockets) has pinned.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where bpffs refuses.
    pub fn unpin_sockets(&self) -> Result<(), BpfError> {
        remove_pins(&self.path().join(SOCKETS))
    }

    /// Whether anything is pinned for socket rules.
    pub fn has_sockets(&self) -> bool {
        self.path().join(SOCKETS).exists()
    }

    pub(crate) fn socket_path(&self, name: &str) -> PathBuf {
        self.path().join(SOCKETS).join(name)
    }

    /// Pins everything at once: the directory appears complete, or not at all.
    pub(crate) fn persist(&self, pins: &[(String, BorrowedFd<'_>)]) -> Result<(), BpfError> {
        let staged = self.instance.join(format!("{STAGED_PREFIX}{}", std::process::id()));
        pin_all(&staged, &self.path(), pins)
    }

    pub(crate) fn link_path(&self, name: &LinkName) -> PathBuf {
        self.path().join(name.to_string())
    }

    /// Removes all pins, and the directory. What only they kept alive ends: attached programs are
    /// detached.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where bpffs refuses.
    pub fn unpin(&self) -> Result<(), BpfError> {
        remove_pins(&self.path())?;
        use io::ErrorKind::{DirectoryNotEmpty, NotFound};
        match fs::remove_dir(&self.instance) {
            Err(source) if !matches!(source.kind(), DirectoryNotEmpty | NotFound) => {
                Err(BpfError::pin(&self.instance, "removing", source))
            }
            _ => Ok(()),
        }
    }

    /// Removes all pins of an instance, whatever they are, also where the directory cannot
    /// be adopted. Protection that only the pins upheld ends.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where bpffs refuses; `BpfErrorKind::PinDirectory` where an agent runs the instance.
    pub fn purge(bpffs: &Path, instance: &str) -> Result<(), BpfError> {
        // Opening may fail for what purging is to mend, but never for the lock or the name.
        let path = bpffs.join("ironclad").join(instance);
        match Self::open(bpffs, instance) {
            Ok(directory) => {
                directory.unpin()?;
                drop(directory);
            }
            Err(e)
                if e.unusable_directory().is_some_and(|at| at.starts_with(&path) && at != path) =>
            {
                for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
                    remove_pins(&entry.path())?;
                }
            }
            Err(e) => return Err(e),
        }
        match fs::remove_dir(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(BpfError::pin(path, "removing", source))
            }
            _ => Ok(()),
        }
    }
}

fn check_name(bpffs: &Path, instance: &str) -> Result<(), BpfError> {
    let fit = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if instance.is_empty() || instance.len() > 64 || !instance.bytes().all(fit) {
        return Err(BpfError::pin_directory(
            bpffs,
            format!("`{instance}` is no name for an instance"),
            "use 1 to 64 letters, digits, `-` and `_`",
        ));
    }
    match statfs(bpffs) {
        Ok(stat) if stat.f_type == BPF_FS_MAGIC => Ok(()),
        _ => Err(BpfError::pin_directory(
            bpffs,
            "no bpffs is mounted here",
            "mount one: `mount -t bpf -o mode=0700 bpf /sys/fs/bpf`",
        )),
    }
}

/// Refuses a directory that another user can write to.
fn check_owner(dir: &Path) -> Result<(), BpfError> {
    let found = match fs::symlink_metadata(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|source| BpfError::pin(dir, "checking the directory", source))?,
    };
    let own = rustix::process::geteuid().as_raw();
    let what = if !found.is_dir() {
        "it is no directory".to_owned()
    } else if found.uid() != own && found.uid() != 0 {
        format!("it belongs to user {}", found.uid())
    } else if found.mode() & 0o022 != 0 {
        format!("other users can write to it (mode {:04o})", found.mode() & 0o7777)
    } else {
        return Ok(());
    };
    let next =
        "remove it, which drops what its pins protect, or choose a bpffs that only root writes to";
    Err(BpfError::pin_directory(dir, what, next))
}

/// The lock of an instance's directory.
fn lock(path: &Path) -> Result<OwnedFd, BpfError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = open(path, flags, Mode::empty())
        .map_err(|e| BpfError::pin(path, "opening the directory", e.into()))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok(lock);
    }
    let holder = lock_holder(&lock).map(|pid| Holder::process(pid).to_string());
    let what = format!("{} runs this instance", holder.as_deref().unwrap_or("a process"));
    Err(BpfError::pin_directory(path, what, "stop that process or choose another instance name"))
}

/// The instance that a pin is of.
pub(crate) fn instance_of(pin: &Path) -> Option<String> {
    let mut parts = pin.iter().skip_while(|part| *part != "ironclad").skip(1);
    let instance = parts.next()?.to_string_lossy().into_owned();
    parts.next().map(|_| instance)
}

/// The process that holds the flock(2) on a file, where this process may see it.
fn lock_holder(file: &OwnedFd) -> Option<u32> {
    let stat = rustix::fs::fstat(file).ok()?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let id = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    // `1: FLOCK  ADVISORY  WRITE 708 00:13:6 0 EOF`
    PROC.read_to_string("locks").ok()?.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&&*id);
        fields.get(4).filter(|_| is_it)?.parse().ok().filter(|&pid| pid != 0)
    })
}

pub(crate) fn names_in(path: &Path) -> Result<Vec<String>, BpfError> {
    let failed = |source| BpfError::pin(path.to_owned(), "reading the directory", source);
    fs::read_dir(path)
        .map_err(failed)?
        .map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// The pins of a directory beside those of `names`, all of which it holds; `None` where it does not
/// exist. A directory that lacks some, or holds more than `is_extra` accepts, is refused.
fn find(
    dir: &Path,
    names: &[&str],
    is_extra: impl Fn(&str) -> bool,
) -> Result<Option<Vec<PathBuf>>, BpfError> {
    let found = match names_in(dir) {
        Err(e) if e.errno() == Some(libc::ENOENT) => return Ok(None),
        found => found?,
    };
    let is_there = |name: &&&str| found.iter().any(|f| f == **name);
    let missing: Vec<&str> = names.iter().filter(|name| !is_there(name)).copied().collect();
    let rest = found.iter().map(String::as_str).filter(|name| !names.contains(name));
    let (extra, foreign): (Vec<&str>, Vec<&str>) = rest.partition(|name| is_extra(name));
    let what = match (&*foreign, &*missing) {
        ([], []) => return Ok(Some(extra.into_iter().map(|name| dir.join(name)).collect())),
        ([], _) => format!("it is incomplete: {} missing", missing.join(", ")),
        _ => format!("it holds what is not Ironclad's: {}", foreign.join(", ")),
    };
    let next = "remove the directory to drop its protection and start afresh (`purge`), or choose another instance name";
    Err(BpfError::pin_directory(dir, what, next))
}

/// Pins an object at a path.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> Result<(), BpfError> {
    let failed = |source| BpfError::pin(path.to_owned(), "pinning", source);
    sys::obj_pin(fd, path).map_err(failed)
}

/// Pins in a staged directory, which is then renamed to `path`.
fn pin_all(staged: &Path, path: &Path, pins: &[(String, BorrowedFd<'_>)]) -> Result<(), BpfError> {
    let failed = |path: &Path, step| {
        let path = path.to_owned();
        move |source: io::Error| BpfError::pin(path, step, source)
    };
    let make = |dir: &Path| {
        let made = fs::DirBuilder::new().mode(0o700).create(dir);
        made.map_err(failed(dir, "creating the directory"))
    };
    let done = (|| {
        make(staged)?;
        for (name, fd) in pins {
            let pin = staged.join(name);
            match pin.parent() {
                Some(dir) if !dir.exists() => make(dir)?,
                _ => {}
            }
            crate::pin::pin(fd.as_fd(), &pin)?;
        }
        fs::rename(staged, path).map_err(failed(path, "renaming into place"))
    })();
    if done.is_err() {
        // The first error is reported.
        let _ = remove_pins(staged);
    }
    done
}

pub(crate) fn remove_pins(dir: &Path) -> Result<(), BpfError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| BpfError::pin(path, "removing", source)
    };
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            return fs::remove_file(dir).map_err(failed(dir));
        }
        other => other.map_err(failed(dir))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(failed(dir))?.path());
    }
    // Links last: whatever fails before leaves the host protected.
    paths.sort_by_key(|path| {
        path.file_name().and_then(OsStr::to_str).is_some_and(|n| n.starts_with(LINK_PREFIX))
    });
    for path in paths {
        if path.is_dir() {
            remove_pins(&path)?;
        } else {
            // The kernel drops a pin's reference some time later; detaching does not wait for that.
            // Whatever else bears such a name is just removed.
            if path.file_name().and_then(OsStr::to_str).is_some_and(|n| n.starts_with(LINK_PREFIX))
            {
                let _ = sys::obj_get(&path).and_then(|link| sys::link_detach(link.as_fd()));
            }
            fs::remove_file(&path).map_err(failed(&path))?;
        }
    }
    fs::remove_dir(dir).map_err(failed(dir))
}
