//! Programs are put together from parts whose meaning is known, and read back; and any bytes are read
//! by a second reader that works from a plain list of opcodes.
use proptest::prelude::*;

use super::*;

/// Every opcode of the instruction set that is neither a call nor a 16-byte load: the table of the
/// instruction set's document, written out.
const PLAIN: &[u8] = &[
    // Packet access.
    0x20, 0x28, 0x30, 0x40, 0x48, 0x50, //
    // Loads and stores of 1, 2, 4 and 8 bytes, sign-extending loads, atomics.
    0x61, 0x69, 0x71, 0x79, 0x62, 0x6a, 0x72, 0x7a, 0x63, 0x6b, 0x73, 0x7b, 0x81, 0x89, 0x91, 0xc3,
    0xcb, 0xd3, 0xdb, //
    // 32-bit arithmetic.
    0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x44, 0x4c, 0x54, 0x5c, 0x64, 0x6c, 0x74, 0x7c,
    0x84, 0x94, 0x9c, 0xa4, 0xac, 0xb4, 0xbc, 0xc4, 0xcc, 0xd4, 0xdc, //
    // 64-bit arithmetic.
    0x07, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x47, 0x4f, 0x57, 0x5f, 0x67, 0x6f, 0x77, 0x7f,
    0x87, 0x97, 0x9f, 0xa7, 0xaf, 0xb7, 0xbf, 0xc7, 0xcf, 0xd7, //
    // Jumps on 64 bits, exit and may_goto.
    0x05, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d, 0x55, 0x5d, 0x65, 0x6d, 0x75, 0x7d, 0x95,
    0xa5, 0xad, 0xb5, 0xbd, 0xc5, 0xcd, 0xd5, 0xdd, 0xe5, //
    // Jumps on 32 bits.
    0x06, 0x16, 0x1e, 0x26, 0x2e, 0x36, 0x3e, 0x46, 0x4e, 0x56, 0x5e, 0x66, 0x6e, 0x76, 0x7e, 0xa6,
    0xae, 0xb6, 0xbe, 0xc6, 0xce, 0xd6, 0xde,
];

#[test]
fn opcodes_are_those_of_the_list() {
    for code in 0..=u8::MAX {
        let insn = Insn { code, dst: 1, src: 0, off: 0, imm: 0 };
        let is_plain = op(0, insn, None) == Op::Plain;
        assert_eq!(is_plain, PLAIN.contains(&code), "{code:#04x}");
    }
}

/// A part of a program: its bytes, and what they have to be read as.
type Part = (Vec<[u8; 8]>, Expected);

#[derive(Clone, Debug)]
enum Expected {
    Plain,
    Helper(u32),
    Call(i32),
    Kfunc(u32, i16),
    Wide(u8, i32, i32),
    Unknown(u8),
}

fn word(code: u8, registers: u8, off: i16, imm: i32) -> [u8; 8] {
    let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&off.to_le_bytes());
    bytes[4..].copy_from_slice(&imm.to_le_bytes());
    bytes
}

fn part() -> impl Strategy<Value = Part> {
    let plain = (0..PLAIN.len(), any::<u8>(), any::<i16>(), any::<i32>()).prop_map(
        |(code, registers, off, imm)| {
            (vec![word(PLAIN[code], registers, off, imm)], Expected::Plain)
        },
    );
    let helper =
        (0..300u32).prop_map(|id| (vec![word(0x85, 0, 0, id as i32)], Expected::Helper(id)));
    let call = any::<i32>().prop_map(|imm| (vec![word(0x85, 0x10, 0, imm)], Expected::Call(imm)));
    let kfunc = (any::<i32>(), any::<i16>())
        .prop_map(|(id, off)| (vec![word(0x85, 0x20, off, id)], Expected::Kfunc(id as u32, off)));
    let wide = (0u8..16, 0u8..16, any::<i32>(), any::<i32>()).prop_map(|(src, dst, low, high)| {
        let bytes = vec![word(0x18, dst | src << 4, 0, low), word(0, 0, 0, high)];
        (bytes, Expected::Wide(src, low, high))
    });
    let unknown = any::<u8>()
        .prop_filter("known", |code| {
            !PLAIN.contains(code) && ![0x18, 0x85, 0x8d, 0x0d].contains(code)
        })
        .prop_map(|code| (vec![word(code, 0x21, 3, 4)], Expected::Unknown(code)));
    prop_oneof![4 => plain, 3 => helper, 2 => call, 2 => kfunc, 3 => wide, 1 => unknown]
}

fn read(bytes: &[[u8; 8]]) -> Vec<Op> {
    let insns = Insn::all(bytes.as_flattened());
    assert_eq!(insns.len(), bytes.len());
    let read: Vec<_> = ops(&insns).collect();
    assert!(read.iter().map(|(index, _)| *index).eq(0..insns.len()));
    read.into_iter().map(|(_, op)| op).collect()
}

proptest! {
    #[test]
    fn what_was_put_together_is_read_back(parts in prop::collection::vec(part(), 1..40)) {
        let bytes: Vec<_> = parts.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let mut expected = Vec::new();
        for (_, part) in &parts {
            let next = expected.len() as i64 + 1;
            expected.push(match *part {
                Expected::Plain => Op::Plain,
                Expected::Helper(id) => Op::Helper(id),
                Expected::Call(imm) => Op::Call { target: next + i64::from(imm) },
                Expected::Kfunc(id, module) => Op::Kfunc { id, module },
                Expected::Unknown(code) => Op::Bad(Offence::UnknownOpcode(code)),
                Expected::Wide(src, low, high) => match src {
                    0 => Op::Plain,
                    1 => Op::Map { fd: low, is_value: false },
                    2 => Op::Map { fd: low, is_value: true },
                    3 => Op::Variable { id: low as u32, module: high },
                    4 => Op::Function { target: next + i64::from(low) },
                    src => Op::Bad(Offence::UnknownLoad(src)),
                },
            });
            if let Expected::Wide(..) = part {
                expected.push(Op::Second);
            }
        }
        prop_assert_eq!(read(&bytes), expected);
    }

    /// A call of a helper is seen wherever the kernel would see one, and nothing that the kernel might
    /// take for something else passes as harmless.
    #[test]
    fn any_bytes_are_read_as_the_kernel_would(
        words in prop::collection::vec(
            (
                prop_oneof![Just(0x85u8), Just(0x18), Just(0), any::<u8>()],
                prop_oneof![Just(0u8), Just(0x10), any::<u8>()],
                prop_oneof![Just(0i16), any::<i16>()],
                any::<i32>(),
            ),
            0..30,
        )
    ) {
        let bytes: Vec<_> = words.iter().map(|&(c, r, o, i)| word(c, r, o, i)).collect();
        let read = read(&bytes);
        let mut index = 0;
        while index < words.len() {
            let (code, registers, off, imm) = words[index];
            let pair = words.get(index + 1).is_some_and(|&(c, r, o, _)| (c, r, o) == (0, 0, 0));
            let found = &read[index];
            match code {
                0x18 if pair => {
                    prop_assert_eq!(&read[index + 1], &Op::Second);
                    let is_known = off == 0 && registers >> 4 <= 4;
                    prop_assert_eq!(!matches!(found, Op::Bad(_)), is_known);
                    index += 1;
                }
                0x18 => prop_assert_eq!(found, &Op::Bad(Offence::HalfLoad)),
                0x85 if registers == 0 && off == 0 => {
                    let is_poison = matches!(
                        imm,
                        195_896_080 | 2_001_000_000..=2_001_999_999 | 2_002_000_000..=2_002_999_999
                    );
                    let helper = if is_poison { Op::Poison } else { Op::Helper(imm as u32) };
                    prop_assert_eq!(found, &helper);
                }
                0x85 if registers == 0x10 && off == 0 => {
                    let is_call = matches!(found, Op::Call { .. });
                    prop_assert!(is_call);
                }
                0x85 if registers == 0x20 => {
                    let is_kfunc = matches!(found, Op::Kfunc { .. });
                    prop_assert!(is_kfunc);
                }
                code => prop_assert_eq!(found == &Op::Plain, PLAIN.contains(&code)),
            }
            index += 1;
        }
    }

    #[test]
    fn bytes_come_back(bytes in any::<[u8; 8]>()) {
        prop_assert_eq!(Insn::from_bytes(bytes).to_bytes(), bytes);
    }
}
