//! Addresses of countries: from folders of lists, or from a database in MaxMind's format.
//!
//! ```
//! use ironclad_policy::country::{CountryCode, CountryLists};
//! use ironclad_policy::list::ListOptions;
//!
//! # let dir = tempfile::tempdir()?;
//! # let folder = dir.path().to_owned();
//! std::fs::write(folder.join("de.cidr"), "192.0.2.0/24\n")?;
//! let germany: CountryCode = "DE".parse()?;
//! let lists = CountryLists::from_folders(&[folder], &[germany].into(), &ListOptions::new())?;
//! assert_eq!(lists.get(germany).unwrap()[0].entries().len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod code;
mod folders;
#[cfg(feature = "maxmind")]
mod maxmind;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

pub use code::{CodeError, CountryCode};

use crate::list::{AddressList, ListError};

/// The addresses of some countries, and the codes of all known countries.
#[derive(Clone, Debug, Default)]
pub struct CountryLists {
    lists: BTreeMap<CountryCode, Vec<AddressList>>,
    known: BTreeSet<CountryCode>,
}

impl CountryLists {
    /// The lists of a country; none if it was not requested, or is not known.
    pub fn get(&self, code: CountryCode) -> Option<&[AddressList]> {
        self.lists.get(&code).map(Vec::as_slice)
    }

    /// Every country with addresses, requested or not.
    pub fn known(&self) -> impl Iterator<Item = CountryCode> {
        self.known.iter().copied()
    }
}

/// Why the addresses of countries cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CountryError {
    /// A folder or a database cannot be read.
    #[error("cannot read {} (check the path and its permissions)", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file of a country cannot be read.
    #[error(transparent)]
    List(#[from] ListError),
    /// A database is not of the format, damaged, or not of countries.
    #[error("{}: {what}", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}
