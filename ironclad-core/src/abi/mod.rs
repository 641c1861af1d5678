//! The contents of maps and ring buffers, as the eBPF programs lay them out.
//!
//! The types and constants are generated from the C headers in `bpf-src/include/ironclad/abi/` by
//! `cargo xtask abi`. Numbers are in the machine's byte order unless a field says network byte order.
//! A test in `ironclad-bpf` compares sizes and offsets with the BTF of the compiled programs.

use std::fmt;

/// An enum whose variants have a number of the ABI and a name in tables and logs.
macro_rules! numbered {
    ($(#[$attribute:meta])* $name:ident {
        $($(#[$each:meta])* $variant:ident = $number:literal, $text:literal;)*
    }) => {
        $(#[$attribute])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(rename_all = "kebab-case")]
        #[repr(u8)]
        pub enum $name {
            $($(#[$each])* $variant = $number,)*
        }

        impl $name {
            /// Every variant, in the order of their numbers.
            pub const ALL: [Self; [$($number),*].len()] = [$(Self::$variant),*];

            /// The variant with this number.
            pub const fn from_abi(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The name in tables and logs.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

/// The table of all structs.
macro_rules! layouts {
    ($($c:ident = $rust:ident { $($field:ident),* })*) => {
        /// Every struct of the headers: a test compares them with the BTF of the compiled programs.
        #[doc(hidden)]
        pub const LAYOUTS: &[super::Layout] = &[$(super::Layout {
            name: stringify!($c),
            size: size_of::<$rust>(),
            fields: &[$((stringify!($field), std::mem::offset_of!($rust, $field))),*],
        }),*];
    };
}

mod generated;

pub use generated::*;

/// A struct of the ABI: its name in C, its size and its fields with their offsets.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The name in C.
    pub name: &'static str,
    /// Bytes.
    pub size: usize,
    /// Fields in order, with the offset of each in bytes.
    pub fields: &'static [(&'static str, usize)],
}

impl Reason {
    /// Whether the packet is malformed.
    pub const fn is_malformed(self) -> bool {
        self as u8 >= Reason::EthShort as u8
    }
}

impl FileId {
    /// No file.
    pub const NONE: Self = Self { ino: 0, dev: 0, generation: 0 };

    /// The words of a map's key.
    pub const fn words(self) -> [u64; 2] {
        [self.ino, (self.dev as u64) << 32 | self.generation as u64]
    }
}

impl SockRow {
    /// The row of no rule.
    pub const NONE: Self =
        Self { summary: [0; SOCK_SUMMARY_WORDS], logs: 0, word: [0; SOCK_WORDS_MAX] };
}

impl SockPolicy {
    /// The policy of an empty slot.
    pub const NONE: Self = Self {
        generation: 0,
        epoch: 0,
        dims: 0,
        summary: 0,
        levels: 0,
        root4: u32::MAX,
        root6: u32::MAX,
        rate: 0,
        verdict: [0; 4],
        dry_run: 0,
        logs: 0,
        ancestries: 0,
        rules: 0,
        level: [0; SOCK_LEVELS_MAX],
        none: [0; DIM_MAX],
        packets: 0,
        _pad: [0; 3],
        kind: [0; 1024],
    };
}

/// Omits the secret.
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_order() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert_eq!(Reason::from_abi(number as u8), Some(*reason));
        }
        assert_eq!(Reason::ALL.len(), REASON_MAX);
        assert_eq!(Reason::from_abi(REASON_MAX as u8), None);
    }
}
