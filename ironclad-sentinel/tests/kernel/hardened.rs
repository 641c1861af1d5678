//! Kernels that were hardened until the next boot. The tests run in a virtual machine of their own, in this order.

use std::path::Path;
use std::process::Command;

use crate::testbed::successor::Successor;
use crate::testbed::{Attacks, EPERM, Host, lsm};
use ironclad_core::ErrorChain;
use ironclad_core::abi::SentinelHook;
use ironclad_lab::harness::{Test, skip};
use ironclad_lab::test;
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_sentinel::{HookState, HookStatus, Overflow, Sentinel, Status};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(a_start_succeeds_where_modules_and_kexec_are_disabled)
            .in_hardened_machine()
            .needs(&[lsm]),
        test!(policies_of_ima_are_not_loaded).in_hardened_machine().needs(&[lsm]),
        test!(a_start_succeeds_where_ima_refuses_to_open_the_executable)
            .in_hardened_machine()
            .needs(&[lsm]),
        test!(lockdown_is_not_raised).in_hardened_machine().needs(&[lsm]),
        test!(a_start_under_lockdown_names_it).isolated().in_hardened_machine(),
    ]
}

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

fn policy() -> CompiledPolicy {
    Policy::builder().compile().unwrap()
}

fn start() -> Sentinel {
    Sentinel::builder("test").start(&policy()).unwrap()
}

fn set(sysctl: &str) {
    std::fs::write(format!("/proc/sys/kernel/{sysctl}"), "1").unwrap();
}

/// No kernel is loaded any more, until the next boot. Linux 6.3 and later have the limits.
fn lower_kexec_limits() -> bool {
    let limits = ["reboot", "panic"].map(|of| format!("/proc/sys/kernel/kexec_load_limit_{of}"));
    limits.iter().all(|limit| std::fs::write(limit, "0").is_ok())
}

/// The hooks that no module or kernel reaches.
fn loading(status: &Status) -> [&HookStatus; 2] {
    ["kernel_load_data", "kernel_read_file"]
        .map(|name| status.hooks.iter().find(|hook| hook.name == name).unwrap())
}

/// `kernel.modules_disabled` is ordinary hardening. Without modules a kexec(8) reaches the same hooks.
fn a_start_succeeds_where_modules_and_kexec_are_disabled() {
    let sentinel = start();
    set("modules_disabled");
    let check = |status: &Status| {
        assert_eq!(status.degraded, []);
        for hook in loading(status) {
            assert_eq!((&hook.state, &hook.not_tested), (&HookState::InForce, &None), "{hook:?}");
        }
    };
    check(&sentinel.status().unwrap());
    drop(sentinel);
    let sentinel = start();
    check(&sentinel.status().unwrap());
    let check = |status: &Status| {
        assert_eq!(status.degraded, []);
        for hook in loading(status) {
            assert_eq!(hook.state, HookState::Attached, "{hook:?}");
            let why = hook.not_tested.as_deref().unwrap_or_default();
            assert!(why.contains("kernel.modules_disabled"), "{hook:?}");
        }
    };
    if lower_kexec_limits() {
        check(&sentinel.status().unwrap());
    }
    set("kexec_load_disabled");
    check(&sentinel.status().unwrap());
    drop(sentinel);
    check(&start().status().unwrap());
}

const EVM: &str = "/sys/kernel/security/integrity/evm/evm";
const IMA_POLICY: &str = "/sys/kernel/security/ima/policy";

/// A policy stays until the next boot, and may refuse to open the files of the next agent.
fn policies_of_ima_are_not_loaded() {
    if !Path::new(IMA_POLICY).exists() {
        skip("this kernel has no IMA");
    }
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let mut tried =
        vec![("open the policy of IMA to write", format!("open-to-write {IMA_POLICY}"))];
    if Path::new(EVM).exists() {
        tried.push(("open the switch of EVM to write", format!("open-to-write {EVM}")));
    }
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    let sentinel = start();
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileOpen, "{event}");
    }
    drop(sentinel);
}

/// By a policy that appraises the files of one user, which have no hash to appraise.
fn a_start_succeeds_where_ima_refuses_to_open_the_executable() {
    const OWNER: u32 = 1234;
    if !Path::new(IMA_POLICY).exists() {
        skip("this kernel has no IMA");
    }
    let host = Host::new();
    let agent = host.program("agent");
    std::os::unix::fs::chown(&agent, Some(OWNER), None).unwrap();
    std::fs::create_dir(host.path("protected")).unwrap();
    assert!(std::fs::File::open(&agent).is_ok());
    let rule = format!("appraise func=FILE_CHECK mask=MAY_READ fowner={OWNER}\n");
    if let Err(error) = std::fs::write(IMA_POLICY, rule) {
        skip(format!("this kernel's IMA does not appraise files: {error}"));
    }
    let refused = std::fs::File::open(&agent).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    let mut agent = Successor::start(Successor::command_by(Command::new(&agent), host.dir()));
    assert_eq!(agent.says(), "ready");
    agent.send("stop");
    assert_eq!(agent.says(), "stopped");
}

/// Lockdown for confidentiality keeps the next agent from starting until the next boot.
fn lockdown_is_not_raised() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let name = "raise lockdown for integrity, as for confidentiality";
    let order = format!("write {LOCKDOWN} integrity");
    attacks.without(name, &mut attacker, &order);
    let sentinel = start();
    assert_eq!(sentinel.status().unwrap().degraded, []);
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    let order = format!("write {LOCKDOWN} confidentiality");
    let event = attacks.with(name, &mut attacker, &order, &events);
    assert_eq!(event.hook, SentinelHook::FileOpen, "{event}");
    assert_eq!(attacker.ask(&format!("open-to-write {LOCKDOWN}")).unwrap(), EPERM);
    assert_eq!(attacker.ask(&format!("open-to-read {LOCKDOWN}")).unwrap(), 0);
    drop(sentinel);
}

/// In a process that has not loaded programs before.
fn a_start_under_lockdown_names_it() {
    std::fs::write(LOCKDOWN, "confidentiality").unwrap();
    let error = Sentinel::builder("test").start(&policy()).unwrap_err();
    let text = ErrorChain::new(&error).to_string();
    assert!(text.contains("locked down for confidentiality"), "{text}");
    assert!(text.contains("lockdown=integrity"), "{text}");
}
