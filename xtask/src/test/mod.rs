//! Every test: what needs nothing, what needs this machine's kernel, what needs others, fuzzing.

mod fuzz;
mod libtest;
mod matrix;
mod records;
mod report;
mod targets;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use clap::{Args, ValueEnum};

use crate::command::{cargo, command, create_dir, line, output, tail, write};
use crate::failure::{Context, Result};
use crate::kernels::Kernel;
use crate::{attacks, check, kernels, setup};
pub(crate) use libtest::Attack;
use libtest::Tests;
#[cfg(test)]
pub(crate) use libtest::parse;
pub(crate) use matrix::Depth;
pub(crate) use report::{Outcome, Report, Row};
use targets::Binary;
pub(crate) use targets::executable;

/// What is off by default and needs neither root nor a special kernel.
pub(crate) const FEATURES: &str =
    "ironclad-policy/fetch,ironclad-policy/maxmind,ironclad-policy/schema,ironclad-policy/signed";
/// Kernel tests. Everything is built with them: other features would be another build of most dependencies.
const KERNEL_TESTS: &str =
    "ironclad-bpf/kernel-tests,ironclad-sentinel/kernel-tests,ironclad-shield/kernel-tests";

/// `cargo test` of the workspace with all features that tests need.
fn cargo_test<const N: usize>(arguments: [&str; N]) -> Command {
    let mut test = cargo(["test", "--workspace"]);
    test.args(["--features", FEATURES, "--features", KERNEL_TESTS]).args(arguments);
    test
}

/// A part of the tests.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Part {
    /// `cargo test --workspace` with what needs nothing but a feature: needs neither root nor a special kernel.
    Pure,
    /// Kernel tests, as root on this machine's kernel.
    Host,
    /// Kernel tests, in virtual machines of each kernel.
    Matrix,
    /// Each fuzz target for a bounded time.
    Fuzz,
}

#[derive(Args)]
pub(crate) struct Options {
    /// Only these parts, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Only these kernels of the matrix, separated by commas, and everything on each of them.
    #[arg(long, value_delimiter = ',')]
    kernels: Vec<String>,
    /// Everything on every kernel of the matrix, and not on the oldest and the newest alone.
    #[arg(long)]
    whole: bool,
    /// Seconds for each fuzz target.
    #[arg(long, default_value_t = 20)]
    fuzz_seconds: u32,
    /// Write the result as JSON to this file, too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Keep the numbers that tests print, to show growth against them from now on.
    #[arg(long)]
    record: bool,
}

/// Long enough for a slow machine; a hang ends here.
const PURE_SECONDS: u32 = 1500;
const BINARY_SECONDS: u32 = 1500;

/// Runs the parts that are asked for, and checks before where they are, and adds what came out.
pub(crate) fn run(options: &Options, checks_too: bool, report: &mut Report) -> Result<()> {
    let wants = |part| options.only.is_empty() || options.only.contains(&part);
    let before = || {
        let mut report = Report::default();
        if checks_too {
            timed(&mut report, "check", "checks", |report| check::run(&[], report));
        }
        if wants(Part::Pure) {
            timed(&mut report, "pure", "cargo test", pure);
        }
        report
    };
    // Virtual machines compute. What builds waits now and then, and tests on this machine's kernel mostly do.
    let mut in_matrix = Report::default();
    let beside = std::thread::scope(|scope| {
        let before = scope.spawn(before);
        let on_host = wants(Part::Host).then(|| scope.spawn(host_report));
        if wants(Part::Matrix) {
            timed(&mut in_matrix, "matrix", "build", |report| matrix_and_attacks(options, report));
        }
        [Some(before), on_host].map(|thread| thread.map(|thread| thread.join()))
    });
    let [before, on_host] = beside.map(|report| report.unwrap_or_else(|| Ok(Report::default())));
    for part in [before, Ok(in_matrix), on_host] {
        report.append(part.map_err(|_| "a thread of tests panicked".to_owned())?);
    }
    if wants(Part::Fuzz) {
        timed(report, "fuzz", "build", |report| fuzz::run(options.fuzz_seconds, report));
    }
    Ok(())
}

fn host_report() -> Report {
    let mut report = Report::default();
    timed(&mut report, "host", "build", host);
    report
}

fn matrix_and_attacks(options: &Options, report: &mut Report) -> Result<()> {
    let mut kernels = kernels::fetch(&options.kernels, false)?;
    // Kernels that are named run everything.
    let is_whole = options.whole || !options.kernels.is_empty();
    let depth = if is_whole { Depth::Whole } else { Depth::Ends };
    run_matrix(&kernels, None, depth, report)?;
    kernels.retain(|kernel| depth.is_whole_on(kernel));
    attacks::compare(&kernels, report)
}

/// Runs kernel tests, only those of a package where one is named, on each of the kernels.
pub(crate) fn run_matrix(
    kernels: &[Kernel],
    package: Option<&str>,
    depth: Depth,
    report: &mut Report,
) -> Result<()> {
    matrix::run(kernels, &targets::build(package)?, depth, report)
}

/// What goes wrong before a test can run is a failure of its own; the other parts go on.
fn timed(
    report: &mut Report,
    suite: &str,
    step: &str,
    part: impl FnOnce(&mut Report) -> Result<()>,
) {
    let started = Instant::now();
    if let Err(error) = part(report) {
        let outcome = Outcome::Failed(error.to_string());
        report.add(Row::single(suite, step, outcome, started.elapsed().as_secs_f64()));
    }
}

/// `cargo xtask test`, after the run: prints, and keeps what is to be kept.
pub(crate) fn conclude(options: &Options, report: &Report) -> Result<()> {
    if let Some(path) = &options.json {
        report.write_json(path)?;
    }
    if options.record {
        records::save(report)?;
    }
    let records = records::text(report)?;
    print!("{records}{}", report.text());
    Ok(())
}

/// Where what a run has left to be read is kept.
pub(crate) fn log_dir() -> Result<PathBuf> {
    let dir = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let dir = dir.join("test-logs");
    create_dir(&dir).map(|()| dir)
}

/// Shows the end of a failed binary's output and keeps all of it in a file.
fn show_failure(suite: &str, name: &str, output: &str) {
    const LINES: usize = 80;
    const COLUMNS: usize = 400;
    let kept = log_dir().and_then(|dir| {
        let file = dir.join(format!("{suite} {name}.log").replace(' ', "-"));
        write(&file, output).map(|()| file.display().to_string())
    });
    let place = kept.unwrap_or_else(|error| error.to_string());
    eprintln!("---- {suite} {name}: the last lines of {place}");
    for line in tail(output, LINES).lines() {
        eprintln!("{}", line.chars().take(COLUMNS).collect::<String>());
    }
}

/// Both output streams in one, in the order of writing.
fn merged(command_line: &Command, seconds: u32) -> Command {
    let mut merged = command("timeout", ["--kill-after=10".into(), seconds.to_string()]);
    merged.args(["sh", "-c", "exec \"$@\" 2>&1", "sh"]);
    merged.arg(command_line.get_program()).args(command_line.get_args());
    merged.envs(command_line.get_envs().filter_map(|(name, value)| Some((name, value?))));
    merged
}

fn pure(report: &mut Report) -> Result<()> {
    let mut tests = cargo_test(["--no-fail-fast", "--", "--show-output"]);
    // No module of kernel tests: they run as root, on their own.
    tests.env("IRONCLAD_TEST_MODULES", "none");
    let started = Instant::now();
    let ended = merged(&tests, PURE_SECONDS).output().context(line(&tests))?;
    let seconds = started.elapsed().as_secs_f64();
    let output = String::from_utf8_lossy(&ended.stdout);
    let mut failures = 0;
    for (target, text) in libtest::sections(&output) {
        let tests = libtest::parse(&text);
        failures += tests.failed.len();
        let (is_empty, seconds) = (tests == Tests::default(), tests.seconds);
        if !is_empty {
            report.add(Row::of_tests("pure", &target, tests, seconds));
        }
    }
    if !ended.status.success() {
        show_failure("pure", "cargo test", &output);
        if failures == 0 {
            let outcome = Outcome::Failed(format!("ended with {}", ended.status));
            report.add(Row::single("pure", "cargo test", outcome, seconds));
        }
    }
    Ok(())
}

fn host(report: &mut Report) -> Result<()> {
    // A test of Shield runs them; with the features of other tests, for the sake of their dependencies.
    let mut examples = cargo(["build", "--workspace", "--features", FEATURES]);
    examples.args([
        "--features",
        KERNEL_TESTS,
        "--example=embed_shield",
        "--example=full_firewall",
    ]);
    output(&mut examples)?;
    for binary in targets::build(None)? {
        if setup::is_root() {
            let row = on_host(&binary)?;
            report.add(row);
        } else {
            let outcome = Outcome::Skipped("needs root: run cargo xtask test as root".into());
            report.add(Row::single("host", &binary.package, outcome, 0.0));
        }
    }
    Ok(())
}

fn on_host(binary: &Binary) -> Result<Row> {
    let tests = command(&binary.file, [""; 0]);
    let started = Instant::now();
    let ended = merged(&tests, BINARY_SECONDS)
        .current_dir(&binary.dir)
        .env("CARGO_MANIFEST_DIR", &binary.dir)
        .env("RUST_BACKTRACE", "1")
        .output()
        .context(&binary.package)?;
    let output = String::from_utf8_lossy(&ended.stdout);
    let mut tests = libtest::parse(&output);
    if ended.status.code() == Some(124) {
        tests.failed.push(format!("cut after {BINARY_SECONDS} s"));
    } else if !ended.status.success() && tests.failed.is_empty() {
        tests.failed.push(format!("ended with {}", ended.status));
    }
    if !tests.failed.is_empty() {
        show_failure("host", &binary.package, &output);
    }
    Ok(Row::of_tests("host", &binary.package, tests, started.elapsed().as_secs_f64()))
}
