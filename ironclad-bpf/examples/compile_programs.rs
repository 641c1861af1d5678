//! Compiles all programs for all architectures into the directory that a package carries. `cargo xtask
//! prebuild` runs it.

// Packages carry no programs of benchmarks.
#[allow(dead_code)]
#[path = "../build/programs.rs"]
mod programs;

use std::error::Error;
use std::fs;
use std::path::Path;

use programs::{ARCHITECTURES, DIGEST, PREBUILT, PROGRAMS, Sources, object_name};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (dir, prebuilt) = (root.join("bpf-src"), root.join(PREBUILT));
    if prebuilt.exists() {
        fs::remove_dir_all(&prebuilt)?;
    }
    let headers = tempfile::tempdir()?;
    let sources = Sources::new(&dir, headers.path().to_owned())?;
    let clang = programs::clang()?;
    for (name, arch) in ARCHITECTURES {
        let objects = prebuilt.join(name);
        fs::create_dir_all(&objects)?;
        for program in PROGRAMS {
            programs::compile(
                &sources,
                program,
                arch,
                &clang,
                &objects.join(object_name(program)),
            )?;
        }
    }
    // Last: without it, nothing takes the objects.
    fs::write(prebuilt.join(DIGEST), format!("{}\n", programs::digest(&dir)?))?;
    Ok(())
}
