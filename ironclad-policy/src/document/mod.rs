//! Policy files: YAML that names addresses, subjects, limits and rules. See `docs/policy-format.md`.
//!
//! ```
//! use ironclad_policy::document::Document;
//!
//! let text = "
//! default: drop
//! gateways: [10.0.0.1]
//! addresses:
//!   mirrors: { cidrs: [198.51.100.0/24, \"2001:db8:7::/48\"] }
//! sets:
//!   - { id: 1, name: office, action: allow, cidrs: [10.20.0.0/16] }
//! tuples:
//!   - { id: 2, name: web, action: allow, protocol: tcp, dport: 443 }
//! rules:
//!   - { id: 1, name: updates, subject: { exe: /usr/lib/apt/methods/https }, to: mirrors, action: allow }
//!   - { id: 2, name: other processes, to: mirrors, action: deny }
//! files:
//!   - { id: 1, name: agent, trees: /etc/my-agent, except: /usr/bin/dpkg, action: deny }
//! ";
//! let document = Document::parse("rules.yaml", text)?;
//! let policy = document.policy("/etc/ironclad".as_ref())?.compile()?;
//! assert_eq!(policy.rules().len(), 3);
//! assert_eq!(policy.sockets().unwrap().rules().len(), 2);
//! assert_eq!(policy.files().unwrap().rules().len(), 1);
//!
//! let error = Document::parse("rules.yaml", "rules:\n  - { id: 1, nmae: x, action: deny }\n");
//! let error = error.unwrap_err().to_string();
//! assert_eq!(error, "rules.yaml:2:14: rules[0]: unknown key `nmae`: did you mean `name`?");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod addresses;
mod check;
mod error;
mod fault;
mod feeds;
mod files;
mod packets;
mod place;
mod problem;
mod quantities;
mod reader;
mod resolve;
#[cfg(feature = "schema")]
mod schema;
mod sizes;
mod sockets;
mod sources;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ironclad_core::Verdict;
use serde::Deserialize;

pub use addresses::{DocumentAddresses, DocumentCountries};
pub use error::DocumentError;
pub use feeds::{
    DocumentChange, DocumentCoverage, DocumentEntries, DocumentFeed, DocumentFeedFormat,
    DocumentIfMissing,
};
pub use files::{DocumentFileOps, DocumentFileRule};
pub use packets::{DocumentBackend, DocumentSet, DocumentTuple};
pub use place::{KeyPath, Place, Step};
pub use problem::{NameKind, Problem};
pub use quantities::{DocumentBytes, DocumentTime};
#[cfg(feature = "schema")]
pub use schema::schema;
pub use sizes::{DocumentListLimits, DocumentPolicyLimits};
pub use sockets::{
    DocumentExe, DocumentLimit, DocumentPinnedExe, DocumentRule, DocumentRuleLimit,
    DocumentRuleSubject, DocumentSocketDefaults, DocumentSubject,
};
pub use sources::{Accounts, EtcAccounts, Feeds, NoFeed, Sources};
pub use values::{DocumentAccount, DocumentPorts, DocumentTo};

use fault::Fault;
use reader::Reader;
use tree::Tree;

/// What a policy file may have. Its prefixes are better kept in lists.
const MAX_BYTES: usize = 4 << 20;
/// A policy as it is written down. Keys that are not of the format are refused.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(title = "Ironclad policy"))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Document {
    /// What becomes of a packet that nothing matches.
    #[serde(default = "allow", deserialize_with = "values::verdict")]
    #[cfg_attr(feature = "schema", schemars(with = "schema::Verdict"))]
    pub default: Verdict,
    /// What becomes of a packet that cannot be parsed.
    #[serde(default = "drop", deserialize_with = "values::verdict")]
    #[cfg_attr(feature = "schema", schemars(with = "schema::Verdict"))]
    pub malformed: Verdict,
    /// What becomes of a frame that is neither IP nor ARP.
    #[serde(default = "allow", deserialize_with = "values::verdict")]
    #[cfg_attr(feature = "schema", schemars(with = "schema::Verdict"))]
    pub non_ip: Verdict,
    /// Whether IPv6 neighbour discovery passes first.
    #[serde(default = "yes")]
    pub neighbour_discovery: bool,
    /// Count and report; drop and deny nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// What holds the address sets in the kernel.
    #[serde(default)]
    pub backend: DocumentBackend,
    /// Events a second of packets that no rule dropped.
    #[serde(default = "packets::rate")]
    pub events_per_second: u32,
    /// Addresses that are never blocked while the policy is in force.
    #[serde(default, deserialize_with = "values::gateways")]
    #[cfg_attr(feature = "schema", schemars(with = "schema::AnyOf<IpAddr>"))]
    pub gateways: Vec<IpAddr>,
    /// Where the addresses of countries come from.
    pub countries: Option<DocumentCountries>,
    /// Address lists that are published elsewhere and that change.
    #[serde(default)]
    pub feeds: BTreeMap<String, DocumentFeed>,
    /// How large each list may become.
    #[serde(default)]
    pub list_limits: DocumentListLimits,
    /// How large the compiled policy may become, and how much room it makes.
    #[serde(default)]
    pub policy_limits: DocumentPolicyLimits,
    /// Addresses with names, for sets and rules.
    #[serde(default)]
    pub addresses: BTreeMap<String, DocumentAddresses>,
    /// Sets of packets, in the order in which they win.
    #[serde(default, deserialize_with = "values::list")]
    pub sets: Vec<DocumentSet>,
    /// Tuples.
    #[serde(default, deserialize_with = "values::list")]
    pub tuples: Vec<DocumentTuple>,
    /// Processes with names, for rules.
    #[serde(default)]
    pub subjects: BTreeMap<String, DocumentSubject>,
    /// Limits with names, for rules.
    #[serde(default)]
    pub limits: BTreeMap<String, DocumentLimit>,
    /// What becomes of what no rule matches.
    #[serde(default)]
    pub socket_defaults: DocumentSocketDefaults,
    /// Let processes open packet sockets, other sockets that reach other hosts without IP, and TUN devices,
    /// whatever rules and defaults of `create` say: only BPF LSM sees them.
    #[serde(default)]
    pub danger_packet_sockets_unseen: bool,
    /// Rules on connections and sockets. The first that matches decides.
    #[serde(default, deserialize_with = "values::list")]
    pub rules: Vec<DocumentRule>,
    /// Who may do what with which files, which Sentinel enforces. Every rule that covers a file decides.
    #[serde(default, deserialize_with = "values::list")]
    pub files: Vec<DocumentFileRule>,
    #[serde(skip)]
    source: Source,
}

/// What a document was read from, so that later errors have a place, too.
#[derive(Clone, Default)]
struct Source {
    file: Arc<str>,
    tree: Option<Arc<Tree>>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

fn allow() -> Verdict {
    Verdict::Allow
}

fn drop() -> Verdict {
    Verdict::Drop
}

fn yes() -> bool {
    true
}

impl Document {
    /// Reads a policy file. A named pipe is waited for, as by any other reader.
    ///
    /// # Errors
    /// [`Problem::Io`] and those of [`parse`](Self::parse).
    pub fn read(path: &Path) -> Result<Self, DocumentError> {
        let name = path.display().to_string();
        let failed = |source| DocumentError::new(&name, Fault::new(Problem::Io(source)));
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        // One more than it may have tells that there is more.
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > MAX_BYTES {
            let fault = Fault::new(Problem::TooLarge { limit: MAX_BYTES });
            return Err(DocumentError::new(&name, fault));
        }
        let text = tree::utf8(bytes).map_err(|fault| DocumentError::new(&name, fault))?;
        Self::parse(&name, &text)
    }

    /// Reads a policy from text; `name` stands for the file in errors. Names that the text gives
    /// and uses are compared; no other file is read.
    ///
    /// # Errors
    /// [`DocumentError`] with line and column, for text over 4 MiB, nested deeper than any policy,
    /// or without any key, too.
    pub fn parse(name: &str, text: &str) -> Result<Self, DocumentError> {
        Self::parse_behind(name, text, 0)
    }

    /// Like [`parse`](Self::parse), of text behind so many lines of the file: places are the file's.
    pub(crate) fn parse_behind(name: &str, text: &str, lines: u32) -> Result<Self, DocumentError> {
        let refused = |fault| DocumentError::new(name, fault);
        if text.len() > MAX_BYTES {
            return Err(refused(Fault::new(Problem::TooLarge { limit: MAX_BYTES })));
        }
        let tree = Tree::parse(text, lines).map_err(refused)?;
        let mut document = Self::deserialize(Reader::new(&tree).root()).map_err(refused)?;
        document.source = Source { file: name.into(), tree: Some(Arc::new(tree)) };
        document.check()?;
        Ok(document)
    }
}
