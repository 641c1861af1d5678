//! From an open object to loaded programs, in one order for all objects: share, adopt and size maps,
//! audit, load; and the verifier's log where the kernel refuses.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::{AsRawLibbpf, OpenMapMut, OpenObject};

use crate::audit::{self, Allowlist};
use crate::error::{BpfError, BpfErrorKind, Failure, LoggedError};
use crate::map::{self, Map, Plain};
use crate::persistent::{PersistentMaps, PinnedMaps};
use crate::probe::is_confidential;
use crate::program::{self, Program};
use crate::pseudo_fs::check_libbpf;
use crate::sys::check;

/// Room for the verifier's log of a refused program.
const LOG_LEN: usize = 8 << 20;
/// How much of the log's end an error carries: the verifier's reason is in the last lines.
const LOG_TAIL: usize = 16 << 10;

pub(crate) fn io_error(e: &libbpf_rs::Error) -> io::Error {
    // libbpf-rs keeps the number inside its own error, and prints it as std does.
    let text = format!("{e:#}");
    let number = text.rsplit_once("(os error ").and_then(|(_, end)| end.strip_suffix(')'));
    match number.and_then(|number| number.parse().ok()) {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::other(text),
    }
}

/// What became of a step with an object that is not loaded yet.
pub(crate) fn failed(
    object: &'static str,
    step: &'static str,
) -> impl Fn(libbpf_rs::Error) -> BpfError {
    move |e| Failure::Object { object, step, source: io_error(&e) }.into()
}

/// The constants of an object that is not loaded yet.
pub(crate) fn constants<'a, T>(
    object: &'static str,
    section: &'a mut Option<&mut T>,
) -> Result<&'a mut T, BpfError> {
    let source = || io::Error::other("no .rodata");
    let missing = || Failure::Object { object, step: "finding its constants", source: source() };
    section.as_deref_mut().ok_or_else(|| missing().into())
}

/// How an open object is loaded. Its constants are set, and programs that are not wanted are not loaded.
pub(crate) struct Loader<'a> {
    object: &'static str,
    allowlist: Allowlist,
    shared: Vec<(&'a str, BorrowedFd<'a>)>,
    persistent: &'static [&'static str],
    pins: Option<&'a PinnedMaps>,
    sizes: Vec<(&'a str, u32)>,
}

impl<'a> Loader<'a> {
    /// The object's programs may call what `allowlist` has.
    pub(crate) fn new(object: &'static str, allowlist: Allowlist) -> Self {
        let (shared, sizes) = (Vec::new(), Vec::new());
        Self { object, allowlist, shared, persistent: &[], pins: None, sizes }
    }

    /// Maps of other objects, by name. The object uses those that it declares.
    pub(crate) fn share(
        mut self,
        maps: impl IntoIterator<Item = (&'a str, BorrowedFd<'a>)>,
    ) -> Self {
        self.shared.extend(maps);
        self
    }

    /// Maps that outlive an agent, and the directory where an earlier agent has pinned them.
    pub(crate) fn persist(
        mut self,
        maps: &'static [&'static str],
        pins: Option<&'a PinnedMaps>,
    ) -> Self {
        (self.persistent, self.pins) = (maps, pins);
        self
    }

    /// The number of elements of a map that was not pinned; bytes of a ring buffer.
    pub(crate) fn size(mut self, map: &'a str, entries: u32) -> Self {
        self.sizes.push((map, entries));
        self
    }

    /// Chooses and sizes maps, audits the programs and loads them.
    ///
    /// The kernel sees the programs after the audit has passed: maps are created, addresses filled in and
    /// CO-RE relocations done before it. What the kernel has loaded is compared with what was audited.
    pub(crate) fn load(self, object: &mut OpenObject) -> Result<Loaded, BpfError> {
        check_libbpf().map_err(|e| BpfError::system("checking the kernel's files", e))?;
        for mut map in object.maps_mut() {
            self.choose(&mut map)?;
        }
        load(self.object, object, &self.allowlist).map_err(|error| match error.kind() {
            // In place of helpers that read the kernel's memory, libbpf has put others, which the audit refuses; or
            // the kernel refuses them.
            BpfErrorKind::Audit | BpfErrorKind::Load if is_confidential() => {
                Failure::LockedDown.into()
            }
            _ => error,
        })?;
        let mut maps = BTreeMap::new();
        for map in object.maps_mut().filter(|map| map.autocreate()) {
            maps.insert(map.name().to_string_lossy().into_owned(), map::clone_fd(&map)?);
        }
        let mut programs = Vec::new();
        for program in object.progs_mut().filter(|program| program.autoload()) {
            programs.push(LoadedProgram {
                name: program.name().to_string_lossy().into_owned(),
                section: program.section().to_string_lossy().into_owned(),
                program: Program::new(program::clone_fd(&program)?)?,
            });
        }
        Ok(Loaded { object: self.object, persistent: self.persistent, maps, programs })
    }

    fn choose(&self, map: &mut OpenMapMut<'_>) -> Result<(), BpfError> {
        let name = map.name().to_string_lossy().into_owned();
        if let Some((_, fd)) = self.shared.iter().find(|(shared, _)| *shared == name) {
            return map.reuse_fd(*fd).map_err(failed(self.object, "sharing a map"));
        }
        if let Some(pins) = self.pins.filter(|_| self.persistent.iter().any(|map| *map == name)) {
            let fd = pins.open(&name)?;
            return map.reuse_fd(fd.as_fd()).map_err(failed(self.object, "adopting a map"));
        }
        match self.sizes.iter().find(|(sized, _)| *sized == name) {
            Some((_, size)) => {
                map.set_max_entries(*size).map_err(failed(self.object, "sizing a map"))
            }
            None => Ok(()),
        }
    }
}

/// An object whose programs are loaded.
#[derive(Debug)]
pub(crate) struct Loaded {
    object: &'static str,
    persistent: &'static [&'static str],
    maps: BTreeMap<String, OwnedFd>,
    programs: Vec<LoadedProgram>,
}

/// A program of a [`Loaded`] object.
#[derive(Debug)]
pub(crate) struct LoadedProgram {
    pub(crate) name: String,
    pub(crate) section: String,
    pub(crate) program: Program,
}

impl Loaded {
    /// A descriptor of a map.
    pub(crate) fn fd(&self, name: &str) -> Result<OwnedFd, BpfError> {
        let fd = self.maps.get(name).ok_or_else(|| self.error("finding a map", name))?;
        fd.try_clone().map_err(|source| BpfError::map(name, "duplicating its descriptor", source))
    }

    /// A map with these types of keys and values.
    pub(crate) fn map<K: Plain, V: Plain>(&self, name: &str) -> Result<Map<K, V>, BpfError> {
        Map::new(self.fd(name)?, name)
    }

    /// A program, which is no longer among [`programs`](Self::programs).
    pub(crate) fn program(&mut self, name: &str) -> Result<Program, BpfError> {
        let at = self.programs.iter().position(|it| it.name == name);
        let at = at.ok_or_else(|| self.error("finding a program", name))?;
        Ok(self.programs.remove(at).program)
    }

    /// The programs, in the order of the object.
    pub(crate) fn programs(&mut self) -> &mut Vec<LoadedProgram> {
        &mut self.programs
    }

    /// The maps that outlive the agent.
    pub(crate) fn persistent(&self) -> Result<PersistentMaps, BpfError> {
        let one = |name: &&'static str| Ok((*name, self.fd(name)?));
        self.persistent.iter().map(one).collect::<Result<_, _>>().map(PersistentMaps)
    }

    fn error(&self, step: &'static str, name: &str) -> BpfError {
        let source = io::Error::other(format!("the object has no {name}"));
        Failure::Object { object: self.object, step, source }.into()
    }
}

fn load(
    name: &'static str,
    object: &mut OpenObject,
    allowlist: &Allowlist,
) -> Result<(), BpfError> {
    let raw = object.as_libbpf_object().as_ptr();
    let failed =
        |step| move |source| BpfError::from(Failure::Object { object: name, step, source });
    let reports = audit::audit_prepared(object, allowlist)?;

    let mut logs: Vec<(*mut libbpf_sys::bpf_program, Vec<u8>)> = Vec::new();
    let mut program = std::ptr::null_mut();
    loop {
        // SAFETY: null or a program of this object.
        program = unsafe { libbpf_sys::bpf_object__next_program(raw, program) };
        if program.is_null() {
            break;
        }
        let mut log = vec![0u8; LOG_LEN];
        // SAFETY: the buffer's heap memory outlives the load below; moving the vector keeps it.
        check(unsafe {
            libbpf_sys::bpf_program__set_log_buf(program, log.as_mut_ptr().cast(), log.len() as _)
        })
        .map_err(failed("setting a log buffer"))?;
        logs.push((program, log));
    }
    // SAFETY: the object is prepared, and `&mut` excludes other users.
    let loaded = check(unsafe { libbpf_sys::bpf_object__load(raw) });
    let result = match loaded {
        Ok(_) => logs.iter().zip(&reports).filter(|(_, report)| report.is_loaded).try_for_each(
            |((program, _), report)| {
                // SAFETY: a program of a loaded object.
                let fd = unsafe { libbpf_sys::bpf_program__fd(*program) };
                check(fd).map_err(failed("opening a loaded program"))?;
                // SAFETY: open for as long as the object.
                let comparison =
                    audit::compare_loaded(unsafe { BorrowedFd::borrow_raw(fd) }, report)?;
                tracing::debug!(program = report.name, "audited: {comparison}");
                Ok(())
            },
        ),
        Err(source) => Err(refusal(source, &logs)),
    };
    for (program, _) in &logs {
        // SAFETY: a program of the object, which outlives this call; no buffer is no pointer.
        unsafe { libbpf_sys::bpf_program__set_log_buf(*program, std::ptr::null_mut(), 0) };
    }
    result
}

/// libbpf stops at the first program that is refused: the one whose log has been written last.
fn refusal(error: io::Error, logs: &[(*mut libbpf_sys::bpf_program, Vec<u8>)]) -> BpfError {
    let refused = logs.iter().rev().find(|(_, log)| log[0] != 0).or(logs.first());
    let Some((program, log)) = refused else {
        let source = LoggedError { error, log: String::new() };
        return Failure::Load { program: String::new(), source }.into();
    };
    // SAFETY: a program of an open object has a NUL-terminated name.
    let name = unsafe { CStr::from_ptr(libbpf_sys::bpf_program__name(*program)) };
    let text = CStr::from_bytes_until_nul(log).map(CStr::to_bytes).unwrap_or_default();
    let tail = &text[text.len().saturating_sub(LOG_TAIL)..];
    let source = LoggedError { error, log: String::from_utf8_lossy(tail).into_owned() };
    Failure::Load { program: name.to_string_lossy().into_owned(), source }.into()
}
