//! Compiles each `*.bpf.c` of this directory.
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    println!("cargo::rerun-if-changed={}", dir.display());
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = clang()?;
    let mut sources: Vec<_> =
        fs::read_dir(&dir)?.map(|it| Ok(it?.path())).collect::<Result<_, Box<dyn Error>>>()?;
    sources.sort();
    let mut code = String::from(
        "/// All objects, by the names of their sources.\npub const OBJECTS: &[(&str, &[u8])] = &[\n",
    );
    for source in sources {
        let file = source.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(name) = file.strip_suffix(".bpf.c") else { continue };
        let object = out.join(name).with_extension("bpf.o");
        compile(&clang, &source, &object)?;
        writeln!(code, "    ({name:?}, include_bytes!({:?})),", object.display().to_string())?;
    }
    fs::write(out.join("objects.rs"), code + "];\n")?;
    Ok(())
}

fn compile(clang: &str, source: &Path, object: &Path) -> Result<(), Box<dyn Error>> {
    let dir = source.parent().unwrap_or(Path::new("."));
    let compiled = Command::new(clang)
        .args(["-g", "-O2", "-target", "bpfel", "-mcpu=v3", "-Wall", "-Wextra", "-Werror"])
        .arg(format!("-ffile-prefix-map={}=hostile", dir.display()))
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(object)
        .output()?;
    if compiled.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", source.display(), String::from_utf8_lossy(&compiled.stderr)).into())
}

/// `CLANG`, or the newest that is installed.
fn clang() -> Result<String, Box<dyn Error>> {
    let names = (16..=30).rev().map(|number| format!("clang-{number}"));
    env::var("CLANG")
        .into_iter()
        .chain(names)
        .chain(["clang".to_owned()])
        .find(|name| Command::new(name).arg("--version").output().is_ok())
        .ok_or_else(|| {
            "no clang: install it (Debian: apt-get install clang-19) or set CLANG".into()
        })
}
