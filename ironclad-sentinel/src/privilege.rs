//! What this process is, before anything is asked of the kernel.

use std::sync::atomic::{AtomicU32, Ordering};

use ironclad_bpf::probe::probe_refused;
use rustix::thread::{CapabilitySet, capabilities};

use crate::error::SentinelError;

/// The process that has a Sentinel: a child of fork(2) is another. 0: none.
static HOLDER: AtomicU32 = AtomicU32::new(0);

/// Held by the one Sentinel that a process has: hooks know whom they guard by one process alone, and
/// would refuse what the second tries.
#[derive(Debug)]
pub(crate) struct Claim(());

impl Claim {
    pub(crate) fn take() -> Result<Self, SentinelError> {
        let own = std::process::id();
        match HOLDER.swap(own, Ordering::SeqCst) {
            holder if holder == own => Err(SentinelError::Already),
            _ => Ok(Self(())),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        HOLDER.store(0, Ordering::SeqCst);
    }
}

/// Whether this process has the rights, as far as that can be seen without asking for anything.
pub(crate) fn check() -> Result<(), SentinelError> {
    let has = capabilities(None).map_or(CapabilitySet::all(), |sets| sets.effective);
    let users = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let user = rustix::process::geteuid().as_raw();
    match lacking(has, user, &users) {
        Some(why) => Err(SentinelError::NotPrivileged { why }),
        None => Ok(()),
    }
}

/// What is wrong with a process that has these capabilities, this user and this map of users.
fn lacking(has: CapabilitySet, user: u32, users: &str) -> Option<String> {
    // That of the initial namespace, which root elsewhere is not root of.
    let is_host = users.is_empty() || users.split_whitespace().eq(["0", "0", "4294967295"]);
    if !has.contains(CapabilitySet::SYS_ADMIN) {
        return Some(format!("of user {user} lacks it"));
    }
    (!is_host).then(|| "is in a user namespace of its own, where root is not the host's".to_owned())
}

/// Whether another program of BPF LSM lets this process load what Sentinel is made of. Asked once an
/// earlier agent's secret has been presented.
pub(crate) fn may_load() -> Result<(), SentinelError> {
    probe_refused().map_or(Ok(()), |refused| Err(judge(refused.name, refused.reason)))
}

/// By the first program that was refused.
fn judge(program: String, reason: Option<String>) -> SentinelError {
    match program.as_str() {
        "tracepoint" => SentinelError::Refused { program },
        _ => SentinelError::NoTrampolines { reason: reason.unwrap_or(program) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_refuses_trampolines_alone_is_another() {
        // A kernel that forbids trampolines loads it, and a guard that lets programs be loaded does not.
        let all = judge("tracepoint".to_owned(), Some("EPERM".to_owned()));
        assert!(matches!(&all, SentinelError::Refused { program } if program == "tracepoint"));
        for reason in [Some("lsm_load".to_owned()), None] {
            let lsm = judge("lsm_load".to_owned(), reason);
            assert!(matches!(&lsm, SentinelError::NoTrampolines { .. }));
            assert!(lsm.to_string().contains("lsm_load"), "{lsm}");
        }
    }

    #[test]
    fn rights_are_looked_at_first() {
        const HOST: &str = "         0          0 4294967295\n";
        let root = CapabilitySet::all();
        assert_eq!(lacking(root, 0, HOST), None);
        assert_eq!(lacking(root, 0, ""), None);
        let of = |has, user, users| {
            let why = lacking(has, user, users).unwrap();
            SentinelError::NotPrivileged { why }.to_string()
        };
        let said = of(CapabilitySet::empty(), 1000, HOST);
        assert!(said.contains("this process of user 1000 lacks it: start it as root"), "{said}");
        let said = of(root, 0, "0 1000 1\n");
        assert!(said.contains("is in a user namespace"), "{said}");
    }

    #[test]
    fn a_process_has_one() {
        let first = Claim::take().unwrap();
        let said = Claim::take().unwrap_err().to_string();
        assert!(said.contains("`apply` changes its policy"), "{said}");
        assert!(matches!(Claim::take(), Err(SentinelError::Already)));
        drop(first);
        drop(Claim::take().unwrap());
    }
}
