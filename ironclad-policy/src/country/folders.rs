use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{CountryCode, CountryError, CountryLists};
use crate::list::{AddressList, ListOptions};

impl CountryLists {
    /// Reads the lists of countries from folders: `de.cidr` of each that has it. One folder for
    /// IPv4 and one for IPv6 is as good as one for both; a country may be missing in some.
    ///
    /// # Errors
    /// [`CountryError::Io`] where a folder cannot be read, [`CountryError::List`] for a file.
    pub fn from_folders(
        folders: &[PathBuf],
        codes: &BTreeSet<CountryCode>,
        options: &ListOptions,
    ) -> Result<Self, CountryError> {
        let mut found = Self::default();
        for folder in folders {
            let failed = |source| CountryError::Io { path: folder.clone(), source };
            for entry in std::fs::read_dir(folder).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                let stem = path.file_stem().and_then(|stem| stem.to_str());
                let code = stem.and_then(|stem| stem.parse().ok());
                let is_list = path.extension().is_some_and(|extension| extension == "cidr");
                // No pipes and devices: reading one might never end.
                if let Some(code) = code.filter(|_| is_list && path.is_file()) {
                    found.known.insert(code);
                    if codes.contains(&code) {
                        let list = AddressList::read(&path, options)?;
                        found.lists.entry(code).or_default().push(list);
                    }
                }
            }
        }
        Ok(found)
    }
}
