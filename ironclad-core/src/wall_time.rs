use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// A point in time, shown and serialized as RFC 3339 says, in UTC and to the microsecond.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
///
/// use ironclad_core::WallTime;
///
/// let time = WallTime(UNIX_EPOCH + Duration::from_nanos(951_825_600_123_456_789));
/// assert_eq!(time.to_string(), "2000-02-29T12:00:00.123456Z");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub SystemTime);

/// Before 1970, the beginning of 1970.
impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since: Duration = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let micros = since.subsec_micros();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Year, month and day of a day after 1 January 1970.
fn civil(days: u64) -> (u64, u64, u64) {
    /// Four hundred years, which all have as many days.
    const ERA: u64 = 146_097;
    // From 1 March of year 0: a year that begins in March has its leap day at the end.
    let days = days + 719_468;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / (ERA - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed apart from this code, with `date -u +%s`.
    #[test]
    fn times_are_those_of_date() {
        for (nanos, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (68_255_999_999_999_999, "1972-02-29T23:59:59.999999Z"),
            (951_782_399_000_000_001, "2000-02-28T23:59:59.000000Z"),
            (951_825_600_500_000_000, "2000-02-29T12:00:00.500000Z"),
            (951_868_800_000_001_000, "2000-03-01T00:00:00.000001Z"),
            (978_220_800_000_000_000, "2000-12-31T00:00:00.000000Z"),
            (1_798_761_599_000_000_000, "2026-12-31T23:59:59.000000Z"),
            (4_107_456_000_000_000_000, "2100-02-28T00:00:00.000000Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000Z"),
        ] {
            let time = WallTime(UNIX_EPOCH + Duration::from_nanos(nanos));
            assert_eq!(time.to_string(), expected);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = (1970, 1, 1);
        for day in 1..200_000 {
            let (year, month, of_month) = civil(day);
            let last = match before.1 {
                4 | 6 | 9 | 11 => 30,
                2 if before.0 % 4 == 0 && (before.0 % 100 != 0 || before.0 % 400 == 0) => 29,
                2 => 28,
                _ => 31,
            };
            let expected = match before {
                (year, 12, 31) => (year + 1, 1, 1),
                (year, month, day) if day == last => (year, month + 1, 1),
                (year, month, day) => (year, month, day + 1),
            };
            assert_eq!((year, month, of_month), expected);
            before = expected;
        }
    }

    #[test]
    fn times_before_1970_do_not_panic() {
        let time = WallTime(UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(time.to_string(), "1970-01-01T00:00:00.000000Z");
    }
}
