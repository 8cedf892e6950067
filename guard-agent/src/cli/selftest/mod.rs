//! `guardctl selftest`: whether this host's kernel refuses what policy refuses, tried by a process that
//! may do nothing.
//!
//! A child tries every way once without a label, where it must work; then it has itself labelled as the
//! canary, to whom every policy set denies everything, and tries them again. An error number alone proves
//! nothing, so each refusal must be reported by the kernel's own event as well.

mod ground;
mod ways;

use super::client::{Client, quoted};
use super::screen::Screen;
use super::{CliError, Exit};
use crate::api::types::{Denials, TrialBegun};
use crate::events::escape::line;
use ground::Ground;
use guard_common::action::Action;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, remove_dir_all};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use ways::{WAYS, Way};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
    /// Be the process that tries, in this empty directory.
    #[arg(long, hide = true, value_name = "DIR")]
    try_in: Option<PathBuf>,
}

/// What the child found out.
#[derive(Debug, Serialize, Deserialize)]
struct Tried {
    session: u64,
    /// Error numbers without a label and with it, in the order of the ways; 0 is success.
    without: Vec<i32>,
    with: Vec<i32>,
}

impl Args {
    /// Tries and says what came of it.
    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        if let Some(directory) = &self.try_in {
            let tried = attempt(client, directory).await?;
            let text = serde_json::to_string(&tried)
                .map_err(|error| CliError::internal(format!("cannot write what was tried: {error}")))?;
            screen.answer(&text)?;
            return Ok(Exit::Yes);
        }
        // Whether somebody answers is said before anything is made.
        client.get("/v1/status").await?;
        let tried = by_a_child(client)?;
        let denied = denials(client, &tried).await?;
        let report = Report::of(&tried, &denied.denied);
        if self.json {
            let text = serde_json::to_string(&report)
                .map_err(|error| CliError::internal(format!("cannot write the answer: {error}")))?;
            screen.answer(&text)?;
        } else {
            screen.answer(&report.render())?;
        }
        Ok(if report.failed == 0 { Exit::Yes } else { Exit::No })
    }
}

/// The child's side.
async fn attempt(client: &Client, directory: &Path) -> Result<Tried, CliError> {
    let ground = Ground::make(directory).map_err(|error| {
        CliError::internal(format!("cannot prepare the self-test in {}: {error}", directory.display()))
    })?;
    let round = || WAYS.iter().map(|way| errno((way.attempt)(&ground))).collect::<Vec<i32>>();
    let without = round();
    let answer = client.post("/v1/selftest", Vec::new()).await?;
    let begun: TrialBegun = serde_json::from_slice(&answer)
        .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))?;
    Ok(Tried { session: begun.session, without, with: round() })
}

fn errno(result: io::Result<()>) -> i32 {
    result.map_or_else(|error| error.raw_os_error().unwrap_or(Errno::EIO as i32), |()| 0)
}

/// Has a child of this program try in a directory that nobody else can enter, and removes what is left.
fn by_a_child(client: &Client) -> Result<Tried, CliError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        CliError::internal(format!("the self-test cannot run: {what}: {error}"))
    };
    let place = if Path::new("/run").is_dir() { PathBuf::from("/run") } else { std::env::temp_dir() };
    let directory = place.join(format!("guard-selftest-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&directory).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => CliError::not_permitted(format!(
            "{}: permission denied: the self-test is for root, try sudo guardctl selftest",
            directory.display()
        )),
        _ => failed(&format!("make {}", directory.display()), &error),
    })?;
    let child = std::process::Command::new("/proc/self/exe")
        .arg("--socket")
        .arg(client.socket())
        .arg("selftest")
        .arg("--try-in")
        .arg(&directory)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    let removed = remove_dir_all(&directory);
    let output = child.map_err(|error| failed("start a process", &error))?;
    if !output.status.success() {
        // It has said why on standard error.
        return Err(failed("the process that tries", &output.status));
    }
    removed.map_err(|error| failed(&format!("remove {}", directory.display()), &error))?;
    let tried: Tried = serde_json::from_slice(&output.stdout)
        .map_err(|error| failed("read what the process found out", &error))?;
    if tried.without.len() == WAYS.len() && tried.with.len() == WAYS.len() {
        Ok(tried)
    } else {
        Err(failed("read what the process found out", &"it is another version"))
    }
}

/// Asks what the kernel reported, once everything was that should be.
async fn denials(client: &Client, tried: &Tried) -> Result<Denials, CliError> {
    let mut expected: BTreeMap<&str, u32> = BTreeMap::new();
    for (way, with) in WAYS.iter().zip(&tried.with) {
        if *with == way.action.errno() {
            *expected.entry(way.action.row().name).or_default() += 1;
        }
    }
    let expected: Vec<String> = expected.iter().map(|(name, count)| format!("{name}:{count}")).collect();
    if expected.is_empty() {
        return Ok(Denials { schema: Denials::SCHEMA.to_owned(), denied: BTreeMap::new() });
    }
    let path = format!("/v1/selftest?session={}&expect={}", tried.session, quoted(&expected.join(",")));
    let answer = client.get(&path).await?;
    serde_json::from_slice(&answer)
        .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))
}

/// What became of one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    /// It works without the label, and was refused and reported with it.
    Refused,
    /// It works with the label, or fails otherwise than it should.
    NotRefused,
    /// It was refused, but the kernel reported too few denials of its action.
    NotReported,
    /// It does not work without the label either.
    NotHere,
}

#[derive(Debug, Serialize)]
struct Line {
    entry: &'static str,
    what: &'static str,
    action: &'static str,
    outcome: Outcome,
    /// Error number with the label, or without it if it does not work here; 0 is success.
    errno: i32,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    ways: Vec<Line>,
    refused: usize,
    not_here: usize,
    failed: usize,
}

impl Report {
    fn of(tried: &Tried, denied: &BTreeMap<String, u32>) -> Self {
        let refused_of = |action: Action| {
            let with = WAYS.iter().zip(&tried.with);
            with.filter(|(way, errno)| way.action == action && **errno == action.errno()).count()
        };
        let reported = |action: Action| {
            let seen = denied.get(action.row().name).copied().unwrap_or(0);
            usize::try_from(seen).is_ok_and(|seen| seen >= refused_of(action))
        };
        let lines = WAYS.iter().zip(tried.without.iter().zip(&tried.with));
        let ways: Vec<Line> = lines
            .map(|(way, (without, with))| {
                let outcome = match () {
                    () if *without != 0 => Outcome::NotHere,
                    () if *with != way.action.errno() => Outcome::NotRefused,
                    () if !reported(way.action) => Outcome::NotReported,
                    () => Outcome::Refused,
                };
                let Way { entry, what, action, .. } = *way;
                let errno = if outcome == Outcome::NotHere { *without } else { *with };
                Line { entry, what, action: action.row().name, outcome, errno }
            })
            .collect();
        let count = |outcome| ways.iter().filter(|line| line.outcome == outcome).count();
        let (refused, not_here) = (count(Outcome::Refused), count(Outcome::NotHere));
        Self { schema: "guard.selftest/1", failed: ways.len() - refused - not_here, refused, not_here, ways }
    }

    fn render(&self) -> String {
        let width = self.ways.iter().map(|line| line.what.len()).max().unwrap_or_default();
        let mut lines: Vec<String> = self
            .ways
            .iter()
            .map(|way| {
                let errno = match way.errno {
                    0 => "it worked".to_owned(),
                    number => line(&format!("{:?}", Errno::from_raw(number))),
                };
                let outcome = match way.outcome {
                    Outcome::Refused => format!("refused and reported: {errno}"),
                    Outcome::NotRefused => format!("NOT REFUSED: {errno}"),
                    Outcome::NotReported => format!("NOT REPORTED: {errno}, perhaps not by Guard"),
                    Outcome::NotHere => format!("cannot be tried here: {errno} without Guard's label too"),
                };
                format!("{:6} {:width$}  {:14} {outcome}", way.entry, way.what, way.action)
            })
            .collect();
        lines.push(format!(
            "\n{} ways tried by a process to whom policy denies everything: {} refused and reported, {} not, {} cannot be tried here",
            self.ways.len(),
            self.refused,
            self.failed,
            self.not_here
        ));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Tried {
        let with = WAYS.iter().map(|way| way.action.errno()).collect();
        Tried { session: 7, without: vec![0; WAYS.len()], with }
    }

    fn reported() -> BTreeMap<String, u32> {
        WAYS.iter().map(|way| (way.action.row().name.to_owned(), 9)).collect()
    }

    fn of(what: &str) -> usize {
        WAYS.iter().position(|way| way.what == what).unwrap()
    }

    #[test]
    fn what_was_refused_and_reported_is_good() {
        let report = Report::of(&refused(), &reported());
        assert_eq!((report.refused, report.failed, report.not_here), (WAYS.len(), 0, 0));
    }

    #[test]
    fn what_works_or_fails_otherwise_is_not_refused() {
        let mut tried = refused();
        tried.with[of("rename it")] = 0;
        tried.with[of("listen")] = Errno::EINVAL as i32;
        let report = Report::of(&tried, &reported());
        assert_eq!(report.failed, 2);
        let text = report.render();
        assert!(text.contains("NOT REFUSED: it worked"), "{text}");
        assert!(text.contains("NOT REFUSED: EINVAL"), "{text}");
    }

    #[test]
    fn a_refusal_that_the_kernel_did_not_report_proves_nothing() {
        let mut denied = reported();
        denied.insert("exec".to_owned(), 1);
        let report = Report::of(&refused(), &denied);
        let exec = WAYS.iter().filter(|way| way.action == Action::Exec).count();
        assert_eq!(report.failed, exec);
    }

    #[test]
    fn what_fails_without_a_label_is_not_counted() {
        let mut tried = refused();
        tried.without[of("connect by TCP over IPv6")] = Errno::EAFNOSUPPORT as i32;
        let report = Report::of(&tried, &reported());
        assert_eq!((report.failed, report.not_here), (0, 1));
    }
}
