use std::path::PathBuf;
use std::time::Duration;

use ironclad_bpf::BpfError;
use ironclad_core::audit::AuditError;

/// Why Shield could not do what it was asked. Whatever was in force before is in force still.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShieldError {
    /// The kernel, or what is pinned, does not let it.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The action was done, or not begun, but its audit record was refused.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The policy does not fit this host.
    #[error(transparent)]
    Policy(#[from] ironclad_policy::PolicyError),
    /// A provisional policy waits for its confirmation.
    #[error("a provisional policy is in force for another {left:?}: confirm or revert it first")]
    ProvisionalPending {
        /// How long until the previous policy returns by itself.
        left: Duration,
    },
    /// There is nothing to confirm or to revert.
    #[error("no provisional policy is in force")]
    NotProvisional,
    /// The deadline has passed: the previous policy is in force again.
    #[error("the provisional policy expired: the previous one is in force again; apply it anew")]
    Expired,
    /// A provisional policy was asked for with no time, or with more than the kernel's clock holds.
    #[error("a deadline of {0:?} is none: give between 1 ms and 365 days")]
    Deadline(Duration),
    /// Shield was asked to start on no interface and no cgroup.
    #[error(
        "nothing to protect: name an interface with `.interface(…)` or a cgroup with `.cgroup(…)`"
    )]
    NoInterface,
    /// An interface that is to be protected no longer is not protected.
    #[error(
        "interface `{interface}` of this network namespace is not protected; {}",
        protected(interfaces)
    )]
    NotProtected {
        /// The name that was given.
        interface: String,
        /// Those that are protected, in all network namespaces.
        interfaces: Vec<String>,
    },
    /// Something has no room left that outlives policies.
    #[error("{needed} {what} need room, of which the instance has {places}: let rules share them")]
    Slots {
        /// What.
        what: &'static str,
        /// How many are in force or about to be.
        needed: usize,
        /// How many places there are.
        places: usize,
    },
    /// Socket rules, or a cgroup for them, in a Shield that was started without any.
    #[error("no cgroup asks for socket rules: name one with `.cgroup(…)` when Shield is built")]
    NoCgroup,
    /// The kernel calls no hook of that cgroup any more: its socket rules would decide nothing.
    #[error("socket rules would be off in {}: {why}", path.display())]
    Inactive {
        /// Its directory.
        path: PathBuf,
        /// Since when, and what to do.
        why: &'static str,
    },
    /// A process to explain is not there.
    #[error("no process {pid}: {source}")]
    NoProcess {
        /// Its number.
        pid: u32,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A file to explain by is not there.
    #[error("no file {}", path.display())]
    NoFile {
        /// Its path.
        path: PathBuf,
    },
    /// A socket rule names a script.
    #[error(
        "{rule}: {} is a script ({interpreter}): the kernel knows a process that runs it by the interpreter; name that, or make the script a program", path.display()
    )]
    Script {
        /// The first rule that names it, with its place in the policy file.
        rule: String,
        /// The file.
        path: PathBuf,
        /// Its first line, as far as the kernel reads it.
        interpreter: String,
    },
    /// Directories on the ways of paths that rules name could not be watched.
    #[error("{0}: see fs.inotify.max_user_watches; until then call `refresh_paths`")]
    Watch(std::io::Error),
    /// A rule names a container by what several cgroups are called.
    #[error(
        "{rule}: container `{id}` may be any of {}: write more of its id, or name its cgroup by `cgroup`", found.join(", ")
    )]
    Container {
        /// The first rule that names it, with its place in the policy file.
        rule: String,
        /// The id, as the rule has it.
        id: String,
        /// The cgroups.
        found: Vec<String>,
    },
    /// The policy decides of packet sockets, which only BPF LSM sees, and that does not run or cannot
    /// do it.
    #[error(
        "packet sockets would go unseen, but {asked_by} decides of them: {why}. Repair that; or name other protocols in each rule of direction `create` and let its default pass; or say in the policy that they may be unseen (`danger-packet-sockets-unseen: true`)"
    )]
    PacketSockets {
        /// The rule, or the default.
        asked_by: String,
        /// Why not, and what to do.
        why: String,
    },
    /// An unsigned policy, where signed bundles alone are taken.
    #[error(
        "an unsigned policy is not taken, for `.signed(…)` names who signs them: hand a bundle and its signatures to `{instead}`"
    )]
    Unsigned {
        /// The method.
        instead: &'static str,
    },
    /// Something signed, where nobody is trusted to sign.
    #[cfg(feature = "signed")]
    #[error("nobody is trusted to sign: name a trust store with `.signed(…)` when it is built")]
    NoTrust,
    /// A bundle is not taken.
    #[cfg(feature = "signed")]
    #[error("the bundle is not taken: {0}")]
    Bundle(#[source] ironclad_policy::bundle::BundleError),
    /// A bundle was verified and its serial is kept, but its policy did not come into force.
    #[cfg(feature = "signed")]
    #[error(
        "bundle {serial} was verified, and none before it is taken any more, but its policy did not come into force: {source}. What was in force is so still: mend that and hand over the same bundle again, or a later one"
    )]
    NotApplied {
        /// Its serial.
        serial: u64,
        /// Why not.
        source: Box<ShieldError>,
    },
    /// A thread could not be started.
    #[error("a thread did not start: {0}")]
    Thread(std::io::Error),
}

fn protected(interfaces: &[String]) -> String {
    match interfaces {
        [] => "no interface is".to_owned(),
        interfaces => format!("protected: `{}`", interfaces.join("`, `")),
    }
}
