//! Helpers: a program that does nothing but call one is given to the verifier.
use super::btf::KernelBtf;
use super::feature::{Feature, State};
use super::load::{Refused, Trial};
use super::programs::{for_kernel, trial};
use crate::capabilities::Capabilities;
use crate::uapi::{AttachType, Helper, ProgramType};

/// The helpers that Ironclad's programs may come to need, by type of program.
const WANTED: &[(ProgramType, &[Helper])] = &[
    (
        ProgramType::XDP,
        &[
            Helper::MAP_LOOKUP_ELEM,
            Helper::MAP_UPDATE_ELEM,
            Helper::TAIL_CALL,
            Helper::GET_SMP_PROCESSOR_ID,
            Helper::KTIME_GET_NS,
            Helper::KTIME_GET_BOOT_NS,
            Helper::KTIME_GET_COARSE_NS,
            Helper::JIFFIES64,
            Helper::GET_PRANDOM_U32,
            Helper::SPIN_LOCK,
            Helper::RINGBUF_RESERVE,
            Helper::PERF_EVENT_OUTPUT,
            Helper::REDIRECT_MAP,
            Helper::XDP_ADJUST_HEAD,
            Helper::XDP_ADJUST_META,
            Helper::XDP_LOAD_BYTES,
            Helper::FIB_LOOKUP,
            Helper::FOR_EACH_MAP_ELEM,
            Helper::TIMER_INIT,
            Helper::LOOP,
            Helper::TCP_RAW_GEN_SYNCOOKIE_IPV4,
        ],
    ),
    (
        ProgramType::SCHED_CLS,
        &[
            Helper::SKB_STORE_BYTES,
            Helper::L4_CSUM_REPLACE,
            Helper::SKB_CHANGE_TAIL,
            Helper::REDIRECT,
            Helper::REDIRECT_PEER,
            Helper::SKB_SET_TSTAMP,
            Helper::SK_LOOKUP_TCP,
            Helper::SKB_CGROUP_ID,
            Helper::RINGBUF_RESERVE,
            Helper::LOOP,
        ],
    ),
    (
        ProgramType::CGROUP_SOCK_ADDR,
        &[
            Helper::GET_CURRENT_PID_TGID,
            Helper::GET_CURRENT_CGROUP_ID,
            Helper::GET_CURRENT_TASK,
            Helper::GET_CURRENT_TASK_BTF,
            Helper::PROBE_READ_KERNEL,
            Helper::GET_SOCKET_COOKIE,
            Helper::GET_NETNS_COOKIE,
            Helper::TASK_STORAGE_GET,
            Helper::RINGBUF_RESERVE,
            Helper::SET_RETVAL,
        ],
    ),
    (
        ProgramType::CGROUP_SKB,
        &[
            Helper::SKB_LOAD_BYTES,
            Helper::SKB_CGROUP_ID,
            Helper::GET_SOCKET_UID,
            Helper::RINGBUF_RESERVE,
        ],
    ),
    (
        ProgramType::CGROUP_SOCKOPT,
        &[Helper::GET_CURRENT_UID_GID, Helper::GET_CURRENT_CGROUP_ID, Helper::RINGBUF_RESERVE],
    ),
    (
        ProgramType::KPROBE,
        &[
            Helper::PROBE_READ_USER,
            Helper::PROBE_READ_KERNEL,
            Helper::GET_CURRENT_TASK_BTF,
            Helper::TASK_STORAGE_GET,
            Helper::GET_ATTACH_COOKIE,
            Helper::RINGBUF_RESERVE,
        ],
    ),
    (
        ProgramType::TRACING,
        &[Helper::GET_CURRENT_TASK_BTF, Helper::TASK_STORAGE_GET, Helper::RINGBUF_RESERVE],
    ),
    (
        ProgramType::LSM,
        &[
            Helper::GET_CURRENT_TASK_BTF,
            Helper::TASK_STORAGE_GET,
            Helper::INODE_STORAGE_GET,
            Helper::D_PATH,
            Helper::RINGBUF_RESERVE,
            Helper::LOOP,
        ],
    ),
];

pub(super) fn wanted(btf: Option<&KernelBtf>, capabilities: Capabilities) -> Vec<Feature> {
    WANTED
        .iter()
        .flat_map(|(program_type, helpers)| {
            helpers.iter().map(|&helper| one(*program_type, helper, btf, capabilities))
        })
        .collect()
}

/// `xdp/bpf_loop`.
pub(super) fn name(program_type: ProgramType, helper: Helper) -> String {
    format!("{program_type}/{helper}")
}

pub(super) fn one(
    program_type: ProgramType,
    helper: Helper,
    btf: Option<&KernelBtf>,
    capabilities: Capabilities,
) -> Feature {
    let name = name(program_type, helper);
    let for_kernel = |hook, attach_type| {
        btf.and_then(|btf| for_kernel(hook, program_type, attach_type, btf).ok())
    };
    let trial = match program_type {
        // A tracepoint needs no trampoline, so that the answer is the helper's.
        ProgramType::TRACING => for_kernel("tp_btf", AttachType::TRACE_RAW_TP),
        ProgramType::LSM => for_kernel("lsm_load", AttachType::LSM_MAC),
        ProgramType::EXT | ProgramType::STRUCT_OPS => None,
        _ => Some(trial(program_type)),
    };
    let Some(trial) = trial else {
        let why = format!("programs of type {program_type} cannot be tried on this kernel");
        return Feature::new(name, State::Unknown, why);
    };
    let insns = call(helper);
    match (Trial { insns: &insns, ..trial }).load() {
        Ok(_) => Feature::available(name),
        Err(refused) if refused.is_about_helper() => {
            let why = format!("this kernel has no such helper for programs of type {program_type}");
            Feature::new(name, State::Unavailable, why)
        }
        // The verifier got past the helper and complains of the arguments that it did not get.
        Err(refused) if !refused.log.trim().is_empty() => Feature::available(name),
        Err(refused) => Feature::answer::<()>(name, Err(refused), capabilities),
    }
}

/// Whether a program may call a helper that takes no arguments.
pub(crate) fn may_call(program_type: ProgramType, attach_type: AttachType, helper: Helper) -> bool {
    // call helper; r0 = 1; exit
    let mut insns = [0; 24];
    insns[..16].copy_from_slice(&call(helper));
    insns[8..16].copy_from_slice(&[0xb7, 0, 0, 0, 1, 0, 0, 0]);
    insns[16] = 0x95;
    Trial { attach_type, insns: &insns, ..Trial::of(program_type) }.load().is_ok()
}

/// Calls the helper without arguments, and exits.
fn call(helper: Helper) -> [u8; 16] {
    let mut insns = [0x85, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    insns[4..8].copy_from_slice(&helper.0.to_ne_bytes());
    insns
}

impl Refused {
    /// What the verifier has said in turn of helpers that it does not know or does not give to this
    /// type of program.
    fn is_about_helper(&self) -> bool {
        ["invalid func ", "unknown func ", "program of this type cannot use helper "]
            .iter()
            .any(|words| self.log.contains(words))
    }
}
