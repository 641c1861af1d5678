//! The instruction audit: what programs call is held against an allowlist before the kernel sees
//! them, and against what the kernel reports afterwards.
//!
//! The verifier proves that a program cannot crash the kernel. It does not check whether a firewall has
//! any business writing into the memory of other processes. The audit does: each instruction of each
//! program is read; calls of helpers and kernel functions, and all other exits of a program, have
//! to be on an [`Allowlist`] for its type of program, and what this version cannot read is refused. A
//! few helpers are refused even then ([`FORBIDDEN_HELPERS`]), and all kernel functions but the
//! [`HARMLESS_KFUNCS`].
//!
//! Three steps, each of which stands by itself:
//!
//! 1. [`audit_object`] judges an object file. No kernel, no privileges, no C.
//! 2. [`audit_prepared`] judges the instructions that libbpf is about to load: relocated, adapted to
//!    this kernel, with the functions that they call. Needs root, because maps are made.
//! 3. [`compare_loaded`] reads what the kernel has loaded: whether its digest is that of the audited
//!    instructions, and whether each helper that it calls is one that was audited.
//!
//! ```no_run
//! use std::os::fd::AsFd;
//! use ironclad_bpf::audit::{self, Allowlist};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let file = std::fs::read("program.bpf.o")?;
//! let allowlist = Allowlist::shield();
//! audit::audit_object(&file, &allowlist)?;
//! let mut open = audit::open_object("program", &file)?;
//! let reports = audit::audit_prepared(&mut open, &allowlist)?;
//! let object = open.load()?;
//! for (program, report) in object.progs().zip(reports.iter().filter(|report| report.is_loaded)) {
//!     println!("{}", audit::compare_loaded(program.as_fd(), report)?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What the audit does not judge: what a program does with its own maps; which function of the kernel
//! a tracing or LSM program is for (its type and place of attachment are judged); in a prepared
//! object, addresses of kernel symbols without a type, which are mere numbers there (in the file they
//! are names, and refused unless allowed). Functions of kernel modules have no names here and are
//! refused, allowed or not.

mod allowlist;
mod compare;
mod elf;
mod forbidden;
mod foreign;
mod insn;
mod kernel_symbols;
mod kfuncs;
mod lines;
mod object;
mod offence;
mod prepared;
mod report;

pub use allowlist::{Allowlist, ForbiddenError};
pub use compare::{Calls, Comparison, Digest, compare_loaded};
pub use forbidden::FORBIDDEN_HELPERS;
pub(crate) use forbidden::{OVERRIDING_HELPERS, READING_HELPERS};
pub use foreign::RefusedCalls;
pub use kfuncs::HARMLESS_KFUNCS;
pub(crate) use kfuncs::is_harmless;
pub use object::{audit_object, inspect_object};
pub use offence::{Offence, SourceLine, Violation};
pub use prepared::{audit_prepared, open_object};
pub use report::{ObjectReport, ProgramReport, Refusal};
