//! The programs and links of other processes.
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use serde::Serialize;

use crate::audit::RefusedCalls;
use crate::error::BpfError;
use crate::map::name_of;
use crate::paths::entries;
use crate::pseudo_fs::PROC;
use crate::sys;
use crate::uapi::{AttachType, ProgramType};

/// Programs and links on this host that are not this process's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Inventory {
    /// Programs, by id.
    pub programs: Vec<LoadedProgram>,
    /// Links, by id; also those that have no program, as struct_ops has.
    pub links: Vec<LoadedLink>,
    /// Ids of programs that this process may not open: a Sentinel or another security module refuses.
    pub closed: Vec<u32>,
    /// How many maps there are, this process's among them.
    pub maps: usize,
}

/// A program that another process has loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LoadedProgram {
    /// The kernel's id.
    pub id: u32,
    /// The name, at most 15 characters, as the owner has chosen it.
    pub name: String,
    /// The type.
    pub program_type: ProgramType,
    /// Where its links attach it. Empty for what is attached without a link, or not at all; of
    /// freplace, perf events and raw tracepoints the kernel does not report it.
    pub attached: BTreeSet<AttachType>,
    /// Whether it may rewrite addresses of connect(2) and its like: a program of type cgroup_sock_addr that stores
    /// elsewhere than on its stack, makes tail calls, or whose instructions the kernel does not show.
    pub rewrites_addresses: bool,
    /// The kernel's digest over the instructions, in hexadecimal.
    pub tag: String,
    /// When it was loaded: `CLOCK_BOOTTIME`, nanoseconds.
    pub loaded_ns: u64,
    /// The user that loaded it.
    pub uid: u32,
    /// What it calls that an armed Sentinel refuses to programs of other processes.
    pub calls: RefusedCalls,
    /// What keeps it loaded, by descriptors and pins.
    pub holders: BTreeSet<Holder>,
}

/// A link of another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LoadedLink {
    /// The kernel's id.
    pub id: u32,
    /// `enum bpf_link_type`.
    pub link_type: u32,
    /// The program's id; 0 where it has none.
    pub program: u32,
    /// Where it attaches the program, where the kernel reports it.
    pub attached: Option<AttachType>,
}

/// What keeps a program loaded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Holder {
    /// A process that has a descriptor of it, or of a link of it.
    Process {
        /// The thread group.
        pid: u32,
        /// Its name, which it can change.
        comm: String,
    },
    /// A pin of it, or of a link of it.
    Pin(PathBuf),
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process { pid, comm } => write!(f, "process {pid} (`{comm}`)"),
            Self::Pin(path) => write!(f, "pin {}", path.display()),
        }
    }
}

impl Inventory {
    /// Lists what there is but for what this process has descriptors of, and the programs `own`. Pins
    /// are looked for in `bpffs`. What comes or goes meanwhile is listed or not.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the kernel does not list ids.
    pub fn take(own: &BTreeSet<u32>, bpffs: &Path) -> Result<Self, BpfError> {
        let failed = |source| BpfError::system("listing programs", source);
        let mut own = own.clone();
        own.extend(held("self"));
        let mut this = Self::default();
        for id in ids(sys::next_link).map_err(failed)? {
            this.links.extend(link(id).filter(|link| !own.contains(&link.program)));
        }
        for id in ids(sys::next_program).map_err(failed)? {
            match sys::prog_by_id(id).and_then(|fd| program(fd.as_fd())) {
                _ if own.contains(&id) => {}
                Ok(program) => this.programs.push(program),
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => this.closed.push(id),
                // It has ended since.
                Err(_) => {}
            }
        }
        this.maps = ids(sys::next_map).map_err(failed)?.len();
        for program in &mut this.programs {
            let links = this.links.iter().filter(|link| link.program == program.id);
            program.attached = links.filter_map(|link| link.attached).collect();
        }
        if !this.programs.is_empty() {
            let programs = this.programs.iter_mut().map(|it| (it.id, &mut it.holders));
            find_holders(&mut programs.collect(), bpffs);
        }
        Ok(this)
    }
}

impl Holder {
    /// A process, by the name that it has now.
    pub(crate) fn process(pid: u32) -> Self {
        let comm = PROC.read_to_string(format!("{pid}/comm")).unwrap_or_default();
        Self::Process { pid, comm: comm.trim_end().to_owned() }
    }
}

/// The holders of one program. Pins are searched for in `bpffs`.
pub(crate) fn holders_of(program: u32, bpffs: &Path) -> BTreeSet<Holder> {
    let mut holders = BTreeSet::new();
    find_holders(&mut BTreeMap::from([(program, &mut holders)]), bpffs);
    holders
}

fn find_holders(programs: &mut BTreeMap<u32, &mut BTreeSet<Holder>>, bpffs: &Path) {
    let processes = PROC.names(".").unwrap_or_default();
    for name in processes.into_iter().filter_map(|it| it.into_string().ok()) {
        let Ok(pid) = name.parse() else { continue };
        for program in held(&name) {
            let Some(holders) = programs.get_mut(&program) else { continue };
            holders.insert(Holder::process(pid));
        }
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = open(bpffs, flags, Mode::empty()) else { return };
    let mut left = vec![PathBuf::new()];
    while let Some(dir) = left.pop() {
        for entry in entries(&root, &dir).into_iter().flatten() {
            let below = dir.join(&entry.name);
            if entry.is_dir {
                left.push(below);
                continue;
            }
            let path = bpffs.join(below);
            let fd = sys::obj_get(&path).ok();
            let program = fd.and_then(|fd| program_of("self", &fd.as_raw_fd().to_string()));
            if let Some(holders) = program.and_then(|id| programs.get_mut(&id)) {
                holders.insert(Holder::Pin(path));
            }
        }
    }
}

/// All of them, in ascending order.
fn ids(next: impl Fn(u32) -> io::Result<u32>) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    loop {
        match next(found.last().copied().unwrap_or(0)) {
            Ok(id) => found.push(id),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(found),
            Err(e) => return Err(e),
        }
    }
}

fn program(fd: BorrowedFd<'_>) -> io::Result<LoadedProgram> {
    let info = sys::info(fd, sys::zeroed::<libbpf_sys::bpf_prog_info>())?;
    Ok(LoadedProgram {
        id: info.id,
        name: name_of(&info.name),
        program_type: ProgramType(info.type_),
        attached: BTreeSet::new(),
        rewrites_addresses: rewrites_addresses(fd, &info)?,
        tag: info.tag.iter().map(|byte| format!("{byte:02x}")).collect(),
        loaded_ns: info.load_time,
        uid: info.created_by_uid,
        calls: RefusedCalls::of(fd)?,
        holders: BTreeSet::new(),
    })
}

fn rewrites_addresses(fd: BorrowedFd<'_>, info: &libbpf_sys::bpf_prog_info) -> io::Result<bool> {
    if ProgramType(info.type_) != ProgramType::CGROUP_SOCK_ADDR {
        return Ok(false);
    }
    let mut code = vec![0u64; info.xlated_prog_len as usize / size_of::<u64>()];
    let mut request = sys::zeroed::<libbpf_sys::bpf_prog_info>();
    request.xlated_prog_len = info.xlated_prog_len;
    request.xlated_prog_insns = code.as_mut_ptr() as u64;
    let is_shown = sys::info(fd, request)?.xlated_prog_insns != 0;
    Ok(!is_shown || code.into_iter().any(is_rewriting))
}

/// The same as `ic_is_rewriting()` of the gate, for instructions as the kernel shows them.
fn is_rewriting(insn: u64) -> bool {
    const STACK: u64 = 10;
    const TAIL_CALL: u64 = 12;
    let (code, to, number) = (insn & 0xff, insn >> 8 & 0xf, insn >> 32);
    // BPF_ST or BPF_STX with BPF_MEM; BPF_CALL of a helper.
    matches!(code & 0xe7, 0x62 | 0x63) && to != STACK
        || code == 0x85 && insn >> 12 & 0xf == 0 && number == TAIL_CALL
}

fn link(id: u32) -> Option<LoadedLink> {
    let fd = sys::link_by_id(id).ok()?;
    let info = sys::info(fd.as_fd(), sys::zeroed::<libbpf_sys::bpf_link_info>()).ok()?;
    let of = info.__bindgen_anon_1;
    // SAFETY: plain numbers, of which the kernel fills those of the link's type, and the rest is zero.
    let attached = unsafe {
        match info.type_ {
            // freplace has none, which is 0.
            libbpf_sys::BPF_LINK_TYPE_TRACING => Some(of.tracing.attach_type).filter(|it| *it != 0),
            libbpf_sys::BPF_LINK_TYPE_CGROUP => Some(of.cgroup.attach_type),
            libbpf_sys::BPF_LINK_TYPE_NETNS => Some(of.netns.attach_type),
            libbpf_sys::BPF_LINK_TYPE_TCX => Some(of.tcx.attach_type),
            libbpf_sys::BPF_LINK_TYPE_NETKIT => Some(of.netkit.attach_type),
            libbpf_sys::BPF_LINK_TYPE_ITER => Some(AttachType::TRACE_ITER.0),
            libbpf_sys::BPF_LINK_TYPE_XDP => Some(AttachType::XDP.0),
            libbpf_sys::BPF_LINK_TYPE_STRUCT_OPS => Some(AttachType::STRUCT_OPS.0),
            libbpf_sys::BPF_LINK_TYPE_NETFILTER => Some(AttachType::NETFILTER.0),
            libbpf_sys::BPF_LINK_TYPE_KPROBE_MULTI => Some(AttachType::TRACE_KPROBE_MULTI.0),
            libbpf_sys::BPF_LINK_TYPE_UPROBE_MULTI => Some(AttachType::TRACE_UPROBE_MULTI.0),
            libbpf_sys::BPF_LINK_TYPE_PERF_EVENT => Some(AttachType::PERF_EVENT.0),
            _ => None,
        }
    };
    Some(LoadedLink {
        id: info.id,
        link_type: info.type_,
        program: info.prog_id,
        attached: attached.map(AttachType),
    })
}

/// Programs of which a process has descriptors, or of links of them.
fn held(process: &str) -> BTreeSet<u32> {
    let dir = Path::new(process).join("fd");
    let open = PROC.names(&dir).unwrap_or_default();
    open.iter()
        .filter_map(|name| {
            let target = PROC.read_link(dir.join(name)).ok()?;
            let is_bpf = target.as_os_str().as_encoded_bytes().starts_with(b"anon_inode:bpf");
            program_of(process, name.to_str().filter(|_| is_bpf)?)
        })
        .collect()
}

fn program_of(process: &str, fd: &str) -> Option<u32> {
    program_in(&PROC.read_to_string(format!("{process}/fdinfo/{fd}")).ok()?)
}

/// Of lines such as `prog_id: 42`, with a tab.
fn program_in(fdinfo: &str) -> Option<u32> {
    fdinfo.lines().find_map(|line| line.strip_prefix("prog_id:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_elsewhere_than_on_the_stack_may_rewrite_addresses() {
        // *(u32 *)(r1 + 4) = r2; *(u32 *)(r10 - 4) = r2; a tail call.
        for (insn, expected) in
            [(0x4_2163, true), (0xfffc_2a63, false), (0xc_0000_0085, true), (0xc_0000_1085, false)]
        {
            assert_eq!(is_rewriting(insn), expected, "{insn:#x}");
        }
    }

    #[test]
    fn descriptors_name_their_program() {
        let text = "pos:\t0\nflags:\t02000000\nprog_type:\t26\nprog_jited:\t1\nprog_id:\t42\n";
        assert_eq!(program_in(text), Some(42));
        assert_eq!(program_in("pos:\t0\nmap_id:\t7\n"), None);
        assert!(held("none").is_empty());
    }
}
