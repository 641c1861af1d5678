//! How the programs of `bpf-src/` are compiled: for the build, and for the tests that compile them
//! once more.
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;

/// The oldest clang whose code the programs were tried with.
const CLANG_MIN: u32 = 16;

/// By their paths in `bpf-src/`, without `.bpf.c`.
pub(crate) const PROGRAMS: [&str; 6] = [
    "progs/cgroup",
    "progs/lsm_socket",
    "progs/process",
    "progs/sentinel",
    "progs/xdp_dispatch",
    "progs/xdp_policy",
];
/// Only with the feature `bench`.
pub(crate) const BENCHES: [&str; 5] = [
    "bench/bench_cgroup",
    "bench/bench_lookup",
    "bench/bench_lsm",
    "bench/bench_send",
    "bench/bench_xdp",
];

/// Where `bpf-src/` and libbpf's headers lie.
pub(crate) struct Sources<'a> {
    dir: &'a Path,
    headers: PathBuf,
}

impl<'a> Sources<'a> {
    /// With libbpf's headers written to `headers`: libbpf-cargo writes them to a directory whose
    /// name chance picks, and which the object would carry.
    pub(crate) fn new(dir: &'a Path, headers: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(headers.join("bpf"))?;
        for (name, text) in libbpf_sys::API_HEADERS {
            fs::write(headers.join("bpf").join(name), text)?;
        }
        Ok(Self { dir, headers })
    }
}

/// A compilation of a program for an architecture as the kernel's sources call it.
pub(crate) fn compilation(
    sources: &Sources<'_>,
    program: &str,
    arch: &str,
    clang: &Path,
) -> SkeletonBuilder {
    let Sources { dir, headers } = sources;
    // libbpf-cargo does not show clang's warnings: CI turns them into errors. A user's newer clang may
    // warn of more and still build.
    let werror = if env::var_os("IRONCLAD_WERROR").is_some() { "-Werror" } else { "-Wno-error" };
    let args = [
        format!("-I{}", dir.join("include").display()),
        format!("-I{}", dir.join("vmlinux").join(arch).display()),
        format!("-D__TARGET_ARCH_{arch}"),
        format!("-I{}", headers.display()),
        // The same bytes wherever the sources lie.
        format!("-ffile-prefix-map={}=bpf-src", dir.display()),
        format!("-ffile-prefix-map={}=libbpf", headers.display()),
        // Nor where the compiler runs.
        "-ffile-compilation-dir=bpf-src".to_owned(),
        // Since Linux 5.1, so older than our floor of 5.10.
        "-mcpu=v3".to_owned(),
        "-Wall".to_owned(),
        "-Wextra".to_owned(),
        "-Wno-unused-function".to_owned(),
        // Hooks hand over more than each program wants.
        "-Wno-unused-parameter".to_owned(),
        "-Wno-pragma-clang-attribute".to_owned(),
        werror.to_owned(),
    ];
    let mut builder = SkeletonBuilder::new();
    builder.source(dir.join(format!("{program}.bpf.c"))).clang(clang).clang_args(args);
    builder
}

/// `CLANG`, or the newest clang that is installed.
pub(crate) fn clang() -> Result<PathBuf, String> {
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
