//! Attacks by root, and by a compromised web server.

use std::path::Path;
use std::process::Command;

use ironclad_lab::test_process::TestProcess;
use libbpf_rs::btf::{Btf, types::Func};

use crate::Result;
use crate::testbed::{CONFIG, PAGE, Testbed};

/// A process of root that is not trusted.
pub(crate) fn attacker(program: &Path) -> Result<TestProcess> {
    Ok(TestProcess::start_as(Command::new(program))?)
}

/// An attack. `order` is one of [`TestProcess::ask`].
pub(crate) struct Attack {
    pub(crate) on: &'static str,
    pub(crate) what: &'static str,
    pub(crate) order: fn(&Testbed) -> String,
    pub(crate) by_web_server: bool,
}

const fn root(on: &'static str, what: &'static str, order: fn(&Testbed) -> String) -> Attack {
    Attack { on, what, order, by_web_server: false }
}

const WEB_SERVER: Attack = Attack {
    on: "files",
    what: "chmod by a compromised web server on its page",
    order: |it| format!("chmod {}", it.paths.site().join(PAGE).display()),
    by_web_server: true,
};

/// All attacks. The most destructive come last.
pub(crate) const ALL: [Attack; 28] = [
    root("process", "kill -STOP", |it| format!("kill {} 19", it.pid())),
    root("process", "ptrace(2)", |it| format!("trace {}", it.pid())),
    root("process", "write /proc/PID/mem", |it| format!("open-memory {}", it.pid())),
    root("process", "process_vm_readv(2)", |it| format!("read-memory {}", it.pid())),
    root("process", "read /proc/PID/environ", |it| format!("read-some /proc/{}/environ", it.pid())),
    root("process", "raise /proc/PID/oom_score_adj", |it| {
        format!("write /proc/{}/oom_score_adj 1000", it.pid())
    }),
    root("process", "freeze its cgroup", |it| {
        format!("write {}/cgroup.freeze 1", it.cgroup.dir().display())
    }),
    root("process", "kill -9", |it| format!("kill {} 9", it.pid())),
    root("files", "write to the configuration", |it| {
        format!("append {}", it.paths.config().join(CONFIG).display())
    }),
    root("files", "chmod of the configuration", |it| {
        format!("chmod {}", it.paths.config().join(CONFIG).display())
    }),
    WEB_SERVER,
    root("files", "mount over the configuration", |it| {
        format!("tool mount -t tmpfs none {}", it.paths.config().display())
    }),
    root("files", "rm -rf of the configuration", |it| {
        format!("remove-all {}", it.paths.config().display())
    }),
    root("files", "replace the agent's executable", |it| {
        format!("rename {} {}", it.paths.other().display(), it.paths.program().display())
    }),
    root("shield", "bpftool map dump", |it| {
        format!("tool bpftool map dump id {}", it.ready("/ids/slots"))
    }),
    root("shield", "bpftool map update", |it| {
        let value = " 00".repeat(32);
        let map = it.ready("/ids/reasons");
        format!("tool bpftool map update id {map} key 0 0 0 0 value hex{value}")
    }),
    root("shield", "bpftool map delete by a pin", |it| {
        let map = it.paths.pin("ic_slots");
        format!("tool bpftool map delete pinned {} key 0 0 0 0", map.display())
    }),
    root("shield", "bpftool link detach", |it| {
        format!("tool bpftool link detach id {}", it.ready("/ids/link"))
    }),
    root("shield", "unlink the program's pin", |it| {
        format!("unlink {}", it.paths.pin("ic_xdp").display())
    }),
    root("shield", "rm -rf of the pins", |it| format!("remove-all {}", it.paths.pins().display())),
    root("shield", "mount over the pins", |it| {
        format!("tool mount -t tmpfs none {}", it.paths.pins().display())
    }),
    root("shield", "umount the bpffs", |it| {
        format!("tool umount -l {}", it.paths.bpffs().display())
    }),
    root("kernel", "load a BPF LSM program", |_| format!("load-lsm {}", hook())),
    root("kernel", "load a kprobe program", |_| "load 2".to_owned()),
    root("kernel", "load a raw tracepoint program", |_| "load 17".to_owned()),
    root("kernel", "write kernel.ftrace_enabled", |_| {
        // The present value: harmless if the write succeeds.
        "write /proc/sys/kernel/ftrace_enabled 1".to_owned()
    }),
    root("kernel", "open /proc/sysrq-trigger", |_| "open-to-write /proc/sysrq-trigger".to_owned()),
    root("kernel", "load a kernel module", |_| "tool insmod /lib/modules/dummy.ko".to_owned()),
];

/// The BTF id of a hook.
fn hook() -> u32 {
    let btf = Btf::from_vmlinux().ok();
    let hook = btf.as_ref().and_then(|btf| btf.type_by_name::<Func<'_>>("bpf_lsm_file_open"));
    hook.map_or(0, |hook| u32::from(hook.type_id()))
}
