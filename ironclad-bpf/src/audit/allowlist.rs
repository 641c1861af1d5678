use std::collections::{BTreeMap, BTreeSet};

use super::forbidden::FORBIDDEN_HELPERS;
use super::kfuncs::reason_of_kfunc;
use super::offence::Offence;
use crate::uapi::{AttachType, Helper, ProgramType};

/// What programs may do, by type of program. Nothing, unless it is named.
///
/// ```
/// use ironclad_bpf::audit::Allowlist;
/// use ironclad_bpf::uapi::{Helper, ProgramType};
///
/// let list = Allowlist::shield().allow(ProgramType::XDP, [Helper::GET_PRANDOM_U32])?;
/// assert!(list.allows(ProgramType::XDP, Helper::GET_PRANDOM_U32));
/// assert!(!list.allows(ProgramType::SCHED_CLS, Helper::GET_PRANDOM_U32));
/// assert!(list.allow(ProgramType::XDP, [Helper::SEND_SIGNAL]).is_err());
/// # Ok::<(), ironclad_bpf::audit::ForbiddenError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowlist {
    types: BTreeMap<ProgramType, Allowed>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Allowed {
    helpers: BTreeSet<Helper>,
    kfuncs: BTreeSet<String>,
    variables: BTreeSet<String>,
    /// Any place of attachment, where empty.
    attach_types: BTreeSet<AttachType>,
    is_sleepable: bool,
}

/// What every program may call that decides something.
const DECIDE: [Helper; 11] = [
    Helper::MAP_LOOKUP_ELEM,
    Helper::TAIL_CALL,
    Helper::GET_SMP_PROCESSOR_ID,
    Helper::KTIME_GET_BOOT_NS,
    Helper::JIFFIES64,
    Helper::SPIN_LOCK,
    Helper::SPIN_UNLOCK,
    Helper::RINGBUF_RESERVE,
    Helper::RINGBUF_SUBMIT,
    Helper::RINGBUF_DISCARD,
    Helper::RINGBUF_QUERY,
];

/// To identify the calling process, and to enter it where the table of processes lacks it.
const IDENTIFY: [Helper; 10] = [
    Helper::MAP_UPDATE_ELEM,
    Helper::KTIME_GET_NS,
    Helper::GET_CURRENT_PID_TGID,
    Helper::GET_CURRENT_UID_GID,
    Helper::GET_CURRENT_TASK,
    Helper::GET_CURRENT_TASK_BTF,
    Helper::PROBE_READ_KERNEL,
    Helper::GET_CURRENT_COMM,
    Helper::GET_CURRENT_CGROUP_ID,
    Helper::GET_CURRENT_ANCESTOR_CGROUP_ID,
];

/// Something was to be allowed that never is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is forbidden because it {reason}: no allowlist can permit it; leave it out")]
pub struct ForbiddenError {
    /// The helper or kernel function.
    pub name: String,
    /// What it does.
    pub reason: &'static str,
}

impl Allowlist {
    /// Permits nothing.
    pub fn empty() -> Self {
        Self::default()
    }

    /// What Shield's programs at interfaces need: XDP programs that look maps up, call each other,
    /// read clocks and the CPU's number, report by ring buffer and hold a spin lock. None of it
    /// changes anything but the object's own maps.
    pub fn shield() -> Self {
        Self::of_type(ProgramType::XDP, &[&DECIDE], &[AttachType::XDP])
    }

    /// What Shield's programs at cgroups need: the same, and to identify the process, or that
    /// of the packet.
    pub fn sockets() -> Self {
        let addresses = [
            AttachType::CGROUP_INET4_CONNECT,
            AttachType::CGROUP_INET6_CONNECT,
            AttachType::CGROUP_UDP4_SENDMSG,
            AttachType::CGROUP_UDP6_SENDMSG,
            AttachType::CGROUP_INET4_BIND,
            AttachType::CGROUP_INET6_BIND,
        ];
        let create = [AttachType::CGROUP_INET_SOCK_CREATE];
        let mut list =
            Self::of_type(ProgramType::CGROUP_SOCK_ADDR, &[&DECIDE, &IDENTIFY], &addresses);
        list.types
            .extend(Self::of_type(ProgramType::CGROUP_SOCK, &[&DECIDE, &IDENTIFY], &create).types);
        let look = [Helper::SKB_LOAD_BYTES, Helper::SKB_CGROUP_ID, Helper::GET_SOCKET_UID];
        let egress = [AttachType::CGROUP_INET_EGRESS];
        let packets = Self::of_type(ProgramType::CGROUP_SKB, &[&DECIDE, &look], &egress);
        list.types.extend(packets.types);
        let options = [AttachType::CGROUP_SETSOCKOPT];
        let options = Self::of_type(ProgramType::CGROUP_SOCKOPT, &[&DECIDE, &IDENTIFY], &options);
        list.types.extend(options.types);
        list
    }

    /// What the program needs that decides of packet sockets: the same, to check whether the process
    /// is in a protected cgroup, and to read the groups around it.
    pub fn packets() -> Self {
        let place = [Helper::CURRENT_TASK_UNDER_CGROUP];
        Self::of_type(ProgramType::LSM, &[&DECIDE, &IDENTIFY, &place], &[AttachType::LSM_MAC])
    }

    /// What keeps the table of processes: tracepoints and iterators that read the kernel's structs,
    /// write the object's own maps and pass what they found to an iterator's reader.
    pub fn processes() -> Self {
        let keep = [
            Helper::MAP_LOOKUP_ELEM,
            Helper::MAP_UPDATE_ELEM,
            Helper::MAP_DELETE_ELEM,
            Helper::KTIME_GET_BOOT_NS,
            Helper::GET_CURRENT_TASK,
            Helper::PROBE_READ_KERNEL,
            Helper::PROBE_READ_KERNEL_STR,
            Helper::SEQ_WRITE,
        ];
        let places = [AttachType::TRACE_RAW_TP, AttachType::TRACE_ITER];
        Self::of_type(ProgramType::TRACING, &[&keep], &places)
    }

    /// What Sentinel's programs need: to identify the process and the object, to store results, and to
    /// report. One of them sees that a directory is renamed, one lists open files, one sees a fork, and one
    /// sees the instructions of programs; one counts open files.
    pub fn sentinel() -> Self {
        let guard = [
            Helper::MAP_LOOKUP_ELEM,
            Helper::MAP_UPDATE_ELEM,
            Helper::MAP_DELETE_ELEM,
            Helper::GET_SMP_PROCESSOR_ID,
            Helper::KTIME_GET_BOOT_NS,
            Helper::RINGBUF_RESERVE,
            Helper::RINGBUF_SUBMIT,
            Helper::PROBE_READ_KERNEL_STR,
        ];
        let mut list =
            Self::of_type(ProgramType::LSM, &[&guard, &IDENTIFY], &[AttachType::LSM_MAC]);
        let look = [
            Helper::MAP_LOOKUP_ELEM,
            Helper::MAP_UPDATE_ELEM,
            Helper::MAP_DELETE_ELEM,
            Helper::GET_CURRENT_TASK,
            Helper::PROBE_READ_KERNEL,
            Helper::PROBE_READ_KERNEL_STR,
            Helper::SEQ_WRITE,
        ];
        let report = [
            Helper::MAP_LOOKUP_ELEM,
            Helper::GET_SMP_PROCESSOR_ID,
            Helper::KTIME_GET_BOOT_NS,
            Helper::RINGBUF_RESERVE,
            Helper::RINGBUF_SUBMIT,
            Helper::GET_CURRENT_TASK,
            Helper::GET_CURRENT_PID_TGID,
            Helper::GET_CURRENT_UID_GID,
            Helper::GET_CURRENT_CGROUP_ID,
            Helper::PROBE_READ_KERNEL,
            Helper::PROBE_READ_KERNEL_STR,
        ];
        let places = [
            AttachType::TRACE_FENTRY,
            AttachType::TRACE_FEXIT,
            AttachType::TRACE_ITER,
            AttachType::TRACE_RAW_TP,
        ];
        list.types.extend(Self::of_type(ProgramType::TRACING, &[&look, &report], &places).types);
        let sysctl = Self::of_type(
            ProgramType::CGROUP_SYSCTL,
            &[&report, &[Helper::SYSCTL_GET_NAME]],
            &[AttachType::CGROUP_SYSCTL],
        );
        list.types.extend(sysctl.types);
        for allowed in list.types.values_mut() {
            allowed.kfuncs.extend(["bpf_preempt_disable", "bpf_preempt_enable"].map(str::to_owned));
        }
        list
    }

    fn of_type(program_type: ProgramType, helpers: &[&[Helper]], places: &[AttachType]) -> Self {
        let allowed = Allowed {
            helpers: helpers.iter().copied().flatten().copied().collect(),
            attach_types: places.iter().copied().collect(),
            ..Allowed::default()
        };
        Self { types: BTreeMap::from([(program_type, allowed)]) }
    }

    /// Permits programs of a type, whatever their place of attachment.
    #[must_use]
    pub fn allow_type(mut self, program_type: ProgramType) -> Self {
        self.of(program_type);
        self
    }

    /// Permits programs of a type for this place of attachment and for those that were permitted by
    /// earlier calls, and for no other.
    #[must_use]
    pub fn allow_attach_type(mut self, program_type: ProgramType, attach: AttachType) -> Self {
        self.of(program_type).attach_types.insert(attach);
        self
    }

    /// Permits programs of a type that may sleep.
    #[must_use]
    pub fn allow_sleepable(mut self, program_type: ProgramType) -> Self {
        self.of(program_type).is_sleepable = true;
        self
    }

    /// Permits helpers to programs of a type, and the type.
    ///
    /// # Errors
    /// One of them is of [`FORBIDDEN_HELPERS`] or has a number without a name here, which might be
    /// one that will be forbidden.
    pub fn allow(
        mut self,
        program_type: ProgramType,
        helpers: impl IntoIterator<Item = Helper>,
    ) -> Result<Self, ForbiddenError> {
        for helper in helpers {
            if let Some(reason) = super::forbidden::reason_of(helper) {
                return Err(ForbiddenError { name: helper.to_string(), reason });
            }
            if is_unknown(helper) {
                let reason = "is not known to this version of ironclad-bpf";
                return Err(ForbiddenError { name: helper.to_string(), reason });
            }
            self.of(program_type).helpers.insert(helper);
        }
        Ok(self)
    }

    /// Permits a function of the kernel (kfunc) to programs of a type, and the type. Functions of
    /// modules cannot be permitted.
    ///
    /// # Errors
    /// It is none of [`HARMLESS_KFUNCS`](super::HARMLESS_KFUNCS).
    pub fn allow_kfunc(
        mut self,
        program_type: ProgramType,
        name: &str,
    ) -> Result<Self, ForbiddenError> {
        if let Some(reason) = reason_of_kfunc(name) {
            return Err(ForbiddenError { name: name.to_owned(), reason });
        }
        self.of(program_type).kfuncs.insert(name.to_owned());
        Ok(self)
    }

    /// Permits reading a variable of the kernel (typed ksym) to programs of a type, and the type.
    #[must_use]
    pub fn allow_variable(mut self, program_type: ProgramType, name: &str) -> Self {
        self.of(program_type).variables.insert(name.to_owned());
        self
    }

    /// Whether programs of a type may call a helper.
    pub fn allows(&self, program_type: ProgramType, helper: Helper) -> bool {
        self.types.get(&program_type).is_some_and(|allowed| allowed.helpers.contains(&helper))
    }

    fn of(&mut self, program_type: ProgramType) -> &mut Allowed {
        self.types.entry(program_type).or_default()
    }

    pub(super) fn judge_program(
        &self,
        program_type: ProgramType,
        attach: AttachType,
        is_sleepable: bool,
    ) -> Vec<Offence> {
        let Some(allowed) = self.types.get(&program_type) else {
            return vec![Offence::TypeNotAllowed(program_type)];
        };
        let mut offences = Vec::new();
        if !allowed.attach_types.is_empty() && !allowed.attach_types.contains(&attach) {
            offences.push(Offence::AttachTypeNotAllowed(attach));
        }
        if is_sleepable && !allowed.is_sleepable {
            offences.push(Offence::SleepableNotAllowed);
        }
        offences
    }

    pub(super) fn judge_helper(&self, program_type: ProgramType, id: u32) -> Option<Offence> {
        let helper = Helper(id);
        if FORBIDDEN_HELPERS.contains(&helper) {
            Some(Offence::ForbiddenHelper(helper))
        } else if is_unknown(helper) {
            Some(Offence::UnknownHelper(id))
        } else {
            (!self.allows(program_type, helper)).then_some(Offence::HelperNotAllowed(helper))
        }
    }

    pub(super) fn judge_kfunc(&self, program_type: ProgramType, name: &str) -> Option<Offence> {
        if reason_of_kfunc(name).is_some() {
            return Some(Offence::ForbiddenKfunc(name.to_owned()));
        }
        let allowed = self.types.get(&program_type).is_some_and(|it| it.kfuncs.contains(name));
        (!allowed).then(|| Offence::KfuncNotAllowed(name.to_owned()))
    }

    pub(super) fn judge_variable(&self, program_type: ProgramType, name: &str) -> Option<Offence> {
        // A program may load a function's address to see whether the kernel has it.
        let allowed = self
            .types
            .get(&program_type)
            .is_some_and(|it| it.variables.contains(name) || it.kfuncs.contains(name));
        (!allowed).then(|| Offence::VariableNotAllowed(name.to_owned()))
    }
}

fn is_unknown(helper: Helper) -> bool {
    helper == Helper::UNSPEC || helper.name().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_stays_forbidden() {
        for &helper in FORBIDDEN_HELPERS {
            let refused = Allowlist::empty().allow(ProgramType::KPROBE, [helper]).unwrap_err();
            assert_eq!(refused.name, helper.to_string());
        }
        for name in ["crash_kexec", "bpf_send_signal_task", "bpf_rdonly_cast"] {
            assert!(Allowlist::empty().allow_kfunc(ProgramType::SYSCALL, name).is_err());
        }
        assert!(Allowlist::empty().allow(ProgramType::XDP, [Helper(4711)]).is_err());
        // Even for a list that was made otherwise.
        let mut list = Allowlist::empty();
        list.of(ProgramType::XDP).helpers.insert(Helper::SEND_SIGNAL);
        list.of(ProgramType::XDP).kfuncs.insert("crash_kexec".into());
        assert_eq!(
            list.judge_helper(ProgramType::XDP, Helper::SEND_SIGNAL.0),
            Some(Offence::ForbiddenHelper(Helper::SEND_SIGNAL))
        );
        assert!(list.judge_kfunc(ProgramType::XDP, "crash_kexec").is_some());
    }

    #[test]
    fn what_is_not_named_is_refused() {
        let list = Allowlist::empty();
        for &helper in &Helper::ALL[1..] {
            let offence = list.judge_helper(ProgramType::XDP, helper.0);
            assert!(matches!(
                offence,
                Some(Offence::HelperNotAllowed(it) | Offence::ForbiddenHelper(it)) if it == helper
            ));
        }
        for number in [0, 212, u32::MAX] {
            let offence = list.judge_helper(ProgramType::XDP, number);
            assert_eq!(offence, Some(Offence::UnknownHelper(number)));
        }
        assert!(list.judge_variable(ProgramType::XDP, "bpf_prog_active").is_some());
    }

    #[test]
    fn a_type_is_for_its_places_of_attachment() {
        let list = Allowlist::shield();
        let judge = |kind, attach, sleeps| list.judge_program(kind, attach, sleeps);
        assert_eq!(judge(ProgramType::XDP, AttachType::XDP, false), []);
        assert_eq!(
            judge(ProgramType::XDP, AttachType::XDP_DEVMAP, true),
            [Offence::AttachTypeNotAllowed(AttachType::XDP_DEVMAP), Offence::SleepableNotAllowed]
        );
        assert_eq!(
            judge(ProgramType::LSM, AttachType::LSM_MAC, false),
            [Offence::TypeNotAllowed(ProgramType::LSM)]
        );
        let open = Allowlist::empty().allow_type(ProgramType::TRACING);
        assert_eq!(open.judge_program(ProgramType::TRACING, AttachType::TRACE_FEXIT, false), []);
        assert_ne!(open.judge_program(ProgramType::TRACING, AttachType::TRACE_FEXIT, true), []);
    }
}
