//! Points in time as other formats write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time, UTC, to the second.
pub(crate) struct Civil {
    pub(crate) year: u32,
    pub(crate) month: u32,
    pub(crate) day: u32,
    pub(crate) hour: u32,
    pub(crate) minute: u32,
    pub(crate) second: u32,
}

impl Civil {
    /// None where there is no such time, and before 1970.
    pub(crate) fn time(&self) -> Option<SystemTime> {
        let &Self { year, month, day, hour, minute, second } = self;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            4 | 6 | 9 | 11 => 30,
            2 => 28 + u32::from(leap),
            1..=12 => 31,
            _ => return None,
        };
        // A leap second is the first of the next minute.
        if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 60 || year < 1970 {
            return None;
        }
        // Years that begin in March have their leap day at the end.
        let (years, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let of_years = years * 365 + years / 4 - years / 100 + years / 400;
        let days = of_years + (153 * month + 2) / 5 + day - 1 - 719_468;
        let seconds = u64::from(days) * 86_400 + u64::from(hour * 3600 + minute * 60 + second);
        Some(UNIX_EPOCH + Duration::from_secs(seconds))
    }
}

/// Reads `2026-01-31T12:00:00.000Z`; the fraction is cut off.
pub(crate) fn rfc3339(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    Civil { year, month, day, hour, minute, second }.time()
}

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT`, the form in which HTTP writes dates.
#[cfg(feature = "fetch")]
pub(crate) fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.strip_suffix(" GMT")?.split_once(", ")?;
    let mut parts = date.split(' ');
    let mut next = || parts.next();
    let [day] = numbers(next()?, ' ', [2])?;
    let month = next()?;
    let month = (1..).zip(MONTHS).find(|(_, name)| *name == month)?.0;
    let [year] = numbers(next()?, ' ', [4])?;
    let [hour, minute, second] = numbers(next()?, ':', [2, 2, 2])?;
    let civil = Civil { year, month, day, hour, minute, second };
    parts.next().is_none().then(|| civil.time())?
}

/// Numbers of as many digits as `widths` says.
pub(crate) fn numbers<const N: usize>(
    text: &str,
    between: char,
    widths: [usize; N],
) -> Option<[u32; N]> {
    let mut parts = text.split(between);
    let mut numbers = [0; N];
    for (number, width) in numbers.iter_mut().zip(widths) {
        let digits = parts.next().filter(|part| part.len() == width)?;
        *number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        Some(rfc3339(text)?.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    /// Computed apart from this code, with `date -u +%s`.
    #[test]
    fn times_are_those_of_date() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1972-02-29T23:59:59Z", 68_255_999),
            ("2000-02-29T12:00:00.5Z", 951_825_600),
            ("2000-03-01T00:00:00Z", 951_868_800),
            ("2026-12-31T23:59:60Z", 1_798_761_600),
            ("2100-02-28T00:00:00.123456Z", 4_107_456_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
    }

    #[cfg(feature = "fetch")]
    #[test]
    fn dates_of_http() {
        let seconds = |text| Some(http_date(text)?.duration_since(UNIX_EPOCH).unwrap().as_secs());
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds("Thu, 31 Dec 2026 23:59:59 GMT"), Some(1_798_761_599));
        for text in [
            "",
            "120",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 x GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "Z",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+00:00",
            "2026-01-01 00:00:00Z",
            "2026-1-01T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:61Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.xZ",
            "2026-01-01T00:00:00:00Z",
            "+026-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
