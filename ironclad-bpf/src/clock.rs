//! The kernel's clocks, and times of events by the wall clock.
use std::time::{Duration, SystemTime};

use ironclad_core::WallTime;

/// Nanoseconds of `CLOCK_BOOTTIME`, the clock of deadlines and events.
pub fn boottime_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Ticks per second of the kernel: the coarse clock advances by one tick.
pub(crate) fn kernel_hz() -> u32 {
    let tick = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
    match tick.tv_nsec {
        1.. => (1_000_000_000 / tick.tv_nsec) as u32,
        _ => 100,
    }
}

/// A time of `CLOCK_BOOTTIME` in nanoseconds, by the wall clock as it is set now.
///
/// The kernel slews both clocks alike: their distance changes where the wall clock is set, and at a leap
/// second. It is read to within microseconds.
pub fn wall_time(boottime: u64) -> WallTime {
    // A thread may wait between two readings: of several, the one that took the least time.
    let mut best = Reading::now();
    for _ in 0..2 {
        let next = Reading::now();
        if next.took < best.took {
            best = next;
        }
    }
    best.wall_time(boottime)
}

/// Both clocks at one moment.
struct Reading {
    boottime: u64,
    wall: SystemTime,
    took: u64,
}

impl Reading {
    fn now() -> Self {
        let before = boottime_ns();
        let wall = SystemTime::now();
        let took = boottime_ns().saturating_sub(before);
        Self { boottime: before + took / 2, wall, took }
    }

    fn wall_time(&self, boottime: u64) -> WallTime {
        let time = match boottime.checked_sub(self.boottime) {
            Some(later) => self.wall.checked_add(Duration::from_nanos(later)),
            None => self.wall.checked_sub(Duration::from_nanos(self.boottime - boottime)),
        };
        WallTime(time.unwrap_or(self.wall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn the_distance_of_the_clocks_is_added() {
        let wall = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let reading = Reading { boottime: 5_000_000_000, wall, took: 0 };
        let at = |boottime| reading.wall_time(boottime).to_string();
        assert_eq!(at(5_000_000_000), "2001-09-09T01:46:40.000000Z");
        assert_eq!(at(4_999_999_000), "2001-09-09T01:46:39.999999Z");
        assert_eq!(at(6_500_000_000), "2001-09-09T01:46:41.500000Z");
        assert_eq!(at(0), "2001-09-09T01:46:35.000000Z");
        // What no kernel writes does not panic.
        at(u64::MAX);
    }

    /// Unless the clock is set meanwhile.
    #[test]
    fn both_clocks_are_read_between_other_readings_of_them() {
        let (before, boot_before) = (SystemTime::now(), boottime_ns());
        let Reading { boottime, wall, took } = Reading::now();
        let (after, boot_after) = (SystemTime::now(), boottime_ns());
        assert!(before <= wall && wall <= after, "{before:?} {wall:?} {after:?}");
        let whole = boot_after - boot_before;
        assert!(boot_before <= boottime && boottime <= boot_after && took <= whole);
    }
}
