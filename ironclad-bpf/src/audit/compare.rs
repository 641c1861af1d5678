//! What the kernel says it has loaded, against what was audited.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::insn::{INSN_SIZE, Insn, Op, ops};
use super::kernel_symbols::{helpers_of, names};
use super::kfuncs::acts_on_host;
use super::report::ProgramReport;
use crate::error::{BpfError, Failure};
use crate::sys;
use crate::uapi::{Helper, ProgramType};

/// How a program in the kernel compares with the audited one. Nothing in it speaks against the
/// program: that is an `BpfErrorKind::Changed`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Comparison {
    /// The digest that the kernel made of the instructions it was given.
    pub digest: Digest,
    /// The calls in the instructions that the kernel made of them.
    pub calls: Calls,
}

/// A comparison of digests.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Digest {
    /// The kernel was given exactly the audited instructions, apart from the descriptor numbers of
    /// maps, which the kernel leaves out of the digest.
    Equal {
        /// `SHA-1`, or `SHA-256` on new kernels.
        algorithm: &'static str,
    },
    /// It says nothing.
    NotComparable {
        /// Why.
        why: String,
    },
}

/// A comparison of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Calls {
    /// Each call of a helper in the kernel is an audited one.
    Audited {
        /// How many there are.
        calls: usize,
        /// Audited calls that the kernel replaced by instructions or removed as unreachable.
        vanished: BTreeMap<Helper, usize>,
        /// Functions called that are the body of no known helper, such as what the kernel calls on its
        /// own account, and from how many places.
        unattributed: BTreeMap<String, usize>,
    },
    /// The kernel does not report it.
    NotComparable {
        /// Why, and what to do.
        why: String,
    },
}

impl Comparison {
    /// Whether both comparisons could be made.
    pub fn is_complete(&self) -> bool {
        matches!(self.digest, Digest::Equal { .. }) && matches!(self.calls, Calls::Audited { .. })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.digest {
            Digest::Equal { algorithm } => write!(f, "same instructions ({algorithm})")?,
            Digest::NotComparable { why } => write!(f, "instructions not comparable: {why}")?,
        }
        match &self.calls {
            Calls::Audited { calls, vanished, unattributed } => {
                let vanished: usize = vanished.values().sum();
                write!(f, "; {calls} calls in the kernel, {vanished} more inlined or removed")?;
                for (name, count) in unattributed {
                    write!(f, "; {name} ×{count} is of no known helper")?;
                }
                Ok(())
            }
            Calls::NotComparable { why } => write!(f, "; calls not comparable: {why}"),
        }
    }
}

/// Compares a loaded program with the report of [`audit_prepared`](super::audit_prepared).
///
/// The kernel keeps a digest of the instructions that it was given, and shows what its verifier made
/// of them. The first has to be that of the audited instructions; in the second, each call of a helper
/// has to be one that was audited. Where the kernel shows neither to this process, the result says so.
///
/// # Errors
/// `BpfErrorKind::Changed` where they differ; `BpfErrorKind::System` where the query fails.
pub fn compare_loaded(
    program: BorrowedFd<'_>,
    audited: &ProgramReport,
) -> Result<Comparison, BpfError> {
    let failed = |source| BpfError::system("reading a program's info", source);
    let changed = |what| Failure::Changed { program: audited.name.clone(), what };
    let (tag, xlated) = loaded(program).map_err(failed)?;
    let digest = compare_digest(tag, &audited.insns).map_err(changed)?;
    let calls = compare_calls(&Insn::all(&xlated), audited).map_err(changed)?;
    Ok(Comparison { digest, calls })
}

type Tag = [u8; 8];

/// A program's digest and, unless the kernel withholds them, its instructions.
pub(super) fn loaded(program: BorrowedFd<'_>) -> io::Result<(Tag, Vec<u8>)> {
    let first = sys::info(program, sys::zeroed::<libbpf_sys::bpf_prog_info>())?;
    let mut xlated = vec![0u8; first.xlated_prog_len as usize];
    let mut request = sys::zeroed::<libbpf_sys::bpf_prog_info>();
    request.xlated_prog_len = first.xlated_prog_len;
    request.xlated_prog_insns = xlated.as_mut_ptr() as u64;
    let info = sys::info(program, request)?;
    if info.xlated_prog_insns == 0 {
        xlated.clear();
    }
    xlated.truncate(info.xlated_prog_len as usize);
    Ok((info.tag, xlated))
}

/// The kernel digests the instructions as it is given them, with the numbers of map descriptors
/// zeroed (`bpf_prog_calc_tag`, called at the start of `resolve_pseudo_ldimm64`): SHA-1 until 6.17,
/// SHA-256 since, of either the first eight bytes.
fn digests(insns: &[Insn]) -> [(&'static str, Tag); 2] {
    let mut bytes = Vec::with_capacity(insns.len() * INSN_SIZE);
    let mut is_map = false;
    for (insn, (_, op)) in insns.iter().zip(ops(insns)) {
        let is_second = matches!(op, Op::Second) && is_map;
        is_map = matches!(op, Op::Map { .. });
        let imm = if is_map || is_second { 0 } else { insn.imm };
        bytes.extend(Insn { imm, ..*insn }.to_bytes());
    }
    let first = |digest: &[u8]| std::array::from_fn(|index| digest[index]);
    [("SHA-1", first(&Sha1::digest(&bytes))), ("SHA-256", first(&Sha256::digest(&bytes)))]
}

fn compare_digest(tag: Tag, insns: &[Insn]) -> Result<Digest, String> {
    let not_comparable = |why: &str| Ok(Digest::NotComparable { why: why.to_owned() });
    if insns.is_empty() {
        return not_comparable("the report is of an object file, whose instructions are not final");
    }
    if let Some((algorithm, _)) = digests(insns).into_iter().find(|(_, digest)| *digest == tag) {
        return Ok(Digest::Equal { algorithm });
    }
    match algorithm() {
        Some(algorithm) => Err(format!(
            "the kernel's digest of its instructions is {}, not the {algorithm} digest of the audited ones",
            hex(tag)
        )),
        None => {
            not_comparable("this kernel digests instructions in a manner unknown to this version")
        }
    }
}

fn hex(tag: Tag) -> String {
    tag.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The algorithm of this kernel: what it says of a program that is known.
fn algorithm() -> Option<&'static str> {
    static ALGORITHM: OnceLock<Option<&'static str>> = OnceLock::new();
    *ALGORITHM.get_or_init(|| {
        // r0 = 0; exit
        let insns = [
            Insn { code: 0xb7, dst: 0, src: 0, off: 0, imm: 0 },
            Insn { code: 0x95, dst: 0, src: 0, off: 0, imm: 0 },
        ];
        let program = load_known(&insns).ok()?;
        let (tag, _) = loaded(program.as_fd()).ok()?;
        digests(&insns).into_iter().find(|(_, digest)| *digest == tag).map(|(name, _)| name)
    })
}

fn load_known(insns: &[Insn]) -> io::Result<OwnedFd> {
    let bytes: Vec<u8> = insns.iter().flat_map(|insn| insn.to_bytes()).collect();
    crate::probe::load_program(ProgramType::SOCKET_FILTER, &bytes)
}

fn compare_calls(xlated: &[Insn], audited: &ProgramReport) -> Result<Calls, String> {
    let not_comparable = |why| Ok(Calls::NotComparable { why });
    if xlated.is_empty() {
        let why = "the kernel does not show the program's instructions (needs CAP_BPF or root, and net.core.bpf_jit_harden without effect)";
        return not_comparable(why.to_owned());
    }
    let (mut offsets, mut tail_calls) = (Vec::new(), 0);
    let mut kfuncs = Vec::new();
    for (_, op) in ops(xlated) {
        match op {
            // Tail calls are shown by the helper's number instead of an offset.
            Op::Helper(id) if id == Helper::TAIL_CALL.0 => tail_calls += 1,
            Op::Helper(offset) => offsets.push(offset as i32),
            Op::Poison => {}
            Op::Kfunc { id, .. } => kfuncs.push(id as i32),
            _ => {}
        }
    }
    if offsets.iter().chain(&kfuncs).any(|&offset| offset == 0) {
        let why = "the kernel hides the addresses that the program calls (needs CAP_SYSLOG and kernel.kptr_restrict below 2)";
        return not_comparable(why.to_owned());
    }
    let names = match names(&offsets.iter().chain(&kfuncs).copied().collect()) {
        Ok(names) => names,
        Err(why) => return not_comparable(why),
    };
    let called = offsets.iter().map(|offset| &names[offset]);
    let kfuncs = kfuncs.iter().map(|offset| &names[offset]);
    tally(tail_calls, called, kfuncs, audited)
}

/// What the kernel inserts calls of by itself: to make a packet writable, to read packets of socket
/// filters, to bound loops.
const INSERTED: [&str; 5] = [
    "bpf_skb_pull_data",
    "bpf_skb_load_helper_8",
    "bpf_skb_load_helper_16",
    "bpf_skb_load_helper_32",
    "bpf_check_timed_may_goto",
];

fn tally<'a>(
    tail_calls: usize,
    called: impl Iterator<Item = &'a BTreeSet<String>>,
    kfuncs: impl Iterator<Item = &'a BTreeSet<String>>,
    audited: &ProgramReport,
) -> Result<Calls, String> {
    let mut left = audited.helpers.clone();
    let mut calls = tail_calls;
    let mut unattributed = BTreeMap::new();
    let mut take = |candidates: &[Helper]| {
        let found = candidates.iter().find(|it| left.get(it).is_some_and(|&count| count > 0));
        found.and_then(|helper| left.get_mut(helper)).map(|count| *count -= 1).is_some()
    };
    for _ in 0..tail_calls {
        if !take(&[Helper::TAIL_CALL]) {
            return Err("it makes a tail call that was not audited".into());
        }
    }
    for symbols in called {
        calls += 1;
        let candidates: Vec<_> = symbols.iter().flat_map(|symbol| helpers_of(symbol)).collect();
        if take(&candidates) {
            continue;
        }
        let is_inserted = symbols.iter().any(|symbol| INSERTED.contains(&symbol.as_str()));
        if candidates.is_empty() || is_inserted {
            *unattributed.entry(shown(symbols)).or_default() += 1;
        } else {
            return Err(format!("it calls {}, and no such call was audited", shown(symbols)));
        }
    }
    for symbols in kfuncs {
        calls += 1;
        if symbols.iter().any(|symbol| audited.kfuncs.contains(symbol)) {
            continue;
        }
        if symbols.iter().any(|symbol| acts_on_host(symbol).is_some()) {
            return Err(format!("it calls {}, and no such call was audited", shown(symbols)));
        }
        *unattributed.entry(shown(symbols)).or_default() += 1;
    }
    left.retain(|_, count| *count > 0);
    Ok(Calls::Audited { calls, vanished: left, unattributed })
}

fn shown(symbols: &BTreeSet<String>) -> String {
    if symbols.is_empty() {
        return "an address without a name".into();
    }
    symbols.iter().map(String::as_str).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uapi::AttachType;

    fn audited(helpers: &[(Helper, usize)]) -> ProgramReport {
        let (name, section) = ("p".to_owned(), "xdp".to_owned());
        let mut report = ProgramReport::new(name, section, ProgramType::XDP, AttachType::XDP);
        report.helpers = helpers.iter().copied().collect();
        report
    }

    fn tally(
        tail_calls: usize,
        called: &[&str],
        kfuncs: &[&str],
        audited: &ProgramReport,
    ) -> Result<Calls, String> {
        let sets = |names: &[&str]| -> Vec<BTreeSet<String>> {
            let set = |name: &&str| name.split_terminator('/').map(str::to_owned).collect();
            names.iter().map(set).collect()
        };
        super::tally(tail_calls, sets(called).iter(), sets(kfuncs).iter(), audited)
    }

    #[test]
    fn each_call_in_the_kernel_is_an_audited_one() {
        let report = audited(&[(Helper::MAP_LOOKUP_ELEM, 2), (Helper::TAIL_CALL, 1)]);
        let calls = tally(1, &["__htab_map_lookup_elem", "array_map_lookup_elem"], &[], &report);
        let (vanished, unattributed) = (BTreeMap::new(), BTreeMap::new());
        assert_eq!(calls, Ok(Calls::Audited { calls: 3, vanished, unattributed }));

        let Ok(Calls::Audited { calls, vanished, .. }) = tally(0, &[], &[], &report) else {
            panic!("not comparable");
        };
        assert_eq!((calls, vanished[&Helper::MAP_LOOKUP_ELEM]), (0, 2));
    }

    #[test]
    fn a_call_that_was_not_audited_is_named() {
        let report = audited(&[(Helper::MAP_LOOKUP_ELEM, 1)]);
        for (called, tail_calls) in [
            (&["bpf_probe_write_user"][..], 0),
            (&["trie_lookup_elem", "trie_lookup_elem"], 0),
            (&["bpf_send_signal/some_alias"], 0),
            (&[], 1),
        ] {
            let why = tally(tail_calls, called, &[], &report).unwrap_err();
            assert!(why.contains("audited"), "{why}");
            let last = called.last().unwrap_or(&"tail call");
            assert!(why.contains(last), "{why}");
        }
        assert!(tally(0, &[], &["crash_kexec"], &report).is_err());
    }

    #[test]
    fn what_the_kernel_adds_is_reported() {
        let report = audited(&[]);
        let calls =
            tally(0, &["bpf_skb_pull_data", "", "schedule"], &["bpf_obj_new_impl"], &report);
        let Ok(Calls::Audited { calls: 4, unattributed, .. }) = calls else { panic!("{calls:?}") };
        let names: Vec<_> = unattributed.keys().map(String::as_str).collect();
        let expected =
            ["an address without a name", "bpf_obj_new_impl", "bpf_skb_pull_data", "schedule"];
        assert_eq!(names, expected);
    }

    #[test]
    fn hidden_calls_are_not_comparable() {
        let call = Insn { code: 0x85, dst: 0, src: 0, off: 0, imm: 0 };
        for xlated in [&[][..], &[call]] {
            let calls = compare_calls(xlated, &audited(&[])).unwrap();
            assert!(matches!(calls, Calls::NotComparable { .. }));
        }
    }

    #[test]
    fn digests_leave_map_descriptors_out() {
        let load = |fd, value| {
            [
                Insn { code: 0x18, dst: 1, src: 1, off: 0, imm: fd },
                Insn { code: 0, dst: 0, src: 0, off: 0, imm: value },
            ]
        };
        assert_eq!(digests(&load(3, 0)), digests(&load(77, 9)));
        let number = |imm| Insn { src: 0, imm, ..load(0, 0)[0] };
        assert_ne!(digests(&[number(3), load(0, 0)[1]]), digests(&[number(4), load(0, 0)[1]]));
        assert_ne!(digests(&load(3, 0)), digests(&[number(0), load(0, 0)[1]]));
    }
}
