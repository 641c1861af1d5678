//! What a test machine boots into: busybox, a few tools, kernel modules, the binaries under test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::cpio::Archive;
use crate::command::{command, find, output, output_bytes, read, read_text};
use crate::failure::{Context, Failure, Result};
use crate::kernels::Kernel;

/// Loaded before any command, with what they depend on. Built-in modules are skipped.
const MODULES: [&str; 22] = [
    "veth",
    "dummy",
    "tun",
    "ipip",
    "vxlan",
    "wireguard",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "act_mirred",
    "overlay",
    "loop",
    "dm_mod",
    "sd_mod",
    "sg",
    "scsi_debug",
    "nvmet",
    "xfs",
    "msr",
    "sctp",
    "dccp_ipv4",
    "l2tp_ip",
];

/// For `modprobe`, by tests that need them, with what they depend on.
const MODULES_ON_DEMAND: [&str; 18] = [
    "fuse",
    "nfsd",
    "nfsv4",
    "nbd",
    "target_core_pscsi",
    "raid1",
    "bcache",
    "btrfs",
    "ublk_drv",
    "evdev",
    "quota_v1",
    "binfmt_misc",
    "sit",
    "ip6_tunnel",
    "ip_gre",
    "ip_vti",
    "autofs4",
    "cachefiles",
];

/// For the tests' use, beside busybox.
const TOOLS: [&str; 10] = [
    "ip",
    "tc",
    "bpftool",
    "ethtool",
    "dmsetup",
    "mke2fs",
    "debugfs",
    "mkfs.xfs",
    "mkfs.btrfs",
    "wg",
];

/// What this program runs as PID 1.
pub(super) const SCRIPT: &str = "/machine";

const PRELUDE: &str = include_str!("prelude.sh");

/// An image under construction.
pub(crate) struct Image {
    archive: Archive,
    modules: Vec<String>,
}

impl Image {
    pub(crate) fn new(kernel: &Kernel) -> Result<Self> {
        let mut image = Self { archive: Archive::new(), modules: Vec::new() };
        for dir in ["dev", "proc", "sys", "run", "tmp", "root", "etc", "usr/bin", "usr/sbin"] {
            image.archive.directory(dir);
        }
        image.archive.symlink("var/run", "/run");
        image.archive.symlink("etc/mtab", "/proc/mounts");
        image.archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
        image.archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n");
        image.busybox()?;
        for tool in TOOLS {
            let path = find(tool).context(format_args!("no {tool}: run cargo xtask setup"))?;
            image.program(&path, &format!("/usr/sbin/{tool}"))?;
        }
        image.load_modules(kernel)?;
        Ok(image)
    }

    fn busybox(&mut self) -> Result<()> {
        let path = find("busybox").context("no busybox: run cargo xtask setup")?;
        self.archive.file("bin/busybox", 0o755, &read(&path)?);
        // Busybox's own shell prefers its applets to the programs of the same name.
        self.program(&find("dash").context("no dash")?, "/bin/sh")?;
        for applet in output(&mut command(&path, ["--list"]))?.lines() {
            self.archive.symlink(&format!("bin/{applet}"), "busybox");
        }
        Ok(())
    }

    /// A program without its debug information, and its libraries at the places that it names.
    pub(crate) fn program(&mut self, from: &Path, to: &str) -> Result<()> {
        let stripped = tempfile::NamedTempFile::new().context("temporary file")?;
        output(command("strip", ["--strip-debug", "-o"]).arg(stripped.path()).arg(from))?;
        self.archive.file(to, 0o755, &read(stripped.path())?);
        for library in libraries(from)? {
            let name = library.to_string_lossy();
            if !self.archive.has(&name) {
                self.archive.file(&name, 0o755, &read(&library)?);
            }
        }
        Ok(())
    }

    pub(crate) fn file(&mut self, from: &Path, to: &str) -> Result<()> {
        self.archive.file(to, 0o755, &read(from)?);
        Ok(())
    }

    pub(crate) fn script(&mut self, to: &str, text: &str) {
        self.archive.file(to, 0o755, format!("#!/bin/sh\n{text}\n").as_bytes());
    }

    fn load_modules(&mut self, kernel: &Kernel) -> Result<()> {
        let root = kernel.modules();
        let dependencies = Dependencies::read(&root.join("modules.dep"))?;
        let loaded = dependencies.load_order(&MODULES);
        let (mut index, mut places) = (String::new(), Vec::new());
        for file in dependencies.load_order(&[&MODULES[..], &MODULES_ON_DEMAND].concat()) {
            let path = root.join(&file);
            let contents = match path.extension().and_then(|extension| extension.to_str()) {
                Some("xz") => output_bytes(command("xz", ["-dc"]).arg(&path))?,
                Some("zst") => output_bytes(command("zstd", ["-dc"]).arg(&path))?,
                _ => read(&path)?,
            };
            let name = module_name(&file);
            let place = module_place(&name);
            // A test loads it compressed.
            if name == "dummy" && file.ends_with(".xz") {
                self.archive.file(&format!("{place}.xz"), 0o644, &read(&path)?);
            }
            self.archive.file(&place, 0o644, &contents);
            let needs: Vec<_> = dependencies.needs(&file).map(|need| module_place(need)).collect();
            index += &format!("{place}: {}\n", needs.join(" "));
            if loaded.contains(&file) {
                places.push(place);
            }
        }
        self.modules = places;
        let index_place = format!("/lib/modules/{}/modules.dep", kernel.release);
        self.archive.file(&index_place, 0o644, index.as_bytes());
        Ok(())
    }

    /// The image that runs `script` once everything is mounted and loaded. Its PID 1 is this program.
    pub(crate) fn finish(mut self, script: &str) -> Result<Vec<u8>> {
        let modules = self.modules.join(" ");
        let script = format!("{PRELUDE}load {modules}\n{script}");
        self.archive.file(SCRIPT, 0o755, script.as_bytes());
        // A build may have replaced the file that this process executes.
        let own = tempfile::NamedTempFile::new().context("temporary file")?;
        std::fs::copy("/proc/self/exe", own.path()).context("copying this program")?;
        self.program(own.path(), "/init")?;
        Ok(self.archive.finish())
    }
}

/// What `ldd` says; nothing for a static program.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let answer = command("ldd", [program]).env("LC_ALL", "C").output().context("ldd")?;
    let text = String::from_utf8_lossy(&answer.stdout);
    let mut libraries = Vec::new();
    for line in text.lines() {
        let line = line.split_once(" => ").map_or(line, |(_, place)| place).trim();
        if line.starts_with("not found") {
            return Err(Failure::new(format!(
                "{}: a library is missing: {text}",
                program.display()
            )));
        }
        if line.starts_with('/') {
            libraries.extend(line.split_whitespace().next().map(PathBuf::from));
        }
    }
    Ok(libraries)
}

/// `modules.dep`: each module's file and those of the modules it needs.
struct Dependencies(BTreeMap<String, (String, Vec<String>)>);

impl Dependencies {
    fn read(path: &Path) -> Result<Self> {
        Ok(Self::parse(&read_text(path)?))
    }

    fn parse(text: &str) -> Self {
        let entry = |line: &str| {
            let (file, needs) = line.split_once(':')?;
            let needs = needs.split_whitespace().map(module_name).collect();
            Some((module_name(file), (file.to_owned(), needs)))
        };
        Self(text.lines().filter_map(entry).collect())
    }

    /// Files of these modules, each after those it needs.
    fn load_order(&self, names: &[&str]) -> Vec<String> {
        let (mut files, mut seen) = (Vec::new(), BTreeSet::new());
        for name in names {
            self.visit(name, &mut files, &mut seen);
        }
        files
    }

    /// The names of the modules that a module needs.
    fn needs(&self, file: &str) -> impl Iterator<Item = &String> {
        self.0.get(&module_name(file)).into_iter().flat_map(|(_, needs)| needs)
    }

    fn visit(&self, name: &str, files: &mut Vec<String>, seen: &mut BTreeSet<String>) {
        let Some((file, needs)) = self.0.get(name) else { return };
        if !seen.insert(name.to_owned()) {
            return;
        }
        for need in needs {
            self.visit(need, files, seen);
        }
        files.push(file.clone());
    }
}

/// Where the image has a module.
fn module_place(name: &str) -> String {
    format!("/lib/modules/{name}.ko")
}

/// `kernel/net/802/p8022-x.ko.xz` is `p8022_x`.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_load_after_what_they_need() {
        let text = "kernel/a-x.ko.xz: kernel/b.ko.xz kernel/c.ko.xz\nkernel/b.ko.xz: kernel/c.ko.xz\n\
                    kernel/c.ko.xz:\n";
        let order = Dependencies::parse(text).load_order(&["a_x", "built_in", "c"]);
        assert_eq!(order, ["kernel/c.ko.xz", "kernel/b.ko.xz", "kernel/a-x.ko.xz"]);
    }
}
