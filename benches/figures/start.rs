//! From `start()` to the running instance, with an empty policy.

use std::time::Instant;

use ironclad::policy::{CompiledPolicy, Policy};
use ironclad::sentinel::Sentinel;
use ironclad::shield::Shield;
use ironclad_lab::Cgroup;

use crate::Figures;
use crate::common::Result;
use crate::stats::Runs;

/// Shield with socket rules, on a cgroup.
pub(crate) fn shield(figures: &mut Figures) -> Result<()> {
    let cgroup = Cgroup::new("start")?;
    measure(figures, "shield_start_ms", |policy| {
        let shield = Shield::builder("start").cgroup(cgroup.dir()).start(policy)?;
        Ok(move || Ok(shield.stop()?))
    })
}

/// Sentinel, armed. A clock that counts instructions has a million of them in a millisecond.
pub(crate) fn sentinel(figures: &mut Figures) -> Result<()> {
    measure(figures, "sentinel_start_ms", |policy| {
        let sentinel = Sentinel::builder("start").start(policy)?;
        Ok(move || Ok(sentinel.stop()?))
    })
}

/// `start` returns what stops the instance.
fn measure<Stop: FnOnce() -> Result<()>>(
    figures: &mut Figures,
    name: &str,
    start: impl Fn(&CompiledPolicy) -> Result<Stop>,
) -> Result<()> {
    if !figures.wants(name) {
        return Ok(());
    }
    let policy = Policy::builder().compile()?;
    let mut times = Vec::new();
    for _ in 0..figures.runs() {
        let began = Instant::now();
        let stop = start(&policy)?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        stop()?;
    }
    let times = Runs::of(times);
    figures.set(name, times.median, &times.to_string());
    Ok(())
}
