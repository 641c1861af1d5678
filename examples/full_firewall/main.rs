//! A whole firewall at work. Without arguments it builds a lab of network namespaces, loads all
//! lists, sends real traffic, swaps the policy, kills its agent and adopts the instance, has programs
//! connect to a server that only one of them may reach, and checks every number. With `--interface` or
//! `--cgroup` it protects real interfaces and cgroups instead. Needs root.

mod agent;
mod lab;
mod lists;
mod live;
mod programs;
mod table;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{ArgGroup, Parser, ValueEnum};
use ironclad::core::ErrorChain;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Shows Ironclad Shield at work in a lab of its own, or protects interfaces and cgroups.
///
/// Without --interface and --cgroup nothing outside of the lab's own network namespaces is touched.
#[derive(Parser)]
#[command(
    version,
    group(ArgGroup::new("place").args(["interface", "cgroup"]).multiple(true)),
    after_help = "\
Examples:
  full_firewall
      The demonstration, in a lab of its own.
  full_firewall --interface eth0 --policy policy.yaml --dry-run
      What the policy would drop on eth0. Nothing is dropped: begin with this.
  full_firewall --interface eth0 --policy policy.yaml --gateway 192.0.2.1
      Protects eth0 until interrupted. Never blocks 192.0.2.1: name the address you are logged in from.
  full_firewall --cgroup /sys/fs/cgroup/web.slice --policy policy.yaml --dry-run
      What socket rules would deny to processes below web.slice. Nothing is denied."
)]
struct Args {
    /// Protect this interface instead of building a lab. May be given again.
    #[arg(long, value_name = "IF", requires = "policy")]
    interface: Vec<String>,
    /// Enforce socket rules in this cgroup (version 2) and those below it. May be given again.
    #[arg(long, value_name = "DIR", requires = "policy")]
    cgroup: Vec<PathBuf>,
    /// The policy to protect it by, as in docs/policy-format.md.
    #[arg(long, value_name = "FILE", requires = "place")]
    policy: Option<PathBuf>,
    /// Count and report what would be dropped, and drop nothing.
    #[arg(long, requires = "place")]
    dry_run: bool,
    /// An address that is never blocked, in addition to those of the policy. May be given again.
    #[arg(long, value_name = "ADDRESS", requires = "place")]
    gateway: Vec<std::net::IpAddr>,
    /// Accept a policy with this part, and do not enforce it: packets without --interface, sockets without
    /// --cgroup, files (Sentinel enforces them). May be given again.
    #[arg(long, value_name = "PART", requires = "place")]
    unenforced: Vec<Part>,
    /// Stop after N seconds.
    #[arg(long, value_name = "N", requires = "place")]
    seconds: Option<u64>,
    /// A folder with `country/ipv4`, `country/ipv6` and `ipsum/levels` for the lab: by default IRONCLAD_DATA or
    /// ../shared/data; small built-in lists where there is none.
    #[arg(long, value_name = "DIR", conflicts_with = "place")]
    data: Option<PathBuf>,
    /// Print the lab's summary as JSON alone.
    #[arg(long, conflicts_with = "place")]
    json: bool,
    /// The lab's agent: runs until it is killed.
    #[arg(long, hide = true, value_name = "INSTANCE")]
    lab_agent: Option<String>,
    /// One of the lab's programs: connects to this server.
    #[arg(long, hide = true, value_name = "ADDRESS")]
    lab_reach: Option<std::net::SocketAddr>,
    /// How often.
    #[arg(long, hide = true, default_value_t = 1)]
    lab_times: u32,
    /// By this name.
    #[arg(long, hide = true)]
    lab_comm: Option<String>,
}

/// A part of a policy.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Packets,
    Sockets,
    Files,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Packets => "packets",
            Self::Sockets => "sockets",
            Self::Files => "files",
        })
    }
}

/// Set by the first SIGINT or SIGTERM; the second ends the program at once.
pub(crate) fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match (&args.lab_agent, args.lab_reach, &args.policy) {
        (Some(instance), ..) => lab::agent(instance, args.data.as_deref()),
        (_, Some(to), _) => programs::reach(to, args.lab_times, args.lab_comm.as_deref()),
        (.., Some(policy)) => agent::protect(&args, policy),
        (.., None) => lab::run(args.data.as_deref(), args.json),
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
