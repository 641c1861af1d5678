//! A toy agent with Shield and Sentinel, and a tour of attacks by root: each runs first without Sentinel, then with
//! it. Needs root and BPF LSM; `cargo xtask demo --sentinel` runs it in a
//! virtual machine.

mod agent;
mod attacks;
mod testbed;
mod tour;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ironclad::core::ErrorChain;
use ironclad::probe::{State, probe_lsm};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Attacks a toy agent as root, without Sentinel and with it.
///
/// The tour attacks only what it creates: processes, a directory, a bpffs, a cgroup, two network
/// namespaces. While Sentinel is armed, for some seconds, no other process on this host loads modules or BPF LSM
/// programs, moves processes between cgroups as root, or writes sysctls that switch hooks off.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Exit status: 0 if every attack that succeeds without Sentinel was denied and reported with it.

Examples:
  fortress
      The tour on this machine.
  fortress --json
      The same for a program to read.
  cargo xtask demo --sentinel --kernel 5.10
      The tour in a virtual machine, if this machine's kernel has no BPF LSM."
)]
struct Args {
    /// Print only the outcome, as JSON.
    #[arg(long)]
    json: bool,
    /// The parent of the tour's directory: on ext4, XFS, f2fs or tmpfs.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    within: PathBuf,
    /// The tour's agent: runs until it has the order to stop.
    #[arg(long, hide = true, value_name = "DIR", requires = "stopper")]
    agent: Option<PathBuf>,
    /// The executable that may stop the agent.
    #[arg(long, hide = true, value_name = "FILE")]
    stopper: Option<PathBuf>,
    /// Ends an agent that a killed tour has left.
    #[arg(long, value_name = "PID")]
    stop: Option<i32>,
    /// Without Sentinel.
    #[arg(long, hide = true)]
    unprotected: bool,
}

fn main() -> ExitCode {
    // An attacker is a test process, which runs orders.
    if ironclad_lab::test_process::serve() {
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    let done = match (args.stop, &args.agent, &args.stopper) {
        (Some(pid), ..) => stop(pid),
        (_, Some(dir), Some(stopper)) => agent::run(dir, stopper, args.unprotected),
        _ => ready().and_then(|()| tour::run(&args.within, args.json)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", ErrorChain::new(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Sentinel denies signals to the agent, except by processes that execute the tour's executable.
fn stop(pid: i32) -> Result<bool> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or("0 is no process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    Ok(true)
}

/// Whether this machine can run the tour.
fn ready() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root may load the programs: use sudo, or `cargo xtask demo --sentinel`, which runs the tour in a virtual machine".into());
    }
    let lsm = probe_lsm();
    match lsm.state {
        State::Available | State::Unknown => Ok(()),
        _ => Err(format!(
            "this kernel does not run BPF LSM: {}\n`cargo xtask demo --sentinel` runs the tour in a virtual machine",
            lsm.reason.unwrap_or_default()
        )
        .into()),
    }
}
