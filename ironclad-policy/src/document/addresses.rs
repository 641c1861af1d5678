//! Addresses with names, and where countries come from.

use std::path::PathBuf;

use ironclad_core::Cidr;
use serde::Deserialize;

use super::values;
use crate::country::CountryCode;
use crate::list::BadLines;

/// Addresses with a name. All that is named here together.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DocumentAddresses {
    /// Prefixes written here.
    #[serde(default, deserialize_with = "values::exact_some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<String>"))]
    pub cidrs: Vec<Cidr>,
    /// Files, or folders whose `*.cidr`, `*.txt`, `*.ipset` and `*.netset` files are meant.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<PathBuf>"))]
    pub lists: Vec<PathBuf>,
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
}

impl DocumentAddresses {
    pub(super) fn is_empty(&self) -> bool {
        self.cidrs.is_empty()
            && self.lists.is_empty()
            && self.countries.is_empty()
            && self.feeds.is_empty()
    }
}

/// Where the addresses of countries come from: folders or a database.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DocumentCountries {
    /// Folders with a file for each country, like `de.cidr`.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<PathBuf>"))]
    pub folders: Vec<PathBuf>,
    /// A database in MaxMind's format.
    pub database: Option<PathBuf>,
    /// What becomes of files with lines that cannot be read.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::BadLines"))]
    pub bad_lines: BadLines,
}
