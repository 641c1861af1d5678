use ironclad_bpf::sentinel::GuardOptions;
use ironclad_core::abi;

/// Protections that an embedder gives up: [`SentinelBuilder::dangerous`](crate::SentinelBuilder::dangerous).
/// Each option allows an attack that the threat model lists. All are off by default.
///
/// ```
/// use ironclad_sentinel::Sentinel;
///
/// let builder = Sentinel::builder("my-agent").dangerous(|it| it.kexec(true).any_module(true));
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Dangerous {
    /// `REFUSE_*` of the ABI.
    pub(crate) refuse: u32,
    pub(crate) degraded: bool,
    pub(crate) oom_kill: bool,
    pub(crate) terminal: bool,
    pub(crate) terminal_descriptors: bool,
}

impl Dangerous {
    pub(crate) fn none() -> Self {
        let refuse = GuardOptions::default().refuse;
        Self {
            refuse,
            degraded: false,
            oom_kill: false,
            terminal: false,
            terminal_descriptors: false,
        }
    }

    fn allow(mut self, bit: u32, allow: bool) -> Self {
        self.refuse = if allow { self.refuse & !bit } else { self.refuse | bit };
        self
    }

    /// Whether other processes may load modules from files that no rule protects.
    pub fn any_module(self, allow: bool) -> Self {
        self.allow(abi::REFUSE_MODULES, allow)
    }

    /// Whether other processes may read kernel memory, add probes to the kernel, and sample all processes.
    pub fn kernel_memory(self, allow: bool) -> Self {
        self.allow(abi::REFUSE_MEMORY, allow)
    }

    /// Whether other processes may boot another kernel by kexec(8).
    pub fn kexec(self, allow: bool) -> Self {
        self.allow(abi::REFUSE_KEXEC, allow)
    }

    /// Whether BPF programs of other processes may call any helper and any kernel function (kfunc) that the kernel
    /// allows to their type. Otherwise a program is not loaded that can send signals, find other tasks or read
    /// memory, or that calls a function of a module or one that this version does not know.
    pub fn any_call(self, allow: bool) -> Self {
        self.allow(abi::REFUSE_CALLS, allow)
    }

    /// Whether BPF programs of other processes may rewrite addresses of connect(2), bind(2) and sendto(2) (programs of
    /// type cgroup_sock_addr) after Shield has checked them. Cilium and others that replace kube-proxy do so. If false,
    /// a program is not attached that stores elsewhere than on its stack, or that makes tail calls; a process with
    /// threads attaches none at these places.
    pub fn rewrite_addresses(self, allow: bool) -> Self {
        self.allow(abi::REFUSE_REWRITES, allow)
    }

    /// Whether other processes may send commands to the backing devices of protected files (SG_IO, NVMe,
    /// loop, partitions), open devices that send commands to any disk (`/dev/sg*`, `/dev/bsg/*`,
    /// `/dev/nvme0`, `/dev/ng*`) or use those that they opened before, and give disks to NVMe targets.
    ///
    /// Some functions of smartctl(8), hdparm(8) and multipathd(8) need it.
    pub fn disk_commands(self, allow: bool) -> Self {
        self.allow(abi::REFUSE_DISKS, allow)
    }

    /// Whether other processes may open `/dev/mapper/control`, or use it where they opened it before, while
    /// protected files are on mapped devices: LVM, LUKS.
    ///
    /// A process that has it open can map the device elsewhere, or map its backing device once more and
    /// write to that.
    pub fn device_mapper(self, allow: bool) -> Self {
        self.allow(abi::REFUSE_MAPPER, allow)
    }

    /// Whether the OOM killer may choose the agent: any process can use memory up until it does.
    ///
    /// If false, the agent's `oom_score_adj` (proc(5)) is -1000 from the start until the
    /// [`Sentinel`](crate::Sentinel) is dropped, which needs `CAP_SYS_RESOURCE` unless the value is -1000
    /// already. Children of the agent inherit -1000. A child that is not to be protected writes another value to
    /// `/proc/self/oom_score_adj` before it executes a program.
    pub fn oom_kill(mut self, allow: bool) -> Self {
        self.oom_kill = allow;
        self
    }

    /// Whether Sentinel starts although the agent has a controlling terminal: tty_nr of proc_pid_stat(5).
    ///
    /// The kernel itself sends SIGHUP to the agent when that terminal hangs up, and SIGINT, SIGQUIT and SIGTSTP when
    /// its keys are typed. No hook is called, so any process that reaches the other end of the terminal ends the
    /// agent. If false, the start fails with [`SentinelErrorKind::Terminal`](crate::SentinelErrorKind::Terminal).
    pub fn terminal(mut self, allow: bool) -> Self {
        self.terminal = allow;
        self
    }

    /// Whether Sentinel starts although the agent has a descriptor of a terminal that is no pseudo-terminal: a virtual
    /// console, a serial line, `/dev/console`. Standard input, output and error count.
    ///
    /// The secure attention key (SAK) of that terminal ends every process that has it open: a key of the keyboard, or a
    /// break on the serial line. The kernel sends SIGKILL, and no hook is called. If false, the start fails with
    /// [`SentinelErrorKind::TerminalDescriptor`](crate::SentinelErrorKind::TerminalDescriptor). Descriptors that the
    /// agent opens after the start are not checked.
    pub fn terminal_descriptors(mut self, allow: bool) -> Self {
        self.terminal_descriptors = allow;
        self
    }

    /// Whether Sentinel starts although hooks are missing or inactive:
    /// [`Sentinel::status`](crate::Sentinel::status) names them. If false, the start fails.
    pub fn degraded(mut self, allow: bool) -> Self {
        self.degraded = allow;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Set = fn(Dangerous, bool) -> Dangerous;

    #[test]
    fn each_option_gives_up_one_protection() {
        let none = Dangerous::none();
        let options: [(Set, u32); 7] = [
            (Dangerous::any_module, abi::REFUSE_MODULES),
            (Dangerous::kernel_memory, abi::REFUSE_MEMORY),
            (Dangerous::kexec, abi::REFUSE_KEXEC),
            (Dangerous::any_call, abi::REFUSE_CALLS),
            (Dangerous::rewrite_addresses, abi::REFUSE_REWRITES),
            (Dangerous::disk_commands, abi::REFUSE_DISKS),
            (Dangerous::device_mapper, abi::REFUSE_MAPPER),
        ];
        for (option, bit) in options {
            assert_eq!(option(none, true).refuse, none.refuse & !bit);
            assert_eq!(option(option(none, true), false).refuse, none.refuse);
        }
        assert!(!none.degraded && !none.oom_kill && !none.terminal && !none.terminal_descriptors);
        assert!(none.degraded(true).degraded && none.oom_kill(true).oom_kill);
        assert!(none.terminal(true).terminal && !none.terminal(true).terminal_descriptors);
        assert!(none.terminal_descriptors(true).terminal_descriptors);
    }
}
