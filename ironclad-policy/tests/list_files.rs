//! Lists in files, directories and pipes, and the real ones where they are there.

use std::fs;
use std::path::{Path, PathBuf};

use ironclad_core::Cidr;
use ironclad_policy::list::{AddressList, BadLines, ListError, ListOptions};

fn shown(list: &AddressList) -> Vec<String> {
    list.entries().iter().map(|entry| format!("{}:{}", entry.line, entry.cidr)).collect()
}

#[test]
fn a_file_is_read_under_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed.netset");
    fs::write(&path, "# feed\n192.0.2.0/24\nbad\n").unwrap();

    let error = AddressList::read(&path, &ListOptions::new()).unwrap_err();
    assert!(error.to_string().contains(&format!("{}:3:1: `bad`: expected", path.display())));

    let lenient = ListOptions::new().bad_lines(BadLines::Lenient);
    let list = AddressList::read(&path, &lenient).unwrap();
    assert_eq!(&**list.name(), path.to_str().unwrap());
    assert_eq!(shown(&list), ["2:192.0.2.0/24"]);
}

#[test]
fn the_limit_of_bytes_is_exact() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    fs::write(&path, "192.0.2.0/24\n").unwrap();
    assert!(AddressList::read(&path, &ListOptions::new().max_bytes(13)).is_ok());
    let error = AddressList::read(&path, &ListOptions::new().max_bytes(12)).unwrap_err();
    assert!(matches!(error, ListError::TooLarge { limit: 12, .. }));
    assert!(error.to_string().contains("is larger than 12 bytes: raise `max_bytes`"));
    assert!(AddressList::read(&path, &ListOptions::new().max_bytes(u64::MAX)).is_ok());
}

#[test]
fn what_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let error = AddressList::read(&missing, &ListOptions::new()).unwrap_err();
    assert!(matches!(&error, ListError::Io { path, .. } if *path == missing));
    assert!(error.to_string().contains("cannot read"));
    assert!(error.to_string().contains("missing"));

    let error = AddressList::read(dir.path(), &ListOptions::new()).unwrap_err();
    assert!(matches!(&error, ListError::Directory { path } if path == dir.path()));
    assert!(error.to_string().contains("is a directory, not a list"));
}

#[test]
fn a_directory_is_read_in_the_order_of_names() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("se.cidr", "192.0.2.0/24\n");
    write("ad.cidr", "198.51.100.0/24\n203.0.113.0/24\n");
    write("fr.cidr", "");
    write("README.md", "not a list\n");
    write("cidr", "neither\n");
    fs::create_dir(dir.path().join("old.cidr")).unwrap();

    let lists = AddressList::read_dir(dir.path(), "cidr", &ListOptions::new()).unwrap();
    let names: Vec<_> =
        lists.iter().map(|list| Path::new(&**list.name()).file_name().unwrap()).collect();
    assert_eq!(names, ["ad.cidr", "fr.cidr", "se.cidr"]);
    assert_eq!(lists.iter().map(|list| list.entries().len()).collect::<Vec<_>>(), [2, 0, 1]);

    write("fr.cidr", "10.0.0.300\n");
    let error = AddressList::read_dir(dir.path(), "cidr", &ListOptions::new()).unwrap_err();
    assert!(error.to_string().contains("fr.cidr:1:1: `10.0.0.300`"));

    let error = AddressList::read_dir(dir.path(), "netset", &ListOptions::new()).unwrap_err();
    assert!(matches!(&error, ListError::NoLists { extension, .. } if extension == "netset"));
    assert!(error.to_string().contains("has no file whose name ends in `.netset`"));
    let missing = dir.path().join("missing");
    let error = AddressList::read_dir(&missing, "cidr", &ListOptions::new()).unwrap_err();
    assert!(matches!(&error, ListError::Io { path, .. } if *path == missing));
}

#[cfg(target_os = "linux")]
#[test]
fn endless_files_end_in_an_error() {
    use std::os::fd::AsRawFd;
    use std::process::{Command, Stdio};

    let options = ListOptions::new().max_bytes(1 << 20);
    let error = AddressList::read(Path::new("/dev/zero"), &options).unwrap_err();
    assert!(matches!(error, ListError::TooLarge { .. }));

    let mut yes = Command::new("yes").arg("10.0.0.1").stdout(Stdio::piped()).spawn().unwrap();
    let pipe = yes.stdout.take().unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", pipe.as_raw_fd()));
    let read = AddressList::read(&path, &options);
    yes.kill().unwrap();
    yes.wait().unwrap();
    assert!(matches!(read.unwrap_err(), ListError::TooLarge { .. }));

    let mut echo = Command::new("echo").arg("10.0.0.1").stdout(Stdio::piped()).spawn().unwrap();
    let pipe = echo.stdout.take().unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", pipe.as_raw_fd()));
    assert_eq!(shown(&AddressList::read(&path, &options).unwrap()), ["1:10.0.0.1/32"]);
    echo.wait().unwrap();
}

/// The folder of real lists: `IRONCLAD_DATA`, or `shared/data` beside the workspace.
fn real_data(test: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let dir = std::env::var_os("IRONCLAD_DATA").map_or(beside, PathBuf::from);
    if dir.is_dir() {
        return Some(dir);
    }
    println!("SKIP {test}: no real lists in {}; set IRONCLAD_DATA to their folder", dir.display());
    None
}

/// Each line of the real lists is one prefix: the same as the standard library's parser makes of it.
#[test]
fn real_lists_read_as_they_are_written() {
    let Some(data) = real_data("real_lists_read_as_they_are_written") else { return };
    let options = ListOptions::new();
    let mut lists = AddressList::read_dir(&data.join("country/ipv4"), "cidr", &options).unwrap();
    lists.extend(AddressList::read_dir(&data.join("country/ipv6"), "cidr", &options).unwrap());
    lists.extend(AddressList::read_dir(&data.join("ipsum/levels"), "txt", &options).unwrap());
    let mut total = 0;
    for list in &lists {
        let text = fs::read_to_string(&**list.name()).unwrap();
        let expected: Vec<Cidr> = text.lines().map(|line| line.parse().unwrap()).collect();
        let found: Vec<Cidr> = list.entries().iter().map(|entry| entry.cidr).collect();
        assert_eq!(found, expected, "{}", list.name());
        assert!(list.entries().iter().zip(1..).all(|(entry, line)| entry.line == line));
        total += found.len();
    }
    assert!(total > 100_000, "{total} entries in {} lists", lists.len());
}
