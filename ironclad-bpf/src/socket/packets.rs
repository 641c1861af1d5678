use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use ironclad_core::abi;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use super::pins::{PACKET_HOOKS, SocketPins};
use super::{Processes, SocketShared};
use crate::audit::Allowlist;
use crate::cgroup::CgroupDir;
use crate::clock::{boottime_ns, kernel_hz};
use crate::error::{BpfError, Failure};
use crate::hook::HookLink;
use crate::loader::{Loader, constants, failed};
use crate::map::Map;
use crate::persistent::{PACKET_CGROUPS, SOCKETS};
use crate::pin::{self, PinDirectory};
use crate::probe::{State, probe_helper, probe_lsm};
use crate::program::Program;
use crate::shield::Shared;
use crate::skel::lsm_socket::LsmSocketSkelBuilder;
use crate::sys;
use crate::uapi::{Helper, ProgramType};

const OBJECT: &str = "lsm_socket";

/// The cgroups that are protected.
#[derive(Debug)]
struct Groups {
    map: Map<u32, u32>,
    /// The id of the cgroup that each index of the map holds.
    places: Vec<Option<u64>>,
}

impl Groups {
    fn protect(&mut self, cgroup: &CgroupDir) -> Result<(), BpfError> {
        let free = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        if free as u32 >= abi::SOCK_CGROUPS_MAX {
            return Err(BpfError::limit(
                "cgroups whose packet sockets are checked",
                free as u64 + 1,
                u64::from(abi::SOCK_CGROUPS_MAX),
            ));
        }
        self.map.update(&(free as u32), &(cgroup.as_fd().as_raw_fd() as u32))?;
        match self.places.get_mut(free) {
            Some(place) => *place = Some(cgroup.id()),
            None => self.places.push(Some(cgroup.id())),
        }
        Ok(())
    }

    /// Whether it was among them.
    fn unprotect(&mut self, id: u64) -> Result<bool, BpfError> {
        let mut was_protected = false;
        for (index, place) in (0u32..).zip(&mut self.places) {
            if *place == Some(id) {
                self.map.delete(&index)?;
                *place = None;
                was_protected = true;
            }
        }
        Ok(was_protected)
    }
}

/// The BPF LSM programs for packet sockets and other sockets without IP, at the hook of socket(2), and for
/// TUN and TAP devices, at those of the TUNSETIFF ioctl. They decide by the tables of [`SocketShared`], for
/// processes in the protected cgroups, where the policy in force requires it. Dropping it detaches, unless
/// it is pinned.
#[derive(Debug)]
pub struct PacketSockets {
    programs: Vec<Program>,
    /// In the order of the programs.
    links: Vec<HookLink>,
    /// Unique on this host.
    number: u64,
    groups: Groups,
    /// Those of an earlier agent's programs, which may run a little longer than their pins are there.
    former: Vec<Map<u32, u32>>,
    may_limit: bool,
}

impl PacketSockets {
    /// Loads the programs, attaches them and checks that they run. From its first call on each covers the
    /// processes in `cgroups`, by their directories: a successor that got them later would allow calls
    /// that the former program would have denied.
    ///
    /// Needs a kernel with BPF LSM among its active security modules.
    ///
    /// # Errors
    /// `BpfErrorKind::NoLsm` where it is not or could not be, `BpfErrorKind::Load` with the verifier's
    /// log, `BpfErrorKind::Attach`, those of [`Self::protect`].
    pub fn load(
        shared: &Shared,
        processes: &Processes,
        sockets: &SocketShared,
        cgroups: &[CgroupDir],
    ) -> Result<Self, BpfError> {
        let lsm = probe_lsm();
        let why = lsm.reason.unwrap_or_default();
        if !matches!(lsm.state, State::Available | State::Unknown) {
            return Err(Failure::NoLsm { why }.into());
        }
        let has = |helper| probe_helper(ProgramType::LSM, helper).is_available();
        let may_limit = has(Helper::SPIN_LOCK);
        // No protocol of Unix sockets.
        let canary = std::process::id() | 1 << 24;
        let mut storage = MaybeUninit::uninit();
        let mut open = LsmSocketSkelBuilder::default()
            .open(&mut storage)
            .map_err(failed(OBJECT, "opening"))?;
        let rodata = constants(OBJECT, &mut open.maps.rodata_data)?;
        rodata.ic_cfg_may_lock = u8::from(may_limit);
        rodata.ic_cfg_task_btf = u8::from(has(Helper::GET_CURRENT_TASK_BTF));
        rodata.ic_cfg_has_ancestor_helper = u8::from(has(Helper::GET_CURRENT_ANCESTOR_CGROUP_ID));
        rodata.ic_cfg_canary = canary;
        rodata.ic_cfg_report_hz = kernel_hz();
        rodata.ic_cfg_sock_rows = sockets.rows_each as u32;
        rodata.ic_cfg_sock_cells = sockets.cells_each as u32;
        let mut object = Loader::new(OBJECT, Allowlist::packets())
            .share(shared.maps())
            .share(processes.maps())
            .share(sockets.maps())
            .load(open.open_object_mut())?;
        let seen = object.map::<u32, u64>("ic_canary")?;
        let mut groups = Groups { map: object.map("ic_cgroups")?, places: Vec::new() };
        cgroups.iter().try_for_each(|cgroup| groups.protect(cgroup))?;
        let number = boottime_ns();
        let (mut programs, mut links) = (Vec::new(), Vec::new());
        for (hook, name) in PACKET_HOOKS {
            let program = object.program(name)?;
            links.push(HookLink::tracepoint(&program, &format!("{number}_{hook}"))?);
            programs.push(program);
        }
        // A link is listed, too, where the kernel never calls its program.
        sys::try_socket(libc::AF_UNIX, libc::SOCK_STREAM, canary as i32);
        if seen.lookup(&0)?.unwrap_or_default() == 0 {
            let hint = "the program was attached, but it did not run: is `bpf` in the kernel's lsm= and sysctl kernel.ftrace_enabled 1?";
            let why = if why.is_empty() { hint.to_owned() } else { format!("{hint} ({why})") };
            return Err(Failure::NoLsm { why }.into());
        }
        Ok(Self { programs, links, number, groups, former: Vec::new(), may_limit })
    }

    /// Whether rules that limit may decide: before Linux 5.11 LSM programs may not take a lock.
    pub fn may_limit(&self) -> bool {
        self.may_limit
    }

    /// Checks the packet sockets of the processes in a cgroup, by its directory, and in
    /// those below it.
    ///
    /// # Errors
    /// `BpfErrorKind::Limit` beyond 256, `BpfErrorKind::Map`.
    pub fn protect(&mut self, cgroup: &CgroupDir) -> Result<(), BpfError> {
        self.groups.protect(cgroup)
    }

    /// Checks those of the cgroup of that id no longer; nothing happens where they are not checked.
    ///
    /// # Errors
    /// `BpfErrorKind::Map`.
    pub fn unprotect(&mut self, id: u64) -> Result<(), BpfError> {
        let was_protected = self.groups.unprotect(id)?;
        // The kernel does not report which index of the former maps that is.
        let former = if was_protected { std::mem::take(&mut self.former) } else { Vec::new() };
        former.iter().try_for_each(empty)
    }

    /// Pins it beside what is pinned for socket rules.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where bpffs refuses.
    pub fn persist(&mut self, directory: &PinDirectory) -> Result<(), BpfError> {
        let path = directory.socket_path(&self.groups_pin());
        pin::pin(self.groups.map.as_fd(), &path)?;
        self.links
            .iter_mut()
            .try_for_each(|link| link.pin(&directory.socket_path(&link.pin_name())))
    }

    /// Ends the programs that an earlier agent has pinned. `successor` must protect what that protected: for
    /// a moment both check, and deny alike.
    ///
    /// A call that began before the successor was attached meets the former program alone,
    /// however late: so that keeps its cgroups, until one of them is to be unprotected. Linux
    /// 7.3 does not even call it any more for such a call: see `docs/kernels.md`.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where bpffs refuses, `BpfErrorKind::Map`.
    pub fn supersede(
        pins: &mut SocketPins,
        mut successor: Option<&mut Self>,
    ) -> Result<(), BpfError> {
        std::mem::take(&mut pins.packets).into_iter().try_for_each(HookLink::detach)?;
        for path in std::mem::take(&mut pins.groups) {
            let failed = |step| {
                let path = path.clone();
                move |source| BpfError::pin(path, step, source)
            };
            let groups = sys::obj_get(&path).map_err(failed("opening"))?;
            let groups = Map::<u32, u32>::new(groups, "ic_cgroups")?;
            match &mut successor {
                Some(successor) => successor.former.push(groups),
                None => empty(&groups)?,
            }
            std::fs::remove_file(&path).map_err(failed("removing"))?;
        }
        Ok(())
    }

    fn groups_pin(&self) -> String {
        format!("{PACKET_CGROUPS}{}", self.number)
    }

    /// What is to be pinned.
    pub(super) fn pins(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        let links = self.links.iter().map(|link| (link.pin_name(), link.as_fd()));
        let all = std::iter::once((self.groups_pin(), self.groups.map.as_fd())).chain(links);
        all.map(|(name, fd)| (format!("{SOCKETS}/{name}"), fd))
    }

    /// The links have been pinned.
    pub(super) fn pinned_in(&mut self, directory: &PinDirectory) {
        for link in &mut self.links {
            link.pinned_at(&directory.socket_path(&link.pin_name()));
        }
    }

    /// Detaches, and removes the pins.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where bpffs refuses, `BpfErrorKind::Map`.
    pub fn detach(self, directory: Option<&PinDirectory>) -> Result<(), BpfError> {
        let path = directory.map(|directory| directory.socket_path(&self.groups_pin()));
        // The kernel drops a pin's reference to a program some time later: until then it has no cgroup to check.
        self.former.iter().chain([&self.groups.map]).try_for_each(empty)?;
        let is_pinned = self.is_pinned();
        self.links.into_iter().try_for_each(HookLink::detach)?;
        match path.filter(|_| is_pinned) {
            Some(path) => std::fs::remove_file(&path)
                .map_err(|source| BpfError::pin(path, "removing", source)),
            None => Ok(()),
        }
    }

    /// The programs, and where they are attached.
    pub fn programs(&self) -> impl Iterator<Item = (&Program, &HookLink)> {
        self.programs.iter().zip(&self.links)
    }

    /// Whether they stay attached when the process ends.
    pub fn is_pinned(&self) -> bool {
        self.links.iter().all(HookLink::is_pinned)
    }
}

/// Removes all cgroups.
fn empty(groups: &Map<u32, u32>) -> Result<(), BpfError> {
    (0..abi::SOCK_CGROUPS_MAX).try_for_each(|index| groups.delete(&index).map(drop))
}
