use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use ironclad_core::Cidr;
use maxminddb::{Reader, WithinOptions};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{CountryCode, CountryError, CountryLists};
use crate::list::{AddressList, ListOptions};

/// Bytes of the largest database. One that has cities, too, is a tenth of it.
const MAX_BYTES: u64 = 1 << 30;
/// Networks, with data or without, that are read: a tree whose branches grow together could
/// have more of them than there are addresses.
const MAX_NETWORKS: usize = 64 << 20;

impl CountryLists {
    /// Reads the networks of countries, IPv4 and IPv6, from a database in MaxMind's format, such as
    /// GeoLite2-Country, GeoLite2-City, or databases of other publishers with `country.iso_code`, `country`
    /// or `country_code`. Where a network is says `country`, not where it is registered.
    ///
    /// The file is read, not mapped: one that is replaced meanwhile does no harm. Of `options` the
    /// largest number of entries holds for each country.
    ///
    /// # Errors
    /// [`CountryError::Io`] and [`CountryError::Database`].
    pub fn from_database(
        path: &Path,
        codes: &BTreeSet<CountryCode>,
        options: &ListOptions,
    ) -> Result<Self, CountryError> {
        let failed = |source| CountryError::Io { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        let refused = |what: String| CountryError::Database { path: path.to_owned(), what };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(refused(format!("it has more than {MAX_BYTES} bytes")));
        }
        read(&path.display().to_string(), bytes, codes, options).map_err(refused)
    }
}

fn read(
    name: &str,
    bytes: Vec<u8>,
    codes: &BTreeSet<CountryCode>,
    options: &ListOptions,
) -> Result<CountryLists, String> {
    let damaged = |error: maxminddb::MaxMindDbError| {
        format!("no database of MaxMind's format, or a damaged one: {error}")
    };
    let reader = Reader::from_source(bytes).map_err(damaged)?;
    let mut found = CountryLists::default();
    let mut networks: HashMap<CountryCode, Vec<Cidr>> = HashMap::new();
    // Many networks share what is said of them.
    let mut known: HashMap<usize, Option<CountryCode>> = HashMap::new();
    // IPv4 is in here, once: its aliases in IPv6 are skipped.
    let every = WithinOptions::default().include_networks_without_data();
    for (number, network) in reader.networks(every).map_err(damaged)?.enumerate() {
        if number >= MAX_NETWORKS {
            return Err(format!("it has more than {MAX_NETWORKS} networks: is it damaged?"));
        }
        let network = network.map_err(damaged)?;
        let Some(offset) = network.offset() else { continue };
        let code = match known.get(&offset) {
            Some(code) => *code,
            None => {
                let record: Option<Record> = network.decode().map_err(damaged)?;
                let code = record.and_then(|Record(code)| code);
                found.known.extend(code);
                known.insert(offset, code);
                code
            }
        };
        let Some(code) = code.filter(|code| codes.contains(code)) else { continue };
        let network = network.network().map_err(damaged)?;
        let cidr = Cidr::new(network.ip(), network.prefix()).map_err(|e| e.to_string())?;
        let cidrs = networks.entry(code).or_default();
        if cidrs.len() >= options.max_entries {
            let most = options.max_entries;
            return Err(format!(
                "more than {most} networks in `{code}`: raise `max_entries` (in a policy file \
                 `list-limits.max-entries`)"
            ));
        }
        cidrs.push(cidr);
    }
    if found.known.is_empty() {
        return Err("it says of no network in which country it is: take one of countries".into());
    }
    for (code, cidrs) in networks {
        let list = AddressList::from_cidrs(&format!("{name}:{code}"), cidrs);
        found.lists.insert(code, vec![list]);
    }
    Ok(found)
}

/// The country of a network.
struct Record(Option<CountryCode>);

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// MaxMind has a mapping here, other databases have the code itself.
        #[derive(Default)]
        struct Code(Option<CountryCode>);

        struct Country;

        impl<'de> Visitor<'de> for Country {
            type Value = Code;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a country")
            }

            fn visit_str<E>(self, code: &str) -> Result<Code, E> {
                Ok(Code(code.parse().ok()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Code, A::Error> {
                let mut code = Code::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "iso_code" => code = map.next_value()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(code)
            }
        }

        impl<'de> Deserialize<'de> for Code {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(Country)
            }
        }

        #[derive(Deserialize)]
        struct Fields {
            #[serde(default)]
            country: Code,
            #[serde(default)]
            country_code: Code,
        }

        let Fields { country, country_code } = Fields::deserialize(from)?;
        Ok(Self(country.0.or(country_code.0)))
    }
}

#[cfg(test)]
mod tests;
