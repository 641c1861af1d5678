//! Processes that connect, execute and fork without a pause, while a test starts and stops a Shield. They report
//! what they find.

use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use ironclad_syscalls::in_child;
use socket2::{Domain, Socket, Type};

use super::{allowed, say};

/// Makes a test process one of these: `PERIOD GOOD BAD ADDRESS`.
const VARIABLE: &str = "IRONCLAD_LAB_TREADMILL";
/// Makes a test process one that connects once.
const ONCE: &str = "IRONCLAD_LAB_TREADMILL_ONCE";
const EPERM: i32 = 1;

/// The result of one connection in one period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The period, in which rules are in force.
    pub period: u64,
    /// Whether the program is the denied one.
    pub is_bad: bool,
    /// Whether the result differs from the policy.
    pub is_wrong: bool,
}

impl Finding {
    pub(super) fn from_answer(answer: u64) -> Self {
        Self { period: answer >> 2, is_bad: answer & 2 != 0, is_wrong: answer & 1 != 0 }
    }

    fn into_answer(self) -> u64 {
        self.period << 2 | u64::from(self.is_bad) << 1 | u64::from(self.is_wrong)
    }
}

/// The present period, if rules are in force: the number in this file is odd.
fn period(file: &str) -> Option<u64> {
    let number = std::fs::read_to_string(file).ok()?.parse::<u64>().ok()?;
    (number % 2 == 1).then_some(number)
}

/// Connects, and reports the result if one period lasted all the time.
fn connect(file: &str, is_bad: bool, addr: SocketAddr) -> io::Result<()> {
    let before = period(file);
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
    let is_refused = match allowed(socket.connect(&addr.into())) {
        Ok(_) => false,
        Err(e) if e.raw_os_error() == Some(EPERM) => true,
        Err(e) => return Err(e),
    };
    if let (Some(period), true) = (before, before == self::period(file)) {
        say(Finding { period, is_bad, is_wrong: is_refused != is_bad }.into_answer());
    }
    Ok(())
}

/// Executes this program again, as one of these.
pub(super) fn begin(what: &str) -> io::Result<u64> {
    let own = std::env::current_exe()?;
    Err(Command::new(own).env(VARIABLE, what).exec())
}

/// Runs, if this process is one of these.
pub(super) fn run() -> io::Result<()> {
    let Ok(what) = std::env::var(VARIABLE) else { return Ok(()) };
    let [how, file, good, bad, addr] = what.split(' ').collect::<Vec<_>>()[..] else {
        panic!("no treadmill: {what}");
    };
    let addr = addr.parse().expect("an address");
    let is_bad = std::env::current_exe()? == Path::new(bad);
    let other = if is_bad { good } else { bad };
    loop {
        connect(file, is_bad, addr)?;
        if std::env::var_os(ONCE).is_some() {
            std::process::exit(0);
        }
        match how {
            "exec" => return Err(Command::new(other).exec()),
            "fork" => {
                in_child(|| u8::from(connect(file, is_bad, addr).is_err()))?;
            }
            "spawn" => {
                let mut child = Command::new(other);
                child.env(ONCE, "1").stdin(Stdio::null());
                child.status()?;
            }
            other => panic!("unknown method: {other}"),
        }
    }
}
