//! What socket rules cost a process that connects, beside an empty program at the same hook.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use ironclad::core::{Family, RuleId, SocketVerdict};
use ironclad::policy::list::ListOptions;
use ironclad::policy::socket::{AddressGroup, Direction, SocketAction, SocketRule, Subject};
use ironclad::policy::{AddressList, CompiledPolicy, Policy, Protocol};
use ironclad::shield::Shield;
use ironclad_bpf::bench::attach_empty_connect;
use ironclad_bpf::boottime_ns;
use ironclad_lab::{Cgroup, Lab, Namespace};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::Figures;
use crate::common::Result;
use crate::common::lists::data;
use crate::common::random::Random;
use crate::opensnitch::{self, OpenSnitch};
use crate::stats::Runs;

/// Connections of one turn by UDP, of one by TCP, and of one that OpenSnitch decides.
const UDP_TURN: usize = COLD_ADDRESSES;
const TCP_TURN: u32 = 2_000;
const ASKED_TURN: u32 = 200;
/// Turns that each takes in a run.
const TURNS: usize = 8;
/// Distinct addresses and ports that they go to: as many as a busy host has, and more than caches do.
const ADDRESSES: usize = 1_024;
const COLD_ADDRESSES: usize = 65_536;

/// Connects on orders from standard input, and prints how many nanoseconds one took: of the
/// processor, and on the wall. `until` connects until it may, and says when that was by the clock of
/// [`boottime_ns`].
pub(crate) fn connector() -> Result<()> {
    // On one processor, and not the first, where other processes start.
    let last = std::thread::available_parallelism()?.get() - 1;
    let mut processors = CpuSet::new();
    processors.set(last);
    sched_setaffinity(None, &processors)?;
    let mut random = Random::new(9);
    let addresses: Vec<SocketAddr> = (0..COLD_ADDRESSES)
        .map(|_| {
            // Unicast: neither 0/8 and 127/8 nor what begins at 224.
            let addr = loop {
                let addr = Ipv4Addr::from(random.next() as u32);
                if !matches!(addr.octets()[0], 0 | 127 | 224..) {
                    break addr;
                }
            };
            SocketAddr::new(IpAddr::V4(addr), 1 + random.below(65_535) as u16)
        })
        .collect();
    let udp = UdpSocket::bind("0.0.0.0:0")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let (began, began_cpu) = (Instant::now(), cpu_ns());
        let count: u32 = match line.split_once(' ') {
            Some(("udp", distinct)) => {
                let addresses = &addresses[..distinct.parse()?];
                for addr in addresses.iter().cycle().take(UDP_TURN) {
                    udp.connect(addr)?;
                }
                UDP_TURN as u32
            }
            Some(("tcp", count)) => {
                let count = count.parse()?;
                for _ in 0..count {
                    let client = TcpStream::connect(listener.local_addr()?)?;
                    drop((client, listener.accept()?));
                }
                count
            }
            _ if line == "until" => {
                while udp.connect(addresses[0]).is_err() {}
                println!("0 {}", boottime_ns());
                continue;
            }
            _ => {
                return Err(format!("`{line}` is no order").into());
            }
        };
        let (wall, cpu) = (began.elapsed().as_nanos(), cpu_ns() - began_cpu);
        println!("{} {}", cpu as f64 / f64::from(count), wall as f64 / f64::from(count));
    }
    Ok(())
}

/// Of this thread.
fn cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Nanoseconds of one connection.
#[derive(Clone, Copy)]
pub(crate) struct Took {
    pub(crate) cpu: f64,
    pub(crate) wall: f64,
}

pub(crate) struct Connector {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Connector {
    pub(crate) fn start(cgroup: &Cgroup, program: &Path) -> Result<Self> {
        let mut command = cgroup.command(program);
        command.arg("connector").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let answers = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        Ok(Self { child, answers })
    }

    pub(crate) fn ask(&mut self, what: &str) -> Result<Took> {
        let orders = self.child.stdin.as_mut().ok_or("no standard input")?;
        writeln!(orders, "{what}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let (cpu, wall) = line.trim().split_once(' ').ok_or("the connector ended")?;
        Ok(Took { cpu: cpu.parse()?, wall: wall.parse()? })
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All countries, one group each.
fn countries() -> Result<Vec<AddressGroup>> {
    let folder = data().ok_or("no shared lists: set IRONCLAD_DATA")?.join("country");
    let mut groups: Vec<(String, AddressGroup)> = Vec::new();
    for family in [Family::V4, Family::V6] {
        let dir = folder.join(if family == Family::V4 { "ipv4" } else { "ipv6" });
        for list in AddressList::read_dir(&dir, "cidr", &ListOptions::new())? {
            let path = PathBuf::from(list.name().as_ref());
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            match groups.iter_mut().find(|(known, _)| *known == name) {
                Some((_, group)) => *group = group.clone().list(list),
                None => groups.push((name.clone(), AddressGroup::new(name).list(list))),
            }
        }
    }
    Ok(groups.into_iter().map(|(_, group)| group).collect())
}

/// Rules on programs, countries, ports, protocols and users; each allows, so that all connections
/// are made, and the last ones match what no other does.
fn rules(count: u32, groups: &[AddressGroup]) -> Result<Policy> {
    let own = std::env::current_exe()?;
    let mut programs: Vec<PathBuf> = std::fs::read_dir("/usr/bin")?
        .filter_map(|entry| entry.ok()?.path().canonicalize().ok())
        // Scripts are refused: their interpreters connect instead.
        .filter(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF")))
        .take(63)
        .collect();
    programs.sort();
    programs.dedup();
    programs.push(own);
    let mut random = Random::new(3);
    let mut below = |bound: usize| random.below(bound as u64) as usize;
    let names: Vec<String> = groups.iter().map(|group| group.name().to_owned()).collect();
    let mut policy = addresses(groups);
    for id in 1..=count {
        let subject = Subject::new("").exe(&programs[below(programs.len())]);
        let mut rule = SocketRule::new(RuleId(id), format!("rule {id}"), SocketAction::Allow)
            .subject(if below(4) == 0 { subject.uid(below(20) as u32) } else { subject })
            .to(&names[below(names.len())])
            .protocol(if below(2) == 0 { Protocol::TCP } else { Protocol::UDP });
        if below(2) == 0 {
            let first = below(60_000) as u16;
            rule = rule.ports(first..=first + below(5000) as u16);
        }
        policy = policy.socket_rule(rule);
    }
    Ok(policy.socket_default(Direction::In, SocketVerdict::Allow))
}

fn addresses(groups: &[AddressGroup]) -> Policy {
    groups.iter().cloned().fold(Policy::builder(), Policy::addresses)
}

/// A rule for each country, and nothing else.
fn a_rule_each(groups: &[AddressGroup]) -> Policy {
    (1..).zip(groups).fold(addresses(groups), |policy, (id, group)| {
        let rule = SocketRule::new(RuleId(id), group.name(), SocketAction::Allow);
        policy.socket_rule(rule.to(group.name()))
    })
}

const NAMES: [&str; 8] = [
    "connect_added_ns_beyond_empty",
    "connect_added_ns_total",
    "connect_rules_10x_ratio",
    "connect_tcp_added_percent",
    "decisions_per_s_core",
    "rules_1000_swap_ms",
    "connect_cold_added_ns_beyond_empty",
    "connect_tcp_opensnitch_ratio",
];

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    if !NAMES.iter().any(|name| figures.wants(name)) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let net = lab.namespace("connect")?;
    // Every address has a route, so that connect(2) by UDP ends with success and sends nothing.
    net.ip(&["route", "add", "default", "dev", "lo"])?;
    net.ip(&["addr", "add", "10.9.0.1/32", "dev", "lo"])?;
    let groups = countries()?;
    let (some_rules, each) = (rules(1000, &groups)?, a_rule_each(&groups));
    let (some, many) = (some_rules.clone().compile()?, rules(10_000, &groups)?.compile()?);
    let mut bare = Road::new(&net, "bare")?;
    let mut empty = Road::new(&net, "empty")?;
    // Processes in cgroups without programs pay nothing for cgroups with some.
    let mut of_empty = Vec::new();
    for _ in 0..figures.runs() * TURNS {
        let without = empty.udp(ADDRESSES)?;
        let _program = attach_empty_connect(empty.cgroup.dir())?;
        of_empty.push(empty.udp(ADDRESSES)? - without);
    }
    let _program = attach_empty_connect(empty.cgroup.dir())?;
    let mut with_some = Road::new(&net, "some")?;
    let some_shield = with_some.shield("figures-some", &some)?;
    let mut with_many = Road::new(&net, "many")?;
    let _many = with_many.shield("figures-many", &many)?;
    let mut with_none = Road::new(&net, "none")?;
    let _none = with_none.shield("figures-none", &Policy::builder().compile()?)?;
    // In turns, so that what slows one slows all.
    let mut turns = Turns::default();
    for _ in 0..figures.runs() * TURNS {
        turns.take([&mut bare, &mut empty, &mut with_some, &mut with_many, &mut with_none])?;
    }
    turns.report(figures, &Runs::of(of_empty));
    swaps(figures, &some_shield, &some_rules, &each)?;
    beside_opensnitch(figures, &lab, NAMES[7], &mut with_some.connector)
}

/// Nanoseconds beyond the empty program, of whole calls, and percent of TCP connections, by turn.
#[derive(Default)]
struct Turns {
    of_some: Vec<f64>,
    of_many: Vec<f64>,
    of_none: Vec<f64>,
    cold: Vec<f64>,
    cold_many: Vec<f64>,
    whole: Vec<f64>,
    of_tcp: Vec<f64>,
    tcp: Vec<Took>,
}

impl Turns {
    fn take(
        &mut self,
        [bare, empty, with_some, with_many, with_none]: [&mut Road; 5],
    ) -> Result<()> {
        let floor = empty.udp(ADDRESSES)?;
        let whole = with_some.udp(ADDRESSES)?;
        self.whole.push(whole);
        self.of_some.push(whole - floor);
        self.of_many.push(with_many.udp(ADDRESSES)? - floor);
        self.of_none.push(with_none.udp(ADDRESSES)? - floor);
        let floor = empty.udp(COLD_ADDRESSES)?;
        self.cold.push(with_some.udp(COLD_ADDRESSES)? - floor);
        self.cold_many.push(with_many.udp(COLD_ADDRESSES)? - floor);
        let turn = format!("tcp {TCP_TURN}");
        let without = bare.connector.ask(&turn)?.cpu;
        let tcp = with_some.connector.ask(&turn)?;
        self.of_tcp.push((tcp.cpu / without - 1.0) * 100.0);
        self.tcp.push(tcp);
        Ok(())
    }

    fn report(self, figures: &mut Figures, of_empty: &Runs) {
        let Self { of_some, of_many, of_none, cold, cold_many, whole, of_tcp, tcp } = self;
        let rate = Runs::of(whole.iter().map(|ns| 1e9 / ns).collect());
        let [of_some, of_many, of_none, cold, cold_many, whole, of_tcp] =
            [of_some, of_many, of_none, cold, cold_many, whole, of_tcp].map(Runs::of);
        let total = of_empty.median + of_some.median;
        let how = format!("{of_some} ns; a policy without socket rules {of_none}");
        figures.set(NAMES[0], of_some.median, &how);
        figures.set(NAMES[1], total, &format!("the empty program adds {of_empty} ns"));
        let more = of_empty.median + of_many.median;
        let how = format!("10,000 rules: {of_many} ns beyond the empty one");
        figures.set(NAMES[2], more / total, &how);
        let wall = Runs::of(tcp.iter().map(|took| took.wall).collect());
        let how = format!("{of_tcp} %; with rules {wall} ns on the wall");
        figures.set(NAMES[3], of_tcp.median, &how);
        figures.set(
            NAMES[4],
            rate.median,
            &format!("{rate}: whole connect(2) calls of {whole} ns"),
        );
        let how = format!("{cold} ns; with 10,000 rules {cold_many}");
        figures.set(NAMES[6], cold.median, &how);
    }
}

/// How long a policy with 1,000 rules takes to come into force.
fn swaps(figures: &mut Figures, shield: &Shield, some_rules: &Policy, each: &Policy) -> Result<()> {
    let (mut swaps, mut rebuilt, mut of_each) = (Vec::new(), Vec::new(), Vec::new());
    let ms = |began: Instant| began.elapsed().as_secs_f64() * 1e3;
    for _ in 0..figures.runs() {
        let began = Instant::now();
        shield.apply(&each.clone().compile()?)?;
        of_each.push(ms(began));
        let began = Instant::now();
        let some = some_rules.clone().compile()?;
        let built = Instant::now();
        shield.apply(&some)?;
        swaps.push(ms(built));
        rebuilt.push(ms(began) - of_each[of_each.len() - 1]);
    }
    let [swaps, rebuilt, of_each] = [swaps, rebuilt, of_each].map(Runs::of);
    let how = format!(
        "{rebuilt} ms beyond {of_each} for one rule for each country; the swap alone takes {swaps}"
    );
    figures.set(NAMES[5], rebuilt.median, &how);
    Ok(())
}

/// A cgroup, and the process that connects in it.
struct Road {
    cgroup: Cgroup,
    connector: Connector,
}

impl Road {
    fn new(net: &Namespace, name: &str) -> Result<Self> {
        let cgroup = Cgroup::new(name)?;
        let own = std::env::current_exe()?;
        let start = || Connector::start(&cgroup, &own).map_err(|e| e.to_string());
        let connector = net.run(start)??;
        Ok(Self { cgroup, connector })
    }

    /// Processor time of one connection, in a turn that goes to so many addresses.
    fn udp(&mut self, distinct: usize) -> Result<f64> {
        Ok(self.connector.ask(&format!("udp {distinct}"))?.cpu)
    }

    fn shield(&self, instance: &str, policy: &CompiledPolicy) -> Result<Shield> {
        let builder = Shield::builder(instance).cgroup(self.cgroup.dir());
        Ok(builder.socket_rule_slots(10_002).socket_rows(32_768).start(policy)?)
    }
}

/// The same connections where OpenSnitch decides each, and where Shield's rules decide.
fn beside_opensnitch(
    figures: &mut Figures,
    lab: &Lab,
    name: &str,
    ours: &mut Connector,
) -> Result<()> {
    let Some(root) = opensnitch::root() else {
        figures.skip(name, "no OpenSnitch: run cargo xtask figures");
        return Ok(());
    };
    let net = lab.namespace("opensnitch")?;
    net.ip(&["link", "set", "lo", "up"])?;
    let mut theirs = Road::new(&net, "opensnitch")?;
    let _opensnitch = OpenSnitch::start(&net, &root)?;
    // Its netfilter rules come a moment later.
    while OpenSnitch::decided(&net)? == 0 {
        theirs.connector.ask("tcp 1")?;
    }
    let (mut ratios, mut walls) = (Vec::new(), Vec::new());
    for _ in 0..figures.runs() * TURNS {
        let before = OpenSnitch::decided(&net)?;
        let wall = theirs.connector.ask(&format!("tcp {ASKED_TURN}"))?.wall;
        let seen = OpenSnitch::decided(&net)? - before;
        if seen < ASKED_TURN.into() {
            return Err(format!("OpenSnitch saw {seen} of {ASKED_TURN} connections").into());
        }
        walls.push(wall);
        ratios.push(wall / ours.ask(&format!("tcp {ASKED_TURN}"))?.wall);
    }
    let (ratio, wall) = (Runs::of(ratios), Runs::of(walls));
    let how = format!("{ratio}: {wall} ns with one rule of OpenSnitch's; ours has 1,000");
    figures.set(name, ratio.median, &how);
    Ok(())
}
