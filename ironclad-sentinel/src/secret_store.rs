//! The secret that makes a restarted agent trusted, in a file that no other process may read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ironclad_bpf::BpfError;
use ironclad_bpf::sentinel::Secret;
use ironclad_core::abi::SENTINEL_SECRET;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::error::{Failure, SentinelError};

const NAME: &str = "secret";

/// The directory of an agent's secret.
#[derive(Debug)]
pub(crate) struct SecretStore {
    dir: PathBuf,
}

impl SecretStore {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Creates the directory where it is missing, and refuses one that other users may access.
    pub(crate) fn prepare(&self) -> Result<(), SentinelError> {
        // mkdir(2) of a directory that exists takes the lock of the one above, which any reader of that one may hold.
        let is_missing = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
        if fs::metadata(&self.dir).is_err_and(|e| is_missing(&e)) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
            made.map_err(|source| self.failed("creating the directory", source))?;
        }
        let found = fs::metadata(&self.dir)
            .map_err(|source| self.failed("checking the directory", source))?;
        let own = rustix::process::geteuid().as_raw();
        if found.uid() != own || found.mode() & 0o077 != 0 {
            let why = format!(
                "it belongs to user {} with mode {:04o}: give it to user {own} with mode 0700",
                found.uid(),
                found.mode() & 0o7777
            );
            return Err(self.failed("checking the directory", io::Error::other(why)));
        }
        Ok(())
    }

    /// The secret of the earlier agent. None where there is no file.
    ///
    /// # Errors
    /// `SentinelErrorKind::NotTrusted` where the kernel does not let this process read it.
    pub(crate) fn read(&self) -> Result<Option<Secret>, SentinelError> {
        let mut bytes = [0; SENTINEL_SECRET];
        match File::open(self.dir.join(NAME)).and_then(|mut file| file.read_exact(&mut bytes)) {
            Ok(()) => Ok(Some(Secret::from_bytes(bytes))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Err(Failure::NotTrusted { state: self.dir.clone() }.into())
            }
            Err(source) => Err(self.failed("reading the secret in", source)),
        }
    }

    /// Replaces the secret. A successor, which gives `is_adopted`, writes to the file that its predecessor has
    /// created: any process keeps it from creating one, by using up the room of the file system, or by a descriptor of
    /// the directory from before the first start. A file from before the first start may be open elsewhere.
    pub(crate) fn write(&self, secret: &Secret, is_adopted: bool) -> Result<(), SentinelError> {
        let path = self.dir.join(NAME);
        let fits = check_size_limit(SENTINEL_SECRET);
        let written = fits.and_then(|()| match is_adopted {
            true => {
                overwrite(&path, secret.as_bytes()).or_else(|_| replace(&path, secret.as_bytes()))
            }
            false => replace(&path, secret.as_bytes()),
        });
        written.map_err(|error| {
            let step = if error.raw_os_error() == Some(Errno::FBIG.raw_os_error()) {
                "writing the secret, for which RLIMIT_FSIZE is too low (`LimitFSIZE=` of the unit), in"
            } else if is_full(&error) {
                "making room for the secret (remove files, or name another file system by `.state_dir(…)`) in"
            } else {
                "writing the secret in"
            };
            self.failed(step, error)
        })
    }

    /// Removes the secret.
    pub(crate) fn remove(&self) {
        // The secret is not valid any more, so a file that stays does no harm.
        let _ = fs::remove_file(self.dir.join(NAME));
    }

    fn failed(&self, step: &'static str, source: io::Error) -> SentinelError {
        BpfError::system(format!("{step} `{}`", self.dir.display()), source).into()
    }
}

/// Whether a file system, or the user's quota of it, has no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    [Errno::NOSPC, Errno::DQUOT].iter().any(|it| error.raw_os_error() == Some(it.raw_os_error()))
}

/// The signal of a write beyond `RLIMIT_FSIZE` would end the agent, and leave half of a secret.
fn check_size_limit(bytes: usize) -> io::Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if limit < bytes as u64 => Err(Errno::FBIG.into()),
        _ => Ok(()),
    }
}

/// Writes to a file of the same size: at most one block, so that after a crash it has either content.
fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    if file.metadata()?.len() != bytes.len() as u64 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    file.write_all_at(bytes, 0)?;
    file.sync_data()
}

/// Replaces a file with mode 0600. After a crash, the path has either the old or the new content.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_extension("next");
    match fs::remove_file(&next) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    // A file that is open would have writes checked where it gets the protected name.
    drop(file);
    if let Err(error) = written {
        // What is left of it takes room.
        let _ = fs::remove_file(&next);
        return Err(error);
    }
    fs::rename(&next, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_created_where_it_is_missing_and_checked_where_it_is_not() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("a/b");
        let store = SecretStore::new(&dir);
        store.prepare().unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        store.prepare().unwrap();
        fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert!(store.prepare().unwrap_err().to_string().contains("checking the directory"));
    }

    #[test]
    fn a_secret_is_overwritten_by_one_of_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        assert!(overwrite(&path, b"new").is_err());
        replace(&path, b"old").unwrap();
        overwrite(&path, b"new").unwrap();
        assert!(overwrite(&path, b"longer").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
