use std::borrow::Cow;
use std::fmt::{self, Write};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Characters of an offending text that are shown.
const SHOWN: usize = 60;

/// A line that cannot be read.
///
/// Shown as `bad.txt:12:5: `10.0.0.300`: expected …`, the form that editors jump to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct LineError {
    /// The list's path or name.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1, at which the text begins. A byte that is not UTF-8
    /// counts as a character.
    pub column: u32,
    /// The offending text, empty where something is missing. Control characters and bytes that are not
    /// UTF-8 are escaped; of a long text the beginning is shown, with `…` after it.
    pub text: String,
    /// What was expected in its place.
    pub expected: Cow<'static, str>,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, text, expected } = self;
        write!(f, "{file}:{line}:{column}: ")?;
        match text.as_str() {
            "" => f.write_str("nothing")?,
            text => write!(f, "`{text}`")?,
        }
        write!(f, ": expected {expected}")
    }
}

/// Why a list was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The file, or the directory, cannot be read.
    #[error("cannot read {} (check the path and its permissions)", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A directory stands where a list was expected.
    #[error(
        "{} is a directory, not a list: name a file in it, \
         or read all of its lists with `AddressList::read_dir`",
        path.display()
    )]
    Directory {
        /// Which.
        path: PathBuf,
    },
    /// A directory has no list.
    #[error(
        "{} has no file whose name ends in `.{extension}`: check the directory and the extension",
        dir.display()
    )]
    NoLists {
        /// Which directory.
        dir: PathBuf,
        /// The extension that was looked for, without its dot.
        extension: String,
    },
    /// The list is no text yet.
    #[error(
        "{name} is {format}, not a list in UTF-8 text: convert it first, e.g. with `{command}`"
    )]
    Encoded {
        /// The list's path or name.
        name: String,
        /// What it is.
        format: &'static str,
        /// What makes a list of it.
        command: &'static str,
    },
    /// The list has more bytes than [`ListOptions::max_bytes`](super::ListOptions::max_bytes).
    #[error(
        "{name} is larger than {limit} bytes: raise `max_bytes` (in a policy file \
         `list-limits.max-bytes`), or check that it is a list"
    )]
    TooLarge {
        /// The list's path or name.
        name: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The list has more entries than
    /// [`ListOptions::max_entries`](super::ListOptions::max_entries).
    #[error(
        "{name}:{line}: more than {limit} entries: raise `max_entries` (in a policy file \
         `list-limits.max-entries`, of a feed `entries.max`), or split the list"
    )]
    TooManyEntries {
        /// The list's path or name.
        name: String,
        /// The line of the first entry that is too many.
        line: u32,
        /// The limit.
        limit: usize,
    },
    /// Bad lines refuse the list.
    #[error("{}", Refused { name, errors, total: *total, refusal: *refusal })]
    Bad {
        /// The list's path or name.
        name: String,
        /// The first of the errors, in the order of their lines; as many as
        /// [`ListOptions::max_errors`](super::ListOptions::max_errors).
        errors: Vec<LineError>,
        /// How many lines are bad.
        total: u64,
        /// The rule by which they refuse the list.
        refusal: Refusal,
    },
}

/// The rule by which bad lines refuse a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// [`BadLines::Strict`](super::BadLines::Strict): any bad line does.
    Strict,
    /// [`BadLines::Lenient`](super::BadLines::Lenient), but no line has an entry.
    NothingGood,
    /// [`BadLines::Lenient`](super::BadLines::Lenient), but more lines are bad than
    /// [`ListOptions::max_skipped`](super::ListOptions::max_skipped).
    TooManySkipped {
        /// The limit.
        limit: u64,
    },
}

/// How [`ListError::Bad`] reads: the rule and the way out, then an error per line.
struct Refused<'a> {
    name: &'a str,
    errors: &'a [LineError],
    total: u64,
    refusal: Refusal,
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, errors, total, refusal } = self;
        let lines = if *total == 1 { "1 bad line".into() } else { format!("{total} bad lines") };
        match refusal {
            Refusal::Strict => write!(
                f,
                "{name}: {lines}: correct them, or skip them by reading the list as `lenient`"
            ),
            Refusal::NothingGood => write!(
                f,
                "{name}: {lines} and not one entry: check that this is the list, not an error page"
            ),
            Refusal::TooManySkipped { limit } => write!(
                f,
                "{name}: {lines}, more than the {limit} that may be skipped: \
                 check that this is the list, or raise `max_skipped` (in a policy file \
                 `list-limits.max-skipped`, of a feed `max-skipped`)"
            ),
        }?;
        errors.iter().try_for_each(|error| write!(f, "\n  {error}"))?;
        match total - errors.len() as u64 {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// What is wrong with a line: the part of it at fault and what should stand there.
pub(super) struct Problem<'a> {
    pub(super) at: &'a [u8],
    pub(super) expected: Cow<'static, str>,
}

impl<'a> Problem<'a> {
    pub(super) fn new(at: &'a [u8], expected: impl Into<Cow<'static, str>>) -> Self {
        Self { at, expected: expected.into() }
    }

    /// The error for people; `line` is the text that [`Self::at`] is a part of.
    pub(super) fn locate(self, file: &Arc<str>, number: u32, line: &[u8]) -> LineError {
        let offset = (self.at.as_ptr() as usize).saturating_sub(line.as_ptr() as usize);
        let before = line.get(..offset).unwrap_or_default();
        let column = before
            .utf8_chunks()
            .map(|chunk| chunk.valid().chars().count() + usize::from(!chunk.invalid().is_empty()))
            .sum::<usize>();
        LineError {
            file: Arc::clone(file),
            line: number,
            column: u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1),
            text: shown(self.at),
            expected: self.expected,
        }
    }
}

/// `text` with its control characters escaped and its end cut off where it is long.
pub(super) fn shown(text: &[u8]) -> String {
    let mut out = String::new();
    // No character is longer than four bytes, so that a cut in one comes after those shown.
    for (place, character) in characters(&text[..text.len().min(4 * (SHOWN + 1))]).enumerate() {
        if place == SHOWN {
            out.push('…');
            break;
        }
        match character {
            Ok(quote @ ('"' | '\'')) => out.push(quote),
            Ok(character) => out.extend(character.escape_debug()),
            Err(byte) => write!(out, "\\x{byte:02x}").expect("a string takes all"),
        }
    }
    out
}

fn characters(text: &[u8]) -> impl Iterator<Item = Result<char, u8>> + '_ {
    text.utf8_chunks().flat_map(|chunk| {
        chunk.valid().chars().map(Ok).chain(chunk.invalid().iter().copied().map(Err))
    })
}
