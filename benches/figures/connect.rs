//! What socket rules cost a process that connects, beside an empty program at the same hook.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Instant;

use ironclad::core::{Family, RuleId, Verdict};
use ironclad::policy::list::ListOptions;
use ironclad::policy::socket::{AddressGroup, Direction, SocketAction, SocketRule, Subject};
use ironclad::policy::{AddressList, CompiledPolicy, Policy, Protocol};
use ironclad::shield::Shield;
use ironclad_bpf::bench::attach_empty_connect;
use ironclad_lab::{Cgroup, Lab};

use crate::Figures;
use crate::common::Result;
use crate::common::lists::data;
use crate::common::random::Random;
use crate::stats::Runs;

/// Connections of one round by UDP, and of one by TCP.
const UDP_ROUND: u32 = 400_000;
const TCP_ROUND: u32 = 10_000;
/// Distinct addresses that they go to.
const ADDRESSES: usize = 65_536;

/// Connects as it is told on standard input, and says how many nanoseconds one took.
pub(crate) fn connector() -> Result<()> {
    let mut random = Random::new(9);
    let addresses: Vec<SocketAddr> = (0..ADDRESSES)
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
        let began = Instant::now();
        let rounds = match line?.as_str() {
            "tcp" => {
                for _ in 0..TCP_ROUND {
                    let client = TcpStream::connect(listener.local_addr()?)?;
                    drop((client, listener.accept()?));
                }
                TCP_ROUND
            }
            _ => {
                for (_, addr) in (0..UDP_ROUND).zip(addresses.iter().cycle()) {
                    udp.connect(addr)?;
                }
                UDP_ROUND
            }
        };
        println!("{}", began.elapsed().as_nanos() as f64 / f64::from(rounds));
    }
    Ok(())
}

struct Connector {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Connector {
    fn start(cgroup: &Cgroup) -> Result<Self> {
        let mut command = cgroup.command(&std::env::current_exe()?);
        command.arg("connector").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let answers = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        Ok(Self { child, answers })
    }

    fn ask(&mut self, what: &str) -> Result<f64> {
        let orders = self.child.stdin.as_mut().ok_or("no standard input")?;
        writeln!(orders, "{what}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().parse()?)
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
fn rules(count: u32, groups: &[AddressGroup]) -> Result<CompiledPolicy> {
    let own = std::env::current_exe()?;
    let mut programs: Vec<PathBuf> = std::fs::read_dir("/usr/bin")?
        .filter_map(|entry| entry.ok()?.path().canonicalize().ok())
        .filter(|path| path.is_file())
        .take(63)
        .collect();
    programs.sort();
    programs.dedup();
    programs.push(own);
    let mut random = Random::new(3);
    let mut below = |bound: usize| random.below(bound as u64) as usize;
    let names: Vec<String> = groups.iter().map(|group| group.name().to_owned()).collect();
    let mut policy = Policy::builder();
    for group in groups {
        policy = policy.addresses(group.clone());
    }
    for id in 1..=count {
        let who = Subject::new("").exe(&programs[below(programs.len())]);
        let mut rule = SocketRule::new(RuleId(id), format!("rule {id}"), SocketAction::Allow)
            .who(if below(4) == 0 { who.uid(below(20) as u32) } else { who })
            .to(&names[below(names.len())])
            .protocol(if below(2) == 0 { Protocol::TCP } else { Protocol::UDP });
        if below(2) == 0 {
            let first = below(60_000) as u16;
            rule = rule.ports(first..=first + below(5000) as u16);
        }
        policy = policy.socket_rule(rule);
    }
    Ok(policy.socket_default(Direction::In, Verdict::Pass).compile()?)
}

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    const NAMES: [&str; 6] = [
        "connect_added_ns_beyond_empty",
        "connect_added_ns_total",
        "connect_rules_10x_ratio",
        "connect_tcp_added_percent",
        "decisions_per_s_core",
        "rules_1000_swap_ms",
    ];
    if !NAMES.iter().any(|name| figures.wants(name)) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let net = lab.namespace("connect")?;
    // Everything has a way, so that connect(2) by UDP ends with success and sends nothing.
    net.ip(&["route", "add", "default", "dev", "lo"])?;
    net.ip(&["addr", "add", "10.9.0.1/32", "dev", "lo"])?;
    let cgroup = Cgroup::new("connect")?;
    let mut connector = net.run(|| Connector::start(&cgroup).map_err(|e| e.to_string()))??;
    let groups = countries()?;
    let (some, many) = (rules(1000, &groups)?, rules(10_000, &groups)?);
    let start = |policy: &CompiledPolicy| {
        Shield::builder("figures")
            .cgroup(cgroup.dir())
            .socket_rule_slots(10_002)
            .socket_rows(32_768)
            .start(policy)
    };
    let none = Policy::builder().compile()?;
    let mut took: [Vec<f64>; 6] = Default::default();
    let mut tcp: [Vec<f64>; 2] = Default::default();
    for _ in 0..figures.runs() {
        took[0].push(connector.ask("udp")?);
        tcp[0].push(connector.ask("tcp")?);
        let empty = attach_empty_connect(cgroup.dir())?;
        took[1].push(connector.ask("udp")?);
        drop(empty);
        let shield = start(&some)?;
        took[2].push(connector.ask("udp")?);
        tcp[1].push(connector.ask("tcp")?);
        shield.apply(&many)?;
        took[3].push(connector.ask("udp")?);
        shield.apply(&none)?;
        took[4].push(connector.ask("udp")?);
        let began = Instant::now();
        shield.apply(&some)?;
        took[5].push(began.elapsed().as_secs_f64() * 1e3);
    }
    // Within a round, so that what slows a round slows both.
    let beyond = |a: usize, b: usize| {
        Runs::of(took[a].iter().zip(&took[b]).map(|(a, b)| a - b).collect::<Vec<_>>())
    };
    let (empty, added, total, more, silent) =
        (beyond(1, 0), beyond(2, 1), beyond(2, 0), beyond(3, 0), beyond(4, 0));
    let bare = Runs::of(took[0].clone());
    figures.set(
        NAMES[0],
        added.median,
        &format!("{added} ns; a policy without socket rules adds {silent} in all, the empty program {empty} to {bare}"),
    );
    figures.set(NAMES[1], total.median, &format!("{total} ns"));
    figures.set(NAMES[2], more.median / total.median, &format!("10,000 rules add {more} ns"));
    let percent: Vec<f64> =
        tcp[1].iter().zip(&tcp[0]).map(|(with, without)| (with / without - 1.0) * 100.0).collect();
    let (percent, round) = (Runs::of(percent), Runs::of(tcp[0].clone()));
    figures.set(NAMES[3], percent.median, &format!("{percent} % of {round} ns"));
    let rate = Runs::of(took[2].iter().map(|ns| 1e9 / ns).collect::<Vec<_>>());
    figures.set(NAMES[4], rate.median, &format!("{rate}: whole connect(2) calls"));
    let swap = Runs::of(took[5].clone());
    figures.set(NAMES[5], swap.median, &format!("{swap} ms, tables of addresses included"));
    Ok(())
}
