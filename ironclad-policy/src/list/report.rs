use std::fmt;
use std::sync::Arc;

use ironclad_core::Cidr;

use super::LineError;

/// An account of how a list was read.
///
/// Each line counts once: `blank`, `comments`, `directives` and `skipped` are lines without an
/// entry, a line of another format has one or more. In [`ListFormat::Stix`](super::ListFormat::Stix) it is objects
/// that count once, `inactive` and `other_patterns` among those without an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListReport {
    /// The list's path or name.
    pub name: Arc<str>,
    /// Lines.
    pub lines: u32,
    /// Entries, after ranges have become prefixes.
    pub entries: usize,
    /// Empty lines.
    pub blank: u64,
    /// Lines that are a comment and nothing else.
    pub comments: u64,
    /// Lines that say something about the list: ipset commands other than `add`, JSON metadata, the
    /// header of a table. In STIX, objects that are no indicators.
    pub directives: u64,
    /// Lines that are a range of addresses.
    pub ranges: u64,
    /// Lines of ipset entries whose `timeout` is not kept: they stay until the list is read again.
    pub timeouts: u64,
    /// Rows with a port, which is not kept: the entry is the whole address.
    pub ports: u64,
    /// STIX indicators that are revoked, or outside their time.
    pub inactive: u64,
    /// STIX indicators about something else than addresses, or about more, such as an address
    /// together with a port. Those that name an address or something else have their entry, too.
    pub other_patterns: u64,
    /// Prefixes with host bits, which were cleared.
    pub normalised: u64,
    /// The first of them, as many as [`ListOptions::max_errors`](super::ListOptions::max_errors).
    pub first_normalised: Vec<Normalised>,
    /// Why the list stands empty: it is that of a feed which has no good version. None for other lists.
    pub missing: Option<String>,
    /// Bad lines.
    pub skipped: u64,
    /// The errors of the first of them, as many as
    /// [`ListOptions::max_errors`](super::ListOptions::max_errors).
    pub errors: Vec<LineError>,
}

/// A prefix that was written with host bits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Normalised {
    /// The line, from 1.
    pub line: u32,
    /// What was written.
    pub text: String,
    /// What it was taken for.
    pub cidr: Cidr,
}

impl fmt::Display for Normalised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: `{}` has host bits, read as {}", self.line, self.text, self.cidr)
    }
}

impl ListReport {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            lines: 0,
            entries: 0,
            blank: 0,
            comments: 0,
            directives: 0,
            ranges: 0,
            timeouts: 0,
            ports: 0,
            inactive: 0,
            other_patterns: 0,
            normalised: 0,
            first_normalised: Vec::new(),
            missing: None,
            skipped: 0,
            errors: Vec::new(),
        }
    }
}

/// A summary in one line, then a line for each normalised entry and each error that was kept.
impl fmt::Display for ListReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.missing {
            return write!(f, "{}: stands empty: {why}", self.name);
        }
        write!(f, "{}: {} entries from {} lines", self.name, self.entries, self.lines)?;
        let counts = [
            (self.normalised, "normalised"),
            (self.timeouts, "with a timeout that is not kept"),
            (self.ports, "with a port that is not kept"),
            (self.inactive, "not in force"),
            (self.other_patterns, "with a pattern of other things than addresses"),
            (self.skipped, "bad and skipped"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        self.first_normalised.iter().try_for_each(|entry| write!(f, "\n  {entry}"))?;
        self.errors.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}
