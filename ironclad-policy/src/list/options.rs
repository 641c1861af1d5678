use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::ListFormat;

/// What becomes of a list that has bad lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BadLines {
    /// One bad line refuses the list.
    #[default]
    Strict,
    /// Bad lines are skipped and counted.
    ///
    /// The list is still refused where it has bad lines and not one entry, as when a server sends
    /// a web page in place of a feed, and where more than [`ListOptions::max_skipped`] are bad.
    Lenient,
}

/// How a list is read, and how much of it at most.
///
/// ```
/// use ironclad_policy::list::{BadLines, ListOptions};
///
/// let options = ListOptions::new().bad_lines(BadLines::Lenient).max_bytes(1 << 20);
/// assert_eq!(options.max_entries, 4_000_000);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListOptions {
    /// How the text is laid out. Default: [`ListFormat::Lines`].
    pub format: ListFormat,
    /// The time at which what a list says of times is judged; none stands for the time of reading.
    /// Only [`ListFormat::Stix`] says anything of times. Default: none.
    pub at: Option<SystemTime>,
    /// What becomes of a list that has bad lines. Default: [`BadLines::Strict`].
    pub bad_lines: BadLines,
    /// Bytes of the largest list. Default: 64 MiB.
    pub max_bytes: u64,
    /// Entries of the longest list, after ranges have become prefixes. Default: 4,000,000.
    pub max_entries: usize,
    /// Errors, and normalised entries, that are kept for people to read; further ones are only
    /// counted. Default: 20.
    pub max_errors: usize,
    /// Bad lines that [`BadLines::Lenient`] puts up with. Default: 100,000.
    pub max_skipped: u64,
}

impl Default for ListOptions {
    fn default() -> Self {
        Self {
            format: ListFormat::Lines,
            at: None,
            bad_lines: BadLines::Strict,
            max_bytes: 64 << 20,
            max_entries: 4_000_000,
            max_errors: 20,
            max_skipped: 100_000,
        }
    }
}

impl ListOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how the text is laid out.
    pub fn format(mut self, format: ListFormat) -> Self {
        self.format = format;
        self
    }

    /// Sets the time at which what a list says of times is judged.
    pub fn at(mut self, at: SystemTime) -> Self {
        self.at = Some(at);
        self
    }

    /// Sets what becomes of a list that has bad lines.
    pub fn bad_lines(mut self, bad_lines: BadLines) -> Self {
        self.bad_lines = bad_lines;
        self
    }

    /// Sets the bytes of the largest list.
    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Sets the entries of the longest list.
    pub fn max_entries(mut self, max_entries: usize) -> Self {
        self.max_entries = max_entries;
        self
    }

    /// Sets how many errors, and how many normalised entries, are kept for people to read.
    pub fn max_errors(mut self, max_errors: usize) -> Self {
        self.max_errors = max_errors;
        self
    }

    /// Sets how many bad lines [`BadLines::Lenient`] puts up with.
    pub fn max_skipped(mut self, max_skipped: u64) -> Self {
        self.max_skipped = max_skipped;
        self
    }
}
