//! What a document says of processes and their sockets: subjects, limits, rules.

use std::fmt;
use std::path::PathBuf;

use ironclad_core::{RuleId, SocketProtocol, SocketVerdict};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::packets::rate;
use super::values::{self, DocumentAccount, DocumentPorts, DocumentTo};
use crate::sha256::Sha256Sum;
use crate::socket::{Direction, LimitScope, RateLimit, SocketAction};

/// Which process. Each key that is there must hold; of several values of one key, one suffices.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DocumentSubject {
    /// It executes this file.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<DocumentExe>"))]
    pub exe: Vec<DocumentExe>,
    /// The process that forked it executed this file at that moment.
    #[serde(default, deserialize_with = "some_paths")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<PathBuf>"))]
    pub parent: Vec<PathBuf>,
    /// It, before its present execve(2), or one that it descends from executed this file.
    #[serde(default, deserialize_with = "some_paths")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<PathBuf>"))]
    pub descendant_of: Vec<PathBuf>,
    /// Its real user, by number or name.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "super::schema::SomeOf<super::schema::Account>")
    )]
    pub uid: Vec<DocumentAccount>,
    /// Its real group, by number or name.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "super::schema::SomeOf<super::schema::Account>")
    )]
    pub gid: Vec<DocumentAccount>,
    /// It is in this cgroup or in one below.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<String>"))]
    pub cgroup: Vec<String>,
    /// It is in this container: by its id, or by twelve or more of the id's first digits.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<String>"))]
    pub container: Vec<String>,
    /// The name that its thread gives itself, which any process may take.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<String>"))]
    pub spoofable_comm: Vec<String>,
}

impl DocumentSubject {
    pub(super) fn is_empty(&self) -> bool {
        self.exe.is_empty()
            && self.parent.is_empty()
            && self.descendant_of.is_empty()
            && self.uid.is_empty()
            && self.gid.is_empty()
            && self.cgroup.is_empty()
            && self.container.is_empty()
            && self.spoofable_comm.is_empty()
    }
}

/// An executable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(untagged))]
#[non_exhaustive]
pub enum DocumentExe {
    /// Its path.
    Path(PathBuf),
    /// Its path, and what its content has to be.
    Pinned(DocumentPinnedExe),
}

/// An executable with the content that it has to have. A process that executes another is denied
/// everything.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DocumentPinnedExe {
    /// Its path.
    pub path: PathBuf,
    /// The SHA-256 of its content.
    #[serde(deserialize_with = "values::sha256")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::Sha256"))]
    pub sha256: Sha256Sum,
}

/// A path that nothing but a path can be.
struct Unpinned(PathBuf);

fn some_paths<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
    Ok(values::some::<Unpinned, D>(from)?.into_iter().map(|Unpinned(path)| path).collect())
}

/// A token bucket. What is over it is denied.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DocumentLimit {
    /// Tokens a second.
    #[serde(deserialize_with = "values::tokens")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1_000_000)))]
    pub per_second: u32,
    /// Tokens at once after a pause; as many as a second brings, unless it is said.
    #[serde(default, deserialize_with = "values::maybe_tokens")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::Tokens"))]
    pub burst: Option<u32>,
    /// What is counted together.
    #[serde(default)]
    pub per: LimitScope,
}

impl DocumentLimit {
    /// With the name under which rules share it.
    pub(super) fn limit(&self, name: &str) -> RateLimit {
        let limit = RateLimit::per_second(self.per_second);
        limit.burst(self.burst.unwrap_or(self.per_second)).shared(name, self.per)
    }
}

/// What becomes of what no rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DocumentSocketDefaults {
    /// Of connections and datagrams.
    #[serde(default = "allow", deserialize_with = "values::socket_verdict")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SocketVerdict"))]
    pub out: SocketVerdict,
    /// Of binding to an address and port.
    #[serde(default = "allow", rename = "in", deserialize_with = "values::socket_verdict")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SocketVerdict"))]
    pub in_: SocketVerdict,
    /// Of raw sockets, packet sockets and those of protocols other than TCP and UDP.
    #[serde(default = "allow", deserialize_with = "values::socket_verdict")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SocketVerdict"))]
    pub create: SocketVerdict,
}

impl Default for DocumentSocketDefaults {
    fn default() -> Self {
        Self { out: SocketVerdict::Allow, in_: SocketVerdict::Allow, create: SocketVerdict::Allow }
    }
}

fn allow() -> SocketVerdict {
    SocketVerdict::Allow
}

/// Rules on connections and sockets. What is not said matches anything, except the direction.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DocumentRule {
    /// The rule's id.
    #[cfg_attr(feature = "schema", schemars(with = "u32"))]
    pub id: RuleId,
    /// Its name.
    #[serde(deserialize_with = "values::short")]
    pub name: String,
    /// What becomes of it.
    pub action: SocketAction,
    /// The direction.
    #[serde(default = "out")]
    pub direction: Direction,
    /// Which process: a name under `subjects`, or what would stand there.
    #[serde(alias = "who")]
    pub subject: Option<DocumentRuleSubject>,
    /// Names under `addresses`, addresses and prefixes.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<String>"))]
    pub to: Vec<DocumentTo>,
    /// Ports and ranges of ports.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<super::schema::Ports>"))]
    pub ports: Vec<DocumentPorts>,
    /// Names or numbers of protocols.
    #[serde(default, deserialize_with = "values::socket_protocols")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "super::schema::SomeOf<super::schema::Protocol>")
    )]
    pub protocol: Vec<SocketProtocol>,
    /// What is over it is denied: a name under `limits`, or what would stand there.
    pub limit: Option<DocumentRuleLimit>,
    /// Whether what it allows is reported, too.
    #[serde(default)]
    pub report: bool,
    /// Count and report what it would deny, and allow it.
    #[serde(default)]
    pub dry_run: bool,
    /// Events a second at most.
    #[serde(default = "rate")]
    pub events_per_second: u32,
}

fn out() -> Direction {
    Direction::Out
}

/// The subject of a rule.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(untagged))]
#[non_exhaustive]
pub enum DocumentRuleSubject {
    /// A name under `subjects`.
    Name(String),
    /// A subject of this rule alone.
    Inline(Box<DocumentSubject>),
}

/// The limit of a rule.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(untagged))]
#[non_exhaustive]
pub enum DocumentRuleLimit {
    /// A name under `limits`.
    Name(String),
    /// A limit of this rule alone.
    Inline(DocumentLimit),
}

impl<'de> Deserialize<'de> for DocumentExe {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Exe;

        impl<'de> Visitor<'de> for Exe {
            type Value = DocumentExe;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or `path` and `sha256` in braces")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<DocumentExe, E> {
                Ok(DocumentExe::Path(path.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DocumentExe, A::Error> {
                let pinned = DocumentPinnedExe::deserialize(MapAccessDeserializer::new(map))?;
                Ok(DocumentExe::Pinned(pinned))
            }
        }

        from.deserialize_str(Exe)
    }
}

impl<'de> Deserialize<'de> for Unpinned {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Path;

        impl<'de> Visitor<'de> for Path {
            type Value = Unpinned;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path: only `exe` takes a `sha256`")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<Unpinned, E> {
                Ok(Unpinned(path.into()))
            }
        }

        from.deserialize_str(Path)
    }
}

impl<'de> Deserialize<'de> for DocumentRuleSubject {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Subject;

        impl<'de> Visitor<'de> for Subject {
            type Value = DocumentRuleSubject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a subject, or a subject in braces")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<DocumentRuleSubject, E> {
                Ok(DocumentRuleSubject::Name(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DocumentRuleSubject, A::Error> {
                let subject = DocumentSubject::deserialize(MapAccessDeserializer::new(map))?;
                Ok(DocumentRuleSubject::Inline(Box::new(subject)))
            }
        }

        from.deserialize_str(Subject)
    }
}

impl<'de> Deserialize<'de> for DocumentRuleLimit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Limit;

        impl<'de> Visitor<'de> for Limit {
            type Value = DocumentRuleLimit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a limit, or a limit in braces")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<DocumentRuleLimit, E> {
                Ok(DocumentRuleLimit::Name(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DocumentRuleLimit, A::Error> {
                let limit = DocumentLimit::deserialize(MapAccessDeserializer::new(map))?;
                Ok(DocumentRuleLimit::Inline(limit))
            }
        }

        from.deserialize_str(Limit)
    }
}
