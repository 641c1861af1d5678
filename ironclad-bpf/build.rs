//! Compiles the eBPF programs of `bpf-src/`, or takes those that the package carries, and generates
//! their skeletons.
#[path = "build/programs.rs"]
mod programs;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::Mutex;

use libbpf_cargo::SkeletonBuilder;
use programs::{
    ARCHITECTURES, BENCHES, DIGEST, PREBUILT, PROGRAMS, Sources, object_name, products,
};

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
    let target = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let Some((_, arch)) = ARCHITECTURES.into_iter().find(|(name, _)| *name == target) else {
        return Err(format!(
            "no vmlinux.h for the architecture {target}: Ironclad's programs are built for x86_64 and aarch64"
        ));
    };
    println!("cargo::rerun-if-env-changed=CLANG");
    println!("cargo::rerun-if-env-changed=IRONCLAD_WERROR");
    rerun_if_changed(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let has = |feature: &str| env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    let is_used = |program: &&str| products(program).iter().any(|product| has(product));
    let prebuilt = if has("BUILD_BPF") { None } else { prebuilt(&root.join(PREBUILT), &dir)? };
    let compiler = match &prebuilt {
        Some(_) if !has("BENCH") => None,
        _ => Some(Compiler {
            sources: Sources::new(&dir, out.join("libbpf")).map_err(|e| format!("headers: {e}"))?,
            clang: programs::clang()?,
            arch,
        }),
    };
    let build = |program: &str| {
        let mut object = out.join(object_name(program));
        let packed = prebuilt.as_ref().map(|dir| dir.join(&target).join(object_name(program)));
        match (packed.filter(|_| PROGRAMS.contains(&program)), &compiler) {
            (Some(packed), _) => object = packed,
            (None, Some(compiler)) => compiler.compile(program, &object)?,
            (None, None) => return Err(format!("{program}: no compiler")),
        }
        SkeletonBuilder::new()
            .obj(&object)
            .generate(out.join(object_name(program)).with_extension("skel.rs"))
            .map_err(|e| format!("{program}.bpf.c: {e:#}"))
    };
    // Nothing else is left to build at that time: every package waits for this one.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let queue = Mutex::new(PROGRAMS.iter().chain(&BENCHES).filter(|it| is_used(it)));
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let work = || std::iter::from_fn(next).try_for_each(|program| build(program));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        let mut ends = threads.into_iter().map(|thread| thread.join());
        ends.try_for_each(|end| end.map_err(|_| "a thread panicked".to_owned())?)
    })
}

struct Compiler<'a> {
    sources: Sources<'a>,
    clang: PathBuf,
    arch: &'static str,
}

impl Compiler<'_> {
    fn compile(&self, program: &str, object: &Path) -> Result<(), String> {
        programs::compile(&self.sources, program, self.arch, &self.clang, object)
            .map_err(|e| format!("{program}.bpf.c: {e}"))
    }
}

/// The directory of the compiled programs that a package carries. None in a checkout, nor where the
/// sources are not those that they were compiled from.
fn prebuilt(dir: &Path, sources: &Path) -> Result<Option<PathBuf>, String> {
    let Ok(known) = fs::read_to_string(dir.join(DIGEST)) else {
        return Ok(None);
    };
    rerun_if_changed(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let found = programs::digest(sources).map_err(|e| format!("{}: {e}", sources.display()))?;
    Ok((known.trim() == found).then(|| dir.to_owned()))
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
