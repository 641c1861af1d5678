//! `bpf-src/vmlinux/<arch>/vmlinux.h`: the few kernel types that the eBPF sources name.

mod roots;

use roots::Root;
pub(crate) use roots::Roots;

use crate::btf::{Btf, TypeId, Writer};
use crate::failure::{Failure, Result};

const PUSH: &str = "#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
#endif

";
const POP: &str = "#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute pop
#endif

";

/// The header's text, and C that fails to compile where its layout is not the kernel's.
pub(crate) struct Header {
    pub(crate) text: String,
    pub(crate) asserts: String,
}

pub(crate) fn header(btf: &Btf, roots: &Roots, origin: &str) -> Result<Header> {
    let mut writer = Writer::new(btf, &roots.fields);
    define_all(btf, &mut writer, &roots.fixed)?;
    let fixed = writer.take();
    define_all(btf, &mut writer, &roots.relocated)?;
    let relocated = writer.take();
    let relocated = match relocated.as_str() {
        "" => relocated,
        types => format!("{PUSH}{types}{POP}"),
    };
    let text = format!(
        "/* Made by `cargo xtask vmlinux` from the BTF of {origin}. Do not edit: see ../roots.txt. */
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

{fixed}{relocated}#endif /* __VMLINUX_H__ */
"
    );
    let asserts = format!("#include \"vmlinux.h\"\n\n{}", writer.asserts());
    Ok(Header { text, asserts })
}

fn find(btf: &Btf, root: &Root) -> Option<TypeId> {
    match root {
        Root::Composite(name) => btf.composite(name),
        Root::Enum(name) => btf.enumeration(name),
        Root::Typedef(name) => btf.typedef(name),
        Root::Constant(name) => btf.constant(name),
    }
}

fn define_all(btf: &Btf, writer: &mut Writer<'_>, roots: &[Root]) -> Result<()> {
    let missing: Vec<_> =
        roots.iter().filter(|root| find(btf, root).is_none()).map(Root::to_string).collect();
    if !missing.is_empty() {
        return Err(Failure::new(format!("this kernel's BTF has no {}", missing.join(", no "))));
    }
    roots.iter().filter_map(|root| find(btf, root)).try_for_each(|id| writer.define(id))
}
