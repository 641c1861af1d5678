use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use ironclad_core::abi;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open, statfs};

use crate::error::BpfError;
use crate::inventory::Holder;
use crate::link::XdpMode;
use crate::sys;

/// Magic number of a bpffs (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Where bpffs is mounted by custom.
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

/// What a pin directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PinState {
    /// Nothing: no agent has persisted here.
    Absent,
    /// Everything that adopting needs.
    Complete,
}

impl PinDirectory {
    /// Opens, and creates where needed, an instance's directory under the bpffs at `bpffs`.
    ///
    /// # Errors
    /// `BpfErrorKind::PinDirectory` where `bpffs` is none, the name is unfit (letters, digits, `-`
    /// and `_`, at most 64), another agent holds the instance, or another ABI version's pins are there.
    pub fn open(bpffs: &Path, instance: &str) -> Result<Self, BpfError> {
        let unusable = |path: &Path, what: String, next| BpfError::pin_directory(path, what, next);
        let fit = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if instance.is_empty() || instance.len() > 64 || !instance.bytes().all(fit) {
            return Err(unusable(
                bpffs,
                format!("`{instance}` is no name for an instance"),
                "use 1 to 64 letters, digits, `-` and `_`",
            ));
        }
        match statfs(bpffs) {
            Ok(stat) if stat.f_type == BPF_FS_MAGIC => {}
            _ => {
                return Err(unusable(
                    bpffs,
                    "no bpffs is mounted here".to_owned(),
                    "mount one: `mount -t bpf -o mode=0700 bpf /sys/fs/bpf`",
                ));
            }
        }
        let path = bpffs.join("ironclad").join(instance);
        let failed = |step| {
            let path = path.clone();
            move |source: io::Error| BpfError::pin(path, step, source)
        };
        // Whoever may change these directories may take the protection away, or keep it from coming.
        for dir in [bpffs.join("ironclad"), path.clone(), path.join(format!("v{}", abi::VERSION))] {
            let found = match fs::symlink_metadata(&dir) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                found => found.map_err(failed("looking at the directory"))?,
            };
            let own = rustix::process::geteuid().as_raw();
            let what = if !found.is_dir() {
                "it is no directory".to_owned()
            } else if found.uid() != own && found.uid() != 0 {
                format!("it belongs to user {}", found.uid())
            } else if found.mode() & 0o022 != 0 {
                format!("others may write to it (mode {:04o})", found.mode() & 0o7777)
            } else {
                continue;
            };
            return Err(unusable(
                &dir,
                what,
                "remove it, which drops what its pins protect, or choose a bpffs that only root writes to",
            ));
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(failed("creating the directory"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = open(&path, flags, Mode::empty())
            .map_err(|e| failed("opening the directory")(e.into()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let holder = lock_holder(&lock).map(|pid| Holder::process(pid).to_string());
            let what = format!("{} runs this instance", holder.as_deref().unwrap_or("a process"));
            let next = "stop that process or choose another instance name";
            return Err(unusable(&path, what, next));
        }
        let this = Self { instance: path.clone(), _lock: lock };
        for entry in fs::read_dir(&this.instance).map_err(failed("reading the directory"))? {
            let name = entry.map_err(failed("reading the directory"))?.file_name();
            if name == this.version_name().as_str() {
                continue;
            }
            let name = name.to_string_lossy().into_owned();
            let path = this.instance.join(&name);
            if name.starts_with("new_") {
                // A persist that was cut off before its rename: nobody refers to it.
                remove_pins(&path)?;
            } else {
                return Err(unusable(
                    &path,
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

    /// Whether the directory holds all of `names`, or does not exist.
    ///
    /// # Errors
    /// `BpfErrorKind::PinDirectory` where it holds only some, or things that are not Ironclad's.
    pub(crate) fn state(&self, names: &[&str]) -> Result<PinState, BpfError> {
        let path = self.path();
        let found = match self.names() {
            Err(e) if e.errno() == Some(libc::ENOENT) => {
                return Ok(PinState::Absent);
            }
            other => other?,
        };
        let missing: Vec<&str> =
            names.iter().copied().filter(|name| !found.iter().any(|f| f == name)).collect();
        let foreign: Vec<&str> = found
            .iter()
            .map(String::as_str)
            .filter(|f| !names.contains(f) && LinkName::parse(f).is_none() && *f != SOCKETS)
            .collect();
        complete(path, &missing, &foreign)?;
        Ok(PinState::Complete)
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
        // What was cut off before its rename; nobody refers to it.
        remove_pins(&self.path().join(SOCKETS_STAGED))?;
        let path = self.path().join(SOCKETS);
        let found = match names_in(&path) {
            Err(e) if e.errno() == Some(libc::ENOENT) => {
                return Ok(None);
            }
            other => other?,
        };
        let is_there = |name: &&&str| found.iter().any(|f| f == *name);
        let missing: Vec<&str> = names.iter().filter(|name| !is_there(name)).copied().collect();
        let (pins, others): (Vec<&String>, Vec<&String>) =
            found.iter().partition(|f| f.starts_with(LINK_PREFIX) || f.starts_with(also));
        let foreign: Vec<&str> =
            others.into_iter().map(String::as_str).filter(|f| !names.contains(f)).collect();
        let pins = pins.into_iter().map(|name| path.join(name)).collect();
        complete(path, &missing, &foreign)?;
        Ok(Some(pins))
    }

    /// Pins what socket rules need beside what is pinned already: all of it, or nothing.
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

    /// The directories that begin with `dirs`, where it holds all of `names`: `None` where it does not
    /// exist.
    ///
    /// # Errors
    /// `BpfErrorKind::PinDirectory` where it holds only some, or things that are not Ironclad's.
    pub(crate) fn with_links(
        &self,
        names: &[&str],
        dirs: &str,
    ) -> Result<Option<Vec<PathBuf>>, BpfError> {
        let found = match self.names() {
            Err(e) if e.errno() == Some(libc::ENOENT) => {
                return Ok(None);
            }
            other => other?,
        };
        let is_there = |name: &&&str| found.iter().any(|f| f == *name);
        let missing: Vec<&str> = names.iter().filter(|name| !is_there(name)).copied().collect();
        let (links, others): (Vec<&String>, Vec<&String>) =
            found.iter().partition(|f| f.starts_with(dirs));
        let foreign: Vec<&str> =
            others.into_iter().map(String::as_str).filter(|f| !names.contains(f)).collect();
        complete(self.path(), &missing, &foreign)?;
        Ok(Some(links.into_iter().map(|name| self.path().join(name)).collect()))
    }

    fn names(&self) -> Result<Vec<String>, BpfError> {
        names_in(&self.path())
    }

    /// The links that are pinned, with the pins' paths, in the order of their names.
    pub(crate) fn links(&self) -> Result<Vec<(PathBuf, LinkName)>, BpfError> {
        let mut names = self.names()?;
        names.sort();
        let link = |name: String| Some((self.path().join(&name), LinkName::parse(&name)?));
        Ok(names.into_iter().filter_map(link).collect())
    }

    /// Pins everything at once: the directory appears complete, or not at all.
    pub(crate) fn persist(&self, pins: &[(String, BorrowedFd<'_>)]) -> Result<(), BpfError> {
        let staged = self.instance.join(format!("new_{}", std::process::id()));
        pin_all(&staged, &self.path(), pins)
    }

    pub(crate) fn link_path(&self, name: &LinkName) -> PathBuf {
        self.path().join(name.to_string())
    }

    /// Removes all pins. What only they kept alive ends: attached programs are detached.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where bpffs refuses.
    pub fn unpin(&self) -> Result<(), BpfError> {
        remove_pins(&self.path())
    }

    /// Removes all pins of an instance, whatever they are: the way out of a directory that cannot
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
    fs::read_to_string("/proc/locks").ok()?.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&&*id);
        fields.get(4).filter(|_| is_it)?.parse().ok().filter(|&pid| pid != 0)
    })
}

const LINK_PREFIX: &str = "link_";

/// Where an instance keeps what its socket rules need, within its directory.
pub(crate) const SOCKETS: &str = "sockets";

/// The same on its way to be there.
const SOCKETS_STAGED: &str = "sockets_new";

/// What the name of a link's pin says, which the kernel does not tell of a link:
/// `link_<namespace>_<mode>_<interface>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkName {
    pub(crate) namespace: u64,
    pub(crate) mode: XdpMode,
    pub(crate) interface: String,
}

impl LinkName {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(LINK_PREFIX)?.splitn(3, '_');
        let namespace = parts.next()?.parse().ok()?;
        let mode = parts.next()?;
        let mode = [XdpMode::Native, XdpMode::Generic].into_iter().find(|m| m.name() == mode)?;
        Some(Self { namespace, mode, interface: unescape(parts.next()?)? })
    }
}

impl std::fmt::Display for LinkName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { namespace, mode, interface } = self;
        write!(f, "{LINK_PREFIX}{namespace}_{mode}_{}", escape(interface))
    }
}

/// bpffs reserves dots; interface names may have them.
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('.', "%2e")
}

fn unescape(name: &str) -> Option<String> {
    let name = name.replace("%2e", ".").replace("%25", "%");
    (!name.is_empty()).then_some(name)
}

pub(crate) fn names_in(path: &Path) -> Result<Vec<String>, BpfError> {
    let failed = |source| BpfError::pin(path.to_owned(), "reading the directory", source);
    fs::read_dir(path)
        .map_err(failed)?
        .map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Refuses a directory that lacks something or holds what is not Ironclad's.
fn complete(path: PathBuf, missing: &[&str], foreign: &[&str]) -> Result<(), BpfError> {
    let what = match (foreign, missing) {
        ([], []) => return Ok(()),
        ([], _) => format!("it is incomplete: {} missing", missing.join(", ")),
        _ => format!("it holds what is not Ironclad's: {}", foreign.join(", ")),
    };
    let next = "remove the directory to drop its protection and start afresh (`purge`), or choose another instance name";
    Err(BpfError::pin_directory(path, what, next))
}

/// Pins in a directory that nobody looks at, which then becomes the one that they do.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> Result<(), BpfError> {
    let failed = |source| BpfError::pin(path.to_owned(), "pinning", source);
    sys::obj_pin(fd, path).map_err(failed)
}

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
        // The first error is the one to tell.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_survive_bpffs() {
        for name in ["eth0", "eth0.100", "a%2eb", "50%.1", "%25"] {
            assert!(!escape(name).contains('.'));
            assert_eq!(unescape(&escape(name)).as_deref(), Some(name), "{name}");
        }
    }

    #[test]
    fn links_are_told_by_their_names() {
        for (mode, interface) in [(XdpMode::Native, "eth0.100"), (XdpMode::Generic, "a_b_")] {
            let link = LinkName { namespace: 4_026_531_840, mode, interface: interface.to_owned() };
            assert_eq!(LinkName::parse(&link.to_string()), Some(link));
        }
        for foreign in
            ["link_eth0", "link_1_eth0", "link_1_native_", "link_x_native_eth0", "ic_xdp"]
        {
            assert_eq!(LinkName::parse(foreign), None, "{foreign}");
        }
    }
}
