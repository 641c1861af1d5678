//! Rounds in which every contender has its turn, so that what disturbs one disturbs all.

use std::rc::Rc;

use ironclad_bpf::bench::Generator;

use super::baseline::Baseline;
use super::contender::{Contender, Firewall, Loaded};
use super::ipset::Ipset;
use super::list::List;
use super::nft::Nft;
use super::open_road::OpenRoad;
use super::shield::Shield;
use super::track::Track;
use super::xdp_filter::XdpFilter;
use crate::common::Result;
use crate::stats::Runs;

/// Once loaded, the contenders take turns so many times before they load anew: what disturbs one
/// disturbs its neighbours too.
pub(super) const TURNS: u32 = 4;

/// Whom Shield races.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Nft,
    Ipset,
    XdpFilter,
}

impl Peer {
    /// Those that know prefixes.
    pub(super) const WITH_PREFIXES: &'static [Peer] = &[Peer::Nft, Peer::Ipset];
    pub(super) const ALL: &'static [Peer] = &[Peer::Nft, Peer::Ipset, Peer::XdpFilter];
}

/// In which place a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Floor,
    Ceiling,
    Shield,
    Peer(Peer),
}

impl Place {
    /// Its name in JSON.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Place::Floor => "no_firewall",
            Place::Ceiling => "empty",
            Place::Shield => "shield",
            Place::Peer(Peer::Nft) => "nft",
            Place::Peer(Peer::Ipset) => "ipset",
            Place::Peer(Peer::XdpFilter) => "xdp_filter",
        }
    }
}

/// A list, and the contenders that race on it.
pub(super) struct Contest<'a> {
    /// Its name in JSON.
    pub(super) key: &'static str,
    pub(super) list: List,
    pub(super) peers: &'a [Peer],
}

/// How a contest is run.
pub(super) struct Terms {
    pub(super) rounds: usize,
    /// Of each contender in a round.
    pub(super) packets: u32,
    /// Without any firewall too.
    pub(super) with_floor: bool,
}

/// What one contender did. Packets a second are the inverse of the CPU time: one CPU makes the
/// packet, receives it and drops it.
pub(super) struct Row {
    pub(super) place: Place,
    pub(super) name: &'static str,
    pub(super) how: &'static str,
    /// Nanoseconds a packet, of each turn in each round.
    turns: Vec<Vec<f64>>,
    /// Of each round.
    pub(super) load_ms: Vec<f64>,
    /// Why it could not race.
    pub(super) absent: Option<String>,
}

pub(super) struct Outcome {
    pub(super) rows: Vec<Row>,
}

impl Contest<'_> {
    /// Runs it on a pair of its own. A contender that lets a packet through, or counts other than
    /// what was sent, ends it with an error; one that cannot be had is left out and says why.
    pub(super) fn run(&self, terms: &Terms) -> Result<Outcome> {
        Track::with(|track| {
            let generator = Rc::new(track.generator(&self.list)?);
            let mut field = self.field(terms, &generator);
            for _ in 0..terms.rounds {
                self.round(track, &generator, terms, &mut field)?;
            }
            Ok(Outcome { rows: field.into_iter().map(|(_, row)| row).collect() })
        })
    }

    fn field(&self, terms: &Terms, generator: &Rc<Generator>) -> Vec<(Box<dyn Contender>, Row)> {
        let mut field: Vec<(Place, Box<dyn Contender>)> =
            vec![(Place::Ceiling, Box::new(Baseline(generator.clone())))];
        field.push((Place::Shield, Box::new(Shield)));
        for peer in self.peers {
            let contender: Box<dyn Contender> = match peer {
                Peer::Nft => Box::new(Nft),
                Peer::Ipset => Box::new(Ipset),
                Peer::XdpFilter => Box::new(XdpFilter),
            };
            field.push((Place::Peer(*peer), contender));
        }
        if terms.with_floor {
            field.push((Place::Floor, Box::new(OpenRoad)));
        }
        let row = |place, contender: &dyn Contender| Row {
            place,
            name: contender.name(),
            how: contender.how(&self.list),
            turns: Vec::new(),
            load_ms: Vec::new(),
            absent: None,
        };
        field
            .into_iter()
            .map(|(place, contender)| {
                let row = row(place, &*contender);
                (contender, row)
            })
            .collect()
    }

    fn round(
        &self,
        track: &Track<'_>,
        generator: &Generator,
        terms: &Terms,
        field: &mut [(Box<dyn Contender>, Row)],
    ) -> Result<()> {
        let mut ready = Vec::new();
        for (contender, row) in field.iter_mut().filter(|(_, row)| row.absent.is_none()) {
            match contender.load(track, &self.list) {
                Ok(Loaded { took, firewall }) => {
                    firewall.lower()?;
                    row.load_ms.push(took.as_secs_f64() * 1e3);
                    row.turns.push(Vec::new());
                    ready.push((row, firewall));
                }
                Err(why) if matches!(row.place, Place::Peer(_)) => {
                    row.absent = Some(why.to_string());
                }
                Err(why) => return Err(why),
            }
        }
        let packets = terms.packets.div_ceil(TURNS);
        for _ in 0..TURNS {
            for (row, firewall) in &mut ready {
                let ns = turn(track, generator, packets, &**firewall)
                    .map_err(|why| format!("{}: {why}", row.name))?;
                if let Some(turns) = row.turns.last_mut() {
                    turns.push(ns);
                }
            }
        }
        ready.into_iter().try_for_each(|(_, firewall)| firewall.remove())
    }
}

/// Nanoseconds a packet.
fn turn(
    track: &Track<'_>,
    generator: &Generator,
    packets: u32,
    firewall: &dyn Firewall,
) -> Result<f64> {
    firewall.raise()?;
    track.burst(generator, packets / 4)?;
    let before = firewall.dropped()?;
    let ns = track.burst(generator, packets)?;
    let dropped = firewall.dropped()? - before;
    if dropped != u64::from(packets) {
        return Err(format!("of {packets} packets it counted {dropped}").into());
    }
    firewall.lower()?;
    Ok(ns)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    Runs::of(values.collect()).median
}

impl Row {
    /// Nanoseconds of CPU time a packet: of each round the median.
    pub(super) fn cpu_ns(&self) -> Runs {
        Runs::of(self.turns.iter().map(|turns| median(turns.iter().copied())).collect())
    }

    /// Million packets a second, were the CPU given to nothing else.
    pub(super) fn mpps(&self) -> Runs {
        let Runs { median, least, most } = self.cpu_ns();
        Runs { median: 1e3 / median, least: 1e3 / most, most: 1e3 / least }
    }

    /// A comparison of turns that followed each other: of each round the median.
    fn against(&self, other: &Row, compare: impl Fn(f64, f64) -> f64) -> Runs {
        let round = |(ours, theirs): (&Vec<f64>, &Vec<f64>)| {
            median(ours.iter().zip(theirs).map(|(ours, theirs)| compare(*ours, *theirs)))
        };
        Runs::of(self.turns.iter().zip(&other.turns).map(round).collect())
    }

    pub(super) fn is_measured(&self) -> bool {
        self.absent.is_none() && !self.turns.is_empty()
    }
}

impl Outcome {
    fn row(&self, place: Place) -> Option<&Row> {
        self.rows.iter().find(|row| row.place == place && row.is_measured())
    }

    fn shield(&self) -> Option<&Row> {
        self.row(Place::Shield)
    }

    /// Shield's packets a second over the row's.
    pub(super) fn pps_ratio(&self, row: &Row) -> Option<Runs> {
        Some(row.against(self.shield()?, |theirs, ours| theirs / ours))
    }

    /// The row's time to load the list over Shield's.
    pub(super) fn load_ratio(&self, row: &Row) -> Option<f64> {
        let median = |row: &Row| Runs::of(row.load_ms.clone()).median;
        Some(median(row) / median(self.shield()?))
    }

    /// The row's CPU time above an empty program over Shield's: the drop alone.
    pub(super) fn drop_ratio(&self, row: &Row) -> Option<f64> {
        let shield = self.drop_ns(self.shield()?)?;
        Some(self.drop_ns(row)?.median / shield.median)
    }

    pub(super) fn ratio(&self, peer: Peer) -> Option<Runs> {
        self.pps_ratio(self.row(Place::Peer(peer))?)
    }

    /// A row's CPU time a packet without what the ceiling takes too: sending, and the pair.
    pub(super) fn drop_ns(&self, row: &Row) -> Option<Runs> {
        Some(row.against(self.row(Place::Ceiling)?, |ns, least| ns - least))
    }

    /// Why a peer has no ratio.
    pub(super) fn absence(&self, peer: Peer) -> &str {
        let row = self.rows.iter().find(|row| row.place == Place::Peer(peer));
        row.and_then(|row| row.absent.as_deref()).unwrap_or("not measured")
    }

    /// What a figure says of itself.
    pub(super) fn how(&self, peer: Peer, contest: &Contest<'_>) -> String {
        let side = |row: &Row| {
            let drop = self.drop_ns(row).map_or(f64::NAN, |drop| drop.median);
            let mpps = row.mpps().median;
            format!("{} {mpps:.2} Mpps, {drop:.0} ns above an empty program", row.name)
        };
        let sides: Vec<String> = [Place::Shield, Place::Peer(peer)]
            .into_iter()
            .filter_map(|place| self.row(place).map(side))
            .collect();
        let spread = self
            .ratio(peer)
            .map_or_else(String::new, |Runs { least, most, .. }| format!("{least:.2}–{most:.2}: "));
        format!("{spread}{}; {}", sides.join("; "), contest.list.title)
    }
}
