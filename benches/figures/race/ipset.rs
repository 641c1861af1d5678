//! ipset behind iptables' raw table, the first that it has.

use std::fmt::Write;
use std::time::Instant;

use ironclad::core::Family;

use super::contender::{Contender, Firewall, Loaded};
use super::list::List;
use super::tool;
use super::track::Track;
use crate::common::Result;

pub(super) struct Ipset;

impl Contender for Ipset {
    fn name(&self) -> &'static str {
        "ipset"
    }

    fn how(&self, list: &List) -> &'static str {
        match list.is_exact() {
            true => "iptables-legacy, raw PREROUTING; hash:ip; load: ipset restore",
            false => "iptables-legacy, raw PREROUTING; hash:net; load: ipset restore",
        }
    }

    fn load(&self, track: &Track<'_>, list: &List) -> Result<Loaded> {
        let (family, iptables) = match list.family {
            Family::V4 => ("inet", "iptables-legacy"),
            Family::V6 => ("inet6", "ip6tables-legacy"),
        };
        let kind = if list.is_exact() { "hash:ip" } else { "hash:net" };
        let mut script =
            format!("create race {kind} family {family} maxelem {}\n", list.cidrs.len());
        for cidr in &list.cidrs {
            writeln!(script, "add race {cidr}")?;
        }
        let file = track.dir.join("list.ipset");
        std::fs::write(&file, script)?;
        let file = file.to_string_lossy().into_owned();
        let begin = Instant::now();
        tool::run("ipset", &["restore", "-file", &file])?;
        let rules = Rules { iptables };
        rules.raise()?;
        Ok(Loaded { took: begin.elapsed(), firewall: Box::new(rules) })
    }
}

struct Rules {
    iptables: &'static str,
}

impl Rules {
    fn change(&self, how: &str) -> Result<()> {
        let rule = ["PREROUTING", "-m", "set", "--match-set", "race", "src", "-j", "DROP"];
        let args = [&["-w", "-t", "raw", how][..], &rule].concat();
        tool::run(self.iptables, &args).map(drop)
    }
}

impl Firewall for Rules {
    fn dropped(&self) -> Result<u64> {
        let args = ["-w", "-t", "raw", "-L", "PREROUTING", "-n", "-v", "-x"];
        let text = tool::run(self.iptables, &args)?;
        // Packets, bytes, target.
        let line = text.lines().find(|line| line.contains("match-set race"));
        let count = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        count.ok_or_else(|| "iptables shows no counter".into())
    }

    fn raise(&self) -> Result<()> {
        self.change("-A")
    }

    fn lower(&self) -> Result<()> {
        self.change("-D")
    }

    fn remove(self: Box<Self>) -> Result<()> {
        tool::run("ipset", &["destroy", "race"]).map(drop)
    }
}
