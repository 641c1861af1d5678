//! An agent whose executable is replaced. Isolated, because the test's own program is the one that is replaced.

use std::process::Command;

use crate::testbed::successor::{Successor, builder, policy};
use crate::testbed::{EPERM, Host, lsm};
use ironclad_lab::harness::Test;
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(an_upgraded_agent_adopts_the_instance).in_machine().isolated().needs(&[lsm])]
}

/// After a refresh, the executable by which an updater has replaced the agent's is the agent's.
fn an_upgraded_agent_adopts_the_instance() {
    let host = Host::new();
    let (dir, file) = (host.dir(), host.path("protected/file"));
    std::fs::create_dir(host.path("protected")).unwrap();
    std::fs::write(&file, "1").unwrap();
    let own = std::env::current_exe().unwrap();
    let next = own.with_extension("next");
    std::fs::copy(&own, &next).unwrap();
    let tool = host.program("updater");
    let mut attacker = host.test_process();
    let sentinel = builder(dir).updater(&tool).start(&policy(dir)).unwrap();
    let mut updater = host.test_process_by(&tool);
    let replace = format!("rename {} {}", next.display(), own.display());
    let append = format!("append {}", file.display());
    assert_eq!(attacker.ask(&replace).unwrap(), EPERM);
    assert_eq!(updater.ask(&append).unwrap(), EPERM);
    assert_eq!(updater.ask(&replace).unwrap(), 0);
    sentinel.apply(&policy(dir)).unwrap();
    drop(sentinel);

    let mut successor = Successor::start(Successor::command_by(Command::new(&own), dir));
    assert_eq!(successor.says(), "ready");
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    assert_eq!(attacker.ask(&format!("unlink {}", own.display())).unwrap(), EPERM);
    successor.send("stop");
    assert_eq!(successor.says(), "stopped");
    drop(successor);
    assert_eq!(attacker.ask(&append).unwrap(), 0);
}
