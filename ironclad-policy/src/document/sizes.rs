//! How large lists, and the policy that is compiled, may become. What is not said is as of the library's options.

use std::num::NonZeroU32;

use serde::Deserialize;

use super::quantities::DocumentBytes;
use crate::limits::Limits;
use crate::list::ListOptions;

/// How large the compiled policy may become, and how much room the first policy of an instance makes
/// for socket rules of later ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct DocumentPolicyLimits {
    /// Kernel memory of the policy's own maps; 512 MiB unless it is said.
    #[cfg_attr(feature = "schema", schemars(with = "Option<super::schema::Bytes>"))]
    pub max_bytes: Option<DocumentBytes>,
    /// Distinct prefixes of sets; 8 million unless it is said.
    pub max_prefixes: Option<u64>,
    /// Tuples; 1 million unless it is said.
    pub max_tuples: Option<u64>,
    /// Socket rules of two policies that have their own counters, at most 32,768; twice as many as the policy
    /// has, and at least 4,096, unless it is said.
    pub socket_rule_slots: Option<NonZeroU32>,
    /// Rows of socket rules, of 1,568 bytes each, at most 65,536; twice as many as the policy needs, and at
    /// least 1,024, unless it is said.
    pub socket_rows: Option<NonZeroU32>,
    /// Cells of addresses of socket rules, of 64 bytes each; twice as many as the policy needs, and at least
    /// 65,536, unless it is said.
    pub socket_cells: Option<NonZeroU32>,
}

/// How large each list may become that the file names. Feeds have limits of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct DocumentListLimits {
    /// Of a file; 64 MiB unless it is said.
    #[cfg_attr(feature = "schema", schemars(with = "Option<super::schema::Bytes>"))]
    pub max_bytes: Option<DocumentBytes>,
    /// Entries, ranges counted as their prefixes; 4 million unless it is said.
    pub max_entries: Option<u32>,
    /// Bad lines that `bad-lines: lenient` skips at most; 100,000 unless it is said.
    pub max_skipped: Option<u64>,
}

impl DocumentPolicyLimits {
    pub(super) fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        limits.max_bytes = self.max_bytes.map_or(limits.max_bytes, |DocumentBytes(bytes)| bytes);
        limits.max_prefixes = self.max_prefixes.unwrap_or(limits.max_prefixes);
        limits.max_tuples = self.max_tuples.unwrap_or(limits.max_tuples);
        limits.socket_rule_slots = self.socket_rule_slots.map(NonZeroU32::get);
        limits.socket_rows = self.socket_rows.map(NonZeroU32::get);
        limits.socket_cells = self.socket_cells.map(NonZeroU32::get);
        limits
    }
}

impl DocumentListLimits {
    pub(super) fn options(&self) -> ListOptions {
        let mut options = ListOptions::new();
        options.max_bytes = self.max_bytes.map_or(options.max_bytes, |DocumentBytes(bytes)| bytes);
        options.max_entries = self.max_entries.map_or(options.max_entries, |max| max as usize);
        options.max_skipped = self.max_skipped.unwrap_or(options.max_skipped);
        options
    }
}
