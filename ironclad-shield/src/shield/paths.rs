//! Keeps the files and cgroups that socket rules name up to date.
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use ironclad_core::audit::{AuditAction, AuditSink};
use ironclad_policy::socket::CompiledSockets;

use super::{Control, Shield, lock};
use crate::error::ShieldError;
use crate::sockets::contents::{self, Contents, Look};
use crate::sockets::follow::Follow;
use crate::sockets::{PathChange, Sockets};

/// What the thread that follows paths has of a Shield.
pub(super) struct Followed {
    pub(super) instance: String,
    pub(super) audit: Arc<dyn AuditSink>,
    pub(super) control: Arc<Mutex<Control>>,
}

impl Follow for Followed {
    fn paths(&mut self) -> Result<Vec<PathBuf>, ShieldError> {
        lock(&self.control).sockets.as_ref().map_or(Ok(Vec::new()), Sockets::paths)
    }

    fn refresh(&mut self, stop: &AtomicBool) -> Result<(), ShieldError> {
        refresh(&self.instance, &*self.audit, &self.control, stop).map(drop)
    }
}

impl Shield {
    /// Looks where the files and cgroups that rules name are by now, and lets the rules mean
    /// those. A thread does it within moments of each change, unless
    /// [`follow_paths`](ShieldBuilder::follow_paths) was turned off.
    ///
    /// A process that executed a file before its path led elsewhere keeps what rules say of it.
    ///
    /// # Errors
    /// [`ShieldError::Bpf`] where the kernel refuses; [`ShieldError::Audit`].
    pub fn refresh_paths(&self) -> Result<Vec<PathChange>, ShieldError> {
        refresh(&self.instance, &*self.audit, &self.control, &AtomicBool::new(false))
    }
}

/// Takes the lock with what the files contain that a policy has pinned; where it is none, those that
/// the policies in the kernel have. They are read without the lock.
pub(super) fn lock_with_contents<'a>(
    control: &'a Mutex<Control>,
    policy: Option<&CompiledSockets>,
    stop: &AtomicBool,
) -> Result<(MutexGuard<'a, Control>, Contents), ShieldError> {
    /// Whoever changes files has them read no more often. One that was changed since is denied until
    /// the next look, which whoever follows paths takes at once.
    const READS: u32 = 2;
    let mut read = Contents::default();
    let mut left = READS;
    loop {
        let control = lock(control);
        let Some(sockets) = &control.sockets else { return Ok((control, read)) };
        let unread = match sockets.contents(policy, &read, left == 0)? {
            Look::Contents(contents) => return Ok((control, contents)),
            Look::Unread(paths) => paths,
        };
        let open_files = sockets.processes().open_files_handle();
        drop(control);
        contents::read(&open_files, &unread, stop, &mut read)?;
        left -= 1;
    }
}

/// Lets policies mean what paths lead to now.
fn refresh(
    instance: &str,
    audit: &dyn AuditSink,
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
        tracing::info!(instance, "{action}");
        audit.record(instance, &action)?;
    }
    Ok(changes)
}
