//! Protection of the host: disks, modules, kernel memory, sysctls.

use std::path::Path;

use crate::testbed::attacks::NO_EFFECT;
use crate::testbed::{Attacks, EPERM, Host, does, lsm};
use ironclad_core::RuleId;
use ironclad_core::abi::SentinelHook;
use ironclad_lab::harness::{Test, skip};
use ironclad_lab::test;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::Policy;
use ironclad_policy::file::{FileAction, FileOps, FileRule};
use ironclad_sentinel::{EventReceiver, Overflow, Sentinel};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(kernel_memory_modules_and_sysctls_are_protected).shared().in_machine().needs(&[lsm]),
        test!(binary_formats_are_registered_by_updaters_alone).in_machine().needs(&[lsm]),
        test!(keys_for_sysrq_have_no_effect_where_it_is_off).shared().in_machine().needs(&[lsm]),
        test!(another_kernel_is_not_booted).shared().in_machine().needs(&[lsm]),
        test!(the_backing_device_of_a_file_system_is_protected).shared().in_machine().needs(&[lsm]),
    ]
}

/// Root writes keys to a keyboard's device, and the kernel takes them for pressed: with `kernel.sysrq = 0` they have no
/// effect, and no other process changes that.
fn keys_for_sysrq_have_no_effect_where_it_is_off() {
    const KNOB: &str = "/proc/sys/kernel/sysrq";
    const LEVELS: &str = "/proc/sys/kernel/printk";
    const KEYBOARD: &str = "/dev/input/event0";
    // `4` sets the level of messages for the console; the key's number is one more.
    const PRESS: &str = "press-sysrq /dev/input/event0 5";
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    if attacker.ask("tool modprobe evdev").unwrap() != 0 || !Path::new(KEYBOARD).exists() {
        skip("the machine has no module evdev, or no keyboard");
    }
    let read = |path| std::fs::read_to_string(path).unwrap();
    let before = [KNOB, LEVELS].map(|path| (path, read(path)));
    let level = || read(LEVELS).split_whitespace().next().map(str::to_owned);
    let set = || {
        std::fs::write(KNOB, "0").unwrap();
        std::fs::write(LEVELS, "6").unwrap();
    };
    let name = "press keys of sysrq by the device of a keyboard";
    let order = format!("all write {KNOB} 1 ; {PRESS}");
    set();
    attacks.without(name, &mut attacker, &order);
    assert_eq!(level().as_deref(), Some("4"));
    set();
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    attacks.with(name, &mut attacker, &order, &events);
    assert_eq!(attacker.ask(PRESS).unwrap(), 0);
    assert_eq!(level().as_deref(), Some("6"));
    drop(sentinel);
    for (path, text) in before {
        std::fs::write(path, text).unwrap();
    }
}

/// A kernel module that no rule protects, and how it is loaded.
struct Module {
    tried: Vec<(&'static str, String)>,
}

impl Module {
    fn find() -> Option<Self> {
        let path = "/lib/modules/dummy.ko";
        if !std::path::Path::new(path).exists() {
            // The virtual machines have one.
            assert!(std::env::var_os("IRONCLAD_MACHINE").is_none());
            println!("not tested: there is no {path}");
            return None;
        }
        let mut tried = vec![("load a kernel module", format!("tool insmod {path}"))];
        let compressed = format!("{path}.xz");
        if std::path::Path::new(&compressed).exists() {
            tried.push(("load a compressed module", format!("insert-compressed {compressed}")));
        } else {
            println!("not tried: this kernel has no compressed modules");
        }
        Some(Self { tried })
    }

    fn load_without(&self, attacks: &mut Attacks, attacker: &mut TestProcess) {
        let remove = "tool rmmod dummy";
        for (name, insert) in &self.tried {
            does(attacker, remove);
            attacks.without(name, attacker, insert);
        }
        does(attacker, remove);
    }

    fn load_with(&self, attacks: &Attacks, attacker: &mut TestProcess, events: &EventReceiver) {
        for (name, insert) in &self.tried {
            let event = attacks.with(name, attacker, insert, events);
            let hooks = [SentinelHook::KernelReadFile, SentinelHook::KernelLoadData];
            assert!(hooks.contains(&event.hook), "{event}");
        }
    }
}

fn kernel_memory_modules_and_sysctls_are_protected() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let tried = [
        ("open ftrace_enabled to write", "open-to-write /proc/sys/kernel/ftrace_enabled"),
        ("open core_pattern to write", "open-to-write /proc/sys/kernel/core_pattern"),
        ("open bpf_jit_harden to write", "open-to-write /proc/sys/net/core/bpf_jit_harden"),
        ("open kernel.sysrq to write", "open-to-write /proc/sys/kernel/sysrq"),
        ("open kernel.cad_pid to write", "open-to-write /proc/sys/kernel/cad_pid"),
        (
            "open fs.epoll.max_user_watches to write",
            "open-to-write /proc/sys/fs/epoll/max_user_watches",
        ),
        (
            "open kernel.sched_rt_runtime_us to write",
            "open-to-write /proc/sys/kernel/sched_rt_runtime_us",
        ),
        ("open lease-break-time to write", "open-to-write /proc/sys/fs/lease-break-time"),
    ];
    let lockdown = [
        ("open /proc/kcore", "open-to-read /proc/kcore"),
        ("open /dev/mem", "open-to-read /dev/mem"),
        ("open kprobe_events to write", "open-to-write /sys/kernel/tracing/kprobe_events"),
        ("open uprobe_events to write", "open-to-write /sys/kernel/tracing/uprobe_events"),
    ];
    let lockdown: Vec<_> = lockdown.into_iter().chain(hardware()).collect();
    let allowed = [
        "read-some /proc/kallsyms",
        "open-to-write /proc/sys/kernel/panic",
        "list /sys/kernel/debug",
    ];
    for (name, order) in tried.iter().chain(&lockdown) {
        attacks.without(name, &mut attacker, order);
    }
    for order in allowed {
        assert_eq!(attacker.ask(order).unwrap(), 0, "{order}");
    }
    // A process that uses such a page is killed.
    let offline = [
        (
            "open hard_offline_page to write",
            "open-to-write /sys/devices/system/memory/hard_offline_page",
        ),
        (
            "open soft_offline_page to write",
            "open-to-write /sys/devices/system/memory/soft_offline_page",
        ),
    ];
    let has_offline = std::path::Path::new("/sys/devices/system/memory/hard_offline_page").exists();
    if has_offline {
        for (name, order) in offline {
            attacks.without(name, &mut attacker, order);
        }
    } else {
        println!("not tested: this kernel cannot take pages offline");
    }
    // The dynamic loader loads the named libraries into every program, PID 1 included.
    let (preload, preloaded) = ("create /etc/ld.so.preload", "/etc/ld.so.preload");
    let preload_order = format!("create {preloaded}");
    attacks.without(preload, &mut attacker, &preload_order);
    assert_eq!(attacker.ask(&format!("unlink {preloaded}")).unwrap(), 0);
    // Opened before Sentinel starts: checked at the write.
    let kept = "write ftrace_enabled by a pre-opened descriptor";
    assert_eq!(attacker.ask("keep-open /proc/sys/kernel/ftrace_enabled").unwrap(), 0);
    attacks.without(kept, &mut attacker, "write-kept 1");
    let module = Module::find();
    if let Some(module) = &module {
        module.load_without(&mut attacks, &mut attacker);
    }
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (name, order) in tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileOpen, "{name}: {event}");
    }
    for (name, order) in &lockdown {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::LockedDown, "{name}: {event}");
    }
    for (name, order) in offline.into_iter().filter(|_| has_offline) {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileOpen, "{event}");
    }
    let event = attacks.with(preload, &mut attacker, &preload_order, &events);
    assert_eq!(event.hook, SentinelHook::InodeCreate, "{event}");
    for order in allowed {
        assert_eq!(attacker.ask(order).unwrap(), 0, "{order}");
    }
    let event = attacks.with(kept, &mut attacker, "write-kept 1", &events);
    assert_eq!(event.hook, SentinelHook::Sysctl, "{event}");
    assert_eq!(event.path, Some("…/kernel/ftrace_enabled".into()), "{event}");
    if let Some(module) = &module {
        module.load_with(&attacks, &mut attacker, &events);
        // A rule protects the module from changes.
        let rule = FileRule::new(RuleId(1), "modules", FileAction::Deny).tree("/lib/modules");
        sentinel.apply(&Policy::builder().file_rule(rule).compile().unwrap()).unwrap();
        for (_, insert) in &module.tried {
            does(&mut attacker, insert);
            does(&mut attacker, "tool rmmod dummy");
        }
    }
    drop(sentinel);
    assert_eq!(attacker.ask("write-kept 1").unwrap(), 0);
}

/// Attacks by the hardware, and the files that they need.
#[cfg(target_arch = "x86_64")]
fn hardware() -> Vec<(&'static str, &'static str)> {
    const DEVICE: &str = "/sys/bus/pci/devices/0000:00:00.0/config";
    const REGISTERS: &str = "/dev/cpu/0/msr";
    let mut all = vec![
        ("open /dev/port", "open-to-read /dev/port", "/dev/port"),
        // A thread that has the ports may ask again.
        ("iopl(2)", "child iopl", "/"),
        ("ioperm(2)", "child ioperm", "/"),
        // The types of caches by pages (IA32_PAT) and the size of a cache's lines, which stay as they are.
        (
            "write a register of the processor by /dev/cpu/0/msr",
            "rewrite /dev/cpu/0/msr 631 8",
            REGISTERS,
        ),
        (
            "write the configuration of a PCI device",
            "rewrite /sys/bus/pci/devices/0000:00:00.0/config 12 1",
            DEVICE,
        ),
    ];
    all.retain(|(name, _, path)| {
        let exists = std::path::Path::new(path).exists();
        if !exists {
            println!("not tried: this machine has no {path}: {name}");
        }
        exists
    });
    all.into_iter().map(|(name, order, _)| (name, order)).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn hardware() -> Vec<(&'static str, &'static str)> {
    Vec::new()
}

/// An entry of binfmt_misc has another program run in place of those that it matches.
fn binary_formats_are_registered_by_updaters_alone() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let at = host.path("formats");
    std::fs::create_dir(&at).unwrap();
    let at = at.display();
    // It may be built in.
    attacker.ask("tool modprobe binfmt_misc").unwrap();
    if attacker.ask(&format!("tool mount -t binfmt_misc none {at}")).unwrap() != 0 {
        skip("this kernel has no binfmt_misc");
    }
    let register = |name: &str| format!("write {at}/register :{name}:E::{name}::/bin/true:");
    let tried = [
        ("register a binary format with binfmt_misc", register("one"), register("two")),
        (
            "switch an entry of binfmt_misc off",
            format!("write {at}/one 0"),
            format!("write {at}/one 0"),
        ),
        ("switch binfmt_misc on", format!("write {at}/status 1"), format!("write {at}/status 1")),
    ];
    for (name, order, _) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    let updater = host.program("updater");
    let sentinel = Sentinel::builder("test").updater(&updater);
    let sentinel = sentinel.start(&Policy::builder().compile().unwrap()).unwrap();
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, _, order) in &tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileOpen, "{event}");
    }
    assert!(!host.path("formats/two").exists());
    let mut updater = host.test_process_by(&updater);
    for order in [&register("two"), &format!("read {at}/two"), &format!("write {at}/two -1")] {
        assert_eq!(updater.ask(order).unwrap(), 0, "{order}");
    }
    drop(sentinel);
    for order in [format!("write {at}/one -1"), format!("tool umount {at}")] {
        assert_eq!(attacker.ask(&order).unwrap(), 0, "{order}");
    }
}

/// Another kernel, or a forged hibernation image, has no hooks of Sentinel.
fn another_kernel_is_not_booted() {
    let host = Host::new();
    let kernel = host.path("kernel");
    std::fs::write(&kernel, [1; 4096]).unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let from_file = format!("kexec-file-load {}", kernel.display());
    // The machine does not hibernate: without swap there is no space for an image.
    let tried = [
        ("kexec_load(2)", "kexec-load", SentinelHook::KernelLoadData),
        ("kexec_file_load(2)", &from_file, SentinelHook::KernelReadFile),
        (
            "write /sys/power/disk to hibernate",
            "write /sys/power/disk test_resume",
            SentinelHook::LockedDown,
        ),
        ("open /dev/snapshot", "open-to-read /dev/snapshot", SentinelHook::LockedDown),
    ];
    for (name, order, _) in tried {
        attacks.without(name, &mut attacker, order);
    }
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order, hook) in tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, hook, "{name}: {event}");
    }
    assert_eq!(attacker.ask("write /sys/power/state disk").unwrap(), EPERM);
    drop(sentinel);
    assert_eq!(attacker.ask("kexec-load").unwrap(), 0);
}

/// A file system on a disk has extended attributes, inode generations, uncached files that file handles open,
/// and a backing device.
fn the_backing_device_of_a_file_system_is_protected() {
    let host = Host::new();
    let (image, volume) = (host.path("image"), host.path("volume"));
    std::fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    std::fs::create_dir(&volume).unwrap();
    let (image, volume) = (image.display().to_string(), volume.display().to_string());
    let device = "/dev/loop0";
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let ask = |attacker: &mut TestProcess, order: &str| attacker.ask(order).unwrap();
    for order in [
        // Older kernels support fs-verity only with this block size.
        format!("tool mke2fs -F -t ext4 -O verity -b 4096 {image}"),
        format!("tool losetup {device} {image}"),
        format!("tool mount -t ext4 {device} {volume}"),
    ] {
        assert_eq!(ask(&mut attacker, &order), 0, "{order}");
    }
    let protected = format!("{volume}/protected");
    let deep = format!("{protected}/sub/file");
    std::fs::create_dir_all(format!("{protected}/sub")).unwrap();
    std::fs::write(&deep, "1").unwrap();
    let forget = "write /proc/sys/vm/drop_caches 3";
    let tried = [
        ("set an extended attribute of a protected file", format!("setxattr {deep}")),
        ("remove an extended attribute of a protected file", format!("removexattr {deep}")),
        ("chattr a protected file", format!("chattr {deep}")),
        ("chattr a protected directory", format!("chattr {protected}")),
        ("open an uncached protected file by its file handle", "open-handle".to_owned()),
        ("write to the backing device of a protected file", format!("open-to-write {device}")),
    ];
    let (read_below, read) =
        ("read from the backing device of a protected file", format!("open-to-read {device}"));
    let edit = |mode: &str| {
        let script = host.path(mode);
        let edit = format!("set_inode_field /protected/sub/file mode 0100{mode}");
        std::fs::write(&script, format!("exec debugfs -w -R '{edit}' {device}")).unwrap();
        let read =
            format!("debugfs -R 'stat /protected/sub/file' {device} | grep -q 'Mode:  0{mode}'");
        let check = host.path(&format!("{mode}-check"));
        std::fs::write(&check, read).unwrap();
        [script, check].map(|path| format!("tool sh {}", path.display()))
    };
    let by_debugfs = "write an inode of a protected file by debugfs(8)";
    // What debugfs(8) itself answers is 0.
    let write_inode = |attacker: &mut TestProcess, mode: &str| {
        let [edit, check] = edit(mode);
        assert_eq!(attacker.ask(&edit).unwrap(), 0);
        if attacker.ask(&check).unwrap() == 0 { "succeeded" } else { NO_EFFECT }
    };
    assert_eq!(ask(&mut attacker, "tool sync"), 0);
    attacks.record_without(by_debugfs, write_inode(&mut attacker, "711"));
    assert_eq!(ask(&mut attacker, &format!("keep-handle {deep}")), 0);
    assert_eq!(ask(&mut attacker, forget), 0);
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    attacks.without(read_below, &mut attacker, &read);
    let (as_32, chattr_32) =
        ("chattr a protected file by a 32-bit ioctl(2)", format!("chattr-32 {deep}"));
    // On a kernel without 32-bit system calls the process is killed.
    let mut other = host.test_process();
    let has_32 = cfg!(target_arch = "x86_64") && other.ask(&chattr_32).is_ok();
    if has_32 {
        attacks.without(as_32, &mut other, &chattr_32);
    } else {
        println!("not tested: this kernel has no 32-bit system calls");
    }
    assert_eq!(ask(&mut attacker, &format!("setxattr {deep}")), 0);
    let policy = |ops| {
        let rule =
            FileRule::new(RuleId(1), "one", FileAction::Deny).tree(&protected).operations(ops);
        Policy::builder().file_rule(rule).compile().unwrap()
    };
    let (by_call, setattr) =
        ("set attributes of a protected file by file_setattr(2)", format!("file-setattr {deep}"));
    const ENOSYS: u64 = 38;
    let has_call = ask(&mut attacker, &setattr) != ENOSYS;
    if has_call {
        attacks.without(by_call, &mut attacker, &setattr);
    } else {
        println!("not tested: this kernel has no file_setattr(2)");
    }
    let verity = format!("{protected}/verity");
    let (by_verity, enable) =
        ("enable fs-verity on a protected file", format!("enable-verity {verity}"));
    std::fs::write(&verity, "1").unwrap();
    attacks.without(by_verity, &mut attacker, &enable);
    std::fs::remove_file(&verity).unwrap();
    std::fs::write(&verity, "1").unwrap();
    let swap = format!("{protected}/swap");
    let (by_swap, swap_on) = ("swapon(8) a protected file", format!("tool swapon {swap}"));
    std::fs::write(&swap, vec![0; 1 << 20]).unwrap();
    assert_eq!(ask(&mut attacker, &format!("tool mkswap {swap}")), 0);
    attacks.without(by_swap, &mut attacker, &swap_on);
    assert_eq!(ask(&mut attacker, &format!("tool swapoff {swap}")), 0);
    let sentinel = host.start(&policy(FileOps::CHANGE));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        assert_eq!(ask(&mut attacker, forget), 0);
        attacks.with(name, &mut attacker, order, &events);
    }
    let pid = attacker.pid();
    let event = attacks
        .with_outcome(by_debugfs, pid, &events, || write_inode(&mut attacker, "755").to_owned());
    assert_eq!(event.hook, SentinelHook::FileOpen, "{event}");
    if has_call {
        attacks.with(by_call, &mut attacker, &setattr, &events);
    }
    let event = attacks.with(by_verity, &mut attacker, &enable, &events);
    assert_eq!(event.hook, SentinelHook::FileIoctl, "{event}");
    attacks.with(by_swap, &mut attacker, &swap_on, &events);
    if has_32 {
        attacks.with(as_32, &mut other, &chattr_32, &events);
    }
    assert_eq!(ask(&mut attacker, &read), 0);
    sentinel.apply(&policy(FileOps::ALL)).unwrap();
    attacks.with(read_below, &mut attacker, &read, &events);
    assert_eq!(ask(&mut attacker, &format!("read {deep}")), EPERM);
    assert_eq!(ask(&mut attacker, "open-to-write /dev/loop1"), 0);
    drop(sentinel);
    assert_eq!(ask(&mut attacker, &read), 0);
    // The file handle keeps the root directory open.
    assert_eq!(ask(&mut attacker, &format!("tool umount -l {volume}")), 0);
    assert_eq!(ask(&mut attacker, &format!("tool losetup -d {device}")), 0);
}
