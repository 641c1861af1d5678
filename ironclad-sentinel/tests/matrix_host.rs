//! What lies below files and programs: mounts, modules, the kernel's memory, sysctls.

mod host;

use host::{EPERM, Host, is_without_lsm, next_denied};
use ironclad_core::RuleId;
use ironclad_core::abi::SentinelHook;
use ironclad_policy::Policy;
use ironclad_policy::file::{FileAction, FileOps, FileRule};
use ironclad_sentinel::Overflow;

/// Only for the other tests: a process that does what they say.
#[test]
fn talker() {
    host::serve();
}

#[test]
fn nothing_is_mounted_over_what_is_guarded() {
    if is_without_lsm("nothing_is_mounted_over_what_is_guarded") {
        return;
    }
    let host = Host::new();
    let [volume, elsewhere] = ["volume", "elsewhere"].map(|name| {
        let path = host.path(name);
        std::fs::create_dir(&path).unwrap();
        path.display().to_string()
    });
    let mut attacker = host.talker();
    let mut ask = |order: &str| attacker.ask(order).unwrap();
    let own = format!("tool mount -t tmpfs none {volume}");
    assert_eq!(ask(&own), 0);
    let guarded = format!("{volume}/guarded");
    std::fs::create_dir_all(format!("{guarded}/sub")).unwrap();
    std::fs::write(format!("{guarded}/sub/file"), "1").unwrap();
    let over = [
        format!("tool mount -t tmpfs none {guarded}"),
        format!("tool mount -t tmpfs none {guarded}/sub"),
        format!("tool mount -t tmpfs none {volume}"),
        format!("tool mount --bind {elsewhere} {guarded}"),
        format!("tool mount --bind {elsewhere}/file {guarded}/sub/file"),
    ];
    std::fs::write(format!("{elsewhere}/file"), "2").unwrap();
    for order in &over {
        assert_eq!(ask(order), 0, "{order}");
        let at = order.rsplit(' ').next().unwrap();
        assert_eq!(ask(&format!("tool umount {at}")), 0, "{order}");
    }
    let policy = Policy::builder()
        .file_rule(FileRule::new(RuleId(1), "one", FileAction::Deny).tree(&guarded))
        .compile()
        .unwrap();
    let sentinel = host.start(&policy);
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    let mut refused = |order: &str, hooks: &[SentinelHook]| {
        assert_ne!(attacker.ask(order).unwrap(), 0, "{order}");
        let event = next_denied(&events);
        assert!(hooks.contains(&event.hook), "{order}: {event}");
        while events.try_recv().is_some() {}
    };
    // Newer tools mount by fsopen(2) and move_mount(2).
    for order in &over {
        refused(order, &[SentinelHook::SbMount, SentinelHook::MoveMount]);
    }
    for order in [
        format!("tool umount {volume}"),
        format!("tool umount -l {volume}"),
        // With it, everything below would go.
        "tool umount -l /tmp".to_owned(),
    ] {
        refused(&order, &[SentinelHook::SbUmount]);
    }
    refused(
        &format!("tool mount --move {volume} {elsewhere}"),
        &[SentinelHook::SbMount, SentinelHook::MoveMount],
    );
    refused(&format!("tool mount -o remount,ro {volume}"), &[SentinelHook::SbMount]);
    assert_eq!(std::fs::read_to_string(format!("{guarded}/sub/file")).unwrap(), "1");
    // Elsewhere, and in another namespace, everybody may.
    let mut ask = |order: &str| attacker.ask(order).unwrap();
    assert_eq!(ask(&format!("tool mount -t tmpfs none {elsewhere}")), 0);
    assert_eq!(ask(&format!("tool umount {elsewhere}")), 0);
    // By another mount, it is covered all the same.
    assert_eq!(ask(&format!("tool mount --bind {volume} {elsewhere}")), 0);
    assert_eq!(ask(&format!("append {elsewhere}/guarded/sub/file")), EPERM);
    assert_eq!(ask(&format!("unlink {elsewhere}/guarded/sub/file")), EPERM);
    assert_eq!(ask(&format!("tool umount {elsewhere}")), 0);
    drop(sentinel);
    assert_eq!(ask(&format!("tool umount {volume}")), 0);
}

#[test]
fn the_kernel_stays_closed() {
    if is_without_lsm("the_kernel_stays_closed") {
        return;
    }
    let host = Host::new();
    let mut attacker = host.talker();
    let attacks = [
        ("read-some /proc/kallsyms", None),
        ("open-to-write /proc/sys/kernel/ftrace_enabled", Some(SentinelHook::FileOpen)),
        ("open-to-write /proc/sys/kernel/core_pattern", Some(SentinelHook::FileOpen)),
        ("open-to-write /proc/sys/net/core/bpf_jit_harden", Some(SentinelHook::FileOpen)),
        ("open-to-write /proc/sys/kernel/sysrq", Some(SentinelHook::FileOpen)),
        ("open-to-write /proc/sys/kernel/panic", None),
        ("list /sys/kernel/debug", None),
    ];
    for (order, _) in attacks {
        assert_eq!(attacker.ask(order).unwrap(), 0, "{order}");
    }
    // Opened before: asked when it is written.
    assert_eq!(attacker.ask("keep-open /proc/sys/kernel/ftrace_enabled").unwrap(), 0);
    assert_eq!(attacker.ask("write-kept 1").unwrap(), 0);
    let module = "/lib/modules/dummy.ko";
    let has_module = std::path::Path::new(module).exists();
    if has_module {
        let order = "tool rmmod dummy".to_owned();
        assert_eq!(attacker.ask(&order).unwrap(), 0);
        assert_eq!(attacker.ask(&format!("tool insmod {module}")).unwrap(), 0);
        assert_eq!(attacker.ask(&order).unwrap(), 0);
    } else {
        // The machines of the matrix have one.
        assert!(std::env::var_os("IRONCLAD_MACHINE").is_none());
        println!("not tried: modules, of which there is no {module}");
    }
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (order, hook) in attacks {
        let answer = attacker.ask(order).unwrap();
        let Some(hook) = hook else {
            assert_eq!(answer, 0, "{order}");
            continue;
        };
        assert_eq!(answer, EPERM, "{order}");
        assert_eq!(next_denied(&events).hook, hook, "{order}");
    }
    assert_eq!(attacker.ask("write-kept 1").unwrap(), EPERM);
    if has_module {
        assert_ne!(attacker.ask(&format!("tool insmod {module}")).unwrap(), 0);
        let event = next_denied(&events);
        let hooks = [SentinelHook::KernelReadFile, SentinelHook::KernelLoadData];
        assert!(hooks.contains(&event.hook), "{event}");
        // One that nobody else may change.
        let rule = FileRule::new(RuleId(1), "modules", FileAction::Deny).tree("/lib/modules");
        sentinel.apply(&Policy::builder().file_rule(rule).compile().unwrap()).unwrap();
        assert_eq!(attacker.ask(&format!("tool insmod {module}")).unwrap(), 0);
    }
    drop(sentinel);
    assert_eq!(attacker.ask("write-kept 1").unwrap(), 0);
}

/// On a disk there are attributes and generations, files are forgotten and come back without names, and
/// there is something below them.
#[test]
fn what_a_file_system_lies_on_is_guarded_too() {
    if is_without_lsm("what_a_file_system_lies_on_is_guarded_too") {
        return;
    }
    let host = Host::new();
    let (image, volume) = (host.path("image"), host.path("volume"));
    std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    std::fs::create_dir(&volume).unwrap();
    let (image, volume) = (image.display().to_string(), volume.display().to_string());
    let device = "/dev/loop0";
    let mut attacker = host.talker();
    let mut ask = |order: &str| attacker.ask(order).unwrap();
    for order in [
        format!("tool mke2fs -F {image}"),
        format!("tool losetup {device} {image}"),
        format!("tool mount -t ext4 {device} {volume}"),
    ] {
        assert_eq!(ask(&order), 0, "{order}");
    }
    let guarded = format!("{volume}/guarded");
    let deep = format!("{guarded}/sub/file");
    std::fs::create_dir_all(format!("{guarded}/sub")).unwrap();
    std::fs::write(&deep, "1").unwrap();
    let forget = "write /proc/sys/vm/drop_caches 3";
    let orders = [
        format!("setxattr {deep}"),
        format!("removexattr {deep}"),
        format!("chattr {deep}"),
        format!("chattr {guarded}"),
        "open-handle".to_owned(),
        format!("open-to-write {device}"),
    ];
    assert_eq!(ask(&format!("keep-handle {deep}")), 0);
    assert_eq!(ask(forget), 0);
    for order in &orders {
        assert_eq!(ask(order), 0, "{order}");
    }
    assert_eq!(ask(&format!("setxattr {deep}")), 0);
    let policy = |ops| {
        let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(&guarded).operations(ops);
        Policy::builder().file_rule(rule).compile().unwrap()
    };
    let sentinel = host.start(&policy(FileOps::CHANGE));
    for order in &orders {
        assert_eq!(ask(forget), 0);
        assert_eq!(ask(order), EPERM, "{order}");
    }
    let read = format!("open-to-read {device}");
    assert_eq!(ask(&read), 0);
    sentinel.apply(&policy(FileOps::ALL)).unwrap();
    assert_eq!((ask(&read), ask(&format!("read {deep}"))), (EPERM, EPERM));
    assert_eq!(ask("open-to-write /dev/loop1"), 0);
    drop(sentinel);
    assert_eq!(ask(&read), 0);
    // The handle has its root open.
    assert_eq!(ask(&format!("tool umount -l {volume}")), 0);
    assert_eq!(ask(&format!("tool losetup -d {device}")), 0);
}
