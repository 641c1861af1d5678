//! The kernel's numbers by name: see [`ironclad_core::uapi`].

pub use ironclad_core::uapi::{AttachType, BpfCommand, Helper, MapType, ProgramType};

#[cfg(test)]
mod tests {
    use std::ffi::{CStr, c_char};

    use super::*;

    fn text(name: *const c_char) -> Option<String> {
        // SAFETY: libbpf's tables hold static NUL-terminated strings, and null where they end.
        (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
    }

    #[test]
    fn names_are_libbpfs() {
        for number in 0..64 {
            // SAFETY: pure functions of a number, bounded by libbpf.
            let (program, attach, map) = unsafe {
                (
                    text(libbpf_sys::libbpf_bpf_prog_type_str(number)),
                    text(libbpf_sys::libbpf_bpf_attach_type_str(number)),
                    text(libbpf_sys::libbpf_bpf_map_type_str(number)),
                )
            };
            assert_eq!(program.as_deref(), ProgramType(number).name());
            assert_eq!(attach.as_deref(), AttachType(number).name());
            assert_eq!(map.as_deref(), MapType(number).name());
        }
    }

    #[test]
    fn helpers_are_dense_and_complete() {
        assert_eq!(Helper::ALL.len(), 212);
        for (number, helper) in Helper::ALL.iter().enumerate() {
            assert_eq!(helper.0 as usize, number);
            let name = helper.name().unwrap();
            assert_eq!(Helper::from_name(name), Some(*helper));
            assert_eq!(Helper::from_name(&format!("bpf_{name}")), None);
        }
    }

    #[test]
    fn helper_numbers_are_libbpfs() {
        for (helper, number) in [
            (Helper::MAP_LOOKUP_ELEM, libbpf_sys::BPF_FUNC_map_lookup_elem),
            (Helper::PROBE_WRITE_USER, libbpf_sys::BPF_FUNC_probe_write_user),
            (Helper::OVERRIDE_RETURN, libbpf_sys::BPF_FUNC_override_return),
            (Helper::SEND_SIGNAL, libbpf_sys::BPF_FUNC_send_signal),
            (Helper::SEND_SIGNAL_THREAD, libbpf_sys::BPF_FUNC_send_signal_thread),
            (Helper::SYS_BPF, libbpf_sys::BPF_FUNC_sys_bpf),
            (Helper::KALLSYMS_LOOKUP_NAME, libbpf_sys::BPF_FUNC_kallsyms_lookup_name),
            (Helper::CGRP_STORAGE_DELETE, libbpf_sys::BPF_FUNC_cgrp_storage_delete),
        ] {
            assert_eq!(helper.0, number);
        }
        assert_eq!(Helper::ALL.len() as u32, libbpf_sys::__BPF_FUNC_MAX_ID);
    }
}
