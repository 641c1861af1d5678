//! Pseudo-terminals.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::error::LabError;

/// A pseudo-terminal. It hangs up when it is dropped.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    path: PathBuf,
}

impl Terminal {
    /// A new one. It becomes no controlling terminal.
    ///
    /// # Errors
    /// [`LabError`] where devpts has none left, or is not mounted.
    pub fn new() -> Result<Self, LabError> {
        let open = || -> io::Result<Self> {
            let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            grantpt(&master)?;
            unlockpt(&master)?;
            let path = ptsname(&master, Vec::new())?.into_string().map_err(io::Error::other)?;
            Ok(Self { master: master.into(), path: path.into() })
        };
        open().map_err(failed)
    }

    /// The device.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the device.
    ///
    /// # Errors
    /// [`LabError`] where it cannot be opened.
    pub fn open(&self) -> Result<File, LabError> {
        let flags = rustix::fs::OFlags::NOCTTY.bits() as i32;
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(&self.path)
            .map_err(failed)
    }

    /// The command in a session of its own whose controlling terminal this is, by setsid(1).
    ///
    /// # Errors
    /// [`LabError`] where the device cannot be opened.
    pub fn command(&self, program: &Path) -> Result<Command, LabError> {
        let mut command = Command::new("setsid");
        command.arg("-c").arg(program).stdin(Stdio::from(self.open()?));
        Ok(command)
    }

    /// Types these bytes.
    ///
    /// # Errors
    /// [`LabError`] where they cannot be written.
    pub fn type_in(&mut self, bytes: &[u8]) -> Result<(), LabError> {
        self.master.write_all(bytes).map_err(failed)
    }
}

fn failed(source: io::Error) -> LabError {
    LabError::System { step: "using a pseudo-terminal", source }
}
