use std::path::PathBuf;

use ironclad_bpf::BpfError;
use ironclad_core::audit::AuditError;

/// Why Sentinel could not do what it was asked. Whatever was in force before is in force still.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SentinelError {
    /// The kernel, or what is pinned, does not let it.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The action was done, or not begun, but its audit record was refused.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// This process has not got the rights that Sentinel takes.
    #[error(
        "Sentinel takes root of the host with CAP_SYS_ADMIN, and this process {why}: start it as root"
    )]
    NotPrivileged {
        /// What it is, or lacks.
        why: String,
    },
    /// An instance cannot be called so.
    #[error("`{name}` is no name for an instance: use 1 to 55 letters, digits, `-` and `_`")]
    Instance {
        /// What the builder was given.
        name: String,
    },
    /// This process has a Sentinel.
    #[error(
        "this process has a Sentinel already, and no more than one: `apply` changes its policy; another may be started once it is stopped or dropped"
    )]
    Already,
    /// Something refuses this process the programs that Sentinel is made of.
    #[error(
        "this process has the rights, and may not load programs ({program}) all the same: another program of BPF LSM refuses it, most likely that of another armed Sentinel: stop that one first, or be started as its agent is"
    )]
    Refused {
        /// Which, by their name in the probe.
        program: String,
    },
    /// Programs of BPF LSM, or those that enter functions, are refused, and others are not.
    #[error(
        "this kernel does not load what Sentinel is made of: {reason}; run it on a kernel, or in a machine, that lets programs of BPF LSM be loaded, and where no guard is armed that refuses these types alone (`cargo run --example probe` shows what this one does)"
    )]
    NoTrampolines {
        /// What the probe says.
        reason: String,
    },
    /// Somebody is to be known by a script.
    #[error(
        "{by}: `{}` is a script ({interpreter}): the kernel knows a process that runs it by the interpreter; name that, or make the script a program", path.display()
    )]
    Script {
        /// The rule, with its place in the policy file, or the builder's method.
        by: String,
        /// The file.
        path: PathBuf,
        /// Its first line, as far as the kernel reads it.
        interpreter: String,
    },
    /// Hooks are missing or do not answer.
    #[error(
        "{}: what they guard would be open; `.dangerous(|it| it.degraded(true))` starts all the same", what.join(", ")
    )]
    Degraded {
        /// Each hook, and what is wrong with it.
        what: Vec<String>,
    },
    /// An agent of this instance has been here, and this process is not taken for its successor.
    #[error(
        "this process is not trusted to take over what an earlier agent left (`{}` is closed to it): start it as the agent is always started, by the service manager and with nothing preloaded", state.display()
    )]
    NotTrusted {
        /// Where the agent's secret is.
        state: PathBuf,
    },
    /// An agent of this instance has been here, and the secret for its successor is not where it should be.
    #[error(
        "an agent of instance `{instance}` has left its pins, and `{}` has no secret to take over with: name the state directory that it had, `.state_dir(…)`; or stop the other Sentinel that is armed", state.display()
    )]
    NoSecret {
        /// Its name.
        instance: String,
        /// Where the secret was looked for.
        state: PathBuf,
    },
    /// Somebody else has loaded a program that could undo Sentinel.
    #[error(
        "program `{program}` (id {id}), {what}, was loaded before Sentinel and could undo it: {next}; `.foreign_programs(OnSuspect::Report)` starts all the same"
    )]
    Suspect {
        /// Its name.
        program: String,
        /// The kernel's id.
        id: u32,
        /// Its type, and where it is attached.
        what: String,
        /// What to do.
        next: String,
    },
    /// A path of a rule leads to nothing that can be guarded.
    #[error("{rule}: `{}` {what}", path.display())]
    Path {
        /// The rule, with its place in the policy file.
        rule: String,
        /// The path.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A pattern of a rule is none.
    #[error("{rule}: pattern `{pattern}`: {what}")]
    Pattern {
        /// The rule, with its place in the policy file.
        rule: String,
        /// The pattern.
        pattern: String,
        /// What is wrong.
        what: String,
    },
    /// The paths of rules lead elsewhere each time that they are looked at.
    #[error(
        "the files that rules name are being moved about faster than they can be guarded: end what does that, and try again"
    )]
    UnstablePaths,
    /// The baseline of guarded files could not be taken or kept.
    #[error(
        "the baseline of guarded files, `{}`: {source}: it is a file that this process reads and replaces, and whose damaged predecessor is kept beside it", path.display()
    )]
    Baseline {
        /// Where it is kept.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There are more files to guard than tables have room for.
    #[error("{what}: {needed} are needed, there is room for {room}: `.{setting}(…)` gives more")]
    Room {
        /// Of what.
        what: &'static str,
        /// How many.
        needed: usize,
        /// How many there may be.
        room: usize,
        /// The builder's method.
        setting: &'static str,
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
        source: Box<SentinelError>,
    },
    /// A break-glass token is not taken.
    #[cfg(feature = "signed")]
    #[error("the break-glass token is not taken: {0}")]
    Token(#[source] ironclad_policy::bundle::BundleError),
    /// Who names who signs policies lets no other process decide to uninstall.
    #[cfg(feature = "signed")]
    #[error(
        "`.signed(…)` names who may have it uninstalled, and nobody has: hand `break_glass` a token that permits `uninstall` first. It is in force still"
    )]
    NotPermitted,
    /// The kernel may end the agent when memory is used up.
    #[error(
        "/proc/self/oom_score_adj does not take -1000, so that the kernel may end the agent when somebody uses memory up: {0}; it takes CAP_SYS_RESOURCE, or `.dangerous(|it| it.oom_kill(true))` starts without"
    )]
    NoOomProtection(std::io::Error),
    /// A thread could not be started.
    #[error("a thread did not start: {0}")]
    Thread(std::io::Error),
}
