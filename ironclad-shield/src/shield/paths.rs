//! Keeps the files and cgroups that socket rules name up to date.
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard};

use ironclad_core::audit::{AuditAction, AuditLog};
use ironclad_policy::socket::CompiledSockets;

use super::{Control, Core, Shield, lock};
use crate::error::ShieldError;
use crate::sockets::contents::{self, Checked, Contents};
use crate::sockets::follow::Follow;
use crate::sockets::{PathChange, Sockets};

impl Follow for Core {
    fn paths(&mut self) -> Result<Vec<PathBuf>, ShieldError> {
        self.lock().sockets.as_ref().map_or(Ok(Vec::new()), Sockets::paths)
    }

    fn refresh(&mut self, stop: &AtomicBool) -> Result<(), ShieldError> {
        // First: until then, processes in a new cgroup are not checked at all.
        let attached = self.refresh_cgroups();
        refresh(&self.audit, &self.control, stop)?;
        attached
    }

    fn refresh_interfaces(&mut self, retry: bool) -> Result<(), ShieldError> {
        Self::refresh_interfaces(self, retry).map(drop)
    }
}

impl Shield {
    /// Attaches again to protected cgroups that were created again, resolves the files and cgroups that
    /// rules name, and updates the rules in the kernel. A thread does so within moments of each change,
    /// unless [`follow_paths`](crate::ShieldBuilder::follow_paths) was turned off.
    ///
    /// Rules still match a process that executed a file before its path led to another one.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf` where the kernel refuses; `ShieldErrorKind::Audit`.
    pub fn refresh_paths(&self) -> Result<Vec<PathChange>, ShieldError> {
        self.core.refresh_cgroups()?;
        refresh(&self.core.audit, &self.core.control, &AtomicBool::new(false))
    }
}

/// Takes the lock, with the contents of the files that `policy` pins; without one, of those that the
/// policies in the kernel pin. Files are read without the lock.
pub(super) fn lock_with_contents<'a>(
    control: &'a Mutex<Control>,
    policy: Option<&CompiledSockets>,
    stop: &AtomicBool,
) -> Result<(MutexGuard<'a, Control>, Contents), ShieldError> {
    /// Files that keep changing are not read more often. A process that executes a changed one is denied
    /// until the next refresh, which the thread that follows paths does at once.
    const READS: u32 = 2;
    let mut read = Contents::default();
    let mut left = READS;
    loop {
        let control = lock(control);
        let Some(sockets) = &control.sockets else { return Ok((control, read)) };
        let unread = match sockets.contents(policy, &read, left == 0)? {
            Checked::Contents(contents) => return Ok((control, contents)),
            Checked::Unread(paths) => paths,
        };
        let open_files = sockets.processes().open_files_handle();
        drop(control);
        contents::read(&open_files, &unread, stop, &mut read)?;
        left -= 1;
    }
}

/// Updates the policies in the kernel.
fn refresh(
    audit: &AuditLog,
    control: &Mutex<Control>,
    stop: &AtomicBool,
) -> Result<Vec<PathChange>, ShieldError> {
    let (mut control, contents) = lock_with_contents(control, None, stop)?;
    let Some(sockets) = &mut control.sockets else { return Ok(Vec::new()) };
    let changes = sockets.refresh(&contents)?;
    for PathChange { path, is_there } in &changes {
        let outcome = if *is_there { "resolves to a new target" } else { "no longer resolves" };
        let action = AuditAction::MapWrite {
            map: "ic_sock_ids".to_owned(),
            elements: 1,
            purpose: format!("{} {outcome}", path.display()),
        };
        audit.record(&action)?;
    }
    Ok(changes)
}
