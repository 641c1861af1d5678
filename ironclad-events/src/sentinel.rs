use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use ironclad_core::abi::{self, EventHeader, FileId, FileOp, SentinelHook, SentinelVerdict};
use ironclad_core::uapi::{BpfCommand, Helper, Ioctl, ProgramType, ResourceLimit, Signal};
use serde::Serialize;
use zerocopy::FromBytes;

use crate::decode::DecodeError;

/// `PTRACE_MODE_ATTACH` of include/linux/ptrace.h.
const PTRACE_MODE_ATTACH: u32 = 2;

/// An access that Sentinel denied or logged. Checked: every accessor has an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentinelEvent<'a> {
    raw: &'a abi::SentinelEvent,
    hook: SentinelHook,
    op: FileOp,
    verdict: SentinelVerdict,
}

impl<'a> SentinelEvent<'a> {
    pub(crate) fn decode(bytes: &'a [u8], head: &EventHeader) -> Result<Self, DecodeError> {
        let needed = size_of::<abi::SentinelEvent>();
        let field = |field, value: u64| DecodeError::Field { field, value };
        if usize::from(head.len) != needed {
            return Err(field("len", u64::from(head.len)));
        }
        let found = bytes.len();
        let bytes = bytes.get(..needed).ok_or(DecodeError::Short { needed, found })?;
        let raw = abi::SentinelEvent::ref_from_bytes(bytes).map_err(|_| DecodeError::Unaligned)?;
        let hook =
            SentinelHook::from_abi(raw.hook).ok_or_else(|| field("hook", u64::from(raw.hook)))?;
        let op = FileOp::from_abi(raw.op).ok_or_else(|| field("op", u64::from(raw.op)))?;
        let verdict = SentinelVerdict::from_abi(raw.verdict)
            .ok_or_else(|| field("verdict", u64::from(raw.verdict)))?;
        if usize::from(raw.path_len) > abi::SENTINEL_PATH {
            return Err(field("path_len", u64::from(raw.path_len)));
        }
        Ok(Self { raw, hook, op, verdict })
    }

    /// The event as the kernel wrote it.
    pub fn raw(&self) -> &'a abi::SentinelEvent {
        self.raw
    }

    /// Where it was seen.
    pub fn hook(&self) -> SentinelHook {
        self.hook
    }

    /// What became of it.
    pub fn verdict(&self) -> SentinelVerdict {
        self.verdict
    }

    /// What was to be done with a file; none where it was about no file.
    pub fn op(&self) -> Option<FileOp> {
        self.is_of_file().then_some(self.op)
    }

    fn is_of_file(&self) -> bool {
        self.raw.path_len != 0 || self.raw.file != FileId::NONE
    }

    /// The names from the file's root down to it, any bytes but NUL and `/`; empty where it was about
    /// no file, or the root itself.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a> {
        let path = &self.raw.path[..usize::from(self.raw.path_len)];
        path.split(|&byte| byte == 0).filter(|name| !name.is_empty()).rev()
    }

    /// The path within its file system, which is the path where that is not mounted elsewhere. It
    /// begins with `…` where directories are missing at its beginning.
    pub fn path(&self) -> Option<PathBuf> {
        if !self.is_of_file() {
            return None;
        }
        let mut path = Vec::from(if self.raw.path_cut == 0 { "" } else { "…" });
        for name in self.names() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Some(bytes_to_path(path))
    }

    /// The file rules that said so, by their places in the policy.
    pub fn rules(&self) -> impl Iterator<Item = usize> + use<> {
        let rules = self.raw.rules;
        (0..64).filter(move |rule| rules >> rule & 1 == 1)
    }

    /// The name that the thread gives itself: any bytes but NUL.
    pub fn comm(&self) -> &'a [u8] {
        let comm = &self.raw.comm;
        &comm[..comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len())]
    }
}

#[cfg(unix)]
fn bytes_to_path(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    OsString::from_vec(bytes).into()
}

#[cfg(not(unix))]
fn bytes_to_path(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// An access that Sentinel denied or logged, owned: for channels, logs and exports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SentinelRecord {
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub time_ns: u64,
    /// Where it was seen.
    pub hook: SentinelHook,
    /// What became of it.
    pub verdict: SentinelVerdict,
    /// What was to be done with a file; none where it was about no file.
    pub op: Option<FileOp>,
    /// File rules that said so, by their places in the policy; 56 and above are Sentinel's own.
    pub rules: Vec<usize>,
    /// The path within the file's file system; any bytes.
    pub path: Option<PathBuf>,
    /// The file; [`FileId::NONE`]: none, or not there yet.
    pub file: FileId,
    /// A process, an id of a map, program or link, or a program's type.
    pub target: u32,
    /// A command of bpf(2), a signal, attributes: by the hook.
    pub detail: u32,
    /// Process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The process that forked it.
    pub ppid: u32,
    /// Real user.
    pub uid: u32,
    /// Real group.
    pub gid: u32,
    /// What the process executes.
    pub exe: FileId,
    /// What its parent executed.
    pub parent: FileId,
    /// `CLOCK_BOOTTIME` of its execve(2), nanoseconds; 0 where that was not seen.
    pub exec_ns: u64,
    /// Its cgroup's id.
    pub cgroup: u64,
    /// The name that the thread gives itself.
    pub comm: String,
    /// Alarms that found no room before this one.
    pub lost: u64,
}

impl From<&SentinelEvent<'_>> for SentinelRecord {
    fn from(event: &SentinelEvent<'_>) -> Self {
        let raw = event.raw();
        Self {
            time_ns: raw.hdr.time_ns,
            hook: event.hook(),
            verdict: event.verdict(),
            op: event.op(),
            rules: event.rules().collect(),
            path: event.path(),
            file: raw.file,
            target: raw.target,
            detail: raw.detail,
            pid: raw.pid,
            tid: raw.tid,
            ppid: raw.ppid,
            uid: raw.uid,
            gid: raw.gid,
            exe: raw.exe,
            parent: raw.parent,
            exec_ns: raw.exec_ns,
            cgroup: raw.cgroup,
            comm: String::from_utf8_lossy(event.comm()).into_owned(),
            lost: raw.lost,
        }
    }
}

impl SentinelRecord {
    /// Links have ids; other commands are about a program, whose type is known.
    fn write_command(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = BpfCommand(self.detail);
        match command {
            BpfCommand::LINK_GET_FD_BY_ID => write!(f, " {command} of link {}", self.target),
            BpfCommand::LINK_UPDATE | BpfCommand::LINK_DETACH => {
                write!(f, " {command} by descriptor {}", self.target)
            }
            BpfCommand::PROG_QUERY => write!(f, " {command}"),
            _ => write!(f, " {command} of a {} program", ProgramType(self.target)),
        }
    }

    /// The kernel function that the program calls, of an alarm of [`SentinelHook::BpfProgLoad`]: its number in the
    /// kernel's BTF. None where the program calls a helper, or a function of a module.
    pub fn kfunc(&self) -> Option<u32> {
        let is_kfunc = self.detail & (abi::CALL_KFUNC | abi::CALL_MODULE) == abi::CALL_KFUNC;
        let is_call = self.hook == SentinelHook::BpfProgLoad;
        (is_call && is_kfunc).then_some(self.detail & !abi::CALL_KFUNC)
    }

    /// What the program calls, of an alarm of [`SentinelHook::BpfProgLoad`]. A kernel function is a number of the
    /// kernel's BTF.
    fn call(&self) -> String {
        let number = self.detail & !(abi::CALL_KFUNC | abi::CALL_MODULE);
        match self.detail {
            detail if detail & abi::CALL_MODULE != 0 => "a function of a module".to_owned(),
            detail if detail & abi::CALL_KFUNC != 0 => format!("kernel function #{number}"),
            abi::CALL_UNKNOWN => "what could not be read".to_owned(),
            helper => Helper(helper).to_string(),
        }
    }

    /// What [`detail`](Self::detail) stands for, where it is not part of the sentence.
    fn what(&self) -> Option<String> {
        let detail = self.detail;
        let is_attach = detail & PTRACE_MODE_ATTACH != 0;
        Some(match self.hook {
            SentinelHook::TaskKill | SentinelHook::FileSendSigiotask => Signal(detail).to_string(),
            SentinelHook::TaskSetrlimit => ResourceLimit(detail).to_string(),
            SentinelHook::PtraceAccessCheck if is_attach => "to trace or change it".to_owned(),
            SentinelHook::PtraceAccessCheck => "to read it".to_owned(),
            SentinelHook::FileIoctl | SentinelHook::FileIoctlCompat if self.target == 0 => {
                Ioctl(detail).to_string()
            }
            SentinelHook::UringCmd => format!("io_uring command {detail:#x}"),
            SentinelHook::CgroupAttachTask => format!("to cgroup {detail}"),
            _ => return None,
        })
    }

    fn target_kind(&self) -> &'static str {
        match self.hook {
            SentinelHook::BpfMap => "map ",
            SentinelHook::BpfProg => "program ",
            SentinelHook::TaskPrctl
            | SentinelHook::TaskKill
            | SentinelHook::PtraceAccessCheck
            | SentinelHook::TaskSetrlimit
            | SentinelHook::TaskSetscheduler
            | SentinelHook::TaskSetnice
            | SentinelHook::TaskSetioprio
            | SentinelHook::TaskMovememory
            | SentinelHook::TaskSetpgid
            | SentinelHook::FileSendSigiotask
            | SentinelHook::CgroupAttachTask
            | SentinelHook::PerfEventAlloc => "process ",
            _ => "",
        }
    }
}

impl fmt::Display for SentinelRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verdict, self.hook)?;
        if let Some(op) = self.op {
            write!(f, " ({op})")?;
        }
        if let Some(path) = &self.path {
            // Anybody names files: what would disturb a terminal is escaped.
            write!(f, " {}", path.display().to_string().escape_debug())?;
        }
        match self.hook {
            SentinelHook::Bpf => self.write_command(f)?,
            SentinelHook::BpfProgLoad => {
                write!(f, " of a {} program", ProgramType(self.target))?;
                write!(f, " that calls {}", self.call())?;
            }
            // Another process attaches a program to a perf event.
            SentinelHook::FileIoctl if self.target != 0 => {
                write!(f, " PERF_EVENT_IOC_SET_BPF of a {} program", ProgramType(self.target))?;
            }
            _ if self.target != 0 => write!(f, " of {}{}", self.target_kind(), self.target)?,
            _ => {}
        }
        if let Some(what) = self.what() {
            write!(f, ", {what}")?;
        }
        write!(f, " by {} ({})", self.pid, self.comm.escape_debug())?;
        write!(f, ", user {}", self.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, decode};
    use proptest::prelude::*;
    use zerocopy::{FromZeros, IntoBytes};

    fn event() -> abi::SentinelEvent {
        let mut event = abi::SentinelEvent::new_zeroed();
        event.hdr.kind = abi::EV_SENTINEL;
        event.hdr.len = size_of::<abi::SentinelEvent>() as u16;
        event.hook = SentinelHook::InodeUnlink as u8;
        event.op = FileOp::Delete as u8;
        event.verdict = SentinelVerdict::Denied as u8;
        let path = b"passwd\0etc\0";
        event.path[..path.len()].copy_from_slice(path);
        event.path_len = path.len() as u16;
        event.rules = 1 << 3 | 1 << 60;
        event
    }

    fn read(event: &abi::SentinelEvent) -> SentinelRecord {
        let Ok(Event::Sentinel(event)) = decode(event.as_bytes()) else { panic!() };
        SentinelRecord::from(&event)
    }

    #[test]
    fn paths_begin_at_the_root() {
        let mut event = event();
        let record = read(&event);
        assert_eq!(record.path, Some("/etc/passwd".into()));
        assert_eq!((record.op, record.rules), (Some(FileOp::Delete), vec![3, 60]));
        event.path_cut = 1;
        assert_eq!(read(&event).path, Some("…/etc/passwd".into()));
        event.path_len = 0;
        event.path_cut = 0;
        assert_eq!((read(&event).path, read(&event).op), (None, None));
        event.file.ino = 2;
        assert_eq!(read(&event).path, Some("/".into()));
    }

    #[test]
    fn details_have_the_kernels_names() {
        let says = |hook: SentinelHook, target, detail| {
            let mut event = event();
            (event.hook, event.target, event.detail) = (hook as u8, target, detail);
            event.path_len = 0;
            read(&event).to_string()
        };
        let said = says(SentinelHook::TaskKill, 7, 9);
        assert!(said.contains("of process 7, SIGKILL by 0"), "{said}");
        let said = says(SentinelHook::TaskKill, 7, 40);
        assert!(said.contains("of process 7, signal #40 by"), "{said}");
        let said = says(SentinelHook::TaskSetrlimit, 7, 0);
        assert!(said.contains("of process 7, RLIMIT_CPU by"), "{said}");
        let said = says(SentinelHook::PtraceAccessCheck, 7, 9);
        assert!(said.contains("of process 7, to read it by"), "{said}");
        let said = says(SentinelHook::PtraceAccessCheck, 7, 18);
        assert!(said.contains("of process 7, to trace or change it by"), "{said}");
        let said = says(SentinelHook::FileIoctl, 0, 0x4100_9432);
        assert!(said.contains("FS_IOC_SETFSLABEL by"), "{said}");
        let said = says(SentinelHook::FileIoctl, 0, 0x4100_9499);
        assert!(said.contains("ioctl 0x41009499 by"), "{said}");
        let said = says(SentinelHook::CgroupAttachTask, 7, 12);
        assert!(said.contains("of process 7, to cgroup 12 by"), "{said}");
    }

    #[test]
    fn what_would_disturb_a_terminal_is_escaped() {
        let mut event = event();
        event.path[..6].copy_from_slice(b"\x1b[2Jab");
        event.comm[..4].copy_from_slice(b"\x1b[0m");
        let text = read(&event).to_string();
        assert!(!text.contains('\x1b'), "{text:?}");
        assert!(text.contains("[2Jab"), "{text:?}");
    }

    #[test]
    fn what_no_program_writes_is_refused() {
        let refused = |change: fn(&mut abi::SentinelEvent)| {
            let mut event = event();
            change(&mut event);
            decode(event.as_bytes()).unwrap_err()
        };
        let is = |field, value| DecodeError::Field { field, value };
        assert_eq!(refused(|e| e.hdr.len = 8), is("len", 8));
        assert_eq!(refused(|e| e.hook = 0), is("hook", 0));
        assert_eq!(refused(|e| e.op = 99), is("op", 99));
        assert_eq!(refused(|e| e.verdict = 0), is("verdict", 0));
        assert_eq!(refused(|e| e.path_len = 513), is("path_len", 513));
        assert!(matches!(decode(&event().as_bytes()[..600]), Err(DecodeError::Short { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(noise in prop::collection::vec(any::<u8>(), 640), hook in 0u8..64, op in 0u8..12) {
            let mut event = event();
            event.as_mut_bytes()[16..656].copy_from_slice(&noise);
            (event.hook, event.op, event.verdict) = (hook, op, 1 + hook % 4);
            if let Ok(Event::Sentinel(event)) = decode(event.as_bytes()) {
                let record = SentinelRecord::from(&event);
                prop_assert!(!record.to_string().is_empty());
            }
        }
    }
}
