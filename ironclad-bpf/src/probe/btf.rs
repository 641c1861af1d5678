//! The little type information that probing needs: the kernel's, and some of our own.
use std::io;
use std::os::fd::OwnedFd;

use libbpf_rs::btf::types::{Func, FuncProto, Struct};
use libbpf_rs::btf::{Btf, BtfKind, BtfType, HasSize, ReferencesType, TypeId};

use super::load::load_btf;
use crate::pseudo_fs::check_libbpf;

/// The kernel's BTF.
pub(crate) struct KernelBtf(Btf<'static>);

impl KernelBtf {
    /// `None` where the kernel has none, or another file covers it.
    pub(crate) fn load() -> Option<Self> {
        check_libbpf().ok()?;
        crate::log::to_tracing();
        Btf::from_vmlinux().ok().map(Self)
    }

    pub(crate) fn function(&self, name: &str) -> Option<u32> {
        self.id(name, BtfKind::Func)
    }

    /// The numbers of all functions whose names are accepted.
    pub(crate) fn functions(&self, is_it: impl Fn(&str) -> bool) -> Vec<u32> {
        let types = (1..self.0.len() as u32)
            .filter_map(|id| self.0.type_by_id::<BtfType<'_>>(TypeId::from(id)));
        types
            .filter(|it| it.kind() == BtfKind::Func)
            .filter(|it| it.name().and_then(|name| name.to_str()).is_some_and(&is_it))
            .map(|it| it.type_id().into())
            .collect()
    }

    pub(crate) fn function_name(&self, id: u32) -> Option<String> {
        let function: Func<'_> = self.0.type_by_id(TypeId::from(id))?;
        Some(function.name()?.to_string_lossy().into_owned())
    }

    /// How many parameters a function has.
    pub(crate) fn parameters(&self, name: &str) -> Option<usize> {
        let id = self.function(name)?;
        let function: Func<'_> = self.0.type_by_id(TypeId::from(id))?;
        let prototype = FuncProto::try_from(function.referenced_type()).ok()?;
        Some(prototype.iter().count())
    }

    pub(super) fn typedef(&self, name: &str) -> Option<u32> {
        self.id(name, BtfKind::Typedef)
    }

    pub(super) fn structure(&self, name: &str) -> Option<u32> {
        self.id(name, BtfKind::Struct)
    }

    /// A structure, and the number of one of its members.
    pub(super) fn member(&self, name: &str, member: &str) -> Option<(u32, u32)> {
        let id = self.structure(name)?;
        let structure: Struct<'_> = self.0.type_by_id(TypeId::from(id))?;
        let index = structure.iter().position(|it| it.name.is_some_and(|name| name == member))?;
        Some((id, index as u32))
    }

    pub(super) fn size(&self, structure: u32) -> Option<u32> {
        let structure: Struct<'_> = self.0.type_by_id(TypeId::from(structure))?;
        Some(structure.size() as u32)
    }

    fn id(&self, name: &str, kind: BtfKind) -> Option<u32> {
        let ids = 1..self.0.len() as u32;
        // A name may be a structure's and a function's at once; the first find is the common case.
        let is_it = |it: &BtfType<'_>| it.kind() == kind && it.name().is_some_and(|it| it == name);
        if let Some(found) = self.0.type_by_name::<BtfType<'_>>(name).filter(is_it) {
            return Some(found.type_id().into());
        }
        ids.filter_map(|id| self.0.type_by_id::<BtfType<'_>>(TypeId::from(id)))
            .find(is_it)
            .map(|found| found.type_id().into())
    }
}

/// Type information of our own: types by number from 1, `types` as the kernel's format has them.
fn encoded(types: &[u32], strings: &str) -> Vec<u8> {
    const MAGIC: u16 = 0xeb9f;
    const HEADER: u32 = 24;
    let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let (types_len, strings_len) = (types.len() as u32, strings.len() as u32);
    let mut bytes = MAGIC.to_ne_bytes().to_vec();
    // Version and flags.
    bytes.extend([1, 0]);
    for word in [HEADER, 0, types_len, types_len, strings_len] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(types);
    bytes.extend(strings.as_bytes());
    bytes
}

const fn info(kind: u32, members: u32) -> u32 {
    kind << 24 | members
}

const INT: u32 = 1;
const PTR: u32 = 2;
const STRUCT: u32 = 4;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
/// Of a function that a program may replace.
const GLOBAL: u32 = 1;
const SIGNED_32: u32 = 1 << 24 | 32;

/// Type 1: a 32-bit number, for keys and values of storage maps.
pub(super) fn number() -> io::Result<OwnedFd> {
    load_btf(&encoded(&[1, info(INT, 0), 4, SIGNED_32], "\0int\0"))
}

/// The number of the function's type in [`function`].
pub(super) const FUNCTION: u32 = 5;

/// Type 5: `int ic(struct xdp_md *ctx)`, for a program and what replaces it.
pub(super) fn function() -> io::Result<OwnedFd> {
    let strings = "\0int\0xdp_md\0ctx\0ic\0";
    let at = |name: &str| strings.find(&format!("\0{name}\0")).map_or(0, |at| at as u32 + 1);
    #[rustfmt::skip]
    let types = [
        // 1: int
        at("int"), info(INT, 0), 4, SIGNED_32,
        // 2: struct xdp_md, members are not needed
        at("xdp_md"), info(STRUCT, 0), 24,
        // 3: struct xdp_md *
        0, info(PTR, 0), 2,
        // 4: int (struct xdp_md *ctx)
        0, info(FUNC_PROTO, 1), 1, at("ctx"), 3,
        // 5
        at("ic"), info(FUNC, GLOBAL), 4,
    ];
    load_btf(&encoded(&types, strings))
}
