//! Builds, tests and measures Ironclad: `cargo xtask --help`.
#![forbid(unsafe_code)]

mod btf;
mod failure;
mod vmlinux;

fn main() {
    let b = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
    let b = btf::Btf::parse(&b).unwrap();
    for a in ["x86","arm64"] {
    let r = vmlinux::Roots::read("bpf-src/vmlinux/roots.txt".as_ref(), a).unwrap();
    let h = vmlinux::header(&b, &r, "Linux 6.18").unwrap();
    std::fs::write(format!("bpf-src/vmlinux/{a}/vmlinux.h"), h.text).unwrap();
    std::fs::write(format!("/tmp/asserts.bpf.c"), h.asserts).unwrap();
    }
}
