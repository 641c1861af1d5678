use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
#[cfg(feature = "signed")]
use std::sync::Mutex;

use ironclad_bpf::shield::SharedOptions;
use ironclad_bpf::socket::SocketOptions;
use ironclad_bpf::{BPFFS, XdpMode};
use ironclad_core::abi::SOCK_ROWS_MAX;
use ironclad_core::audit::{AuditSink, NoAudit};
#[cfg(doc)]
use ironclad_policy::Limits;
#[cfg(feature = "signed")]
use ironclad_policy::bundle::TrustStore;
use ironclad_policy::socket::CompiledSockets;
use ironclad_policy::trust::Trust;
use ironclad_policy::{CompiledPolicy, PolicyPart, PolicySource};

use crate::error::{Failure, ShieldError};
use crate::shield::Shield;

/// Describes a [`Shield`]: see [`Shield::builder`].
#[derive(Clone)]
pub struct ShieldBuilder {
    pub(crate) instance: String,
    pub(crate) interfaces: Vec<String>,
    pub(crate) mode: Option<XdpMode>,
    pub(crate) cgroups: Vec<PathBuf>,
    pub(crate) follow_paths: bool,
    pub(crate) interface_patterns: Vec<String>,
    pub(crate) follow_interfaces: bool,
    socket_rule_slots: Option<u32>,
    socket_rows: Option<u32>,
    socket_cells: Option<u32>,
    pub(crate) gateways: Option<Vec<IpAddr>>,
    pub(crate) persistent: bool,
    pub(crate) bpffs: PathBuf,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) shared: SharedOptions,
    pub(crate) trust: Trust,
    pub(crate) unenforced: Vec<PolicyPart>,
}

impl ShieldBuilder {
    pub(crate) fn new(instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            interfaces: Vec::new(),
            mode: None,
            cgroups: Vec::new(),
            follow_paths: true,
            interface_patterns: Vec::new(),
            follow_interfaces: true,
            socket_rule_slots: None,
            socket_rows: None,
            socket_cells: None,
            gateways: None,
            persistent: false,
            bpffs: BPFFS.into(),
            audit: Arc::new(NoAudit),
            shared: SharedOptions::default(),
            trust: Trust::default(),
            unenforced: Vec::new(),
        }
    }

    /// Protects an interface of the calling thread's network namespace. May be called again.
    #[must_use]
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interfaces.push(name.into());
        self
    }

    /// Protects the interfaces of the calling thread's network namespace whose names match, such as
    /// `eth*`, those that appear later included: see [`follow_interfaces`](Self::follow_interfaces). `*`
    /// stands for any characters, `?` for one, `[a-c]` for one of these. May be called again.
    ///
    /// One that cannot be protected does not end the start:
    /// [`Status::unprotected`](crate::Status::unprotected) and the log have it.
    #[must_use]
    pub fn interface_pattern(mut self, pattern: impl Into<String>) -> Self {
        self.interface_patterns.push(pattern.into());
        self
    }

    /// Whether a thread watches the interfaces of the calling thread's network namespace. It protects
    /// interfaces that are created again under the name of a protected one, and new ones that match an
    /// [`interface_pattern`](Self::interface_pattern), within moments. The namespace exists as long as the
    /// thread. Default: true.
    #[must_use]
    pub fn follow_interfaces(mut self, follow: bool) -> Self {
        self.follow_interfaces = follow;
        self
    }

    /// Enforces the policy's socket rules for every process in a cgroup of version 2, by its directory,
    /// and in the cgroups below it. May be called again.
    #[must_use]
    pub fn cgroup(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cgroups.push(directory.into());
        self
    }

    /// The number of socket rules of two policies that have their own counters, at most 32,768. Default:
    /// [`Limits::socket_rule_slots`] of the first policy.
    #[must_use]
    pub fn socket_rule_slots(mut self, slots: u32) -> Self {
        self.socket_rule_slots = Some(slots);
        self
    }

    /// Rows for the socket rules of one policy, of 1,568 bytes each: one for each distinct set of
    /// rules that an address, a port, a file, a user and so on satisfies; at most 65,536. Default:
    /// [`Limits::socket_rows`] of the first policy.
    #[must_use]
    pub fn socket_rows(mut self, rows: u32) -> Self {
        self.socket_rows = Some(rows);
        self
    }

    /// Cells for the addresses of the socket rules of one policy, of 64 bytes each: all countries
    /// take about 50,000. Default: [`Limits::socket_cells`] of the first policy.
    #[must_use]
    pub fn socket_cells(mut self, cells: u32) -> Self {
        self.socket_cells = Some(cells);
        self
    }

    /// Room for this policy's socket rules, and for those of later ones.
    pub(crate) fn socket_options(&self, policy: &CompiledPolicy) -> SocketOptions {
        let twice = |of: fn(&CompiledSockets) -> usize| {
            let need = policy.sockets().map_or(0, of);
            u32::try_from(need).unwrap_or(u32::MAX).saturating_mul(2)
        };
        let limited =
            |of: &CompiledSockets| of.rules().iter().filter(|r| r.limit.is_some()).count();
        let (limits, mut options) = (policy.limits(), SocketOptions::default());
        // Slot 0 belongs to no rule.
        options.rule_slots = match self.socket_rule_slots.or(limits.socket_rule_slots) {
            Some(rules) => rules.saturating_add(1),
            None => options.rule_slots.max(twice(|of| of.rules().len()) + 1),
        };
        options.buckets = options.buckets.max(twice(limited) + 1);
        options.ids = options.ids.max(twice(CompiledSockets::names_at_most));
        options.rows = self.socket_rows.or(limits.socket_rows).unwrap_or_else(|| {
            options.rows.max(twice(CompiledSockets::rows_at_most)).min(SOCK_ROWS_MAX)
        });
        options.cells = self
            .socket_cells
            .or(limits.socket_cells)
            .unwrap_or_else(|| options.cells.max(twice(|of| of.addresses().cells())));
        options
    }

    /// Whether a thread watches protected cgroups, and the files and cgroups that socket rules name. It
    /// attaches to a cgroup that was created again, and refreshes the rules within moments after a file or
    /// cgroup was replaced. Default: true.
    #[must_use]
    pub fn follow_paths(mut self, follow: bool) -> Self {
        self.follow_paths = follow;
        self
    }

    /// Attaches in this mode, or fails. Default: native, and generic where the driver cannot.
    #[must_use]
    pub fn mode(mut self, mode: XdpMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Addresses whose packets no policy ever blocks; at most eight of each family. A policy has
    /// [its own](CompiledPolicy::gateways) beside them, which come and go with it. Without a call an
    /// adopted instance keeps those that its builder had.
    #[must_use]
    pub fn gateways(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.gateways = Some(addresses.into_iter().collect());
        self
    }

    /// Whether protection outlives the process, however it ends. Default: false.
    ///
    /// If true, everything is pinned in bpffs, and what an earlier agent of the same instance has
    /// pinned is adopted: its interfaces stay protected without a gap.
    #[must_use]
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// Where bpffs is mounted. Default: `/sys/fs/bpf`.
    #[must_use]
    pub fn bpffs(mut self, path: impl Into<PathBuf>) -> Self {
        self.bpffs = path.into();
        self
    }

    /// The sink of audit records. Default: none.
    #[must_use]
    pub fn audit(mut self, sink: Arc<dyn AuditSink>) -> Self {
        self.audit = sink;
        self
    }

    /// Bytes of the event ring buffer: a power of two, at least 4096. Default: 1 MiB. An adopted
    /// instance keeps its ring buffer.
    #[must_use]
    pub fn ring_bytes(mut self, bytes: u32) -> Self {
        self.shared.ring_bytes = bytes;
        self
    }

    /// Parts of policies that this Shield leaves to others: [`PolicyPart::Files`] where a Sentinel has the
    /// same policy, packets without an interface, sockets without a cgroup. May be called again. Default:
    /// none, and a policy with a part that Shield does not enforce is refused.
    #[must_use]
    pub fn unenforced(mut self, parts: impl IntoIterator<Item = PolicyPart>) -> Self {
        self.unenforced.extend(parts);
        self
    }

    /// Accepts signed bundles alone, as [`PolicySource::signed`] makes them. Default: policies of the
    /// caller come into force, and a warning says that they are unsigned.
    ///
    /// One store may be shared, also with a Sentinel, which protects its files: then each accepts the
    /// same bundle. A file has one store.
    #[cfg(feature = "signed")]
    #[must_use]
    pub fn signed(mut self, trust: Arc<Mutex<TrustStore>>) -> Self {
        self.trust = Trust::new(trust);
        self
    }

    /// Loads, attaches and puts `policy` into force.
    ///
    /// If a step fails, the host is left as it was found: no interface is half protected, an
    /// adopted instance keeps its policy, gateways and interfaces, and traffic flows as it did.
    /// Shield fails open.
    ///
    /// The provisional policy of an adopted instance stays provisional where `policy` is
    /// the same, and may be confirmed; otherwise it is reverted first.
    ///
    /// A bundle is verified, and its serial is kept, before its policy comes into force. The last
    /// bundle that was accepted may be used again.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf` with what the kernel reported and the next step;
    /// `ShieldErrorKind::InstanceName`; `ShieldErrorKind::NoInterface`; `ShieldErrorKind::Pattern`;
    /// `ShieldErrorKind::Inactive` where the kernel would not call the hooks of a cgroup;
    /// `ShieldErrorKind::Unenforced` and `ShieldErrorKind::NoCgroup` where the policy has a part that
    /// Shield does not enforce, and that is not said to be [`unenforced`](Self::unenforced);
    /// `ShieldErrorKind::Unsigned`, `ShieldErrorKind::NoTrust`, `ShieldErrorKind::Bundle` where the
    /// policy is not accepted. Of a bundle that was accepted, another error is the source of
    /// `ShieldErrorKind::NotApplied`.
    pub fn start<'a>(self, policy: impl Into<PolicySource<'a>>) -> Result<Shield, ShieldError> {
        let source = policy.into();
        self.trust.check(&source)?;
        let Self { interfaces, interface_patterns, cgroups, .. } = &self;
        match interfaces.is_empty() && interface_patterns.is_empty() && cgroups.is_empty() {
            true => Err(Failure::NoInterface.into()),
            false => Shield::start(self, source),
        }
    }

    /// Like [`start`](Self::start), but without an interface: for [`Shield::test_run`], and for
    /// agents that [`protect`](Shield::protect) interfaces as they appear.
    ///
    /// # Errors
    /// As of [`start`](Self::start).
    pub fn start_unattached<'a>(
        mut self,
        policy: impl Into<PolicySource<'a>>,
    ) -> Result<Shield, ShieldError> {
        self.interfaces.clear();
        self.unenforced.push(PolicyPart::Packets);
        self.interface_patterns.clear();
        Shield::start(self, policy.into())
    }
}

#[cfg(test)]
mod tests {
    use ironclad_policy::Policy;

    use super::*;
    use crate::error::ShieldErrorKind;

    #[test]
    fn instance_names_are_one_path_component() {
        let policy = Policy::builder().compile().unwrap();
        for name in ["", ".", "..", "../x", "a/b", "a b", "a\0"] {
            for persistent in [false, true] {
                let builder = Shield::builder(name).interface("none0").persistent(persistent);
                let error = builder.start(&policy).unwrap_err();
                assert_eq!(error.kind(), ShieldErrorKind::InstanceName, "{error}");
                let expected = format!("`{name}` is no name for an instance");
                assert!(error.to_string().starts_with(&expected), "{error}");
            }
            let error = Shield::builder(name).start_unattached(&policy).unwrap_err();
            assert_eq!(error.kind(), ShieldErrorKind::InstanceName, "{error}");
        }
    }

    #[test]
    fn a_start_needs_something_to_protect() {
        let policy = Policy::builder().compile().unwrap();
        let error = Shield::builder("none").start(&policy).unwrap_err();
        assert_eq!(error.kind(), ShieldErrorKind::NoInterface, "{error}");
    }
}
