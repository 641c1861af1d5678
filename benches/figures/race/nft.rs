//! nftables: an interval set at the device's ingress hook, the first there is.

use std::fmt::Write;
use std::time::Instant;

use ironclad::core::Family;

use super::contender::{Contender, Firewall, Loaded};
use super::list::List;
use super::tool;
use super::track::Track;
use crate::common::Result;

pub(super) struct Nft;

impl Contender for Nft {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn how(&self, list: &List) -> &'static str {
        match list.is_exact() {
            true => "netdev ingress hook; a set of addresses with its size; load: nft -f",
            false => "netdev ingress hook; an interval set with auto-merge; load: nft -f",
        }
    }

    fn load(&self, track: &Track<'_>, list: &List) -> Result<Loaded> {
        let (kind, word) = match list.family {
            Family::V4 => ("ipv4_addr", "ip"),
            Family::V6 => ("ipv6_addr", "ip6"),
        };
        // Of single addresses it makes a hash, a quicker one where the size is said beforehand.
        let flags = match list.is_exact() {
            true => format!("size {}\n", list.cidrs.len()),
            false => "flags interval\nauto-merge\n".to_owned(),
        };
        let mut script =
            format!("table netdev race {{\nset listed {{\ntype {kind}\n{flags}elements = {{\n");
        for cidr in &list.cidrs {
            match list.is_exact() {
                true => writeln!(script, "{},", cidr.addr())?,
                false => writeln!(script, "{cidr},")?,
            }
        }
        script += "}\n}\n}\n";
        let file = track.dir.join("list.nft");
        std::fs::write(&file, script)?;
        let file = file.to_string_lossy().into_owned();
        let table = Table { interface: track.interface, word };
        let begin = Instant::now();
        tool::run("nft", &["-f", &file])?;
        table.raise()?;
        Ok(Loaded { took: begin.elapsed(), firewall: Box::new(table) })
    }
}

struct Table {
    interface: &'static str,
    /// Of a source address's family.
    word: &'static str,
}

impl Firewall for Table {
    fn dropped(&self) -> Result<u64> {
        let text = tool::run("nft", &["list", "chain", "netdev", "race", "ingress"])?;
        tool::number_after(&text, "packets").ok_or_else(|| "nft shows no counter".into())
    }

    fn raise(&self) -> Result<()> {
        let Self { interface, word } = self;
        let chain = format!(
            "add chain netdev race ingress {{ type filter hook ingress device {interface} priority \
             -500; }}; add rule netdev race ingress {word} saddr @listed counter drop"
        );
        tool::run("nft", &[&chain]).map(drop)
    }

    fn lower(&self) -> Result<()> {
        let both = "flush chain netdev race ingress; delete chain netdev race ingress";
        tool::run("nft", &[both]).map(drop)
    }

    fn remove(self: Box<Self>) -> Result<()> {
        tool::run("nft", &["delete", "table", "netdev", "race"]).map(drop)
    }
}
