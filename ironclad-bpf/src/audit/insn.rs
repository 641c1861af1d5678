//! One instruction at a time: what it is, not whether it may be.
use std::fmt;

use super::offence::Offence;

/// Bytes of an instruction.
pub(crate) const INSN_SIZE: usize = 8;

const CALL: u8 = 0x85;
const CALL_INDIRECT: u8 = 0x8d;
const LD_IMM64: u8 = 0x18;
const GOTO_INDIRECT: u8 = 0x0d;

/// What libbpf puts in place of code that this kernel cannot run and that must be unreachable: calls
/// of helpers that do not exist. The kernel refuses the program where one can be reached.
const POISON_CORE: u32 = 195_896_080;
const POISON_MAP: u32 = 2_001_000_000;
const POISON_KFUNC: u32 = 2_002_000_000;
const POISON_NUMBERS: u32 = 1_000_000;

/// An instruction as the kernel takes it, in the machine's byte order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Insn {
    pub(crate) code: u8,
    pub(crate) dst: u8,
    pub(crate) src: u8,
    pub(crate) off: i16,
    pub(crate) imm: i32,
}

impl Insn {
    pub(crate) fn from_bytes(bytes: [u8; INSN_SIZE]) -> Self {
        let [code, registers, off0, off1, imm @ ..] = bytes;
        Self {
            code,
            dst: registers & 0xf,
            src: registers >> 4,
            off: i16::from_le_bytes([off0, off1]),
            imm: i32::from_le_bytes(imm),
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; INSN_SIZE] {
        let [off0, off1] = self.off.to_le_bytes();
        let [a, b, c, d] = self.imm.to_le_bytes();
        [self.code, self.dst | self.src << 4, off0, off1, a, b, c, d]
    }

    /// All whole instructions of `bytes`.
    pub(crate) fn all(bytes: &[u8]) -> Vec<Self> {
        bytes
            .chunks_exact(INSN_SIZE)
            .filter_map(|c| c.try_into().ok())
            .map(Self::from_bytes)
            .collect()
    }

    /// Whether it is the first half of a 16-byte load.
    pub(crate) fn is_ld_imm64(self) -> bool {
        self.code == LD_IMM64
    }

    pub(crate) fn is_call(self) -> bool {
        self.code == CALL
    }
}

impl fmt::Debug for Insn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, dst, src, off, imm } = self;
        write!(f, "{code:02x} r{dst} r{src} {off:+} {imm:#x}")
    }
}

/// What an instruction does beyond arithmetic, memory and jumps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Nothing.
    Plain,
    /// The second half of a 16-byte load.
    Second,
    /// Calls a helper by number.
    Helper(u32),
    /// Calls a helper that does not exist; libbpf's mark for unreachable code.
    Poison,
    /// Calls a function of the program at `target`, an instruction's index that may lie anywhere.
    Call { target: i64 },
    /// Calls a kernel function by BTF id, of the kernel (0) or a module.
    Kfunc { id: u32, module: i16 },
    /// Loads the address of a function of the program, for a callback.
    Function { target: i64 },
    /// Loads a map, or with `is_value` an address inside of one, by descriptor.
    Map { fd: i32, is_value: bool },
    /// Loads the address of a kernel variable by BTF id; `module` is a descriptor, 0 for the kernel.
    Variable { id: u32, module: i32 },
    /// Not an instruction that the audit knows.
    Bad(Offence),
}

/// Reads instructions one after the other. Jumps need no following: the kernel refuses one into the
/// middle of a 16-byte load, so that every other instruction is seen here wherever it is entered from.
pub(crate) fn ops(insns: &[Insn]) -> impl Iterator<Item = (usize, Op)> + '_ {
    let mut is_second = false;
    insns.iter().enumerate().map(move |(index, &insn)| {
        if std::mem::take(&mut is_second) {
            return (index, Op::Second);
        }
        let op = op(index, insn, insns.get(index + 1).copied());
        // A broken pair is read on from its second half, whatever that is.
        is_second = insn.is_ld_imm64() && !matches!(op, Op::Bad(Offence::HalfLoad));
        (index, op)
    })
}

fn op(index: usize, insn: Insn, next: Option<Insn>) -> Op {
    match insn.code {
        CALL => call(index, insn),
        CALL_INDIRECT => Op::Bad(Offence::IndirectCall),
        GOTO_INDIRECT => Op::Bad(Offence::IndirectJump),
        LD_IMM64 => load(index, insn, next),
        code if is_plain(code) => Op::Plain,
        code => Op::Bad(Offence::UnknownOpcode(code)),
    }
}

fn call(index: usize, insn: Insn) -> Op {
    let relative = index as i64 + 1 + i64::from(insn.imm);
    match insn {
        Insn { dst: 0, src: 0, off: 0, imm, .. } => {
            let id = imm as u32;
            let is_in = |base| (base..base + POISON_NUMBERS).contains(&id);
            if id == POISON_CORE || is_in(POISON_MAP) || is_in(POISON_KFUNC) {
                Op::Poison
            } else {
                Op::Helper(id)
            }
        }
        Insn { dst: 0, src: 1, off: 0, .. } => Op::Call { target: relative },
        Insn { dst: 0, src: 2, off, imm, .. } => Op::Kfunc { id: imm as u32, module: off },
        Insn { src: 0..=2, .. } => Op::Bad(Offence::ReservedField),
        Insn { src, .. } => Op::Bad(Offence::UnknownCall(src)),
    }
}

fn load(index: usize, insn: Insn, next: Option<Insn>) -> Op {
    let Some(Insn { code: 0, dst: 0, src: 0, off: 0, imm: high }) = next else {
        return Op::Bad(Offence::HalfLoad);
    };
    if insn.off != 0 {
        return Op::Bad(Offence::ReservedField);
    }
    match insn.src {
        0 => Op::Plain,
        1 => Op::Map { fd: insn.imm, is_value: false },
        2 => Op::Map { fd: insn.imm, is_value: true },
        3 => Op::Variable { id: insn.imm as u32, module: high },
        4 => Op::Function { target: index as i64 + 1 + i64::from(insn.imm) },
        // 5 and 6 are maps by their number in an array of descriptors that only "light skeletons"
        // pass: which map it is, is not in the instruction.
        src => Op::Bad(Offence::UnknownLoad(src)),
    }
}

/// Opcodes that compute, load, store, jump or exit; each is in the instruction set's document and
/// known to the verifier. What only the kernel may make (`TAIL_CALL`, `PROBE_MEM`, `CALL_ARGS`,
/// `NOSPEC`) is not among them.
fn is_plain(code: u8) -> bool {
    let (class, operation) = (code & 0x07, code & 0xf0);
    let is_register = code & 0x08 != 0;
    match class {
        // LD: packet access of socket filters, absolute and indirect, of 4, 2 and 1 bytes.
        0x00 => matches!(code, 0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50),
        // LDX: memory, and with sign extension, which has no 8-byte form.
        0x01 => matches!(code, 0x61 | 0x69 | 0x71 | 0x79 | 0x81 | 0x89 | 0x91),
        // ST.
        0x02 => matches!(code, 0x62 | 0x6a | 0x72 | 0x7a),
        // STX, and atomics of 4, 2, 1 and 8 bytes.
        0x03 => matches!(code, 0x63 | 0x6b | 0x73 | 0x7b | 0xc3 | 0xcb | 0xd3 | 0xdb),
        // ALU: NEG has no register form.
        0x04 => operation <= 0xd0 && !(operation == 0x80 && is_register),
        // ALU64: nor has the byte swap.
        0x07 => operation <= 0xd0 && !(matches!(operation, 0x80 | 0xd0) && is_register),
        // JMP: comparisons, goto, exit and may_goto. Calls are not plain.
        0x05 => match operation {
            0x80 => false,
            0x00 | 0x90 | 0xe0 => !is_register,
            operation => operation <= 0xd0,
        },
        // JMP32: comparisons and the long goto.
        _ => match operation {
            0x80 | 0x90 => false,
            0x00 => !is_register,
            operation => operation <= 0xd0,
        },
    }
}

#[cfg(test)]
#[path = "insn_tests.rs"]
mod tests;
