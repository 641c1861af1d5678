//! What a document needs that is not in it.

use std::io;
use std::path::{Path, PathBuf};

use crate::list::AddressList;

/// Where lists, feeds and accounts come from.
///
/// ```
/// use ironclad_policy::AddressList;
/// use ironclad_policy::document::{Document, Sources};
///
/// let text = "
/// addresses:
///   bad: { feeds: scanners }
/// rules:
///   - { id: 1, name: no scanners, to: bad, action: deny }
/// ";
/// let document = Document::parse("rules.yaml", text)?;
/// let mut feeds = |name: &str| {
///     let cidr = "192.0.2.0/24".parse().ok()?;
///     (name == "scanners").then(|| AddressList::from_cidrs(name, [cidr]))
/// };
/// let policy = document.compile(&mut Sources::new("/etc/ironclad").feeds(&mut feeds))?;
/// assert_eq!(policy.sockets().unwrap().rules().len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Sources<'a> {
    pub(super) folder: PathBuf,
    pub(super) feeds: Option<&'a mut dyn Feeds>,
    pub(super) accounts: Option<&'a dyn Accounts>,
}

impl<'a> Sources<'a> {
    /// Relative paths begin at `folder`, there are no feeds, and accounts are [`EtcAccounts`].
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), feeds: None, accounts: None }
    }

    /// With feeds.
    #[must_use]
    pub fn feeds(mut self, feeds: &'a mut dyn Feeds) -> Self {
        self.feeds = Some(feeds);
        self
    }

    /// With other users and groups than those of `/etc`.
    #[must_use]
    pub fn accounts(mut self, accounts: &'a dyn Accounts) -> Self {
        self.accounts = Some(accounts);
        self
    }
}

/// Feeds by name. A closure from names to lists is one.
pub trait Feeds {
    /// The addresses of a feed as they are now.
    ///
    /// # Errors
    /// [`NoFeed`]. An implementation may return an empty list instead.
    fn addresses(&mut self, name: &str) -> Result<AddressList, NoFeed>;

    /// The names that there are, to suggest one of them.
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Why a feed has no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoFeed {
    /// No feed has the name.
    #[error("no feed has this name")]
    Unknown,
    /// There is such a feed, but nothing of it can be had.
    #[error("{0}")]
    Unavailable(String),
}

impl<F: FnMut(&str) -> Option<AddressList>> Feeds for F {
    fn addresses(&mut self, name: &str) -> Result<AddressList, NoFeed> {
        self(name).ok_or(NoFeed::Unknown)
    }
}

/// Numbers of users and groups by name.
pub trait Accounts {
    /// The user's number; none if no account has the name.
    ///
    /// # Errors
    /// Where the accounts cannot be read.
    fn uid(&self, name: &str) -> io::Result<Option<u32>>;

    /// The group's number; none if no group has the name.
    ///
    /// # Errors
    /// Where the accounts cannot be read.
    fn gid(&self, name: &str) -> io::Result<Option<u32>>;

    /// Names of users, to suggest one of them.
    fn users(&self) -> Vec<String> {
        Vec::new()
    }

    /// Names of groups, to suggest one of them.
    fn groups(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The users and groups of two files of the form of `/etc/passwd` and `/etc/group`. No directory
/// service is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcAccounts {
    passwd: PathBuf,
    group: PathBuf,
}

impl Default for EtcAccounts {
    fn default() -> Self {
        Self::new("/etc/passwd", "/etc/group")
    }
}

impl EtcAccounts {
    /// Of these files.
    pub fn new(passwd: impl Into<PathBuf>, group: impl Into<PathBuf>) -> Self {
        Self { passwd: passwd.into(), group: group.into() }
    }
}

/// Names and numbers: the first and the third field of each line.
fn entries(path: &Path) -> io::Result<Vec<(String, u32)>> {
    let bytes = std::fs::read(path)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    let text = String::from_utf8_lossy(&bytes);
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        Some((name.to_owned(), id.parse().ok()?))
    };
    Ok(text.lines().filter_map(entry).collect())
}

fn find(path: &Path, name: &str) -> io::Result<Option<u32>> {
    Ok(entries(path)?.into_iter().find(|(known, _)| known == name).map(|(_, id)| id))
}

fn names(path: &Path) -> Vec<String> {
    entries(path).unwrap_or_default().into_iter().map(|(name, _)| name).collect()
}

impl Accounts for EtcAccounts {
    fn uid(&self, name: &str) -> io::Result<Option<u32>> {
        find(&self.passwd, name)
    }

    fn gid(&self, name: &str) -> io::Result<Option<u32>> {
        find(&self.group, name)
    }

    fn users(&self) -> Vec<String> {
        names(&self.passwd)
    }

    fn groups(&self) -> Vec<String> {
        names(&self.group)
    }
}
