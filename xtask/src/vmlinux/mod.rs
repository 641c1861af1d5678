//! `bpf-src/vmlinux/<arch>/vmlinux.h`: the few kernel types that the eBPF sources name.

mod roots;

use std::path::{Path, PathBuf};

use roots::{Root, Roots};

use crate::btf::{Btf, TypeId, Writer};
use crate::command::{command, create_dir, output, read, read_text, write};
use crate::failure::{Context, Failure, Result};
use crate::kernels::{self, Kernel, NEWEST_ARM64, Store, Wanted};

/// Stands before the package's name in a header.
const ORIGIN: &str = ", Debian ";

const ROOTS: &str = "bpf-src/vmlinux/roots.txt";

/// How an architecture is called by libbpf (and in our paths), and whose types are taken for it.
fn architectures() -> Result<[(&'static str, &'static Wanted); 2]> {
    let newest = kernels::select(&["newest".into()])?;
    Ok([("x86", newest[0]), ("arm64", &NEWEST_ARM64)])
}

fn path(arch: &str) -> PathBuf {
    Path::new("bpf-src/vmlinux").join(arch).join("vmlinux.h")
}

/// Makes the headers anew, from the newest kernel.
pub(crate) fn generate() -> Result<()> {
    let mut store = Store::open()?;
    for (arch, wanted) in architectures()? {
        let header = from_kernel(arch, &store.newest(wanted)?)?;
        header.assert_layout()?;
        let path = path(arch);
        create_dir(path.parent().context("no parent")?)?;
        write(&path, &header.text)?;
        eprintln!("{}: {} bytes", path.display(), header.text.len());
    }
    Ok(())
}

/// What became of comparing one header with the kernel it names.
pub(crate) enum Comparison {
    Same,
    /// With the first line that differs, and what to do.
    Differs(String),
    /// The kernel is gone from the archive, and with the newest one the types differ.
    NotComparable(String),
}

/// Makes the headers again from the kernels that they name, and compares.
pub(crate) fn check() -> Result<Vec<(PathBuf, Comparison)>> {
    let mut store = Store::open()?;
    let mut results = Vec::new();
    for (arch, wanted) in architectures()? {
        let path = path(arch);
        let text = read_text(&path)?;
        let package = package(&text).context(format_args!(
            "{} does not name its kernel: run cargo xtask vmlinux",
            path.display()
        ))?;
        let (kernel, is_same) = match store.exactly(wanted, package)? {
            Some(kernel) => (kernel, true),
            None => (store.newest(wanted)?, false),
        };
        let header = from_kernel(arch, &kernel)?;
        header.assert_layout()?;
        results.push((path, compare(&text, &header.text, is_same.then_some(&kernel))));
    }
    Ok(results)
}

/// The origin differs anyway where the kernel is another one.
fn compare(here: &str, made: &str, same_kernel: Option<&Kernel>) -> Comparison {
    let is_origin = |line: &str| same_kernel.is_none() && line.contains(ORIGIN);
    let mut pairs = (1..).zip(here.lines().zip(made.lines()));
    let differing = pairs.find(|(_, (here, made))| here != made && !is_origin(here));
    let message = match differing {
        Some((number, (here, made))) => format!("line {number}: '{here}' should be '{made}'"),
        None if here.lines().count() != made.lines().count() => "the length differs".to_owned(),
        None => return Comparison::Same,
    };
    match same_kernel {
        Some(_) => Comparison::Differs(format!("{message}: run cargo xtask vmlinux")),
        None => Comparison::NotComparable(format!(
            "its kernel is no more in the archive and the newest one has other types ({message}): \
             run cargo xtask vmlinux to follow it"
        )),
    }
}

fn package(header: &str) -> Option<&str> {
    header.split_once(ORIGIN)?.1.split(' ').next()
}

fn from_kernel(arch: &str, kernel: &Kernel) -> Result<Header> {
    let roots = Roots::read(ROOTS.as_ref(), arch)?;
    let btf = Btf::parse(&read(&kernel.btf())?).context(&kernel.release)?;
    let Kernel { release, package, version, .. } = kernel;
    let origin = format!("Linux {release}{ORIGIN}{package} {version}");
    header(&btf, &roots, &origin).context(format_args!("{ROOTS}: {release}"))
}

/// What of the list each kernel of the matrix lacks: to be asked for with `bpf_core_*_exists`.
pub(crate) fn coverage() -> Result<()> {
    let roots = Roots::read(ROOTS.as_ref(), "x86")?;
    for kernel in kernels::fetch(&[], false)? {
        let btf = Btf::parse(&read(&kernel.btf())?).context(&kernel.release)?;
        let mut missing: Vec<_> = roots
            .fixed
            .iter()
            .chain(&roots.relocated)
            .filter(|root| find(&btf, root).is_none())
            .map(Root::to_string)
            .collect();
        for (name, fields) in &roots.fields {
            missing.extend(
                fields
                    .iter()
                    .filter(|field| btf.composite(name).is_some() && !btf.has_field(name, field))
                    .map(|field| format!("{name}.{field}")),
            );
        }
        match missing.as_slice() {
            [] => println!("{:8} has all", kernel.label),
            _ => println!("{:8} lacks {}", kernel.label, missing.join(", ")),
        }
    }
    Ok(())
}

const PUSH: &str = "#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
#endif

";
const POP: &str = "#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute pop
#endif

";

/// The header's text, and C that fails to compile where its layout is not the kernel's.
struct Header {
    text: String,
    asserts: String,
}

impl Header {
    fn assert_layout(&self) -> Result<()> {
        let dir = tempfile::tempdir().context("temporary directory")?;
        let (header, source) = (dir.path().join("vmlinux.h"), dir.path().join("layout.bpf.c"));
        write(&header, &self.text)?;
        write(&source, &self.asserts)?;
        let arguments = ["-target", "bpf", "-g", "-Wall", "-Werror", "-fsyntax-only"];
        output(command("clang-19", arguments).arg(&source))?;
        Ok(())
    }
}

fn header(btf: &Btf, roots: &Roots, origin: &str) -> Result<Header> {
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
        "/*
 * Made by `cargo xtask vmlinux` of ../roots.txt: do not edit. The types are those of
 * {origin}
 */
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
