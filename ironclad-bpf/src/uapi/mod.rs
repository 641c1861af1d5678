//! The kernel's numbers by name: helpers, program types, attach types and map types, as libbpf 1.7
//! knows them. A number that has no name here stays a number: newer kernels have more.

/// A number of the kernel's with a constant and a name for each known value.
macro_rules! numbers {
    (
        $(#[$outer:meta])*
        $type:ident $prefix:literal;
        $($constant:ident = $number:literal, $name:literal;)*
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(pub u32);

        impl $type {
            $(
                #[doc = concat!("`", $prefix, $name, "`, number ", $number, ".")]
                pub const $constant: Self = Self($number);
            )*

            /// All that are named here, in the kernel's order.
            pub const ALL: &'static [Self] = &[$(Self($number),)*];

            /// The kernel's name without its prefix, where there is one.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($name),)*
                    _ => None,
                }
            }

            /// The one with this name, without its prefix.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self($number)),)*
                    _ => None,
                }
            }
        }

        /// As text.
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({self})", stringify!($type))
            }
        }
    };
}

mod attach_type;
mod helper;
mod map_type;
mod program_type;

pub use attach_type::AttachType;
pub use helper::Helper;
pub use map_type::MapType;
pub use program_type::ProgramType;

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

    #[test]
    fn what_has_no_name_shows_its_number() {
        assert_eq!(Helper::PROBE_WRITE_USER.to_string(), "bpf_probe_write_user");
        assert_eq!(Helper(4711).to_string(), "helper #4711");
        assert_eq!(ProgramType::XDP.to_string(), "xdp");
        assert_eq!(ProgramType(999).to_string(), "program type #999");
    }
}
