//! The target of attacks: an agent and its surroundings, which the tour creates and removes.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
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
/// The user of web servers.
pub(crate) const WEB: u32 = 33;
/// The limit of waits for events that come at once. An emulated machine starts an agent slowly.
const PATIENCE: Duration = Duration::from_secs(120);

/// All paths.
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
        self.pins().join(format!("v{}", ironclad_core::abi::VERSION)).join(name)
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.0.join("agent")
    }

    /// A file that an attacker renames over the agent's executable.
    pub(crate) fn other(&self) -> PathBuf {
        self.0.join("other")
    }

    /// The tour's own executable may stop the agent.
    fn attacker(&self) -> PathBuf {
        self.0.join("attacker")
    }

    fn web_server(&self) -> PathBuf {
        self.0.join("web-server")
    }

    pub(crate) fn audit(&self) -> PathBuf {
        self.0.join("audit.jsonl")
    }

    /// Creates missing files, and restores changed ones.
    fn restore(&self) -> Result<()> {
        std::fs::create_dir_all(self.config())?;
        std::fs::write(self.config().join(CONFIG), "by the tour\n")?;
        std::fs::create_dir_all(self.site())?;
        let page = self.site().join(PAGE);
        std::fs::write(&page, "hello\n")?;
        std::fs::set_permissions(&page, PermissionsExt::from_mode(0o644))?;
        chown(&page, Some(WEB), Some(WEB))?;
        // An attack has renamed it over the agent's executable.
        if !self.other().exists() {
            let _ = std::fs::remove_file(self.program());
            std::fs::copy(std::env::current_exe()?, self.program())?;
            std::fs::write(self.other(), "#!/bin/sh\n")?;
        }
        for copy in [self.web_server(), self.attacker()] {
            if !copy.exists() {
                std::fs::copy(std::env::current_exe()?, copy)?;
            }
        }
        Ok(())
    }
}

/// The bpffs and the directory. Dropping it removes both.
struct Directory(tempfile::TempDir);

impl Drop for Directory {
    fn drop(&mut self) {
        let paths = Paths::new(self.0.path());
        // They may be unmounted already.
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

    /// Whether a datagram of the blocked peer arrives. A datagram of another peer always arrives after it.
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

/// The agent's process. Dropping it ends the agent.
struct Agent {
    child: Child,
    orders: Option<ChildStdin>,
    said: Receiver<Value>,
    ready: Value,
}

impl Agent {
    fn start(net: &Net, cgroup: &Cgroup, paths: &Paths, unprotected: bool) -> Result<Self> {
        let mut command = cgroup.command(&paths.program());
        command.arg("--agent").arg(&paths.0).args(unprotected.then_some("--unprotected"));
        command.arg("--stopper").arg(std::env::current_exe()?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
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
            .ok_or_else(|| format!("the agent has ended, or did not report `{what}`").into())
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
        let resumed = pid.map(|pid| kill_process(pid, Signal::CONT));
        drop((resumed, self.orders.take()));
        // It may have ended. SIGKILL ends one that is not protected.
        if let Ok(own) = std::env::current_exe() {
            let mut stop = Command::new(own);
            stop.args(["--stop", &self.child.id().to_string()]).stderr(Stdio::null());
            let _ = stop.status();
        }
        self.hears_by(PATIENCE, |value| value.get("stopped").map(drop));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An agent and its surroundings. The agent is dropped first.
pub(crate) struct Testbed {
    agent: Option<Agent>,
    attacker: TestProcess,
    web_server: TestProcess,
    pub(crate) paths: Paths,
    pub(crate) cgroup: Cgroup,
    net: Net,
    directory: Directory,
    unprotected: bool,
}

impl Testbed {
    pub(crate) fn new(within: &Path, unprotected: bool) -> Result<Self> {
        let directory = Directory(tempfile::Builder::new().prefix("fortress-").tempdir_in(within)?);
        std::fs::set_permissions(directory.0.path(), PermissionsExt::from_mode(0o755))?;
        let paths = Paths::new(&std::fs::canonicalize(directory.0.path())?);
        paths.restore()?;
        std::fs::create_dir(paths.bpffs())?;
        let (net, cgroup) = (Net::new()?, Cgroup::new("fortress")?);
        let attacker = attacks::attacker(&paths.attacker())?;
        let mut web_server = attacks::attacker(&paths.web_server())?;
        web_server.ask(&format!("uid {WEB}"))?;
        let agent = None;
        let mut this =
            Self { agent, attacker, web_server, paths, cgroup, net, directory, unprotected };
        this.start()?;
        Ok(this)
    }

    fn start(&mut self) -> Result<()> {
        self.agent = None;
        let bpffs = self.paths.bpffs();
        // The pins of the earlier agent go with the mount.
        let _ = unmount(&bpffs, UnmountFlags::DETACH);
        mount("bpf", &bpffs, "bpf", MountFlags::empty(), Some(c"mode=0700"))?;
        self.agent = Some(Agent::start(&self.net, &self.cgroup, &self.paths, self.unprotected)?);
        Ok(())
    }

    fn agent(&mut self) -> Result<&mut Agent> {
        self.agent.as_mut().ok_or_else(|| "the agent has stopped".into())
    }

    pub(crate) fn dir(&self) -> &Path {
        self.directory.0.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.agent.as_ref().map_or(0, |agent| agent.child.id())
    }

    /// A number that the agent reported when it was ready.
    pub(crate) fn ready(&self, what: &str) -> u64 {
        let ready = self.agent.as_ref().map(|agent| &agent.ready);
        ready.and_then(|ready| ready.pointer(what)?.as_u64()).unwrap_or(0)
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        let state = |agent: &mut Agent| agent.child.try_wait();
        self.agent.as_mut().is_some_and(|agent| matches!(state(agent), Ok(None)))
    }

    pub(crate) fn ask(&mut self, web_server: bool, order: &str) -> Result<u64> {
        let process = if web_server { &mut self.web_server } else { &mut self.attacker };
        Ok(process.ask(order)?)
    }

    /// The alarm of the last attack.
    pub(crate) fn alarm(&self, web_server: bool) -> Option<Value> {
        let process = if web_server { &self.web_server } else { &self.attacker };
        let pid = Value::from(process.pid());
        // Tools are the attacker's children.
        let is_it = |alarm: &Value| {
            alarm["verdict"] == "denied" && (alarm["pid"] == pid || alarm["ppid"] == pid)
        };
        let agent = self.agent.as_ref()?;
        agent.hears_by(PATIENCE, |said| is_it(&said["alarm"]).then(|| said.clone()))
    }

    /// Discards earlier alarms.
    pub(crate) fn discard_alarms(&self) {
        while self.agent.as_ref().is_some_and(|agent| agent.said.try_recv().is_ok()) {}
    }

    /// Undoes an attack that succeeded.
    pub(crate) fn repair(&mut self) -> Result<()> {
        if let Some(pid) = Pid::from_raw(self.pid() as i32) {
            // It may have ended.
            let _ = kill_process(pid, Signal::CONT);
        }
        std::fs::write(self.cgroup.dir().join("cgroup.freeze"), "0")?;
        let _ = unmount(self.paths.config(), UnmountFlags::DETACH);
        self.paths.restore()?;
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

    /// Stops the agent.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let agent = self.agent()?;
        agent.order("stop")?;
        agent.hears("stopped")?;
        self.agent = None;
        Ok(())
    }
}
