//! The secret that makes a restarted agent trusted, in a file that no other process may read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ironclad_bpf::BpfError;
use ironclad_bpf::sentinel::Secret;
use ironclad_core::abi::SENTINEL_SECRET;

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
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|source| self.failed("creating the directory", source))?;
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

    /// Replaces the secret.
    pub(crate) fn write(&self, secret: &Secret) -> Result<(), SentinelError> {
        replace(&self.dir.join(NAME), secret.as_bytes())
            .map_err(|source| self.failed("writing the secret in", source))
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

/// Replaces a file with mode 0600. After a crash, the path has either the old or the new content.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_extension("next");
    match fs::remove_file(&next) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}
