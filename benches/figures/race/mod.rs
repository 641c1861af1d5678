//! The same list and the same packets through Shield and other firewalls, on one veth pair.

mod baseline;
mod contender;
mod contest;
mod ipset;
mod list;
mod nft;
mod open_road;
mod shield;
mod table;
mod tool;
mod track;
mod xdp_filter;

use contest::{Contest, Peer, Terms};
use list::List;

use crate::Figures;
use crate::common::Result;

/// The race as a whole, beside the figures.
#[derive(clap::Args)]
#[command(override_usage = "cargo xtask race [OPTIONS]")]
pub(crate) struct Race {
    /// Only on lists with names that begin with this: `prefixes_v4`, `addresses_v4`, `prefixes_v6`.
    #[arg(long, default_value = "")]
    list: String,
    /// Packets that each contender gets in a round.
    #[arg(long, default_value_t = PACKETS)]
    packets: u32,
}

const PACKETS: u32 = 1 << 18;

/// Races all on all lists and prints the tables, or one object of JSON.
pub(crate) fn run(race: &Race, rounds: usize, json: bool) -> Result<()> {
    let mut contests = vec![
        Contest { key: "prefixes_v4", list: List::prefixes_v4()?, peers: Peer::WITH_PREFIXES },
        Contest {
            key: "addresses_v4",
            list: List::addresses(xdp_filter::CAPACITY)?,
            peers: Peer::ALL,
        },
        Contest { key: "prefixes_v6", list: List::prefixes_v6()?, peers: Peer::WITH_PREFIXES },
    ];
    contests.retain(|contest| contest.key.starts_with(&race.list));
    if contests.is_empty() {
        return Err(format!("no list's name begins with `{}`", race.list).into());
    }
    let terms = Terms { rounds, packets: race.packets, with_floor: true };
    let mut outcomes = Vec::new();
    for contest in &contests {
        let outcome = contest.run(&terms)?;
        if !json {
            table::print(contest, &terms, &outcome);
        }
        outcomes.push((contest.key, outcome));
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&table::json(&outcomes))?);
    } else {
        table::conclude(&outcomes);
    }
    Ok(())
}

/// The figures `race_pps_vs_*`.
pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    let prefixes = [("race_pps_vs_nft", Peer::Nft), ("race_pps_vs_ipset", Peer::Ipset)];
    measure_on(figures, List::prefixes_v4, &prefixes)?;
    let addresses = || List::addresses(xdp_filter::CAPACITY);
    measure_on(figures, addresses, &[("race_pps_vs_xdp_filter", Peer::XdpFilter)])
}

fn measure_on(
    figures: &mut Figures,
    list: impl FnOnce() -> Result<List>,
    names: &[(&str, Peer)],
) -> Result<()> {
    let wanted: Vec<_> = names.iter().filter(|(name, _)| figures.wants(name)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let peers: Vec<Peer> = wanted.iter().map(|(_, peer)| *peer).collect();
    let contest = Contest { key: "", list: list()?, peers: &peers };
    let terms = Terms { rounds: figures.runs(), packets: PACKETS, with_floor: false };
    let outcome = contest.run(&terms)?;
    for (name, peer) in wanted {
        match outcome.ratio(*peer) {
            Some(ratio) => figures.set(name, ratio.median, &outcome.how(*peer, &contest)),
            None => eprintln!("{name} could not be measured: {}", outcome.absence(*peer)),
        }
    }
    Ok(())
}
