use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;

/// Names of files and parts of patterns.
const NAMES: [&str; 6] = ["a", "ab", "b", ".a", "é", "a]"];
const PARTS: [&str; 9] = ["a", "ab", "*", "a*", "?", "[ab]", "[!a]", "é", "missing"];

/// A file of a random tree: its place, and whether it is a directory, a file or a link to another.
#[derive(Clone, Debug)]
struct Made {
    path: Vec<usize>,
    kind: u8,
    target: Vec<usize>,
}

fn tree() -> impl Strategy<Value = Vec<Made>> {
    let path = || prop::collection::vec(0..NAMES.len(), 1..4);
    let made =
        (path(), 0..4u8, path()).prop_map(|(path, kind, target)| Made { path, kind, target });
    prop::collection::vec(made, 0..24)
}

fn joined(root: &Path, names: &[usize]) -> PathBuf {
    names.iter().fold(root.to_owned(), |path, index| path.join(NAMES[*index]))
}

fn make(root: &Path, tree: &[Made], links: bool) {
    for made in tree {
        let path = joined(root, &made.path);
        // A parent may be a file or a link by now.
        let _ = match made.kind {
            0 => fs::write(&path, ""),
            1 if links => symlink(joined(root, &made.target), &path),
            2 if links => symlink(joined(Path::new(".."), &made.target), &path),
            _ => fs::create_dir_all(&path),
        };
    }
}

fn by_glob(pattern: &str) -> BTreeSet<PathBuf> {
    glob::glob(pattern).unwrap().map(Result::unwrap).collect()
}

fn by_lookup(pattern: &str) -> BTreeSet<PathBuf> {
    let mounts = volumes::mounts().unwrap();
    Lookup::new(&mounts).matches(pattern).unwrap().paths
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The crate `glob` is the oracle.
    #[test]
    fn patterns_match_what_glob_matches(
        tree in tree(),
        parts in prop::collection::vec(0..PARTS.len(), 1..4),
        slash in any::<bool>(),
    ) {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), &tree, true);
        let mut pattern = root.path().to_str().unwrap().to_owned();
        parts.iter().for_each(|part| pattern += &format!("/{}", PARTS[*part]));
        pattern += if slash { "/" } else { "" };
        let expected: BTreeSet<_> = by_glob(&pattern);
        prop_assert_eq!(by_lookup(&pattern), expected, "{}", pattern);
    }

    /// Without symbolic links, through which `**` leads in `glob` alone.
    #[test]
    fn patterns_of_trees_match_what_glob_matches(
        tree in tree(),
        parts in prop::collection::vec(0..=PARTS.len(), 1..4),
    ) {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), &tree, false);
        let mut pattern = root.path().to_str().unwrap().to_owned();
        parts.iter().for_each(|part| pattern += &format!("/{}", PARTS.get(*part).unwrap_or(&"**")));
        prop_assert_eq!(by_lookup(&pattern), by_glob(&pattern), "{}", pattern);
    }

    /// realpath(3), by the standard library, is the oracle.
    #[test]
    fn paths_are_found_as_the_kernel_finds_them(tree in tree(), slash in any::<bool>(), path in prop::collection::vec(0..NAMES.len(), 1..5)) {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), &tree, true);
        let mut path = joined(root.path(), &path);
        if slash {
            path.push("");
        }
        let mounts = volumes::mounts().unwrap();
        let found = Lookup::new(&mounts).find(&path);
        match fs::canonicalize(&path) {
            Ok(real) => {
                let found = found.unwrap();
                prop_assert_eq!(found.is_dir, real.is_dir());
                prop_assert_eq!(found.path, real);
            }
            Err(e) => prop_assert_eq!(io::Error::from(found.unwrap_err()).raw_os_error(), e.raw_os_error()),
        }
    }
}

#[test]
fn loops_of_symbolic_links_end() {
    let root = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        symlink(".", root.path().join(name)).unwrap();
    }
    fs::write(root.path().join("file"), "").unwrap();
    let pattern = format!("{}/**/file", root.path().display());
    assert_eq!(by_lookup(&pattern), BTreeSet::from([root.path().join("file")]));
}

#[test]
fn mounts_of_the_kernel_are_entered_and_served_ones_are_not() {
    let mounts = volumes::mounts().unwrap();
    let lookup = Lookup::new(&mounts);
    assert_eq!(
        lookup.find(Path::new("/proc/sys/kernel")).unwrap().path,
        Path::new("/proc/sys/kernel")
    );
    let as_served: Vec<_> = mounts
        .iter()
        .map(|mount| match mount.at == Path::new("/proc") {
            true => Mount { kind: "fuse.sshfs".to_owned(), ..mount.clone() },
            false => mount.clone(),
        })
        .collect();
    let lookup = Lookup::new(&as_served);
    for path in ["/proc", "/proc/sys/kernel", "/proc/self/root/etc"] {
        let said = io::Error::from(lookup.find(Path::new(path)).unwrap_err()).to_string();
        assert_eq!(said, "`/proc` is on fuse.sshfs, which a process serves");
    }
    let matches = lookup.matches("/pro?/sys/kernel/*").unwrap();
    assert_eq!(matches.paths, BTreeSet::new());
    assert!(matches.served.contains_key(Path::new("/proc")), "{matches:?}");
}

#[test]
fn wrong_patterns_are_refused() {
    let lookup = Lookup::new(&[]);
    for pattern in ["/a/***", "/a/b**", "/a/[b"] {
        assert_eq!(lookup.matches(pattern).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
