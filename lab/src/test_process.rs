//! Test processes: they run orders of a test, with sockets, files and other processes.
//!
//! A test process is the test's own program, or a copy of it, started once more: its `main` calls [`serve`] first. A
//! copy of the program is another executable.

mod attack;
mod held;
mod nbd;
mod treadmill;
mod turn;
mod ublk;

use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::Duration;

use ironclad_syscalls::{
    Deed, Handle, Impostor, LateProbe, Lie, RegisteredFile, Replacement, account, address_program,
    attach_program, end_first_thread, give_to_loop, idle_child, in_child, insert_module, lease,
    link_address_program, link_program, link_session, link_to_function, map_to_write,
    modify_return_program, nvme_uring, nvme_write, open_program, pass_through, scsi_write,
    scsi_write_by_write, session_program, swap_boot, sysctl_program, tun, update_address_link,
    uring_discard, uring_write,
};
use nix::errno::Errno;
use nix::mount::MsFlags;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, fcntl_lock, flock};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, pidfd_open, setrlimit};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::cgroup::Cgroup;
use crate::error::LabError;
use crate::init;
use held::{Held, receive_file, send_file};
pub use treadmill::Finding;

/// Set in test processes.
pub(crate) const VARIABLE: &str = "IRONCLAD_LAB_TEST_PROCESS";
/// The prefix of answers, which share a stream with the test harness.
const ANSWER: &str = "@@ ";

const MSG_FASTOPEN: i32 = 0x2000_0000;

/// A process that waits for orders.
#[derive(Debug)]
pub struct TestProcess {
    /// None: PID 1.
    child: Option<Child>,
    orders: File,
    answers: BufReader<File>,
}

impl TestProcess {
    /// Starts `program`, which is the test's own or a copy of it, in a cgroup.
    ///
    /// # Errors
    /// [`LabError`] where it cannot be started.
    pub fn start(cgroup: &Cgroup, program: &Path) -> Result<Self, LabError> {
        Self::start_as(cgroup.command(program))
    }

    /// Starts a test process by a command.
    ///
    /// # Errors
    /// [`LabError`] where it cannot be started.
    pub fn start_as(mut command: Command) -> Result<Self, LabError> {
        let failed = |source| LabError::System { step: "starting a test process", source };
        let mut child = command
            .env(VARIABLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let (Some(orders), Some(answers)) = (orders, answers) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let (orders, answers) = (OwnedFd::from(orders), OwnedFd::from(answers));
        Self::begin(Some(child), orders, answers)
    }

    /// PID 1 of a virtual machine.
    ///
    /// # Errors
    /// [`LabError`] where PID 1 takes no orders.
    pub fn pid_1() -> Result<Self, LabError> {
        let failed = |source| LabError::System { step: "connecting to PID 1", source };
        let orders = UnixStream::connect(init::SOCKET).map_err(failed)?;
        let answers = orders.try_clone().map_err(failed)?;
        Self::begin(None, orders.into(), answers.into())
    }

    fn begin(child: Option<Child>, orders: OwnedFd, answers: OwnedFd) -> Result<Self, LabError> {
        let answers = BufReader::new(File::from(answers));
        let mut this = Self { child, orders: orders.into(), answers };
        this.answer()?;
        Ok(this)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(1, Child::id)
    }

    /// Whether it ends within `patience`.
    ///
    /// # Errors
    /// [`LabError`] where it cannot be waited for.
    pub fn ends_within(&self, patience: Duration) -> Result<bool, LabError> {
        ends_within(self.pid(), patience)
    }

    /// Runs an order in the process. The answer is the error number of the kernel, 0 for success, or a count.
    ///
    /// Sockets: `connect|fastopen|send|bind PROTOCOL ADDRESS:PORT`; `create FAMILY TYPE PROTOCOL`,
    /// where 4 and 6 stand for IP's families and other numbers for themselves;
    /// `burst COUNT THREADS ADDRESS:PORT` makes COUNT connections in each thread, and answers how many did not
    /// fail with EPERM. `repeat COUNT ORDER…` answers how often an order succeeded.
    ///
    /// Sockets that are kept: `open NAME 4|6 PROTOCOL`, `with NAME` and an order for the socket, of which
    /// `option LEVEL NAME HEX` sets an option, `send-with LEVEL NAME HEX ADDRESS:PORT` sends a datagram
    /// with a control message, and `send-bytes HEX ADDRESS:PORT` sends these; `number NAME`, which also keeps it open across
    /// execve(2), and `take NAME PID|self NUMBER`; `mailbox PATH` and `receive NAME`, `post NAME PATH`.
    ///
    /// Programs: `exec PROGRAM` executes another program, `execopen file|memory PROGRAM` one without a path;
    /// `fork PROGRAM ORDER…` runs the order in a child that executes that program, `child ORDER…` in one
    /// that executes nothing, `thread ORDER…` in a new thread, `by-pid-1 ORDER…` in PID 1 of a virtual machine,
    /// `all ORDER… ; ORDER…` one after the other, until one fails; `threads COUNT` starts idle threads,
    /// `descriptors COUNT` opens so many, `take-epoll-watches` makes all watches of epoll(7) that its user has left, and
    /// answers their number,
    /// `leaderless` ends the first thread; `heir PROGRAM` continues as a child that executes that
    /// program, whose parent ends; `crowd COUNT` starts processes that run until the cgroup is
    /// removed. `nice` lowers the priority, `uid USER` changes the user. `comm NAME`;
    /// `hogs COUNT` starts threads of real-time priority that compute until the process ends, for a minute at most;
    /// `impostor PROGRAM NAME ADDRESS:PORT` starts a child that impersonates that program,
    /// and `go` lets it connect the socket; with `impostor-with PATH PROGRAM file|map` it does so by
    /// `PR_SET_MM_EXE_FILE` or `PR_SET_MM_MAP`, and opens a file to write. `idle-child` answers the process id
    /// of a child that executes nothing.
    ///
    /// Names of files: `chdir DIR`, `chroot DIR`, `apart mounts|pids|cgroups`, `show WHAT AT`,
    /// `mount TYPE AT`, `move-mount FROM TO`, `remount read-only|writable AT`, `unmount AT` lazily,
    /// `automount AT` as an automount unit does, `pivot-root NEW OLD`,
    /// `write PATH TEXT`, `mkdir PATH`, `lease PATH` and `lock flock|fcntl PATH` to read until the process ends,
    /// `share-mount PATH`, `bind-as-shared WHAT AT`,
    /// `bind-late WHAT AT OVER FUSE` has OVER bound at AT while the kernel looks up WHAT by FUSE,
    /// `decide-on-opens WHAT MASK PATH` by numbers of fanotify(7).
    ///
    /// Files: `read|read-some|list|append|create|truncate|unlink|rmdir|remove-all|mkfifo|chmod|chown|touch|setxattr|
    /// removexattr|chattr|execute|read-link|open-by-handle|
    /// chattr-32|file-setattr|enable-verity|open-to-write|open-to-read|open-by-path|set-acl PATH`, `set-version PATH GENERATION`, `uring-open caller|worker PATH`,
    /// `rename|exchange|link|symlink FROM TO`; `keep-handle PATH`, and of cgroups `keep-number PATH`, for `open-handle`, `insert-handle`, `chown-by-handle`, and `keep-by-handle`, as `keep-open`; `keep-open PATH` for
    /// `write-kept TEXT`, `truncate-kept`, `allocate-kept`, `map-kept`, `swap-boot-kept`, `copy-to-kept|send-to-kept|splice-to-kept|
    /// clone-to-kept|clone-range-to-kept|swap-extents-to-kept|move-extents-to-kept|give-extents-to-kept PATH`
    /// of a byte, `nvme-write-kept|nvme-uring-kept|scsi-write-kept|scsi-write-kept-by-write`, `uring-write-kept caller|worker TEXT`, `uring-discard-kept START BYTES`, `give-kept-to-loop set|configure DEVICE`; without a descriptor: `queue-kept` and
    /// `receive-kept`, `register-kept` and `write-registered TEXT` of io_uring; `account PATH|off` by acct(2);
    /// `pass-kept-through DIR` by FUSE, as DIR/file.
    ///
    /// Other processes: `kill|signal-by-file PID SIGNAL`, `page-out PID BEGIN END` in hexadecimal, `trace|seize|advise|count|read-memory|write-memory|open-memory|limit|
    /// prefer-others-to|bind-to-first PID`; `probe-program PID|0 PATH`, where 0 stands for every process that executes it,
    /// `probe-kernel FUNCTION`; `watch|count-calls PID|0 NUMBER` of a tracepoint, `sample PID` of its stack. Programs at cgroups:
    /// `keep-program`, `link-kept|attach-kept|deny-devices|query-devices GROUP`; `keep-rewriting PORT` of sendto(2), 0 for none,
    /// `link-rewriting|attach-rewriting GROUP`, `update-rewriting` of the link. Links of BPF: `link-by-id|detach-link-by-id|program-by-id ID`, `map-by-id ID FLAGS`, `open-pin PATH`, `update-link|detach-link` and the
    /// number of a descriptor. Memory: `eat-in GROUP BYTES` by a child that clone3(2) makes there, `hold BYTES`. Sentinel: `hello` and the four words of a secret; `load TYPE` loads a program,
    /// `load-lsm HOOK` one of BPF LSM, `load-with-attributes TYPE` one by a command with further attributes. Programs
    /// of packets that call kernel functions, by numbers in BTF: `signal-by-kfunc PID SIGNAL FIND SEND RELEASE`,
    /// `read-by-kfunc CAST STRUCT`; a helper: `read-by-helper TYPE HELPER INSTRUCTIONS-BEFORE`, and of connect(2): `override-verdict`. Programs that are attached
    /// late: `keep-probe TRACEPOINT EVENTS` and `attach-probe`, `keep-session` and `link-session FUNCTION`;
    /// `keep-modify-return FUNCTION` and `keep-replacement`, for `open-kept` and `link-kept-as TYPE none|named`.
    /// Disks and file systems, by descriptors to read: `scsi-write|nvme-write|nvme-submit|nvme-uring|set-writable|add-partition|remove-partition DISK`,
    /// `set-up-again LOOP`, `serve-nbd DEVICE PATH`, `serve-ublk PATH`, of XFS `open-by-xfs-handle|read-as-executed|change-attribute PATH DIR`, `freeze|thaw|shut-down DIR`; `command PATH NUMBER ARGUMENT` of ioctl(2), both in
    /// hexadecimal; `quota-on DEVICE PATH`.
    /// `be-root-of-files-alone` gives up all other privileges. `insert-module PATH`, `press-sysrq DEVICE KEY` of a keyboard, `kexec-load`, `kexec-file-load PATH`, `iopl`, `ioperm`, `rewrite PATH OFFSET LENGTH`, `deduplicate FROM TO`. `tool PROGRAM ARGUMENT…` answers its exit status.
    ///
    /// # Errors
    /// [`LabError`] where it has ended.
    pub fn ask(&mut self, order: &str) -> Result<u64, LabError> {
        let failed =
            |source| LabError::System { step: "running an order in a test process", source };
        writeln!(self.orders, "{order}").map_err(failed)?;
        self.answer()
    }

    /// Connects, and switches between two programs, without a pause: `how` is `exec`, `fork` or `spawn`. The number
    /// in the file `period` is odd while rules are in force. The process reports what it
    /// [finds](Self::finding) in each such period.
    ///
    /// # Errors
    /// [`LabError`] where it has ended.
    pub fn run(
        &mut self,
        how: &str,
        period: &Path,
        (good, bad): (&Path, &Path),
        to: SocketAddr,
    ) -> Result<(), LabError> {
        let failed =
            |source| LabError::System { step: "running an order in a test process", source };
        let (period, good, bad) = (period.display(), good.display(), bad.display());
        writeln!(self.orders, "run {how} {period} {good} {bad} {to}").map_err(failed)
    }

    /// Waits for the next finding.
    ///
    /// # Errors
    /// [`LabError`] where it has ended.
    pub fn finding(&mut self) -> Result<Finding, LabError> {
        self.answer().map(Finding::from_answer)
    }

    fn answer(&mut self) -> Result<u64, LabError> {
        let failed =
            |source| LabError::System { step: "running an order in a test process", source };
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line).map_err(failed)? == 0 {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            // The harness writes a test's name without a newline before the test runs.
            if let Some((_, answer)) = line.split_once(ANSWER) {
                let answer = answer.trim().parse();
                return answer.map_err(|e| failed(io::Error::new(io::ErrorKind::InvalidData, e)));
            }
        }
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether a process ends within `patience`.
///
/// # Errors
/// [`LabError`] where it cannot be waited for.
pub fn ends_within(pid: u32, patience: Duration) -> Result<bool, LabError> {
    let failed = |source: io::Error| LabError::System { step: "waiting for a process", source };
    let pid = Pid::from_raw(pid as i32).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| failed(e.into()))?;
    let patience = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience));
    Ok(ended.map_err(|e| failed(e.into()))? > 0)
}

/// The answer to an order in words: `succeeded`, the error's name, or a tool's exit status.
pub fn outcome(order: &str, answer: u64) -> String {
    match answer {
        0 => "succeeded".to_owned(),
        status if order.starts_with("tool ") => format!("exit {status}"),
        number => format!("{:?}", Errno::from_raw(number as i32)),
    }
}

/// Runs orders until they end, if this process is a test process. Returns `false` if it is none.
///
/// # Panics
/// At an unknown order.
pub fn serve() -> bool {
    let is_test_process = std::env::var_os(VARIABLE).is_some();
    if is_test_process {
        // Another thread than the first runs orders, because an order may end the first.
        let thread = std::thread::Builder::new().name("test_process".into()).spawn(run_orders);
        thread.expect("a thread").join().expect("orders that can be run");
    }
    is_test_process
}

fn run_orders() {
    treadmill::run().expect("a treadmill that runs");
    obey(io::stdin().lock(), io::stdout(), &Mutex::new(()));
}

/// Runs orders until they end. Each holds a lock.
pub(crate) fn obey(orders: impl BufRead, mut answers: impl Write, lock: &Mutex<()>) {
    // The process that started this one, or executed its program, waits for this.
    tell(&mut answers, 0);
    let mut state = State::default();
    for line in orders.lines() {
        let line = line.expect("orders are text");
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = number_of(&line, dispatch(&line, &mut state));
        drop(guard);
        tell(&mut answers, answer);
    }
}

/// State that a test process keeps from one order to the next.
#[derive(Default)]
struct State {
    held: Held,
    impostor: Option<Impostor>,
    leased: Vec<File>,
    kept: Option<File>,
    queue: Option<(UnixStream, UnixStream)>,
    registered: Option<RegisteredFile>,
    handle: Option<Handle>,
    program: Option<OwnedFd>,
    link: Option<OwnedFd>,
    /// What the program replaces a function of.
    target: Option<OwnedFd>,
    probe: Option<LateProbe>,
    memory: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

fn number_of(order: &str, answer: io::Result<u64>) -> u64 {
    match answer {
        Ok(count) => count,
        Err(e) => e.raw_os_error().unwrap_or_else(|| panic!("{order}: {e}")) as u64,
    }
}

/// Success of a connection, also to a port without a listener: rules are enforced before.
fn allowed<T>(connected: io::Result<T>) -> io::Result<u64> {
    match connected.map_err(|e| (e.raw_os_error(), e)) {
        Ok(_) | Err((Some(ECONNREFUSED | EINPROGRESS), _)) => Ok(0),
        Err((_, e)) => Err(e),
    }
}

fn say(answer: u64) {
    tell(&mut io::stdout().lock(), answer);
}

fn tell(answers: &mut impl Write, answer: u64) {
    writeln!(answers, "{ANSWER}{answer}").and_then(|()| answers.flush()).expect("a reader");
}

/// Runs an order, and returns its answer.
fn dispatch(order: &str, state: &mut State) -> io::Result<u64> {
    let words: Vec<&str> = order.split(' ').collect();
    let words = words.as_slice();
    for run in [nested_order, process_order, namespace_order, kept_order] {
        if let Some(answer) = run(words, state)? {
            return Ok(answer);
        }
    }
    for run in [socket_order, attack::on_files, attack::on_host] {
        if let Some(answer) = run(words)? {
            return Ok(answer);
        }
    }
    panic!("unknown order: {order}")
}

fn number(word: &str) -> i32 {
    word.parse().expect("a number")
}

/// Runs another order several times, in another thread or process.
fn nested_order(words: &[&str], state: &mut State) -> io::Result<Option<u64>> {
    let answer = match words {
        ["repeat", count, order @ ..] => {
            let order = order.join(" ");
            Ok((0..number(count)).filter(|_| dispatch(&order, state).is_ok()).count() as u64)
        }
        ["all", rest @ ..] => {
            let orders = rest.join(" ");
            orders
                .split(" ; ")
                .map(|order| dispatch(order, state))
                .find(|it| !matches!(it, Ok(0)))
                .unwrap_or(Ok(0))
        }
        ["by-pid-1", rest @ ..] => {
            let answer = TestProcess::pid_1().and_then(|mut pid_1| pid_1.ask(&rest.join(" ")));
            answer.map_err(io::Error::other)
        }
        ["fork", program, rest @ ..] => {
            let test_process = TestProcess::start_as(Command::new(program));
            let answer =
                test_process.and_then(|mut test_process| test_process.ask(&rest.join(" ")));
            answer.map_err(io::Error::other)
        }
        ["child", rest @ ..] => {
            let order = rest.join(" ");
            // Error numbers and small counts fit.
            in_child(|| number_of(&order, dispatch(&order, state)) as u8).map(u64::from)
        }
        ["thread", rest @ ..] => {
            let order = rest.join(" ");
            let answer = std::thread::scope(|scope| scope.spawn(|| dispatch(&order, state)).join());
            answer.unwrap_or_else(|_| panic!("{order}"))
        }
        _ => return Ok(None),
    };
    answer.map(Some)
}

/// Changes what this process is, or starts another.
fn process_order(words: &[&str], state: &mut State) -> io::Result<Option<u64>> {
    let answer = match words {
        ["exec", program] => {
            let failed = Command::new(program).exec();
            Err(failed)
        }
        ["heir", program] => {
            // The child inherits the streams of orders and answers.
            Command::new(program).spawn()?;
            std::process::exit(0)
        }
        ["crowd", count] => {
            for _ in 0..number(count) {
                let mut idle = Command::new("sleep");
                idle.arg("3600").stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
            }
            Ok(0)
        }
        ["execopen", how, program] => turn::execute_open(how, program),
        ["run", what @ ..] => treadmill::begin(&what.join(" ")),
        ["impostor", program, name, to] => {
            let (socket, to) = (state.held.socket(name), to.parse().expect("an address"));
            socket.set_nonblocking(true)?;
            let deed = Deed::Connect(socket.as_fd(), to);
            state.impostor = Some(turn::impostor(program, Lie::Map, deed)?);
            Ok(0)
        }
        ["impostor-with", path, program, by] => {
            let by = match *by {
                "file" => Lie::File,
                "map" => Lie::Map,
                other => panic!("unknown method: {other}"),
            };
            state.impostor = Some(turn::impostor(program, by, Deed::Write(Path::new(path)))?);
            Ok(0)
        }
        ["go"] => turn::go_on(state.impostor.take()),
        ["idle-child"] => idle_child().map(u64::from),
        ["hogs", count] => {
            let begun = Arc::new(Barrier::new(number(count) as usize + 1));
            for _ in 0..number(count) {
                let begun = Arc::clone(&begun);
                std::thread::spawn(move || turn::hog(&begun));
            }
            begun.wait();
            Ok(0)
        }
        ["threads", count] => {
            (0..number(count)).for_each(|_| {
                drop(std::thread::spawn(|| {
                    loop {
                        std::thread::park();
                    }
                }))
            });
            Ok(0)
        }
        ["uid", user] => {
            let user = rustix::process::Uid::from_raw(number(user) as u32);
            Ok(rustix::thread::set_thread_uid(user).map(|()| 0)?)
        }
        ["hold", bytes] => {
            state.memory = vec![1; number(bytes) as usize];
            Ok(0)
        }
        ["descriptors", count] => {
            let count = number(count) as u64;
            let limit = Some(count + 64);
            setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit })?;
            let null = File::open("/dev/null")?;
            for _ in 0..count {
                state.descriptors.push(rustix::io::dup(&null)?);
            }
            Ok(0)
        }
        ["take-epoll-watches"] => {
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let event = eventfd(0, EventfdFlags::CLOEXEC)?;
            let mut count = 0;
            loop {
                let watched = rustix::io::dup(&event)?;
                let data = epoll::EventData::new_u64(count);
                match epoll::add(&epoll, &watched, data, epoll::EventFlags::IN) {
                    Ok(()) => state.descriptors.push(watched),
                    Err(rustix::io::Errno::NOSPC) => break,
                    Err(e) => return Err(e.into()),
                }
                count += 1;
            }
            state.descriptors.push(epoll);
            Ok(count)
        }
        ["nice"] => Ok(rustix::process::nice(19).map(|_| 0)?),
        ["leaderless"] => end_first_thread().map(|()| 0),
        ["comm", name] => std::fs::write("/proc/thread-self/comm", name).map(|()| 0),
        _ => return Ok(None),
    };
    answer.map(Some)
}

/// Changes which files names lead to, and files.
fn namespace_order(words: &[&str], state: &mut State) -> io::Result<Option<u64>> {
    let answer = match words {
        ["apart", what] => turn::apart(what),
        ["show", what, at] => turn::bind(what, at, MsFlags::MS_REC),
        ["bind-late", what, at, over, fuse] => turn::bind_late(what, at, over, fuse),
        ["bind-as-shared", what, at] => turn::bind(what, at, MsFlags::MS_SHARED),
        ["chroot", to] => turn::chroot(to),
        ["mount", what, at] => turn::mount_new(what, at),
        ["move-mount", from, to] => turn::move_mount(from, to),
        ["remount", how, at] => turn::remount(how, at),
        ["unmount", at] => turn::unmount(at),
        ["automount", at] => turn::automount(at),
        ["pivot-root", new, old] => Ok(rustix::process::pivot_root(*new, *old).map(|()| 0)?),
        ["chdir", to] => std::env::set_current_dir(to).map(|()| 0),
        ["mkdir", path] => std::fs::create_dir(path).map(|()| 0),
        ["write", path, text] => std::fs::write(path, text).map(|()| 0),
        ["lock", how, path] => {
            let file = File::open(path)?;
            match *how {
                "flock" => flock(&file, FlockOperation::NonBlockingLockShared)?,
                "fcntl" => fcntl_lock(&file, FlockOperation::NonBlockingLockShared)?,
                other => panic!("unknown lock: {other}"),
            }
            state.leased.push(file);
            Ok(0)
        }
        ["lease", path] => {
            let file = File::open(path)?;
            lease(&file)?;
            state.leased.push(file);
            Ok(0)
        }
        _ => return Ok(None),
    };
    answer.map(Some)
}

/// Uses sockets and descriptors that are kept from one order to the next.
fn kept_order(words: &[&str], state: &mut State) -> io::Result<Option<u64>> {
    let answer = match words {
        ["open", name, family, protocol] => state.held.open(name, family, protocol),
        ["with", name, order @ ..] => state.held.with(name, order),
        ["number", name] => state.held.number(name),
        ["take", name, pid, number] => state.held.take(name, pid, number),
        ["mailbox", path] => state.held.mailbox(path),
        ["post", name, path] => state.held.post(name, path),
        ["receive", name] => state.held.receive(name),
        ["keep-open", path] => {
            state.kept = Some(File::options().read(true).write(true).open(path)?);
            Ok(0)
        }
        // The only descriptor is on its way from one socket to another.
        ["queue-kept"] => {
            let (from, to) = UnixStream::pair()?;
            send_file(&from, state.kept.take().expect("an open file"))?;
            state.queue = Some((from, to));
            Ok(0)
        }
        ["receive-kept"] => {
            let (_, to) = state.queue.take().expect("a queue");
            state.kept = Some(receive_file(&to)?);
            Ok(0)
        }
        // A file of FUSE whose reads and writes the kernel passes through to the open one.
        ["pass-kept-through", at] => {
            let file = state.kept.take().expect("an open file");
            pass_through(file.into(), Path::new(at)).map(|()| 0)
        }
        ["register-kept"] => {
            let file = state.kept.take().expect("an open file");
            state.registered = Some(RegisteredFile::new(file.into())?);
            Ok(0)
        }
        ["write-registered", text] => {
            let file = state.registered.as_mut().expect("a registered file");
            file.write(text.as_bytes()).map(|_| 0)
        }
        ["give-kept-to-loop", how, device] => {
            let device = File::options().read(true).write(true).open(device)?;
            let file = state.kept.as_ref().expect("an open file");
            give_to_loop(&device, file, *how == "configure").map(|()| 0)
        }
        ["account", "off"] => account(None).map(|()| 0),
        ["account", path] => account(Some(&CString::new(*path).expect("a path"))).map(|()| 0),
        ["write-kept", text] => {
            state.kept.as_mut().expect("an open file").write_all(text.as_bytes()).map(|()| 0)
        }
        ["swap-boot-kept"] => swap_boot(state.kept.as_ref().expect("an open file")).map(|()| 0),
        ["keep-handle", path] => {
            state.handle = Some(Handle::of(Path::new(path))?);
            Ok(0)
        }
        ["keep-program"] => {
            state.program = Some(sysctl_program()?);
            Ok(0)
        }
        ["link-kept", group] => {
            link_program(state.program.as_ref().expect("a program"), &File::open(group)?).map(|_| 0)
        }
        ["attach-kept", group] => {
            const SYSCTL: u32 = 18;
            attach_program(state.program.as_ref().expect("a program"), &File::open(group)?, SYSCTL)
                .map(|()| 0)
        }
        ["keep-rewriting", port] => {
            state.program = Some(address_program(number(port) as u16)?);
            Ok(0)
        }
        ["link-rewriting", group] => {
            let program = state.program.as_ref().expect("a program");
            state.link = Some(link_address_program(program, &File::open(group)?)?);
            Ok(0)
        }
        ["update-rewriting"] => {
            let link = state.link.as_ref().expect("a link");
            update_address_link(link, state.program.as_ref().expect("a program")).map(|()| 0)
        }
        ["attach-rewriting", group] => {
            const UDP4_SENDMSG: u32 = 14;
            let program = state.program.as_ref().expect("a program");
            attach_program(program, &File::open(group)?, UDP4_SENDMSG).map(|()| 0)
        }
        ["keep-probe", tracepoint, events] => {
            let number = |text: &str| text.parse::<u64>().expect("a number");
            state.probe = Some(LateProbe::new(number(tracepoint), number(events) as usize)?);
            Ok(0)
        }
        ["attach-probe"] => state.probe.as_mut().expect("a probe").attach().map(|()| 0),
        ["keep-session"] => {
            state.program = Some(session_program()?);
            Ok(0)
        }
        ["link-session", function] => {
            let function = CString::new(*function).expect("a name");
            link_session(state.program.as_ref().expect("a program"), &function).map(|()| 0)
        }
        ["keep-modify-return", function] => {
            let function = number(function) as u32;
            (state.program, state.target) = (Some(modify_return_program(function)?), None);
            Ok(0)
        }
        ["keep-replacement"] => {
            let Replacement { target, program } = Replacement::new()?;
            (state.program, state.target) = (Some(program), Some(target));
            Ok(0)
        }
        ["open-kept"] => open_program(state.program.as_ref().expect("a program")).map(|()| 0),
        ["link-kept-as", kind, target] => {
            let target = state.target.as_ref().filter(|_| *target == "named");
            let target = target.map(|target| (target, Replacement::FUNCTION));
            let program = state.program.as_ref().expect("a program");
            link_to_function(program, number(kind) as u32, target).map(|()| 0)
        }
        ["open-handle"] => state.handle.as_mut().expect("a handle").open().map(|_| 0),
        ["keep-number", path] => {
            state.handle = Some(Handle::by_number(Path::new(path))?);
            Ok(0)
        }
        ["keep-by-handle"] => {
            state.kept = Some(state.handle.as_mut().expect("a handle").open()?);
            Ok(0)
        }
        ["chown-by-handle"] => {
            let file = state.handle.as_mut().expect("a handle").open_to_read()?;
            std::os::unix::fs::fchown(&file, Some(0), Some(0)).map(|()| 0)
        }
        ["insert-handle"] => {
            let module = state.handle.as_mut().expect("a handle").open_to_read()?;
            insert_module(&module, false).map(|()| 0)
        }
        [verb, source] if verb.ends_with("-to-kept") => {
            attack::fill(verb, source, state.kept.as_ref().expect("an open file")).map(|()| 0)
        }
        ["allocate-kept"] => {
            let file = state.kept.as_ref().expect("an open file");
            Ok(fallocate(file, FallocateFlags::empty(), 0, 8192).map(|()| 0)?)
        }
        ["uring-write-kept", by, text] => {
            let file = state.kept.as_ref().expect("an open file");
            uring_write(file.as_fd(), text.as_bytes(), held::how(by)).map(|_| 0)
        }
        ["uring-discard-kept", start, bytes] => {
            let disk = state.kept.as_ref().expect("an open file");
            uring_discard(disk.as_fd(), number(start) as u64, number(bytes) as u64).map(|_| 0)
        }
        ["nvme-write-kept"] => nvme_write(state.kept.as_ref().expect("an open file")).map(|()| 0),
        ["nvme-uring-kept"] => nvme_uring(state.kept.as_ref().expect("an open file")).map(|()| 0),
        ["scsi-write-kept"] => scsi_write(state.kept.as_ref().expect("an open file")).map(|()| 0),
        ["scsi-write-kept-by-write"] => {
            scsi_write_by_write(state.kept.as_ref().expect("an open file")).map(|()| 0)
        }
        ["truncate-kept"] => state.kept.as_ref().expect("an open file").set_len(0).map(|()| 0),
        ["map-kept"] => map_to_write(state.kept.as_ref().expect("an open file")).map(|()| 0),
        _ => return Ok(None),
    };
    answer.map(Some)
}

/// Uses a socket that is closed afterwards.
fn socket_order(words: &[&str]) -> io::Result<Option<u64>> {
    let answer = match words {
        ["connect", protocol, addr] => {
            let (socket, addr) = open(protocol, addr)?;
            socket.set_nonblocking(true)?;
            allowed(socket.connect(&addr))
        }
        ["fastopen", protocol, addr] => {
            let (socket, addr) = open(protocol, addr)?;
            allowed(socket.send_to_with_flags(b"hello", &addr, MSG_FASTOPEN))
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
            let domain = match *family {
                "4" => Domain::IPV4,
                "6" => Domain::IPV6,
                other => Domain::from(number(other)),
            };
            let protocol = Protocol::from(number(protocol));
            Socket::new(domain, Type::from(number(kind)), Some(protocol)).map(|_| 0)
        }
        ["tun", name] => tun(name, false).map(|_| 0),
        ["burst", count, threads, addr] => {
            let count = number(count) as u64;
            Ok(burst(count, number(threads) as usize, addr.parse().expect("an address")))
        }
        _ => return Ok(None),
    };
    answer.map(Some)
}

const ECONNREFUSED: i32 = 111;
const EINPROGRESS: i32 = 115;

fn open(protocol: &str, addr: &str) -> io::Result<(Socket, SockAddr)> {
    let addr: SocketAddr = addr.parse().expect("an address");
    let (kind, protocol) = kind(protocol);
    Ok((Socket::new(Domain::for_address(addr), kind, Some(protocol))?, addr.into()))
}

fn kind(protocol: &str) -> (Type, Protocol) {
    match protocol {
        "tcp" => (Type::STREAM, Protocol::TCP),
        "mptcp" => (Type::STREAM, Protocol::from(262)),
        "udp" => (Type::DGRAM, Protocol::UDP),
        "ping" => (Type::DGRAM, Protocol::ICMPV4),
        // What it sends begins with IP's header.
        "raw" => (Type::RAW, Protocol::from(255)),
        other => panic!("no protocol: {other}"),
    }
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
