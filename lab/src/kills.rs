//! When tests kill agents.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often, in place of what the test says.
const KILLS: &str = "IRONCLAD_KILLS";
/// In place of a random one: a thousandth of the time between two moments.
const PHASE: &str = "IRONCLAD_KILL_PHASE";

/// `kills` moments of a time, in equal distances. Each run has other ones, and prints how to repeat them.
///
/// # Panics
/// Where a variable is no number.
pub fn moments_to_kill(time: Duration, kills: u32) -> Vec<Duration> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let kills = number(KILLS).unwrap_or(kills);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let phase = number(PHASE).unwrap_or(now.subsec_micros() % 1000);
    println!("{kills} kills within {time:?}: {PHASE}={phase} repeats them");
    (0..kills).map(|kill| time * (1000 * kill + phase) / (1000 * kills)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_spread_over_the_time() {
        let moments = moments_to_kill(Duration::from_secs(4), 4);
        let seconds: Vec<_> = moments.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [0, 1, 2, 3]);
        assert!(moments.windows(2).all(|two| two[1] - two[0] == Duration::from_secs(1)));
    }
}
