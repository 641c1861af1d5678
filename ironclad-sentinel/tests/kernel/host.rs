//! What lies below files and programs: disks, modules, the kernel's memory, sysctls.

use crate::testbed::{Attacks, EPERM, Host, lsm};
use ironclad_core::RuleId;
use ironclad_core::abi::SentinelHook;
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::Policy;
use ironclad_policy::file::{FileAction, FileOps, FileRule};
use ironclad_sentinel::Overflow;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(the_kernel_stays_closed).shared().in_machine().needs(&[lsm]),
        test!(another_kernel_is_not_booted).shared().in_machine().needs(&[lsm]),
        test!(what_a_file_system_lies_on_is_guarded_too).shared().in_machine().needs(&[lsm]),
    ]
}

fn the_kernel_stays_closed() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let tried = [
        ("open ftrace_enabled to write", "open-to-write /proc/sys/kernel/ftrace_enabled"),
        ("open core_pattern to write", "open-to-write /proc/sys/kernel/core_pattern"),
        ("open bpf_jit_harden to write", "open-to-write /proc/sys/net/core/bpf_jit_harden"),
        ("open the sysctl sysrq to write", "open-to-write /proc/sys/kernel/sysrq"),
        ("open lease-break-time to write", "open-to-write /proc/sys/fs/lease-break-time"),
    ];
    let lockdown = [
        ("open kcore", "open-to-read /proc/kcore"),
        ("open /dev/mem", "open-to-read /dev/mem"),
        ("open kprobe_events to write", "open-to-write /sys/kernel/tracing/kprobe_events"),
        ("open uprobe_events to write", "open-to-write /sys/kernel/tracing/uprobe_events"),
    ];
    let let_go = [
        "read-some /proc/kallsyms",
        "open-to-write /proc/sys/kernel/panic",
        "list /sys/kernel/debug",
    ];
    for (name, order) in tried.into_iter().chain(lockdown) {
        attacks.without(name, &mut attacker, order);
    }
    for order in let_go {
        assert_eq!(attacker.ask(order).unwrap(), 0, "{order}");
    }
    // Who has such a page is killed.
    let offline = [
        (
            "open the file that takes pages of memory away",
            "open-to-write /sys/devices/system/memory/hard_offline_page",
        ),
        (
            "open the file that takes them away once they are copied",
            "open-to-write /sys/devices/system/memory/soft_offline_page",
        ),
    ];
    let has_offline = std::path::Path::new("/sys/devices/system/memory/hard_offline_page").exists();
    if has_offline {
        for (name, order) in offline {
            attacks.without(name, &mut attacker, order);
        }
    } else {
        println!("not tried: a kernel without memory failures takes no page away");
    }
    // What every program loads that is executed from then on, PID 1 above all.
    let (preload, preloaded) = ("name what every program loads", "/etc/ld.so.preload");
    let preload_order = format!("create {preloaded}");
    attacks.without(preload, &mut attacker, &preload_order);
    assert_eq!(attacker.ask(&format!("unlink {preloaded}")).unwrap(), 0);
    // Opened before: asked when it is written.
    let kept = "write ftrace_enabled by a pre-opened descriptor";
    assert_eq!(attacker.ask("keep-open /proc/sys/kernel/ftrace_enabled").unwrap(), 0);
    attacks.without(kept, &mut attacker, "write-kept 1");
    let module = "/lib/modules/dummy.ko";
    let (foreign, insert) = ("load a module", format!("tool insmod {module}"));
    let has_module = std::path::Path::new(module).exists();
    if has_module {
        let remove = "tool rmmod dummy";
        assert_eq!(attacker.ask(remove).unwrap(), 0);
        attacks.without(foreign, &mut attacker, &insert);
        assert_eq!(attacker.ask(remove).unwrap(), 0);
    } else {
        // The machines of the matrix have one.
        assert!(std::env::var_os("IRONCLAD_MACHINE").is_none());
        println!("not tried: modules, of which there is no {module}");
    }
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (name, order) in tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileOpen, "{name}: {event}");
    }
    for (name, order) in lockdown {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::LockedDown, "{name}: {event}");
    }
    for (name, order) in offline.into_iter().filter(|_| has_offline) {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileOpen, "{event}");
    }
    let event = attacks.with(preload, &mut attacker, &preload_order, &events);
    assert_eq!(event.hook, SentinelHook::InodeCreate, "{event}");
    for order in let_go {
        assert_eq!(attacker.ask(order).unwrap(), 0, "{order}");
    }
    let event = attacks.with(kept, &mut attacker, "write-kept 1", &events);
    assert_eq!(event.hook, SentinelHook::Sysctl, "{event}");
    assert_eq!(event.path, Some("…/kernel/ftrace_enabled".into()), "{event}");
    if has_module {
        let event = attacks.with(foreign, &mut attacker, &insert, &events);
        let hooks = [SentinelHook::KernelReadFile, SentinelHook::KernelLoadData];
        assert!(hooks.contains(&event.hook), "{event}");
        // One that no other process may change.
        let rule = FileRule::new(RuleId(1), "modules", FileAction::Deny).tree("/lib/modules");
        sentinel.apply(&Policy::builder().file_rule(rule).compile().unwrap()).unwrap();
        assert_eq!(attacker.ask(&insert).unwrap(), 0);
    }
    drop(sentinel);
    assert_eq!(attacker.ask("write-kept 1").unwrap(), 0);
}

/// Whoever boots another kernel, or this one with a memory of their own, is past all hooks.
fn another_kernel_is_not_booted() {
    let host = Host::new();
    let kernel = host.path("kernel");
    std::fs::write(&kernel, [1; 4096]).unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let from_file = format!("kexec-file-load {}", kernel.display());
    // Nobody sleeps: with no swap there is no place for an image.
    let tried = [
        ("kexec_load(2)", "kexec-load", SentinelHook::KernelLoadData),
        ("kexec_file_load(2)", &from_file, SentinelHook::KernelReadFile),
        (
            "choose how the host hibernates",
            "write /sys/power/disk test_resume",
            SentinelHook::LockedDown,
        ),
        ("open the image of a hibernation", "open-to-read /dev/snapshot", SentinelHook::LockedDown),
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

/// On a disk there are attributes and generations, files are forgotten and come back without names, and
/// there is something below them.
fn what_a_file_system_lies_on_is_guarded_too() {
    let host = Host::new();
    let (image, volume) = (host.path("image"), host.path("volume"));
    std::fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    std::fs::create_dir(&volume).unwrap();
    let (image, volume) = (image.display().to_string(), volume.display().to_string());
    let device = "/dev/loop0";
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let ask = |attacker: &mut TestProcess, order: &str| attacker.ask(order).unwrap();
    for order in [
        // Older kernels seal files of such blocks alone.
        format!("tool mke2fs -F -t ext4 -O verity -b 4096 {image}"),
        format!("tool losetup {device} {image}"),
        format!("tool mount -t ext4 {device} {volume}"),
    ] {
        assert_eq!(ask(&mut attacker, &order), 0, "{order}");
    }
    let guarded = format!("{volume}/guarded");
    let deep = format!("{guarded}/sub/file");
    std::fs::create_dir_all(format!("{guarded}/sub")).unwrap();
    std::fs::write(&deep, "1").unwrap();
    let forget = "write /proc/sys/vm/drop_caches 3";
    let tried = [
        ("set an attribute of a guarded file", format!("setxattr {deep}")),
        ("remove an attribute of a guarded file", format!("removexattr {deep}")),
        ("chattr a guarded file", format!("chattr {deep}")),
        ("chattr a guarded directory", format!("chattr {guarded}")),
        ("open a forgotten guarded file by its handle", "open-handle".to_owned()),
        ("write to the device below a guarded file", format!("open-to-write {device}")),
    ];
    let (read_below, read) = (
        "read from the device below a file that may not be read",
        format!("open-to-read {device}"),
    );
    assert_eq!(ask(&mut attacker, &format!("keep-handle {deep}")), 0);
    assert_eq!(ask(&mut attacker, forget), 0);
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    attacks.without(read_below, &mut attacker, &read);
    let (as_32, chattr_32) =
        ("chattr a guarded file as 32-bit programs do", format!("chattr-32 {deep}"));
    // On a kernel without these, whoever tries ends.
    let mut other = host.test_process();
    let has_32 = cfg!(target_arch = "x86_64") && other.ask(&chattr_32).is_ok();
    if has_32 {
        attacks.without(as_32, &mut other, &chattr_32);
    } else {
        println!("not tried: 32-bit programs, which this kernel has not");
    }
    assert_eq!(ask(&mut attacker, &format!("setxattr {deep}")), 0);
    let policy = |ops| {
        let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(&guarded).operations(ops);
        Policy::builder().file_rule(rule).compile().unwrap()
    };
    let (by_call, setattr) =
        ("set attributes of a guarded file by file_setattr(2)", format!("file-setattr {deep}"));
    const ENOSYS: u64 = 38;
    let has_call = ask(&mut attacker, &setattr) != ENOSYS;
    if has_call {
        attacks.without(by_call, &mut attacker, &setattr);
    } else {
        println!("not tried: file_setattr(2), which this kernel has not");
    }
    let sealed = format!("{guarded}/sealed");
    let (by_seal, seal) = ("seal a guarded file by fs-verity", format!("enable-verity {sealed}"));
    std::fs::write(&sealed, "1").unwrap();
    attacks.without(by_seal, &mut attacker, &seal);
    std::fs::remove_file(&sealed).unwrap();
    std::fs::write(&sealed, "1").unwrap();
    let swap = format!("{guarded}/swap");
    let (by_swap, swap_on) = ("swap to a guarded file", format!("tool swapon {swap}"));
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
    if has_call {
        attacks.with(by_call, &mut attacker, &setattr, &events);
    }
    let event = attacks.with(by_seal, &mut attacker, &seal, &events);
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
    // The handle has its root open.
    assert_eq!(ask(&mut attacker, &format!("tool umount -l {volume}")), 0);
    assert_eq!(ask(&mut attacker, &format!("tool losetup -d {device}")), 0);
}
