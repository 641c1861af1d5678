//! Helpers that no program of Ironclad, or of users of its audit, may call.
use crate::uapi::Helper;

/// Helpers that no allowlist can permit.
///
/// They act on the host instead of observing or deciding: a program that holds one of them is a
/// weapon for an attacker who takes over the agent, and nothing that a firewall, file protection or
/// an observer does needs them. Reading helpers, such as `bpf_probe_read_user`, are not among them:
/// an observer has use for them, and an allowlist has to name them.
pub const FORBIDDEN_HELPERS: &[Helper] = &[
    Helper::PROBE_WRITE_USER,
    Helper::OVERRIDE_RETURN,
    Helper::SEND_SIGNAL,
    Helper::SEND_SIGNAL_THREAD,
    Helper::SYS_BPF,
    Helper::BTF_FIND_BY_NAME_KIND,
    Helper::SYS_CLOSE,
    Helper::KALLSYMS_LOOKUP_NAME,
];

/// Helpers that read the memory of the kernel, or of the process that a program runs in. An observer
/// needs them; programs of processes that are not trusted may not call them under Sentinel.
pub(crate) const READING_HELPERS: &[Helper] = &[
    Helper::PROBE_READ,
    Helper::PROBE_READ_STR,
    Helper::PROBE_READ_USER,
    Helper::PROBE_READ_USER_STR,
    Helper::PROBE_READ_KERNEL,
    Helper::PROBE_READ_KERNEL_STR,
    Helper::COPY_FROM_USER,
    Helper::COPY_FROM_USER_TASK,
    // `%s`, `%pI4` and the like read what an address points at.
    Helper::TRACE_PRINTK,
    Helper::TRACE_VPRINTK,
    Helper::SNPRINTF,
    Helper::SNPRINTF_BTF,
    Helper::SEQ_PRINTF,
    Helper::SEQ_PRINTF_BTF,
];

/// Helpers that override the verdict of programs which ran before, such as Shield's. Programs of processes that are
/// not trusted may not call them under Sentinel.
pub(crate) const OVERRIDING_HELPERS: &[Helper] = &[Helper::SET_RETVAL];

pub(super) fn reason_of(helper: Helper) -> Option<&'static str> {
    Some(match helper {
        Helper::PROBE_WRITE_USER => "writes into the memory of processes",
        Helper::OVERRIDE_RETURN => "changes what functions of the kernel return",
        Helper::SEND_SIGNAL | Helper::SEND_SIGNAL_THREAD => "sends signals, and so kills processes",
        Helper::SYS_BPF => {
            "makes bpf(2) calls from inside the kernel, and so loads what was not audited"
        }
        Helper::BTF_FIND_BY_NAME_KIND => {
            "serves only programs that load programs that were not audited"
        }
        Helper::SYS_CLOSE => "closes descriptors of the process that runs it",
        Helper::KALLSYMS_LOOKUP_NAME => "reveals the addresses of the kernel's functions",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_reason() {
        for &helper in Helper::ALL {
            assert_eq!(
                reason_of(helper).is_some(),
                FORBIDDEN_HELPERS.contains(&helper),
                "{helper}"
            );
        }
        assert!(READING_HELPERS.iter().all(|helper| !FORBIDDEN_HELPERS.contains(helper)));
    }
}
