//! What a document says of packets: sets and tuples.

use std::path::PathBuf;

use ironclad_core::{Action, Cidr, Protocol, RuleId};
use serde::Deserialize;

use super::values;
use crate::country::CountryCode;
use crate::limits::EVENTS_PER_SECOND;
use crate::list::BadLines;
use crate::policy::Backend;
use crate::tuple::TupleRule;

/// What holds the address sets in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DocumentBackend {
    /// Several times faster.
    #[default]
    Flat,
    /// The kernel's own.
    LpmTrie,
}

impl From<DocumentBackend> for Backend {
    fn from(backend: DocumentBackend) -> Self {
        match backend {
            DocumentBackend::Flat => Self::Flat,
            DocumentBackend::LpmTrie => Self::LpmTrie,
        }
    }
}

/// Packets by their source.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DocumentSet {
    /// The rule's id.
    #[cfg_attr(feature = "schema", schemars(with = "u32"))]
    #[serde(alias = "rule")]
    pub id: RuleId,
    /// Its name.
    #[serde(deserialize_with = "values::short")]
    pub name: String,
    /// What becomes of the packets.
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::Action"))]
    pub action: Action,
    /// Files, or folders whose `*.cidr`, `*.txt`, `*.ipset` and `*.netset` files are meant.
    #[serde(default, deserialize_with = "values::any")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::AnyOf<PathBuf>"))]
    pub lists: Vec<PathBuf>,
    /// Prefixes written here.
    #[serde(default, deserialize_with = "values::exact_any")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::AnyOf<String>"))]
    pub cidrs: Vec<Cidr>,
    /// Names under `addresses`.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<String>"))]
    pub addresses: Vec<String>,
    /// Countries by their ISO codes.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "super::schema::SomeOf<super::schema::Country>")
    )]
    pub countries: Vec<CountryCode>,
    /// Names of feeds.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<String>"))]
    pub feeds: Vec<String>,
    /// What becomes of lists with lines that cannot be read.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::BadLines"))]
    pub bad_lines: BadLines,
    /// Events a second at most.
    #[serde(default = "rate")]
    pub events_per_second: u32,
}

/// Packets by addresses, port and protocol. What is not said matches anything.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DocumentTuple {
    /// The rule's id.
    #[cfg_attr(feature = "schema", schemars(with = "u32"))]
    #[serde(alias = "rule")]
    pub id: RuleId,
    /// Its name.
    #[serde(deserialize_with = "values::short")]
    pub name: String,
    /// What becomes of the packets.
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::Action"))]
    pub action: Action,
    /// Source.
    #[serde(default, deserialize_with = "values::exact")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub src: Option<Cidr>,
    /// Destination.
    #[serde(default, deserialize_with = "values::exact")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub dst: Option<Cidr>,
    /// Destination port.
    pub dport: Option<u16>,
    /// A protocol's name or number.
    #[serde(default, deserialize_with = "values::maybe_ip_protocol")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<super::schema::IpProtocol>"))]
    pub protocol: Option<Protocol>,
    /// Events a second at most.
    #[serde(default = "rate")]
    pub events_per_second: u32,
}

impl DocumentTuple {
    pub(super) fn rule(&self) -> TupleRule {
        let mut rule = TupleRule::new(self.id, self.name.clone(), self.action)
            .events_per_second(self.events_per_second);
        if let Some(src) = self.src {
            rule = rule.src(src);
        }
        if let Some(dst) = self.dst {
            rule = rule.dst(dst);
        }
        if let Some(dport) = self.dport {
            rule = rule.dport(dport);
        }
        if let Some(protocol) = self.protocol {
            rule = rule.protocol(protocol);
        }
        rule
    }
}

pub(super) fn rate() -> u32 {
    EVENTS_PER_SECOND
}
