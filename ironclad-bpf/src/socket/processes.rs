use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ironclad_core::abi::{ExeName, FileId, OpenFile, OpenSocket, Process, ProcessCtl};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use zerocopy::FromBytes;

use super::pins::Inherited;
use crate::audit::Allowlist;
use crate::clock::boottime_ns;
use crate::error::BpfError;
use crate::hook::HookLink;
use crate::loader::{Loader, constants, failed};
use crate::map::Map;
use crate::persistent::{LOSSES, PROCESS, PersistentMaps, SOCKETS};
use crate::program::Program;
use crate::pseudo_fs::{PROC, namespace, reopen};
use crate::skel::process::ProcessSkelBuilder;
use crate::sys;

const OBJECT: &str = "process";

/// Programs at tracepoints and the names of their links. Those at fork(2) come first: a process that executes a
/// file has an ancestor by then.
const TRACEPOINTS: [(&str, &str); 9] = [
    ("ic_exit", "sched_process_exit"),
    ("ic_fork", "sched_process_fork"),
    ("ic_fork_2", "sched_process_fork_2"),
    ("ic_fork_3", "sched_process_fork_3"),
    ("ic_fork_4", "sched_process_fork_4"),
    ("ic_exec", "sched_process_exec"),
    ("ic_exec_2", "sched_process_exec_2"),
    ("ic_exec_3", "sched_process_exec_3"),
    ("ic_exec_4", "sched_process_exec_4"),
];

/// `include/uapi/linux/magic.h`.
const OVERLAYFS_MAGIC: i64 = 0x794c_7630;

/// Lists the files that this process has open, with or without the table of processes.
#[derive(Clone, Debug)]
pub struct OpenFiles(Arc<Program>);

impl OpenFiles {
    /// All of them.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the kernel refuses.
    pub fn list(&self) -> Result<Vec<OpenFile>, BpfError> {
        let bytes = self.0.iterate()?;
        Ok(bytes
            .chunks_exact(size_of::<OpenFile>())
            .filter_map(|chunk| OpenFile::read_from_bytes(chunk).ok())
            .collect())
    }
}

/// The table of processes: written by tracepoints, read by the hooks of cgroups.
#[derive(Debug)]
pub struct Processes {
    /// By thread group, of the initial pid namespace.
    pub table: Map<u32, Process>,
    /// Bits of the ancestries that begin with an executable.
    pub ancestries: Map<FileId, u64>,
    /// Digest of a list of executables to 1 + its bit.
    pub ancestry_ids: Map<u64, u32>,
    /// Counters by [`Loss`](ironclad_core::abi::Loss).
    pub losses: Map<u32, u64>,
    names: Map<FileId, ExeName>,
    control: Map<u32, ProcessCtl>,
    pub(crate) persistent: PersistentMaps,
    seed: Program,
    open_files: OpenFiles,
    open_sockets: Program,
    tracepoints: Vec<Program>,
    links: Vec<HookLink>,
}

/// Whether the kernel knows to which cgroup a new socket belongs.
///
/// Before Linux 5.15, and before 5.10.226 of the stable ones, it does not know once a process has written
/// `net_cls.classid` or `net_prio.ifpriomap` of cgroups of version 1, or moved a process among
/// those of `net_prio`: new sockets belong to the root until the host is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocketGroups {
    /// It does, whatever happens.
    Always,
    /// It does, as yet.
    Known,
    /// Hooks of cgroups below the root are called for no new socket.
    Lost,
}

impl Processes {
    /// Attaches the tracepoints, then enters every process that runs.
    ///
    /// What finds no room is counted in `losses`, or in a table of its own, by [`Loss`](ironclad_core::abi::Loss).
    ///
    /// From the first moment on, every process that is forked or executes a file is in the table.
    /// What an earlier agent has pinned is adopted: its programs write the table until this one's
    /// do, with no event that neither or both see. Needs Linux 5.10 with BTF.
    ///
    /// # Errors
    /// `BpfErrorKind::Load` with the verifier's log, `BpfErrorKind::Attach`, `BpfErrorKind::Map`.
    pub fn load(
        losses: Option<&Map<u32, u64>>,
        inherited: Option<Inherited>,
    ) -> Result<Self, BpfError> {
        crate::log::to_tracing();
        let mut storage = MaybeUninit::uninit();
        let mut open =
            ProcessSkelBuilder::default().open(&mut storage).map_err(failed(OBJECT, "opening"))?;
        let rodata = constants(OBJECT, &mut open.maps.rodata_data)?;
        rodata.ic_cfg_open_tgid = std::process::id();
        // No two copies of the programs that a machine runs have the same.
        let owner = boottime_ns();
        rodata.ic_cfg_owner = owner;
        let mut object = Loader::new(OBJECT, Allowlist::processes())
            .share(losses.map(|losses| (LOSSES, losses.as_fd())))
            .persist(&PROCESS, inherited.as_ref().map(|it| &it.maps))
            .size("ic_processes", most_processes())
            .load(open.open_object_mut())?;
        let (mut tracepoints, mut links) = (Vec::new(), Vec::new());
        for (program, name) in TRACEPOINTS {
            let program = object.program(program)?;
            let mut link = HookLink::tracepoint(&program, &format!("{owner}_{name}"))?;
            if let Some(inherited) = &inherited {
                link.pin(&inherited.links.join(link.pin_name()))?;
            }
            links.push(link);
            tracepoints.push(program);
        }
        let this = Self {
            table: object.map("ic_processes")?,
            ancestries: object.map("ic_ancestries")?,
            ancestry_ids: object.map("ic_ancestry_ids")?,
            losses: object.map(LOSSES)?,
            names: object.map("ic_exe_names")?,
            control: object.map("ic_process_ctl")?,
            persistent: object.persistent()?,
            seed: object.program("ic_seed")?,
            open_files: OpenFiles(Arc::new(object.program("ic_open_files")?)),
            open_sockets: object.program("ic_open_sockets")?,
            tracepoints,
            links,
        };
        this.control.update(&0, &ProcessCtl { owner, forget: 0 })?;
        // Former copies write nothing from here on; what they began before, they end.
        for link in inherited.into_iter().flat_map(|inherited| inherited.former) {
            link.detach()?;
        }
        this.seed()?;
        Ok(this)
    }

    /// Clears ancestries of every process and every executable, so that their bits can be reused.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` or `BpfErrorKind::System` where the kernel refuses.
    pub fn forget(&self, bits: u64) -> Result<(), BpfError> {
        for file in self.ancestries.keys()? {
            match self.ancestries.lookup(&file)?.unwrap_or(0) & !bits {
                0 => drop(self.ancestries.delete(&file)?),
                rest => self.ancestries.update(&file, &rest)?,
            }
        }
        let before = self.control.lookup(&0)?.unwrap_or_default();
        self.control.update(&0, &ProcessCtl { forget: bits, ..before })?;
        // A process that is forked or executes a file while its parent's or its own record is not
        // clear yet is in the second round; none of them began before it.
        for _ in 0..2 {
            sys::grace_period()
                .map_err(|source| BpfError::system("waiting for programs that run", source))?;
            self.seed()?;
        }
        self.control.update(&0, &ProcessCtl { forget: 0, ..before })
    }

    /// What is to be pinned.
    pub(super) fn pins(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        let links = self.links.iter();
        let links = links.map(|link| (format!("{SOCKETS}/{}", link.pin_name()), link.as_fd()));
        let maps = self.persistent.pins().map(|(name, fd)| (format!("{SOCKETS}/{name}"), fd));
        maps.chain(links)
    }

    pub(crate) fn links_mut(&mut self) -> &mut [HookLink] {
        &mut self.links
    }

    /// Adds the processes that are not in the table, and removes those whose end was missed: all of them
    /// where this process is in the initial pid namespace, which alone lists all.
    ///
    /// # Errors
    /// `BpfErrorKind::System` or `BpfErrorKind::Map` where the kernel refuses.
    pub fn seed(&self) -> Result<(), BpfError> {
        let begun = |pid| Ok(self.table.lookup(&pid)?.map(|process| (pid, process.start_ns)));
        let before: Vec<_> = match sees_all_processes() {
            true => self.table.keys()?.into_iter().map(begun).collect::<Result<_, BpfError>>()?,
            false => Vec::new(),
        };
        let alive = self.seed.iterate()?;
        let alive: BTreeSet<_> = alive
            .chunks_exact(size_of::<u32>())
            .filter_map(|chunk| u32::read_from_bytes(chunk).ok())
            .collect();
        for known in before.into_iter().flatten().filter(|(pid, _)| !alive.contains(pid)) {
            // Its number may be another's since; one that is taken out here would be learned again.
            if begun(known.0)? == Some(known) {
                self.table.delete(&known.0)?;
            }
        }
        Ok(())
    }

    /// All programs.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        self.tracepoints.iter().chain([&self.seed, &*self.open_files.0, &self.open_sockets])
    }

    /// What tracepoints are attached.
    pub fn links(&self) -> &[HookLink] {
        &self.links
    }

    /// The identities of files, as the kernel sees them when it executes one: for each of `paths`,
    /// `None` where there is no such file. Symbolic links are followed.
    ///
    /// stat(2) would not do: file systems such as btrfs show other numbers than those of the inode that
    /// is executed, and it has no generations. Of a file on an overlay, it is the one below.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where a path cannot be opened for another reason, or the kernel
    /// refuses.
    pub fn identify(&self, paths: &[&Path]) -> Result<Vec<Option<FileId>>, BpfError> {
        let found = self.look_at(paths)?;
        Ok(found.into_iter().map(|found| found.map(|file| file.file)).collect())
    }

    /// The same of files of whatever kind, and of symbolic links themselves. Of a file on an overlay, it
    /// is the overlay's.
    ///
    /// # Errors
    /// Those of [`identify`](Self::identify).
    pub fn identify_themselves(&self, paths: &[&Path]) -> Result<Vec<Option<FileId>>, BpfError> {
        let found = self.look(paths, |path| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(Some(rustix::fs::open(path, flags, Mode::empty())?))
        })?;
        Ok(found.into_iter().map(|found| found.map(|file| file.file)).collect())
    }

    /// The same, with what else the kernel knows of them. The descriptors are closed by then.
    ///
    /// # Errors
    /// Those of [`identify`](Self::identify).
    pub fn look_at(&self, paths: &[&Path]) -> Result<Vec<Option<OpenFile>>, BpfError> {
        self.look(paths, open_to_look)
    }

    fn look(
        &self,
        paths: &[&Path],
        open_one: impl Fn(&Path) -> io::Result<Option<OwnedFd>>,
    ) -> Result<Vec<Option<OpenFile>>, BpfError> {
        // Some hundred open files at a time.
        let mut found = Vec::with_capacity(paths.len());
        for some in paths.chunks(256) {
            let mut open = Vec::with_capacity(some.len());
            for path in some {
                open.push(match open_one(path) {
                    Err(e) if is_missing(&e) => None,
                    opened => opened
                        .map_err(|e| BpfError::system(format!("opening {}", path.display()), e))?,
                });
            }
            let files = self.open_files()?;
            let id = |fd: &OwnedFd| {
                let number = fd.as_raw_fd() as u32;
                files.iter().find(|file| file.fd == number).copied()
            };
            for fd in &open {
                match fd {
                    None => found.push(None),
                    Some(fd) => found.push(Some(id(fd).ok_or_else(|| {
                        let why = "the kernel does not list this process's open files";
                        BpfError::system("identifying a file", io::Error::other(why))
                    })?)),
                }
            }
        }
        Ok(found)
    }

    /// The path by which a file was executed first, as execve(2) was given it. A label: it may be
    /// relative, or of another root, or lead elsewhere by now. None where no process has executed it
    /// since the tracepoints are attached, where that is long ago, and of paths over 254 bytes.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn exe_name(&self, file: &FileId) -> Result<Option<PathBuf>, BpfError> {
        let Some(name) = self.names.lookup(file)? else { return Ok(None) };
        let end = name.path.iter().position(|&byte| byte == 0);
        // One that fills it was cut.
        let whole = end.filter(|&end| end < name.path.len() - 1);
        Ok(whole.map(|end| std::ffi::OsString::from_vec(name.path[..end].to_vec()).into()))
    }

    /// The same, but of a process that executes it now where that is no absolute path.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn exe_path(&self, file: &FileId) -> Result<Option<PathBuf>, BpfError> {
        let name = self.exe_name(file)?;
        if name.as_ref().is_some_and(|name| name.is_absolute()) {
            return Ok(name);
        }
        let path = self.of_running(file, |exe| PROC.read_link(exe).ok())?;
        Ok(path.or(name))
    }

    /// Whether a process executes the file, and no path leads to it any more.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn is_deleted(&self, file: &FileId) -> Result<bool, BpfError> {
        // By its path: the answer is text for a person.
        let links = |exe: &Path| Some(std::fs::metadata(PROC.at().join(exe)).ok()?.nlink());
        Ok(self.of_running(file, links)? == Some(0))
    }

    /// What `PID/exe` of procfs says of a process that executes the file.
    fn of_running<T>(
        &self,
        file: &FileId,
        read: impl Fn(&Path) -> Option<T>,
    ) -> Result<Option<T>, BpfError> {
        let executes = |pid: &u32| {
            Ok::<_, BpfError>(self.table.lookup(pid)?.is_some_and(|process| process.exe == *file))
        };
        for pid in self.table.keys()? {
            if !executes(&pid)? {
                continue;
            }
            let found = read(format!("{pid}/exe").as_ref());
            // It may have executed something else meanwhile, and that is what was read.
            if let (Some(found), true) = (found, executes(&pid)?) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Every file that this process has open.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the kernel refuses.
    pub fn open_files(&self) -> Result<Vec<OpenFile>, BpfError> {
        self.open_files.list()
    }

    /// The program that lists them, for use elsewhere.
    pub fn open_files_handle(&self) -> OpenFiles {
        self.open_files.clone()
    }

    /// Whether hooks of cgroups below the root see sockets that are created now, by the cgroup of one
    /// that is created for this.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the kernel refuses.
    pub fn socket_groups(&self) -> Result<SocketGroups, BpfError> {
        let failed = |source| BpfError::system("reading a socket's cgroup", source);
        let fd = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        );
        let fd = fd.map_err(|e| failed(e.into()))?;
        let number = fd.as_raw_fd() as u32;
        let bytes = self.open_sockets.iterate()?;
        let found = bytes
            .chunks_exact(size_of::<OpenSocket>())
            .filter_map(|chunk| OpenSocket::read_from_bytes(chunk).ok())
            .find(|socket| socket.fd == number);
        match found {
            Some(OpenSocket { may_lose_group: 0, .. }) => Ok(SocketGroups::Always),
            Some(OpenSocket { has_lost_group: 0, .. }) => Ok(SocketGroups::Known),
            Some(_) => Ok(SocketGroups::Lost),
            None => Err(failed(io::Error::other(
                "the kernel does not list this process's open sockets",
            ))),
        }
    }

    /// What other objects share with its own.
    pub(crate) fn maps(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.persistent.maps()
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// None where there is nothing. What is on an overlay leads to the file below once it is opened in
/// earnest, as execve(2) opens it, and no further where a lease forbids it.
fn open_to_look(path: &Path) -> io::Result<Option<OwnedFd>> {
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
    let is_on_overlay = rustix::fs::fstatfs(&found)?.f_type as i64 == OVERLAYFS_MAGIC;
    if kind != FileType::RegularFile || !is_on_overlay {
        return Ok(Some(found));
    }
    match reopen(found.as_fd()) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether iterators over tasks go through all of the host's.
fn sees_all_processes() -> bool {
    /// `PROC_PID_INIT_INO` of `include/linux/proc_ns.h`.
    const INITIAL: u64 = 0xefff_fffc;
    namespace("self", "pid").is_ok_and(|number| number == INITIAL)
}

/// As many as the kernel lets run: of each limit, the lower.
fn most_processes() -> u32 {
    let limit = |name: &str| {
        let text = PROC.read_to_string(format!("sys/kernel/{name}")).ok()?;
        text.trim().parse::<u32>().ok()
    };
    let pids = limit("pid_max").unwrap_or(1 << 22);
    pids.min(limit("threads-max").unwrap_or(pids)).max(1024)
}
