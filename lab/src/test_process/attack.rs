//! Orders that attack files, processes and the host.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags, chmodat,
    chownat, copy_file_range, ioctl_ficlone, mknodat, removexattr, renameat_with, sendfile,
    setxattr, utimensat,
};
use rustix::pipe::{SpliceFlags, pipe, splice};
use rustix::process::{Pid, Signal, kill_process};

use ironclad_syscalls::{
    Handle, SignalKfuncs, advise, be_root_of_files_alone, change_attribute, chattr, clone_range,
    command, count, decide_on_opens, deduplicate, deny_devices, detach_link, enable_verity,
    file_setattr, freeze, hello, insert_module, kexec_file_load, kexec_load, link_by_id,
    load_lsm_program, load_program, load_with_attributes, map_by_id, move_extents, nvme_submit,
    nvme_uring, nvme_write, open_as_executed, open_by_xfs_handle, open_pin, override_verdict,
    page_out, partition, prlimit, probe, program_by_id, query_devices, quota_on, read_by_helper,
    read_by_kfunc, read_memory, sample_stack, scsi_send, scsi_write, seize, set_up_again,
    set_version, set_writable, share_mount, shut_down, signal_by_file, signal_by_kfunc,
    swap_extents, thaw, trace, update_link, uring_open, watch_tracepoint, write_memory,
};

use super::held::{hex, how};

/// Runs an order on files and directories. None if it is no such order.
pub(super) fn on_files(words: &[&str]) -> io::Result<Option<u64>> {
    let done = match *words {
        ["read", path] => fs::read(path).map(drop),
        // Some kernels show an empty file instead of an error.
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
        ["file-setattr", path] => file_setattr(Path::new(path)),
        ["enable-verity", path] => File::open(path).and_then(|file| enable_verity(&file)),
        #[cfg(target_arch = "x86_64")]
        ["chattr-32", path] => {
            File::open(path).and_then(|file| ironclad_syscalls::chattr_32(&file))
        }
        ["set-version", path, version] => {
            File::open(path).and_then(|file| set_version(&file, version.parse().expect("a number")))
        }
        ["execute", path] => Command::new(path)
            .arg("--list")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map(drop),
        ["open-by-handle", path] => {
            Handle::of(Path::new(path)).and_then(|mut it| it.open()).map(drop)
        }
        ["open-to-read", path] => File::open(path).map(drop),
        // An O_PATH descriptor, which can only be reopened.
        ["open-by-path", path] => {
            rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .map_err(Into::into)
                .and_then(|fd| {
                    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
                    OpenOptions::new().write(true).open(name).map(drop)
                })
        }
        ["set-acl", path] => setxattr(path, "system.posix_acl_access", &acl(), XattrFlags::empty())
            .map_err(Into::into),
        ["uring-open", by, path] => uring_open(&text(path), how(by)).map(drop),
        ["read-link", path] => fs::read_link(path).map(drop),
        ["share-mount", path] => share_mount(Path::new(path)),
        ["decide-on-opens", what, mask, path] => {
            decide_on_opens(Path::new(path), wide(what) as u32, wide(mask))
        }
        _ => return Ok(None),
    };
    done.map(|()| Some(0))
}

/// Runs an order on processes, BPF objects, disks and the kernel. None if it is no such order.
pub(super) fn on_host(words: &[&str]) -> io::Result<Option<u64>> {
    let done = match *words {
        ["scsi-write", path] => File::open(path).and_then(|disk| scsi_write(&disk)),
        ["scsi-send", path] => File::open(path).and_then(|disk| scsi_send(&disk)),
        ["insert-module", path] => {
            File::open(path).and_then(|module| insert_module(&module, false))
        }
        ["insert-compressed", path] => {
            File::open(path).and_then(|module| insert_module(&module, true))
        }
        ["nvme-write", path] => File::open(path).and_then(|disk| nvme_write(&disk)),
        ["nvme-submit", path] => File::open(path).and_then(|disk| nvme_submit(&disk)),
        ["nvme-uring", path] => File::open(path).and_then(|disk| nvme_uring(&disk)),
        ["open-by-xfs-handle", path, by] => {
            File::open(path).and_then(|file| open_by_xfs_handle(&file, &File::open(by)?)).map(drop)
        }
        ["read-as-executed", path, by] => CString::new(path)
            .map_err(io::Error::from)
            .and_then(|path| open_as_executed(&path, &File::open(by)?))
            .and_then(|file| File::from(file).read_exact(&mut [0]))
            .map(drop),
        ["change-attribute", path, by] => {
            File::open(path).and_then(|file| change_attribute(&file, &File::open(by)?))
        }
        ["set-writable", path] => File::open(path).and_then(|disk| set_writable(&disk)),
        ["add-partition", path] => File::open(path).and_then(|disk| partition(&disk, true)),
        ["remove-partition", path] => File::open(path).and_then(|disk| partition(&disk, false)),
        ["set-up-again", path] => File::open(path).and_then(|device| set_up_again(&device)),
        ["freeze", path] => File::open(path).and_then(|directory| freeze(&directory)),
        ["thaw", path] => File::open(path).and_then(|directory| thaw(&directory)),
        ["command", path, number, argument] => File::open(path).and_then(|file| {
            let number = u32::from_str_radix(number, 16).expect("a number in hexadecimal");
            command(&file, number, &hex(argument))
        }),
        ["shut-down", path] => File::open(path).and_then(|directory| shut_down(&directory)),
        ["quota-on", device, path] => quota_on(&text(device), &text(path)),
        ["query-devices", group] => File::open(group).and_then(|group| query_devices(&group)),
        ["deny-devices", group] => File::open(group).and_then(|group| deny_devices(&group)),
        ["deduplicate", from, to] => {
            File::open(from).and_then(|from| File::open(to).and_then(|to| deduplicate(&from, &to)))
        }
        #[cfg(target_arch = "x86_64")]
        [verb @ ("iopl" | "ioperm")] => ironclad_syscalls::allow_ports(verb == "iopl"),
        ["rewrite", path, offset, len] => rewrite(path, wide(offset), wide(len) as usize),
        ["kexec-load"] => kexec_load(),
        ["kexec-file-load", path] => File::open(path).and_then(|file| kexec_file_load(&file)),
        ["signal-by-kfunc", pid, signal, find, send, release] => {
            let [find, send, release] = [find, send, release].map(|number| wide(number) as u32);
            let kfuncs = SignalKfuncs { find, send, release };
            signal_by_kfunc(number(pid), number(signal), kfuncs)
        }
        ["read-by-kfunc", cast, structure] => {
            read_by_kfunc(wide(cast) as u32, wide(structure) as u32)
        }
        ["read-by-helper", kind, helper, before] => {
            read_by_helper(wide(kind) as u32, wide(helper) as u32, wide(before) as usize)
        }
        ["load-with-attributes", kind] => load_with_attributes(wide(kind) as u32),
        ["kill", pid, signal] => kill(pid, signal),
        ["signal-by-file", pid, signal] => signal_by_file(number(pid), number(signal)),
        // Answers 255 if the child was killed.
        ["eat-in", group, bytes] => {
            let eaten = File::open(group)
                .and_then(|group| ironclad_syscalls::eat_in_group(&group, wide(bytes) as usize));
            return eaten.map(|is_done| Some(if is_done { 0 } else { 255 }));
        }
        ["count", pid] => count(number(pid)),
        ["be-root-of-files-alone"] => be_root_of_files_alone(),
        ["advise", pid] => advise(number(pid)),
        ["page-out", pid, begin, end] => {
            let address = |text| usize::from_str_radix(text, 16).map_err(io::Error::other);
            address(begin).and_then(|begin| page_out(number(pid), begin..address(end)?))
        }
        ["seize", pid] => seize(number(pid)),
        ["trace", pid] => trace(number(pid)),
        ["read-memory", pid] => read_memory(number(pid)),
        ["write-memory", pid] => write_memory(number(pid)),
        ["probe-program", pid, path] => probe_program(process(pid), path),
        ["probe-kernel", function] => {
            kind_of_probe("kprobe").and_then(|kind| probe(None, kind, &text(function), 0))
        }
        ["sample", pid] => sample_stack(number(pid)),
        ["override-verdict"] => override_verdict(),
        [verb @ ("watch" | "count-calls"), pid, tracepoint] => {
            let pid = process(pid).map(|pid| pid.as_raw_nonzero().get());
            watch_tracepoint(pid, wide(tracepoint), verb == "watch")
        }
        ["link-by-id", id] => link_by_id(number(id) as u32).map(drop),
        ["map-by-id", id, flags] => map_by_id(number(id) as u32, number(flags) as u32).map(drop),
        ["detach-link-by-id", id] => {
            link_by_id(number(id) as u32).and_then(|link| detach_link(link.as_raw_fd() as u32))
        }
        ["program-by-id", id] => program_by_id(number(id) as u32).map(drop),
        ["open-pin", path] => open_pin(&text(path)).map(drop),
        ["update-link", fd] => update_link(number(fd) as u32),
        ["detach-link", fd] => detach_link(number(fd) as u32),
        ["open-memory", pid] => {
            OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")).map(drop)
        }
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
        ["load-lsm", hook] => load_lsm_program(number(hook) as u32),
        ["serve-nbd", device, path] => super::nbd::serve(device, Path::new(path)),
        ["serve-ublk", path] => super::ublk::serve(Path::new(path)),
        ["press-sysrq", device, key] => press_sysrq(device, wide(key) as u16),
        // Answers its exit status.
        ["tool", program, ref arguments @ ..] => {
            let mut tool = Command::new(program);
            tool.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            return tool.status().map(|it| Some(it.code().unwrap_or(255) as u64));
        }
        _ => return Ok(None),
    };
    done.map(|()| Some(0))
}

/// Has a keyboard report Alt, SysRq and a key, by numbers of include/uapi/linux/input-event-codes.h.
fn press_sysrq(device: &str, key: u16) -> io::Result<()> {
    const EV_KEY: u16 = 1;
    const KEY_SYSRQ: u16 = 99;
    const KEY_LEFTALT: u16 = 56;
    let mut keyboard = OpenOptions::new().write(true).open(device)?;
    let presses = [KEY_LEFTALT, KEY_SYSRQ, key].map(|key| (key, 1u32));
    let releases = [key, KEY_SYSRQ, KEY_LEFTALT].map(|key| (key, 0));
    for (key, value) in presses.into_iter().chain(releases) {
        // struct input_event: the time, the type, the key, the value; then that this is all.
        let mut events = [0; 48];
        events[16..18].copy_from_slice(&EV_KEY.to_ne_bytes());
        events[18..20].copy_from_slice(&key.to_ne_bytes());
        events[20..24].copy_from_slice(&value.to_ne_bytes());
        keyboard.write_all(&events)?;
    }
    Ok(())
}

/// An ACL that gives user 1000 the rights of the owner, which no mode expresses.
fn acl() -> Vec<u8> {
    const VERSION: u32 = 2;
    const NO_ID: u32 = u32::MAX;
    // Owner, a user, the group, the mask, others.
    let entries: [(u16, u16, u32); 5] =
        [(1, 7, NO_ID), (2, 7, 1000), (4, 0, NO_ID), (0x10, 7, NO_ID), (0x20, 0, NO_ID)];
    let mut acl = VERSION.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        acl.extend(
            tag.to_le_bytes().into_iter().chain(rights.to_le_bytes()).chain(id.to_le_bytes()),
        );
    }
    acl
}

/// Writes a byte of a file into another without write(2).
pub(super) fn fill(verb: &str, source: &str, to: &File) -> io::Result<()> {
    let writable = || OpenOptions::new().read(true).write(true).open(source);
    match verb {
        "swap-extents-to-kept" => return swap_extents(&writable()?, to),
        "move-extents-to-kept" => return move_extents(&writable()?, to),
        "give-extents-to-kept" => return move_extents(to, &writable()?),
        _ => {}
    }
    let source = File::open(source)?;
    let moved = match verb {
        "clone-to-kept" => return Ok(ioctl_ficlone(to, &source)?),
        "clone-range-to-kept" => return clone_range(&source, to),
        "copy-to-kept" => copy_file_range(&source, None, to, None, 1)?,
        "send-to-kept" => sendfile(to, &source, None, 1)?,
        "splice-to-kept" => {
            let (reader, writer) = pipe()?;
            splice(&source, None, &writer, None, 1, SpliceFlags::empty())?;
            splice(&reader, None, to, None, 1, SpliceFlags::empty())?
        }
        other => panic!("unknown order: {other}"),
    };
    assert_eq!(moved, 1, "{verb}");
    Ok(())
}

/// Reads bytes at an offset of a file or device, and writes them there.
fn rewrite(path: &str, offset: u64, len: usize) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset)?;
    file.write_all_at(&bytes, offset)
}

/// Probes the entry of a program, which a running process does not execute again.
fn probe_program(of: Option<Pid>, path: &str) -> io::Result<()> {
    let (kind, offset) = (kind_of_probe("uprobe")?, entry(&fs::read(path)?));
    probe(of.map(|pid| pid.as_raw_nonzero().get()), kind, &text(path), offset)
}

/// The number by which perf_event_open(2) knows it.
fn kind_of_probe(name: &str) -> io::Result<u32> {
    let kind = fs::read_to_string(format!("/sys/bus/event_source/devices/{name}/type"))?;
    kind.trim().parse().map_err(io::Error::other)
}

/// The file offset of the first instruction of an ELF program.
fn entry(elf: &[u8]) -> u64 {
    const PT_LOAD: u64 = 1;
    let word = |at: usize, len: usize| {
        elf[at..at + len].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
    };
    let (entry, headers) = (word(24, 8), word(32, 8) as usize);
    let (size, count) = (word(54, 2) as usize, word(56, 2) as usize);
    let segments = (0..count).map(|index| headers + index * size);
    let mut loaded = segments.filter(|&at| word(at, 4) == PT_LOAD).map(|at| {
        let (offset, address, len) = (word(at + 8, 8), word(at + 16, 8), word(at + 32, 8));
        (address..address + len, offset)
    });
    let (addresses, offset) =
        loaded.find(|(addresses, _)| addresses.contains(&entry)).expect("it is in the file");
    entry - addresses.start + offset
}

fn text(word: &str) -> CString {
    CString::new(word).expect("no zeros")
}

fn number(word: &str) -> i32 {
    word.parse().expect("a number")
}

fn wide(word: &str) -> u64 {
    word.parse().expect("a number")
}

fn process(pid: &str) -> Option<Pid> {
    Pid::from_raw(number(pid))
}

fn kill(pid: &str, signal: &str) -> io::Result<()> {
    let pid = process(pid).expect("a process");
    // Signal 0 only checks that the process exists.
    let sent = match Signal::from_named_raw(number(signal)) {
        Some(signal) => kill_process(pid, signal),
        None => rustix::process::test_kill_process(pid),
    };
    sent.map_err(Into::into)
}
