//! How long a program that was just replaced, as packages are upgraded, is an unidentified process to the rules
//! that name its path.

use ironclad::core::{RuleId, SocketVerdict};
use ironclad::policy::Policy;
use ironclad::policy::socket::{Direction, SocketAction, SocketRule, Subject};
use ironclad::shield::Shield;
use ironclad_bpf::boottime_ns;
use ironclad_lab::{Cgroup, Lab};

use crate::Figures;
use crate::common::Result;
use crate::connect::Connector;
use crate::stats::Runs;

const NAME: &str = "replaced_file_window_ms";

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    if !figures.wants(NAME) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let net = lab.namespace("replaced")?;
    net.ip(&["route", "add", "default", "dev", "lo"])?;
    net.ip(&["addr", "add", "10.9.0.1/32", "dev", "lo"])?;
    let cgroup = Cgroup::new("replaced")?;
    let dir = tempfile::tempdir()?;
    let (program, next) = (dir.path().join("program"), dir.path().join("next"));
    let own = std::env::current_exe()?;
    std::fs::copy(&own, &program)?;
    let rule = SocketRule::new(RuleId(1), "program", SocketAction::Allow)
        .subject(Subject::new("program").exe(&program));
    let policy = Policy::builder()
        .socket_rule(rule)
        .socket_default(Direction::Out, SocketVerdict::Deny)
        .danger_packet_sockets_unseen(true)
        .compile()?;
    let _shield = Shield::builder("replaced").cgroup(cgroup.dir()).start(&policy)?;
    // What a process takes to start and to connect, where nothing was replaced.
    let mut took: [Vec<f64>; 2] = Default::default();
    for _ in 0..figures.runs() {
        for (is_replaced, took) in [false, true].into_iter().zip(&mut took) {
            std::fs::copy(&own, &next)?;
            let began = boottime_ns();
            if is_replaced {
                std::fs::rename(&next, &program)?;
            }
            let start = || Connector::start(&cgroup, &program).map_err(|e| e.to_string());
            let may = net.run(start)??.ask("until")?.wall;
            took.push((may - began as f64) / 1e6);
        }
    }
    let [start, window] = took.map(Runs::of);
    let how = format!("{window} ms from rename to connect(2); {start} where nothing was replaced");
    figures.set(NAME, window.median, &how);
    Ok(())
}
