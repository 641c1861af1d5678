//! nfsd, a file server whose threads are the kernel's.

use std::fs;
use std::path::Path;

use ironclad_core::abi::SentinelHook;
use ironclad_lab::harness::{Test, skip};
use ironclad_lab::test;
use ironclad_lab::test_process::{TestProcess, outcome};
use ironclad_sentinel::{EventReceiver, Overflow, SentinelRecord};

use crate::testbed::{Attacks, Host, does, held_names, lsm, unchanged};

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(clients_of_nfsd_do_not_change_protected_files).in_machine().needs(&[lsm])]
}

/// Its children are the threads of nfsd, too.
const KTHREADD: u32 = 2;
const EXPORTS: &str = "/proc/net/rpc";
const NFSD: &str = "/proc/fs/nfsd";

/// nfsd for clients of this machine, without the tools of NFS: the caches that they fill are filled here.
struct Nfsd;

impl Nfsd {
    /// Exports a directory as the root of NFSv4.
    fn start(process: &mut TestProcess, dir: &Path) -> Self {
        // fs/nfsd/export.h: ports of any number, no check of subtrees, a file system with a number.
        const FLAGS: u32 = 0x2 | 0x400 | 0x2000;
        let dir = dir.display();
        for module in ["nfsd", "nfsv4"] {
            if process.ask(&format!("tool modprobe {module}")).unwrap() != 0 {
                skip(format!("the machine has no module {module}"));
            }
        }
        does(process, &format!("tool mount -t nfsd none {NFSD}"));
        for (file, text) in [
            (format!("{NFSD}/versions"), "-2 -3\n".to_owned()),
            // Files are not opened before it ends.
            (format!("{NFSD}/nfsv4leasetime"), "10\n".to_owned()),
            (format!("{NFSD}/nfsv4gracetime"), "10\n".to_owned()),
            (format!("{EXPORTS}/auth.unix.ip/channel"), "nfsd 127.0.0.1 2147483647 own\n".into()),
            (
                format!("{EXPORTS}/nfsd.export/channel"),
                format!("own {dir} 2147483647 {FLAGS} 65534 65534 0\n"),
            ),
            (format!("{EXPORTS}/nfsd.fh/channel"), format!("own 1 \\x00000000 2147483647 {dir}\n")),
            (format!("{NFSD}/portlist"), "tcp 2049\n".into()),
            (format!("{NFSD}/threads"), "2\n".into()),
        ] {
            fs::write(&file, text).unwrap_or_else(|e| panic!("{file}: {e}"));
        }
        Self
    }
}

impl Drop for Nfsd {
    fn drop(&mut self) {
        fs::write(format!("{NFSD}/threads"), "0\n").unwrap();
    }
}

/// An attack whose alarms are of a kernel thread.
fn by_nfsd(
    attacks: &Attacks,
    name: &str,
    process: &mut TestProcess,
    order: &str,
    events: &EventReceiver,
) -> SentinelRecord {
    attacks.with_outcome(name, KTHREADD, events, || outcome(order, process.ask(order).unwrap()))
}

/// The client, on the same machine, can be any other.
fn clients_of_nfsd_do_not_change_protected_files() {
    let host = Host::new();
    let (export, mount) = (host.path("export"), host.path("mount"));
    for dir in [&export, &mount, &export.join("protected"), &export.join("control")] {
        fs::create_dir(dir).unwrap();
    }
    let (mut client, mut attacks) = (host.test_process(), Attacks::default());
    let _nfsd = Nfsd::start(&mut client, &export);
    let options = "sync,soft,vers=4.1,sec=sys,addr=127.0.0.1,clientaddr=127.0.0.1";
    let unmount = format!("tool umount {}", mount.display());
    does(&mut client, &format!("tool mount -t nfs4 -o {options} 127.0.0.1:/ {}", mount.display()));
    let at = |dir: &str, name: &str| mount.join(dir).join(name).display().to_string();
    let tried = |dir: &str| {
        [
            ("append to a protected file through nfsd", format!("append {}", at(dir, "file"))),
            ("truncate a protected file through nfsd", format!("truncate {}", at(dir, "file"))),
            ("chmod a protected file through nfsd", format!("chmod {}", at(dir, "file"))),
            ("create a protected file through nfsd", format!("create {}", at(dir, "new"))),
            (
                "rename a protected file through nfsd",
                format!("rename {} {}", at(dir, "other"), at("", "gone")),
            ),
            (
                "link a protected file through nfsd",
                format!("link {} {}", at(dir, "file"), at("", "link")),
            ),
            ("unlink a protected file through nfsd", format!("unlink {}", at(dir, "last"))),
        ]
    };
    for (dir, name) in ["protected", "control"]
        .iter()
        .flat_map(|dir| ["kept", "file", "other", "last"].map(|name| (*dir, name)))
    {
        fs::write(export.join(dir).join(name), "content").unwrap();
    }
    for (name, order) in tried("control") {
        attacks.without(name, &mut client, &order);
        let _ = fs::remove_file(export.join("gone"));
        let _ = fs::remove_file(export.join("link"));
    }
    let (by_server, write) = ("write to a protected file that nfsd opened before", "write-kept 1");
    let mut holder = host.test_process();
    does(&mut holder, &format!("keep-open {}", at("protected", "kept")));
    attacks.without(by_server, &mut holder, write);
    let kept = export.join("protected/kept");
    let content = fs::read(&kept).unwrap();
    assert_eq!(content[0], b'1');

    let sentinel = host.start(&unchanged(&export.join("protected")));
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    assert_eq!(held_names(&sentinel), ["kept"]);
    let event = by_nfsd(&attacks, by_server, &mut holder, write, &events);
    assert_eq!(event.hook, SentinelHook::FilePermission, "{event}");
    assert_eq!(fs::read(&kept).unwrap(), content);
    for (name, order) in tried("protected") {
        by_nfsd(&attacks, name, &mut client, &order, &events);
    }
    drop(sentinel);
    drop(holder);
    does(&mut client, &unmount);
}
