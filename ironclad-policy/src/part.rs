use ironclad_core::Verdict;

use crate::compile::CompiledPolicy;

/// What a policy decides about. Each is enforced elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PolicyPart {
    /// Packets: sets (also empty ones), tuples, gateways, and defaults that were changed: drop of what nothing matches
    /// or of frames that are neither IP nor ARP, allow of malformed packets, no pass for neighbour discovery. Shield
    /// at interfaces enforces it.
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
                // Beside the one that stands for no rule.
                self.rules().len() > 1
                    || self.gateways().addresses().next().is_some()
                    || settings.default_action == Verdict::Drop
                    || settings.non_ip == Verdict::Drop
                    || settings.malformed == Verdict::Allow
                    || !settings.neighbour_discovery
            }
            PolicyPart::Sockets => self.sockets().is_some(),
            PolicyPart::Files => self.files().is_some(),
        }
    }
}
