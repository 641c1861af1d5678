use ironclad_core::Verdict;

use crate::compile::CompiledPolicy;

/// What a policy decides about. Each is enforced elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PolicyPart {
    /// Packets: sets, tuples, gateways, and a default of drop. Shield at interfaces enforces it.
    Packets,
    /// Operations of processes on sockets. Shield at cgroups enforces it.
    Sockets,
    /// Files. Sentinel enforces it.
    Files,
}

impl CompiledPolicy {
    /// Whether the policy decides about this part.
    pub fn has_part(&self, part: PolicyPart) -> bool {
        let settings = self.settings();
        match part {
            PolicyPart::Packets => {
                self.prefixes() > 0
                    || !self.tuple_masks().is_empty()
                    || self.gateways().addresses().next().is_some()
                    || settings.default_action == Verdict::Drop
                    || settings.non_ip == Verdict::Drop
            }
            PolicyPart::Sockets => self.sockets().is_some(),
            PolicyPart::Files => self.files().is_some(),
        }
    }
}
