//! What is dropped, and from where the packets come.

use std::collections::HashSet;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use ironclad::core::{Cidr, Family};
use ironclad::policy::AddressList;
use ironclad::policy::list::ListOptions;
use ironclad_bpf::bench::PROBES;

use crate::common::Result;
use crate::common::lists::{countries, data, random_v4, random_v6};
use crate::common::random::Random;

/// The same for all.
pub(super) struct List {
    pub(super) title: String,
    pub(super) family: Family,
    pub(super) cidrs: Vec<Cidr>,
    /// Addresses of the list, in network byte order, IPv4 in the first four bytes.
    pub(super) sources: Vec<[u8; 16]>,
}

impl List {
    fn new(title: String, cidrs: Vec<Cidr>) -> Self {
        let sources = sources(&cidrs);
        Self { title, family: cidrs[0].family(), cidrs, sources }
    }

    /// All countries' IPv4 networks, and a feed of single addresses.
    pub(super) fn prefixes_v4() -> Result<Self> {
        if data().is_none() {
            let cidrs = unicast(random_v4(300_000, 16, 300_000));
            return Ok(Self::new(format!("{} random IPv4 prefixes", cidrs.len()), cidrs));
        }
        let mut cidrs = countries(Family::V4)?;
        cidrs.extend(ipsum()?);
        let cidrs = distinct(cidrs);
        Ok(Self::new(
            format!("all countries' IPv4 networks and ipsum: {} prefixes", cidrs.len()),
            cidrs,
        ))
    }

    pub(super) fn prefixes_v6() -> Result<Self> {
        if data().is_none() {
            return Ok(Self::new("70,000 random IPv6 prefixes".into(), random_v6(70_000, 6)));
        }
        let cidrs = distinct(countries(Family::V6)?);
        Ok(Self::new(format!("all countries' IPv6 networks: {} prefixes", cidrs.len()), cidrs))
    }

    /// Single IPv4 addresses.
    pub(super) fn addresses(count: usize) -> Result<Self> {
        let (cidrs, what) = match data() {
            Some(_) => (ipsum()?, "addresses of ipsum"),
            None => (unicast(random_v4(2 * count, 32, 7)), "random IPv4 addresses"),
        };
        let mut cidrs = distinct(cidrs);
        shuffle(&mut cidrs, 8);
        cidrs.retain(|cidr| cidr.length() == 32);
        cidrs.truncate(count);
        Ok(Self::new(format!("{} {what}", cidrs.len()), cidrs))
    }

    /// Whether it has single addresses only.
    pub(super) fn is_exact(&self) -> bool {
        self.cidrs.iter().all(|cidr| cidr.length() == self.family.bits())
    }

    /// One a line.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let mut text = String::new();
        for cidr in &self.cidrs {
            writeln!(text, "{cidr}")?;
        }
        Ok(std::fs::write(path, text)?)
    }
}

fn ipsum() -> Result<Vec<Cidr>> {
    let path = data().ok_or("no shared lists: set IRONCLAD_DATA")?.join("ipsum/levels/1.txt");
    let list = AddressList::read(&path, &ListOptions::new())?;
    Ok(list.entries().iter().map(|entry| entry.cidr).collect())
}

/// What a network stack would take for a source.
fn unicast(mut cidrs: Vec<Cidr>) -> Vec<Cidr> {
    cidrs.retain(|cidr| matches!((cidr.bits() >> 120) as u8, 1..=126 | 128..=223));
    cidrs
}

fn distinct(mut cidrs: Vec<Cidr>) -> Vec<Cidr> {
    let mut seen = HashSet::new();
    cidrs.retain(|cidr| seen.insert(*cidr));
    cidrs
}

fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut random = Random::new(seed);
    for last in (1..items.len()).rev() {
        items.swap(last, random.below(last as u64 + 1) as usize);
    }
}

/// Distinct addresses, each of a prefix that chance picks, as many as a sender goes through.
fn sources(cidrs: &[Cidr]) -> Vec<[u8; 16]> {
    let mut random = Random::new(9);
    let mut seen = HashSet::new();
    let mut sources = Vec::with_capacity(PROBES);
    if cidrs.len() < PROBES {
        // Every one of a short list comes.
        sources.extend(cidrs.iter().map(|cidr| cidr.bits().to_be_bytes()));
        seen.extend(sources.iter().copied());
    }
    // Single addresses may be fewer than are required: then they repeat.
    for _ in 0..8 * PROBES {
        if sources.len() == PROBES {
            break;
        }
        let cidr = cidrs[random.below(cidrs.len() as u64) as usize];
        let host = match cidr.addr() {
            IpAddr::V4(_) => (random.next() as u128) << 96,
            IpAddr::V6(_) => u128::from(random.next()) << 64 | u128::from(random.next()),
        };
        let free = u128::MAX.checked_shr(cidr.length().into()).unwrap_or(0);
        let source = (cidr.bits() | host & free).to_be_bytes();
        if seen.insert(source) {
            sources.push(source);
        }
    }
    sources
}
