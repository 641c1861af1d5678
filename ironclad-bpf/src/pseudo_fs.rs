//! procfs, sysfs and securityfs as the kernel shows them.
//!
//! Root can mount other files over `/proc`, `/sys` and what is below them. [`PROC`], [`SYS`] and [`SECURITY`] are
//! opened at their first use, checked, and kept: a later mount over their root covers nothing that they read. A mount on
//! the path to a file is an error that names it.
//!
//! Some files are read by their path nevertheless:
//!
//! - libbpf reads `/sys/kernel/btf/vmlinux` and `/sys/devices/system/cpu/possible`. Wrong types make programs read wrong
//!   fields of the kernel's structures; too few CPUs make the kernel write beyond a buffer of this process.
//!   [`check_paths`] refuses both where they are covered, before libbpf reads them.
//! - The name of an interface's driver (`/sys/class/net`) and the kernel's performance units in a probe are shown to
//!   people alone. `/sys/class/net` belongs to the network namespace of the mount, and threads differ in it.
//! - Self-tests of hooks open `/proc/kcore`, `/proc` and a sysctl to be refused. Where another file is opened, the
//!   self-test fails, or the hook refuses that file.
//! - Self-tests of hooks use a directory that only a descriptor leads to, by `/proc/self/fd`. Where something else is at
//!   that path, they fail.
//! - Sentinel and Shield find mounts of bpffs and cgroup2 by `mountinfo`, and use them by their path: file systems of
//!   another kind are refused there.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{
    Dir, Mode, OFlags, ResolveFlags, fstat, fstatfs, open, openat, openat2, readlinkat,
};
use rustix::io::Errno;

/// The inode of the root directory of each of them.
const ROOT: u64 = 1;
/// How often a path is resolved during which files were renamed or mounted elsewhere.
const ATTEMPTS: usize = 128;

/// procfs at `/proc`.
pub static PROC: PseudoFs = PseudoFs::new("/proc", "procfs", 0x9fa0);
/// sysfs at `/sys`.
pub static SYS: PseudoFs = PseudoFs::new("/sys", "sysfs", 0x6265_6572);
/// securityfs at `/sys/kernel/security`.
pub static SECURITY: PseudoFs = PseudoFs::new("/sys/kernel/security", "securityfs", 0x7363_6673);

/// A pseudo file system. Paths are relative to its root, and may lead through its symbolic links, such as
/// `self/mountinfo`.
///
/// All methods fail where another file system is at the place of this one, or is mounted on the path.
#[derive(Debug)]
pub struct PseudoFs {
    at: &'static str,
    name: &'static str,
    magic: u64,
    root: OnceLock<OwnedFd>,
}

impl PseudoFs {
    const fn new(at: &'static str, name: &'static str, magic: u64) -> Self {
        Self { at, name, magic, root: OnceLock::new() }
    }

    /// Its directory.
    pub fn at(&self) -> &'static Path {
        Path::new(self.at)
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// Those of openat2(2), and those of all methods.
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        Ok(self.resolve(path.as_ref(), OFlags::RDONLY)?.into())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and of read(2).
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads a file of text. Bytes that are not UTF-8 become U+FFFD: processes choose names in many files, and a name
    /// that is not UTF-8 is to stop no reader of the others. [`read`](Self::read) a file whose names are needed.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub fn read_to_string(&self, path: impl AsRef<Path>) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read(path)?).into_owned())
    }

    /// Writes to a file that exists.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and of write(2).
    pub fn write(&self, path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
        File::from(self.resolve(path.as_ref(), OFlags::WRONLY)?).write_all(bytes)
    }

    /// The names in a directory.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and of getdents64(2).
    pub fn names(&self, path: impl AsRef<Path>) -> io::Result<Vec<OsString>> {
        let dir = self.resolve(path.as_ref(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::new(dir)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// The target of a symbolic link, of those that lead to open files (`self/exe`) as well.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and of readlink(2).
    pub fn read_link(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let link = self.resolve(path.as_ref(), OFlags::PATH | OFlags::NOFOLLOW)?;
        let target = readlinkat(link, c"", Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// Whether there is such a file.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), except that there is none.
    pub fn exists(&self, path: impl AsRef<Path>) -> io::Result<bool> {
        match self.resolve(path.as_ref(), OFlags::PATH) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Checks that the path of a file leads to this file system, now and for a process that does not use this module.
    fn check(&self, path: &str) -> io::Result<()> {
        match self.resolve_below(self.open_root()?.as_fd(), path.as_ref(), OFlags::PATH) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            found => found.map(drop),
        }
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        self.resolve_below(self.root()?, path, flags)
    }

    fn resolve_below(
        &self,
        root: BorrowedFd<'_>,
        path: &Path,
        flags: OFlags,
    ) -> io::Result<OwnedFd> {
        match resolve(root, path, flags) {
            Err(Errno::XDEV) => Err(covered(&self.at().join(first_covered(root, path)))),
            done => Ok(done?),
        }
    }

    fn root(&self) -> io::Result<BorrowedFd<'_>> {
        if self.root.get().is_none() {
            let root = self.open_root()?;
            // Another thread may have been first.
            let _ = self.root.set(root);
        }
        let root = self.root.get().map(AsFd::as_fd);
        root.ok_or_else(|| io::Error::other(format!("{} was not opened", self.at)))
    }

    /// Opens what is at its directory, which has to be the root of this file system.
    fn open_root(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(self.at, flags, Mode::empty())?;
        let is_it = fstatfs(&root)?.f_type as u64 & 0xffff_ffff == self.magic
            && fstat(&root)?.st_ino == ROOT;
        is_it.then_some(root).ok_or_else(|| {
            io::Error::other(format!(
                "{0} is not {1}: mount {1} there, or unmount what covers it",
                self.at, self.name
            ))
        })
    }
}

/// Opens a path below a root, on the same mount.
fn resolve(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let mut result = Err(Errno::AGAIN);
    for _ in 0..ATTEMPTS {
        result = openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), how);
        // Of `..`, while a rename or mount was under way.
        if !matches!(result, Err(Errno::AGAIN)) {
            break;
        }
    }
    result
}

/// The shortest beginning of a path that leads to another mount.
fn first_covered(root: BorrowedFd<'_>, path: &Path) -> PathBuf {
    let mut beginning = PathBuf::new();
    for name in path {
        beginning.push(name);
        if matches!(resolve(root, &beginning, OFlags::PATH), Err(Errno::XDEV)) {
            break;
        }
    }
    beginning
}

fn covered(at: &Path) -> io::Error {
    io::Error::other(format!(
        "{0} is covered by a mount: find out what mounted it, and `umount {0}`",
        at.display()
    ))
}

/// Checks that nothing is mounted over the files that libbpf reads by their paths, nor over `/proc`.
///
/// # Errors
/// One that names the mount.
pub fn check_paths() -> io::Result<()> {
    check_libbpf()?;
    PROC.check("self/fdinfo")
}

/// Checks that nothing is mounted over the files that libbpf reads by their paths.
pub(crate) fn check_libbpf() -> io::Result<()> {
    SYS.check("kernel/btf/vmlinux")?;
    SYS.check("devices/system/cpu/possible")
}

/// Opens for reading what an `O_PATH` descriptor of this process leads to. A lease is not waited for.
///
/// # Errors
/// `WouldBlock` of a file with a lease for writing, and those of open(2).
pub fn reopen(found: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let dir = PROC.resolve("thread-self/fd".as_ref(), OFlags::PATH | OFlags::DIRECTORY)?;
    let number = found.as_raw_fd().to_string();
    let again = openat(&dir, OsStr::from_bytes(number.as_bytes()), flags, Mode::empty())?;
    // A link of procfs can be covered, too.
    let (one, other) = (fstat(found)?, fstat(&again)?);
    if (one.st_dev, one.st_ino) != (other.st_dev, other.st_ino) {
        return Err(covered(&PROC.at().join("thread-self/fd").join(number)));
    }
    Ok(again)
}

/// The inode number of a namespace of a process or thread, such as of `net` of `thread-self`, as `lsns` shows it.
///
/// # Errors
/// Those of [`PseudoFs::read_link`].
pub fn namespace(process: &str, kind: &str) -> io::Result<u64> {
    let path = Path::new(process).join("ns").join(kind);
    let target = PROC.read_link(&path)?;
    // `net:[4026531840]`
    let number = target.to_str().and_then(|text| text.split(['[', ']']).nth(1)?.parse().ok());
    number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no number of a namespace"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn files_are_those_of_the_path() {
        let own = std::process::id();
        assert_eq!(PROC.read_link("self").unwrap(), Path::new(&own.to_string()));
        let exe = std::fs::read_link("/proc/self/exe").unwrap();
        assert_eq!(PROC.read_link("self/exe").unwrap(), exe);
        let status = PROC.read_to_string("thread-self/status").unwrap();
        assert!(status.contains(&format!("Tgid:\t{own}\n")), "{status}");
        let expected = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_eq!(namespace("thread-self", "net").unwrap(), expected);
        assert!(PROC.names(".").unwrap().contains(&own.to_string().into()));
        assert!(!PROC.exists("none").unwrap());
        assert!(SYS.exists("devices/system/cpu/possible").unwrap());
        check_paths().unwrap();
    }

    #[test]
    fn paths_do_not_leave_the_file_system() {
        for path in ["/proc/self", "../etc/passwd", "self/cwd", "self/root/etc", "self/exe"] {
            PROC.open(path).unwrap_err();
        }
        let other = PseudoFs::new("/proc/self", "procfs", 0x9fa0);
        let error = other.open("stat").unwrap_err().to_string();
        assert!(error.contains("/proc/self is not procfs"), "{error}");
    }

    #[test]
    fn a_name_that_is_not_utf_8_stops_no_reader() {
        let read = std::thread::spawn(|| {
            std::fs::write("/proc/thread-self/comm", b"a\xffb").unwrap();
            (PROC.read_to_string("thread-self/comm").unwrap(), PROC.read("thread-self/comm"))
        });
        let (text, bytes) = read.join().unwrap();
        assert_eq!((text.as_str(), bytes.unwrap()), ("a\u{fffd}b\n", b"a\xffb\n".to_vec()));
    }

    #[test]
    fn a_descriptor_is_opened_again() {
        let path = std::env::current_exe().unwrap();
        let found = open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let again = reopen(found.as_fd()).unwrap();
        assert_eq!(fstat(again).unwrap().st_ino, std::fs::metadata(path).unwrap().ino());
    }
}
