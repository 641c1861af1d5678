//! Needs root: marks of sockets for cgroups of version 1, after which older kernels ignore those of
//! version 2. One test alone in its program, and only in its own machine: the state lasts until the
//! machine is restarted.

use std::ffi::CStr;
use std::fs;
use std::path::Path;

use ironclad_lab::Cgroup;
use ironclad_policy::socket::SocketAction;
use ironclad_shield::{Shield, ShieldErrorKind};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::testbed::{EPERM, Host, policy, rule};
use ironclad_lab::harness::Test;
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(marks_of_net_cls_are_reported).in_machine().isolated()]
}

const THERE: &str = "connect tcp 10.9.0.2:80";

/// Cgroups of version 1, of which one is the test's.
struct Marks<'a>(&'a Path);

impl<'a> Marks<'a> {
    fn new(at: &'a Path, controller: &CStr) -> Self {
        mount(c"cgroup", at, c"cgroup", MountFlags::empty(), controller).unwrap();
        fs::create_dir(at.join("marked")).unwrap();
        Self(at)
    }

    fn write(&self, file: &str, text: impl ToString) {
        fs::write(self.0.join(file), text.to_string()).unwrap();
    }
}

impl Drop for Marks<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            fs::remove_dir(self.0.join("marked")).unwrap();
            unmount(self.0, UnmountFlags::empty()).unwrap();
        }
    }
}

/// Before Linux 5.15, and before 5.10.226 of the stable ones, marks switch hooks of cgroups off.
fn marks_of_net_cls_are_reported() {
    let host = Host::new();
    let program = host.program("one");
    let (mut marked, mut other) = (host.test_process(&program), host.test_process(&program));
    let pid = marked.pid();
    let deny = policy([rule(1, SocketAction::Deny)]);
    let shield = host.start(&deny);
    let group = Cgroup::new("kept").unwrap();
    let keep = Shield::builder("kept").persistent(true);
    let kept = keep.clone().cgroup(group.dir()).start(&deny).unwrap();
    let mut answers = || (marked.ask(THERE).unwrap(), other.ask(THERE).unwrap());
    let inactive = || shield.status().unwrap().inactive;
    assert_eq!((answers(), inactive()), ((EPERM, EPERM), None));

    let dir = tempfile::tempdir().unwrap();
    for (controller, file, mark) in
        [(c"net_cls", "net_cls.classid", "0x100001"), (c"net_prio", "net_prio.ifpriomap", "lo 5")]
    {
        let marks = Marks::new(dir.path(), controller);
        if inactive().is_none() {
            assert_eq!(answers(), (EPERM, EPERM), "nothing is marked");
        }
        marks.write(&format!("marked/{file}"), mark);
        marks.write("marked/cgroup.procs", pid);
        println!("{controller:?}: {:?}, {:?}", answers(), inactive());
        let expected = if inactive().is_some() { 0 } else { EPERM };
        assert_eq!(answers(), (expected, expected));
        marks.write("cgroup.procs", pid);
    }

    let Some(why) = inactive() else { return kept.stop().unwrap() };
    drop(kept);
    for (name, group) in [("later", &host.cgroup), ("kept", &group)] {
        let builder = Shield::builder(name).cgroup(group.dir()).persistent(name == "kept");
        let refused = builder.start(&deny).unwrap_err();
        assert_eq!(refused.kind(), ShieldErrorKind::Inactive, "{refused}");
        println!("{refused}");
    }
    // An instance that adopts the protected cgroup, and names none.
    let back = keep.start_unattached(&deny).unwrap();
    assert_eq!(back.status().unwrap().inactive, Some(why));
    back.stop().unwrap();
    // Hooks of the root are called in any case.
    let root = host.cgroup.dir().parent().unwrap();
    let on_root = Shield::builder("root").cgroup(root).start(&deny).unwrap();
    assert_eq!(on_root.status().unwrap().inactive, None);
    assert_eq!(answers(), (EPERM, EPERM));
}
