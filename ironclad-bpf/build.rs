//! Compiles the eBPF programs of `bpf-src/` and generates their skeletons.
#[path = "build/programs.rs"]
mod programs;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::Mutex;

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
    let build = |program: &str| {
        let name = program.rsplit('/').next().unwrap_or(program);
        let object = out.join(format!("{name}.o"));
        programs::compile(&sources, program, arch, &clang, &object)
            .map_err(|e| format!("{program}.bpf.c: {e}"))?;
        SkeletonBuilder::new()
            .obj(&object)
            .generate(out.join(format!("{name}.skel.rs")))
            .map_err(|e| format!("{program}.bpf.c: {e:#}"))
    };
    // Nothing else is left to build at that time: every package waits for this one.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let queue = Mutex::new(PROGRAMS.iter().chain(benches));
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let work = || std::iter::from_fn(next).try_for_each(|program| build(program));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        let mut ends = threads.into_iter().map(|thread| thread.join());
        ends.try_for_each(|end| end.map_err(|_| "a thread panicked".to_owned())?)
    })
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
