//! Types as C declarations, each after those it needs.

use std::collections::{BTreeMap, HashSet};

use super::{Btf, Composite, Enum, Member, Type, TypeId};
use crate::failure::{Context, Result};

/// How much of a type its user must see.
#[derive(Clone, Copy, PartialEq)]
enum Need {
    /// It is only pointed to.
    Name,
    /// Likewise, by a function's parameter: its name must be known before.
    NameBefore,
    Definition,
}

/// Writes types and what they contain; pointed-to structs stay incomplete unless asked for.
pub(crate) struct Writer<'a> {
    btf: &'a Btf,
    /// Structs of which only some fields are written.
    partial: &'a BTreeMap<String, Vec<String>>,
    done: HashSet<TypeId>,
    forwarded: HashSet<String>,
    out: String,
    asserts: String,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(btf: &'a Btf, partial: &'a BTreeMap<String, Vec<String>>) -> Self {
        Self {
            btf,
            partial,
            done: HashSet::new(),
            forwarded: HashSet::new(),
            out: String::new(),
            asserts: String::new(),
        }
    }

    /// Declarations since the last call.
    pub(crate) fn take(&mut self) -> String {
        self.end_typedefs();
        std::mem::take(&mut self.out)
    }

    /// `_Static_assert`s that hold the whole structs written to the offsets that BTF gives.
    pub(crate) fn asserts(&self) -> &str {
        &self.asserts
    }

    /// Writes a type's definition, after all it needs.
    pub(crate) fn define(&mut self, id: TypeId) -> Result<()> {
        if let Type::Enum(e) = self.btf.ty(id) {
            if e.name.is_empty() && self.done.insert(id) {
                let body = enum_body(e, "");
                self.put(&body);
                return Ok(());
            }
        }
        self.require(id, Need::Definition)
    }

    fn require(&mut self, id: TypeId, need: Need) -> Result<()> {
        match self.btf.ty(id) {
            Type::Void | Type::Int { .. } => Ok(()),
            Type::Pointer(target) if need == Need::Definition => self.require(*target, Need::Name),
            Type::Pointer(target) => self.require(*target, need),
            Type::Const(target) | Type::Transparent(target) => self.require(*target, need),
            Type::Array { element, .. } => self.require(*element, Need::Definition),
            Type::Prototype { result, parameters } => {
                self.require(*result, Need::NameBefore)?;
                parameters.iter().try_for_each(|id| self.require(*id, Need::NameBefore))
            }
            Type::Typedef { name, target } => {
                self.require(*target, need)?;
                if self.done.insert(id) {
                    let declaration = self.declare(*target, name, 0)?;
                    self.put(&format!("typedef {declaration}"));
                }
                Ok(())
            }
            Type::Enum(e) if e.name.is_empty() => Ok(()),
            Type::Enum(e) => {
                if self.done.insert(id) {
                    self.put(&enum_body(e, ""));
                }
                Ok(())
            }
            Type::Forward { is_union, name } => {
                self.forward(*is_union, name);
                Ok(())
            }
            Type::Composite(c) if c.name.is_empty() => self.require_members(c),
            Type::Composite(c) if need != Need::Definition => {
                if need == Need::NameBefore || !self.done.contains(&id) {
                    self.forward(c.is_union, &c.name);
                }
                Ok(())
            }
            Type::Composite(c) => {
                if self.done.insert(id) {
                    self.composite(c)?;
                }
                Ok(())
            }
            Type::Other => Err(format!("BTF type {id} is not a type of C").into()),
        }
    }

    /// Blank lines stand around everything but between typedefs.
    fn put(&mut self, declaration: &str) {
        let is_typedef = declaration.starts_with("typedef ");
        if !is_typedef {
            self.end_typedefs();
        }
        self.out += declaration;
        self.out += if is_typedef { ";\n" } else { ";\n\n" };
    }

    fn end_typedefs(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    fn forward(&mut self, is_union: bool, name: &str) {
        if self.forwarded.insert(name.to_owned()) {
            self.put(&format!("{} {name}", keyword(is_union)));
        }
    }

    fn require_members(&mut self, composite: &Composite) -> Result<()> {
        composite.members.iter().try_for_each(|member| self.require(member.ty, Need::Definition))
    }

    fn composite(&mut self, composite: &'a Composite) -> Result<()> {
        let text = match self.partial.get(&composite.name) {
            Some(fields) => {
                let members = fields
                    .iter()
                    .map(|field| {
                        self.btf.field(composite, field).context(format_args!(
                            "{} {} has no field {field}",
                            keyword(composite.is_union),
                            composite.name
                        ))
                    })
                    .collect::<Result<Vec<_>>>()?;
                members.iter().try_for_each(|m| self.require(m.ty, Need::Definition))?;
                self.partial_body(composite, &members)?
            }
            None => {
                self.require_members(composite)?;
                self.assert_layout(composite);
                self.body(composite, 0)?
            }
        };
        self.forwarded.insert(composite.name.clone());
        self.put(&text);
        Ok(())
    }

    fn partial_body(&self, composite: &Composite, members: &[&Member]) -> Result<String> {
        let mut text = format!("{} {} {{\n", keyword(composite.is_union), composite.name);
        for member in members {
            text += &self.field(member, 1)?;
        }
        Ok(text + "}")
    }

    fn body(&self, composite: &Composite, depth: usize) -> Result<String> {
        let indent = "\t".repeat(depth);
        let layout = self.btf.layout(composite);
        let mut text = keyword(composite.is_union).to_owned();
        if !composite.name.is_empty() {
            text += &format!(" {}", composite.name);
        }
        text += " {\n";
        let mut gaps = 0;
        for (member, &gap) in composite.members.iter().zip(&layout.before) {
            text += &padding(gap, &mut gaps, depth + 1);
            text += &self.field(member, depth + 1)?;
        }
        text += &padding(layout.after, &mut gaps, depth + 1);
        text += &format!("{indent}}}");
        if layout.packed {
            text += " __attribute__((packed))";
        }
        Ok(text)
    }

    fn field(&self, member: &Member, depth: usize) -> Result<String> {
        let declaration = self.declare(member.ty, &member.name, depth)?;
        let bits = member.bits.map(|bits| format!(": {bits}")).unwrap_or_default();
        Ok(format!("{}{declaration}{bits};\n", "\t".repeat(depth)))
    }

    /// C's inside-out declarators: `inner` grows around the name until a named type is reached.
    fn declare(&self, id: TypeId, inner: &str, depth: usize) -> Result<String> {
        let base = |name: &str| join(name, inner);
        Ok(match self.btf.ty(id) {
            Type::Void => base("void"),
            Type::Int { name, .. } | Type::Typedef { name, .. } => base(name),
            Type::Forward { is_union, name } => base(&format!("{} {name}", keyword(*is_union))),
            Type::Composite(c) if c.name.is_empty() => base(&self.body(c, depth)?),
            Type::Composite(c) => base(&format!("{} {}", keyword(c.is_union), c.name)),
            Type::Enum(e) if e.name.is_empty() => base(&enum_body(e, &"\t".repeat(depth))),
            Type::Enum(e) => base(&format!("enum {}", e.name)),
            Type::Pointer(target) => {
                let inner = match self.resolved(*target) {
                    Type::Array { .. } | Type::Prototype { .. } => format!("(*{inner})"),
                    _ => format!("*{inner}"),
                };
                self.declare(*target, &inner, depth)?
            }
            Type::Const(target) => match self.resolved(*target) {
                Type::Pointer(_) => {
                    self.declare(*target, join("const", inner).trim_end(), depth)?
                }
                _ => format!("const {}", self.declare(*target, inner, depth)?),
            },
            Type::Transparent(target) => self.declare(*target, inner, depth)?,
            Type::Array { element, count } => {
                self.declare(*element, &format!("{inner}[{count}]"), depth)?
            }
            Type::Prototype { result, parameters } => {
                let parameters = parameters
                    .iter()
                    .map(|&id| match id {
                        0 => Ok("...".to_owned()),
                        _ => self.declare(id, "", depth),
                    })
                    .collect::<Result<Vec<_>>>()?;
                let list =
                    if parameters.is_empty() { "void".to_owned() } else { parameters.join(", ") };
                self.declare(*result, &format!("{inner}({list})"), depth)?
            }
            Type::Other => return Err(format!("BTF type {id} is not a type of C").into()),
        })
    }

    fn resolved(&self, id: TypeId) -> &Type {
        match self.btf.ty(id) {
            Type::Transparent(target) => self.resolved(*target),
            ty => ty,
        }
    }

    fn assert_layout(&mut self, composite: &Composite) {
        let name = format!("{} {}", keyword(composite.is_union), composite.name);
        let size = composite.size;
        self.asserts += &format!("_Static_assert(sizeof({name}) == {size}, \"{name}\");\n");
        let fields = composite.members.iter().filter(|m| !m.name.is_empty() && m.bits.is_none());
        for Member { name: field, offset, .. } in fields {
            self.asserts += &format!(
                "_Static_assert(__builtin_offsetof({name}, {field}) == {}, \"{name}.{field}\");\n",
                offset / 8
            );
        }
    }
}

fn keyword(is_union: bool) -> &'static str {
    if is_union { "union" } else { "struct" }
}

fn join(base: &str, inner: &str) -> String {
    if inner.is_empty() { base.to_owned() } else { format!("{base} {inner}") }
}

/// Whole bytes as a named array, bits as an unnamed bitfield.
fn padding(bits: u32, gaps: &mut u32, depth: usize) -> String {
    if bits == 0 {
        return String::new();
    }
    let indent = "\t".repeat(depth);
    if bits % 8 != 0 {
        return format!("{indent}unsigned long : {bits};\n");
    }
    *gaps += 1;
    format!("{indent}unsigned char __gap{gaps}[{}];\n", bits / 8)
}

fn enum_body(e: &Enum, indent: &str) -> String {
    let mut text = join("enum", &e.name) + " {\n";
    for (name, value) in &e.values {
        text += &format!("{indent}\t{name} = {},\n", constant(e, *value));
    }
    text + indent + "}"
}

fn constant(e: &Enum, value: u64) -> String {
    let signed = value as i64;
    match (e.size, e.signed) {
        (8, true) => format!("{signed}LL"),
        (8, false) => format!("{value}ULL"),
        (_, true) => signed.to_string(),
        (_, false) => (value as u32).to_string(),
    }
}
