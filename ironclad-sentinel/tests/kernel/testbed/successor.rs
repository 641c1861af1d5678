//! Agents that adopt the instance of an earlier agent.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use ironclad_core::audit::{DeferredSink, JsonLinesSink};
use ironclad_core::{ErrorChain, RuleId};
use ironclad_lab::harness::Role;
use ironclad_lab::role;
use ironclad_policy::file::{FileAction, FileRule};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_sentinel::{BaselineOptions, Launch, Sentinel, SentinelBuilder};

/// The directory of a successor.
const AGENT: &str = "IRONCLAD_TEST_AGENT";
/// The cgroup in which later successors are to be.
pub(crate) const GROUP: &str = "IRONCLAD_TEST_GROUP";
/// Another state directory.
pub(crate) const STATE: &str = "IRONCLAD_TEST_STATE";

/// An audit file, which is opened before the start, or at its first record.
pub(crate) const AUDIT: [&str; 2] = ["IRONCLAD_TEST_AUDIT", "IRONCLAD_TEST_DEFERRED_AUDIT"];
/// Set where there is a baseline.
pub(crate) const BASELINE: &str = "IRONCLAD_TEST_BASELINE";

/// An agent that adopts the instance.
pub(crate) const ROLE: Role = role!(successor);

fn successor() {
    let dir = PathBuf::from(std::env::var_os(AGENT).unwrap());
    let mut lines = std::io::stdin().lines();
    let builder = match std::env::var_os(GROUP) {
        Some(group) => builder(&dir).launched_in(group),
        None => builder(&dir),
    };
    let builder = match std::env::var_os(STATE) {
        Some(state) => builder.state_dir(state),
        None => builder,
    };
    let builder = match AUDIT.map(std::env::var_os) {
        [Some(path), _] => match JsonLinesSink::open(path) {
            Ok(sink) => builder.audit(Arc::new(sink)),
            Err(error) => return println!("@@ {}", ErrorChain::new(&error)),
        },
        [_, Some(path)] => builder.audit(Arc::new(DeferredSink::new(path))),
        _ => builder,
    };
    let builder = match std::env::var_os(BASELINE) {
        Some(_) => builder.baseline(BaselineOptions::default()),
        None => builder,
    };
    match builder.start(&policy(&dir)) {
        Ok(sentinel) => {
            println!("@@ ready");
            std::io::stdout().flush().unwrap();
            match lines.next().map(Result::unwrap).as_deref() {
                Some("stop") => {
                    sentinel.stop().unwrap();
                    println!("@@ stopped");
                }
                Some("degraded") => println!("@@ {:?}", sentinel.status().unwrap().degraded),
                // Until it is killed.
                Some("reload") => loop {
                    for tree in TREES {
                        sentinel.apply(&one_of(&dir, tree)).unwrap();
                    }
                },
                _ => {}
            }
        }
        Err(error) => println!("@@ {}", ErrorChain::new(&error)),
    }
}

pub(crate) fn builder(dir: &Path) -> SentinelBuilder {
    // One for each test.
    let instance = dir.file_name().unwrap().to_string_lossy().replace('.', "_");
    Sentinel::builder(&instance)
        .persistent(true)
        .launched_by(Launch::Trusted)
        .state_dir(dir.join("state"))
}

pub(crate) fn policy(dir: &Path) -> CompiledPolicy {
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(dir.join("protected"));
    Policy::builder().file_rule(rule).compile().unwrap()
}

/// The two trees that [`one_of`] protects by turns.
pub(crate) const TREES: [&str; 2] = ["even", "odd"];

/// The policy, and a rule on one of the trees.
pub(crate) fn one_of(dir: &Path, tree: &str) -> CompiledPolicy {
    let rule = |number, name| FileRule::new(RuleId(number), name, FileAction::Deny);
    let rules = Policy::builder().file_rule(rule(1, "one").tree(dir.join("protected")));
    rules.file_rule(rule(2, "two").tree(dir.join(tree))).compile().unwrap()
}

pub(crate) struct Successor {
    pub(crate) child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Successor {
    pub(crate) fn command(dir: &Path) -> Command {
        Self::command_by(Command::new(std::env::current_exe().unwrap()), dir)
    }

    pub(crate) fn command_by(mut command: Command, dir: &Path) -> Command {
        ROLE.play(&mut command).env(AGENT, dir);
        command
    }

    pub(crate) fn start(mut command: Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    pub(crate) fn says(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "it has ended");
            if let Some((_, words)) = line.split_once("@@ ") {
                return words.trim().to_owned();
            }
        }
    }

    pub(crate) fn send(&mut self, words: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{words}").unwrap();
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
