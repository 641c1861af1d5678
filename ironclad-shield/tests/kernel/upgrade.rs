//! Needs root and bpftool: an agent of another version finds its own dispatcher wanting and replaces
//! it, under a flood.

use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ironclad_bpf::shield::Shared;
use ironclad_bpf::{LinkLayer, PinDirectory};
use ironclad_core::audit::AuditAction;
use ironclad_core::{Action, RuleId};
use ironclad_lab::packet::{Frame, UDP, udp};
use ironclad_lab::{Lab, PacketSocket};
use ironclad_policy::{AddressSet, Policy};
use ironclad_shield::Shield;

use crate::recorder::Recorder;
use ironclad_lab::harness::Test;
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(another_dispatcher_is_replaced_without_a_gap).on_host()]
}

const BPFFS: &str = "/sys/fs/bpf";

fn another_dispatcher_is_replaced_without_a_gap() {
    let lab = Lab::new().unwrap();
    let (host, peer) = (lab.namespace("host").unwrap(), lab.namespace("peer").unwrap());
    lab.veth((&host, "eth0"), (&peer, "eth0")).unwrap();
    host.address("eth0", "10.9.0.1/16").unwrap();
    let instance = format!("upgrade-{}", std::process::id());
    let set =
        AddressSet::new(RuleId(1), "bad", Action::Drop).cidrs(["10.9.77.0/24".parse().unwrap()]);
    let policy = Policy::builder().set(set).compile().unwrap();
    let recorder = Arc::new(Recorder::default());
    let start = || {
        host.run(|| {
            let builder = Shield::builder(&instance).interface("eth0").persistent(true);
            builder.audit(recorder.clone()).start(&policy).unwrap()
        })
        .unwrap()
    };
    drop(start());

    // What an older version might have left: another program at the hook and in the pin. The policy
    // itself serves, since it drops the same packets.
    {
        let directory = PinDirectory::open(BPFFS.as_ref(), &instance).unwrap();
        let (shared, links) = Shared::adopt(&directory).unwrap().unwrap();
        let old = shared
            .slot_program(shared.selector().in_force(), LinkLayer::Ethernet)
            .unwrap()
            .unwrap();
        links[0].replace(&old).unwrap();
        let pin = directory.path().join("ic_xdp");
        std::fs::remove_file(&pin).unwrap();
        let id = old.info().id.to_string();
        let pinned = Command::new("bpftool").args(["prog", "pin", "id", &id]).arg(&pin).status();
        assert!(pinned.unwrap().success());
    }

    let listener = host.run(|| UdpSocket::bind("10.9.0.1:9")).unwrap().unwrap();
    let socket = peer.run(|| PacketSocket::open("eth0")).unwrap().unwrap();
    let frame = |src| Frame::v4(src, "10.9.0.1").payload(UDP, udp(1, 9, b"flood")).build();
    let (bad, good) = (frame("10.9.77.1"), frame("10.9.0.2"));
    let stop = AtomicBool::new(false);
    recorder.0.lock().unwrap().clear();
    let (shield, sent) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut sent = 0u64;
            while !stop.load(Ordering::Relaxed) {
                socket.send(&bad).unwrap();
                sent += 1;
            }
            sent
        });
        let shield = start();
        stop.store(true, Ordering::Relaxed);
        (shield, flood.join().unwrap())
    });
    let replaced = recorder.0.lock().unwrap().iter().any(|action| {
        matches!(action, AuditAction::Replace { program, interface, .. }
            if program == "ic_xdp" && interface == "eth0")
    });
    assert!(replaced, "{:?}", recorder.0.lock().unwrap());
    assert!(sent > 100, "{sent}");
    // The first that arrives is one that may.
    socket.send(&good).unwrap();
    let (_, from) = listener.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(from.ip().to_string(), "10.9.0.2");
    // And the next agent finds nothing to replace.
    drop(shield);
    recorder.0.lock().unwrap().clear();
    let shield = start();
    let actions = recorder.0.lock().unwrap().clone();
    assert!(!actions.iter().any(|action| matches!(action, AuditAction::Replace { .. })));
    shield.stop().unwrap();
    PinDirectory::purge(BPFFS.as_ref(), &instance).unwrap();
}
