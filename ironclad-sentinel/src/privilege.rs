//! Checks of this process, before it loads anything.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use ironclad_bpf::probe::probe_refused;
use ironclad_bpf::pseudo_fs::PROC;
use ironclad_bpf::{BpfError, terminal_device};
use rustix::thread::{CapabilitySet, capabilities};

use crate::error::{Failure, SentinelError};

/// The process that has a Sentinel, by its id: a child of fork(2) has none. 0: none.
static HOLDER: AtomicU32 = AtomicU32::new(0);

/// The right to the one Sentinel of this process. Hooks of the first would refuse the calls that start a
/// second.
#[derive(Debug)]
pub(crate) struct Claim(());

impl Claim {
    pub(crate) fn take() -> Result<Self, SentinelError> {
        let own = std::process::id();
        match HOLDER.swap(own, Ordering::SeqCst) {
            holder if holder == own => Err(Failure::Already.into()),
            _ => Ok(Self(())),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        HOLDER.store(0, Ordering::SeqCst);
    }
}

/// Checks user, capabilities and user namespace.
pub(crate) fn check() -> Result<(), SentinelError> {
    let has = capabilities(None).map_or(CapabilitySet::all(), |sets| sets.effective);
    // A kernel without user namespaces has no such file.
    let users = match PROC.read_to_string("self/uid_map") {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|e| BpfError::system("reading /proc/self/uid_map", e))?,
    };
    let user = rustix::process::geteuid().as_raw();
    match lacking(has, user, &users) {
        Some(why) => Err(Failure::NotPrivileged { why }.into()),
        None => Ok(()),
    }
}

/// Checks that no process traces this one or PID 1: a tracer from before the start keeps its power over them, and PID
/// 1 may unmount file systems and move the agent.
pub(crate) fn check_tracers() -> Result<(), SentinelError> {
    for process in ["self", "1"] {
        let status = PROC
            .read_to_string(format!("{process}/status"))
            .map_err(|error| BpfError::system("reading the status of processes", error))?;
        if let Some(by) = tracer(&status) {
            let process = if process == "1" { "PID 1" } else { "this process" };
            return Err(Failure::Traced { process, by }.into());
        }
    }
    Ok(())
}

/// TracerPid of proc_pid_status(5).
fn tracer(status: &str) -> Option<u32> {
    let by = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    by.trim().parse().ok().filter(|by| *by != 0)
}

/// Checks that the kernel sends this process no signals of a terminal, and makes it the leader of a session: the
/// leader alone can give its session a terminal later (TIOCSCTTY).
pub(crate) fn leave_terminal() -> Result<(), SentinelError> {
    let failed = |error| BpfError::system("reading /proc/self/stat", error);
    let stat = PROC.read_to_string("self/stat").map_err(failed)?;
    match session(&stat) {
        Some((leader, 0)) if leader == std::process::id() as i32 => Ok(()),
        Some((_, 0)) => {
            // Refused to the leader of a process group.
            rustix::process::setsid().map_err(|_| Failure::Session)?;
            Ok(())
        }
        Some(_) => Err(Failure::Terminal.into()),
        None => Err(failed(io::ErrorKind::InvalidData.into()).into()),
    }
}

/// Of proc_pid_stat(5) the leader of the session, and tty_nr: the device number of the controlling terminal. 0: none.
fn session(stat: &str) -> Option<(i32, i32)> {
    // The name of the executable may contain blanks and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut numbers = fields.split_whitespace().skip(3).map(|field| field.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Majors of pseudo-terminals: `PTY_SLAVE_MAJOR` and `UNIX98_PTY_SLAVE_MAJOR` of include/uapi/linux/major.h. They have
/// no secure attention key.
fn is_pseudo(major: u32) -> bool {
    major == 3 || (136..144).contains(&major)
}

/// Checks that this process has no descriptor of a terminal whose secure attention key ends it.
pub(crate) fn check_descriptors() -> Result<(), SentinelError> {
    let failed = |error| BpfError::system("reading /proc/self/fd", error);
    for name in PROC.names("self/fd").map_err(failed)? {
        let Some(fd) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if terminal_device(fd).is_some_and(|(major, _)| !is_pseudo(major)) {
            let path = PROC.read_link(Path::new("self/fd").join(name)).map_err(failed)?;
            return Err(Failure::TerminalDescriptor { fd, path }.into());
        }
    }
    Ok(())
}

const CAD_PID: &str = "sys/kernel/cad_pid";

/// Whether the kernel sends SIGINT to this process at Ctrl-Alt-Delete. The sysctl may name any thread.
fn is_cad_pid() -> io::Result<bool> {
    match PROC.read_to_string(CAD_PID) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
        Ok(pid) => PROC.exists(format!("self/task/{}", pid.trim())),
    }
}

/// Has the kernel send SIGINT at Ctrl-Alt-Delete to PID 1, and not to this process. Called before the sysctl is
/// protected from all processes.
pub(crate) fn release_cad_pid() -> Result<(), SentinelError> {
    let released = is_cad_pid().and_then(|is_own| match is_own {
        true => PROC.write(CAD_PID, b"1"),
        false => Ok(()),
    });
    Ok(released.map_err(|e| BpfError::system("setting kernel.cad_pid to 1", e))?)
}

/// Checks that no other process has set it in between.
pub(crate) fn check_cad_pid() -> Result<(), SentinelError> {
    let checked = is_cad_pid().and_then(|is_own| match is_own {
        true => Err(io::Error::other("another process sets it to this process")),
        false => Ok(()),
    });
    Ok(checked.map_err(|e| BpfError::system("checking kernel.cad_pid", e))?)
}

/// Why a process with these capabilities, this user and this `uid_map` is not privileged.
fn lacking(has: CapabilitySet, user: u32, users: &str) -> Option<String> {
    // The map of the initial user namespace. Root of another one is not root of the host.
    let is_host = users.is_empty() || users.split_whitespace().eq(["0", "0", "4294967295"]);
    if !has.contains(CapabilitySet::SYS_ADMIN) {
        return Some(format!("of user {user} lacks it"));
    }
    (!is_host)
        .then(|| "is in a user namespace of its own, whose root is not root of the host".to_owned())
}

/// Checks that no program of BPF LSM refuses to load Sentinel's programs. Called after the secret of an
/// earlier agent has been presented.
pub(crate) fn may_load() -> Result<(), SentinelError> {
    probe_refused().map_or(Ok(()), |refused| Err(refusal(refused.name, refused.reason)))
}

/// The error for the first program that was refused.
fn refusal(program: String, reason: Option<String>) -> SentinelError {
    match program.as_str() {
        "tracepoint" => Failure::Refused { program }.into(),
        _ => Failure::NoTrampolines { reason: reason.unwrap_or(program) }.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::SentinelErrorKind;

    #[test]
    fn a_kernel_without_trampolines_is_not_another_sentinel() {
        // A kernel that forbids trampolines loads a tracepoint program. Another armed Sentinel does not.
        let all = refusal("tracepoint".to_owned(), Some("EPERM".to_owned()));
        assert_eq!(all.kind(), SentinelErrorKind::Refused);
        assert!(all.to_string().contains("(tracepoint)"), "{all}");
        for reason in [Some("lsm_load".to_owned()), None] {
            let lsm = refusal("lsm_load".to_owned(), reason);
            assert_eq!(lsm.kind(), SentinelErrorKind::NoTrampolines);
            assert!(lsm.to_string().contains("lsm_load"), "{lsm}");
        }
    }

    #[test]
    fn tracers_are_read() {
        assert_eq!(tracer("Name:\tx\nTracerPid:\t7\nUid:\t0\n"), Some(7));
        assert_eq!(tracer("Name:\tTracerPid: 7\nTracerPid:\t0\n"), None);
    }

    #[test]
    fn the_terminal_follows_the_name() {
        assert_eq!(session("7 (a) 1 2 3 (b) S 1 7 6 34816 7 4194304 0"), Some((6, 34816)));
        assert_eq!(session("7 (agent) S 1 7 7 0 -1 4194304 0"), Some((7, 0)));
        for bad in ["", "7 (agent) S 1 7", "7 agent S 1 7 7 0", "7 (agent) S 1 7 7 tty"] {
            assert_eq!(session(bad), None, "{bad}");
        }
    }

    #[test]
    fn missing_privileges_are_named() {
        const HOST: &str = "         0          0 4294967295\n";
        let root = CapabilitySet::all();
        assert_eq!(lacking(root, 0, HOST), None);
        assert_eq!(lacking(root, 0, ""), None);
        let of = |has, user, users| {
            let why = lacking(has, user, users).unwrap();
            SentinelError::from(Failure::NotPrivileged { why }).to_string()
        };
        let said = of(CapabilitySet::empty(), 1000, HOST);
        assert!(said.contains("this process of user 1000 lacks it (start it as root)"), "{said}");
        let said = of(root, 0, "0 1000 1\n");
        assert!(said.contains("is in a user namespace"), "{said}");
    }

    #[test]
    fn a_process_has_at_most_one_sentinel() {
        let first = Claim::take().unwrap();
        let said = Claim::take().unwrap_err().to_string();
        assert!(said.contains("`apply` changes its policy"), "{said}");
        assert_eq!(Claim::take().unwrap_err().kind(), SentinelErrorKind::Already);
        drop(first);
        drop(Claim::take().unwrap());
    }
}
