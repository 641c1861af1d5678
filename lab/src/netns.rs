use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::command::run;
use crate::error::LabError;

/// Where iproute2 keeps namespaces.
const NETNS: &str = "/run/netns";
/// Names are `iclab-<pid>-<number>-<name>`.
const PREFIX: &str = "iclab-";

/// Network namespaces of a test. Dropping it removes them with all that is in them.
#[derive(Debug)]
pub struct Lab {
    number: u32,
}

/// A network namespace with its loopback up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Lab {
    /// A lab without namespaces yet. Removes namespaces of dead processes.
    ///
    /// # Errors
    /// [`LabError`] where the directory of namespaces cannot be read or created.
    pub fn new() -> Result<Self, LabError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let failed = |step| move |source| LabError::System { step, source };
        std::fs::create_dir_all(NETNS).map_err(failed("creating /run/netns"))?;
        for entry in std::fs::read_dir(NETNS).map_err(failed("reading /run/netns"))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                // Another lab may remove it at the same time.
                let _ = run("ip", &["netns", "del", &name]);
            }
        }
        Ok(Self { number: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    /// Creates a namespace.
    ///
    /// # Errors
    /// [`LabError`] with the standard error of `ip`.
    pub fn namespace(&self, name: &str) -> Result<Namespace, LabError> {
        let name = format!("{PREFIX}{}-{}-{name}", std::process::id(), self.number);
        run("ip", &["netns", "add", &name])?;
        let this = Namespace { name };
        this.ip(&["link", "set", "lo", "up"])?;
        // IPv6 links are usable at once, without router solicitations in between.
        for (key, value) in [("default", "accept_dad=0"), ("default", "router_solicitations=0")] {
            let (name, value) = value.split_once('=').unwrap_or((value, ""));
            this.sysctl(&format!("net/ipv6/conf/{key}/{name}"), value)?;
        }
        Ok(this)
    }

    /// Connects two namespaces by a pair of virtual Ethernet interfaces, both up. Frames of
    /// [`packet`](crate::packet) go from the second to the first: their hardware addresses are these.
    ///
    /// # Errors
    /// [`LabError`] with the standard error of `ip`.
    pub fn veth(
        &self,
        (a, a_name): (&Namespace, &str),
        (b, b_name): (&Namespace, &str),
    ) -> Result<(), LabError> {
        a.ip(&["link", "add", a_name, "type", "veth", "peer", "name", b_name, "netns", &b.name])?;
        a.ip(&["link", "set", a_name, "address", "02:00:00:00:00:01", "up"])?;
        b.ip(&["link", "set", b_name, "address", "02:00:00:00:00:02", "up"])?;
        Ok(())
    }
}

impl Namespace {
    /// The name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        Path::new(NETNS).join(&self.name)
    }

    /// Runs `ip` in the namespace.
    ///
    /// # Errors
    /// [`LabError`] with the standard error of `ip`.
    pub fn ip(&self, args: &[&str]) -> Result<String, LabError> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend_from_slice(args);
        run("ip", &all)
    }

    /// Runs a command in the namespace.
    ///
    /// # Errors
    /// [`LabError`] with the standard error of the command.
    pub fn exec(&self, program: &str, args: &[&str]) -> Result<String, LabError> {
        let mut all = vec!["netns", "exec", self.name.as_str(), program];
        all.extend_from_slice(args);
        run("ip", &all)
    }

    /// Gives an interface an address with its prefix length, usable at once.
    ///
    /// # Errors
    /// [`LabError`] with the standard error of `ip`.
    pub fn address(&self, interface: &str, address: &str) -> Result<(), LabError> {
        let mut args = vec!["addr", "add", address, "dev", interface];
        if address.contains(':') {
            args.push("nodad");
        }
        self.ip(&args).map(drop)
    }

    /// Writes a file of `/proc/sys` as seen in the namespace.
    ///
    /// # Errors
    /// [`LabError`] where the kernel refuses.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<(), LabError> {
        self.run(|| std::fs::write(Path::new("/proc/sys").join(path), value))?
            .map_err(|source| LabError::System { step: "writing a sysctl", source })
    }

    /// Runs a closure on a thread in the namespace and waits for it. Sockets and attachments that it
    /// makes belong to the namespace for good, and threads that it starts do too.
    ///
    /// # Errors
    /// [`LabError`] where the namespace cannot be entered.
    ///
    /// # Panics
    /// With the closure's panic.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let path = self.path();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let failed = |source| LabError::System { step: "entering a namespace", source };
                let file = File::open(path).map_err(failed)?;
                setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|e| failed(e.into()))?;
                Ok(work())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Like [`run`](Self::run), with mounts of its own: `/sys` shows the namespace's interfaces and
    /// `/sys/fs/bpf` is empty. What the closure and its commands pin there ends with the closure.
    ///
    /// # Errors
    /// [`LabError`] where the namespace cannot be entered or a mount fails.
    ///
    /// # Panics
    /// With the closure's panic.
    pub fn run_apart<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        self.run(|| {
            let failed = |step| move |e: nix::Error| LabError::System { step, source: e.into() };
            unshare(CloneFlags::CLONE_NEWNS).map_err(failed("creating a mount namespace"))?;
            let nothing = None::<&str>;
            mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
                .map_err(failed("making mounts private"))?;
            for (kind, at) in [("sysfs", "/sys"), ("bpf", "/sys/fs/bpf")] {
                mount(Some(kind), at, Some(kind), MsFlags::empty(), nothing)
                    .map_err(failed("mounting sysfs and bpffs"))?;
            }
            Ok(work())
        })?
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run("ip", &["netns", "del", &self.name]) {
            eprintln!("{error}");
        }
    }
}
