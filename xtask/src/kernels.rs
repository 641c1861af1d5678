//! The kernels that tests run on, from Debian's packages, unpacked in the cache.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::apt::Apt;
use crate::cache::{self, Lock};
use crate::command::{command, create_dir, output, read, write};
use crate::failure::{Context, Failure, Result};
use crate::kernel_image;

/// A kernel of the matrix and what its packages are called.
pub(crate) struct Wanted {
    /// As given on the command line and shown in tables.
    pub(crate) label: &'static str,
    arch: &'static str,
    /// Of the package with the image; `…` stands for the part that grows with each update.
    image: (&'static str, &'static str),
    /// The package with the modules, where it is another one.
    modules: Option<&'static str>,
}

/// From the oldest kernel that is supported to the newest that Debian has.
pub(crate) const MATRIX: [Wanted; 4] = [
    Wanted {
        label: "5.10",
        arch: "amd64",
        image: ("linux-image-5.10.0-", "-cloud-amd64"),
        modules: None,
    },
    Wanted {
        label: "6.1",
        arch: "amd64",
        image: ("linux-image-6.1.0-", "-cloud-amd64"),
        modules: None,
    },
    Wanted {
        label: "6.12",
        arch: "amd64",
        image: ("linux-image-6.12.", "+deb12-cloud-amd64"),
        modules: None,
    },
    Wanted {
        label: "newest",
        arch: "amd64",
        image: ("linux-binary-", "+deb13-cloud-amd64"),
        modules: Some("linux-modules-"),
    },
];

/// Never booted here: its types alone are wanted.
pub(crate) const NEWEST_ARM64: Wanted = Wanted {
    label: "newest-arm64",
    arch: "arm64",
    image: ("linux-binary-", "+deb13-cloud-arm64"),
    modules: None,
};

/// Whether it is the oldest or the newest of the matrix.
pub(crate) fn is_end(label: &str) -> bool {
    [&MATRIX[0], &MATRIX[MATRIX.len() - 1]].iter().any(|wanted| wanted.label == label)
}

/// An unpacked kernel.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kernel {
    pub(crate) label: String,
    /// The package that has the image, and its version.
    pub(crate) package: String,
    pub(crate) version: String,
    /// What `uname -r` says.
    pub(crate) release: String,
    image_sha256: String,
    #[serde(skip)]
    dir: PathBuf,
}

impl Kernel {
    pub(crate) fn image(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The kernel's raw BTF.
    pub(crate) fn btf(&self) -> PathBuf {
        self.dir.join("btf")
    }

    /// `modules.dep` and the modules under `kernel/`.
    pub(crate) fn modules(&self) -> PathBuf {
        self.dir.join("lib/modules").join(&self.release)
    }

    /// What is in the cache, if it is whole.
    fn cached(dir: &Path) -> Option<Self> {
        let text = std::fs::read(dir.join("kernel.json")).ok()?;
        let mut kernel: Self = serde_json::from_slice(&text).ok()?;
        kernel.dir = dir.to_owned();
        let image = std::fs::read(kernel.image()).ok()?;
        (sha256(&image) == kernel.image_sha256 && kernel.btf().is_file()).then_some(kernel)
    }
}

/// Gives kernels, downloading those that the cache does not have.
pub(crate) struct Store {
    root: PathBuf,
    apt: Option<Apt>,
    _lock: Lock,
}

impl Store {
    pub(crate) fn open() -> Result<Self> {
        let root = cache::dir("kernels")?;
        let lock = Lock::wait(&root)?;
        Ok(Self { root, apt: None, _lock: lock })
    }

    fn apt(&mut self) -> Result<&Apt> {
        if self.apt.is_none() {
            self.apt = Some(Apt::update()?);
        }
        self.apt.as_ref().context("apt")
    }

    /// The cached kernel, or the newest there is.
    pub(crate) fn any(&mut self, wanted: &Wanted) -> Result<Kernel> {
        match Kernel::cached(&self.root.join(wanted.label)) {
            Some(kernel) => Ok(kernel),
            None => self.newest(wanted),
        }
    }

    /// The newest there is: asks the archive, and downloads where the cache is older.
    pub(crate) fn newest(&mut self, wanted: &Wanted) -> Result<Kernel> {
        let dir = self.root.join(wanted.label);
        let package = wanted.newest_package(self.apt()?)?;
        match Kernel::cached(&dir) {
            Some(kernel) if kernel.package == package => Ok(kernel),
            _ => self.fetch(wanted, &package, &dir),
        }
    }

    /// Exactly this package; `None` where the archive has it no more.
    pub(crate) fn exactly(&mut self, wanted: &Wanted, package: &str) -> Result<Option<Kernel>> {
        let (usual, own) = (self.root.join(wanted.label), self.root.join(package));
        let cached = [&usual, &own].map(|dir| Kernel::cached(dir));
        let is_usual_free = cached[0].is_none();
        if let Some(kernel) = cached.into_iter().flatten().find(|kernel| kernel.package == package)
        {
            return Ok(Some(kernel));
        }
        if self.apt()?.version(&wanted.qualified(package)).is_err() {
            return Ok(None);
        }
        let dir = if is_usual_free { usual } else { own };
        self.fetch(wanted, package, &dir).map(Some)
    }

    fn fetch(&mut self, wanted: &Wanted, package: &str, dir: &Path) -> Result<Kernel> {
        let apt = self.apt()?;
        let version = apt.version(&wanted.qualified(package))?;
        let mut packages = vec![wanted.qualified(package)];
        packages.extend(wanted.modules_package(package).map(|name| wanted.qualified(&name)));
        let unpacked = tempfile::tempdir_in(&self.root).context("temporary directory")?;
        let root = unpacked.path();
        self.apt()?.unpack(&packages, root)?;

        let release = release(package)?;
        // From the release after bookworm on, /lib lies in /usr; later the image moved there too.
        let in_usr = root.join("usr/lib/modules");
        if in_usr.is_dir() {
            create_dir(&root.join("lib"))?;
            std::fs::rename(&in_usr, root.join("lib/modules")).context(in_usr.display())?;
        }
        let places = [format!("boot/vmlinuz-{release}"), format!("lib/modules/{release}/vmlinuz")];
        let image = places.map(|place| root.join(place)).into_iter().find(|path| path.is_file());
        let image = read(&image.context(format_args!("{package} has no kernel image"))?)?;
        write(&root.join("vmlinuz"), &image)?;
        write(&root.join("btf"), kernel_image::btf(&image).context(package)?)?;
        if root.join("lib/modules").join(&release).is_dir() {
            output(command("depmod", ["-b"]).arg(root).arg(&release))?;
        }
        let kernel = Kernel {
            label: wanted.label.into(),
            package: package.into(),
            version,
            release,
            image_sha256: sha256(&image),
            dir: dir.to_owned(),
        };
        let json = serde_json::to_vec_pretty(&kernel).context("kernel.json")?;
        write(&root.join("kernel.json"), json)?;
        for part in ["boot", "usr"].map(|part| root.join(part)).iter().filter(|part| part.is_dir())
        {
            std::fs::remove_dir_all(part).context(part.display())?;
        }
        if dir.exists() {
            std::fs::remove_dir_all(dir).context(dir.display())?;
        }
        std::fs::rename(unpacked.keep(), dir).context(dir.display())?;
        eprintln!("{}: Linux {} in {}", kernel.label, kernel.release, dir.display());
        Ok(kernel)
    }
}

impl Wanted {
    /// With the architecture, as apt wants the name of a foreign package.
    fn qualified(&self, package: &str) -> String {
        format!("{package}:{}", self.arch)
    }

    fn modules_package(&self, package: &str) -> Option<String> {
        Some(self.modules?.to_owned() + package.strip_prefix(self.image.0)?)
    }

    fn newest_package(&self, apt: &Apt) -> Result<String> {
        let (before, after) = self.image;
        let escape = |text: &str| text.replace('.', "\\.").replace('+', "\\+");
        let found = apt.search(&format!("^{}[0-9.]+{}$", escape(before), escape(after)))?;
        let version = |package: &str| {
            let numbers = package.strip_prefix(before)?.strip_suffix(after)?;
            numbers.split('.').map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()
        };
        let known: Vec<_> = match self.modules {
            Some(_) => apt.search(&format!("^{}", self.modules.unwrap_or_default()))?,
            None => Vec::new(),
        };
        let has_modules = |package: &String| {
            self.modules_package(package).is_none_or(|modules| known.contains(&modules))
        };
        found
            .into_iter()
            .filter(has_modules)
            .max_by_key(|package| version(package))
            .ok_or_else(|| apt.absent(&format!("package {before}…{after}")))
    }
}

fn release(package: &str) -> Result<String> {
    let release = package.strip_prefix("linux-").and_then(|rest| rest.split_once('-'));
    Ok(release.context(format_args!("{package} is not named like a kernel"))?.1.to_owned())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The matrix kernels with these labels, all if none is named.
pub(crate) fn select(labels: &[String]) -> Result<Vec<&'static Wanted>> {
    let known = || MATRIX.iter().map(|wanted| wanted.label).collect::<Vec<_>>().join(", ");
    if labels.is_empty() {
        return Ok(MATRIX.iter().collect());
    }
    labels
        .iter()
        .map(|label| {
            MATRIX.iter().find(|wanted| wanted.label == label).ok_or_else(|| {
                Failure::new(format!("no kernel '{label}' in the matrix: there are {}", known()))
            })
        })
        .collect()
}

/// Downloads what the cache lacks; with `update`, also what is newer than what it has.
pub(crate) fn fetch(labels: &[String], update: bool) -> Result<Vec<Kernel>> {
    let wanted = select(labels)?;
    let mut store = Store::open()?;
    let get = |wanted| if update { store.newest(wanted) } else { store.any(wanted) };
    wanted.into_iter().map(get).collect()
}
