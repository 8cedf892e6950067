//! Instants: the kernel's boot clock as wall-clock time, and RFC 3339 both ways.

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

const NANOS: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// Where wall-clock time of an event comes from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// CLOCK_REALTIME − CLOCK_BOOTTIME, read anew for each event: the wall clock can be set.
    Host,
    /// A fixed distance in nanoseconds.
    Offset(i64),
}

impl Clock {
    /// Wall-clock nanoseconds since 1970 of an instant of CLOCK_BOOTTIME.
    pub fn wall(self, boot_ns: u64) -> i64 {
        let offset = match self {
            Self::Offset(offset) => offset,
            Self::Host => read(ClockId::CLOCK_REALTIME) - read(ClockId::CLOCK_BOOTTIME),
        };
        i64::try_from(boot_ns).unwrap_or(i64::MAX).saturating_add(offset)
    }
}

/// Wall-clock nanoseconds since 1970, now.
pub fn now() -> i64 {
    read(ClockId::CLOCK_REALTIME)
}

/// Nanoseconds of CLOCK_BOOTTIME, now.
pub fn boot() -> i64 {
    read(ClockId::CLOCK_BOOTTIME)
}

/// Nanoseconds of a clock. Every kernel that can load the programs has both clocks; a clock that
/// cannot be read counts as its zero.
fn read(clock: ClockId) -> i64 {
    clock_gettime(clock).map_or(0, |time| time.tv_sec().saturating_mul(NANOS).saturating_add(time.tv_nsec()))
}

/// Nanoseconds since 1970 as RFC 3339 in UTC with microseconds.
pub fn rfc3339(nanoseconds: i64) -> String {
    // 64 bits of nanoseconds end in the year 2262, far within what a timestamp can be.
    let time = Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.6}")
}

/// Nanoseconds since 1970 of an RFC 3339 time.
pub fn parse(text: &str) -> Option<i64> {
    i64::try_from(text.parse::<Timestamp>().ok()?.as_nanosecond()).ok()
}

/// `2026-01-02 03:04:05` of an RFC 3339 time in UTC.
pub fn people(text: &str) -> String {
    text.split(['.', 'Z']).next().unwrap_or(text).replacen('T', " ", 1)
}

/// How long ago, in one unit, for people.
pub fn ago(then: i64, now: i64) -> String {
    let age = now.saturating_sub(then);
    if age < 2 * NANOS { "just now".to_owned() } else { format!("{} ago", span(age)) }
}

/// A length of time in nanoseconds, in one unit, for people.
pub fn span(nanoseconds: i64) -> String {
    let seconds = (nanoseconds / NANOS).max(0);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_and_read_back() {
        let samples = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400 * NANOS, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199 * NANOS + 999_999_000, "2024-02-29T23:59:59.999999Z"),
            (4_102_444_800 * NANOS, "2100-01-01T00:00:00.000000Z"),
            (-1_000, "1969-12-31T23:59:59.999999Z"),
        ];
        for (nanoseconds, text) in samples {
            assert_eq!(rfc3339(nanoseconds), text);
            assert_eq!(parse(text), Some(nanoseconds));
        }
    }

    #[test]
    fn seconds_without_a_fraction_are_read_and_nonsense_is_not() {
        assert_eq!(parse("1970-01-01T00:00:01Z"), Some(NANOS));
        for text in ["", "1970-01-01", "1970-13-01T00:00:00Z", "a-b-cTd:e:fZ", "1970-01-01T00:00:00.Z"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_boot_clock_is_moved_by_the_offset() {
        assert_eq!(Clock::Offset(5).wall(7), 12);
        let distance = now() - Clock::Host.wall(0);
        assert!(distance >= 0, "the host was booted in the past");
    }

    #[test]
    fn ages_have_one_unit() {
        for (seconds, text) in [
            (-5, "just now"),
            (30, "30 s ago"),
            (130, "2 min ago"),
            (7_300, "2 h ago"),
            (400_000, "4 days ago"),
        ] {
            assert_eq!(ago(0, seconds * NANOS), text);
        }
    }
}
