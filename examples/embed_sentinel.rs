//! An agent that nobody else on this host may touch, root included, and a directory that only it may
//! change: `embed_sentinel /etc/my-agent`. Needs root and BPF LSM; ends with the first line on its
//! standard input. `examples/fortress` attacks one.

use ironclad::core::RuleId;
use ironclad::policy::Policy;
use ironclad::policy::file::{FileAction, FileRule};
use ironclad::sentinel::{Overflow, Sentinel};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: embed_sentinel DIRECTORY")?;
    let rule = FileRule::new(RuleId(1), "my agent's", FileAction::Deny).tree(dir);
    let policy = Policy::builder().file_rule(rule).compile()?;
    let sentinel = Sentinel::builder("embed-sentinel").start(&policy)?;
    let (_pump, alarms) = sentinel.events(1024, Overflow::DropNewest)?;
    for hook in sentinel.status()?.hooks {
        println!("{}: {}", hook.name, hook.state);
    }
    std::thread::spawn(move || alarms.as_crossbeam().iter().for_each(|alarm| println!("{alarm}")));
    std::io::stdin().read_line(&mut String::new())?;
    Ok(sentinel.stop()?)
}
