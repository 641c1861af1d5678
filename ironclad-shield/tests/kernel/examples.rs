//! Needs root: the examples of the workspace, as `cargo build --examples` leaves them beside this program.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use ironclad_lab::harness::{Test, skip};
use ironclad_lab::test;
use rustix::process::{Pid, Signal, kill_process};

use crate::live::{Net, frame_from, reaches};
use crate::testbed::PATIENCE;

pub(crate) fn tests() -> Vec<Test> {
    // Virtual machines do not have them.
    vec![test!(an_example_protects_while_its_output_is_a_closed_pipe).on_host()]
}

fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.ancestors().nth(2).unwrap().join("examples").join(name);
    if !path.exists() {
        skip(format!("no {}: cargo build --example {name}", path.display()));
    }
    path
}

/// A process that a test started, and that ends with it.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    /// How often it called write(2), also in vain.
    fn writes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.0.id())).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("syscw: ")).unwrap();
        count.parse().unwrap()
    }
}

fn an_example_protects_while_its_output_is_a_closed_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.yaml");
    std::fs::write(&policy, "sets: [{ id: 1, name: bad, action: drop, cidrs: [10.9.0.2] }]\n")
        .unwrap();
    let policy = policy.to_str().unwrap();
    for (name, arguments, at_sigterm) in [
        ("full_firewall", &["--interface", "eth0", "--policy", policy][..], None),
        // It has no handler, and ends as processes do.
        ("embed_shield", &["eth0", "10.9.0.2"], Some(Signal::TERM.as_raw())),
    ] {
        let net = Net::new();
        let (bad, good) = ("10.9.0.2", "10.9.0.3");
        assert_eq!(reaches(&net, bad), (true, true), "unprotected");
        let mut command = Command::new(example(name));
        command.args(arguments).stdout(Stdio::piped());
        let mut agent = Agent(net.host.run(|| command.spawn()).unwrap().unwrap());
        let injector = net.injector();
        // A packet that it drops is reported.
        let out = agent.0.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut lines = BufReader::new(out).lines().map_while(Result::ok);
            lines.find(|line| line.contains(": drop 10.9.0.2:"))
        });
        let begun = Instant::now();
        while !reader.is_finished() {
            assert!(begun.elapsed() < PATIENCE, "{name} reports nothing");
            injector.send(&frame_from(bad)).unwrap();
            std::thread::yield_now();
        }
        // The reader has closed the pipe.
        reader.join().unwrap().unwrap_or_else(|| panic!("{name}: {:?}", agent.0.wait()));
        let (before, begun) = (agent.writes(), Instant::now());
        while agent.writes() < before + 3 {
            assert!(begun.elapsed() < PATIENCE, "{name} writes nothing");
            assert_eq!(agent.0.try_wait().unwrap(), None, "{name}");
            injector.send(&frame_from(bad)).unwrap();
        }
        assert_eq!(reaches(&net, bad), (false, false), "{name}");
        assert_eq!(reaches(&net, good), (true, true), "{name}");
        assert_eq!(agent.0.try_wait().unwrap(), None, "{name}");
        // What it says at the end does not stop it, either.
        kill_process(Pid::from_child(&agent.0), Signal::TERM).unwrap();
        let status = agent.0.wait().unwrap();
        assert_eq!((status.signal(), status.success()), (at_sigterm, at_sigterm.is_none()));
        assert_eq!(reaches(&net, bad), (true, true), "{name} detached");
    }
}
