//! The system packages and mounts that building and testing need.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use clap::ValueEnum;

use crate::command::{command, create_dir, line, output, read_text, run};
use crate::failure::{Failure, Result};

/// What a command is going to do, so that it installs no more than that needs.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, ValueEnum)]
pub(crate) enum Purpose {
    /// Compile the eBPF programs and the crates.
    Build,
    /// Run every test: network namespaces, kernels in QEMU, fuzzing.
    Test,
    /// Measure against other firewalls.
    Race,
}

const PACKAGES: [(Purpose, &[&str]); 3] = [
    (
        Purpose::Build,
        &[
            "bpftool",
            "clang-19",
            "clang-format-19",
            "g++",
            "gcc",
            "libc6-dev",
            "libelf-dev",
            "llvm-19",
            "make",
            "pkg-config",
            "zlib1g-dev",
        ],
    ),
    (
        Purpose::Test,
        &[
            "btrfs-progs",
            "busybox-static",
            "cpio",
            "debian-archive-keyring",
            "dmsetup",
            "e2fsprogs",
            "ethtool",
            "git",
            "iproute2",
            "iputils-ping",
            "kmod",
            "lz4",
            "minisign",
            "mount",
            "qemu-system-x86",
            "tcpdump",
            "util-linux",
            "wireguard-tools",
            "xfsprogs",
            "xz-utils",
            "zstd",
        ],
    ),
    (Purpose::Race, &["ipset", "iptables", "linux-perf", "nftables", "xdp-tools"]),
];

const MOUNTS: [(&str, &str); 3] = [
    ("bpf", "/sys/fs/bpf"),
    ("tracefs", "/sys/kernel/tracing"),
    ("securityfs", "/sys/kernel/security"),
];

const OLDEST_DEBIAN: u32 = 12;

/// Installs what is missing for `purpose` and for those before it, and mounts what is not mounted.
/// Quick and silent where nothing is missing.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    let wanted: Vec<_> = PACKAGES
        .iter()
        .filter(|(group, _)| *group <= purpose)
        .flat_map(|(_, packages)| packages.iter().copied())
        .collect();
    let missing = missing(&wanted)?;
    if !missing.is_empty() {
        install(&missing)?;
    }
    if is_root() {
        MOUNTS.iter().for_each(|(kind, at)| mount(kind, at));
    }
    Ok(())
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn missing<'a>(wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    require_debian(wanted)?;
    // dpkg-query fails where it knows nothing of a package; what it does know still is printed.
    let answer = command("dpkg-query", ["--show", "--showformat=${db:Status-Status} ${Package}\n"])
        .args(wanted)
        .output()
        .map_err(|error| Failure::new(format!("dpkg-query: {error}")))?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let installed: HashSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    Ok(wanted.iter().copied().filter(|package| !installed.contains(package)).collect())
}

fn install_command(packages: &[&str]) -> Command {
    let mut install = command(
        "apt-get",
        ["install", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"],
    );
    // Without a terminal of its own dpkg draws no progress.
    install.args(["-o", "Dpkg::Use-Pty=0"]).args(packages).env("DEBIAN_FRONTEND", "noninteractive");
    install
}

fn install(packages: &[&str]) -> Result<()> {
    let by_hand = format!("apt-get update && {}", line(&install_command(packages)));
    if !is_root() {
        return Err(Failure::new(format!(
            "missing packages: {}\nOnly root can install them. Run this, then try again:\n  \
             sudo sh -c '{by_hand}'",
            packages.join(" ")
        )));
    }
    eprintln!("installing: {}", packages.join(" "));
    let steps = [command("apt-get", ["update", "-q"]), install_command(packages)];
    for mut step in steps {
        run(&mut step).map_err(|error| {
            Failure::new(format!(
                "{error}\nThe packages could not be installed. Is the package archive reachable \
                 from here, and does it have this Debian's suites? To try by hand:\n  {by_hand}"
            ))
        })?;
    }
    Ok(())
}

fn require_debian(packages: &[&str]) -> Result<()> {
    let release = read_text(Path::new("/etc/os-release")).unwrap_or_default();
    let field = |name: &str| {
        release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"'))
    };
    let version = field("VERSION_ID").and_then(|version| version.parse::<u32>().ok());
    // Testing and unstable have no number.
    if field("ID") == Some("debian") && version.is_none_or(|version| version >= OLDEST_DEBIAN) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "this is {}: packages are known for Debian {OLDEST_DEBIAN} and later only. There, what \
         this needs is called: {}",
        field("PRETTY_NAME").unwrap_or("not a system with /etc/os-release"),
        packages.join(" ")
    )))
}

fn is_mounted(kind: &str, at: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some(at) && words.next() == Some(kind)
    })
}

/// A kernel may lack one of these. A failure is only printed here: what needs the mount reports it.
fn mount(kind: &str, at: &str) {
    if is_mounted(kind, at) {
        return;
    }
    let mounted = create_dir(Path::new(at))
        .and_then(|()| output(&mut command("mount", ["-t", kind, kind, at])));
    match mounted {
        Ok(_) => eprintln!("mounted {kind} at {at}"),
        Err(error) => eprintln!("note: {kind} is not mounted at {at}: {error}"),
    }
}
