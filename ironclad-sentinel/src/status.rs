use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ironclad_bpf::probe::{Feature, State, probe_system};
use ironclad_bpf::pseudo_fs::SECURITY;
use ironclad_core::abi::Loss;
use ironclad_policy::Provenance;
use serde::Serialize;

use crate::baseline::{BaselineReport, Compared};
use crate::inventory::{Foreign, named};
use crate::preopened::{HeldFile, PreopenedDescriptor};
use crate::volumes::{MountOver, VolumeStatus};

/// The state of a Sentinel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The instance.
    pub instance: String,
    /// What is wrong with hooks, file systems and the agent. `missing`, `preopened`, `held`, `losses` and `alarms_lost`
    /// are not part of it.
    pub degraded: Vec<Degraded>,
    /// The kernel and its features.
    pub kernel: KernelStatus,
    /// Whether Sentinel is armed: hooks refuse.
    pub is_armed: bool,
    /// Each hook of the kernel that Sentinel uses.
    pub hooks: Vec<HookStatus>,
    /// The id of the policy in force, in hexadecimal.
    pub policy: String,
    /// Whether the policy came in a signed bundle.
    pub provenance: Provenance,
    /// How much longer a break-glass token allows signals to the agent.
    pub open_for: Option<Duration>,
    /// The number of labelled files and directories.
    pub labels: usize,
    /// File systems that have protected files.
    pub volumes: Vec<VolumeStatus>,
    /// Files that changed while Sentinel was stopped, if there is a baseline.
    pub baseline: Option<BaselineReport>,
    /// Paths of rules and of the builder that do not exist, or cover less than it may seem.
    pub missing: Vec<Missing>,
    /// Pre-opened descriptors: writable descriptors of files that a rule denies to write.
    pub preopened: Vec<PreopenedDescriptor>,
    /// Files that a rule denies to write, and devices below them, that are open otherwise: by a descriptor in flight,
    /// io_uring, a loop device, an overlay, acct(2) or a shared mapping.
    pub held: Vec<HeldFile>,
    /// Programs that other processes had loaded when Sentinel was armed.
    pub foreign: Foreign,
    /// Alarms that found no room in the ring buffer.
    pub alarms_lost: u64,
    /// Losses of the programs, those that occurred.
    pub losses: Vec<LossCount>,
}

/// Entries that found no room in a table of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LossCount {
    /// What was lost.
    pub loss: Loss,
    /// How often.
    pub count: u64,
}

/// A path that does not exist, or covers less than it may seem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Missing {
    /// The path or the pattern; of a directory that a pattern matches, the directory.
    pub path: PathBuf,
    /// The rule that names it, with its position in the policy file, or the method of the builder.
    pub by: String,
    /// What Sentinel does about it.
    pub kind: MissingKind,
}

/// What Sentinel does about a path that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MissingKind {
    /// There is no such file: its name is covered, and so is a file that is created there.
    File,
    /// The pattern matches nothing: the next `apply` or `refresh` covers files that match it then.
    Pattern,
    /// The pattern matches this directory: the directory is covered, its content is not.
    Directory,
    /// The path or the pattern leads into this mount point, where a process or another host serves the files: nothing is
    /// looked up there, and nothing covered.
    Served,
    /// There is no such executable: the next `apply` or `refresh` exempts one that exists then.
    Executable,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, by, kind } = self;
        let what = match kind {
            MissingKind::File => "does not exist: its name is covered",
            MissingKind::Pattern => "matches nothing: it covers nothing until the next refresh",
            MissingKind::Directory => {
                "is a directory that a pattern matches: its content is not covered"
            }
            MissingKind::Served => {
                "has files that a process or another host serves: what the rule names there is not covered"
            }
            MissingKind::Executable => {
                "does not exist: it is exempt from nothing until the next refresh"
            }
        };
        write!(f, "{by}: `{}` {what}", path.display())
    }
}

/// Why Sentinel protects less than its policy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Degraded {
    /// A hook is missing or inactive, or its self-test does not reach it.
    Hook {
        /// Its name.
        hook: String,
        /// What is wrong.
        why: String,
    },
    /// A file system that is not supported is mounted below a protected directory.
    Volume {
        /// The mount point.
        at: PathBuf,
        /// Why not.
        why: String,
    },
    /// The kernel lacks a feature, or has it switched off, without which it does not call hooks.
    Kernel {
        /// The feature, by its name in the probe.
        feature: String,
        /// What is wrong.
        why: String,
    },
    /// Another process has loaded a program that could bypass Sentinel: see [`Foreign`].
    Suspect {
        /// The program's id.
        program: u32,
        /// Its name; empty where this process may not inspect it.
        name: String,
    },
    /// The baseline is damaged or incomplete.
    Baseline {
        /// What is wrong.
        why: String,
    },
    /// The bundle in force has expired: its policy stays in force until another is applied.
    Bundle {
        /// Its serial.
        serial: u64,
        /// When, seconds since 1970 UTC.
        expired: u64,
    },
    /// A mount appeared over protected files: the rules do not cover what is there now. Unmount it, or apply the policy
    /// to accept it.
    MountOver(MountOver),
    /// Protected files are on a tmpfs while there is swap: a process that may switch swap on may change what the kernel
    /// has written there. Switch swap off, or mount the tmpfs with `noswap`.
    Swap {
        /// The mount point.
        at: PathBuf,
    },
    /// The last run of the watch thread failed.
    Watch {
        /// The error.
        why: String,
    },
}

impl fmt::Display for Degraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hook { hook, why } => write!(f, "hook {hook}: {why}"),
            Self::Volume { at, why } => write!(f, "the file system at {} {why}", at.display()),
            Self::Kernel { feature, why } => write!(f, "{feature}: {why}"),
            Self::Suspect { program, name } => {
                let name = named(name);
                write!(f, "{name} (id {program}) was loaded before Sentinel and could bypass it")
            }
            Self::Baseline { why } => write!(f, "baseline: {why}"),
            Self::Bundle { serial, expired } => {
                write!(f, "bundle {serial} expired at {expired} and is in force: apply a later one")
            }
            Self::MountOver(mount) => mount.fmt(f),
            Self::Swap { at } => write!(f, "{}", Swapped(at)),
            Self::Watch { why } => write!(f, "testing hooks and comparing files: {why}"),
        }
    }
}

/// Says that a tmpfs with protected files may be swapped out.
pub(crate) struct Swapped<'a>(pub(crate) &'a Path);

impl fmt::Display for Swapped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.0.display();
        write!(
            f,
            "there is swap, through which protected files on the tmpfs at {at} can be changed"
        )
    }
}

impl Status {
    /// Fills `degraded` from the other fields.
    pub(crate) fn find_degraded(&mut self) {
        let hooks = self.hooks.iter().filter(|hook| {
            matches!(
                hook.state,
                HookState::Inactive(_)
                    | HookState::RefusedElsewhere(_)
                    | HookState::Missing { is_optional: false }
            )
        });
        let hooks = hooks
            .map(|it| Degraded::Hook { hook: it.name.clone(), why: it.state.to_string() })
            .collect::<Vec<_>>();
        let volumes = self.volumes.iter().filter_map(|it| {
            it.refused.clone().map(|why| Degraded::Volume { at: it.at.clone(), why })
        });
        let swapped = self.volumes.iter().filter(|it| it.is_swapped);
        let swapped = swapped.map(|it| Degraded::Swap { at: it.at.clone() });
        let needed = ["lsm_list", "ftrace_enabled"];
        let features = self.kernel.features.iter();
        let features = features.filter(|it| needed.contains(&it.name.as_str()));
        let features = features.filter(|it| it.state == State::Unavailable).map(|it| {
            let (feature, why) = (it.name.clone(), it.reason.clone().unwrap_or_default());
            Degraded::Kernel { feature, why }
        });
        let suspects = self.foreign.suspects().map(|it| (it.program.id, it.program.name.clone()));
        let closed = self.foreign.closed.iter().map(|id| (*id, String::new()));
        let suspects = suspects.chain(closed);
        let suspects = suspects.map(|(program, name)| Degraded::Suspect { program, name });
        let baseline = self.baseline.iter().filter_map(|it| match &it.compared {
            Compared::Damaged(why) => Some(format!("it differs from what was written: {why}")),
            _ if it.is_cut => Some("there are more files than its limit".to_owned()),
            _ => it.unwritten.clone(),
        });
        let baseline = baseline.map(|why| Degraded::Baseline { why });
        let bundle = match self.provenance {
            Provenance::Bundle { serial, expires } if expires <= now() => {
                Some(Degraded::Bundle { serial, expired: expires })
            }
            _ => None,
        };
        let found = hooks.into_iter().chain(volumes).chain(swapped).chain(features).chain(suspects);
        let found: Vec<_> = found.chain(baseline).chain(bundle).collect();
        self.degraded.extend(found);
    }
}

/// Seconds since 1970 UTC.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// A kernel and its features.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KernelStatus {
    /// Its release, as `uname -r` prints it.
    pub release: String,
    /// The architecture, as `uname -m` prints it.
    pub machine: String,
    /// The active security modules, in their order; empty where securityfs is not mounted.
    pub security_modules: Vec<String>,
    /// Switches, mounts and capabilities, each with the reason if it is not available.
    pub features: Vec<Feature>,
}

impl KernelStatus {
    pub(crate) fn read() -> Self {
        let uname = rustix::system::uname();
        let modules = SECURITY.read_to_string("lsm").unwrap_or_default();
        Self {
            release: uname.release().to_string_lossy().into_owned(),
            machine: uname.machine().to_string_lossy().into_owned(),
            security_modules: modules
                .trim()
                .split(',')
                .filter(|it| !it.is_empty())
                .map(str::to_owned)
                .collect(),
            features: probe_system(),
        }
    }
}

/// A hook of BPF LSM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HookStatus {
    /// The kernel's name.
    pub name: String,
    /// Its state.
    pub state: HookState,
    /// When the hook last passed its self-test: `CLOCK_BOOTTIME`, nanoseconds. None if it has no self-test, or
    /// never passed.
    pub answered_ns: Option<u64>,
    /// Why the hook was not tested by the last self-test: the kernel's settings, such as `kernel.modules_disabled`,
    /// refuse the call before it calls the hook. None if the hook was tested, or never is.
    pub not_tested: Option<String>,
}

/// The state of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HookState {
    /// The hook passed its last self-test: it refused a call that Sentinel made to be refused.
    InForce,
    /// The program is attached. There is no harmless call to test it by.
    Attached,
    /// The program is attached, and the hook failed its last self-test: the kernel does not call it.
    Inactive(String),
    /// The program is attached, and its self-test does not reach it: another security module or a setting refuses
    /// the agent's call before, with this error.
    RefusedElsewhere(String),
    /// This kernel lacks the hook.
    Missing {
        /// Whether nothing is missing: another hook does its work there, or the kernel lacks the operation.
        is_optional: bool,
    },
}

impl fmt::Display for HookState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InForce => f.write_str("in force"),
            Self::Attached => f.write_str("attached"),
            Self::Inactive(why) => write!(f, "inactive: {why}"),
            Self::RefusedElsewhere(why) => {
                write!(
                    f,
                    "not tested: another security module or a setting refuses the call: {why}"
                )
            }
            Self::Missing { is_optional: true } => f.write_str("not of this kernel"),
            Self::Missing { is_optional: false } => f.write_str("missing"),
        }
    }
}
