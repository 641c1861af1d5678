//! The harness of kernel tests: one program for each crate, whose tests run one after the other and may share a
//! running instance.
//!
//! Tests that [share](Test::shared) the instance run first. Other tests start instances of their own, after the
//! shared one was stopped. Each test runs in a thread of its own, so that namespaces, credentials and scheduling of
//! a thread end with the test.
//!
//! Beside what Rust's harness prints, standard output has these lines, which `cargo xtask test` reads:
//! `SKIP TEST: REASON`, `WHY TEST: REASON` of one that failed, `TIME TEST SECONDS`, `LEFT NUMBER: REASON`.

use std::fs::{copy, create_dir};
use std::io::{self, Write};
use std::panic::resume_unwind;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::test_process;

/// The process plays the [role](Role) of this name.
const ROLE: &str = "IRONCLAD_TEST_ROLE";
/// The process runs one [isolated](Test::isolated) test.
const ISOLATED: &str = "IRONCLAD_TEST_ISOLATED";
/// Set in virtual machines.
const MACHINE: &str = "IRONCLAD_MACHINE";
/// Set in virtual machines whose kernel has no BPF LSM among its security modules.
const WITHOUT_LSM: &str = "IRONCLAD_WITHOUT_LSM";
/// Set in virtual machines whose tests harden the kernel until the next boot.
const HARDENED: &str = "IRONCLAD_HARDENED";
/// Modules of tests, separated by commas: only these run.
const MODULES: &str = "IRONCLAD_TEST_MODULES";
/// A test that takes longer has failed, and the program ends.
const LIMIT: Duration = Duration::from_secs(900);

/// Whether the current test shares the instance.
static IS_SHARED: AtomicBool = AtomicBool::new(false);

/// Where the current test panicked: `FILE:LINE: `.
static PLACE: Mutex<Option<String>> = Mutex::new(None);

/// Whether the current test is one of those that [share](Test::shared) the instance.
pub fn is_shared() -> bool {
    IS_SHARED.load(Ordering::SeqCst)
}

/// Whether tests run in a virtual machine.
pub fn is_in_machine() -> bool {
    std::env::var_os(MACHINE).is_some()
}

/// Ends the current test as skipped.
pub fn skip(reason: impl Into<String>) -> ! {
    resume_unwind(Box::new(Skipped(reason.into())))
}

/// Reports that a part of the current test is skipped. Called from the test's own thread.
pub fn skip_part(reason: &str) {
    let thread = std::thread::current();
    println!("SKIP {}: {reason}", thread.name().unwrap_or_default());
}

struct Skipped(String);

/// Why a test cannot run here.
pub type Need = fn() -> Result<(), String>;

/// Where a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Everywhere,
    /// On the kernel of the build machine.
    Host,
    /// In virtual machines.
    Machine,
    /// In virtual machines without BPF LSM.
    MachineWithoutLsm,
    /// In virtual machines whose tests harden the kernel until the next boot.
    HardenedMachine,
}

impl Place {
    fn includes(self, here: Self) -> bool {
        let is_usual = matches!(here, Self::Host | Self::Machine);
        self == here || (self == Self::Everywhere && is_usual)
    }

    fn here() -> Self {
        let is_set = |name| std::env::var_os(name).is_some();
        match (is_set(MACHINE), is_set(WITHOUT_LSM), is_set(HARDENED)) {
            (false, _, _) => Self::Host,
            (true, true, _) => Self::MachineWithoutLsm,
            (true, false, true) => Self::HardenedMachine,
            (true, false, false) => Self::Machine,
        }
    }
}

/// A test: see [`test!`](crate::test).
#[derive(Clone, Copy, Debug)]
pub struct Test {
    name: &'static str,
    run: fn(),
    place: Place,
    needs: &'static [Need],
    is_shared: bool,
    is_isolated: bool,
}

impl Test {
    /// A test that runs everywhere and starts what it needs.
    pub const fn new(name: &'static str, run: fn()) -> Self {
        let place = Place::Everywhere;
        Self { name, run, place, needs: &[], is_shared: false, is_isolated: false }
    }

    /// Runs only on the build machine's kernel: a test of what does not depend on the kernel's version, because
    /// emulated machines are slow.
    pub const fn on_host(mut self) -> Self {
        self.place = Place::Host;
        self
    }

    /// Runs only in virtual machines.
    pub const fn in_machine(mut self) -> Self {
        self.place = Place::Machine;
        self
    }

    /// Runs only in virtual machines whose kernel has no BPF LSM.
    pub const fn in_machine_without_lsm(mut self) -> Self {
        self.place = Place::MachineWithoutLsm;
        self
    }

    /// Runs only in virtual machines whose tests harden the kernel until the next boot.
    pub const fn in_hardened_machine(mut self) -> Self {
        self.place = Place::HardenedMachine;
        self
    }

    /// Is skipped with the reason where a need is not met.
    pub const fn needs(mut self, needs: &'static [Need]) -> Self {
        self.needs = needs;
        self
    }

    /// Uses the shared instance, and leaves it as it was.
    pub const fn shared(mut self) -> Self {
        self.is_shared = true;
        self
    }

    /// Runs in a process of its own, which executes a copy of the program.
    pub const fn isolated(mut self) -> Self {
        self.is_isolated = true;
        self
    }

    /// Its path below the program: `module::test`.
    fn path(&self) -> &'static str {
        self.name.split_once("::").map_or(self.name, |(_, path)| path)
    }

    fn module(&self) -> &'static str {
        self.path().split_once("::").map_or("", |(module, _)| module)
    }
}

/// A [`Test`] of a function, with the function's path as its name.
#[macro_export]
macro_rules! test {
    ($function:ident) => {
        $crate::harness::Test::new(concat!(module_path!(), "::", stringify!($function)), $function)
    };
}

/// What a process that a test starts does instead of tests: see [`role!`](crate::role).
#[derive(Clone, Copy, Debug)]
pub struct Role {
    name: &'static str,
    run: fn(),
}

impl Role {
    /// A role of this name.
    pub const fn new(name: &'static str, run: fn()) -> Self {
        Self { name, run }
    }

    /// Starts the test's own program in this role.
    ///
    /// # Panics
    /// Where the program's path is not known.
    pub fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("the test's own program"));
        self.play(&mut command);
        command
    }

    /// Arguments of env(1) by which the test's own program plays this role.
    pub fn env(&self) -> String {
        format!("-u {} {ROLE}={}", test_process::VARIABLE, self.name)
    }

    /// Has a command that executes the test's own program, or a copy of it, play this role.
    pub fn play<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env(ROLE, self.name).env_remove(test_process::VARIABLE)
    }
}

/// A [`Role`] of a function, with the function's path as its name.
#[macro_export]
macro_rules! role {
    ($function:ident) => {
        $crate::harness::Role::new(concat!(module_path!(), "::", stringify!($function)), $function)
    };
}

/// An instance that tests share.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// Runs after each test that shares the instance. An error fails that test.
    pub check: fn() -> Result<(), String>,
    /// Runs after the last of them: before every test that does not share the instance, and at the end.
    pub stop: fn(),
}

/// Plays a role where the process has one, and else runs the tests by the arguments of Rust's harness.
pub fn main(
    roles: &[Role],
    tests: impl IntoIterator<Item = Test>,
    shared: Option<Shared>,
) -> ExitCode {
    if test_process::serve() {
        return ExitCode::SUCCESS;
    }
    match std::env::var(ROLE) {
        Err(_) => run(tests, shared),
        Ok(name) => {
            let role = roles.iter().find(|role| role.name == name);
            let role = *role.unwrap_or_else(|| panic!("no role {name}"));
            // A thread of its own, as tests have.
            // `RUST_MIN_STACK` may be too small for it.
            let thread = std::thread::Builder::new().stack_size(2 << 20);
            let played = thread.spawn(role.run).expect("a thread").join();
            if played.is_err() {
                return ExitCode::FAILURE;
            }
            ExitCode::SUCCESS
        }
    }
}

fn run(tests: impl IntoIterator<Item = Test>, shared: Option<Shared>) -> ExitCode {
    let (tests, left): (Vec<_>, Vec<_>) =
        tests.into_iter().partition(|test| test.place.includes(Place::here()));
    if !left.is_empty() {
        println!("LEFT {}: they run elsewhere", left.len());
    }
    let modules = std::env::var(MODULES).unwrap_or_default();
    let is_chosen = |test: &Test| {
        modules.is_empty() || modules.split(',').any(|module| module == test.module())
    };
    let (tests, left): (Vec<_>, Vec<_>) = tests.into_iter().partition(is_chosen);
    if !left.is_empty() {
        println!("LEFT {}: only modules {modules} run", left.len());
    }
    let (with_shared, alone): (Vec<_>, Vec<_>) = tests.into_iter().partition(|test| test.is_shared);
    let trials = with_shared.into_iter().chain(alone).map(|test| {
        let stop = shared.filter(|_| !test.is_shared).map(|shared| shared.stop);
        let check = shared.filter(|_| test.is_shared).map(|shared| shared.check);
        Trial::test(test.path(), move || {
            if let Some(stop) = stop {
                stop();
            }
            perform(test, check)
        })
    });
    record_places();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if let Some(shared) = shared {
        (shared.stop)();
    }
    conclusion.exit_code()
}

fn perform(test: Test, check: Option<fn() -> Result<(), String>>) -> Result<(), Failed> {
    // The harness has written the test's name, without the line's end.
    println!();
    let began = Instant::now();
    let done = watch(test.path());
    IS_SHARED.store(test.is_shared, Ordering::SeqCst);
    let is_parent = test.is_isolated && std::env::var_os(ISOLATED).is_none();
    let mut outcome = if is_parent { isolate(test.path()) } else { in_thread(test) };
    if let Some(check) = check {
        let left = check().map_err(|why| format!("the shared instance was changed: {why}"));
        outcome = outcome.and_then(|()| Ok(left?));
    }
    drop(done);
    if let Some(why) = outcome.as_ref().err().and_then(Failed::message) {
        println!("WHY {}: {}", test.path(), why.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    println!("TIME {} {:.2}", test.path(), began.elapsed().as_secs_f64());
    outcome
}

fn in_thread(test: Test) -> Result<(), Failed> {
    drop(PLACE.lock().map(|mut place| place.take()));
    let run = move || {
        for need in test.needs {
            if let Err(reason) = need() {
                skip(reason);
            }
        }
        (test.run)();
    };
    let thread = std::thread::Builder::new().name(test.path().into()).spawn(run);
    let Err(payload) = thread.expect("a thread").join() else { return Ok(()) };
    match payload.downcast::<Skipped>() {
        Ok(skipped) => {
            println!("SKIP {}: {}", test.path(), skipped.0);
            Ok(())
        }
        Err(payload) => {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or(payload.downcast_ref::<&str>().copied());
            let place = PLACE.lock().ok().and_then(|mut place| place.take()).unwrap_or_default();
            Err(format!("{place}{}", text.unwrap_or("the test panicked")).into())
        }
    }
}

/// Has panics of tests' threads record their [`PLACE`].
fn record_places() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_test = std::thread::current().name().is_some_and(|name| name.contains("::"));
        if let (true, Some(at), Ok(mut place)) = (is_test, panic.location(), PLACE.lock()) {
            // The first: others may follow while values are dropped.
            place.get_or_insert_with(|| format!("{}:{}: ", at.file(), at.line()));
        }
        default(panic);
    }));
}

/// Ends the program where the test does not end. Until the sender is dropped.
fn watch(test: &'static str) -> Sender<()> {
    let (done, ended) = channel();
    std::thread::spawn(move || {
        if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            println!("\n{test} did not end within {} s", LIMIT.as_secs());
            let _ = io::stdout().flush();
            std::process::abort();
        }
    });
    done
}

/// Runs the test in a copy of the program, which the test may replace.
fn isolate(test: &str) -> Result<(), Failed> {
    let dir = std::env::temp_dir().join(format!("ironclad-isolated-{}", std::process::id()));
    create_dir(&dir)?;
    let outcome = isolate_in(&dir.join("kernel"), test);
    std::fs::remove_dir_all(&dir)?;
    outcome
}

fn isolate_in(program: &std::path::Path, test: &str) -> Result<(), Failed> {
    copy(std::env::current_exe()?, program)?;
    let mut child = Command::new(program);
    let ended = child.args(["--exact", test]).env(ISOLATED, "1").output()?;
    let output = String::from_utf8_lossy(&ended.stdout);
    let is_ours = |line: &&str| {
        ["SKIP ", "ATTACK ", "RECORD "].iter().any(|keyword| line.starts_with(keyword))
    };
    for line in output.lines().filter(is_ours) {
        println!("{line}");
    }
    if ended.status.success() {
        return Ok(());
    }
    println!("{output}{}", String::from_utf8_lossy(&ended.stderr));
    Err(format!("its process ended with {}", ended.status).into())
}
