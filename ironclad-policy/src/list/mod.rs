//! Address lists as people publish them: read, checked and turned into prefixes.
//!
//! One reader takes what the usual publishers offer, line by line: addresses, prefixes, netmasks,
//! ranges, `ipset save` files, FireHOL ipsets and netsets, and Spamhaus DROP as text or as JSON
//! lines. Comments begin with `#` or `;`; lines end with LF, CRLF or CR. What is more than lines is
//! said by [`ListOptions::format`]: CSV as abuse.ch publishes it, and indicators of STIX 2.1.
//!
//! A line that cannot be read is a [`LineError`] with file, line, column, the text and what was
//! expected. [`BadLines`] decides what becomes of its list; nothing is dropped silently: the
//! [`ListReport`] counts what was skipped and what was changed.
//!
//! ```
//! use ironclad_policy::list::{AddressList, BadLines, ListOptions};
//!
//! let text = b"# scanners\n192.0.2.0/24 ; noisy\n198.51.100.7-198.51.100.9\n10.1.2.3/8\nspam\n";
//!
//! let refused = AddressList::parse("scanners.txt", text, &ListOptions::new()).unwrap_err();
//! assert!(refused.to_string().contains("scanners.txt:5:1: `spam`: expected an IPv4 or IPv6"));
//!
//! let lenient = ListOptions::new().bad_lines(BadLines::Lenient);
//! let list = AddressList::parse("scanners.txt", text, &lenient)?;
//! let cidrs: Vec<String> = list.entries().iter().map(|entry| entry.cidr.to_string()).collect();
//! assert_eq!(cidrs, ["192.0.2.0/24", "198.51.100.7/32", "198.51.100.8/31", "10.0.0.0/8"]);
//! assert_eq!((list.report().skipped, list.report().normalised), (1, 1));
//! # Ok::<(), ironclad_policy::list::ListError>(())
//! ```

mod csv;
mod drop_json;
mod error;
mod format;
mod ipset;
mod options;
mod pattern;
mod place;
mod plain;
mod reader;
mod report;
mod spec;
mod stix;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ironclad_core::Cidr;

pub use error::{LineError, ListError, Refusal};
pub use format::ListFormat;
pub use options::{BadLines, ListOptions};
#[cfg(feature = "document")]
pub(crate) use reader::encoded;
pub use report::{ListReport, Normalised};

/// One prefix of a list and the line that it stands on.
///
/// A range is as many entries as it takes prefixes, all of the same line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// The prefix.
    pub cidr: Cidr,
    /// The line, from 1; in a list made by [`AddressList::from_cidrs`] the position, from 1.
    pub line: u32,
}
const _: () = assert!(size_of::<ListEntry>() <= 24);

/// A list of prefixes in the order of its file, with a name and an account of its reading.
///
/// Entries are kept as they are written: neither sorted nor merged, duplicates included.
#[derive(Clone, Debug)]
pub struct AddressList {
    name: Arc<str>,
    entries: Vec<ListEntry>,
    report: ListReport,
}

impl AddressList {
    /// Reads the list in the file at `path`, under the path as its name.
    ///
    /// No more than [`ListOptions::max_bytes`] are read, so that an endless file ends in an error.
    /// A named pipe is waited for, as by any other reader.
    ///
    /// # Errors
    /// [`ListError::Io`] and [`ListError::Directory`] where the file cannot be read, and those of
    /// [`AddressList::parse`].
    pub fn read(path: &Path, options: &ListOptions) -> Result<Self, ListError> {
        let name = path.display().to_string();
        let failed = |source| ListError::Io { path: path.to_owned(), source };
        let too_large = || ListError::TooLarge { name: name.clone(), limit: options.max_bytes };

        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(ListError::Directory { path: path.to_owned() });
        }
        if metadata.len() > options.max_bytes {
            return Err(too_large());
        }
        // A file's length is no promise: some of the kernel's claim terabytes.
        let mut bytes = Vec::with_capacity(metadata.len().min(64 << 20) as usize + 1);
        // One byte more than allowed tells a file of exactly the limit from a larger one.
        file.take(options.max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        Self::parse(&name, &bytes, options)
    }

    /// Reads every list in the directory `dir` whose name ends in `.extension`, in the order of
    /// their names. Directories inside are not entered.
    ///
    /// The limits of `options` hold for each file.
    ///
    /// # Errors
    /// [`ListError::NoLists`] where no file has the extension; otherwise the error of the first
    /// file that cannot be read, as by [`AddressList::read`].
    pub fn read_dir(
        dir: &Path,
        extension: &str,
        options: &ListOptions,
    ) -> Result<Vec<Self>, ListError> {
        let paths = files_of(dir, OsStr::new(extension))
            .map_err(|source| ListError::Io { path: dir.to_owned(), source })?;
        if paths.is_empty() {
            return Err(ListError::NoLists {
                dir: dir.to_owned(),
                extension: extension.to_owned(),
            });
        }
        paths.iter().map(|path| Self::read(path, options)).collect()
    }

    /// Reads the list in `bytes`; `name` stands for the file in errors and in the report.
    ///
    /// # Errors
    /// - [`ListError::TooLarge`] and [`ListError::TooManyEntries`] beyond the limits of `options`.
    /// - [`ListError::Encoded`] where `bytes` is compressed or UTF-16.
    /// - [`ListError::Bad`] where bad lines refuse the list, by the rule of [`BadLines`].
    pub fn parse(name: &str, bytes: &[u8], options: &ListOptions) -> Result<Self, ListError> {
        reader::read(name, bytes, options)
    }

    /// A list of prefixes that stand in no file, such as those written into a policy.
    pub fn from_cidrs(name: &str, cidrs: impl IntoIterator<Item = Cidr>) -> Self {
        let entries: Vec<_> =
            cidrs.into_iter().zip(1u32..).map(|(cidr, line)| ListEntry { cidr, line }).collect();
        let name: Arc<str> = name.into();
        let mut report = ListReport::new(Arc::clone(&name));
        report.lines = entries.len() as u32;
        report.entries = entries.len();
        Self { name, entries, report }
    }

    /// An empty list in place of a feed that has no good version.
    #[cfg(all(unix, feature = "feed", feature = "document"))]
    pub(crate) fn missing(name: &str, why: String) -> Self {
        let mut list = Self::from_cidrs(name, []);
        list.report.missing = Some(why);
        list
    }

    /// The entries, in the order of their lines.
    pub fn entries(&self) -> &[ListEntry] {
        &self.entries
    }

    /// The entries, without a copy.
    pub fn into_entries(self) -> Vec<ListEntry> {
        self.entries
    }

    /// The path or the name that the list was read under.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What was found, changed and skipped.
    pub fn report(&self) -> &ListReport {
        &self.report
    }
}

fn files_of(dir: &Path, extension: &OsStr) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        // No pipes and devices: reading one might never end.
        if path.extension() == Some(extension) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
