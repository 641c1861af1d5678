//! The programs compiled once more: for the architecture that nothing here runs on, and from another
//! place.

// The rest is the build script's.
#[allow(dead_code)]
#[path = "../build/programs.rs"]
mod programs;

use std::fs;
use std::path::Path;

use ironclad_bpf::audit::{Allowlist, audit_object};
use programs::{BENCHES, PROGRAMS, Sources};

fn sources() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf-src"))
}

fn compile(sources: &Path, program: &str, arch: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let object = dir.path().join("program.o");
    let clang = programs::clang().unwrap();
    let sources = Sources::new(sources, dir.path().join("libbpf")).unwrap();
    programs::compile(&sources, program, arch, &clang, &object).unwrap();
    fs::read(object).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, to).unwrap();
        }
    }
}

#[test]
fn every_program_compiles_for_arm64_and_passes_the_audit() {
    for program in PROGRAMS {
        let object = compile(sources(), program, "arm64");
        let allowlist = match program {
            "progs/process" => Allowlist::processes(),
            "progs/lsm_socket" => Allowlist::packets(),
            sentinel if sentinel.contains("sentinel") => Allowlist::sentinel(),
            cgroup if cgroup.contains("cgroup") => Allowlist::sockets(),
            _ => Allowlist::shield(),
        };
        let report = audit_object(&object, &allowlist);
        let report = report.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(!report.programs.is_empty(), "{program}");
    }
    // Not for loading, but they have to compile.
    for program in BENCHES {
        assert!(!compile(sources(), program, "arm64").is_empty());
    }
}

#[test]
fn the_bytes_do_not_tell_where_the_sources_lay() {
    let elsewhere = tempfile::tempdir().unwrap();
    // Paths of several lengths: memory is laid out otherwise in each compilation.
    let places =
        ["x", "some/where/else", "a/place/with/a/path/that/is/much/longer/than/the/others"];
    let places = places.map(|place| elsewhere.path().join(place));
    places.iter().for_each(|place| copy(sources(), place));
    for program in PROGRAMS {
        let here = compile(sources(), program, "x86");
        for place in &places {
            assert!(here == compile(place, program, "x86"), "{program}: {}", place.display());
        }
        // Nor does anything else of this machine stand in them.
        for path in [sources().as_os_str(), std::env::temp_dir().as_os_str()] {
            let path = path.as_encoded_bytes();
            assert!(!here.windows(path.len()).any(|bytes| bytes == path), "{program}: {path:?}");
        }
    }
}

/// A package whose sources are changed does not take the programs that it carries.
#[test]
fn the_digest_tells_sources_from_changed_ones() {
    let elsewhere = tempfile::tempdir().unwrap();
    let place = elsewhere.path().join("sources");
    copy(sources(), &place);
    let digest = |dir: &Path| programs::digest(dir).unwrap();
    let known = digest(sources());
    assert_eq!(digest(&place), known);
    let (one, other) = (place.join("lib/base.h"), place.join("lib/base2.h"));
    fs::rename(&one, &other).unwrap();
    assert_ne!(digest(&place), known, "another name");
    fs::rename(&other, &one).unwrap();
    let text = fs::read_to_string(&one).unwrap();
    fs::write(&one, format!("{text}\n")).unwrap();
    assert_ne!(digest(&place), known, "another content");
    fs::write(&one, text).unwrap();
    assert_eq!(digest(&place), known);
}
