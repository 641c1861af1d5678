//! The figures that `docs/benchmarks.md` speaks of, measured in one run against baselines that run
//! beside them. `cargo xtask figures` calls it; needs root.

#[path = "common/mod.rs"]
mod common;
#[path = "figures/connect.rs"]
mod connect;
#[path = "figures/lists.rs"]
mod lists;
#[path = "figures/lookup.rs"]
mod lookup;
#[path = "figures/opensnitch.rs"]
mod opensnitch;
#[path = "figures/program.rs"]
mod program;
#[path = "figures/race/mod.rs"]
mod race;
#[path = "figures/replaced.rs"]
mod replaced;
#[path = "figures/sentinel.rs"]
mod sentinel;
#[path = "figures/stall.rs"]
mod stall;
#[path = "figures/start.rs"]
mod start;
#[path = "figures/stats.rs"]
mod stats;

use std::collections::BTreeMap;

use clap::{Parser, Subcommand};

/// Measures and prints one flat object of numbers.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    task: Option<Task>,
    /// Print JSON alone.
    #[arg(long, global = true)]
    json: bool,
    /// Only figures with names that begin with this.
    #[arg(long, global = true, default_value = "")]
    only: String,
    /// Runs of each measurement, of which the median counts: 7 by default, 5 rounds of a race, 3 of
    /// Sentinel.
    #[arg(long, global = true)]
    runs: Option<usize>,
    /// `cargo bench` passes it.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Race nftables, ipset, xdp-filter and Shield on one veth pair.
    Race(race::Race),
    /// Measure `sentinel_*` on this host, where Sentinel is armed meanwhile: `cargo xtask figures` does it in a
    /// virtual machine.
    Sentinel,
    /// What `connect_*` are measured on: connects on orders.
    #[command(hide = true)]
    Connector,
    /// What `sentinel_*` are measured on: uses files on orders.
    #[command(hide = true)]
    Clerk,
}

/// What has been measured so far.
struct Figures {
    args: Args,
    values: BTreeMap<String, f64>,
}

impl Figures {
    fn wants(&self, name: &str) -> bool {
        name.starts_with(&self.args.only)
    }

    /// Records a figure, and prints how it was measured.
    fn set(&mut self, name: &str, value: f64, how: &str) {
        let value = (value * 1000.0).round() / 1000.0;
        if !self.args.json {
            println!("{name:32} {value:>10}   {how}");
        }
        self.values.insert(name.to_owned(), value);
    }

    /// Says why a figure is missing.
    fn skip(&self, name: &str, why: &str) {
        eprintln!("SKIP {name}: {why}");
    }

    fn runs(&self) -> usize {
        self.args.runs.unwrap_or(7)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut figures = Figures { args: Args::parse(), values: BTreeMap::new() };
    match &figures.args.task {
        Some(Task::Race(race)) => {
            return race::run(race, figures.args.runs.unwrap_or(5), figures.args.json);
        }
        Some(Task::Connector) => return connect::connector(),
        Some(Task::Clerk) => return sentinel::clerk(),
        Some(Task::Sentinel) => sentinel::measure(&mut figures)?,
        None => {
            lookup::measure(&mut figures)?;
            program::measure(&mut figures)?;
            lists::measure(&mut figures)?;
            stall::measure(&mut figures)?;
            start::shield(&mut figures)?;
            connect::measure(&mut figures)?;
            replaced::measure(&mut figures)?;
            race::measure(&mut figures)?;
        }
    }
    if figures.args.json {
        println!("{}", serde_json::to_string_pretty(&figures.values)?);
    }
    Ok(())
}
