//! The audit of what the kernel is about to be given.
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ffi::{CStr, c_char};
use std::ptr::{NonNull, null, null_mut};

use libbpf_rs::btf::{Btf, BtfKind, BtfType, TypeId};
use libbpf_rs::{AsRawLibbpf, ObjectBuilder, OpenObject};
use libbpf_sys::{bpf_object, bpf_program};

use super::allowlist::Allowlist;
use super::insn::{INSN_SIZE, Insn, Op, ops};
use super::offence::{Offence, SourceLine};
use super::report::{Place, ProgramReport, Refusal, Use};
use crate::error::{BpfError, Failure, LoggedError};
use crate::loader::io_error;
use crate::log::captured;
use crate::sys::check;
use crate::uapi::{AttachType, ProgramType};

/// Opens a foreign object with libbpf, to be prepared and audited. Nothing reaches the kernel yet,
/// and no pin that the object declares is made or used.
///
/// Audit the file with [`audit_object`](super::audit_object) first: libbpf is C.
///
/// # Errors
/// `BpfErrorKind::Object` with libbpf's words.
pub fn open_object(name: &str, object: &[u8]) -> Result<OpenObject, BpfError> {
    let (opened, log) = captured(|| ObjectBuilder::default().name(name)?.open_memory(object));
    let open = opened.map_err(|e| failed("open", io_error(&e), log))?;
    let raw = open.as_libbpf_object().as_ptr();
    let mut map = null_mut();
    loop {
        // SAFETY: the object is open; null or a map of it.
        map = unsafe { libbpf_sys::bpf_object__next_map(raw, map) };
        if map.is_null() {
            return Ok(open);
        }
        // SAFETY: a map of the object; a null path means none.
        check(unsafe { libbpf_sys::bpf_map__set_pin_path(map, null()) })
            .map_err(|error| failed("open", error, String::new()))?;
    }
}

fn failed(step: &'static str, error: std::io::Error, log: String) -> BpfError {
    Failure::Prepare { step, source: LoggedError { error, log } }.into()
}

/// Prepares an object with libbpf and audits the very instructions that loading hands to the kernel.
///
/// Preparing creates the object's maps, fills in addresses, appends the functions that each program
/// calls, adapts the code to this kernel's types and replaces helpers that this kernel lacks (before
/// Linux 5.5). Afterwards libbpf changes instructions no more, with two exceptions: a handler that the
/// process registered for a section, and `bpf_program__set_insns`. Both show in
/// [`compare_loaded`](super::compare_loaded).
///
/// Load the object next, as it is. Needs `CAP_BPF` and what the maps need, or root.
///
/// # Errors
/// `BpfErrorKind::Audit` with all that is wrong; `BpfErrorKind::Object` where the object does not
/// fit the kernel or has been prepared before.
pub fn audit_prepared(
    object: &mut OpenObject,
    allowlist: &Allowlist,
) -> Result<Vec<ProgramReport>, BpfError> {
    let raw = object.as_libbpf_object().as_ptr();
    // SAFETY: the object is open, and `&mut` excludes other users.
    let (prepared, log) = captured(|| check(unsafe { libbpf_sys::bpf_object__prepare(raw) }));
    prepared.map_err(|error| failed("prepare", error, log))?;
    audit_as_is(object, allowlist)
}

/// As [`audit_prepared`], for an object that has been prepared.
fn audit_as_is(object: &OpenObject, allowlist: &Allowlist) -> Result<Vec<ProgramReport>, BpfError> {
    let context = Context::of(object);
    let raw = object.as_libbpf_object().as_ptr();
    let mut reports = Vec::new();
    let mut program = null_mut();
    loop {
        // SAFETY: the object is open; null or a program of it. Functions of `.text` are skipped.
        program = unsafe { libbpf_sys::bpf_object__next_program(raw, program) };
        let Some(program) = NonNull::new(program) else { break };
        // SAFETY: the program is the object's, which is borrowed for as long as the view.
        reports.push(context.report(&unsafe { View::of(program) }, allowlist));
    }
    match Refusal::of(&reports) {
        Some(refusal) => Err(Failure::Refused(refusal).into()),
        None => Ok(reports),
    }
}

/// What the audit reads of a libbpf program.
struct View<'a> {
    program: NonNull<bpf_program>,
    insns: Vec<Insn>,
    functions: &'a [libbpf_sys::bpf_func_info],
    lines: &'a [libbpf_sys::bpf_line_info],
}

impl View<'_> {
    /// # Safety
    /// The program belongs to an open object that outlives the view and is not changed meanwhile.
    unsafe fn of(program: NonNull<bpf_program>) -> Self {
        let it = program.as_ptr();
        // SAFETY: by the caller's promise the program and what libbpf returns of it stay as they are;
        // libbpf's counts belong to its pointers. Records of line and function information may be
        // larger than the types here, never smaller: libbpf refuses such files.
        unsafe {
            let count = libbpf_sys::bpf_program__insn_cnt(it) as usize;
            let bytes = slice(libbpf_sys::bpf_program__insns(it).cast(), count * INSN_SIZE);
            let functions = libbpf_sys::bpf_program__func_info(it);
            let lines = libbpf_sys::bpf_program__line_info(it);
            Self {
                program,
                insns: Insn::all(bytes),
                functions: slice(functions, libbpf_sys::bpf_program__func_info_cnt(it) as usize),
                lines: slice(lines, libbpf_sys::bpf_program__line_info_cnt(it) as usize),
            }
        }
    }

    fn name(&self) -> String {
        // SAFETY: a program of an open object has a name.
        unsafe { text(libbpf_sys::bpf_program__name(self.program.as_ptr())) }
    }

    fn section(&self) -> String {
        // SAFETY: a program of an open object has a section.
        unsafe { text(libbpf_sys::bpf_program__section_name(self.program.as_ptr())) }
    }

    fn report(&self) -> ProgramReport {
        let it = self.program.as_ptr();
        // SAFETY: a program of an open object; the calls only read.
        let (program_type, attach_type, flags, is_loaded) = unsafe {
            (
                libbpf_sys::bpf_program__type(it),
                libbpf_sys::bpf_program__expected_attach_type(it),
                libbpf_sys::bpf_program__flags(it),
                libbpf_sys::bpf_program__autoload(it),
            )
        };
        let mut report = ProgramReport::new(
            self.name(),
            self.section(),
            ProgramType(program_type),
            AttachType(attach_type),
        );
        report.is_sleepable |= flags & libbpf_sys::BPF_F_SLEEPABLE != 0;
        report.is_loaded = is_loaded;
        report.instructions = self.insns.len();
        report
    }
}

/// What the programs of an object share.
struct Context<'a> {
    object: &'a bpf_object,
    /// Type information of the object, for names of functions.
    btf: Option<Btf<'a>>,
    /// The kernel's, read when it is needed for the first time.
    kernel: OnceCell<Option<Btf<'static>>>,
    maps: BTreeSet<i32>,
}

impl<'a> Context<'a> {
    fn of(object: &'a OpenObject) -> Self {
        let raw = object.as_libbpf_object();
        let mut maps = BTreeSet::new();
        let mut map = null_mut();
        loop {
            // SAFETY: the object is open; null or a map of it.
            map = unsafe { libbpf_sys::bpf_object__next_map(raw.as_ptr(), map) };
            if map.is_null() {
                break;
            }
            // SAFETY: a map of the object.
            maps.insert(unsafe { libbpf_sys::bpf_map__fd(map) });
        }
        // SAFETY: valid for as long as the object, which is borrowed for `'a`.
        let object = unsafe { raw.as_ref() };
        let btf = Btf::from_bpf_object(object).ok().flatten();
        Self { object, btf, kernel: OnceCell::new(), maps }
    }

    fn report(&self, view: &View<'_>, allowlist: &Allowlist) -> ProgramReport {
        let mut report = view.report();
        report.judge_program(allowlist);
        for (index, op) in ops(&view.insns) {
            // libbpf leaves what is not loaded as it is in the file.
            let used = if report.is_loaded { self.used(op, &view.insns) } else { used_in_file(op) };
            if let Some(used) = used {
                report.judge(allowlist, &used, || self.place(view, index));
            }
        }
        report.insns = view.insns.clone();
        report
    }

    fn used(&self, op: Op, insns: &[Insn]) -> Option<Use> {
        let inside = |target: i64| {
            let is_inside = usize::try_from(target).is_ok_and(|target| target < insns.len());
            (!is_inside).then_some(Use::Bad(Offence::OutsideCode(target)))
        };
        match op {
            Op::Plain | Op::Second => None,
            Op::Helper(id) => Some(Use::Helper(id)),
            Op::Poison => Some(Use::Poison),
            Op::Call { target } | Op::Function { target } => inside(target),
            Op::Kfunc { id, module: 0 } => Some(match self.kernel_name(id, &[BtfKind::Func]) {
                Ok(name) => Use::Kfunc(name),
                Err(why) => Use::Bad(Offence::Nameless { id, why }),
            }),
            Op::Variable { id, module: 0 } => {
                Some(match self.kernel_name(id, &[BtfKind::Var, BtfKind::Func]) {
                    Ok(name) => Use::Variable(name),
                    Err(why) => Use::Bad(Offence::Nameless { id, why }),
                })
            }
            Op::Kfunc { id, .. } | Op::Variable { id, .. } => {
                Some(Use::Bad(Offence::Nameless { id, why: "it belongs to a kernel module" }))
            }
            Op::Map { fd, .. } => {
                (!self.maps.contains(&fd)).then_some(Use::Bad(Offence::ForeignMap(fd)))
            }
            Op::Bad(offence) => Some(Use::Bad(offence)),
        }
    }

    fn kernel_name(&self, id: u32, kinds: &[BtfKind]) -> Result<String, &'static str> {
        let btf = self.kernel.get_or_init(|| Btf::from_vmlinux().ok());
        let btf = btf.as_ref().ok_or("the kernel's BTF cannot be read")?;
        let found: Option<BtfType<'_>> = btf.type_by_id(TypeId::from(id));
        found
            .filter(|it| kinds.contains(&it.kind()))
            .and_then(|it| Some(it.name()?.to_string_lossy().into_owned()))
            .ok_or("the kernel's BTF has no such function or variable")
    }

    fn place(&self, view: &View<'_>, index: usize) -> Place {
        let program = view.name();
        Place {
            function: self.function(view, index).filter(|name| *name != program),
            instruction: Some(index),
            line: self.line(view, index),
        }
    }

    fn function(&self, view: &View<'_>, index: usize) -> Option<String> {
        let after = view.functions.partition_point(|it| it.insn_off as usize <= index);
        let info = view.functions.get(after.checked_sub(1)?)?;
        let found: BtfType<'_> = self.btf.as_ref()?.type_by_id(TypeId::from(info.type_id))?;
        Some(found.name()?.to_string_lossy().into_owned())
    }

    fn line(&self, view: &View<'_>, index: usize) -> Option<SourceLine> {
        let after = view.lines.partition_point(|it| it.insn_off as usize <= index);
        let info = view.lines.get(after.checked_sub(1)?)?;
        // SAFETY: the object is open; its BTF may be null.
        let btf = unsafe { libbpf_sys::bpf_object__btf(self.object) };
        if btf.is_null() {
            return None;
        }
        // SAFETY: the object's BTF; libbpf answers an offset outside of it with null.
        let file = unsafe { libbpf_sys::btf__name_by_offset(btf, info.file_name_off) };
        if file.is_null() {
            return None;
        }
        // SAFETY: a NUL-terminated string of the object's BTF.
        let file = unsafe { text(file) };
        // The column is in the low ten bits.
        Some(SourceLine { file, line: info.line_col >> 10 })
    }
}

/// Of a program that libbpf did not complete, only calls by number mean something.
fn used_in_file(op: Op) -> Option<Use> {
    match op {
        Op::Helper(id) => Some(Use::Helper(id)),
        Op::Bad(offence) => Some(Use::Bad(offence)),
        _ => None,
    }
}

/// # Safety
/// A NUL-terminated string.
unsafe fn text(string: *const c_char) -> String {
    // SAFETY: by the caller's promise.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

/// # Safety
/// `start` is null or points to `len` values that stay unchanged for `'a`.
unsafe fn slice<'a, T>(start: *const T, len: usize) -> &'a [T] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: by the caller's promise.
    unsafe { std::slice::from_raw_parts(start, len) }
}
