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
use ironclad_policy::CompiledPolicy;
#[cfg(feature = "signed")]
use ironclad_policy::bundle::TrustStore;
#[cfg(feature = "signed")]
use ironclad_policy::document::Sources;
use ironclad_policy::socket::CompiledSockets;

use crate::error::ShieldError;
use crate::shield::Shield;
use crate::trust::Trust;

/// What a [`Shield`] is to be: [`Shield::builder`].
#[derive(Clone)]
pub struct ShieldBuilder {
    pub(crate) instance: String,
    pub(crate) interfaces: Vec<String>,
    pub(crate) mode: Option<XdpMode>,
    pub(crate) cgroups: Vec<PathBuf>,
    pub(crate) sockets: SocketOptions,
    pub(crate) follow_paths: bool,
    socket_rows: Option<u32>,
    socket_cells: Option<u32>,
    pub(crate) gateways: Option<Vec<IpAddr>>,
    pub(crate) persistent: bool,
    pub(crate) bpffs: PathBuf,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) shared: SharedOptions,
    pub(crate) trust: Trust,
}

impl ShieldBuilder {
    pub(crate) fn new(instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            interfaces: Vec::new(),
            mode: None,
            cgroups: Vec::new(),
            sockets: SocketOptions::default(),
            follow_paths: true,
            socket_rows: None,
            socket_cells: None,
            gateways: None,
            persistent: false,
            bpffs: BPFFS.into(),
            audit: Arc::new(NoAudit),
            shared: SharedOptions::default(),
            trust: Trust::default(),
        }
    }

    /// Protects an interface of the calling thread's network namespace. May be called again.
    #[must_use]
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interfaces.push(name.into());
        self
    }

    /// Lets a policy's socket rules decide for every process in a cgroup, by its directory
    /// (version 2), and in those below it. May be called again.
    #[must_use]
    pub fn cgroup(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cgroups.push(directory.into());
        self
    }

    /// Socket rules with counters of their own, at most 16,384. Default: 4,096.
    #[must_use]
    pub fn socket_rule_slots(mut self, slots: u32) -> Self {
        self.sockets.rule_slots = slots;
        self
    }

    /// Rows for the socket rules of one policy, of 1,568 bytes each: one for each distinct set of
    /// rules that an address, a port, a file, a user and so on satisfies. Default: twice what the
    /// first policy needs, and at least 1,024. At most 65,536.
    #[must_use]
    pub fn socket_rows(mut self, rows: u32) -> Self {
        self.socket_rows = Some(rows);
        self
    }

    /// Cells for the addresses of the socket rules of one policy, of 64 bytes each: all countries
    /// take about 50,000. Default: twice what the first policy needs, and at least 65,536.
    #[must_use]
    pub fn socket_cells(mut self, cells: u32) -> Self {
        self.socket_cells = Some(cells);
        self
    }

    /// Room for this policy's socket rules, and for those of later ones.
    pub(crate) fn socket_options(&self, policy: &CompiledPolicy) -> SocketOptions {
        let mut options = self.sockets;
        let need = |of: fn(&CompiledSockets) -> usize| policy.sockets().map_or(0, of) as u32;
        options.rows = self.socket_rows.unwrap_or_else(|| {
            let twice = need(CompiledSockets::rows_at_most).saturating_mul(2);
            options.rows.max(twice).min(SOCK_ROWS_MAX)
        });
        options.cells = self.socket_cells.unwrap_or_else(|| {
            options.cells.max(need(|of| of.addresses().cells()).saturating_mul(2))
        });
        options
    }

    /// Whether a thread follows the files and cgroups that socket rules name: one that is
    /// replaced or made anew is known again within moments. Default: true.
    #[must_use]
    pub fn follow_paths(mut self, follow: bool) -> Self {
        self.follow_paths = follow;
        self
    }

    /// Attaches in this mode or not at all. Default: native, and generic where the driver cannot.
    #[must_use]
    pub fn mode(mut self, mode: XdpMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Addresses whose packets no policy ever blocks; at most eight of each family. Without a call
    /// an adopted instance keeps those it has.
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

    /// Where audit records go. Default: nowhere.
    #[must_use]
    pub fn audit(mut self, sink: Arc<dyn AuditSink>) -> Self {
        self.audit = sink;
        self
    }

    /// Bytes of the event ring buffer: a power of two, at least 4096. Default: 1 MiB. An adopted
    /// instance keeps the one it has.
    #[must_use]
    pub fn ring_bytes(mut self, bytes: u32) -> Self {
        self.shared.ring_bytes = bytes;
        self
    }

    /// Takes policies in signed bundles alone, by [`start_signed`](Self::start_signed) and
    /// [`Shield::apply_signed`]. Default: whoever calls decides what is in force, which is told aloud.
    ///
    /// One store may be shared, also with a Sentinel, which guards its files: then each takes the same
    /// bundle. A file has one store.
    #[cfg(feature = "signed")]
    #[must_use]
    pub fn signed(mut self, trust: Arc<Mutex<TrustStore>>) -> Self {
        self.trust = Trust::new(trust);
        self
    }

    /// Loads, attaches and puts `policy` into force.
    ///
    /// If anything fails, what was there before is there still: no interface is half protected, an
    /// adopted instance keeps its policy, gateways and interfaces, and traffic flows as it did.
    /// Shield fails open.
    ///
    /// A provisional policy that an adopted instance waits with stays provisional where `policy` is
    /// the same, and may be confirmed; otherwise it is taken back first.
    ///
    /// # Errors
    /// [`ShieldError::Bpf`] with what the kernel said and the next step; [`ShieldError::Inactive`] where
    /// it would not ask a cgroup; [`ShieldError::Unsigned`].
    pub fn start(self, policy: &CompiledPolicy) -> Result<Shield, ShieldError> {
        self.trust.only_signed("start_signed")?;
        self.named()?;
        Shield::start(self, policy)
    }

    /// Like [`start`](Self::start), with the policy of a bundle that is verified, and whose serial is
    /// kept, before. The last one that was taken may be handed over again.
    ///
    /// # Errors
    /// [`ShieldError::NoTrust`], [`ShieldError::Bundle`] where it is not taken,
    /// [`ShieldError::NotApplied`] with what [`start`](Self::start) would say.
    #[cfg(feature = "signed")]
    pub fn start_signed(
        self,
        bundle: &[u8],
        signatures: &[&str],
        sources: &mut Sources<'_>,
    ) -> Result<Shield, ShieldError> {
        self.named()?;
        Shield::start_signed(self, bundle, signatures, sources)
    }

    fn named(&self) -> Result<(), ShieldError> {
        match self.interfaces.is_empty() && self.cgroups.is_empty() {
            true => Err(ShieldError::NoInterface),
            false => Ok(()),
        }
    }

    /// Like [`start`](Self::start), but without an interface: for [`Shield::test_run`], and for
    /// agents that [`protect`](Shield::protect) interfaces as they appear.
    ///
    /// # Errors
    /// As of [`start`](Self::start).
    pub fn start_unattached(mut self, policy: &CompiledPolicy) -> Result<Shield, ShieldError> {
        self.trust.only_signed("start_unattached_signed")?;
        self.interfaces.clear();
        Shield::start(self, policy)
    }

    /// Like [`start_unattached`](Self::start_unattached), with the policy of a signed bundle.
    ///
    /// # Errors
    /// As of [`start_signed`](Self::start_signed).
    #[cfg(feature = "signed")]
    pub fn start_unattached_signed(
        mut self,
        bundle: &[u8],
        signatures: &[&str],
        sources: &mut Sources<'_>,
    ) -> Result<Shield, ShieldError> {
        self.interfaces.clear();
        Shield::start_signed(self, bundle, signatures, sources)
    }
}
