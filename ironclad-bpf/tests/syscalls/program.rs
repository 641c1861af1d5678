//! BPF programs by their instructions: what they call, and how they are attached late.

use std::ffi::{CStr, c_int};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::attack::{check, load as load_for_function};

const BPF_PROG_LOAD: c_int = 5;
const BPF_PROG_TEST_RUN: c_int = 10;
const BPF_RAW_TRACEPOINT_OPEN: c_int = 17;
const BPF_BTF_LOAD: c_int = 18;
const BPF_LINK_CREATE: c_int = 28;
/// In a command of Linux 7.3 and later: further attributes follow.
const BPF_COMMON_ATTRS: c_int = 1 << 16;

const KPROBE: u32 = 2;
const SCHED_CLS: u32 = 3;
const TRACEPOINT: u32 = 5;
const TRACING: u32 = 26;
const EXT: u32 = 28;
const NETFILTER: u32 = 32;
const BPF_NETFILTER: u32 = 45;
const MODIFY_RETURN: u32 = 26;
const TRACE_KPROBE_SESSION: u32 = 56;

/// An instruction: its code, its registers, its offset and its number.
const fn insn(code: u8, to: u8, from: u8, offset: i16, number: i32) -> u64 {
    code as u64
        | (to as u64) << 8
        | (from as u64) << 12
        | (offset as u16 as u64) << 16
        | (number as u32 as u64) << 32
}

/// r`to` = `number`
const fn set(to: u8, number: i32) -> u64 {
    insn(0xb7, to, 0, 0, number)
}

/// r`to` = r`from`
const fn copy(to: u8, from: u8) -> u64 {
    insn(0xbf, to, from, 0, 0)
}

const fn call_helper(helper: u32) -> u64 {
    insn(0x85, 0, 0, 0, helper as i32)
}

const fn call_kfunc(number: u32) -> u64 {
    insn(0x85, 0, 2, 0, number as i32)
}

const EXIT: u64 = insn(0x95, 0, 0, 0, 0);

fn load(cmd: c_int, kind: u32, attach_type: u32, code: &[u64]) -> io::Result<OwnedFd> {
    let license = c"GPL";
    // The beginning of union bpf_attr: type, instructions, where they are, the licence.
    let mut attr = [0u64; 15];
    attr[0] = u64::from(kind) | (code.len() as u64) << 32;
    attr[1] = code.as_ptr() as u64;
    attr[2] = license.as_ptr() as u64;
    // The second half: expected_attach_type.
    attr[8] = u64::from(attach_type) << 32;
    bpf(cmd, &attr)
}

fn bpf(cmd: c_int, attr: &[u64]) -> io::Result<OwnedFd> {
    // SAFETY: the attributes, and what they point to, outlive the call; the descriptor has no other owner. The last two
    // arguments are those of BPF_COMMON_ATTRS.
    unsafe {
        let (size, none) = (size_of_val(attr), std::ptr::null::<u64>());
        let fd = libc::syscall(libc::SYS_bpf, cmd, attr.as_ptr(), size, none, 0);
        check(fd as c_int)?;
        Ok(OwnedFd::from_raw_fd(fd as c_int))
    }
}

/// Kernel functions by their numbers in the kernel's BTF.
#[derive(Clone, Copy)]
pub struct SignalKfuncs {
    /// `bpf_task_from_pid`
    pub find: u32,
    /// `bpf_send_signal_task`
    pub send: u32,
    /// `bpf_task_release`
    pub release: u32,
}

/// Sends a signal to a process by a program of packets, which is run once.
///
/// # Errors
/// Where the kernel refuses the program.
pub fn signal_by_kfunc(pid: i32, signal: c_int, kfuncs: SignalKfuncs) -> io::Result<()> {
    const PIDTYPE_TGID: i32 = 1;
    let code = [
        set(1, pid),
        call_kfunc(kfuncs.find),
        // To the end where there is no such process.
        insn(0x15, 0, 0, 8, 0),
        copy(6, 0),
        copy(1, 0),
        set(2, signal),
        set(3, PIDTYPE_TGID),
        set(4, 0),
        call_kfunc(kfuncs.send),
        copy(1, 6),
        call_kfunc(kfuncs.release),
        set(0, 0),
        EXIT,
    ];
    let program = load(BPF_PROG_LOAD, SCHED_CLS, 0, &code)?;
    let packet = [0u8; 64];
    // The beginning of struct test of union bpf_attr: descriptor, result, sizes, where the packet is.
    let mut attr = [0u64; 10];
    attr[0] = program.as_raw_fd() as u64;
    attr[1] = packet.len() as u64;
    attr[2] = packet.as_ptr() as u64;
    // SAFETY: the attributes and the packet outlive the call.
    check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, attr.as_ptr(), size_of_val(&attr))
    } as c_int)
}

/// Loads a program of packets that reads the kernel's memory at an address: `bpf_rdonly_cast` to a structure, both by
/// their numbers in the kernel's BTF.
///
/// # Errors
/// Where the kernel refuses the program.
pub fn read_by_kfunc(cast: u32, structure: u32) -> io::Result<()> {
    let code = [
        copy(1, 10),
        set(2, structure as i32),
        call_kfunc(cast),
        // r0 = *(u64 *)(r0 + 0)
        insn(0x79, 0, 0, 0, 0),
        set(0, 0),
        EXIT,
    ];
    load(BPF_PROG_LOAD, SCHED_CLS, 0, &code).map(drop)
}

/// Loads a program of a type that calls a helper which reads eight bytes at an address to the stack,
/// `bpf_probe_read_user` and its like, or prints a text there. `before` instructions that do nothing are in front of the call.
///
/// # Errors
/// Where the kernel refuses the program.
pub fn read_by_helper(kind: u32, helper: u32, before: usize) -> io::Result<()> {
    let mut code = vec![set(0, 0); before];
    // *(u64 *)(r10 - 8) = 0
    code.extend([insn(0x7a, 10, 0, -8, 0), copy(1, 10), insn(0x07, 1, 0, 0, -8)]);
    code.extend([set(2, 8), set(3, 0)]);
    code.extend([call_helper(helper), set(0, 0), EXIT]);
    let attach_type = if kind == NETFILTER { BPF_NETFILTER } else { 0 };
    load(BPF_PROG_LOAD, kind, attach_type, &code).map(drop)
}

/// Loads a program for connect(2) that has it succeed whatever the programs before it decided.
///
/// # Errors
/// Where the kernel refuses the program.
pub fn override_verdict() -> io::Result<()> {
    const CGROUP_SOCK_ADDR: u32 = 18;
    const BPF_CGROUP_INET4_CONNECT: u32 = 10;
    const SET_RETVAL: u32 = 187;
    let code = [set(1, 0), call_helper(SET_RETVAL), set(0, 1), EXIT];
    load(BPF_PROG_LOAD, CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT, &code).map(drop)
}

/// The place of attachment of programs for sendto(2) and sendmsg(2) by UDP over IPv4.
pub(crate) const UDP4_SENDMSG: u32 = 14;

/// Loads a program for sendto(2) that rewrites the port, or none that is 0.
///
/// # Errors
/// Where the kernel refuses the program.
pub fn address_program(port: u16) -> io::Result<OwnedFd> {
    const CGROUP_SOCK_ADDR: u32 = 18;
    // *(u32 *)(r1 + 24) = r2: user_port of struct bpf_sock_addr, as it is sent.
    let rewrite = [set(2, i32::from(port.to_be())), insn(0x63, 1, 2, 24, 0)];
    let rewrite = if port == 0 { &[][..] } else { &rewrite };
    let code = [rewrite, &[set(0, 1), EXIT]].concat();
    load(BPF_PROG_LOAD, CGROUP_SOCK_ADDR, UDP4_SENDMSG, &code)
}

/// Loads a program of a type that does nothing, by a command with further attributes, of Linux 7.3.
///
/// # Errors
/// Where the kernel refuses.
pub fn load_with_attributes(kind: u32) -> io::Result<()> {
    load(BPF_PROG_LOAD | BPF_COMMON_ATTRS, kind, 0, &[set(0, 0), EXIT]).map(drop)
}

/// A program for a tracepoint, and events that it can be attached to.
pub struct LateProbe {
    program: OwnedFd,
    events: Vec<OwnedFd>,
}

impl LateProbe {
    /// Opens `count` events of a tracepoint, by its number, and loads a program that does nothing.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn new(tracepoint: u64, count: usize) -> io::Result<Self> {
        let program = load(BPF_PROG_LOAD, TRACEPOINT, 0, &[set(0, 0), EXIT])?;
        let events = (0..count).map(|_| tracepoint_event(tracepoint)).collect::<io::Result<_>>()?;
        Ok(Self { program, events })
    }

    /// Attaches the program to one of the events, which is closed then.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn attach(&mut self) -> io::Result<()> {
        const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;
        let event = self.events.pop().expect("an event");
        // SAFETY: both are descriptors.
        check(unsafe {
            libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, self.program.as_raw_fd())
        })
    }
}

fn tracepoint_event(number: u64) -> io::Result<OwnedFd> {
    const PERF_TYPE_TRACEPOINT: u64 = 2;
    // struct perf_event_attr, version 1: type and size, and the tracepoint.
    let mut attr = [0u64; 9];
    attr[0] = PERF_TYPE_TRACEPOINT | (size_of_val(&attr) as u64) << 32;
    attr[1] = number;
    // SAFETY: a struct of the size that it says; the descriptor has no other owner.
    unsafe {
        let fd = libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1, 0, -1, 0);
        check(fd as c_int)?;
        Ok(OwnedFd::from_raw_fd(fd as c_int))
    }
}

/// Loads a program of type kprobe for the attach type of sessions, of Linux 6.10 and later.
///
/// # Errors
/// Where the kernel refuses.
pub fn session_program() -> io::Result<OwnedFd> {
    load(BPF_PROG_LOAD, KPROBE, TRACE_KPROBE_SESSION, &[set(0, 0), EXIT])
}

/// Attaches one to a function of the kernel.
///
/// # Errors
/// Where the kernel refuses.
pub fn link_session(program: &OwnedFd, function: &CStr) -> io::Result<()> {
    let symbols = [function.as_ptr()];
    // Of link_create: program, no target, attach type, flags; of kprobe_multi: flags and count, symbols.
    let mut attr = [0u64; 8];
    attr[0] = program.as_raw_fd() as u64;
    attr[1] = u64::from(TRACE_KPROBE_SESSION);
    attr[2] = 1 << 32;
    attr[3] = symbols.as_ptr() as u64;
    bpf(BPF_LINK_CREATE, &attr).map(drop)
}

/// Loads a program of type fmod_ret that keeps the result of a function, which has this number in the kernel's BTF.
///
/// # Errors
/// Where the kernel refuses.
pub fn modify_return_program(function: u32) -> io::Result<OwnedFd> {
    load_for_function(TRACING, MODIFY_RETURN, function)
}

/// A program of packets with a global function, and a program of type freplace for this function.
pub struct Replacement {
    /// The program of packets.
    pub target: OwnedFd,
    /// The program of type freplace.
    pub program: OwnedFd,
}

impl Replacement {
    /// The number of the global function in the target's BTF.
    pub const FUNCTION: u32 = 4;

    /// Loads both.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn new() -> io::Result<Self> {
        const MAIN: u32 = 3;
        let types = function_types()?;
        // r0 = function(0), and the function, which returns 0.
        let call = insn(0x85, 0, 1, 0, 1);
        let code = [set(1, 0), call, EXIT, set(0, 0), EXIT];
        let (main, function) = ([0, MAIN], [3, Self::FUNCTION]);
        let target = load_typed(SCHED_CLS, &code, &types, &[main, function], None)?;
        let other = [0, Self::FUNCTION];
        let program = load_typed(EXT, &[set(0, 1), EXIT], &types, &[other], Some(&target))?;
        Ok(Self { target, program })
    }
}

/// Loads BTF: `int` (1), a prototype (2), and the functions `main` (3) and `function` (4), which take and return one.
fn function_types() -> io::Result<OwnedFd> {
    const INT: u32 = 1 << 24;
    const FUNC: u32 = 12 << 24;
    const FUNC_PROTO: u32 = 13 << 24;
    const GLOBAL: u32 = 1;
    const SIGNED: u32 = 1 << 24;
    // Offsets: int 1, x 5, main 7, function 12.
    let names = b"\0int\0x\0main\0function\0";
    let types = [
        [1, INT, 4, SIGNED | 32].as_slice(),
        &[0, FUNC_PROTO | 1, 1, 5, 1],
        &[7, FUNC | GLOBAL, 2],
        &[12, FUNC | GLOBAL, 2],
    ]
    .concat();
    let len = size_of_val(types.as_slice()) as u32;
    // struct btf_header: magic and version, its length, where types and names are.
    let header = [0x0001_eb9f, 24, 0, len, len, names.len() as u32];
    let words = header.iter().chain(&types).flat_map(|word| word.to_ne_bytes());
    let blob: Vec<u8> = words.chain(names.iter().copied()).collect();
    bpf(BPF_BTF_LOAD, &[blob.as_ptr() as u64, 0, blob.len() as u64, 0])
}

/// Loads a program with types. `functions` are instructions, where functions begin, and numbers of their types;
/// `replaces` is the program whose function it replaces.
fn load_typed(
    kind: u32,
    code: &[u64],
    types: &OwnedFd,
    functions: &[[u32; 2]],
    replaces: Option<&OwnedFd>,
) -> io::Result<OwnedFd> {
    let mut attr = [0u64; 15];
    attr[0] = u64::from(kind) | (code.len() as u64) << 32;
    attr[1] = code.as_ptr() as u64;
    attr[2] = c"GPL".as_ptr() as u64;
    // Of BTF: descriptor and size of a function's entry, the entries, how many there are.
    attr[9] = types.as_raw_fd() as u64 | (size_of::<[u32; 2]>() as u64) << 32;
    attr[10] = functions.as_ptr() as u64;
    attr[11] = functions.len() as u64;
    if let Some(target) = replaces {
        attr[13] = u64::from(Replacement::FUNCTION) << 32;
        attr[14] = target.as_raw_fd() as u64;
    }
    bpf(BPF_PROG_LOAD, &attr)
}

/// Attaches a program of a trampoline, for which it was loaded, by BPF_RAW_TRACEPOINT_OPEN, and detaches it.
///
/// # Errors
/// Where the kernel refuses.
pub fn open_program(program: &OwnedFd) -> io::Result<()> {
    bpf(BPF_RAW_TRACEPOINT_OPEN, &[0, program.as_raw_fd() as u64]).map(drop)
}

/// The same by BPF_LINK_CREATE with an attach type. `target` is a program and its function, if the program names one.
///
/// # Errors
/// Where the kernel refuses.
pub fn link_to_function(
    program: &OwnedFd,
    attach_type: u32,
    target: Option<(&OwnedFd, u32)>,
) -> io::Result<()> {
    let (target, function) = target.map_or((0, 0), |(it, number)| (it.as_raw_fd() as u64, number));
    let program = program.as_raw_fd() as u64;
    let attr = [program | target << 32, u64::from(attach_type), u64::from(function)];
    bpf(BPF_LINK_CREATE, &attr).map(drop)
}
