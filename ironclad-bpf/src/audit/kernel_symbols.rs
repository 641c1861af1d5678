//! From an address that a loaded program calls to the helper that lives there.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use crate::pseudo_fs::PROC;
use crate::uapi::Helper;

const KALLSYMS: &str = "/proc/kallsyms";
/// The symbol that calls of helpers are relative to.
const BASE: &[u8] = b"__bpf_call_base";

/// The names of each offset that was requested or has a helper. The kernel's own code does not move
/// while it runs.
static KNOWN: Mutex<BTreeMap<i32, BTreeSet<String>>> = Mutex::new(BTreeMap::new());

/// The names of what is called at each offset from the kernel's call base. Reads the kernel's list of
/// symbols, which takes tens of milliseconds, unless all of them are known from before: once, as long
/// as programs call helpers.
///
/// The error says why the kernel does not show them.
pub(super) fn names(offsets: &BTreeSet<i32>) -> Result<BTreeMap<i32, BTreeSet<String>>, String> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if !offsets.iter().all(|offset| known.contains_key(offset)) {
        let symbols = PROC.read("kallsyms").map_err(|e| hidden(&format!("cannot be read: {e}")))?;
        known.extend(find(offsets, &symbols)?);
    }
    let of = |offset| known.get(offset).cloned().unwrap_or_default();
    Ok(offsets.iter().map(|offset| (*offset, of(offset))).collect())
}

fn hidden(what: &str) -> String {
    format!(
        "{KALLSYMS} {what} (needs CAP_SYSLOG and kernel.kptr_restrict below 2, and a kernel with CONFIG_KALLSYMS)"
    )
}

/// All names of each offset, none where it has none, and of each that a helper has.
fn find(
    offsets: &BTreeSet<i32>,
    symbols: &[u8],
) -> Result<BTreeMap<i32, BTreeSet<String>>, String> {
    let base = lines(symbols)
        .find(|(address, name)| *name == BASE && *address != 0)
        .ok_or_else(|| hidden("has no address of __bpf_call_base"))?
        .0;
    let offset = |address: u64| i32::try_from(address.wrapping_sub(base) as i64).ok();
    let is_helper =
        |name: &[u8]| std::str::from_utf8(name).is_ok_and(|n| !helpers_of(n).is_empty());
    let helpers = lines(symbols).filter(|(_, name)| is_helper(name));
    let mut found: BTreeMap<_, _> = helpers
        .filter_map(|(address, _)| offset(address))
        .chain(offsets.iter().copied())
        .map(|offset| (offset, BTreeSet::new()))
        .collect();
    for (address, name) in lines(symbols) {
        if let Some(names) = offset(address).and_then(|offset| found.get_mut(&offset)) {
            names.insert(String::from_utf8_lossy(name).into_owned());
        }
    }
    Ok(found)
}

/// Addresses and names, from lines such as `ffffffff81000000 T _text` with, of modules, `\t[module]`.
fn lines(symbols: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    symbols.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut words = line.split(|byte| byte.is_ascii_whitespace());
        let address = std::str::from_utf8(words.next()?).ok()?;
        Some((u64::from_str_radix(address, 16).ok()?, words.nth(1)?))
    })
}

/// The helpers that a kernel function may be the body of: by its name, as no table of the kernel's is
/// there for programs to read. None where the name says nothing.
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
    fn offsets_have_the_names_at_their_addresses() {
        let symbols = b"ffffffff81000000 T _text\nffffffff814ca810 T __bpf_call_base\n\
                        ffffffff814ca900 t one\nffffffff814ca900 T alias\n\
                        ffffffff81000010 t before\nffffffffc0000000 t far\t[module]\nbroken\n";
        let before = 0x8100_0010u32.wrapping_sub(0x814c_a810) as i32;
        let far = 0xc000_0000u32.wrapping_sub(0x814c_a810) as i32;
        let found = find(&BTreeSet::from([0xf0, before, far, 5]), symbols).unwrap();
        let names = |offset| found[&offset].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(names(0xf0), ["alias", "one"]);
        assert_eq!((names(before), names(far)), (vec!["before"], vec!["far"]));
        assert!(names(5).is_empty());
        let helper = b"ffffffff814ca810 T __bpf_call_base\nffffffff814ca820 T bpf_ktime_get_ns\n\
                       ffffffff814ca820 t alias\nffffffff814ca830 T schedule\n";
        let found = find(&BTreeSet::new(), helper).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), [&0x10]);
        assert_eq!(found[&0x10].len(), 2);

        let hidden = b"0000000000000000 T _text\n0000000000000000 T __bpf_call_base\n";
        assert!(find(&BTreeSet::from([1]), hidden).unwrap_err().contains("CAP_SYSLOG"));
    }

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
