use std::fmt;
use std::ops::BitOr;

use ironclad_core::abi::FileOp;

/// A set of [`FileOp`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct FileOps(u16);

impl FileOps {
    /// Opening to read; listing a directory.
    pub const READ: Self = Self::of(FileOp::Read);
    /// Opening to write, and truncate(2).
    pub const WRITE: Self = Self::of(FileOp::Write);
    /// A new name in a directory.
    pub const CREATE: Self = Self::of(FileOp::Create);
    /// Taking a name away, also by a rename over it.
    pub const DELETE: Self = Self::of(FileOp::Delete);
    /// Giving it another name.
    pub const RENAME: Self = Self::of(FileOp::Rename);
    /// Giving it one more name.
    pub const LINK: Self = Self::of(FileOp::Link);
    /// Mode, owner, times, extended attributes, access control lists, flags.
    pub const METADATA: Self = Self::of(FileOp::Metadata);
    /// execve(2), or mapping it to be executed.
    pub const EXECUTE: Self = Self::of(FileOp::Execute);
    /// Everything but reading and executing.
    pub const CHANGE: Self = Self(
        Self::WRITE.0
            | Self::CREATE.0
            | Self::DELETE.0
            | Self::RENAME.0
            | Self::LINK.0
            | Self::METADATA.0,
    );
    /// Everything.
    pub const ALL: Self = Self(Self::CHANGE.0 | Self::READ.0 | Self::EXECUTE.0);

    const fn of(op: FileOp) -> Self {
        Self(1 << op as u16)
    }

    /// Whether all of `other` are in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its operations, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = FileOp> {
        FileOp::ALL.iter().copied().filter(move |op| self.0 >> *op as u16 & 1 == 1)
    }

    /// As a number: bit n is the operation with that number.
    pub const fn bits(self) -> u16 {
        self.0
    }
}

impl From<FileOp> for FileOps {
    fn from(op: FileOp) -> Self {
        Self::of(op)
    }
}

impl FromIterator<FileOp> for FileOps {
    fn from_iter<T: IntoIterator<Item = FileOp>>(ops: T) -> Self {
        ops.into_iter().fold(Self::default(), |set, op| set | op.into())
    }
}

impl BitOr for FileOps {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for FileOps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, op) in self.iter().enumerate() {
            write!(f, "{}{op}", if number == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for FileOps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileOps({self})")
    }
}
