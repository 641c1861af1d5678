//! What somebody may try with files and processes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags, chmodat, chownat,
    mknodat, removexattr, renameat_with, setxattr, utimensat,
};
use rustix::process::{Pid, Signal, kill_process};

use ironclad_syscalls::{
    Handle, chattr, count, hello, load_program, prlimit, read_memory, signal_by_file, trace,
};

/// Follows an order; none where it is not one of these.
pub(super) fn obey(words: &[&str]) -> Option<io::Result<u64>> {
    let done = match *words {
        ["read", path] => fs::read(path).map(drop),
        // Some kernels show those whom they refuse an empty file.
        ["read-some", path] => fs::read(path).and_then(|bytes| match bytes.is_empty() {
            true => Err(rustix::io::Errno::PERM.into()),
            false => Ok(()),
        }),
        ["list", path] => {
            fs::read_dir(path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>()).map(drop)
        }
        ["append", path] => OpenOptions::new()
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(b"mischief")),
        ["create", path] => OpenOptions::new().write(true).create_new(true).open(path).map(drop),
        ["open-to-write", path] => OpenOptions::new().write(true).open(path).map(drop),
        ["truncate", path] => nix::unistd::truncate(path, 0).map_err(Into::into),
        ["unlink", path] => fs::remove_file(path),
        ["rmdir", path] => fs::remove_dir(path),
        ["remove-all", path] => fs::remove_dir_all(path),
        ["rename", from, to] => fs::rename(from, to),
        ["exchange", one, two] => {
            renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE).map_err(Into::into)
        }
        ["link", from, to] => fs::hard_link(from, to),
        ["symlink", target, path] => symlink(target, path),
        ["mkfifo", path] => mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).map_err(Into::into),
        ["chmod", path] => {
            chmodat(CWD, path, Mode::from_raw_mode(0o777), AtFlags::empty()).map_err(Into::into)
        }
        ["chown", path] => {
            chownat(CWD, path, Some(rustix::fs::Uid::from_raw(1000)), None, AtFlags::empty())
                .map_err(Into::into)
        }
        ["touch", path] => {
            let long_ago = Timespec { tv_sec: 1, tv_nsec: 0 };
            let times = Timestamps { last_access: long_ago, last_modification: long_ago };
            utimensat(CWD, path, &times, AtFlags::empty()).map_err(Into::into)
        }
        ["setxattr", path] => {
            setxattr(path, "security.mischief", b"1", XattrFlags::empty()).map_err(Into::into)
        }
        ["removexattr", path] => removexattr(path, "security.mischief").map_err(Into::into),
        ["chattr", path] => File::open(path).and_then(|file| chattr(&file)),
        ["execute", path] => Command::new(path)
            .arg("--list")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map(drop),
        ["kill", pid, signal] => kill(pid, signal),
        ["signal-by-file", pid, signal] => signal_by_file(number(pid), number(signal)),
        ["count", pid] => count(number(pid)),
        ["trace", pid] => trace(number(pid)),
        ["read-memory", pid] => read_memory(number(pid)),
        ["open-memory", pid] => {
            OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")).map(drop)
        }
        ["open-by-handle", path] => {
            Handle::of(Path::new(path)).and_then(|mut it| it.open()).map(drop)
        }
        ["open-to-read", path] => File::open(path).map(drop),
        ["read-link", path] => fs::read_link(path).map(drop),
        ["limit", pid] => prlimit(number(pid)),
        ["prefer-others-to", pid] => {
            rustix::process::setpriority_process(process(pid), 19).map_err(Into::into)
        }
        ["bind-to-first", pid] => {
            let mut first = rustix::thread::CpuSet::new();
            first.set(0);
            rustix::thread::sched_setaffinity(process(pid), &first).map_err(Into::into)
        }
        ["hello", one, two, three, four] => {
            hello([one, two, three, four].map(|word| word.parse().expect("a number")))
        }
        ["load", kind] => load_program(number(kind) as u32),
        // Answers its exit status.
        ["tool", program, ref arguments @ ..] => {
            let mut tool = Command::new(program);
            tool.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            return Some(tool.status().map(|it| it.code().unwrap_or(255) as u64));
        }
        _ => return None,
    };
    Some(done.map(|()| 0))
}

fn number(word: &str) -> i32 {
    word.parse().expect("a number")
}

fn process(pid: &str) -> Option<Pid> {
    Pid::from_raw(number(pid))
}

fn kill(pid: &str, signal: &str) -> io::Result<()> {
    let pid = process(pid).expect("a process");
    // Signal 0 asks whether it is there.
    let sent = match Signal::from_named_raw(number(signal)) {
        Some(signal) => kill_process(pid, signal),
        None => rustix::process::test_kill_process(pid),
    };
    sent.map_err(Into::into)
}
