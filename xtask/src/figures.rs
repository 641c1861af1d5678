//! The figures of docs/benchmarks.md and the race, measured by `benches/figures.rs`.

use std::process::{Command, ExitCode, Stdio};

use serde_json::{Map, Value};

use crate::command::{cargo, line, output_bytes};
use crate::failure::{Context, Failure, Result};
use crate::kernels::Kernel;
use crate::setup::{self, Purpose};
use crate::vm::{Job, Program};
use crate::{kernels, opensnitch, vm};

/// What is measured, and what is printed of it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Print one JSON object alone.
    #[arg(long)]
    json: bool,
    /// Only figures whose names begin with this.
    #[arg(long, default_value = "")]
    only: String,
    /// Runs of each measurement, of which the median counts.
    #[arg(long)]
    runs: Option<usize>,
    /// The kernel that Sentinel is measured on: 5.10, 6.1, 6.12 or newest.
    #[arg(long, default_value = "newest")]
    kernel: String,
    /// Measure Sentinel on this host instead, which it guards meanwhile.
    #[arg(long)]
    here: bool,
}

/// What the names of Sentinel's figures begin with.
const SENTINEL: &str = "sentinel_";
/// What has to be among them.
const SENTINEL_KEYS: [&str; 13] = [
    "sentinel_start_ms",
    "sentinel_open_overhead_pct",
    "sentinel_read_overhead_pct",
    "sentinel_write_overhead_pct",
    "sentinel_checked_read_overhead_pct",
    "sentinel_checked_write_overhead_pct",
    "sentinel_stat_overhead_pct",
    "sentinel_rename_overhead_pct",
    "sentinel_unlink_overhead_pct",
    "sentinel_exec_overhead_pct",
    "sentinel_10000_vs_10_ratio",
    "sentinel_maps_mb_10000",
    "sentinel_insns_file_open",
];
/// Three runs take a tenth of it where nothing else does.
const MACHINE_SECONDS: u64 = 3600;

impl Options {
    fn wants_sentinel(&self) -> bool {
        SENTINEL.starts_with(&self.only) || self.only.starts_with(SENTINEL)
    }

    fn wants_others(&self) -> bool {
        !self.only.starts_with(SENTINEL)
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![format!("--only={}", self.only)];
        arguments.extend(self.json.then(|| "--json".to_owned()));
        arguments.extend(self.runs.map(|runs| format!("--runs={runs}")));
        arguments
    }
}

/// Measures the figures.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    prepare("figures")?;
    // A kernel that is not there is reported before minutes of measuring.
    let machine = match options.wants_sentinel() && !options.here {
        true => kernels::fetch(std::slice::from_ref(&options.kernel), false)?,
        false => Vec::new(),
    };
    let mut found = Map::new();
    let mut is_good = true;
    if options.wants_others() {
        let mut bench = bench(&options.arguments());
        match opensnitch::root() {
            Ok(root) => drop(bench.env("IRONCLAD_OPENSNITCH", root)),
            // The figure that needs it is left out, aloud.
            Err(error) => eprintln!("no OpenSnitch: {error}"),
        }
        is_good &= measured(&mut bench, options.json, &mut found)?;
    }
    if options.wants_sentinel() {
        let arguments = [options.arguments(), vec!["sentinel".to_owned()]].concat();
        is_good &= match machine.first() {
            None => measured(&mut bench(&arguments), options.json, &mut found)?,
            Some(kernel) => in_machine(kernel, options, arguments, &mut found)?,
        };
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&found).context("printing the figures")?);
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Races other firewalls and Shield.
pub(crate) fn race(arguments: &[String]) -> Result<ExitCode> {
    prepare("race")?;
    let mut bench = bench(&[&["race".to_owned()], arguments].concat());
    let status = bench.status().context(line(&bench))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1).into())
}

fn prepare(task: &str) -> Result<()> {
    setup::ensure(Purpose::Race)?;
    if setup::is_root() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "this is measured in the kernel, which only root may: sudo cargo xtask {task}"
    )))
}

fn bench(arguments: &[String]) -> Command {
    let mut bench = cargo(["bench", "--quiet", "--bench", "figures", "--"]);
    bench.args(arguments);
    bench
}

/// Runs it; as JSON, keeps what it says. Whether it came to its end.
fn measured(bench: &mut Command, json: bool, found: &mut Map<String, Value>) -> Result<bool> {
    if !json {
        return Ok(bench.status().context(line(bench))?.success());
    }
    let done = bench.stderr(Stdio::inherit()).output().context(line(bench))?;
    found.extend(figures_in(&String::from_utf8_lossy(&done.stdout)));
    Ok(done.status.success())
}

/// Sentinel's figures, in a virtual machine whose clock counts instructions.
fn in_machine(
    kernel: &Kernel,
    options: &Options,
    arguments: Vec<String>,
    found: &mut Map<String, Value>,
) -> Result<bool> {
    let mut build = cargo(["bench", "--no-run", "--bench", "figures"]);
    build.arg("--message-format=json-render-diagnostics");
    let messages = output_bytes(&mut build)?;
    let executable = |message: &[u8]| {
        let message: Value = serde_json::from_slice(message).ok()?;
        message["executable"].as_str().map(Into::into)
    };
    let from = messages.split(|&byte| byte == b'\n').find_map(executable);
    let to = "/bin/figures".to_owned();
    let job = Job {
        commands: vec![[vec![to.clone()], arguments].concat()],
        programs: vec![Program { from: from.context("cargo built no figures")?, to }],
        timeout_seconds: MACHINE_SECONDS,
        counts_instructions: true,
        ..Job::default()
    };
    let report = vm::run(kernel, &job, |line| match options.json {
        false => println!("{line}"),
        true if line.starts_with("SKIP") => eprintln!("{line}"),
        true => {}
    })?;
    let said = report.ran.first().map(|ran| ran.output.as_str()).unwrap_or_default();
    if options.json {
        found.extend(figures_in(said));
    }
    let missing = missing_in(said);
    if !missing.is_empty() {
        eprintln!("{}: not measured: {}", kernel.release, missing.join(", "));
    }
    let is_good = report.problem.is_none() && report.ran.iter().all(|ran| ran.status == Some(0));
    if !is_good {
        eprintln!("{}: {}\n{said}", kernel.release, report.problem.unwrap_or_default());
    }
    Ok(is_good && missing.is_empty())
}

/// Figures that were not printed.
fn missing_in(said: &str) -> Vec<&'static str> {
    SENTINEL_KEYS.into_iter().filter(|key| !said.contains(key)).collect()
}

/// The object in what was said; nothing where there is none.
fn figures_in(said: &str) -> Map<String, Value> {
    let object = said.find('{').zip(said.rfind('}')).and_then(|(from, to)| said.get(from..=to));
    object.and_then(|object| serde_json::from_str(object).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(only: &str) -> Options {
        let only = only.to_owned();
        Options { json: true, only, runs: None, kernel: String::new(), here: false }
    }

    #[test]
    fn a_prefix_says_what_is_measured() {
        for (only, sentinel, others) in [
            ("", true, true),
            ("s", true, true),
            ("sentinel_", true, false),
            ("sentinel_open", true, false),
            ("swap", false, true),
        ] {
            let options = options(only);
            assert_eq!(options.wants_sentinel(), sentinel, "{only}");
            assert_eq!(options.wants_others(), others, "{only}");
        }
    }

    #[test]
    fn no_figure_of_sentinels_is_missing_unseen() {
        let said = SENTINEL_KEYS.join(" 1\n");
        assert!(missing_in(&said).is_empty());
        assert_eq!(missing_in(&said.replace("stat", "state")), ["sentinel_stat_overhead_pct"]);
        let docs = include_str!("../../docs/benchmarks.md");
        for key in SENTINEL_KEYS {
            assert!(docs.contains(key), "{key} is not in docs/benchmarks.md");
        }
    }

    #[test]
    fn figures_are_found_among_what_is_said() {
        let found = figures_in("SKIP a: none\n{\n  \"b\": 1.5\n}\nbye");
        assert_eq!(found.get("b"), Some(&Value::from(1.5)));
        assert!(figures_in("} nothing {").is_empty());
    }
}
