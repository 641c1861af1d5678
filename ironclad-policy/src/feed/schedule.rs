//! When a feed is due: pure, with the time passed in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::FeedSpec;
use super::state::{BackOff, FeedState};

/// Shortest time between refreshes of a feed, and before the first retry.
pub const MIN_REFRESH: Duration = Duration::from_secs(60);
/// Longest time that a server may ask to be left alone by `Retry-After`.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Retries are no further apart than this or the feed's own interval, whichever is longer.
pub const MAX_BACK_OFF: Duration = Duration::from_secs(60 * 60);

/// When the next refresh of a feed is due; 1970 where there was none yet, or where the last one
/// lies in the future, so that a clock that was set back holds nothing up.
pub fn next_due(spec: &FeedSpec, state: Option<&FeedState>, now: SystemTime) -> SystemTime {
    let Some(state) = state.filter(|state| state.attempted_at <= now) else { return UNIX_EPOCH };
    let after = |time: Duration| state.attempted_at.checked_add(time).unwrap_or(now);
    match &state.back_off {
        None => after(spec.refresh.max(MIN_REFRESH)),
        // A file says when, and should not be believed everything.
        Some(back_off) => back_off.until.min(after(MAX_RETRY_AFTER.max(spec.refresh))),
    }
}

/// The retry after `failures` in a row: twice as late each time, up to a bound, and by `jitter` up to
/// half of that earlier, so that hosts that failed together do not come back together. Later where
/// the server asks for it.
pub(super) fn back_off(
    spec: &FeedSpec,
    failures: u32,
    retry_after: Option<Duration>,
    now: SystemTime,
    jitter: u32,
) -> BackOff {
    let doublings = failures.saturating_sub(1).min(16);
    let most = MIN_REFRESH.saturating_mul(1 << doublings).min(MAX_BACK_OFF.max(spec.refresh));
    let wait = most.mul_f64(1.0 - 0.5 * f64::from(jitter) / f64::from(u32::MAX));
    let wait = wait.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER));
    BackOff { failures, until: now.checked_add(wait).unwrap_or(now) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn state(attempted: u64, back_off: Option<BackOff>) -> FeedState {
        FeedState {
            version: 1,
            source: "file:///x".into(),
            attempted_at: at(attempted),
            back_off,
            content: None,
        }
    }

    fn spec(refresh: u64) -> FeedSpec {
        FeedSpec::new("x", "/x").unwrap().refresh(Duration::from_secs(refresh))
    }

    #[test]
    fn a_feed_is_due_after_its_interval() {
        let now = at(1_000_000);
        assert_eq!(next_due(&spec(600), None, now), UNIX_EPOCH);
        let last = state(999_900, None);
        assert_eq!(next_due(&spec(600), Some(&last), now), at(1_000_500));
        // Hammering is not to be had, nor is a time beyond all time.
        assert_eq!(next_due(&spec(0), Some(&last), now), at(999_960));
        assert_eq!(next_due(&spec(u64::MAX), Some(&last), now), now);
        // The clock was wrong.
        assert_eq!(next_due(&spec(600), Some(&state(1_000_001, None)), now), UNIX_EPOCH);
        // The file is wrong.
        let never = BackOff { failures: 1, until: at(u64::MAX >> 8) };
        let due = next_due(&spec(600), Some(&state(999_900, Some(never))), now);
        assert_eq!(due, at(999_900 + 24 * 60 * 60));
    }

    #[test]
    fn retries_are_further_and_further_apart() {
        let waits = |refresh, jitter| {
            [1, 2, 3, 6, 7, 8, 1000].map(|failures| {
                let back_off = back_off(&spec(refresh), failures, None, at(0), jitter);
                back_off.until.duration_since(at(0)).unwrap().as_secs()
            })
        };
        assert_eq!(waits(600, 0), [60, 120, 240, 1920, 3600, 3600, 3600]);
        assert_eq!(waits(600, u32::MAX), [30, 60, 120, 960, 1800, 1800, 1800]);
        assert_eq!(waits(86_400, 0), [60, 120, 240, 1920, 3840, 7680, 86_400]);
    }

    proptest! {
        #[test]
        fn what_the_server_asks_is_honoured_within_bounds(
            failures in 0u32.., asked in any::<u64>(), jitter in any::<u32>(), refresh in 0..1u64 << 40,
        ) {
            let (spec, now) = (spec(refresh), at(1_000_000));
            let plain = back_off(&spec, failures, None, now, jitter);
            let asked = Duration::from_secs(asked);
            let later = back_off(&spec, failures, Some(asked), now, jitter);
            prop_assert_eq!(later.until, plain.until.max(now + asked.min(MAX_RETRY_AFTER)));
            let due = next_due(&spec, Some(&state(1_000_000, Some(later))), now);
            prop_assert_eq!(due, later.until);
            prop_assert!(due >= now + MIN_REFRESH / 2);
        }
    }
}
