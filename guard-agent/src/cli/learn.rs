//! `guardctl learn`: a proposal from what monitor mode recorded.

use super::client::{Client, quoted};
use super::policy::source::directory as directory_of_live;
use super::remembered::{added_up, remembered};
use super::screen::{Screen, grouped};
use super::{CliError, Exit};
use crate::bundle;
use crate::events::escape::line;
use crate::events::time;
use crate::host::Host;
use crate::onboard::{self, Basis, LeftOut, Phases, Proposal, SHIPPED, Seen, life};
use crate::policy::{self, Bundle};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// Where proposals are written without `--dir`.
const DIRECTORY: &str = "learn";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The subject.
    subject: String,
    /// The bundle that the proposal is for; without it, the live one.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Where to write SUBJECT.cedar and SUBJECT.diff. Files of an earlier proposal are replaced.
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    dir: PathBuf,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

/// What the screen tells.
struct Lesson<'a> {
    args: &'a Args,
    /// The bundle's directory, as the user would name it.
    bundle: String,
    seen: &'a [Seen],
    operations: u64,
    since: i64,
    phases: Phases,
    proposal: Proposal,
}

/// Asks the daemon what it recorded, and writes and prints the proposal.
pub(super) async fn run(client: &Client, screen: &Screen, args: &Args) -> Result<Exit, CliError> {
    let directory = match &args.bundle {
        Some(directory) => directory.clone(),
        None => directory_of_live(client).await?,
    };
    let refused = |found: policy::Diagnostics| CliError::invalid_policy(found.to_string());
    let opened = bundle::open(&directory).map_err(refused)?;
    let bundle = policy::parse(&opened).map_err(refused)?;
    if !bundle.subjects().any(|subject| subject.name == args.subject) {
        let known: Vec<_> = bundle.subjects().map(|subject| subject.name.as_str()).collect();
        return Err(CliError::invalid(format!(
            "the bundle {} has no subject {}\n  it has: {}",
            directory.display(),
            args.subject,
            known.join(" ")
        )));
    }
    let query = format!("subject={}&verdict=would_deny", quoted(&args.subject));
    let seen = added_up(&remembered(client, &query).await?);
    if seen.is_empty() {
        return nothing(screen, args);
    }
    let host = Host::read().map_err(|error| CliError::internal(error.to_string()))?;
    let proposal =
        onboard::propose(&opened, &bundle, &host, &args.subject, &seen, &SHIPPED).map_err(refused)?;
    let since = seen.iter().map(|one| one.first).min().unwrap_or(0);
    let last = seen.iter().map(|one| one.last).max();
    let paths: Vec<&str> = seen.iter().filter_map(|one| one.thing.path()).collect();
    let phases = life::life(&args.subject, unit(&bundle, &args.subject), &paths, since, last).phases();
    let lesson = Lesson {
        args,
        bundle: directory.display().to_string(),
        operations: seen.iter().map(|one| one.count).fold(0, u64::saturating_add),
        seen: &seen,
        since,
        phases,
        proposal,
    };
    lesson.write()?;
    if args.json {
        screen.answer(&lesson.json().to_string())?;
    } else {
        screen.answer(&lesson.render(time::now()))?;
    }
    Ok(Exit::Yes)
}

/// The unit that the subject is.
fn unit<'a>(bundle: &'a Bundle, subject: &str) -> Option<&'a str> {
    let subject = bundle.subjects().find(|known| known.name == subject)?;
    subject.selectors.iter().find_map(|selector| selector.unit.as_deref())
}

/// Nothing was recorded: a clean no.
fn nothing(screen: &Screen, args: &Args) -> Result<Exit, CliError> {
    if args.json {
        screen
            .answer(&json!({ "schema": "guard.learn/1", "subject": args.subject, "kinds": 0 }).to_string())?;
    } else {
        let subject = line(&args.subject);
        screen.answer(&format!(
            "{subject}   nothing would have been denied\n  \
             is it in monitor mode, and has it run since?  guardctl status, guardctl events -f"
        ))?;
    }
    Ok(Exit::No)
}

impl Lesson<'_> {
    fn path(&self, extension: &str) -> PathBuf {
        self.args.dir.join(format!("{}.{extension}", self.args.subject))
    }

    fn basis(&self) -> Basis<'_> {
        let last = self.seen.iter().map(|one| one.last).max();
        Basis {
            subject: &self.args.subject,
            kinds: self.seen.len(),
            operations: self.operations,
            between: last.map(|last| (time::rfc3339(self.since), time::rfc3339(last))),
            phases: &self.phases,
        }
    }

    fn write(&self) -> Result<(), CliError> {
        let cannot = |path: &Path, error: std::io::Error| {
            CliError::invalid(format!("cannot write {}: {error}", path.display()))
        };
        fs::create_dir_all(&self.args.dir).map_err(|error| cannot(&self.args.dir, error))?;
        let text = onboard::proposal_file(&self.proposal, &self.basis(), &SHIPPED);
        for (path, text) in [(self.path("cedar"), text), (self.path("diff"), self.proposal.edited.diff())] {
            fs::write(&path, text).map_err(|error| cannot(&path, error))?;
        }
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
        let left_out = |list: &[LeftOut]| -> Vec<_> {
            list.iter()
                .map(|one| json!({ "action": one.action, "on": one.on, "count": one.count, "why": one.why }))
                .collect()
        };
        let proposal = &self.proposal;
        json!({
            "schema": "guard.learn/1",
            "subject": self.args.subject,
            "kinds": self.seen.len(),
            "operations": self.operations,
            "since": time::rfc3339(self.since),
            "last_new": self.seen.iter().map(|one| one.first).max().map(time::rfc3339),
            "seen": self.phases.seen,
            "not_seen": self.phases.not_seen,
            "permitted_by_now": proposal.permitted,
            "includes": proposal.includes.iter().map(|one| json!({
                "name": one.include, "kinds": one.kinds, "operations": one.count, "examples": one.examples,
            })).collect::<Vec<_>>(),
            "permits": proposal.permits.iter().map(|one| json!({
                "id": one.id, "actions": one.actions, "covers": one.covers, "kinds": one.kinds, "operations": one.count,
            })).collect::<Vec<_>>(),
            "never_proposed": left_out(&proposal.secrets),
            "forbidden": left_out(&proposal.forbidden),
            "left_out": left_out(&proposal.left_out),
            "file": self.path("cedar"),
            "diff": self.path("diff"),
        })
    }

    fn render(&self, now: i64) -> String {
        let proposal = &self.proposal;
        let subject = line(&self.args.subject);
        let newest = self.seen.iter().map(|one| one.first).max().unwrap_or(now);
        let mut lines = vec![format!(
            "{subject}   {}   would deny {} ({})   last new kind {}",
            lasted(now.saturating_sub(self.since)),
            many(self.seen.len() as u64, "kind"),
            many(self.operations, "operation"),
            time::ago(newest, now)
        )];
        let listed =
            |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { line(&names.join(", ")) };
        lines.push(format!(
            "seen    {}            not seen   {}",
            listed(&self.phases.seen),
            listed(&self.phases.not_seen)
        ));
        let never: Vec<String> = proposal
            .secrets
            .iter()
            .map(|one| format!("{} ({}, look at them)", line(&one.on), many(one.count, "attempt")))
            .collect();
        let never =
            if never.is_empty() { String::new() } else { format!("   never proposed: {}", never.join(", ")) };
        lines.push(if proposal.is_empty() {
            format!("proposal nothing: the bundle permits what it can{never}")
        } else {
            format!(
                "proposal {} + {} → {}{never}",
                many(proposal.includes.len() as u64, "include"),
                many(proposal.permits.len() as u64, "permit"),
                line(&self.path("cedar").display().to_string())
            )
        });
        let widest = proposal.includes.iter().map(|one| one.include.chars().count());
        let widest =
            widest.chain(proposal.permits.iter().map(|one| one.id.chars().count())).max().unwrap_or(0);
        for one in &proposal.includes {
            let examples = line(&one.examples.join(", "));
            lines.push(format!(
                "  include  {:widest$}  {} such as {examples}",
                line(&one.include),
                many(one.kinds as u64, "kind")
            ));
        }
        for one in &proposal.permits {
            lines.push(format!(
                "  permit   {:widest$}  {} {}",
                line(&one.id),
                one.actions.join(" "),
                line(&one.covers)
            ));
        }
        for (word, list) in [("forbid", &proposal.forbidden), ("left out", &proposal.left_out)] {
            lines.extend(onboard::left_out(list).iter().map(|text| format!("  {word:<9}{}", line(text))));
        }
        if proposal.permitted > 0 {
            lines.push(format!(
                "  {} of them the bundle permits by now",
                many(proposal.permitted as u64, "kind")
            ));
        }
        if !proposal.is_empty() {
            let (bundle, diff) = (line(&self.bundle), line(&self.path("diff").display().to_string()));
            lines.push("next, when you have read it".to_owned());
            lines.push(format!("  patch -p1 -d {bundle} < {diff}"));
            lines.push(format!("  sudo guardctl policy apply {bundle}"));
        }
        lines.join("\n")
    }
}

/// `1 kind`, `41 kinds`.
fn many(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{} {what}s", grouped(number)) }
}

/// `3 h 12 min`.
fn lasted(nanoseconds: i64) -> String {
    let seconds = (nanoseconds / 1_000_000_000).max(0);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=3_599 => format!("{} min", seconds / 60),
        3_600..=172_799 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_at_most_two_units() {
        for (seconds, text) in
            [(-1, "0 s"), (90, "90 s"), (200, "3 min"), (11_520, "3 h 12 min"), (400_000, "4 days")]
        {
            assert_eq!(lasted(seconds * 1_000_000_000), text);
        }
    }
}
