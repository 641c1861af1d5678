//! Where C would put the members of a struct, and what to add so that it puts them where BTF says.

use super::{Btf, Composite, Member, Type, TypeId};

const POINTER: u32 = 8;

/// Bits of padding before each member, after the last one, and whether the struct is packed.
pub(super) struct Layout {
    pub(super) before: Vec<u32>,
    pub(super) after: u32,
    pub(super) packed: bool,
}

impl Btf {
    /// Size in bytes; `None` for what has none (functions, incomplete types).
    pub(super) fn size(&self, id: TypeId) -> Option<u32> {
        match self.ty(id) {
            Type::Int { size, .. } => Some(*size),
            Type::Pointer(_) => Some(POINTER),
            Type::Array { element, count } => Some(self.size(*element)? * count),
            Type::Composite(c) => Some(c.size),
            Type::Enum(e) => Some(e.size),
            Type::Typedef { target, .. } | Type::Const(target) | Type::Transparent(target) => {
                self.size(*target)
            }
            _ => None,
        }
    }

    fn align(&self, id: TypeId) -> u32 {
        match self.ty(id) {
            Type::Array { element, .. } => self.align(*element),
            Type::Composite(c) if self.is_packed(c) => 1,
            Type::Composite(c) => self.natural_align(c),
            Type::Typedef { target, .. } | Type::Const(target) | Type::Transparent(target) => {
                self.align(*target)
            }
            _ => self.size(id).unwrap_or(1).clamp(1, POINTER),
        }
    }

    fn natural_align(&self, composite: &Composite) -> u32 {
        composite.members.iter().map(|member| self.align(member.ty)).max().unwrap_or(1)
    }

    /// BTF does not record `packed`: it shows where a member or the end breaks natural alignment.
    fn is_packed(&self, composite: &Composite) -> bool {
        composite.size % self.natural_align(composite) != 0
            || composite.members.iter().any(|member| {
                member.bits.is_none() && member.offset % (self.align(member.ty) * 8) != 0
            })
    }

    pub(super) fn layout(&self, composite: &Composite) -> Layout {
        let packed = self.is_packed(composite);
        let (mut at, mut end) = (0, 0);
        let mut before = Vec::with_capacity(composite.members.len());
        for member in &composite.members {
            let natural =
                if composite.is_union { 0 } else { self.natural_offset(member, at, packed) };
            before.push(member.offset.saturating_sub(natural));
            let width = member.bits.unwrap_or_else(|| self.size(member.ty).unwrap_or(0) * 8);
            at = member.offset + width;
            end = end.max(at);
        }
        let align = if packed { 8 } else { self.natural_align(composite) * 8 };
        let after = (composite.size * 8).saturating_sub(end.next_multiple_of(align));
        Layout { before, after, packed }
    }

    fn natural_offset(&self, member: &Member, at: u32, packed: bool) -> u32 {
        match member.bits {
            // A bitfield moves on only where it would straddle its type's unit.
            Some(bits) => {
                let unit = self.size(member.ty).unwrap_or(1) * 8;
                let straddles = !packed && at % unit + bits > unit;
                if straddles { at.next_multiple_of(unit) } else { at }
            }
            None if packed => at.next_multiple_of(8),
            None => at.next_multiple_of(self.align(member.ty) * 8),
        }
    }
}
