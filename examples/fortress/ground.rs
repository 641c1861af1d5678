//! What is attacked: an agent with all that it has, made by the tour and taken away by it.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ironclad_lab::test_process::TestProcess;
use ironclad_lab::{Cgroup, Lab, Namespace};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Result, attacks};

pub(crate) const INTERFACE: &str = "fw0";
pub(crate) const BAD: &str = "10.9.0.2";
const GOOD: &str = "10.9.0.3";
const HERE: &str = "10.9.0.1";
pub(crate) const CONFIG: &str = "agent.conf";
pub(crate) const PAGE: &str = "index.html";
/// Whom web servers run as.
pub(crate) const WEB: u32 = 33;
/// Ends waits for what should come at once; an emulated machine takes its time to start an agent.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where everything is.
#[derive(Clone)]
pub(crate) struct Paths(PathBuf);

impl Paths {
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("config")
    }

    pub(crate) fn site(&self) -> PathBuf {
        self.0.join("site")
    }

    pub(crate) fn bpffs(&self) -> PathBuf {
        self.0.join("bpf")
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.bpffs().join("ironclad/fortress")
    }

    pub(crate) fn pin(&self, name: &str) -> PathBuf {
        self.pins().join(format!("v{}", ironclad::core::abi::VERSION)).join(name)
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.0.join("agent")
    }

    /// Which somebody would put in the agent's place.
    pub(crate) fn other(&self) -> PathBuf {
        self.0.join("other")
    }

    fn web_server(&self) -> PathBuf {
        self.0.join("web-server")
    }

    pub(crate) fn audit(&self) -> PathBuf {
        self.0.join("audit.jsonl")
    }

    /// Makes what is missing, and what was changed anew.
    fn furnish(&self) -> Result<()> {
        std::fs::create_dir_all(self.config())?;
        std::fs::write(self.config().join(CONFIG), "by the tour\n")?;
        std::fs::create_dir_all(self.site())?;
        let page = self.site().join(PAGE);
        std::fs::write(&page, "hello\n")?;
        std::fs::set_permissions(&page, PermissionsExt::from_mode(0o644))?;
        chown(&page, Some(WEB), Some(WEB))?;
        // Once it was put into the agent's place, it is not there.
        if !self.other().exists() {
            let _ = std::fs::remove_file(self.program());
            std::fs::copy(std::env::current_exe()?, self.program())?;
            std::fs::write(self.other(), "#!/bin/sh\n")?;
        }
        if !self.web_server().exists() {
            std::fs::copy(std::env::current_exe()?, self.web_server())?;
        }
        Ok(())
    }
}

/// The bpffs and the directory, which go when it does.
struct Place(tempfile::TempDir);

impl Drop for Place {
    fn drop(&mut self) {
        let paths = Paths::new(self.0.path());
        // They may be gone.
        let _ = unmount(paths.config(), UnmountFlags::DETACH);
        let _ = unmount(paths.bpffs(), UnmountFlags::DETACH);
    }
}

/// A protected host and a peer, connected by a veth pair.
struct Net {
    host: Namespace,
    _peer: Namespace,
    _lab: Lab,
    here: UdpSocket,
    bad: UdpSocket,
    good: UdpSocket,
}

impl Net {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let (host, peer) = (lab.namespace("host")?, lab.namespace("peer")?);
        lab.veth((&host, INTERFACE), (&peer, "net0"))?;
        host.address(INTERFACE, &format!("{HERE}/16"))?;
        let bind = |addr: &str| UdpSocket::bind((addr.parse::<IpAddr>().map_err(other)?, 0));
        let here = host.run(|| bind(HERE))??;
        here.set_read_timeout(Some(PATIENCE))?;
        let from = |addr: &str| -> Result<UdpSocket> {
            peer.address("net0", &format!("{addr}/16"))?;
            let socket = peer.run(|| bind(addr))??;
            socket.connect(here.local_addr()?)?;
            Ok(socket)
        };
        let (bad, good) = (from(BAD)?, from(GOOD)?);
        Ok(Self { host, _peer: peer, _lab: lab, here, bad, good })
    }

    /// Whether a datagram of the blocked peer's arrives; another's, sent after it, does in any case.
    fn bad_arrives(&self) -> Result<bool> {
        self.bad.send(b"bad")?;
        self.good.send(b"good")?;
        let mut arrived = false;
        loop {
            match self.here.recv_from(&mut [0; 8])?.1.ip().to_string().as_str() {
                BAD => arrived = true,
                _ => return Ok(arrived),
            }
        }
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> std::io::Error {
    std::io::Error::other(error)
}

/// The agent's process. Dropping it lets it end.
struct Agent {
    child: Child,
    orders: Option<ChildStdin>,
    said: Receiver<Value>,
    ready: Value,
}

impl Agent {
    fn start(net: &Net, cgroup: &Cgroup, paths: &Paths, unguarded: bool) -> Result<Self> {
        let mut command = cgroup.command(&paths.program());
        command.arg("--agent").arg(&paths.0).args(unguarded.then_some("--unguarded"));
        // Ctrl-C is the tour's, which then ends it in order.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = net.host.run(|| command.spawn())??;
        let (orders, out) = (child.stdin.take(), child.stdout.take().ok_or("no output")?);
        let (sender, said) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(std::io::Result::ok);
            for value in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let mut this = Self { child, orders, said, ready: Value::Null };
        this.ready = this.hears("ready")?;
        Ok(this)
    }

    fn hears(&self, what: &str) -> Result<Value> {
        self.hears_by(PATIENCE, |value| value.get(what).cloned())
            .ok_or_else(|| format!("the agent has ended, or says nothing of `{what}`").into())
    }

    fn hears_by<T>(&self, patience: Duration, what: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let until = Instant::now() + patience;
        loop {
            let value = self.said.recv_timeout(until.saturating_duration_since(Instant::now()));
            if let Some(found) = what(&value.ok()?) {
                return Some(found);
            }
        }
    }

    fn order(&mut self, order: &str) -> Result<()> {
        Ok(writeln!(self.orders.as_mut().ok_or("no input")?, "{order}")?)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id() as i32);
        let go_on = pid.map(|pid| kill_process(pid, Signal::CONT));
        // It ends by itself when its input does; where it does not, it is not guarded.
        drop((go_on, self.orders.take()));
        self.hears_by(PATIENCE, |value| value.get("stopped").map(drop));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An agent and its surroundings. The agent ends first, then what is around it.
pub(crate) struct Ground {
    agent: Option<Agent>,
    attacker: TestProcess,
    web_server: TestProcess,
    pub(crate) paths: Paths,
    pub(crate) cgroup: Cgroup,
    net: Net,
    place: Place,
    unguarded: bool,
}

impl Ground {
    pub(crate) fn new(within: &Path, unguarded: bool) -> Result<Self> {
        let place = Place(tempfile::Builder::new().prefix("fortress-").tempdir_in(within)?);
        std::fs::set_permissions(place.0.path(), PermissionsExt::from_mode(0o755))?;
        let paths = Paths::new(&std::fs::canonicalize(place.0.path())?);
        paths.furnish()?;
        std::fs::create_dir(paths.bpffs())?;
        let (net, cgroup) = (Net::new()?, Cgroup::new("fortress")?);
        let attacker = attacks::attacker(&std::env::current_exe()?)?;
        let mut web_server = attacks::attacker(&paths.web_server())?;
        web_server.ask(&format!("uid {WEB}"))?;
        let agent = None;
        let mut this = Self { agent, attacker, web_server, paths, cgroup, net, place, unguarded };
        this.start()?;
        Ok(this)
    }

    fn start(&mut self) -> Result<()> {
        self.agent = None;
        let bpffs = self.paths.bpffs();
        // What it had pinned goes with it.
        let _ = unmount(&bpffs, UnmountFlags::DETACH);
        mount("bpf", &bpffs, "bpf", MountFlags::empty(), Some(c"mode=0700"))?;
        self.agent = Some(Agent::start(&self.net, &self.cgroup, &self.paths, self.unguarded)?);
        Ok(())
    }

    fn agent(&mut self) -> Result<&mut Agent> {
        self.agent.as_mut().ok_or_else(|| "the agent has stopped".into())
    }

    pub(crate) fn dir(&self) -> &Path {
        self.place.0.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.agent.as_ref().map_or(0, |agent| agent.child.id())
    }

    /// Something that the agent said when it was ready.
    pub(crate) fn ready(&self, what: &str) -> u64 {
        let ready = self.agent.as_ref().map(|agent| &agent.ready);
        ready.and_then(|ready| ready.pointer(what)?.as_u64()).unwrap_or(0)
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        let state = |agent: &mut Agent| agent.child.try_wait();
        self.agent.as_mut().is_some_and(|agent| matches!(state(agent), Ok(None)))
    }

    pub(crate) fn ask(&mut self, web_server: bool, order: &str) -> Result<u64> {
        let who = if web_server { &mut self.web_server } else { &mut self.attacker };
        Ok(who.ask(order)?)
    }

    /// The alarm that the last attack has left.
    pub(crate) fn alarm(&self, web_server: bool) -> Option<Value> {
        let who = if web_server { &self.web_server } else { &self.attacker };
        let pid = Value::from(who.pid());
        // Tools are the attacker's children.
        let is_it = |alarm: &Value| {
            alarm["verdict"] == "denied" && (alarm["pid"] == pid || alarm["ppid"] == pid)
        };
        let agent = self.agent.as_ref()?;
        agent.hears_by(PATIENCE, |said| is_it(&said["alarm"]).then(|| said.clone()))
    }

    /// Forgets earlier alarms.
    pub(crate) fn hush(&self) {
        while self.agent.as_ref().is_some_and(|agent| agent.said.try_recv().is_ok()) {}
    }

    /// As it was before an attack that got through.
    pub(crate) fn mend(&mut self) -> Result<()> {
        if let Some(pid) = Pid::from_raw(self.pid() as i32) {
            // It may be dead.
            let _ = kill_process(pid, Signal::CONT);
        }
        std::fs::write(self.cgroup.dir().join("cgroup.freeze"), "0")?;
        let _ = unmount(self.paths.config(), UnmountFlags::DETACH);
        self.paths.furnish()?;
        if !self.is_alive() || !self.paths.pin("ic_slots").exists() {
            self.start()?;
        }
        Ok(())
    }

    pub(crate) fn bad_arrives(&self) -> Result<bool> {
        self.net.bad_arrives()
    }

    /// The agent changes its configuration and its policy.
    pub(crate) fn work(&mut self) -> Result<bool> {
        let before = std::fs::read_to_string(self.paths.config().join(CONFIG))?;
        let agent = self.agent()?;
        agent.order("work")?;
        let generation = agent.hears("worked")?;
        let after = std::fs::read_to_string(self.paths.config().join(CONFIG))?;
        Ok(before != after && generation == 2)
    }

    /// Lets the agent stop.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let agent = self.agent()?;
        agent.order("stop")?;
        agent.hears("stopped")?;
        self.agent = None;
        Ok(())
    }
}
