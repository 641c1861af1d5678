//! The demonstration: a host behind a veth pair, a peer with many addresses, and the addresses that reach
//! the host at each step.

use std::io::BufRead;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ironclad::core::{Cidr, ErrorChain, Family, RuleId};
use ironclad::policy::CompiledPolicy;
use ironclad::shield::Shield;
use ironclad::shield::{BPFFS, PinDirectory};
use ironclad_lab::{Lab, Namespace};
use serde_json::{Value, json};

use crate::lists::{COUNTRIES, Lists, PARTNERS, THREATS};
use crate::live::{self, Live};
use crate::{Result, programs, stop_flag, table};

const HOST4: &str = "172.31.255.1";
const HOST6: &str = "fd1c::1";
/// Datagrams of each client at each step.
const DATAGRAMS: u64 = 20;
/// Echo requests of each client at each step.
const PINGS: u64 = 3;
/// How long to wait for packets that must not come; all is local.
const SILENCE: Duration = Duration::from_millis(400);

/// An address of the peer, and the rules that decide about it.
struct Client {
    name: &'static str,
    addr: IpAddr,
    /// The rule that decides, before and after the swap; none for the default.
    rules: [Option<RuleId>; 2],
    gateway: bool,
}

impl Client {
    fn passes(&self, step: usize) -> bool {
        self.gateway || !matches!(self.rules[step], Some(COUNTRIES | THREATS))
    }
}

/// Expected and observed numbers.
pub(crate) struct Report {
    rows: Vec<(String, u64, u64)>,
    quiet: bool,
}

impl Report {
    pub(crate) fn check(&mut self, what: impl Into<String>, expected: u64, seen: u64) {
        self.rows.push((what.into(), expected, seen));
    }

    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            println!("{text}");
        }
    }

    fn agrees(&self) -> bool {
        self.rows.iter().all(|(_, expected, seen)| expected == seen)
    }
}

/// A host address inside the first prefix of a family that is not also listed as a threat.
fn inside(lists: &Lists, policy: &CompiledPolicy, family: Family, rule: RuleId) -> Result<IpAddr> {
    let all = lists.countries.iter().chain([&lists.threats]);
    all.flat_map(|list| list.entries())
        .filter(|entry| entry.cidr.family() == family)
        .map(|entry| match entry.cidr.addr() {
            IpAddr::V4(a) if entry.cidr.length() < 32 => IpAddr::V4((u32::from(a) + 7).into()),
            IpAddr::V6(a) if entry.cidr.length() < 128 => IpAddr::V6((u128::from(a) + 7).into()),
            host => host,
        })
        .find(|&addr| {
            let unicast = match addr {
                IpAddr::V4(a) => !a.is_loopback() && !a.is_multicast() && a.octets()[0] != 0,
                IpAddr::V6(a) => !a.is_loopback() && !a.is_multicast(),
            };
            unicast && policy.explain(addr).decided_by.is_some_and(|cover| cover.rule == rule)
        })
        .ok_or_else(|| format!("the lists have no address for rule {rule}").into())
}

fn clients(lists: &Lists) -> Result<Vec<Client>> {
    let bare = lists.policy(&[])?;
    let country4 = inside(lists, &bare, Family::V4, COUNTRIES)?;
    let country6 = inside(lists, &bare, Family::V6, COUNTRIES)?;
    let threat = inside(lists, &bare, Family::V4, THREATS)?;
    let next = |addr: IpAddr, by: u32| match addr {
        IpAddr::V4(a) => IpAddr::V4((u32::from(a) + by).into()),
        IpAddr::V6(a) => IpAddr::V6((u128::from(a) + u128::from(by)).into()),
    };
    let client = |name, addr, rules| Client { name, addr, rules, gateway: false };
    Ok(vec![
        client("blocked country", country4, [Some(COUNTRIES); 2]),
        client("blocked country", country6, [Some(COUNTRIES); 2]),
        client("threat", threat, [Some(THREATS); 2]),
        client("partner in the country", next(country4, 1), [Some(PARTNERS), Some(COUNTRIES)]),
        client("partner in the country", next(country6, 1), [Some(PARTNERS), Some(COUNTRIES)]),
        client("partner after the swap", next(country4, 2), [Some(COUNTRIES), Some(PARTNERS)]),
        Client { gateway: true, ..client("gateway", next(country4, 3), [Some(COUNTRIES); 2]) },
        Client { gateway: true, ..client("gateway", next(country6, 3), [Some(COUNTRIES); 2]) },
        client("unlisted", "172.31.255.2".parse()?, [None; 2]),
        client("unlisted", "fd1c::2".parse()?, [None; 2]),
    ])
}

fn policies(lists: &Lists, clients: &[Client]) -> Result<[CompiledPolicy; 2]> {
    let partners = |step: usize| -> Vec<Cidr> {
        let partners = clients.iter().filter(|client| client.rules[step] == Some(PARTNERS));
        partners.map(|client| Cidr::host(client.addr)).collect()
    };
    Ok([lists.policy(&partners(0))?, lists.policy(&partners(1))?])
}

fn gateways(clients: &[Client]) -> Vec<IpAddr> {
    clients.iter().filter(|client| client.gateway).map(|client| client.addr).collect()
}

struct Net {
    host: Namespace,
    peer: Namespace,
    _lab: Lab,
}

impl Net {
    fn build(clients: &[Client]) -> Result<Self> {
        let lab = Lab::new()?;
        let (host, peer) = (lab.namespace("host")?, lab.namespace("peer")?);
        lab.veth((&host, "fw0"), (&peer, "net0"))?;
        host.address("fw0", &format!("{HOST4}/32"))?;
        host.address("fw0", &format!("{HOST6}/128"))?;
        host.ip(&["route", "add", "default", "dev", "fw0"])?;
        host.ip(&["-6", "route", "add", "default", "dev", "fw0"])?;
        peer.ip(&["route", "add", HOST4, "dev", "net0"])?;
        peer.ip(&["-6", "route", "add", HOST6, "dev", "net0"])?;
        for client in clients {
            let length = Family::of(client.addr).bits();
            peer.address("net0", &format!("{}/{length}", client.addr))?;
        }
        Ok(Self { host, peer, _lab: lab })
    }

    /// Sends a step's traffic from one client, and returns datagrams, pings and connections that
    /// got through.
    fn traffic(&self, client: &Client) -> Result<(u64, u64, u64)> {
        let passes_none = |e: std::io::Error| e.to_string();
        let here: IpAddr = match client.addr {
            IpAddr::V4(_) => HOST4.parse()?,
            IpAddr::V6(_) => HOST6.parse()?,
        };
        let (udp, tcp) = self.host.run(|| {
            Ok::<_, String>((
                UdpSocket::bind((here, 0)).map_err(passes_none)?,
                TcpListener::bind((here, 0)).map_err(passes_none)?,
            ))
        })??;
        let (udp_to, tcp_to) = (udp.local_addr()?, tcp.local_addr()?);
        self.peer.run(|| {
            let socket = UdpSocket::bind((client.addr, 0)).map_err(passes_none)?;
            (0..DATAGRAMS)
                .try_for_each(|_| socket.send_to(b"ironclad", udp_to).map(drop))
                .map_err(passes_none)
        })??;
        let mut datagrams = 0;
        udp.set_read_timeout(Some(SILENCE))?;
        while datagrams < DATAGRAMS && udp.recv_from(&mut [0; 16]).is_ok() {
            datagrams += 1;
        }
        let pings = self.pings(client.addr, here);
        let connected = self.peer.run(|| connects(client.addr, tcp_to))?;
        Ok((datagrams, pings, u64::from(connected)))
    }

    fn pings(&self, from: IpAddr, to: IpAddr) -> u64 {
        let (from, to) = (from.to_string(), to.to_string());
        let count = PINGS.to_string();
        let args = ["-n", "-i", "0.05", "-W", "0.4", "-c", &count, "-I", &from, &to];
        // Without an answer ping fails, and that is an answer too.
        let said = self.peer.exec("ping", &args).unwrap_or_default();
        said.lines().filter(|line| line.contains(" bytes from ")).count() as u64
    }
}

fn connects(from: IpAddr, to: SocketAddr) -> bool {
    use socket2::{Domain, Socket, Type};
    let connected = || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&to.into(), SILENCE)
    };
    connected().is_ok()
}

/// The agent that the lab kills: a process of its own, in the host's namespace.
pub(crate) fn agent(instance: &str, data: Option<&Path>) -> Result<bool> {
    let lists = Lists::read(data)?;
    let clients = clients(&lists)?;
    let [policy, _] = policies(&lists, &clients)?;
    let _shield = Shield::builder(instance)
        .interface("fw0")
        .gateways(gateways(&clients))
        .persistent(true)
        .start(&policy)?;
    println!("ready");
    // Until it is killed, or the lab is gone and closes the pipe.
    std::io::stdin().read_line(&mut String::new())?;
    Ok(true)
}

fn start_agent(net: &Net, instance: &str, data: Option<&Path>) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--lab-agent", instance]).stdin(Stdio::piped()).stdout(Stdio::piped());
    if let Some(data) = data {
        command.arg("--data").arg(data);
    }
    let mut child = net.host.run(|| command.spawn())??;
    let out = child.stdout.take().ok_or("the agent has no output")?;
    let mut line = String::new();
    std::io::BufReader::new(out).read_line(&mut line)?;
    if line.trim() != "ready" {
        return Err(format!("the agent ended: {}", child.wait()?).into());
    }
    Ok(child)
}

pub(crate) fn go_on(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) { Err("interrupted".into()) } else { Ok(()) }
}

/// Instances of the demonstration: `demo-<pid>`.
const PINS: &str = "demo-";

/// Removes what demonstrations that were killed have left pinned.
fn sweep() {
    let instances = std::fs::read_dir(Path::new(BPFFS).join("ironclad"));
    for instance in instances.into_iter().flatten().flatten() {
        let name = instance.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some(Ok(pid)) = name.strip_prefix(PINS).map(str::parse::<u32>) else { continue };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            drop(Pins(name.to_owned()));
        }
    }
}

/// Removes the pins of the agent, also after a failure.
struct Pins(String);

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = PinDirectory::purge(BPFFS.as_ref(), &self.0) {
            eprintln!("{}", ErrorChain::new(&error));
        }
    }
}

/// One step: every client's traffic, and the counters that it moves.
fn step(
    net: &Net,
    shield: &Shield,
    clients: &[Client],
    number: usize,
    stop: &AtomicBool,
    report: &mut Report,
) -> Result<()> {
    for client in clients {
        go_on(stop)?;
        let before = shield.counters()?;
        let (datagrams, pings, connections) = net.traffic(client)?;
        let after = shield.counters()?;
        let pass = client.passes(number);
        let label = format!("step {}, {} {}", number + 1, client.name, client.addr);
        report.check(format!("{label}: datagrams"), if pass { DATAGRAMS } else { 0 }, datagrams);
        report.check(format!("{label}: pings"), if pass { PINGS } else { 0 }, pings);
        report.check(format!("{label}: connections"), u64::from(pass), connections);
        if !pass {
            // The kernel repeats some connection attempts; the other counts are exact.
            let rule = client.rules[number].ok_or("a blocked client without a rule")?;
            let dropped = |c: &ironclad::shield::Counters| {
                c.rule(rule).map_or(0, |count| count.matched.packets)
            };
            let seen = dropped(&after) - dropped(&before);
            let least = DATAGRAMS + PINGS + 1;
            report.check(
                format!("{label}: drops by rule {rule} (at least)"),
                least,
                seen.min(least),
            );
            let all = after.dropped().packets - before.dropped().packets;
            report.check(format!("{label}: drops by any other rule"), 0, all - seen);
        }
    }
    Ok(())
}

pub(crate) fn run(data: Option<&Path>, json: bool) -> Result<bool> {
    let stop = stop_flag()?;
    let mut report = Report { rows: Vec::new(), quiet: json };
    let begin = Instant::now();
    let lists = Lists::read(data)?;
    let clients = clients(&lists)?;
    let [first, second] = policies(&lists, &clients)?;
    report.say(&format!(
        "{}: {} prefixes, {:.1} MB of maps, read and compiled twice in {} ms",
        lists.from,
        first.prefixes(),
        first.memory().total() as f64 / 1e6,
        begin.elapsed().as_millis()
    ));
    let net = Net::build(&clients)?;
    sweep();
    let instance = format!("{PINS}{}", std::process::id());
    let pins = Pins(instance.clone());

    // Without a firewall every address reaches the host, so the drops below are Shield's.
    for client in &clients {
        go_on(&stop)?;
        let (datagrams, pings, connections) = net.traffic(client)?;
        let label = format!("unprotected, {} {}", client.name, client.addr);
        report.check(label, DATAGRAMS + PINGS + 1, datagrams + pings + connections);
    }
    report.say(&format!("unprotected: all {} clients reach the host", clients.len()));

    let begin = Instant::now();
    let mut child = start_agent(&net, &instance, data)?;
    report.say(&format!("agent started in {} ms; killing it", begin.elapsed().as_millis()));
    child.kill()?;
    child.wait()?;
    let blocked = &clients[0];
    let (datagrams, ..) = net.traffic(blocked)?;
    report.check("while no agent runs: datagrams of a blocked country", 0, datagrams);

    let begin = Instant::now();
    let shield = net.host.run(|| {
        Shield::builder(&instance)
            .interface("fw0")
            .gateways(gateways(&clients))
            .persistent(true)
            .start(&first)
            .map_err(|e| ErrorChain::new(&e).to_string())
    })??;
    rest(&net, &shield, &clients, &second, &stop, &mut report, begin)?;
    shield.stop()?;
    drop(pins);
    let (datagrams, ..) = net.traffic(blocked)?;
    report.check("after the end: datagrams of a blocked country", DATAGRAMS, datagrams);
    programs::show(&format!("{instance}-programs"), &stop, &mut report)?;
    summary(&report);
    Ok(report.agrees())
}

fn rest(
    net: &Net,
    shield: &Shield,
    clients: &[Client],
    second: &CompiledPolicy,
    stop: &AtomicBool,
    report: &mut Report,
    begin: Instant,
) -> Result<()> {
    let status = shield.status()?;
    report.check("generation that was adopted", 1, status.generation);
    let mode = status.interfaces.first().map_or_else(String::new, |i| i.mode.to_string());
    report.say(&format!(
        "adopted generation {} in {} ms, {mode} mode",
        status.generation,
        begin.elapsed().as_millis()
    ));
    shown(shield, report, |report| step(net, shield, clients, 0, stop, report))?;
    let begin = Instant::now();
    shield.apply(second)?;
    report.say(&format!("policy swapped in {} ms", begin.elapsed().as_millis()));
    report.check("generation after the swap", 2, shield.status()?.generation);
    shown(shield, report, |report| step(net, shield, clients, 1, stop, report))
}

/// Shows the table while `work` runs, or after it where it cannot be redrawn.
fn shown(
    shield: &Shield,
    report: &mut Report,
    work: impl FnOnce(&mut Report) -> Result<()>,
) -> Result<()> {
    match Live::open().filter(|_| !report.quiet) {
        Some(live) => live::during(live, shield, || work(report)),
        None => {
            work(report)?;
            report.say(&table::verdicts(&shield.counters()?));
            Ok(())
        }
    }
}

fn summary(report: &Report) {
    if report.quiet {
        let rows: Vec<Value> = report
            .rows
            .iter()
            .map(|(what, expected, seen)| {
                json!({ "what": what, "expected": expected, "seen": seen })
            })
            .collect();
        println!("{}", json!({ "agrees": report.agrees(), "checks": rows }));
        return;
    }
    println!("{:<78}{:>10}{:>10}", "", "expected", "seen");
    for (what, expected, seen) in &report.rows {
        let mark = if expected == seen { "" } else { "  ← differs" };
        println!("{what:<78}{expected:>10}{seen:>10}{mark}");
    }
    let wrong = report.rows.iter().filter(|(_, expected, seen)| expected != seen).count();
    println!("{} checks, {wrong} differ", report.rows.len());
}
