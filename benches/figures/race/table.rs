//! What a race has shown, for people and for programs.

use serde_json::{Map, Value, json};

use super::contest::{Contest, Outcome, Place, Row, TURNS, Terms};
use crate::stats::Runs;

fn spread(Runs { median, least, most }: Runs, digits: usize) -> String {
    format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
}

fn is_peer(row: &Row) -> bool {
    matches!(row.place, Place::Peer(_))
}

/// Nothing is loaded where there is no list.
fn has_list(row: &Row) -> bool {
    is_peer(row) || row.place == Place::Shield
}

pub(super) fn print(contest: &Contest<'_>, terms: &Terms, outcome: &Outcome) {
    println!("\n{}", contest.list.title);
    println!(
        "{} rounds of {TURNS} turns, {} packets in all from {} sources; every packet arrived and \
         was counted\n",
        terms.rounds,
        terms.packets,
        contest.list.sources.len()
    );
    println!(
        "{:18} {:>17} {:>16} {:>9} {:>20}   {:>17} {:>5} {:>5}",
        "", "", "ns CPU", "of it", "", "rest over Shield:", "", ""
    );
    println!(
        "{:18} {:>17} {:>16} {:>9} {:>20}   {:>17} {:>7} {:>7}",
        "", "Mpps", "a packet", "drop", "list load ms", "slower by", "drop", "load"
    );
    for row in &outcome.rows {
        match &row.absent {
            Some(why) => println!("{:18} did not race: {why}", row.name),
            None => println!("{}", line(outcome, row)),
        }
    }
    println!();
    for row in &outcome.rows {
        println!("{:18} {}", row.name, row.how);
    }
}

fn line(outcome: &Outcome, row: &Row) -> String {
    let nothing = String::new;
    let drop = outcome.drop_ns(row).filter(|_| row.place != Place::Ceiling);
    let drop = drop.map_or_else(nothing, |drop| format!("{:.0}", drop.median));
    let load = if has_list(row) { spread(Runs::of(row.load_ms.clone()), 0) } else { nothing() };
    let ratio = |value: Option<f64>| value.map_or_else(nothing, |value| format!("{value:.2}"));
    let slower = outcome.pps_ratio(row).filter(|_| row.place != Place::Shield);
    let slower = slower.map_or_else(nothing, |runs| spread(runs, 2));
    format!(
        "{:18} {:>17} {:>16} {drop:>9} {load:>20}   {slower:>17} {:>7} {:>7}",
        row.name,
        spread(row.mpps(), 2),
        spread(row.cpu_ns(), 0),
        ratio(outcome.drop_ratio(row).filter(|_| is_peer(row))),
        ratio(outcome.load_ratio(row).filter(|_| is_peer(row))),
    )
}

/// How many did not race.
pub(super) fn conclude(outcomes: &[(&str, Outcome)]) {
    let peers = outcomes.iter().flat_map(|(_, outcome)| &outcome.rows).filter(|row| is_peer(row));
    let (absent, raced): (Vec<_>, Vec<_>) = peers.partition(|row| row.absent.is_some());
    println!("\n{} races against other firewalls, {} could not be run", raced.len(), absent.len());
}

pub(super) fn json(outcomes: &[(&str, Outcome)]) -> Value {
    let runs = |Runs { median, least, most }: Runs| json!({ "median": median, "least": least, "most": most });
    let row = |outcome: &Outcome, row: &Row| {
        if let Some(why) = &row.absent {
            return json!({ "absent": why });
        }
        let mut value = json!({
            "how": row.how,
            "mpps": runs(row.mpps()),
            "cpu_ns": runs(row.cpu_ns()),
            "drop_ns": outcome.drop_ns(row).map(runs),
        });
        if has_list(row) {
            value["load_ms"] = runs(Runs::of(row.load_ms.clone()));
        }
        if is_peer(row) {
            value["pps_ratio"] = json!(outcome.pps_ratio(row).map(runs));
            value["drop_ratio"] = json!(outcome.drop_ratio(row));
            value["load_ratio"] = json!(outcome.load_ratio(row));
        }
        value
    };
    let contest = |outcome: &Outcome| -> Map<String, Value> {
        outcome.rows.iter().map(|r| (r.place.key().to_owned(), row(outcome, r))).collect()
    };
    let contests =
        outcomes.iter().map(|(key, outcome)| ((*key).to_owned(), Value::Object(contest(outcome))));
    Value::Object(contests.collect())
}
