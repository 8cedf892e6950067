//! Change windows: when the clock on the wall of a time zone shows a time between two others.
//!
//! That reading is what decides, also on days on which the clock is set: of an hour that is skipped a
//! window has nothing, and of one that comes twice it has both.

use std::collections::BTreeMap;

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use toml::Spanned;

use super::diagnostics::{Diagnostic, Source};
use super::manifest::{Table, Window};

/// How far ahead openings are looked for: a window that does not open in a year is closed.
const HORIZON_DAYS: usize = 400;
/// More than any time zone is away from UTC.
const FARTHEST: SignedDuration = SignedDuration::from_hours(26);

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// The windows of a bundle, by name.
pub type Schedules = BTreeMap<String, Schedule>;

/// When a window is open.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The days of the week on which it begins.
    days: Vec<Weekday>,
    /// Further dates on which it begins.
    dates: Vec<Date>,
    /// Dates on which it does not.
    except: Vec<Date>,
    /// Hour and minute at which it begins.
    from: (i8, i8),
    /// Hour and minute at which it ends, on the same date or, if that is not later, on the next.
    to: (i8, i8),
    zone: TimeZone,
}

/// Reads the windows of a bundle; what is wrong goes to `found`.
pub(super) fn read(table: &Table<Window>, source: &Source, found: &mut Vec<Diagnostic>) -> Schedules {
    let mut schedules = Schedules::new();
    for (name, window) in table {
        let mut wrong = Vec::new();
        let mut problem = |at: &Spanned<String>, message: &str, help: &str| {
            wrong.push(source.error("guard-toml", at.span(), message).help(help));
        };
        let mut days = Vec::new();
        for day in &window.days {
            match DAYS.iter().find(|(known, _)| known == day.get_ref()) {
                Some((_, day)) => days.push(*day),
                None => {
                    problem(
                        day,
                        "this is not a day of the week",
                        "write mon, tue, wed, thu, fri, sat or sun",
                    );
                }
            }
        }
        let mut time = |text: &Spanned<String>, is_end: bool| {
            let read = time(text.get_ref()).filter(|(hour, _)| is_end || *hour < 24);
            if read.is_none() {
                problem(text, "this is not a time of day", "write hours and minutes: \"09:30\"");
            }
            read
        };
        let (from, to) = (time(&window.from, false), time(&window.to, true));
        let mut dates = |list: &[Spanned<String>]| -> Vec<Date> {
            let date = |text: &Spanned<String>| {
                let read = text.get_ref().parse::<Date>().ok().filter(|_| text.get_ref().len() == 10);
                if read.is_none() {
                    problem(text, "this is not a date", "write year, month and day: \"2026-12-24\"");
                }
                read
            };
            list.iter().filter_map(date).collect()
        };
        let (dates, except) = (dates(&window.dates), dates(&window.except));
        if window.days.is_empty() && window.dates.is_empty() {
            problem(name, "this window never opens", "name days or dates");
        }
        if from.is_some() && from == to {
            problem(
                &window.to,
                "it ends when it begins",
                "for a whole day write from = \"00:00\", to = \"24:00\"",
            );
        }
        let zone = TimeZone::get(window.zone.get_ref()).ok();
        if zone.is_none() {
            problem(
                &window.zone,
                "this is not a time zone",
                "write a name of the IANA time zone database: \"Europe/Berlin\", \"UTC\"",
            );
        }
        if let (true, Some(from), Some(to), Some(zone)) = (wrong.is_empty(), from, to, zone) {
            schedules.insert(name.get_ref().clone(), Schedule { days, dates, except, from, to, zone });
        }
        found.append(&mut wrong);
    }
    schedules
}

/// `HH:MM`, up to `24:00`.
fn time(text: &str) -> Option<(i8, i8)> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |digits: &str| -> Option<i8> {
        (digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| digits.parse().ok())
            .flatten()
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours < 24 && minutes < 60 || (hours, minutes) == (24, 0)).then_some((hours, minutes))
}

impl Schedule {
    /// One window, as `guard.toml` writes it.
    ///
    /// # Errors
    /// What is wrong with it.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Result<Self, Vec<Diagnostic>> {
        let text = format!("w = {text}");
        let table: Table<Window> = toml::from_str(&text).unwrap();
        let mut found = Vec::new();
        let schedule = read(&table, &Source::new("guard.toml", text.as_str()), &mut found).remove("w");
        schedule.ok_or(found)
    }

    /// The first `count` times that it is open and that end after `now`: from the first instant until just
    /// before the second.
    pub fn openings(&self, now: Timestamp, count: usize) -> Vec<(Timestamp, Timestamp)> {
        let mut found: Vec<(Timestamp, Timestamp)> = Vec::new();
        // One that began the day before may go on.
        let first = self.zone.to_datetime(now).date().yesterday();
        let dates = first.into_iter().flat_map(|date| date.series(jiff::Span::new().days(1)));
        for date in dates.take(HORIZON_DAYS).filter(|date| self.begins_on(*date)) {
            for (opens, closes) in self.on(date).filter(|(_, closes)| *closes > now) {
                match found.last_mut() {
                    // Where one goes on into the next, nothing changes between them.
                    Some((_, last)) if *last >= opens => *last = closes.max(*last),
                    _ => found.push((opens, closes)),
                }
            }
            // One more was looked at than is wanted, so that the last of these is whole.
            if found.len() > count {
                break;
            }
        }
        found.truncate(count);
        found
    }

    /// Whether it is open at `now`.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.openings(now, 1).first().is_some_and(|(opens, _)| *opens <= now)
    }

    fn begins_on(&self, date: Date) -> bool {
        (self.days.contains(&date.weekday()) || self.dates.contains(&date)) && !self.except.contains(&date)
    }

    /// When the clock on the wall shows what it shows from the beginning to the end of that date's window:
    /// once, or several times around a change of the clock.
    fn on(&self, date: Date) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let (begin, end) = (civil(date, self.from), civil(date, self.to));
        let end = end.filter(|end| begin.is_some_and(|begin| *end > begin)).or_else(|| {
            // It ends on the next date.
            civil(date.tomorrow().ok()?, self.to)
        });
        let bounds = begin.zip(end);
        let segments = bounds.map(|(begin, end)| self.segments(begin, end)).unwrap_or_default();
        segments.into_iter().filter_map(move |(since, until, offset)| {
            let (begin, end) = bounds?;
            let shown = |at: DateTime| offset.to_timestamp(at).ok();
            let (opens, closes) = (shown(begin)?.max(since), shown(end)?.min(until));
            (opens < closes).then_some((opens, closes))
        })
    }

    /// The stretches of time with one offset from UTC in which the clock can show anything between two
    /// readings.
    fn segments(&self, begin: DateTime, end: DateTime) -> Vec<(Timestamp, Timestamp, Offset)> {
        let utc = |at: DateTime| Offset::UTC.to_timestamp(at).ok();
        let (Some(since), Some(until)) = (
            utc(begin).and_then(|at| at.checked_sub(FARTHEST).ok()),
            utc(end).and_then(|at| at.checked_add(FARTHEST).ok()),
        ) else {
            return Vec::new();
        };
        let changes = self.zone.following(since).take_while(|change| change.timestamp() < until);
        let mut segments = vec![(since, until, self.zone.to_offset(since))];
        for change in changes {
            if let Some((_, last, _)) = segments.last_mut() {
                *last = change.timestamp();
            }
            segments.push((change.timestamp(), until, change.offset()));
        }
        segments
    }
}

/// A date and a time of it; 24:00 is the beginning of the next.
fn civil(date: Date, (hour, minute): (i8, i8)) -> Option<DateTime> {
    if hour == 24 { Some(date.tomorrow().ok()?.at(0, 0, 0, 0)) } else { Some(date.at(hour, minute, 0, 0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(
        days: &str,
        from: &str,
        to: &str,
        zone: &str,
        more: &str,
    ) -> Result<Schedule, Vec<Diagnostic>> {
        Schedule::of(&format!(
            "{{ days = [{days}], from = \"{from}\", to = \"{to}\", zone = \"{zone}\"{more} }}"
        ))
    }

    fn openings(schedule: &Schedule, now: &str, count: usize) -> Vec<String> {
        let found = schedule.openings(now.parse().unwrap(), count);
        found.into_iter().map(|(opens, closes)| format!("{opens}/{closes}")).collect()
    }

    #[test]
    fn a_window_is_open_on_its_days_and_dates_and_not_on_exceptions() {
        let more = ", dates = [\"2026-12-05\"], except = [\"2026-12-03\"]";
        let schedule = schedule("\"tue\", \"thu\"", "09:00", "11:30", "Europe/Berlin", more).unwrap();
        assert_eq!(
            openings(&schedule, "2026-12-01T10:30:00Z", 3),
            [
                "2026-12-05T08:00:00Z/2026-12-05T10:30:00Z",
                "2026-12-08T08:00:00Z/2026-12-08T10:30:00Z",
                "2026-12-10T08:00:00Z/2026-12-10T10:30:00Z"
            ],
            "the instant of the end is outside"
        );
        for (at, open) in [
            ("2026-12-01T07:59:59.999999999Z", false),
            ("2026-12-01T08:00:00Z", true),
            ("2026-12-01T10:29:59.999999999Z", true),
            ("2026-12-01T10:30:00Z", false),
        ] {
            assert_eq!(schedule.is_open(at.parse().unwrap()), open, "{at}");
        }
    }

    #[test]
    fn the_clock_on_the_wall_decides_when_it_is_set() {
        // 02:00 to 03:00 is skipped on 2026-03-29, and comes twice on 2026-10-25.
        let at = |from, to| schedule("\"sun\"", from, to, "Europe/Berlin", "").unwrap();
        let spring = "2026-03-28T12:00:00Z";
        assert_eq!(openings(&at("02:15", "02:45"), spring, 1), ["2026-04-05T00:15:00Z/2026-04-05T00:45:00Z"]);
        assert_eq!(openings(&at("01:30", "03:30"), spring, 1), ["2026-03-29T00:30:00Z/2026-03-29T01:30:00Z"]);
        let autumn = "2026-10-24T12:00:00Z";
        assert_eq!(
            openings(&at("02:15", "02:45"), autumn, 2),
            ["2026-10-25T00:15:00Z/2026-10-25T00:45:00Z", "2026-10-25T01:15:00Z/2026-10-25T01:45:00Z"]
        );
        assert_eq!(
            openings(&at("02:30", "03:30"), autumn, 2),
            ["2026-10-25T00:30:00Z/2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z/2026-10-25T02:30:00Z"]
        );
        assert_eq!(openings(&at("01:30", "03:30"), autumn, 1), ["2026-10-24T23:30:00Z/2026-10-25T02:30:00Z"]);
    }

    #[test]
    fn a_window_goes_on_after_midnight_and_windows_that_touch_are_one() {
        let night = schedule("\"fri\"", "22:00", "02:00", "UTC", "").unwrap();
        assert_eq!(
            openings(&night, "2026-12-05T01:59:00Z", 2),
            ["2026-12-04T22:00:00Z/2026-12-05T02:00:00Z", "2026-12-11T22:00:00Z/2026-12-12T02:00:00Z"]
        );
        let days = schedule("\"mon\", \"tue\"", "00:00", "24:00", "UTC", "").unwrap();
        assert_eq!(openings(&days, "2026-11-30T12:00:00Z", 1), ["2026-11-30T00:00:00Z/2026-12-02T00:00:00Z"]);
        let rare = schedule("", "00:00", "24:00", "UTC", ", dates = [\"2024-02-29\"]").unwrap();
        assert_eq!(openings(&rare, "2026-12-01T12:00:00Z", 1), Vec::<String>::new(), "a date in the past");
    }

    #[test]
    fn what_is_no_window_is_named() {
        for (days, from, to, zone, more, said) in [
            ("\"day\"", "09:00", "10:00", "UTC", "", "not a day of the week"),
            ("\"mon\"", "9:00", "10:00", "UTC", "", "not a time of day"),
            ("\"mon\"", "24:00", "10:00", "UTC", "", "not a time of day"),
            ("\"mon\"", "09:00", "25:00", "UTC", "", "not a time of day"),
            ("\"mon\"", "09:00", "09:00", "UTC", "", "ends when it begins"),
            ("", "09:00", "10:00", "UTC", "", "never opens"),
            ("\"mon\"", "09:00", "10:00", "Europe/Atlantis", "", "not a time zone"),
            ("\"mon\"", "09:00", "10:00", "UTC", ", except = [\"2026-02-30\"]", "not a date"),
        ] {
            let found = schedule(days, from, to, zone, more).unwrap_err();
            assert!(found.iter().any(|error| error.message.contains(said)), "{said}: {found:?}");
        }
    }
}
