//! Policy files: YAML that names lists, sets and tuples. See `docs/policy-format.md`.
//!
//! ```
//! use ironclad_policy::document::Document;
//!
//! let text = "
//! default: drop
//! gateways: [10.0.0.1]
//! sets:
//!   - { rule: 1, name: office, action: allow, cidrs: [10.20.0.0/16] }
//! tuples:
//!   - { rule: 2, name: web, action: allow, protocol: tcp, dport: 443 }
//! ";
//! let document = Document::parse("policy.yaml", text)?;
//! let policy = document.policy("/etc/ironclad".as_ref())?.compile()?;
//! assert_eq!(policy.rules().len(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::cell::Cell;
use std::fmt;
use std::io::Read;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ironclad_core::{Action, Cidr, RuleId, Verdict};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::list::{AddressList, BadLines, ListError, ListOptions};
use crate::policy::{AddressSet, Backend, EVENTS_PER_SECOND, Policy, Protocol, TupleRule};

/// A policy as it is written down. Keys that are not of the format are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Document {
    /// What becomes of a packet that nothing matches.
    #[serde(default = "pass")]
    pub default: Verdict,
    /// What becomes of a packet that cannot be parsed.
    #[serde(default = "drop")]
    pub malformed: Verdict,
    /// What becomes of a frame that is neither IP nor ARP.
    #[serde(default = "pass")]
    pub non_ip: Verdict,
    /// Whether IPv6 neighbour discovery passes first.
    #[serde(default = "yes")]
    pub neighbour_discovery: bool,
    /// Count and report, drop nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// `flat` or `lpm-trie`.
    #[serde(default)]
    pub backend: DocumentBackend,
    /// Events a second of packets that no rule dropped.
    #[serde(default = "rate")]
    pub events_per_second: u32,
    /// Addresses that no policy blocks.
    #[serde(default, deserialize_with = "items")]
    pub gateways: Vec<IpAddr>,
    /// Sets, in the order in which they win.
    #[serde(default, deserialize_with = "items")]
    pub sets: Vec<DocumentSet>,
    /// Tuples.
    #[serde(default, deserialize_with = "items")]
    pub tuples: Vec<DocumentTuple>,
}

/// The name of a [`Backend`].
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DocumentBackend {
    /// [`Backend::Flat`].
    #[default]
    Flat,
    /// [`Backend::LpmTrie`].
    LpmTrie,
}

/// A set as it is written down.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DocumentSet {
    /// The rule's id.
    pub rule: RuleId,
    /// Its name.
    #[serde(deserialize_with = "short")]
    pub name: String,
    /// `drop`, `allow` or `log`.
    pub action: Action,
    /// Files, or folders whose `*.cidr`, `*.txt`, `*.ipset` and `*.netset` files are meant.
    #[serde(default, deserialize_with = "items")]
    pub lists: Vec<PathBuf>,
    /// Prefixes written here.
    #[serde(default, deserialize_with = "exact_items")]
    pub cidrs: Vec<Cidr>,
    /// `strict` or `lenient`.
    #[serde(default)]
    pub bad_lines: BadLines,
    /// Events a second at most.
    #[serde(default = "rate")]
    pub events_per_second: u32,
}

/// A tuple as it is written down.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DocumentTuple {
    /// The rule's id.
    pub rule: RuleId,
    /// Its name.
    #[serde(deserialize_with = "short")]
    pub name: String,
    /// `drop`, `allow` or `log`.
    pub action: Action,
    /// Source.
    #[serde(default, deserialize_with = "exact")]
    pub src: Option<Cidr>,
    /// Destination.
    #[serde(default, deserialize_with = "exact")]
    pub dst: Option<Cidr>,
    /// Destination port.
    pub dport: Option<u16>,
    /// A protocol's name or number.
    pub protocol: Option<Protocol>,
    /// Events a second at most.
    #[serde(default = "rate")]
    pub events_per_second: u32,
}

/// What a policy file may have. Its prefixes are better kept in lists.
const MAX_BYTES: usize = 4 << 20;
/// Items of lists, each time that an alias repeats them. Prefixes are better kept in list files.
const MAX_ITEMS: usize = 250_000;
/// Brackets, or list markers at the beginning of a line, within each other: a policy needs four.
const MAX_DEPTH: usize = 32;

/// The first line that is nested too deep. The reader would take a time that grows with its square.
fn too_deep(text: &str) -> Option<usize> {
    let mut open = 0usize;
    text.lines()
        .position(|line| {
            let markers = line.chars().take_while(|c| matches!(c, ' ' | '-' | '?' | ':' | '\t'));
            let markers = markers.filter(|&c| c != ' ').count();
            for c in line.chars() {
                match c {
                    '[' | '{' => open += 1,
                    ']' | '}' => open = open.saturating_sub(1),
                    _ => {}
                }
                if open > MAX_DEPTH {
                    return true;
                }
            }
            let indent = line.chars().take_while(|&c| c == ' ').count();
            markers > MAX_DEPTH && !line.starts_with("---") || indent > 8 * MAX_DEPTH
        })
        .map(|line| line + 1)
}

thread_local! {
    /// Items that the document being read may still have.
    static ITEMS_LEFT: Cell<usize> = const { Cell::new(0) };
}

/// A sequence that ends where the document has too many items: a few bytes of aliases are many.
fn items<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct Items<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a sequence")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                let left = ITEMS_LEFT.get().checked_sub(1).ok_or_else(|| {
                    de::Error::custom(format!(
                        "more than {MAX_ITEMS} items, aliases counted each time: keep prefixes in lists"
                    ))
                })?;
                ITEMS_LEFT.set(left);
                items.push(item);
            }
            Ok(items)
        }
    }

    from.deserialize_seq(Items(PhantomData))
}

/// A prefix without host bits. Lists have theirs cleared and told; here a person can mend them.
struct Exact(Cidr);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let cidr: Cidr = text.parse().map_err(de::Error::custom)?;
        let written = text.split('/').next().and_then(|addr| addr.parse::<IpAddr>().ok());
        if written.is_some_and(|addr| addr != cidr.addr()) {
            return Err(de::Error::custom(format!("`{text}` has host bits: write {cidr}")));
        }
        Ok(Self(cidr))
    }
}

fn exact_items<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Cidr>, D::Error> {
    Ok(items::<Exact, D>(from)?.into_iter().map(|Exact(cidr)| cidr).collect())
}

fn exact<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Cidr>, D::Error> {
    Ok(Option::<Exact>::deserialize(from)?.map(|Exact(cidr)| cidr))
}

/// A name that can be repeated without filling the memory.
fn short<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    match name.len() {
        ..=512 => Ok(name),
        _ => Err(de::Error::custom("the name has more than 512 bytes")),
    }
}

fn pass() -> Verdict {
    Verdict::Pass
}

fn drop() -> Verdict {
    Verdict::Drop
}

fn yes() -> bool {
    true
}

fn rate() -> u32 {
    EVENTS_PER_SECOND
}

/// Why a policy file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is not of the format; the message names line and column.
    #[error("{name}: {message}")]
    Format {
        /// The file.
        name: String,
        /// What is wrong, and where.
        message: String,
    },
    /// A list of a set cannot be read.
    #[error("set `{set}`: {source}")]
    List {
        /// The set.
        set: String,
        /// Why.
        source: ListError,
    },
}

impl Document {
    /// Reads a policy file.
    ///
    /// # Errors
    /// [`DocumentError::Io`] and those of [`parse`](Self::parse).
    pub fn read(path: &Path) -> Result<Self, DocumentError> {
        let failed = |source| DocumentError::Io { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut text = String::new();
        // One more than it may have tells that there is more.
        file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text).map_err(failed)?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads a policy from text; `name` stands for the file in errors.
    ///
    /// # Errors
    /// [`DocumentError::Format`] with line and column; for text without any key, over 4 MiB, or
    /// nested deeper than any policy.
    pub fn parse(name: &str, text: &str) -> Result<Self, DocumentError> {
        let refused = |message| DocumentError::Format { name: name.to_owned(), message };
        if text.len() > MAX_BYTES {
            return Err(refused(format!(
                "it has more than {MAX_BYTES} bytes: keep prefixes in lists, which may be longer"
            )));
        }
        if let Some(line) = too_deep(text) {
            return Err(refused(format!("line {line} is nested deeper than any policy")));
        }
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Err(refused(
                "it says nothing: a policy that lets everything pass is `default: pass`".to_owned(),
            ));
        }
        ITEMS_LEFT.set(MAX_ITEMS);
        serde_norway::from_str(text).map_err(|e| {
            let mut message = e.to_string();
            // The reader knows no place for a key of the outermost mapping.
            if let (false, Some(key)) = (message.contains(" at line "), message.split('`').nth(1)) {
                let is_key = |(_, line): &(usize, &str)| {
                    line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':'))
                };
                let mut places = text.lines().enumerate().filter(is_key);
                let place =
                    if message.contains("duplicate") { places.last() } else { places.next() };
                if let Some((line, _)) = place {
                    message = format!("{message} at line {} column 1", line + 1);
                }
            }
            refused(message)
        })
    }

    /// Reads the lists, whose paths begin at `folder`, and describes the policy.
    ///
    /// # Errors
    /// [`DocumentError::List`], naming set, file, line and column.
    pub fn policy(&self, folder: &Path) -> Result<Policy, DocumentError> {
        let mut policy = Policy::builder()
            .default_action(self.default)
            .malformed(self.malformed)
            .non_ip(self.non_ip)
            .neighbour_discovery(self.neighbour_discovery)
            .dry_run(self.dry_run)
            .default_events_per_second(self.events_per_second)
            .backend(match self.backend {
                DocumentBackend::Flat => Backend::Flat,
                DocumentBackend::LpmTrie => Backend::LpmTrie,
            });
        for set in &self.sets {
            policy = policy.set(set.read(folder)?);
        }
        for tuple in &self.tuples {
            let DocumentTuple { rule, name, action, src, dst, dport, protocol, .. } = tuple;
            let mut described = TupleRule::new(*rule, name.clone(), *action)
                .events_per_second(tuple.events_per_second);
            if let Some(src) = src {
                described = described.src(*src);
            }
            if let Some(dst) = dst {
                described = described.dst(*dst);
            }
            if let Some(dport) = dport {
                described = described.dport(*dport);
            }
            if let Some(protocol) = protocol {
                described = described.protocol(*protocol);
            }
            policy = policy.tuple(described);
        }
        Ok(policy)
    }
}

impl DocumentSet {
    fn read(&self, folder: &Path) -> Result<AddressSet, DocumentError> {
        let options = ListOptions::new().bad_lines(self.bad_lines);
        let failed = |source| DocumentError::List { set: self.name.clone(), source };
        let mut set = AddressSet::new(self.rule, self.name.clone(), self.action)
            .events_per_second(self.events_per_second);
        if !self.cidrs.is_empty() {
            set = set.cidrs(self.cidrs.iter().copied());
        }
        for list in &self.lists {
            let path = folder.join(list);
            if !path.is_dir() {
                set = set.list(AddressList::read(&path, &options).map_err(failed)?);
                continue;
            }
            let mut none = None;
            let mut any = false;
            for extension in ["cidr", "txt", "ipset", "netset"] {
                match AddressList::read_dir(&path, extension, &options) {
                    Ok(lists) => {
                        any = true;
                        set = lists.into_iter().fold(set, AddressSet::list);
                    }
                    Err(e @ ListError::NoLists { .. }) => none = Some(e),
                    Err(e) => return Err(failed(e)),
                }
            }
            if let Some(none) = none.filter(|_| !any) {
                return Err(failed(none));
            }
        }
        Ok(set)
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u8),
            Name(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(Self(number)),
            Either::Name(name) => Self::by_name(&name).ok_or_else(|| {
                serde::de::Error::custom(format!(
                    "`{name}` is no protocol: expected tcp, udp, icmp, icmpv6, sctp, dccp, udplite or a number from 0 to 255"
                ))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Document::parse("p.yaml", text).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_place_and_the_cause() {
        let text = error("default: pass\nsets:\n  - { rule: 1, name: a, action: block }\n");
        assert!(text.starts_with("p.yaml: ") && text.contains("line 3"), "{text}");
        assert!(text.contains("`block`") && text.contains("`drop`"), "{text}");
        let text = error("defualt: drop\n");
        assert!(text.contains("`defualt`") && text.contains("line 1"), "{text}");
        let text = error("sets:\n  - { rule: 1, name: a, action: drop, cidrs: [10.0.0.0/33] }\n");
        assert!(text.contains("`/33` is not a prefix length"), "{text}");
        let text = error("tuples:\n  - { rule: 1, name: a, action: drop, protocol: tpc }\n");
        assert!(text.contains("`tpc` is no protocol"), "{text}");
        assert!(error("- 1\n").contains("p.yaml"));
        let text = error("default: pass\ndefault: drop\n");
        assert!(text.contains("duplicate") && text.contains("line 2"), "{text}");
        let text = error("sets:\n  - { rule: 1, name: a, action: drop, cidrs: [10.1.2.3/8] }\n");
        assert!(text.contains("`10.1.2.3/8` has host bits: write 10.0.0.0/8"), "{text}");
        let text =
            error("tuples:\n  - { rule: 1, name: a, action: drop, src: \"2001:db8::1/32\" }\n");
        assert!(text.contains("has host bits: write 2001:db8::/32"), "{text}");
        for nothing in ["", "\n\n", "# a policy\n  # of comments\n"] {
            assert!(error(nothing).contains("says nothing"), "{nothing}");
        }
    }

    #[test]
    fn what_would_take_for_ever_is_refused() {
        let deep = error(&format!("default: pass\nsets: {}\n", "[".repeat(200_000)));
        assert!(deep.contains("line 2 is nested deeper"), "{deep}");
        assert!(error(&format!("x: {}", "{a: ".repeat(100_000))).contains("nested deeper"));
        assert!(error(&"- ".repeat(100_000)).contains("nested deeper"));
        let lines: String = (0..1000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        assert!(error(&lines).contains("nested deeper"));
        let many = "10.0.0.1, ".repeat(60_000);
        let many = format!(
            "sets:\n  - &s {{ rule: 1, name: a, action: drop, cidrs: [{many}] }}\n{}",
            "  - *s\n".repeat(3000)
        );
        assert!(error(&many).contains("more than 250000 items"), "{}", error(&many));
        let long = format!("sets: [{{ rule: 1, name: {}, action: drop }}]\n", "a".repeat(1000));
        assert!(error(&long).contains("more than 512 bytes"));
        assert!(error(&" ".repeat(MAX_BYTES + 1)).contains("more than"));
        let error = Document::read("/dev/zero".as_ref()).unwrap_err().to_string();
        assert!(error.starts_with("/dev/zero: it has more than"), "{error}");
    }

    #[test]
    fn lists_are_found_beside_the_document() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("geo")).unwrap();
        std::fs::write(folder.path().join("geo/xx.cidr"), "192.0.2.0/24\n").unwrap();
        std::fs::write(folder.path().join("bad.txt"), "198.51.100.7\nnonsense\n").unwrap();
        let text = |bad_lines| {
            format!(
                "sets:\n  - {{ rule: 1, name: geo, action: drop, lists: [geo] }}\n  - {{ rule: 2, name: bad, action: drop, lists: [bad.txt], bad-lines: {bad_lines} }}\n"
            )
        };
        let lenient = Document::parse("p.yaml", &text("lenient")).unwrap();
        let lenient = lenient.policy(folder.path()).unwrap();
        assert_eq!(lenient.reports().map(|report| report.skipped).sum::<u64>(), 1);
        let policy = |text: String| Document::parse("p.yaml", &text).unwrap().policy(folder.path());
        let compiled = policy(text("lenient")).unwrap().compile().unwrap();
        let why = compiled.explain("192.0.2.5".parse().unwrap()).to_string();
        assert!(why.contains("rule 1 (`geo`)") && why.ends_with("geo/xx.cidr:1"), "{why}");
        let refused = policy(text("strict")).unwrap_err().to_string();
        assert!(refused.contains("set `bad`") && refused.contains("bad.txt:2:1"), "{refused}");
    }
}
