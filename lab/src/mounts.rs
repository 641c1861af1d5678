use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::error::LabError;

/// A private mount namespace. It ends with the closure and the processes that the closure started.
#[derive(Debug)]
pub struct Mounts(());

impl Mounts {
    /// Runs a closure on a thread in a new mount namespace. Threads and processes that the closure starts are
    /// in it, too.
    ///
    /// # Errors
    /// [`LabError`] where the kernel refuses.
    ///
    /// # Panics
    /// With the closure's panic.
    pub fn apart<T: Send>(work: impl FnOnce(&Self) -> T + Send) -> Result<T, LabError> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNS).map_err(failed("creating a mount namespace"))?;
                let (nothing, flags) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
                mount(nothing, "/", nothing, flags, nothing)
                    .map_err(failed("making mounts private"))?;
                Ok(work(&Self(())))
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Mounts an empty tmpfs.
    ///
    /// # Errors
    /// [`LabError`] where the kernel refuses.
    pub fn tmpfs(&self, at: &Path) -> Result<(), LabError> {
        self.mount("tmpfs", at, "")
    }

    /// Mounts a directory over another one.
    ///
    /// # Errors
    /// [`LabError`] where the kernel refuses.
    pub fn bind(&self, from: &Path, at: &Path) -> Result<(), LabError> {
        let nothing = None::<&str>;
        mount(Some(from), at, nothing, MsFlags::MS_BIND, nothing)
            .map_err(failed("mounting a directory"))
    }

    /// Mounts an overlayfs of `lower` and `upper`. `work` is empty and on the file system of `upper`.
    ///
    /// # Errors
    /// [`LabError`] where the kernel refuses, or has no overlayfs.
    pub fn overlay(
        &self,
        lower: &Path,
        upper: &Path,
        work: &Path,
        at: &Path,
    ) -> Result<(), LabError> {
        let (lower, upper, work) = (lower.display(), upper.display(), work.display());
        self.mount("overlay", at, &format!("lowerdir={lower},upperdir={upper},workdir={work}"))
    }

    /// Mounts cgroups in a new cgroup namespace, whose root is the cgroup of this process.
    ///
    /// # Errors
    /// [`LabError`] where the kernel refuses.
    pub fn cgroups(&self, at: &Path) -> Result<(), LabError> {
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(failed("creating a cgroup namespace"))?;
        mount(Some("cgroup2"), at, Some("cgroup2"), MsFlags::empty(), None::<&str>)
            .map_err(failed("mounting cgroups"))
    }

    fn mount(&self, kind: &str, at: &Path, options: &str) -> Result<(), LabError> {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options))
            .map_err(failed("mounting a file system"))
    }

    /// Unmounts a file system that is not in use.
    ///
    /// # Errors
    /// [`LabError`] where the kernel refuses.
    pub fn unmount(&self, at: &Path) -> Result<(), LabError> {
        umount2(at, MntFlags::empty()).map_err(failed("unmounting a file system"))
    }
}

fn failed(step: &'static str) -> impl FnOnce(nix::Error) -> LabError {
    move |e| LabError::System { step, source: e.into() }
}
