//! From an address that a loaded program calls to the helper that lives there.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::sync::{Mutex, PoisonError};

use crate::uapi::Helper;

const KALLSYMS: &str = "/proc/kallsyms";
/// The symbol that calls of helpers are relative to.
const BASE: &str = "__bpf_call_base";

/// Addresses of the kernel's own code do not change while it runs: what was found is kept.
static KNOWN: Mutex<Known> = Mutex::new(Known { base: None, names: BTreeMap::new() });

struct Known {
    base: Option<u64>,
    /// All names of an address, none where it has none.
    names: BTreeMap<u64, BTreeSet<String>>,
}

/// The names of what is called at each offset from the kernel's call base.
///
/// The error says why the kernel does not tell.
pub(super) fn names(offsets: &BTreeSet<i32>) -> Result<BTreeMap<i32, BTreeSet<String>>, String> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let base = match known.base {
        Some(base) => base,
        None => {
            let base = read(|_, name| name == BASE)?
                .into_iter()
                .find(|&(address, _)| address != 0)
                .ok_or_else(|| hidden("has no address of __bpf_call_base"))?
                .0;
            *known.base.insert(base)
        }
    };
    let address = |offset: i32| base.wrapping_add_signed(i64::from(offset));
    let missing: BTreeSet<u64> = offsets
        .iter()
        .map(|&offset| address(offset))
        .filter(|address| !known.names.contains_key(address))
        .collect();
    if !missing.is_empty() {
        known.names.extend(missing.iter().map(|&address| (address, BTreeSet::new())));
        for (address, name) in read(|address, _| missing.contains(&address))? {
            known.names.entry(address).or_default().insert(name);
        }
    }
    let of = |offset| known.names.get(&address(offset)).cloned().unwrap_or_default();
    Ok(offsets.iter().map(|&offset| (offset, of(offset))).collect())
}

fn hidden(what: &str) -> String {
    format!(
        "{KALLSYMS} {what} (needs CAP_SYSLOG and kernel.kptr_restrict below 2, and a kernel with CONFIG_KALLSYMS)"
    )
}

/// The symbols that `wants` picks.
fn read(wants: impl Fn(u64, &str) -> bool) -> Result<Vec<(u64, String)>, String> {
    let failed = |e: io::Error| hidden(&format!("cannot be read: {e}"));
    let mut lines = BufReader::with_capacity(1 << 16, File::open(KALLSYMS).map_err(failed)?);
    let mut found = Vec::new();
    let mut line = String::new();
    while lines.read_line(&mut line).map_err(failed)? > 0 {
        // `ffffffff81000000 T _text` and, of modules, `\t[module]`.
        let mut words = line.split_ascii_whitespace();
        if let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next()) {
            if let Ok(address) = u64::from_str_radix(address, 16) {
                if wants(address, name) {
                    found.push((address, name.to_owned()));
                }
            }
        }
        line.clear();
    }
    Ok(found)
}

/// The helpers that a kernel function may be the body of: by its name, as no table of the kernel's is
/// there for programs to read. None where the name tells nothing.
pub(super) fn helpers_of(symbol: &str) -> Vec<Helper> {
    // Compilers append `.constprop.0`, `.cold`, `.llvm.123`.
    let symbol = symbol.split('.').next().unwrap_or(symbol);
    if let Some(helpers) = OTHER_NAMES.iter().find(|(name, _)| *name == symbol) {
        return helpers.1.to_vec();
    }
    if let Some(name) = symbol.strip_prefix("bpf_") {
        if let Some(helper) = variant_of(name) {
            return vec![helper];
        }
        for context in CONTEXTS {
            if let Some(helper) = name.strip_prefix(context).and_then(variant_of) {
                return vec![helper];
            }
        }
    }
    // The operations of each type of map, called in place of the helper.
    let by_suffix = MAP_OPERATIONS.iter().find(|(suffix, _)| symbol.ends_with(suffix));
    by_suffix.map(|(_, helper)| vec![*helper]).unwrap_or_default()
}

/// The helper with the longest name that `name` is, or begins with before an underscore: variants for
/// a type of program are called so (`get_func_ip_kprobe`).
fn variant_of(name: &str) -> Option<Helper> {
    let mut end = name.len();
    loop {
        if let Some(helper) = Helper::from_name(&name[..end]).filter(|it| *it != Helper::UNSPEC) {
            return Some(helper);
        }
        end = name[..end].rfind('_')?;
    }
}

/// Stand before a helper's name where it has a body for each type of program (`bpf_xdp_redirect`).
const CONTEXTS: [&str; 9] =
    ["xdp_", "skb_", "sock_addr_", "sock_ops_", "sk_", "sock_", "tc_", "lwt_", "unlocked_sk_"];

const OTHER_NAMES: &[(&str, &[Helper])] = &[
    ("bpf_user_rnd_u32", &[Helper::GET_PRANDOM_U32]),
    ("bpf_get_raw_cpu_id", &[Helper::GET_SMP_PROCESSOR_ID]),
    ("bpf_event_output", &[Helper::PERF_EVENT_OUTPUT]),
    ("bpf_event_output_data", &[Helper::PERF_EVENT_OUTPUT]),
    ("bpf_sockopt_event_output", &[Helper::PERF_EVENT_OUTPUT]),
    ("bpf_xdp_event_output", &[Helper::PERF_EVENT_OUTPUT, Helper::XDP_OUTPUT]),
    ("bpf_skb_event_output", &[Helper::PERF_EVENT_OUTPUT, Helper::SKB_OUTPUT]),
    ("bpf_for_each_array_elem", &[Helper::FOR_EACH_MAP_ELEM]),
    ("bpf_for_each_hash_elem", &[Helper::FOR_EACH_MAP_ELEM]),
];

const MAP_OPERATIONS: &[(&str, Helper)] = &[
    ("_lookup_elem", Helper::MAP_LOOKUP_ELEM),
    ("_update_elem", Helper::MAP_UPDATE_ELEM),
    ("_delete_elem", Helper::MAP_DELETE_ELEM),
    ("_push_elem", Helper::MAP_PUSH_ELEM),
    ("_pop_elem", Helper::MAP_POP_ELEM),
    ("_peek_elem", Helper::MAP_PEEK_ELEM),
    ("_lookup_percpu_elem", Helper::MAP_LOOKUP_PERCPU_ELEM),
    ("_map_redirect", Helper::REDIRECT_MAP),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_their_helpers() {
        for (symbol, helper) in [
            ("bpf_ktime_get_boot_ns", Helper::KTIME_GET_BOOT_NS),
            ("bpf_probe_read_user_str", Helper::PROBE_READ_USER_STR),
            ("bpf_probe_read_compat", Helper::PROBE_READ),
            ("bpf_get_func_ip_kprobe", Helper::GET_FUNC_IP),
            ("bpf_get_socket_cookie_sock_addr", Helper::GET_SOCKET_COOKIE),
            ("bpf_xdp_redirect", Helper::REDIRECT),
            ("bpf_xdp_redirect_map", Helper::REDIRECT_MAP),
            ("bpf_skb_load_bytes", Helper::SKB_LOAD_BYTES),
            ("bpf_sock_addr_setsockopt", Helper::SETSOCKOPT),
            ("__htab_map_lookup_elem", Helper::MAP_LOOKUP_ELEM),
            ("array_map_update_elem", Helper::MAP_UPDATE_ELEM),
            ("trie_lookup_elem.constprop.0", Helper::MAP_LOOKUP_ELEM),
            ("htab_map_lookup_percpu_elem", Helper::MAP_LOOKUP_PERCPU_ELEM),
            ("dev_map_redirect", Helper::REDIRECT_MAP),
            ("bpf_user_rnd_u32", Helper::GET_PRANDOM_U32),
            ("bpf_probe_write_user", Helper::PROBE_WRITE_USER),
        ] {
            assert_eq!(helpers_of(symbol), [helper], "{symbol}");
        }
        for symbol in ["schedule", "bpf_prog_run", "", "bpf_", "_", "bpf_unspec"] {
            assert_eq!(helpers_of(symbol), [], "{symbol}");
        }
        for &helper in &Helper::ALL[1..] {
            assert_eq!(helpers_of(&helper.to_string()), [helper]);
        }
    }
}
