//! Processes that do with sockets what a test tells them.
//!
//! A talker is the test's own program, started once more with the arguments that run one of its
//! tests only: that test calls [`serve`]. A copy of the program is another executable.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Barrier};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::cgroup::Cgroup;
use crate::error::LabError;

/// Tells a talker that it is one.
const VARIABLE: &str = "IRONCLAD_LAB_TALKER";
/// Before each answer, which shares its stream with the test harness.
const ANSWER: &str = "@@ ";

const MSG_FASTOPEN: i32 = 0x2000_0000;

/// A process that waits for orders.
#[derive(Debug)]
pub struct Talker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Talker {
    /// Starts `program`, which is the test's own or a copy of it, in a control group. `test` is the
    /// name of the test that calls [`serve`].
    ///
    /// # Errors
    /// [`LabError`] where it cannot be started.
    pub fn start(cgroup: &Cgroup, program: &Path, test: &str) -> Result<Self, LabError> {
        Self::start_as(cgroup.command(program), test)
    }

    /// Starts it by a command to which the arguments of a test program are added.
    ///
    /// # Errors
    /// [`LabError`] where it cannot be started.
    pub fn start_as(mut command: Command, test: &str) -> Result<Self, LabError> {
        let failed = |source| LabError::System { step: "starting a talker", source };
        let mut child = command
            .args(arguments(test))
            .env(VARIABLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let (Some(orders), Some(answers)) = (orders, answers) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let mut this = Self { child, orders, answers: BufReader::new(answers) };
        this.answer()?;
        Ok(this)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order; the answer is the number that the kernel refused with, 0 for success, or a
    /// count. Orders: `connect|fastopen|send|bind PROTOCOL ADDRESS:PORT`;
    /// `create 4|6 TYPE PROTOCOL`; `burst COUNT THREADS ADDRESS:PORT` answers how many of so many
    /// connections in each thread were not refused with EPERM; `exec PROGRAM` becomes another;
    /// `fork PROGRAM ORDER…` passes the order to a child that runs that program; `comm NAME`.
    ///
    /// # Errors
    /// [`LabError`] where it has ended.
    pub fn ask(&mut self, order: &str) -> Result<u64, LabError> {
        let failed = |source| LabError::System { step: "talking to a talker", source };
        writeln!(self.orders, "{order}").map_err(failed)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<u64, LabError> {
        let failed = |source| LabError::System { step: "talking to a talker", source };
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line).map_err(failed)? == 0 {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            // The harness ends none of its lines before it runs a test.
            if let Some((_, answer)) = line.split_once(ANSWER) {
                let answer = answer.trim().parse();
                return answer.map_err(|e| failed(io::Error::new(io::ErrorKind::InvalidData, e)));
            }
        }
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn arguments(test: &str) -> [&str; 4] {
    ["--exact", "--nocapture", "--test-threads=1", test]
}

/// Follows orders until they end, where this process is a talker; returns at once where not.
///
/// # Panics
/// At an order that is none.
pub fn serve(test: &str) {
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    // Whoever has started it, or become it, waits for this.
    say(0);
    for line in io::stdin().lines() {
        let line = line.expect("orders are text");
        let answer = match obey(&line, test) {
            Ok(count) => count,
            Err(e) => e.raw_os_error().unwrap_or_else(|| panic!("{line}: {e}")) as u64,
        };
        say(answer);
    }
}

fn say(answer: u64) {
    let mut out = io::stdout().lock();
    writeln!(out, "{ANSWER}{answer}").and_then(|()| out.flush()).expect("somebody listens");
}

fn obey(order: &str, test: &str) -> io::Result<u64> {
    let words: Vec<&str> = order.split(' ').collect();
    let number = |word: &str| word.parse::<i32>().expect("a number");
    match words.as_slice() {
        ["connect", protocol, addr] => {
            let (socket, addr) = open(protocol, addr)?;
            // Nobody need listen: who may connect is decided before.
            socket.set_nonblocking(true)?;
            match socket.connect(&addr) {
                Err(e) if e.raw_os_error() == Some(EPERM) => Err(e),
                _ => Ok(0),
            }
        }
        ["fastopen", protocol, addr] => {
            let (socket, addr) = open(protocol, addr)?;
            match socket.send_to_with_flags(b"hello", &addr, MSG_FASTOPEN) {
                Err(e) if e.raw_os_error() == Some(EPERM) => Err(e),
                // Refused or not, it was sent.
                _ => Ok(0),
            }
        }
        ["send", protocol, addr] => {
            let (socket, addr) = open(protocol, addr)?;
            socket.send_to(b"hello", &addr).map(|_| 0)
        }
        ["bind", protocol, addr] => {
            let (socket, addr) = open(protocol, addr)?;
            socket.bind(&addr).map(|()| 0)
        }
        ["create", family, kind, protocol] => {
            let domain = if *family == "4" { Domain::IPV4 } else { Domain::IPV6 };
            let protocol = Protocol::from(number(protocol));
            Socket::new(domain, Type::from(number(kind)), Some(protocol)).map(|_| 0)
        }
        ["burst", count, threads, addr] => {
            let count = number(count) as u64;
            Ok(burst(count, number(threads) as usize, addr.parse().expect("an address")))
        }
        ["exec", program] => {
            let failed = Command::new(program).args(arguments(test)).exec();
            Err(failed)
        }
        ["fork", program, rest @ ..] => {
            let talker = Talker::start_as(Command::new(program), test);
            let answer = talker.and_then(|mut talker| talker.ask(&rest.join(" ")));
            answer.map_err(io::Error::other)
        }
        ["comm", name] => std::fs::write("/proc/thread-self/comm", name).map(|()| 0),
        _ => panic!("no order: {order}"),
    }
}

const EPERM: i32 = 1;

fn open(protocol: &str, addr: &str) -> io::Result<(Socket, SockAddr)> {
    let addr: SocketAddr = addr.parse().expect("an address");
    let (kind, protocol) = match protocol {
        "tcp" => (Type::STREAM, Protocol::TCP),
        "mptcp" => (Type::STREAM, Protocol::from(262)),
        "udp" => (Type::DGRAM, Protocol::UDP),
        other => panic!("no protocol: {other}"),
    };
    Ok((Socket::new(Domain::for_address(addr), kind, Some(protocol))?, addr.into()))
}

/// Connects by UDP, which sends nothing, from threads that begin together.
fn burst(count: u64, threads: usize, addr: SocketAddr) -> u64 {
    let (start, addr) = (Arc::new(Barrier::new(threads)), SockAddr::from(addr));
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (start, addr) = (Arc::clone(&start), addr.clone());
            std::thread::spawn(move || {
                let domain = Domain::from(i32::from(addr.family()));
                let socket = Socket::new(domain, Type::DGRAM, None).expect("a socket");
                start.wait();
                (0..count).filter(|_| socket.connect(&addr).is_ok()).count() as u64
            })
        })
        .collect();
    workers.into_iter().map(|worker| worker.join().unwrap_or(0)).sum()
}
