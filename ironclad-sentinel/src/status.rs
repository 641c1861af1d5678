use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ironclad_bpf::probe::{Feature, State, probe_system};
use ironclad_core::abi::PreopenedDescriptor;
use ironclad_policy::Provenance;
use serde::Serialize;

use crate::baseline::{BaselineReport, Compared};
use crate::inventory::Foreign;
use crate::volumes::VolumeStatus;

/// What Sentinel is and does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The instance.
    pub instance: String,
    /// Why it guards less than it says. Empty: it does not.
    pub degraded: Vec<Degraded>,
    /// What this kernel is and can do.
    pub kernel: KernelStatus,
    /// Whether others are refused anything.
    pub is_armed: bool,
    /// Each hook of the kernel's that Sentinel knows.
    pub hooks: Vec<HookStatus>,
    /// The policy in force, in hexadecimal.
    pub policy: String,
    /// Whether somebody signed it.
    pub provenance: Provenance,
    /// For how long signals to the agent are let through, since a break-glass token said so.
    pub open_for: Option<Duration>,
    /// Files and directories that are known by what they are.
    pub labels: usize,
    /// File systems that files of rules lie on.
    pub volumes: Vec<VolumeStatus>,
    /// What changed of these files while Sentinel was away, where a baseline is kept.
    pub baseline: Option<BaselineReport>,
    /// What rules and the builder name and what leads to no file now, or covers less than it may seem.
    pub missing: Vec<Missing>,
    /// Who had files open for writing when rules came into force that deny that.
    pub preopened: Vec<PreopenedDescriptor>,
    /// What others had loaded when it was armed.
    pub foreign: Foreign,
    /// Alarms that found no room in the ring buffer.
    pub alarms_lost: u64,
}

/// Something that is named and leads to no file, or not to all that it seems to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Missing {
    /// The path or the pattern; of a directory that a pattern matches, the directory.
    pub path: PathBuf,
    /// Who names it: a rule with its place in the policy file, or a method of the builder.
    pub by: String,
    /// What becomes of it.
    pub kind: MissingKind,
}

/// What becomes of what is named and is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MissingKind {
    /// There is no such file: its name is covered, and so is what comes to be there.
    File,
    /// The pattern matches nothing: what comes to match it is covered by the next `apply` or `refresh`.
    Pattern,
    /// The pattern matches this directory: it is covered, and what is in it is not.
    Directory,
    /// There is no such executable: whoever comes to be there is exempt by the next `apply` or `refresh`.
    Executable,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, by, kind } = self;
        let what = match kind {
            MissingKind::File => "is not there: its name is covered",
            MissingKind::Pattern => "matches nothing: it covers nothing until the next refresh",
            MissingKind::Directory => {
                "is a directory that a pattern matches: what is in it is not covered"
            }
            MissingKind::Executable => "is not there: it is nobody until the next refresh",
        };
        write!(f, "{by}: `{}` {what}", path.display())
    }
}

/// Why Sentinel guards less than it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Degraded {
    /// A hook is missing, or silent.
    Hook {
        /// Its name.
        hook: String,
        /// What is wrong.
        why: String,
    },
    /// Files below a guarded directory lie on a file system whose files cannot be guarded.
    Volume {
        /// Where it is mounted.
        at: PathBuf,
        /// Why not.
        why: String,
    },
    /// Something of the kernel is missing or switched off without which hooks are not called.
    Kernel {
        /// What, by its name in the probe.
        feature: String,
        /// What is wrong.
        why: String,
    },
    /// Others have loaded a program that could undo it: see [`Foreign`].
    Suspect {
        /// The program's id.
        program: u32,
        /// Its name; empty where somebody refuses to show it.
        name: String,
    },
    /// The baseline is damaged, or says nothing of some files.
    Baseline {
        /// What is wrong.
        why: String,
    },
    /// The time of the bundle in force is over: its policy may be outdated, and stays until another comes.
    Bundle {
        /// Its number.
        serial: u64,
        /// When, seconds since 1970 UTC.
        expired: u64,
    },
    /// The thread that looks could not, the last time.
    Watch {
        /// What it met.
        why: String,
    },
}

impl fmt::Display for Degraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hook { hook, why } => write!(f, "hook {hook}: {why}"),
            Self::Volume { at, why } => write!(f, "what is mounted at {} {why}", at.display()),
            Self::Kernel { feature, why } => write!(f, "{feature}: {why}"),
            Self::Suspect { program, name } => {
                write!(f, "program `{name}` (id {program}) was loaded before, and could undo it")
            }
            Self::Baseline { why } => write!(f, "baseline: {why}"),
            Self::Bundle { serial, expired } => {
                write!(f, "bundle {serial} expired at {expired}, and is in force: take a later one")
            }
            Self::Watch { why } => write!(f, "looking at hooks and files: {why}"),
        }
    }
}

impl Status {
    /// All that is known, looked through.
    pub(crate) fn find_degraded(&mut self) {
        let hooks = self.hooks.iter().filter(|hook| {
            matches!(hook.state, HookState::Silent(_) | HookState::Missing { is_optional: false })
        });
        let hooks = hooks
            .map(|it| Degraded::Hook { hook: it.name.clone(), why: it.state.to_string() })
            .collect::<Vec<_>>();
        let volumes = self.volumes.iter().filter_map(|it| {
            it.refused.clone().map(|why| Degraded::Volume { at: it.at.clone(), why })
        });
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
            Compared::Damaged(why) => Some(format!("it was not as it was written: {why}")),
            _ if it.is_cut => Some("there are more files than it may have".to_owned()),
            _ => None,
        });
        let baseline = baseline.map(|why| Degraded::Baseline { why });
        let bundle = match self.provenance {
            Provenance::Bundle { serial, expires } if expires <= now() => {
                Some(Degraded::Bundle { serial, expired: expires })
            }
            _ => None,
        };
        let found = hooks.into_iter().chain(volumes).chain(features).chain(suspects);
        let found: Vec<_> = found.chain(baseline).chain(bundle).collect();
        self.degraded.extend(found);
    }
}

/// Seconds since 1970 UTC.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// What a kernel is and can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KernelStatus {
    /// Its release, as `uname -r` tells it.
    pub release: String,
    /// The architecture, as `uname -m` tells it.
    pub machine: String,
    /// The active security modules, in their order; empty where the kernel does not tell.
    pub security_modules: Vec<String>,
    /// Switches, mounts and rights, each with the reason where it is not available.
    pub features: Vec<Feature>,
}

impl KernelStatus {
    pub(crate) fn look() -> Self {
        let uname = rustix::system::uname();
        let modules = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
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
    /// What is known of it.
    pub state: HookState,
    /// When it refused last what it was told to refuse: `CLOCK_BOOTTIME`, nanoseconds. None where there
    /// is no harmless call to see it by, or it never did.
    pub answered_ns: Option<u64>,
}

/// What is known of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HookState {
    /// It refused a call that was made to be refused.
    InForce,
    /// The program is attached; there is no harmless call to see it by.
    Attached,
    /// The program is attached, and a call that it was to refuse went through.
    Silent(String),
    /// This kernel has none.
    Missing {
        /// Whether another hook does its work there, or there is none to do.
        is_optional: bool,
    },
}

impl fmt::Display for HookState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InForce => f.write_str("in force"),
            Self::Attached => f.write_str("attached"),
            Self::Silent(why) => write!(f, "silent: {why}"),
            Self::Missing { is_optional: true } => f.write_str("not of this kernel"),
            Self::Missing { is_optional: false } => f.write_str("missing"),
        }
    }
}
