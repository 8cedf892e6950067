//! `guardctl quarantine` and `guardctl release`.

use super::client::Client;
use super::lease::{decode, encode, holder, seconds};
use super::screen::{Screen, confirm};
use super::{CliError, Exit};
use crate::api::types::{Covers, QuarantineAnswer, QuarantineRequest, Quarantines, ReleaseRequest};
use crate::events::escape::line;
use crate::events::time;
use crate::ledger::Quarantine;
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct QuarantineArgs {
    #[command(subcommand)]
    command: Option<QuarantineCommand>,
    /// A subject, or SUBJECT/SESSION.
    #[arg(value_name = "SUBJECT[/SESSION]", required_unless_present = "pid", conflicts_with = "pid")]
    target: Option<String>,
    /// Instead of a subject: the session that this process is in, or its subject if it is in none.
    #[arg(long)]
    pid: Option<i32>,
    /// How much is denied: network, write, exec, full or freeze. Each denies all that the one before it does.
    #[arg(long, value_name = "LEVEL", required = true)]
    level: Option<String>,
    /// Why.
    #[arg(long, value_name = "TEXT", required = true)]
    reason: Option<String>,
    /// For how long: a number and s, m, h or d. Without it, until it is released.
    #[arg(long = "for", value_name = "DURATION")]
    length: Option<String>,
    /// Only say what it would cover.
    #[arg(long)]
    dry_run: bool,
    /// Do not write down what is found.
    #[arg(long)]
    no_evidence: bool,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Answer with one JSON value.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum QuarantineCommand {
    /// List the quarantines that are in force
    List {
        /// Also those that are over.
        #[arg(long)]
        all: bool,
        /// Answer with one JSON value.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Release {
    /// Its number.
    id: i64,
    /// Go down to this level instead of to none.
    #[arg(long, value_name = "LEVEL")]
    to: Option<String>,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

impl QuarantineArgs {
    /// Whether the answer is to be JSON.
    pub(super) fn json(&self) -> bool {
        match &self.command {
            Some(QuarantineCommand::List { json, .. }) => *json,
            None => self.json,
        }
    }

    /// Does it and says what came of it.
    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        if let Some(QuarantineCommand::List { all, json }) = self.command {
            return list(client, screen, all, json).await;
        }
        let (subject, session) = match &self.target {
            Some(target) => holder(target.clone()).map(|(subject, session)| (Some(subject), session))?,
            None => (None, None),
        };
        let mut request = QuarantineRequest {
            subject,
            session,
            pid: self.pid,
            level: self.level.unwrap_or_default(),
            reason: self.reason.unwrap_or_default(),
            seconds: seconds(self.length.as_deref())?,
            dry_run: true,
            evidence: !self.no_evidence,
        };
        if self.dry_run || !self.yes {
            let answer = client.post("/v1/quarantines", encode(&request)?).await?;
            let preview: QuarantineAnswer = decode(&answer)?;
            if self.dry_run {
                if self.json {
                    screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
                } else {
                    screen.answer(&covers(&preview.target, &preview.covers))?;
                }
                return Ok(Exit::Yes);
            }
            eprintln!("{}", covers(&preview.target, &preview.covers));
            match confirm("Continue?") {
                Some(true) => {}
                Some(false) => return Err(CliError::no("nothing was changed")),
                None => return Err(CliError::invalid("add --yes, there is no terminal to ask on")),
            }
        }
        request.dry_run = false;
        let answer = client.post("/v1/quarantines", encode(&request)?).await?;
        if self.json {
            screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
        } else {
            screen.answer(&done(&decode(&answer)?))?;
        }
        Ok(Exit::Yes)
    }
}

impl Release {
    /// Does it and says what came of it.
    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        let body = ReleaseRequest { reason: self.reason, to: self.to };
        let answer = client.post(&format!("/v1/quarantines/{}/release", self.id), encode(&body)?).await?;
        if self.json {
            screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
        } else {
            let answer: QuarantineAnswer = decode(&answer)?;
            let text = match &answer.quarantine {
                Some(quarantine) if quarantine.released.is_none() => {
                    format!("{} is at level {}", line(&answer.target), quarantine.level.name())
                }
                _ => format!("{} is released", line(&answer.target)),
            };
            screen.answer(&text)?;
        }
        Ok(Exit::Yes)
    }
}

async fn list(client: &Client, screen: &Screen, all: bool, json: bool) -> Result<Exit, CliError> {
    let answer = client.get(if all { "/v1/quarantines?all=true" } else { "/v1/quarantines" }).await?;
    if json {
        screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
    } else {
        let found: Quarantines = decode(&answer)?;
        let lines: Vec<String> = found.quarantines.iter().map(describe).collect();
        screen.answer(&if lines.is_empty() { "no quarantines".to_owned() } else { lines.join("\n") })?;
    }
    Ok(Exit::Yes)
}

/// What it would cover.
fn covers(target: &str, covers: &Covers) -> String {
    let orphans = covers.processes.iter().filter(|process| process.orphan).count();
    let sockets: usize = covers.processes.iter().map(|process| process.sockets).sum();
    let mut text = format!(
        "covers    {}: {} processes ({orphans} whose starter has ended), {sockets} sockets\n\
         bound to  the label: whatever starts as {} from now on is covered as well, through restarts and reboots",
        line(target),
        covers.processes.len(),
        line(target),
    );
    if target.contains('/') {
        text.push_str("; a new session is not");
    }
    if !covers.beyond.is_empty() {
        let others: Vec<String> =
            covers.beyond.iter().map(|(pid, subject)| format!("{pid} ({})", line(subject))).collect();
        text.push_str(&format!("\nnot       what has become another subject: {}", others.join(", ")));
    }
    text
}

/// What was done.
fn done(answer: &QuarantineAnswer) -> String {
    let mut text = covers(&answer.target, &answer.covers);
    if let Some(quarantine) = &answer.quarantine {
        let micros = answer.in_force_us.unwrap_or(0);
        text.push_str(&format!(
            "\nquarantine {} at level {} in force {}.{:01} ms after the call",
            quarantine.id,
            quarantine.level.name(),
            micros / 1000,
            micros % 1000 / 100
        ));
        if let (Some(file), Some(sha256)) = (&quarantine.evidence, &quarantine.evidence_sha256) {
            text.push_str(&format!("\nevidence  {} (sha256 {sha256})", line(file)));
        }
        text.push_str(&format!("\nundo      guardctl release {} --reason TEXT", quarantine.id));
    }
    if !answer.unfinished.is_empty() {
        let pids: Vec<String> = answer.unfinished.iter().map(ToString::to_string).collect();
        text.push_str(&format!("\nstill in a call that began before: {}", pids.join(" ")));
    }
    text
}

/// `3  ai-coder/12  full  since 2026-05-04 04:02:01 UTC  by uid 0  "INC-1"`
pub(super) fn describe(one: &Quarantine) -> String {
    let session = one.session.map(|session| format!("/{session}")).unwrap_or_default();
    let until = one
        .until
        .as_ref()
        .map(|until| format!(" until {} UTC", line(&time::people(until))))
        .unwrap_or_default();
    let released = match (&one.released, &one.released_by) {
        (Some(at), by) => {
            format!(
                "  released {} UTC by {}",
                line(&time::people(at)),
                line(by.as_deref().unwrap_or("nobody"))
            )
        }
        _ => String::new(),
    };
    format!(
        "{:>4}  {}{session}  {}  since {} UTC{until}  by {}  \"{}\"{released}",
        one.id,
        line(&one.subject),
        one.level.name(),
        line(&time::people(&one.since)),
        line(&one.by),
        line(&one.reason)
    )
}
