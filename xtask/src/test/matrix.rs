//! The same binaries on each kernel, in virtual machines.

use std::sync::Mutex;
use std::time::Instant;

use super::libtest::{self, Tests};
use super::report::{Outcome, Report, Row};
use super::targets::Binary;
use crate::failure::{Context, Result};
use crate::kernels::{self, Kernel};
use crate::vm::{self, Job, Program};

/// Each has two processors, like the machine that CI runs on. More than that has: on 6.1 half of the time goes by
/// while the kernel detaches programs from functions (`synchronize_rcu_tasks`) and the processors idle; 6.12 is as slow.
const MACHINES_AT_ONCE: usize = 4;
/// For one program; emulation is ten to twenty times slower than the host.
const TIMEOUT_SECONDS: u64 = 3600;

/// The package with tests for machines of their own.
const APART: &str = "ironclad-sentinel";

/// What is special about a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Machine {
    Usual,
    /// Its kernel has no BPF LSM among its security modules.
    WithoutLsm,
    /// Its tests harden the kernel until the next boot.
    Hardened,
}

impl Machine {
    fn name(self) -> &'static str {
        match self {
            Self::Usual => "machine",
            Self::WithoutLsm => "machine without BPF LSM",
            Self::Hardened => "hardened machine",
        }
    }

    /// The variable that chooses its tests.
    fn variable(self) -> Option<&'static str> {
        match self {
            Self::Usual => None,
            Self::WithoutLsm => Some("IRONCLAD_WITHOUT_LSM"),
            Self::Hardened => Some("IRONCLAD_HARDENED"),
        }
    }
}

/// What kernels between the oldest and the newest run where the whole is not asked for, by package: that everything
/// loads, and what asks most of the kernel's own code.
const BETWEEN: [(&str, &str); 3] = [
    ("ironclad-bpf", "audit,load,probe,probe_hooks,processes,sentinel_hooks"),
    ("ironclad-sentinel", "files,mounts,self_protection"),
    ("ironclad-shield", "packets,sockets"),
];

/// How much is run on which kernels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Depth {
    /// Everything on all of them.
    Whole,
    /// Everything on the oldest and the newest, and [`BETWEEN`] on others.
    Ends,
}

impl Depth {
    pub(crate) fn is_whole_on(self, kernel: &Kernel) -> bool {
        self == Self::Whole || kernels::is_end(&kernel.label)
    }
}

pub(crate) fn run(
    kernels: &[Kernel],
    binaries: &[Binary],
    depth: Depth,
    report: &mut Report,
) -> Result<()> {
    let queue = Mutex::new(tasks(kernels, binaries, depth).into_iter());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..MACHINES_AT_ONCE {
            scope.spawn(|| {
                loop {
                    let task = queue.lock().ok().and_then(|mut queue| queue.next());
                    let Some(task) = task else { return };
                    let rows = task.run();
                    if let Ok(mut done) = done.lock() {
                        done.push((task.kernel.label.clone(), rows));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().ok().context("a thread of the matrix panicked")?;
    done.sort_by_key(|(label, _)| kernels.iter().position(|kernel| kernel.label == *label));
    done.into_iter().flat_map(|(_, rows)| rows).for_each(|row| report.add(row));
    Ok(())
}

/// One boot of a machine, and what it runs.
struct Task<'a> {
    kernel: &'a Kernel,
    binaries: Vec<&'a Binary>,
    is_whole: bool,
    machine: Machine,
}

/// What takes longest comes first, and no machine has the half of the work: both processors have work to the end.
fn tasks<'a>(kernels: &'a [Kernel], binaries: &'a [Binary], depth: Depth) -> Vec<Task<'a>> {
    let (whole, between): (Vec<_>, Vec<_>) =
        kernels.iter().partition(|kernel| depth.is_whole_on(kernel));
    let (apart, others): (Vec<_>, Vec<_>) =
        binaries.iter().partition(|binary| binary.package == APART);
    let mut tasks = Vec::new();
    let mut add = |kernels: &[&'a Kernel], binaries: &[&'a Binary], is_whole, machine| {
        let task = |&kernel| Task { kernel, binaries: binaries.to_vec(), is_whole, machine };
        if !binaries.is_empty() {
            tasks.extend(kernels.iter().map(task));
        }
    };
    add(&whole, &apart, true, Machine::Usual);
    add(&whole, &others, true, Machine::Usual);
    add(&between, &binaries.iter().collect::<Vec<_>>(), false, Machine::Usual);
    add(&whole, &apart, true, Machine::Hardened);
    add(&whole, &apart, true, Machine::WithoutLsm);
    tasks
}

/// Tests that a kernel leaves out, as one row.
fn left_out(suite: &str, package: &str, tests: &Tests) -> Option<Row> {
    let (number, modules) = tests.left.iter().find(|(_, reason)| reason.contains("modules"))?;
    let why = format!(
        "{number} tests run on the oldest and the newest kernel: --whole runs them here, too ({modules})"
    );
    Some(Row::single(suite, &format!("{package}: other modules"), Outcome::Skipped(why), 0.0))
}

impl Task<'_> {
    fn run(&self) -> Vec<Row> {
        let Self { kernel, binaries, machine, .. } = self;
        let suite = format!("linux {}", kernel.label);
        eprintln!("{suite}: booting {}", kernel.release);
        let started = Instant::now();
        let packages: Vec<_> = binaries.iter().map(|binary| &*binary.package).collect();
        let name = format!("{} for {}", machine.name(), packages.join(", "));
        let row = |outcome, seconds| Row::single(&suite, &name, outcome, seconds);
        let report = match vm::run(kernel, &self.job(), |_| {}) {
            Ok(report) => report,
            Err(error) => {
                let seconds = started.elapsed().as_secs_f64();
                return vec![row(Outcome::Failed(error.to_string()), seconds)];
            }
        };
        let mut rows = Vec::new();
        for (number, binary) in binaries.iter().enumerate() {
            let ran = report.ran.get(number);
            let mut tests = ran.map(|ran| libtest::parse(&ran.output)).unwrap_or_default();
            match ran {
                None => tests.failed.push("was not run".into()),
                Some(ran) => match ran.status {
                    Some(0) => {}
                    Some(143) => tests.failed.push(format!("cut after {TIMEOUT_SECONDS} s")),
                    Some(status) if tests.failed.is_empty() => {
                        tests.failed.push(format!("ended with status {status}"));
                    }
                    Some(_) => {}
                    None => tests.failed.push("was running when the machine stopped".into()),
                },
            }
            if let Some(ran) = ran.filter(|_| !tests.failed.is_empty()) {
                super::show_failure(&suite, &binary.package, &ran.output);
            }
            let seconds = ran.map_or(0.0, |ran| ran.seconds);
            let left = left_out(&suite, &binary.package, &tests);
            rows.push(Row::of_tests(&suite, &binary.package, tests, seconds));
            rows.extend(left);
        }
        let outcome = report.problem.map_or(Outcome::Passed, Outcome::Failed);
        rows.push(row(outcome, started.elapsed().as_secs_f64()));
        rows
    }

    fn job(&self) -> Job {
        let Self { kernel, binaries, is_whole, machine } = self;
        let place = |binary: &Binary| format!("/tests/{}", binary.package);
        let program = |binary: &Binary| Program { from: binary.file.clone(), to: place(binary) };
        let command = |binary: &Binary| {
            let modules =
                BETWEEN.iter().find(|(package, _)| !*is_whole && *package == binary.package);
            let modules = modules.map(|(_, modules)| format!("IRONCLAD_TEST_MODULES={modules}"));
            let words = ["env".to_owned()].into_iter().chain(modules).chain([place(binary)]);
            words.collect()
        };
        let apart = machine.variable().map(|name| (name.into(), "1".into()));
        let environment = [
            ("RUST_BACKTRACE".into(), "1".into()),
            ("IRONCLAD_KERNEL".into(), kernel.label.clone()),
        ];
        Job {
            is_without_lsm: *machine == Machine::WithoutLsm,
            programs: binaries.iter().copied().map(program).collect(),
            commands: binaries.iter().copied().map(command).collect(),
            environment: environment.into_iter().chain(apart).collect(),
            timeout_seconds: TIMEOUT_SECONDS,
            ..Job::default()
        }
    }
}
