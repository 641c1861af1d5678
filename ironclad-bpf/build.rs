//! Compiles the eBPF programs of `bpf-src/` and generates their skeletons.
#[path = "build/programs.rs"]
mod programs;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::exit;

use libbpf_cargo::SkeletonBuilder;
use programs::{BENCHES, PROGRAMS, Sources};

fn main() {
    if let Err(message) = run() {
        eprintln!("error: {message}");
        exit(1);
    }
}

fn run() -> Result<(), String> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?);
    let dir = root.join("bpf-src");
    let out = PathBuf::from(env::var("OUT_DIR").map_err(|e| e.to_string())?);
    let arch = match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("x86_64") => "x86",
        Ok("aarch64") => "arm64",
        other => {
            return Err(format!(
                "no vmlinux.h for the architecture {}: Ironclad's programs are built for x86_64 and aarch64",
                other.unwrap_or("(unknown)")
            ));
        }
    };
    println!("cargo::rerun-if-env-changed=CLANG");
    println!("cargo::rerun-if-env-changed=IRONCLAD_WERROR");
    rerun_if_changed(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let sources = Sources::new(&dir, out.join("libbpf")).map_err(|e| format!("headers: {e}"))?;
    let clang = programs::clang()?;
    let benches = if env::var_os("CARGO_FEATURE_BENCH").is_some() { &BENCHES[..] } else { &[] };
    for program in PROGRAMS.iter().chain(benches) {
        let name = program.rsplit('/').next().unwrap_or(program);
        let object = out.join(format!("{name}.o"));
        programs::compile(&sources, program, arch, &clang, &object)
            .map_err(|e| format!("{program}.bpf.c: {e}"))?;
        SkeletonBuilder::new()
            .obj(&object)
            .generate(out.join(format!("{name}.skel.rs")))
            .map_err(|e| format!("{program}.bpf.c: {e:#}"))?;
    }
    Ok(())
}

/// libbpf-cargo reports no headers to cargo.
fn rerun_if_changed(dir: &Path) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", dir.display());
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            rerun_if_changed(&path)?;
        } else {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    Ok(())
}
