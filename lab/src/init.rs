//! PID 1 of a virtual machine. It runs the machine's script, reaps orphans, and obeys
//! [test processes](crate::test_process::TestProcess::pid_1), as a service manager obeys root.

use std::io::{self, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use rustix::process::{WaitId, WaitIdOptions, WaitOptions, wait, waitid};

use crate::test_process::obey;

/// Takes orders.
pub(crate) const SOCKET: &str = "/pid-1";

/// Held while an order runs, which waits for its own children.
static ORDER: Mutex<()> = Mutex::new(());

/// Runs a program until it ends, which ends the machine if this process is PID 1.
///
/// # Errors
/// Where the program cannot be started, or orders cannot be received.
pub fn main(script: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(SOCKET)?;
    let script = Command::new(script).spawn()?;
    std::thread::Builder::new().name("orders".into()).spawn(move || receive(&listener))?;
    loop {
        // Children of an order are left to it.
        waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
        let _guard = ORDER.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((pid, _)) = wait(WaitOptions::NOHANG)? {
            if pid.as_raw_nonzero().get() as u32 == script.id() {
                return Ok(());
            }
        }
    }
}

fn receive(listener: &UnixListener) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { return };
        // A wrong order ends its thread, and not the machine.
        drop(std::thread::spawn(move || serve(stream)));
    }
}

fn serve(stream: UnixStream) {
    let orders = BufReader::new(stream.try_clone().expect("a descriptor"));
    obey(orders, stream, &ORDER);
}
