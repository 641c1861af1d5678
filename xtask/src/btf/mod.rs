//! BPF Type Format: the kernel's description of its own types, read from bytes.

mod c;
mod layout;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

pub(crate) use c::Writer;

use crate::failure::{Context, Result};

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;

/// Number of a type; 0 is `void`.
pub(crate) type TypeId = u32;

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) ty: TypeId,
    /// From the start of the struct, in bits.
    pub(crate) offset: u32,
    /// Width in bits of a bitfield.
    pub(crate) bits: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct Composite {
    pub(crate) is_union: bool,
    pub(crate) name: String,
    pub(crate) size: u32,
    pub(crate) members: Vec<Member>,
}

#[derive(Debug)]
pub(crate) struct Enum {
    pub(crate) name: String,
    pub(crate) size: u32,
    pub(crate) signed: bool,
    pub(crate) values: Vec<(String, u64)>,
}

#[derive(Debug)]
pub(crate) enum Type {
    Void,
    Int {
        name: String,
        size: u32,
    },
    Pointer(TypeId),
    Array {
        element: TypeId,
        count: u32,
    },
    Composite(Composite),
    Enum(Enum),
    Forward {
        is_union: bool,
        name: String,
    },
    Typedef {
        name: String,
        target: TypeId,
    },
    Const(TypeId),
    /// `volatile`, `restrict` and type tags: nothing that an eBPF program needs.
    Transparent(TypeId),
    Prototype {
        result: TypeId,
        parameters: Vec<TypeId>,
    },
    /// Functions, variables and tags of declarations.
    Other,
}

/// All types of one kernel.
pub(crate) struct Btf {
    types: Vec<Type>,
    composites: HashMap<String, TypeId>,
    enums: HashMap<String, TypeId>,
    typedefs: HashMap<String, TypeId>,
    constants: HashMap<String, TypeId>,
}

impl Btf {
    /// Reads a raw `.BTF` section (little-endian).
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let header = Header::parse(bytes).context("this is not BTF")?;
        let mut reader = Reader { bytes: header.types, strings: header.strings };
        let mut types = vec![Type::Void];
        while !reader.bytes.is_empty() {
            let number = types.len();
            types.push(reader.ty().context(format_args!("BTF type {number} is cut or unknown"))?);
        }
        Ok(Self::index(types))
    }

    /// The first of several types with one name counts, so that the answer never varies.
    fn index(types: Vec<Type>) -> Self {
        let mut btf = Self {
            types: Vec::new(),
            composites: HashMap::new(),
            enums: HashMap::new(),
            typedefs: HashMap::new(),
            constants: HashMap::new(),
        };
        for (id, ty) in (0..).zip(&types) {
            match ty {
                Type::Composite(c) if !c.name.is_empty() => {
                    btf.composites.entry(c.name.clone()).or_insert(id);
                }
                Type::Enum(e) => {
                    if !e.name.is_empty() {
                        btf.enums.entry(e.name.clone()).or_insert(id);
                    }
                    for (constant, _) in &e.values {
                        btf.constants.entry(constant.clone()).or_insert(id);
                    }
                }
                Type::Typedef { name, .. } => {
                    btf.typedefs.entry(name.clone()).or_insert(id);
                }
                _ => {}
            }
        }
        btf.types = types;
        btf
    }

    pub(crate) fn ty(&self, id: TypeId) -> &Type {
        self.types.get(id as usize).unwrap_or(&Type::Other)
    }

    /// A struct or union by its tag.
    pub(crate) fn composite(&self, name: &str) -> Option<TypeId> {
        self.composites.get(name).copied()
    }

    /// Whether a struct has a field, also inside its anonymous structs and unions.
    pub(crate) fn has_field(&self, composite: &str, field: &str) -> bool {
        match self.composite(composite).map(|id| self.ty(id)) {
            Some(Type::Composite(composite)) => self.field(composite, field).is_some(),
            _ => false,
        }
    }

    fn field<'a>(&'a self, composite: &'a Composite, name: &str) -> Option<&'a Member> {
        composite.members.iter().find_map(|member| match self.ty(member.ty) {
            _ if member.name == name => Some(member),
            Type::Composite(inner) if member.name.is_empty() => self.field(inner, name),
            _ => None,
        })
    }

    pub(crate) fn enumeration(&self, name: &str) -> Option<TypeId> {
        self.enums.get(name).copied()
    }

    pub(crate) fn typedef(&self, name: &str) -> Option<TypeId> {
        self.typedefs.get(name).copied()
    }

    /// The enum in which a constant is defined.
    pub(crate) fn constant(&self, name: &str) -> Option<TypeId> {
        self.constants.get(name).copied()
    }
}

/// Whether BTF starts here; if so, how many bytes it has.
pub(crate) fn extent(bytes: &[u8]) -> Option<usize> {
    Header::parse(bytes).map(|header| header.len)
}

struct Header<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    len: usize,
}

impl<'a> Header<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let magic = u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?);
        let word = |index: usize| Some(u32::from_le_bytes(*bytes.get(index..)?.first_chunk()?));
        let (version, header_len) = (*bytes.get(2)?, word(4)? as usize);
        if magic != MAGIC || version != 1 || header_len < HEADER {
            return None;
        }
        let section = |offset: usize, len: usize| {
            let start = header_len.checked_add(word(offset)? as usize)?;
            bytes.get(start..start.checked_add(word(len)? as usize)?).map(|part| (start, part))
        };
        let ((types_at, types), (strings_at, strings)) = (section(8, 12)?, section(16, 20)?);
        // The string table starts and ends with NUL: the empty name, and the last name's end.
        if strings.first() != Some(&0) || strings.last() != Some(&0) {
            return None;
        }
        let len = (types_at + types.len()).max(strings_at + strings.len());
        Some(Self { types, strings, len })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    strings: &'a [u8],
}

impl Reader<'_> {
    fn word(&mut self) -> Option<u32> {
        let (word, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(u32::from_le_bytes(*word))
    }

    fn name(&mut self) -> Option<String> {
        let tail = self.strings.get(self.word()? as usize..)?;
        let end = tail.iter().position(|&byte| byte == 0)?;
        String::from_utf8(tail[..end].to_vec()).ok()
    }

    fn ty(&mut self) -> Option<Type> {
        let name = self.name()?;
        let info = self.word()?;
        let size_or_type = self.word()?;
        let (count, kind, flag) = (info & 0xffff, info >> 24 & 0x1f, info >> 31 == 1);
        Some(match kind {
            1 => {
                self.word()?;
                Type::Int { name, size: size_or_type }
            }
            2 => Type::Pointer(size_or_type),
            3 => {
                let (element, _index) = (self.word()?, self.word()?);
                Type::Array { element, count: self.word()? }
            }
            4 | 5 => Type::Composite(Composite {
                is_union: kind == 5,
                name,
                size: size_or_type,
                members: (0..count).map(|_| self.member(flag)).collect::<Option<_>>()?,
            }),
            6 | 19 => Type::Enum(Enum {
                name,
                size: size_or_type,
                signed: flag,
                values: (0..count).map(|_| self.value(kind == 19)).collect::<Option<_>>()?,
            }),
            7 => Type::Forward { is_union: flag, name },
            8 => Type::Typedef { name, target: size_or_type },
            9 | 11 | 18 => Type::Transparent(size_or_type),
            10 => Type::Const(size_or_type),
            12 => Type::Other,
            13 => Type::Prototype {
                result: size_or_type,
                parameters: (0..count)
                    .map(|_| {
                        self.word()?;
                        self.word()
                    })
                    .collect::<Option<_>>()?,
            },
            14 | 17 => {
                self.word()?;
                Type::Other
            }
            15 => {
                for _ in 0..count * 3 {
                    self.word()?;
                }
                Type::Other
            }
            16 => Type::Int { name, size: size_or_type },
            _ => return None,
        })
    }

    /// With the flag, an offset's high byte is the width of a bitfield.
    fn member(&mut self, has_bitfields: bool) -> Option<Member> {
        let (name, ty, word) = (self.name()?, self.word()?, self.word()?);
        let (offset, bits) = if has_bitfields { (word & 0xff_ffff, word >> 24) } else { (word, 0) };
        Some(Member { name, ty, offset, bits: (bits != 0).then_some(bits) })
    }

    /// Sign-extended, so that both widths print alike.
    fn value(&mut self, wide: bool) -> Option<(String, u64)> {
        let (name, low) = (self.name()?, self.word()?);
        let value = if wide {
            u64::from(low) | u64::from(self.word()?) << 32
        } else {
            i64::from(low as i32) as u64
        };
        Some((name, value))
    }
}
