//! xdp-filter, which knows single addresses and at most 10,000 of a family.

use std::fmt::Write;
use std::time::{Duration, Instant};

use ironclad::core::Family;

use super::contender::{Contender, Firewall, Loaded};
use super::list::List;
use super::tool;
use super::track::Track;
use crate::common::Result;

/// What its maps hold.
pub(super) const CAPACITY: usize = 10_000;
/// It takes one address a command: so many are timed, the others go into its map directly.
const TIMED: usize = 100;
const PINS: &str = "/sys/fs/bpf/xdp-filter";

pub(super) struct XdpFilter;

impl Contender for XdpFilter {
    fn name(&self) -> &'static str {
        "xdp-filter"
    }

    fn how(&self, _: &List) -> &'static str {
        "XDP, native, IP alone; load: one command an address, of which 100 are timed and scaled"
    }

    fn load(&self, track: &Track<'_>, list: &List) -> Result<Loaded> {
        let (feature, map) = match list.family {
            Family::V4 => ("ipv4", "filter_ipv4"),
            Family::V6 => ("ipv6", "filter_ipv6"),
        };
        let filter = Box::new(Filter { interface: track.interface, feature });
        let begin = Instant::now();
        filter.raise()?;
        let loaded = begin.elapsed();
        match fill(track, list, map) {
            Ok(filled) => Ok(Loaded { took: loaded + filled, firewall: filter }),
            Err(why) => {
                // No other process could attach.
                filter.lower()?;
                Err(why)
            }
        }
    }
}

/// How long a user would wait for all addresses.
fn fill(track: &Track<'_>, list: &List, map: &str) -> Result<Duration> {
    let (timed, others) = list.cidrs.split_at(TIMED.min(list.cidrs.len()));
    let begin = Instant::now();
    for cidr in timed {
        tool::run("xdp-filter", &["ip", "-m", "src", &cidr.addr().to_string()])?;
    }
    let added = begin.elapsed().mul_f64(list.cidrs.len() as f64 / timed.len() as f64);
    let mut batch = String::new();
    for cidr in others {
        let bytes = cidr.bits().to_be_bytes();
        let bytes = match list.family {
            Family::V4 => &bytes[..4],
            Family::V6 => &bytes[..],
        };
        write!(batch, "map update pinned {PINS}/{map} key")?;
        bytes.iter().try_for_each(|byte| write!(batch, " {byte}"))?;
        // The flag of a source, as the command sets it.
        writeln!(batch, " value 1 0 0 0 0 0 0 0")?;
    }
    let file = track.dir.join("list.bpftool");
    std::fs::write(&file, batch)?;
    tool::run("bpftool", &["batch", "file", &file.to_string_lossy()])?;
    Ok(added)
}

struct Filter {
    interface: &'static str,
    feature: &'static str,
}

impl Firewall for Filter {
    fn dropped(&self) -> Result<u64> {
        let text = tool::run("xdp-filter", &["status"])?;
        tool::number_after(&text, "XDP_DROP").ok_or_else(|| "xdp-filter shows no drops".into())
    }

    fn raise(&self) -> Result<()> {
        let args = ["load", "-m", "native", "-f", self.feature, self.interface];
        tool::run("xdp-filter", &args).map(drop)
    }

    fn lower(&self) -> Result<()> {
        tool::run("xdp-filter", &["unload", "--keep-maps", self.interface]).map(drop)
    }

    fn remove(self: Box<Self>) -> Result<()> {
        Ok(std::fs::remove_dir_all(PINS)?)
    }
}
