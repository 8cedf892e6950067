//! Which parts of a service's life were seen, and which were not: what was not seen is not in a
//! proposal.

use super::unit_file::words;

/// What is known of a service's life. Instants are nanoseconds since 1970; `None`: never, or not
/// known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// Since when operations are recorded.
    pub since: i64,
    /// When the last operation was recorded.
    pub last_operation: Option<i64>,
    /// When the unit became active last; nothing for a subject that is no unit.
    pub started: Option<i64>,
    /// When the unit stopped last.
    pub stopped: Option<i64>,
    /// When it was reloaded last; `Some(None)` if it can be and was not.
    pub reloaded: Option<Option<i64>>,
    /// When its logs were rotated last; `Some(None)` if they are and were not.
    pub rotated: Option<Option<i64>>,
    /// When a certificate of this host was renewed last, if there are some.
    pub renewed: Option<Option<i64>>,
    /// When the host was booted.
    pub booted: Option<i64>,
    /// Jobs of cron and timers that are about the service.
    pub jobs: Vec<String>,
}

/// Parts of a service's life, in the order in which they are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// What happened while operations were recorded.
    pub seen: Vec<String>,
    /// What did not.
    pub not_seen: Vec<String>,
}

impl Life {
    /// What was seen and what was not.
    pub fn phases(&self) -> Phases {
        let mut phases = Phases::default();
        let mut add = |name: &str, at: Option<i64>| {
            let seen = at.is_some_and(|at| at >= self.since);
            if seen { &mut phases.seen } else { &mut phases.not_seen }.push(name.to_owned());
        };
        if self.started.is_some() || self.stopped.is_some() {
            add("start", self.started.filter(|at| *at > 0));
        }
        // At work: an operation when the start was over, and what its workers do at first with it.
        const STARTING: i64 = 200_000_000;
        let begun = self.started.unwrap_or(self.since).saturating_add(STARTING);
        add("work", self.last_operation.filter(|at| *at > begun));
        if let Some(reloaded) = self.reloaded {
            add("reload", reloaded);
        }
        if self.started.is_some() || self.stopped.is_some() {
            add("stop", self.stopped);
        }
        if let Some(rotated) = self.rotated {
            add("log rotation", rotated);
        }
        if let Some(renewed) = self.renewed {
            add("certificate renewal", renewed);
        }
        add("boot", self.booted);
        // Whether a job of cron ran is written nowhere that could be relied on.
        phases.not_seen.extend(self.jobs.iter().map(|job| format!("{job} (unless it ran)")));
        phases
    }
}

/// The properties of a unit that `systemctl show` prints, as far as they tell its life.
pub fn read_show(text: &str, life: &mut Life) {
    for line in text.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        match key {
            "ActiveEnterTimestamp" => life.started = Some(timestamp(value).unwrap_or(0)),
            "InactiveEnterTimestamp" => life.stopped = timestamp(value),
            "CanReload" if value == "yes" => {
                life.reloaded.get_or_insert(None);
            }
            // `{ path=… ; argv[]=… ; start_time=[Wed 2026-11-25 09:00:00 UTC] ; … }`
            "ExecReload" => {
                let at = value
                    .rsplit_once("start_time=[")
                    .and_then(|(_, rest)| timestamp(rest.split(']').next()?));
                life.reloaded = Some(life.reloaded.flatten().max(at));
            }
            _ => {}
        }
    }
}

/// The last rotation of a log among `logs`, from logrotate's state: `"/var/log/x" 2026-1-31-6:25:1`.
pub fn last_rotation(state: &str, logs: &dyn Fn(&str) -> bool) -> Option<i64> {
    let of = |line: &str| {
        let words = words(line);
        let [path, when] = words.as_slice() else { return None };
        if !logs(path) {
            return None;
        }
        let numbers: Vec<i64> =
            when.split(['-', ':']).map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let [year, month, day, rest @ ..] = numbers.as_slice() else { return None };
        let part = |index: usize| rest.get(index).copied().unwrap_or(0);
        instant(&format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", part(0), part(1), part(2)))
    };
    state.lines().filter_map(of).max()
}

/// `Wed 2026-11-25 09:00:00.631548 UTC`, also without the fraction, or `@1700000000`.
fn timestamp(text: &str) -> Option<i64> {
    if let Some(seconds) = text.strip_prefix('@') {
        return seconds.split('.').next()?.parse::<i64>().ok()?.checked_mul(1_000_000_000);
    }
    let mut words = text.split_whitespace().skip(1);
    let (day, time) = (words.next()?, words.next()?);
    instant(&format!("{day} {time}"))
}

/// Nanoseconds since 1970 of `2026-11-25 09:00:00` in UTC.
fn instant(text: &str) -> Option<i64> {
    crate::events::time::parse(&format!("{}Z", text.replacen(' ', "T", 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn what_happened_before_recording_began_was_not_seen() {
        let show = "ActiveEnterTimestamp=Wed 2026-11-25 09:00:00 UTC\nInactiveEnterTimestamp=\nCanReload=yes\n\
             ExecReload={ path=/usr/sbin/nginx ; argv[]=/usr/sbin/nginx -s reload ; ignore_errors=no ; start_time=[Wed 2026-11-25 10:00:00 UTC] ; stop_time=[n/a] ; pid=9 }\n";
        let nine = instant("2026-11-25 09:00:00").unwrap();
        let mut life = Life {
            since: nine + 60 * SECOND,
            last_operation: Some(nine + 120 * SECOND),
            rotated: Some(None),
            booted: Some(nine - 5 * SECOND),
            jobs: vec!["cron.daily/nginx".to_owned()],
            ..Life::default()
        };
        read_show(show, &mut life);
        let phases = life.phases();
        assert_eq!(phases.seen, ["work", "reload"]);
        assert_eq!(
            phases.not_seen,
            ["start", "stop", "log rotation", "boot", "cron.daily/nginx (unless it ran)"]
        );
        let early = Life { since: nine - 10 * SECOND, ..life };
        assert_eq!(early.phases().seen, ["start", "work", "reload", "boot"]);
    }

    #[test]
    fn a_start_in_the_second_in_which_recording_began_was_seen() {
        let nine = instant("2026-11-25 09:00:00").unwrap();
        let mut life = Life { since: nine + SECOND / 4, ..Life::default() };
        read_show("ActiveEnterTimestamp=Wed 2026-11-25 09:00:00.631548 UTC\n", &mut life);
        assert_eq!(life.started, Some(nine + 631_548_000));
        assert_eq!(life.phases().seen, ["start"]);
    }

    #[test]
    fn a_unit_that_was_never_reloaded_says_so() {
        let mut life = Life { since: 1, ..Life::default() };
        read_show(
            "ActiveEnterTimestamp=\nCanReload=yes\nExecReload={ path=/bin/kill ; start_time=[n/a] ; pid=0 }\n",
            &mut life,
        );
        assert_eq!(life.phases().not_seen, ["start", "work", "reload", "stop", "boot"]);
    }

    #[test]
    fn a_subject_that_is_no_unit_has_no_start() {
        let life = Life { since: 5, last_operation: Some(9 * SECOND), booted: Some(7), ..Life::default() };
        assert_eq!(life.phases(), Phases { seen: vec!["work".into(), "boot".into()], not_seen: Vec::new() });
    }

    #[test]
    fn rotations_are_read_from_logrotate() {
        let state = "logrotate state -- version 2\n\"/var/log/nginx/access.log\" 2026-11-24-6:25:1\n\"/var/log/nginx/error.log\" 2026-11-25-0:0:0\n\"/var/log/dpkg.log\" 2026-12-1-0:0:0\n";
        let at = last_rotation(state, &|path| path.starts_with("/var/log/nginx/"));
        assert_eq!(at, instant("2026-11-25 00:00:00"));
        assert_eq!(last_rotation("", &|_| true), None);
    }
}
