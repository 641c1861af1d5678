//! From a policy's packet rules to what the loader takes.
use ironclad_bpf::shield::{PolicyConfig, PolicyImage, PolicyProgram, SetsBackend, Shared};
use ironclad_core::Family;
use ironclad_core::abi::{self, Generation};
use ironclad_policy::{Backend, CompiledPolicy, Policy, PolicyPart};

use crate::error::ShieldError;

/// Whether a policy treats packets as an empty one does.
pub(crate) fn is_empty(policy: &CompiledPolicy) -> Result<bool, ShieldError> {
    let empty = Policy::builder().compile()?;
    Ok(!policy.has_part(PolicyPart::Packets) && policy.settings() == empty.settings())
}

/// For a policy that [is empty](is_empty).
pub(crate) fn load_empty(shared: &Shared, number: u64) -> Result<PolicyProgram, ShieldError> {
    load(shared, &Policy::builder().compile()?, |_| None, number)
}

pub(crate) fn generation(policy: &CompiledPolicy, number: u64) -> Generation {
    Generation {
        number,
        policy: policy.id().0,
        cells: policy.flat().cells() as u32,
        entries: policy.prefixes() as u32 + 1,
        tuples: policy.kernel_tuples(|_| 0).len() as u32,
        _pad: 0,
    }
}

/// `counter` has the slots of rules.
pub(crate) fn load(
    shared: &Shared,
    policy: &CompiledPolicy,
    counter: impl Fn(u32) -> Option<u16>,
    number: u64,
) -> Result<PolicyProgram, ShieldError> {
    let settings = policy.settings();
    let slot_of = |rule: usize| match rule {
        0 => 0,
        _ => counter(policy.rules()[rule].id.0).unwrap_or(0),
    };
    let backend = |family| match (policy.has(family), settings.backend) {
        (false, _) => SetsBackend::None,
        (true, Backend::LpmTrie) => SetsBackend::LpmTrie,
        (true, _) => SetsBackend::Flat,
    };
    let mut rates = vec![0u32; abi::RULES_MAX];
    for (index, rule) in policy.rules().iter().enumerate() {
        rates[usize::from(slot_of(index))] = rule.events_per_second;
    }
    let (lpm4, lpm6) = match settings.backend {
        Backend::LpmTrie => (policy.lpm4().collect(), policy.lpm6().collect()),
        _ => (Vec::new(), Vec::new()),
    };
    let entries = policy.kernel_entries(slot_of);
    let tuples = policy.kernel_tuples(slot_of);
    let image = PolicyImage {
        config: PolicyConfig {
            generation: number,
            default_action: settings.default_action,
            malformed: settings.malformed,
            non_ip: settings.non_ip,
            neighbour: settings.neighbour_discovery,
            dry_run: settings.dry_run,
            log: policy.logs(),
            sets_v4: backend(Family::V4),
            sets_v6: backend(Family::V6),
            flat_root4: policy.flat().root(Family::V4).unwrap_or(0),
            flat_root6: policy.flat().root(Family::V6).unwrap_or(0),
            masks: policy.tuple_masks(),
            rates: &rates,
            gateways: *policy.gateways(),
        },
        flat: policy.flat().words(),
        entries: &entries,
        lpm4: &lpm4,
        lpm6: &lpm6,
        tuples: &tuples,
    };
    Ok(PolicyProgram::load(shared, &image)?)
}
