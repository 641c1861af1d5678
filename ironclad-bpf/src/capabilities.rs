//! The capabilities of this process, and which one is missing.

use crate::pseudo_fs::PROC;

/// Bits of `include/uapi/linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// The effective capabilities of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capabilities(u64);

impl Capabilities {
    /// Of this process. Without procfs, all count as present.
    pub(crate) fn effective() -> Self {
        let status = PROC.read_to_string("self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        Self(line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(u64::MAX))
    }

    #[cfg(test)]
    pub(crate) fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }

    /// Those that loading and attaching Ironclad's programs needs and that are missing.
    pub(crate) fn missing_for_programs(self) -> Vec<&'static str> {
        // CAP_SYS_ADMIN includes the two that were split from it.
        let is_admin = self.has(CAP_SYS_ADMIN);
        [
            ("CAP_BPF", self.has(CAP_BPF) || is_admin),
            ("CAP_NET_ADMIN", self.has(CAP_NET_ADMIN)),
            ("CAP_PERFMON", self.has(CAP_PERFMON) || is_admin),
        ]
        .into_iter()
        .filter_map(|(name, is_held)| (!is_held).then_some(name))
        .collect()
    }

    /// The next step for a person whose program the verifier refused, where more capabilities would allow more.
    pub(crate) fn hint_for_verifier(self) -> Option<String> {
        lacks(&self.missing_for_programs())
    }

    /// The next step for a person whose system call was refused.
    pub(crate) fn hint(self) -> String {
        let mut missing = self.missing_for_programs();
        for (name, bit) in
            [("CAP_SYS_ADMIN", CAP_SYS_ADMIN), ("CAP_SYS_RESOURCE", CAP_SYS_RESOURCE)]
        {
            if !self.has(bit) {
                missing.push(name);
            }
        }
        if let Some(hint) = lacks(&missing) {
            return hint;
        }
        if is_in_user_namespace() {
            return "this process has its capabilities in a user namespace: run it in the initial one".to_owned();
        }
        "this process has the capabilities: kernel lockdown, a seccomp filter or another security module, such as an armed Sentinel, refuses the call".to_owned()
    }
}

fn lacks(missing: &[&str]) -> Option<String> {
    let them = if missing.len() == 1 { "it" } else { "them" };
    let (last, rest) = missing.split_last()?;
    let names = match rest {
        [] => (*last).to_owned(),
        rest => format!("{} and {last}", rest.join(", ")),
    };
    Some(format!("this process lacks {names}: run it as root or grant {them}"))
}

/// The initial user namespace maps all numbers to themselves.
fn is_in_user_namespace() -> bool {
    let map = PROC.read_to_string("self/uid_map").unwrap_or_default();
    let fields: Vec<&str> = map.split_whitespace().collect();
    !fields.is_empty() && fields != ["0", "0", "4294967295"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cap_sys_admin_includes_others() {
        let missing = |set| Capabilities::of_bits(set).missing_for_programs();
        assert_eq!(missing(u64::MAX), [""; 0]);
        assert_eq!(missing(0), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing(1 << CAP_SYS_ADMIN), ["CAP_NET_ADMIN"]);
        assert_eq!(missing(1 << CAP_BPF | 1 << CAP_NET_ADMIN), ["CAP_PERFMON"]);
    }

    #[test]
    fn the_missing_capability_is_named() {
        let all = u64::MAX;
        let without = |bits: &[u32]| {
            Capabilities::of_bits(bits.iter().fold(all, |set, bit| set & !(1 << bit))).hint()
        };
        assert!(without(&[CAP_NET_ADMIN]).starts_with("this process lacks CAP_NET_ADMIN: "));
        assert!(
            without(&[CAP_BPF, CAP_SYS_ADMIN])
                .starts_with("this process lacks CAP_BPF and CAP_SYS_ADMIN: ")
        );
        assert!(without(&[CAP_BPF]).starts_with("this process has "));
        let none = Capabilities::of_bits(0).hint();
        for name in ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"]
        {
            assert!(none.contains(name), "{none}");
        }
    }

    #[test]
    fn the_verifier_wants_the_capabilities_of_programs_alone() {
        let hint = |set| Capabilities::of_bits(set).hint_for_verifier();
        assert_eq!(hint(u64::MAX), None);
        let lacks = "this process lacks CAP_PERFMON: run it as root or grant it";
        assert_eq!(hint(1 << CAP_BPF | 1 << CAP_NET_ADMIN).as_deref(), Some(lacks));
    }
}
