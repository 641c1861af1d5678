use std::fmt;

use crate::uapi::{AttachType, Helper, ProgramType};

/// What is wrong with a program or one of its instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Offence {
    /// Calls a helper that no allowlist can permit, see [`FORBIDDEN_HELPERS`](super::FORBIDDEN_HELPERS).
    ForbiddenHelper(Helper),
    /// Calls a helper that the allowlist does not name for this type of program.
    HelperNotAllowed(Helper),
    /// Calls a helper by a number that this version does not know.
    UnknownHelper(u32),
    /// Calls a kernel function that no allowlist can permit, see
    /// [`HARMLESS_KFUNCS`](super::HARMLESS_KFUNCS).
    ForbiddenKfunc(String),
    /// Calls a kernel function that the allowlist does not name for this type of program.
    KfuncNotAllowed(String),
    /// Calls a kernel function, or loads a variable, whose name cannot be found out: it is a
    /// module's, or its BTF id is not one of its kind.
    Nameless {
        /// The BTF id.
        id: u32,
        /// Why it has no name.
        why: &'static str,
    },
    /// Loads the address of a kernel variable that the allowlist does not name.
    VariableNotAllowed(String),
    /// Loads a map by a descriptor number that is none of the object's: it is whatever the loading
    /// process has open under that number.
    ForeignMap(i32),
    /// Calls or takes the address of code outside of the program.
    OutsideCode(i64),
    /// Calls an address in a register.
    IndirectCall,
    /// Jumps to an address in a register.
    IndirectJump,
    /// A call of a kind that this version does not know.
    UnknownCall(u8),
    /// A 16-byte load of a kind that this version does not know, or that only a light skeleton uses.
    UnknownLoad(u8),
    /// A 16-byte load without its second half.
    HalfLoad,
    /// A field that has to be zero is not.
    ReservedField,
    /// An opcode that this version does not know.
    UnknownOpcode(u8),
    /// A relocation that makes something else of an instruction than it says.
    StrangeRelocation(&'static str),
    /// The allowlist does not permit programs of this type.
    TypeNotAllowed(ProgramType),
    /// The allowlist does not permit this place of attachment.
    AttachTypeNotAllowed(AttachType),
    /// The allowlist does not permit programs of this type that may sleep.
    SleepableNotAllowed,
}

impl Offence {
    /// What a person can do about it.
    fn next_step(&self) -> &'static str {
        match self {
            Self::ForbiddenHelper(_) | Self::ForbiddenKfunc(_) => {
                "remove the call: no allowlist can permit it"
            }
            Self::HelperNotAllowed(_) => {
                "remove the call, or permit it with Allowlist::allow where the program needs it"
            }
            Self::KfuncNotAllowed(_) => {
                "remove the call, or permit it with Allowlist::allow_kfunc where the program needs it"
            }
            Self::VariableNotAllowed(_) => {
                "remove the access, or permit it with Allowlist::allow_variable where the program needs it"
            }
            Self::TypeNotAllowed(ProgramType::UNSPEC) => {
                "name the type with the section, such as SEC(\"xdp\")"
            }
            Self::TypeNotAllowed(_) => {
                "leave the program out, or permit its type with Allowlist::allow_type"
            }
            Self::AttachTypeNotAllowed(_) => {
                "leave the program out, or permit it with Allowlist::allow_attach_type"
            }
            Self::SleepableNotAllowed => {
                "use the section without `.s`, or permit it with Allowlist::allow_sleepable"
            }
            Self::UnknownHelper(_) => {
                "check the number; helpers newer than this version of ironclad-bpf are refused"
            }
            Self::Nameless { .. } => {
                "use only kernel functions and variables that the kernel's own BTF names"
            }
            Self::ForeignMap(_) => {
                "declare the map in the object, in the section .maps, instead of a descriptor number"
            }
            _ => {
                "compile the object anew with clang; instructions this version cannot read are refused"
            }
        }
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForbiddenHelper(helper) => write!(
                f,
                "calls {helper} (#{}), which is forbidden because it {}",
                helper.0,
                super::forbidden::reason_of(*helper).unwrap_or("is dangerous")
            ),
            Self::HelperNotAllowed(helper) => {
                write!(f, "calls {helper} (#{}), which is not on the allowlist", helper.0)
            }
            Self::UnknownHelper(id) => write!(f, "calls unknown helper #{id}"),
            Self::ForbiddenKfunc(name) => write!(
                f,
                "calls kernel function {name}, which is forbidden because it {}",
                super::kfuncs::reason_of_kfunc(name).unwrap_or("is dangerous")
            ),
            Self::KfuncNotAllowed(name) => {
                write!(f, "calls kernel function {name}, which is not on the allowlist")
            }
            Self::Nameless { id, why } => {
                write!(f, "uses the kernel's BTF type #{id}, whose name is unknown: {why}")
            }
            Self::VariableNotAllowed(name) => {
                write!(
                    f,
                    "loads the address of kernel variable {name}, which is not on the allowlist"
                )
            }
            Self::ForeignMap(fd) => {
                write!(f, "loads a map by descriptor number {fd}, which is no map of the object")
            }
            Self::OutsideCode(target) => {
                write!(f, "calls or points to instruction {target}, outside of the program")
            }
            Self::IndirectCall => write!(f, "calls an address in a register"),
            Self::IndirectJump => write!(f, "jumps to an address in a register"),
            Self::UnknownCall(src) => write!(f, "makes a call of the unknown kind {src}"),
            Self::UnknownLoad(src) => write!(f, "makes a 16-byte load of the unknown kind {src}"),
            Self::HalfLoad => write!(f, "begins a 16-byte load that has no second half"),
            Self::ReservedField => write!(f, "sets a field that has to be zero"),
            Self::UnknownOpcode(code) => write!(f, "has unknown opcode {code:#04x}"),
            Self::StrangeRelocation(what) => write!(f, "has a relocation that {what}"),
            Self::TypeNotAllowed(ProgramType::UNSPEC) => write!(f, "is of no known type"),
            Self::TypeNotAllowed(kind) => {
                write!(f, "is of type {kind}, which is not on the allowlist")
            }
            Self::AttachTypeNotAllowed(attach) => {
                write!(f, "is for attaching to {attach}, which is not on the allowlist")
            }
            Self::SleepableNotAllowed => write!(f, "may sleep, which is not on the allowlist"),
        }
    }
}

/// A place in a program's source, where the object carries it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct SourceLine {
    /// The file as the compiler was given it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

impl fmt::Display for SourceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// An offence and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The program.
    pub program: String,
    /// The program's type.
    pub program_type: ProgramType,
    /// The function that holds the instruction, where it is not the program itself and known.
    pub function: Option<String>,
    /// The instruction's index; `None` where the offence is the whole program's.
    ///
    /// Of an object file: counted from the start of `function`, or of the program. Of a prepared
    /// object: in the program as it will be loaded, with its functions appended.
    pub instruction: Option<usize>,
    /// Where it comes from.
    pub line: Option<SourceLine>,
    /// What is wrong.
    pub offence: Offence,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program `{}` ({})", self.program, self.program_type)?;
        if let Some(instruction) = self.instruction {
            write!(f, ", instruction {instruction}")?;
        }
        if let Some(function) = &self.function {
            write!(f, " of function `{function}`")?;
        }
        if let Some(line) = &self.line {
            write!(f, " ({line})")?;
        }
        write!(f, ": {}; {}", self.offence, self.offence.next_step())
    }
}
