//! Memory of the maps, and the time from files to enforced.

use std::time::Instant;

use ironclad::core::Cidr;
use ironclad::policy::{CompiledPolicy, Policy};
use ironclad::shield::Shield;

use crate::Figures;
use crate::common::Result;
use crate::common::lists::{compile, everything, random_v4, random_v6};
use crate::stats::Runs;

fn maps_mb(policy: &CompiledPolicy) -> Result<(f64, String)> {
    let shield = Shield::builder("figures").start_unattached(policy)?;
    let kernel = shield.policy_memory()? as f64 / 1e6;
    let computed = policy.memory().total() as f64 / 1e6;
    Ok((
        kernel,
        format!("{} prefixes; computed before the load: {computed:.2} MB", policy.prefixes()),
    ))
}

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    let mut memory = |name: &str, policy: &dyn Fn() -> Result<CompiledPolicy>| -> Result<()> {
        if figures.wants(name) {
            let (mb, how) = maps_mb(&policy()?)?;
            figures.set(name, mb, &how);
        }
        Ok(())
    };
    memory("maps_mb_100k", &|| {
        // Both families, from /8 and from /20 on.
        let mut cidrs: Vec<Cidr> = random_v4(70_000, 8, 5);
        cidrs.extend(random_v6(30_000, 6));
        compile(&cidrs)
    })?;
    memory("maps_mb_countries_ipsum", &|| Ok(everything()?.compile()?))?;
    memory("maps_mb_1m", &|| compile(&random_v4(1_000_000, 16, 1_000_000)))?;

    let name = "load_countries_ipsum_ms";
    if figures.wants(name) {
        // Enforced by a running firewall, which only then has its former policy freed.
        let shield = Shield::builder("figures").start_unattached(&Policy::builder().compile()?)?;
        let mut all = Vec::new();
        let mut compiled = Vec::new();
        for _ in 0..figures.runs() {
            let begin = Instant::now();
            let policy = everything()?.compile()?;
            compiled.push(begin.elapsed().as_secs_f64() * 1e3);
            shield.apply(&policy)?;
            all.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        let (all, compiled) = (Runs::of(all), Runs::of(compiled));
        figures.set(
            name,
            all.median,
            &format!("{all} ms, of which {compiled} to read and compile"),
        );
    }
    Ok(())
}
