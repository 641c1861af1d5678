//! The calls of programs that other processes have loaded.
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::compare::loaded;
use super::forbidden::{FORBIDDEN_HELPERS, OVERRIDING_HELPERS, READING_HELPERS};
use super::insn::{Insn, Op, ops};
use super::kernel_symbols::{helpers_of, names};
use super::kfuncs::is_harmless;
use crate::probe::KernelBtf;

/// What a loaded program calls that an armed Sentinel refuses to programs of other processes: names of the
/// kernel's functions.
///
/// The verifier replaces some calls by instructions, `bpf_rdonly_cast` among them: these are not listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RefusedCalls {
    /// Those that act on the host or on other processes.
    pub acting: BTreeSet<String>,
    /// Helpers that read memory by its address.
    pub reading: BTreeSet<String>,
    /// Why the calls are not known, where the kernel hides them.
    pub hidden: Option<String>,
}

impl RefusedCalls {
    /// Those of a loaded program.
    pub(crate) fn of(program: BorrowedFd<'_>) -> io::Result<Self> {
        let (_, xlated) = loaded(program)?;
        if xlated.is_empty() {
            return Ok(Self::hidden("the kernel does not show the program's instructions"));
        }
        let (mut helpers, mut kfuncs) = (BTreeSet::new(), BTreeSet::new());
        let mut calls = Self::default();
        for (_, op) in ops(&Insn::all(&xlated)) {
            match op {
                Op::Helper(id) => drop(helpers.insert(id as i32)),
                Op::Kfunc { id, module: 0 } => drop(kfuncs.insert(id as i32)),
                Op::Kfunc { id, .. } => {
                    calls.acting.insert(format!("function {id} of a module"));
                }
                _ => {}
            }
        }
        if helpers.is_empty() && kfuncs.is_empty() {
            return Ok(calls);
        }
        let offsets = helpers.union(&kfuncs).copied().collect();
        if helpers.contains(&0) || kfuncs.contains(&0) {
            return Ok(Self::hidden("the kernel hides the addresses that the program calls"));
        }
        let symbols = match names(&offsets) {
            Ok(symbols) => symbols,
            Err(why) => return Ok(Self::hidden(&why)),
        };
        helpers.iter().for_each(|it| calls.add_helper(&symbols[it]));
        for id in kfuncs {
            // A number in the kernel's types, or where the function is: a kernel shows one of both.
            let name = symbols[&id].first().cloned().or_else(|| function_name(id as u32));
            let name = name.unwrap_or_else(|| format!("function {id}"));
            if !is_harmless(&name) {
                calls.acting.insert(name);
            }
        }
        Ok(calls)
    }

    fn hidden(why: &str) -> Self {
        Self { hidden: Some(why.to_owned()), ..Self::default() }
    }

    /// A call of a function with these names, which are of one address.
    fn add_helper(&mut self, symbols: &BTreeSet<String>) {
        for symbol in symbols {
            for helper in helpers_of(symbol) {
                if FORBIDDEN_HELPERS.contains(&helper) || OVERRIDING_HELPERS.contains(&helper) {
                    self.acting.insert(symbol.clone());
                } else if READING_HELPERS.contains(&helper) {
                    self.reading.insert(symbol.clone());
                }
            }
        }
    }
}

/// The kernel's function by its number in the kernel's types, which take tens of milliseconds to read: once for each
/// function.
fn function_name(id: u32) -> Option<String> {
    static KNOWN: Mutex<BTreeMap<u32, Option<String>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let read = || KernelBtf::load()?.function_name(id);
    known.entry(id).or_insert_with(read).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_are_distinguished() {
        let mut calls = RefusedCalls::default();
        for symbol in
            ["bpf_send_signal", "bpf_probe_read_user", "bpf_ktime_get_ns", "bpf_set_retval"]
        {
            calls.add_helper(&BTreeSet::from([symbol.to_owned()]));
        }
        let named = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(named(&calls.acting), "bpf_send_signal bpf_set_retval");
        assert_eq!(named(&calls.reading), "bpf_probe_read_user");
    }
}
