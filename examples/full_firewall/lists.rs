//! The lists of the lab: every country and the ipsum feed where they are, a few otherwise.

use std::path::{Path, PathBuf};

use ironclad::core::{Action, Cidr, RuleId};
use ironclad::policy::list::{AddressList, BadLines, ListOptions};
use ironclad::policy::{AddressSet, CompiledPolicy, Policy};

use crate::Result;

pub(crate) const COUNTRIES: RuleId = RuleId(100);
pub(crate) const THREATS: RuleId = RuleId(200);
pub(crate) const PARTNERS: RuleId = RuleId(300);

/// Lists that need no files: documentation and benchmarking networks (RFC 5737, 2544, 3849, 5180).
const BUILT_IN: [(&str, &str); 2] = [
    ("countries", "198.18.0.0/15\n2001:2::/48\n2001:db8::/32\n203.0.113.0/24\n"),
    ("threats", "192.0.2.66\n192.0.2.99\n"),
];

/// What is known of the lists, as far as the lab's clients need it.
pub(crate) struct Lists {
    pub(crate) countries: Vec<AddressList>,
    pub(crate) threats: AddressList,
    pub(crate) from: String,
}

/// The folder that was named, or the one where the project's own machines keep theirs.
fn folder(data: Option<&Path>) -> Option<PathBuf> {
    let found = match data {
        Some(data) => data.to_owned(),
        None => std::env::var_os("IRONCLAD_DATA").map_or_else(
            || concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data").into(),
            PathBuf::from,
        ),
    };
    (data.is_some() || found.is_dir()).then_some(found)
}

impl Lists {
    pub(crate) fn read(data: Option<&Path>) -> Result<Self> {
        let options = ListOptions::new().bad_lines(BadLines::Lenient);
        let Some(folder) = folder(data) else {
            let [(country, countries), (threat, threats)] = BUILT_IN;
            return Ok(Self {
                countries: vec![AddressList::parse(country, countries.as_bytes(), &options)?],
                threats: AddressList::parse(threat, threats.as_bytes(), &options)?,
                from: "built-in lists".to_owned(),
            });
        };
        let mut countries = AddressList::read_dir(&folder.join("country/ipv4"), "cidr", &options)?;
        countries.extend(AddressList::read_dir(&folder.join("country/ipv6"), "cidr", &options)?);
        Ok(Self {
            countries,
            threats: AddressList::read(&folder.join("ipsum/levels/1.txt"), &options)?,
            from: "every country and ipsum level 1".to_owned(),
        })
    }

    /// Drops all countries but `partners`, and all threats.
    pub(crate) fn policy(&self, partners: &[Cidr]) -> Result<CompiledPolicy> {
        let countries = self
            .countries
            .iter()
            .cloned()
            .fold(AddressSet::new(COUNTRIES, "countries", Action::Drop), AddressSet::list);
        let threats = AddressSet::new(THREATS, "threats", Action::Drop).list(self.threats.clone());
        let partners =
            AddressSet::new(PARTNERS, "partners", Action::Allow).cidrs(partners.iter().copied());
        Ok(Policy::builder().set(partners).set(countries).set(threats).compile()?)
    }
}
