//! One guest that runs one set of the in-guest tests.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::tally::Tally;
use crate::command::{CommandExt, say};
use crate::kernels::Series;
use crate::paths;
use crate::setup::GuestEnvironment;
use crate::vm::{Ended, Guest, Outcome, Stream};

/// A set of tests that share a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// The few that every series gets on every change.
    Smoke,
    /// What an ordinary guest can run beside one daemon.
    Plain,
    /// What an ordinary guest can run and starts daemons itself: one half of it, because every start takes
    /// most of a minute.
    Alone(Half),
    /// What needs systemd as PID 1.
    Systemd,
    /// What a kernel booted without the bpf LSM must be told.
    WithoutBpfLsm,
    /// What a kernel that is locked down must be told.
    Lockdown,
}

/// Every second test of a set, or the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    First,
    Second,
}

impl Set {
    /// The sets that are the whole, those that take longest first.
    pub(crate) const WHOLE: [Self; 6] = [
        Self::Plain,
        Self::Alone(Half::First),
        Self::Alone(Half::Second),
        Self::Systemd,
        Self::WithoutBpfLsm,
        Self::Lockdown,
    ];

    /// Processors of its guest: races need two.
    fn cpus(self) -> u32 {
        if matches!(self, Self::Plain | Self::Alone(_)) { 2 } else { 1 }
    }

    /// Names of what is chosen of it: tests, or entries of the catalogue of threats.
    pub(crate) fn names(self, choice: &Choice<'_>) -> Result<Vec<String>> {
        let names = Command::new(paths::binaries().join("guard-tests"))
            .args(self.arguments())
            .arg("--list")
            .args(choice.arguments())
            .read()?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Smoke => &["--smoke"],
            Self::Plain => &[],
            Self::Alone(Half::First) => &["--alone", "--half", "first"],
            Self::Alone(Half::Second) => &["--alone", "--half", "second"],
            Self::Systemd => &["--systemd"],
            Self::WithoutBpfLsm => &["--without-bpf-lsm"],
            Self::Lockdown => &["--lockdown"],
        }
    }

    /// How long it may take, on a machine that is busy with other things.
    pub(super) fn timeout(self, full: bool) -> Duration {
        let minutes = match self {
            Self::Plain | Self::Alone(_) if full => 150,
            Self::Plain | Self::Alone(_) => 80,
            Self::Systemd => 60,
            _ => 40,
        };
        Duration::from_secs(minutes * 60)
    }
}

/// What is run of a set, and how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Choice<'a> {
    /// Races are repeated as often as promised.
    pub(crate) full: bool,
    /// Only tests whose name, or whose part's name, contains this.
    pub(crate) filter: Option<&'a str>,
    /// Only tests that answer this entry of the catalogue of threats, or any entry if it is `all`.
    pub(crate) threat: Option<&'a str>,
}

impl Choice<'_> {
    fn arguments(&self) -> impl Iterator<Item = &str> {
        let threat = self.threat.map(|entry| ["--threat", entry]);
        threat.into_iter().flatten().chain(self.filter)
    }
}

/// A set on a series.
pub(crate) struct Job {
    pub(crate) series: Series,
    pub(crate) set: Set,
}

impl Job {
    /// Boots the guest and counts what its tests report.
    pub(crate) fn run(&self, environment: &GuestEnvironment, choice: &Choice<'_>) -> Result<Tally> {
        let mut command = vec!["guard-tests"];
        command.extend(self.set.arguments());
        if choice.full && self.set != Set::Smoke {
            command.push("--full");
        }
        command.extend(choice.arguments());
        say!("guest with {}: {}", environment.kernel.release, command.join(" "));

        let mut guest = Guest::new(command.iter().copied());
        guest.cpus = self.set.cpus();
        guest.systemd = self.set == Set::Systemd;
        guest.timeout = Some(self.set.timeout(choice.full));
        guest.scratch = environment.disks.iter().map(|disk| disk.kind.to_owned()).collect();
        if self.set == Set::WithoutBpfLsm {
            guest.append.push("lsm=landlock,lockdown,yama,integrity,apparmor".to_owned());
        }

        let mut report = Report { series: self.series.to_string(), ..Report::default() };
        let outcome = guest.run(environment, &mut |stream, bytes| {
            report.take(stream, bytes);
            Ok(())
        })?;
        Ok(report.finish(&outcome, &format!("guest {} ({})", self.series, command.join(" "))))
    }
}

/// Reads the tests' lines as they come.
#[derive(Default)]
struct Report {
    series: String,
    tally: Tally,
    /// Whether the last line with the counts has been seen.
    is_complete: bool,
    /// Starts of lines that have not ended yet.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Report {
    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        for byte in bytes {
            let partial = if stream == Stream::Stdout { &mut self.stdout } else { &mut self.stderr };
            if *byte != b'\n' {
                partial.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(partial)).into_owned();
            match stream {
                Stream::Stdout => self.line(&line),
                Stream::Stderr => eprintln!("{:>5} | {line}", self.series),
            }
        }
    }

    fn line(&mut self, line: &str) {
        if line.starts_with("ok ") {
            self.tally.passed += 1;
        } else if let Some(failure) = line.strip_prefix("FAIL ") {
            self.tally.failures.push(format!("{} {failure}", self.series));
        } else if let Some((id, outcome)) = line.strip_prefix("entry ").and_then(|rest| rest.split_once(' '))
        {
            let outcome = outcome.split(':').next().unwrap_or_default();
            self.tally.entries.push((self.series.clone(), id.to_owned(), outcome.to_owned()));
        } else if line.split_once(" passed, ").is_some_and(|(_, rest)| rest.ends_with(" failed")) {
            // Our own last line sums up all guests.
            self.is_complete = true;
            return;
        }
        println!("{:>5} {line}", self.series);
    }

    /// Adds what the guest as a whole did wrong.
    fn finish(mut self, outcome: &Outcome, name: &str) -> Tally {
        let mut faults: Vec<String> =
            outcome.warnings.iter().map(|warning| format!("kernel warning: {warning}")).collect();
        match &outcome.ended {
            Ended::Exit(0) if self.is_complete => {}
            Ended::Exit(1) if self.is_complete && !self.tally.failures.is_empty() => {}
            Ended::Exit(status) => faults.push(format!("the tests ended with status {status} and no result")),
            Ended::Crash(why) => faults.push(format!("the guest crashed: {why}")),
            Ended::TimedOut(why) => faults.push(format!("time-out: {why}")),
        }
        for fault in faults {
            println!("{:>5} FAIL {name}: {fault}", self.series);
            self.tally.failures.push(format!("{name}: {fault}"));
        }
        if let Some(console) = &outcome.console {
            say!("console log: {}", console.display());
        }
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, ended: Ended) -> Tally {
        let mut report = Report { series: "6.1".into(), ..Report::default() };
        report.take(Stream::Stdout, text.as_bytes());
        report.finish(&Outcome { ended, warnings: Vec::new(), console: None }, "guest")
    }

    #[test]
    fn lines_become_counts() {
        let tally = report(
            "ok a (0.1 s)\nok d (9.0 s) (1 000 000 operations)\nFAIL b: why\nNOT HERE c: old\n2 passed, 1 failed\n",
            Ended::Exit(1),
        );
        let failures = vec!["6.1 b: why".into()];
        assert_eq!(tally, Tally { passed: 2, failures, ..Tally::default() });
    }

    #[test]
    fn entries_are_kept_with_their_series() {
        let tally =
            report("entry ID-1 failed: a, b\nentry ID-2 passed\n0 passed, 0 failed\n", Ended::Exit(0));
        let entry = |id: &str, outcome: &str| ("6.1".to_owned(), id.to_owned(), outcome.to_owned());
        assert_eq!(tally.entries, [entry("ID-1", "failed"), entry("ID-2", "passed")]);
    }

    #[test]
    fn tests_that_stop_before_their_last_line_have_failed() {
        assert_eq!(report("ok a (0.1 s)\n", Ended::Exit(0)).failures.len(), 1);
        assert_eq!(report("0 passed, 0 failed\n", Ended::Exit(1)).failures.len(), 1);
        assert_eq!(report("", Ended::Crash("x".into())).failures.len(), 1);
    }
}
