//! What is not a program, map or helper: switches, mounts, the process itself.
use std::io;

use super::btf::KernelBtf;
use super::feature::{Feature, State};
use super::helpers;
use super::load::{is_jited, load_program, security_modules};
use crate::capabilities::Capabilities;
use crate::pseudo_fs::{PROC, SECURITY, SYS};
use crate::uapi::{Helper, ProgramType};

pub(super) fn features(btf: Option<&KernelBtf>, capabilities: Capabilities) -> Vec<Feature> {
    let mounts = PROC.read_to_string("self/mountinfo").unwrap_or_default();
    vec![
        missing_capabilities(capabilities),
        kernel_types(btf),
        jit(),
        unprivileged(),
        memory_accounting(capabilities),
        lockdown(),
        security_module_list(),
        ftrace(),
        mounted("bpffs", "bpf", "/sys/fs/bpf", &mounts),
        mounted("tracefs", "tracefs", "/sys/kernel/tracing", &mounts),
        mounted("securityfs", "securityfs", "/sys/kernel/security", &mounts),
        mounted("cgroup2", "cgroup2", "/sys/fs/cgroup", &mounts),
    ]
}

fn missing_capabilities(capabilities: Capabilities) -> Feature {
    let missing = capabilities.missing_for_programs();
    if missing.is_empty() {
        return Feature::available("capabilities");
    }
    let why = format!("this process lacks {}: run as root or grant them", missing.join(", "));
    Feature::new("capabilities", State::Unavailable, why)
}

fn kernel_types(btf: Option<&KernelBtf>) -> Feature {
    let path = "/sys/kernel/btf/vmlinux";
    match btf {
        Some(_) if SYS.exists("kernel/btf/vmlinux").unwrap_or(false) => Feature::available("btf"),
        Some(_) => Feature::new("btf", State::Available, "from a file, not from the kernel itself"),
        None => Feature::new(
            "btf",
            State::Unavailable,
            format!(
                "{path} cannot be read: the kernel is built without CONFIG_DEBUG_INFO_BTF, or sysfs is not mounted"
            ),
        ),
    }
}

fn jit() -> Feature {
    let jited = load_program(ProgramType::SOCKET_FILTER, &super::load::RETURN_0)
        .and_then(|program| is_jited(&program));
    match jited {
        Ok(true) => Feature::available("jit"),
        Ok(false) => Feature::new(
            "jit",
            State::Unavailable,
            "programs are interpreted, many times slower: sysctl net.core.bpf_jit_enable=1",
        ),
        Err(e) => Feature::new("jit", State::Unknown, format!("no program could be loaded: {e}")),
    }
}

/// The value of a sysctl, by its path in procfs.
fn switch(path: &str) -> io::Result<i64> {
    let text = PROC.read_to_string(path)?;
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a number"))
}

fn unprivileged() -> Feature {
    let (name, path) = ("unprivileged_bpf_disabled", "sys/kernel/unprivileged_bpf_disabled");
    match switch(path) {
        Ok(0) => Feature::new(
            name,
            State::Unavailable,
            "any user may load programs: sysctl kernel.unprivileged_bpf_disabled=1",
        ),
        Ok(1) => Feature::new(name, State::Available, "until the next boot"),
        Ok(_) => Feature::new(name, State::Available, "root may switch it off"),
        Err(e) => Feature::new(name, State::Unknown, format!("/proc/{path}: {e}")),
    }
}

/// Accounting by cgroup came with Linux 5.11, as did this helper; libbpf judges by it, too.
fn memory_accounting(capabilities: Capabilities) -> Feature {
    let name = "memcg_accounting";
    let helper = Helper::KTIME_GET_COARSE_NS;
    let tried = helpers::one(ProgramType::SOCKET_FILTER, helper, None, capabilities);
    match tried.state {
        State::Available => Feature::available(name),
        State::Unavailable => {
            let why = "maps and programs count against RLIMIT_MEMLOCK (before Linux 5.11)";
            let why = match rustix::process::getrlimit(rustix::process::Resource::Memlock).current {
                None => format!("{why}, which is unlimited for this process"),
                Some(bytes) => {
                    format!("{why}, which is {bytes} bytes: raise it (`ulimit -l`, LimitMEMLOCK=)")
                }
            };
            Feature::new(name, State::Unavailable, why)
        }
        state => Feature { name: name.into(), state, reason: tried.reason },
    }
}

/// Whether lockdown(7) keeps programs from reading the kernel's memory.
pub(crate) fn is_confidential() -> bool {
    let mode = SECURITY.read_to_string("lockdown");
    mode.is_ok_and(|mode| mode.contains("[confidentiality]"))
}

fn lockdown() -> Feature {
    let (name, path) = ("lockdown_off", "/sys/kernel/security/lockdown");
    match SECURITY.read_to_string("lockdown") {
        Ok(text) => match text.split(['[', ']']).nth(1) {
            Some("none") => Feature::available(name),
            Some("integrity") => Feature::new(
                name,
                State::Available,
                "the kernel is locked down for integrity, which Ironclad does not mind",
            ),
            Some(level) => Feature::new(
                name,
                State::Unavailable,
                format!("the kernel is locked down ({level}): programs may not read its memory"),
            ),
            None => Feature::new(name, State::Unknown, format!("{path} reads `{}`", text.trim())),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Feature::new(name, State::Available, "the kernel has no lockdown")
        }
        Err(e) => Feature::new(name, State::Unknown, format!("{path}: {e}; {MOUNT_SECURITYFS}")),
    }
}

const LSM_LIST: &str = "/sys/kernel/security/lsm";
const MOUNT_SECURITYFS: &str = "mount it with: mount -t securityfs securityfs /sys/kernel/security";

/// Whether `bpf` is among the security modules that the kernel was started with.
fn security_module_list() -> Feature {
    const BPF: u64 = 108;
    let name = "lsm_list";
    let missing = |list: &str| {
        Feature::new(
            name,
            State::Unavailable,
            format!(
                "`bpf` is not among the active security modules ({list}): add it to lsm= on the kernel's command line"
            ),
        )
    };
    match SECURITY.read_to_string("lsm") {
        Ok(list) if list.trim().split(',').any(|it| it == "bpf") => {
            Feature::new(name, State::Available, list.trim())
        }
        Ok(list) => missing(list.trim()),
        Err(e) => match security_modules() {
            Ok(ids) if ids.contains(&BPF) => Feature::available(name),
            Ok(ids) => missing(&format!("{} other modules", ids.len())),
            Err(_) => {
                Feature::new(name, State::Unknown, format!("{LSM_LIST}: {e}; {MOUNT_SECURITYFS}"))
            }
        },
    }
}

/// What decides whether LSM programs run that load.
pub(super) fn lsm_features() -> [Feature; 2] {
    [security_module_list(), ftrace()]
}

/// Trampolines patch functions through ftrace.
fn ftrace() -> Feature {
    let (name, path) = ("ftrace_enabled", "sys/kernel/ftrace_enabled");
    match switch(path) {
        Ok(0) => Feature::new(
            name,
            State::Unavailable,
            "LSM and fentry programs do not run while it is off: sysctl kernel.ftrace_enabled=1",
        ),
        Ok(_) => Feature::available(name),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Feature::new(
            name,
            State::Unavailable,
            "the kernel is built without CONFIG_FUNCTION_TRACER",
        ),
        Err(e) => Feature::new(name, State::Unknown, format!("/proc/{path}: {e}")),
    }
}

fn mounted(name: &str, kind: &str, usual: &str, mounts: &str) -> Feature {
    let missing = || format!("not mounted: mount -t {kind} {kind} {usual}");
    if mounts.is_empty() {
        return Feature::new(name, State::Unknown, "/proc/self/mountinfo cannot be read");
    }
    match mount_point(kind, mounts) {
        Some(path) => Feature::new(name, State::Available, path),
        None => Feature::new(name, State::Unavailable, missing()),
    }
}

/// Where a file system of this kind is mounted, from lines such as
/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`.
fn mount_point<'a>(kind: &str, mounts: &'a str) -> Option<&'a str> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next() == Some(kind)).then(|| left.split(' ').nth(4))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_kind() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw\n\
                      40 31 0:38 / /sys/fs/cgroup/unified rw shared:7 - cgroup2 cgroup2 rw\n\
                      41 31 0:39 /a /mnt rw - cgroup cgroup rw,pids\n";
        assert_eq!(mount_point("cgroup2", mounts), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mount_point("cgroup", mounts), Some("/mnt"));
        assert_eq!(mount_point("bpf", mounts), None);
        assert_eq!(mounted("bpffs", "bpf", "/sys/fs/bpf", mounts).state, State::Unavailable);
        assert_eq!(mounted("bpffs", "bpf", "/sys/fs/bpf", "").state, State::Unknown);
    }
}
