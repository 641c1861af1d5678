//! Socket rules: programs that connect to the same server, distinguished by their executable and not by
//! their name.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ironclad::core::{RuleId, SocketVerdict};
use ironclad::events::{EventReceiver, Record};
use ironclad::policy::socket::{Direction, RateLimit, SocketAction, SocketRule, Subject};
use ironclad::policy::{CompiledPolicy, Policy};
use ironclad::shield::{Overflow, Shield};
use ironclad_lab::{Cgroup, Lab, Namespace};

use crate::Result;
use crate::lab::{Report, go_on};

/// How often a program connects to the server.
const TRIES: u32 = 5;
/// The same for the program with a limit, and the burst of the limit.
const MANY: u32 = 100;
const BURST: u32 = 20;
/// Ends waits for events that come at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs in the lab's programs: connects to a server several times, by this name, and prints how often that
/// succeeded and how often it was denied.
pub(crate) fn reach(to: SocketAddr, times: u32, comm: Option<&str>) -> Result<bool> {
    if let Some(comm) = comm {
        rustix::thread::set_name(&std::ffi::CString::new(comm)?)?;
    }
    let (mut reached, mut refused) = (0, 0);
    for _ in 0..times {
        match TcpStream::connect(to) {
            Ok(_) => reached += 1,
            Err(e) if e.kind() == ErrorKind::PermissionDenied => refused += 1,
            Err(e) => return Err(format!("{to}: {e}").into()),
        }
    }
    println!("{reached} {refused}");
    Ok(true)
}

/// A host with a server, and programs that are copies of this one.
struct Host {
    net: Namespace,
    cgroup: Cgroup,
    server: TcpListener,
    programs: tempfile::TempDir,
    _lab: Lab,
}

impl Host {
    fn build() -> Result<Self> {
        let lab = Lab::new()?;
        let net = lab.namespace("programs")?;
        let server = net.run(|| TcpListener::bind("127.0.0.1:0"))??;
        let (cgroup, programs) = (Cgroup::new("demo")?, tempfile::tempdir()?);
        Ok(Self { net, cgroup, server, programs, _lab: lab })
    }

    fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.programs.path().join(name);
        std::fs::copy(std::env::current_exe()?, &path)?;
        Ok(path)
    }

    /// How often it reached the server, and how often it was refused.
    fn run(&self, program: &Path, times: u32, comm: Option<&str>) -> Result<(u64, u64)> {
        let mut command = self.cgroup.command(program);
        command.arg("--lab-reach").arg(self.server.local_addr()?.to_string());
        command.arg("--lab-times").arg(times.to_string());
        if let Some(comm) = comm {
            command.arg("--lab-comm").arg(comm);
        }
        let said = self.net.run(|| command.output())??;
        let text = String::from_utf8(said.stdout)?;
        let numbers: Vec<u64> =
            text.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
        match numbers[..] {
            [reached, refused] => Ok((reached, refused)),
            _ => Err(String::from_utf8_lossy(&said.stderr).into()),
        }
    }
}

fn policy(apt: &Path, probe: &Path, port: u16) -> Result<CompiledPolicy> {
    let rule = |id, name: &str, action| SocketRule::new(RuleId(id), name, action);
    let limit = RateLimit::per_second(1).burst(BURST);
    Ok(Policy::builder()
        .socket_rule(
            rule(10, "updates", SocketAction::Allow)
                .subject(Subject::new("apt").exe(apt))
                .port(port),
        )
        .socket_rule(
            rule(20, "probes", SocketAction::Allow)
                .subject(Subject::new("probe").exe(probe))
                .limit(limit),
        )
        .socket_default(Direction::Out, SocketVerdict::Deny)
        .compile()?)
}

/// Lets programs reach for the server, without Shield and with it.
pub(crate) fn show(instance: &str, stop: &AtomicBool, report: &mut Report) -> Result<()> {
    let host = Host::build()?;
    let (apt, curl) = (host.program("apt")?, host.program("curl")?);
    let (copy, probe) = (host.program("copy-of-apt")?, host.program("probe")?);
    let plan = [
        ("apt", &apt, None, true),
        ("curl", &curl, None, false),
        ("a copy of apt under another name", &copy, None, false),
        ("curl that calls itself apt", &curl, Some("apt"), false),
    ];
    let all = u64::from(TRIES);
    for (what, program, comm, _) in plan {
        go_on(stop)?;
        let (reached, _) = host.run(program, TRIES, comm)?;
        report.check(format!("unprotected, {what}: connections"), all, reached);
    }
    let port = host.server.local_addr()?.port();
    let shield =
        Shield::builder(instance).cgroup(host.cgroup.dir()).start(&policy(&apt, &probe, port)?)?;
    let (_pump, events) = shield.events(4096, Overflow::DropNewest)?;
    for (what, program, comm, may) in plan {
        go_on(stop)?;
        let expected = if may { (all, 0) } else { (0, all) };
        let (reached, refused) = host.run(program, TRIES, comm)?;
        report.check(format!("{what}: connections"), expected.0, reached);
        report.check(format!("{what}: refused with EPERM"), expected.1, refused);
    }
    report.say(&explained(&shield, &events)?);

    // The bucket gets a token a second, while this runs.
    let begin = std::time::Instant::now();
    let (reached, refused) = host.run(&probe, MANY, None)?;
    let more = begin.elapsed().as_secs() + 1;
    let least = u64::from(BURST);
    let within = if (least..=least + more).contains(&reached) { least } else { reached };
    report.check("probe: connections within its limit", least, within);
    report.check("probe: refused beyond it", u64::from(MANY) - reached, refused);
    let counts = shield.socket_counts()?;
    let count = counts.iter().find(|count| count.rule == Some(RuleId(20)));
    report.check("probe: refusals counted", refused, count.map_or(0, |count| count.limited));
    drop(shield);
    let (reached, _) = host.run(&curl, TRIES, None)?;
    report.check("after the end, curl: connections", all, reached);
    Ok(())
}

/// Why the first program that was refused was refused, from the tables in the kernel.
fn explained(shield: &Shield, events: &EventReceiver) -> Result<String> {
    loop {
        match events.recv_timeout(PATIENCE) {
            Some(Record::Socket(event)) if event.verdict == SocketVerdict::Deny => {
                return Ok(format!("{event}\n{}", shield.explain_event(&event)?));
            }
            Some(_) => {}
            None => return Err("no event of a refusal".into()),
        }
    }
}
