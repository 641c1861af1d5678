use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::LabError;

const PREFIX: &str = "iclab-";

/// A cgroup of version 2 of the test's own. Dropping it ends its processes and removes it.
#[derive(Debug)]
pub struct Cgroup {
    dir: PathBuf,
    /// From the root of the hierarchy.
    path: String,
}

impl Cgroup {
    /// Creates a cgroup below the root. Removes cgroups of dead processes.
    ///
    /// # Errors
    /// [`LabError`] where no hierarchy of version 2 is mounted, or the kernel refuses.
    pub fn new(name: &str) -> Result<Self, LabError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let failed = |step| move |source| LabError::System { step, source };
        let mounts = fs::read_to_string("/proc/mounts").map_err(failed("reading /proc/mounts"))?;
        let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let root = mount
            .filter(|fields| fields.get(2) == Some(&"cgroup2"))
            .find_map(|fields| fields.get(1).map(PathBuf::from))
            .ok_or_else(|| failed("finding the cgroups")(std::io::ErrorKind::NotFound.into()))?;
        for entry in fs::read_dir(&root).map_err(failed("reading the cgroups"))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                // Another lab may remove it at the same time.
                remove(&entry.path());
            }
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = format!("/{PREFIX}{}-{number}-{name}", std::process::id());
        Self::make(&root, path)
    }

    fn make(parent: &Path, path: String) -> Result<Self, LabError> {
        let dir = parent.join(path.rsplit('/').next().unwrap_or(&path));
        let made = fs::create_dir(&dir);
        made.map_err(|source| LabError::System { step: "creating a cgroup", source })?;
        Ok(Self { dir, path })
    }

    /// Creates a child of this cgroup.
    ///
    /// # Errors
    /// [`LabError`] where the kernel refuses.
    pub fn child(&self, name: &str) -> Result<Self, LabError> {
        Self::make(&self.dir, format!("{}/{name}", self.path))
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its path from the root of the hierarchy, like `/a/b`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A command that runs in the cgroup from its first instruction on: a shell joins the cgroup, and executes
    /// the program.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"echo 0 > "$0" && exec "$@""#]);
        command.arg(self.dir.join("cgroup.procs")).arg(program);
        command
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

/// Removes a cgroup and its descendants, and ends the processes in them.
fn remove(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    // A cgroup is busy until its last process has ended.
    for _ in 0..1000 {
        let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines() {
            let _ = Command::new("kill").args(["-KILL", pid]).output();
        }
        match fs::remove_dir(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => std::thread::yield_now(),
            _ => return,
        }
    }
}
