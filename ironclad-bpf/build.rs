//! Compiles the eBPF programs of `bpf-src/` and generates their skeletons.
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use libbpf_cargo::SkeletonBuilder;

/// The oldest clang whose code the programs were tried with.
const CLANG_MIN: u32 = 16;

const PROGRAMS: [&str; 2] = ["progs/xdp_dispatch", "progs/xdp_policy"];
/// Only with the feature `bench`.
const BENCHES: [&str; 2] = ["bench/bench_lookup", "bench/bench_xdp"];

fn main() {
    if let Err(message) = run() {
        eprintln!("error: {message}");
        exit(1);
    }
}

fn run() -> Result<(), String> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?);
    let sources = root.join("bpf-src");
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
    rerun_if_changed(&sources).map_err(|e| format!("{}: {e}", sources.display()))?;
    let clang = clang()?;
    // libbpf-cargo keeps clang's warnings to itself: CI turns them into errors. A stranger's newer
    // clang may warn of more and still build.
    println!("cargo::rerun-if-env-changed=IRONCLAD_WERROR");
    let werror = if env::var_os("IRONCLAD_WERROR").is_some() { "-Werror" } else { "-Wno-error" };
    let benches = if env::var_os("CARGO_FEATURE_BENCH").is_some() { &BENCHES[..] } else { &[] };
    for program in PROGRAMS.iter().chain(benches) {
        let source = sources.join(format!("{program}.bpf.c"));
        let name = program.rsplit('/').next().unwrap_or(program);
        let args = [
            format!("-I{}", sources.join("include").display()),
            format!("-I{}", sources.join("vmlinux").join(arch).display()),
            format!("-D__TARGET_ARCH_{arch}"),
            // The same bytes wherever the sources lie.
            format!("-ffile-prefix-map={}=bpf-src", sources.display()),
            // Since Linux 5.1, so older than our floor of 5.10.
            "-mcpu=v3".to_owned(),
            "-Wall".to_owned(),
            "-Wextra".to_owned(),
            "-Wno-unused-function".to_owned(),
            "-Wno-pragma-clang-attribute".to_owned(),
            werror.to_owned(),
        ];
        SkeletonBuilder::new()
            .source(&source)
            .clang(&clang)
            .clang_args(args)
            .build_and_generate(out.join(format!("{name}.skel.rs")))
            .map_err(|e| format!("{}: {e:#}", source.display()))?;
    }
    Ok(())
}

/// libbpf-cargo tells cargo nothing of the headers.
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

/// `CLANG`, or the newest clang that is installed.
fn clang() -> Result<PathBuf, String> {
    let install = format!(
        "install it (Debian: apt-get install clang-19) or set CLANG to a clang of version {CLANG_MIN} or newer"
    );
    if let Some(path) = env::var_os("CLANG") {
        let path = PathBuf::from(path);
        return match version(&path) {
            Some(found) if found >= CLANG_MIN => Ok(path),
            Some(found) => Err(format!("CLANG is version {found}, too old: {install}")),
            None => Err(format!("CLANG={} does not run: {install}", path.display())),
        };
    }
    let names = (CLANG_MIN..=30).rev().map(|n| format!("clang-{n}")).chain(["clang".to_owned()]);
    let mut too_old = None;
    for name in names {
        match version(Path::new(&name)) {
            Some(found) if found >= CLANG_MIN => return Ok(name.into()),
            Some(found) => too_old = Some(found),
            None => {}
        }
    }
    Err(match too_old {
        Some(found) => format!("clang {found} is too old to compile the eBPF programs: {install}"),
        None => format!("no clang to compile the eBPF programs: {install}"),
    })
}

fn version(clang: &Path) -> Option<u32> {
    let output = Command::new(clang).arg("-dumpversion").output().ok()?;
    String::from_utf8(output.stdout).ok()?.split('.').next()?.trim().parse().ok()
}
