//! The lists and policies that are measured.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use ironclad::core::{Action, Cidr, Family, RuleId};
use ironclad::policy::list::{BadLines, ListOptions};
use ironclad::policy::{AddressList, AddressSet, Backend, CompiledPolicy, Policy};

use super::Result;
use super::random::Random;

/// Prefixes of any length from `shortest` on, sorted.
pub(crate) fn random_v4(count: usize, shortest: u8, seed: u64) -> Vec<Cidr> {
    let mut random = Random::new(seed);
    let mut cidrs = BTreeSet::new();
    while cidrs.len() < count {
        let addr = IpAddr::V4((random.next() as u32).into());
        let length = shortest + random.below(33 - u64::from(shortest)) as u8;
        cidrs.extend(Cidr::new(addr, length).ok());
    }
    cidrs.into_iter().collect()
}

/// Prefixes from /20 on, sorted.
pub(crate) fn random_v6(count: usize, seed: u64) -> Vec<Cidr> {
    let mut random = Random::new(seed);
    let mut cidrs = BTreeSet::new();
    while cidrs.len() < count {
        // Global unicast, 2000::/3.
        let high = random.next() >> 3 | 1 << 61;
        let addr = IpAddr::V6((u128::from(high) << 64 | u128::from(random.next())).into());
        cidrs.extend(Cidr::new(addr, 20 + random.below(109) as u8).ok());
    }
    cidrs.into_iter().collect()
}

pub(crate) fn compile(cidrs: &[Cidr]) -> Result<CompiledPolicy> {
    compile_with(cidrs, Backend::Flat)
}

pub(crate) fn compile_with(cidrs: &[Cidr], backend: Backend) -> Result<CompiledPolicy> {
    Ok(policy(cidrs, backend).compile()?)
}

/// Drops what comes from `cidrs`.
pub(crate) fn policy(cidrs: &[Cidr], backend: Backend) -> Policy {
    let set = AddressSet::new(RuleId(1), "bench", Action::Drop).cidrs(cidrs.iter().copied());
    Policy::builder().backend(backend).set(set)
}

/// Where the shared lists are; none where they are not.
pub(crate) fn data() -> Option<PathBuf> {
    let path = std::env::var_os("IRONCLAD_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")),
        PathBuf::from,
    );
    path.is_dir().then_some(path)
}

pub(crate) fn countries(family: Family) -> Result<Vec<Cidr>> {
    let folder = match family {
        Family::V4 => "country/ipv4",
        Family::V6 => "country/ipv6",
    };
    let dir = data().ok_or("no shared lists: set IRONCLAD_DATA")?.join(folder);
    let lists = AddressList::read_dir(&dir, "cidr", &ListOptions::new())?;
    Ok(lists.iter().flat_map(|list| list.entries()).map(|entry| entry.cidr).collect())
}

/// All countries and the ipsum feed, read from files.
pub(crate) fn everything() -> Result<Policy> {
    let folder = data().ok_or("no shared lists: set IRONCLAD_DATA")?;
    let options = ListOptions::new().bad_lines(BadLines::Lenient);
    let mut countries = AddressSet::new(RuleId(1), "countries", Action::Drop);
    for family in ["country/ipv4", "country/ipv6"] {
        let lists = AddressList::read_dir(&folder.join(family), "cidr", &options)?;
        countries = lists.into_iter().fold(countries, AddressSet::list);
    }
    let threats = AddressSet::new(RuleId(2), "ipsum", Action::Drop)
        .list(AddressList::read(&folder.join("ipsum/levels/1.txt"), &options)?);
    Ok(Policy::builder().set(countries).set(threats))
}
