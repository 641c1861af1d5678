//! The kernel's numbers by name: helpers, program types, attach types and map types, as libbpf 1.7
//! knows them, signals, resource limits and commands of ioctl(2). A number that has no name here stays a number: newer kernels have more.

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
mod command;
mod helper;
mod ioctl;
mod map_type;
mod program_type;
mod resource_limit;
mod signal;

pub use attach_type::AttachType;
pub use command::BpfCommand;
pub use helper::Helper;
pub use ioctl::Ioctl;
pub use map_type::MapType;
pub use program_type::ProgramType;
pub use resource_limit::ResourceLimit;
pub use signal::Signal;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_name_shows_its_number() {
        assert_eq!(Helper::PROBE_WRITE_USER.to_string(), "bpf_probe_write_user");
        assert_eq!(Helper(4711).to_string(), "helper #4711");
        assert_eq!(ProgramType::XDP.to_string(), "xdp");
        assert_eq!(ProgramType(999).to_string(), "program type #999");
        assert_eq!(BpfCommand(5).to_string(), "BPF_PROG_LOAD");
        assert_eq!(BpfCommand(99).to_string(), "command #99");
        assert_eq!(
            (Signal::KILL.to_string(), Signal(64).to_string()),
            ("SIGKILL".into(), "signal #64".into())
        );
        assert_eq!(ResourceLimit(15).to_string(), "RLIMIT_RTTIME");
        assert_eq!(ResourceLimit(16).to_string(), "resource #16");
        assert_eq!(Ioctl::FIFREEZE.to_string(), "FIFREEZE");
        assert_eq!(Ioctl(0x1234).to_string(), "ioctl 0x1234");
    }
}
