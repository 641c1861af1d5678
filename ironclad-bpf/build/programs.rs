//! How the programs of `bpf-src/` are compiled: for the build, for packages, and for the tests that
//! compile them once more.
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

/// The oldest clang whose code the programs were tried with.
const CLANG_MIN: u32 = 16;

/// The features whose products use a program.
pub(crate) fn products(program: &str) -> &'static [&'static str] {
    match program {
        "progs/process" => &["SHIELD", "SENTINEL"],
        "progs/sentinel" => &["SENTINEL"],
        bench if BENCHES.contains(&bench) => &["BENCH"],
        _ => &["SHIELD"],
    }
}

/// By their paths in `bpf-src/`, without `.bpf.c`.
pub(crate) const PROGRAMS: [&str; 6] = [
    "progs/cgroup",
    "progs/lsm_socket",
    "progs/process",
    "progs/sentinel",
    "progs/xdp_dispatch",
    "progs/xdp_policy",
];
/// The architectures that have a `vmlinux.h`: their names in Rust and in the kernel's sources.
pub(crate) const ARCHITECTURES: [(&str, &str); 2] = [("x86_64", "x86"), ("aarch64", "arm64")];
/// In a package: the compiled programs, in a directory for each architecture by its name in Rust.
pub(crate) const PREBUILT: &str = "prebuilt";
/// In `PREBUILT`: the digest of the sources that they were compiled from.
pub(crate) const DIGEST: &str = "sources.sha256";

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
    /// With libbpf's headers written to `headers`.
    pub(crate) fn new(dir: &'a Path, headers: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(headers.join("bpf"))?;
        for (name, text) in libbpf_sys::API_HEADERS {
            fs::write(headers.join("bpf").join(name), text)?;
        }
        Ok(Self { dir, headers })
    }
}

/// A file's name without the directories of its program.
pub(crate) fn object_name(program: &str) -> String {
    format!("{}.o", program.rsplit('/').next().unwrap_or(program))
}

/// SHA-256 over the paths, lengths and contents of all files below a directory, in hexadecimal.
pub(crate) fn digest(dir: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    list(dir, &mut files)?;
    files.sort();
    let mut sum = Sha256::new();
    for file in files {
        let name = file.strip_prefix(dir).unwrap_or(&file).as_os_str().as_encoded_bytes();
        let content = fs::read(&file)?;
        for part in [name, &content] {
            sum.update((part.len() as u64).to_le_bytes());
            sum.update(part);
        }
    }
    Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Compiles a program for an architecture, as the kernel's sources call it, to an object file.
///
/// The same bytes wherever the sources lie: clang orders types of BTF by their addresses in memory, which the lengths of
/// paths and the randomisation of addresses change. So it compiles to its intermediate representation first, and from that
/// to the object by standard input and output, where it sees no path, and at addresses that are not random.
pub(crate) fn compile(
    sources: &Sources<'_>,
    program: &str,
    arch: &str,
    clang: &Path,
    object: &Path,
) -> Result<(), String> {
    let Sources { dir, headers } = sources;
    let source = dir.join(format!("{program}.bpf.c"));
    // CI turns warnings into errors. A user's newer clang may warn of more and still build.
    let werror = if env::var_os("IRONCLAD_WERROR").is_some() { "-Werror" } else { "-Wno-error" };
    let paths = [
        format!("-I{}", dir.join("include").display()),
        format!("-I{}", dir.join("vmlinux").join(arch).display()),
        format!("-D__TARGET_ARCH_{arch}"),
        format!("-I{}", headers.display()),
        format!("-ffile-prefix-map={}=bpf-src", dir.display()),
        format!("-ffile-prefix-map={}=libbpf", headers.display()),
    ];
    let mut front = unrandomised(clang);
    front.args(TARGET).args(paths).args(["-ffile-compilation-dir=bpf-src", "-g"]);
    front.args(["-Wall", "-Wextra", "-Wno-unused-function"]);
    // Hooks hand over more than each program wants. BPF has no stack protector.
    front.args(["-Wno-unused-parameter", "-Wno-pragma-clang-attribute", "-fno-stack-protector"]);
    front.args([werror, "-S", "-emit-llvm", "-o", "-"]).arg(source);
    let text = output(front.stdin(Stdio::null()))?;
    // Of the lines, those that name the source by its path.
    let named =
        |line: &&[u8]| line.starts_with(b"; ModuleID") || line.starts_with(b"source_filename");
    let text: Vec<&[u8]> =
        text.split_inclusive(|&byte| byte == b'\n').filter(|line| !named(line)).collect();
    let mut back = unrandomised(clang);
    // It is optimised already.
    back.args(TARGET).args(["-Xclang", "-disable-llvm-passes", "-Wno-override-module"]);
    back.args(["-x", "ir", "-c", "-o", "-", "-"]);
    let (text_file, unlinked) = (object.with_extension("ll"), object.with_extension("unlinked.o"));
    let failed = |e: io::Error| format!("{}: {e}", object.display());
    fs::write(&text_file, text.concat()).map_err(failed)?;
    back.stdin(fs::File::open(&text_file).map_err(failed)?);
    fs::write(&unlinked, output(&mut back)?).map_err(failed)?;
    // libbpf's linker leaves debugging information out.
    let link = || {
        let mut linker = libbpf_rs::Linker::new(object)?;
        linker.add_file(&unlinked)?;
        linker.link()
    };
    let linked = link().map_err(|e| format!("linking: {e:#}"));
    fs::remove_file(&text_file).and_then(|()| fs::remove_file(&unlinked)).map_err(failed)?;
    linked
}

/// Instructions as of Linux 5.1, which is older than our floor of 5.10.
const TARGET: [&str; 4] = ["-O2", "-target", "bpf", "-mcpu=v3"];

/// A command at addresses that are not random, where the host has setarch(8) of util-linux and permits it. Elsewhere the
/// order of types in BTF is left to chance.
fn unrandomised(program: &Path) -> Command {
    let setarch = ["setarch", "--addr-no-randomize"];
    let works = Command::new(setarch[0]).args(&setarch[1..]).arg("true").output();
    if !works.is_ok_and(|done| done.status.success()) {
        return Command::new(program);
    }
    let mut command = Command::new(setarch[0]);
    command.args(&setarch[1..]).arg(program);
    command
}

/// What a command prints.
fn output(command: &mut Command) -> Result<Vec<u8>, String> {
    let done = command.output();
    let done = done.map_err(|e| format!("{}: {e}", Path::new(command.get_program()).display()))?;
    match done.status.success() {
        true => Ok(done.stdout),
        false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
    }
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
