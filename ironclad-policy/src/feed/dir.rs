//! A directory of files that only this user reads and writes.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::CacheError;

#[derive(Debug)]
pub(super) struct PrivateDir(PathBuf);

/// Held while files that belong together are read or changed.
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // A child that another thread is just starting has the file open until it calls exec, and
        // closing ours would leave the lock with it.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl PrivateDir {
    /// Makes the directory with mode 0700, or looks whether the one that is there is private.
    pub(super) fn open(path: &Path) -> Result<Self, CacheError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(path, "create it")(error));
            }
            _ => {}
        }
        let meta = fs::symlink_metadata(path).map_err(failed(path, "look at it"))?;
        if !meta.is_dir() {
            let what = "it is no directory; name one, and not by a symbolic link".to_owned();
            return Err(CacheError::Untrusted { path: path.to_owned(), what });
        }
        trusted(path, &meta, 0o077, "chmod 700")?;
        Ok(Self(path.to_owned()))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Waits until no process writes, or no other process reads or writes.
    pub(super) fn lock(&self, how: FlockOperation) -> Result<Lock, CacheError> {
        let path = self.path("lock");
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = open(&path, flags)?;
        flock(&file, how).map_err(|error| failed(&path, "lock it")(error.into()))?;
        Ok(Lock(file))
    }

    /// The bytes of a file, no more than `limit` and one; none where there is no such file.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, CacheError> {
        let path = self.path(name);
        let file = match open(&path, OFlags::RDONLY) {
            Ok(file) => file,
            Err(CacheError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        let limited = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
        limited.map_err(failed(&path, "read it"))?;
        Ok(Some(bytes))
    }

    /// The length of a file in bytes; none where there is no such file.
    pub(super) fn length(&self, name: &str) -> Option<u64> {
        fs::symlink_metadata(self.path(name)).ok().map(|meta| meta.len())
    }

    /// Writes a file with mode 0600: whole and safe on the disk, or as it was before.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CacheError> {
        let path = self.path(name);
        let aside = self.path(&format!("{name}.new"));
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&aside, "remove what a crash left of it")(error));
            }
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&aside);
        let written = file.and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            File::open(&self.0)?.sync_all()
        });
        written.map_err(|error| {
            // Of a full disk nothing more should be left than there was.
            let _ = fs::remove_file(&aside);
            failed(&path, "write it")(error)
        })
    }

    /// Removes the files whose name begins with `prefix`, all but those of `kept`.
    pub(super) fn remove(&self, prefix: &str, kept: &[String]) -> Result<(), CacheError> {
        for entry in fs::read_dir(&self.0).map_err(failed(&self.0, "list it"))? {
            let entry = entry.map_err(failed(&self.0, "list it"))?;
            let name = entry.file_name();
            let is_ours = name.as_encoded_bytes().starts_with(prefix.as_bytes());
            if is_ours && kept.iter().all(|kept| name != kept.as_str()) {
                fs::remove_file(entry.path()).map_err(failed(&entry.path(), "remove it"))?;
            }
        }
        Ok(())
    }
}

fn open(path: &Path, flags: OFlags) -> Result<File, CacheError> {
    // NONBLOCK: a FIFO must not hold us up before we see what it is.
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let untrusted =
        |what: &str| CacheError::Untrusted { path: path.to_owned(), what: what.to_owned() };
    let file = match rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => File::from(fd),
        // BSDs answer MLINK.
        Err(Errno::LOOP | Errno::MLINK) => {
            return Err(untrusted("it is a symbolic link; remove it"));
        }
        Err(error) => return Err(failed(path, "open it")(error.into())),
    };
    let meta = file.metadata().map_err(failed(path, "look at it"))?;
    if !meta.is_file() {
        return Err(untrusted("it is no regular file; remove it"));
    }
    trusted(path, &meta, 0o022, "chmod 600")?;
    Ok(file)
}

fn trusted(path: &Path, meta: &fs::Metadata, mask: u32, way_out: &str) -> Result<(), CacheError> {
    let untrusted = |what| Err(CacheError::Untrusted { path: path.to_owned(), what });
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return untrusted(format!(
            "it belongs to user {}, who could change it; chown it",
            meta.uid()
        ));
    }
    match meta.mode() & 0o7777 {
        mode if mode & mask == 0 => Ok(()),
        mode => untrusted(format!("its mode {mode:04o} lets other users in; {way_out}")),
    }
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io { path, doing, source }
}
