//! `guardctl quarantine` and `guardctl release`.

use super::client::Client;
use super::lease::{decode, encode, holder, seconds};
use super::screen::{Screen, confirm};
use super::{CliError, Exit};
use crate::api::types::{
    Confirmed, Covers, QuarantineAnswer, QuarantineRequest, Quarantines, ReleaseRequest,
};
use crate::events::escape::line;
use crate::events::time;
use crate::ledger::Quarantine;
use clap::{Args, Subcommand};
use nix::unistd::User;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct QuarantineArgs {
    #[command(subcommand)]
    command: Option<QuarantineCommand>,
    #[command(flatten)]
    target: Whom,
    /// How much is denied: network, write, exec, full or freeze. Each denies all that the one before it does.
    #[arg(long, value_name = "LEVEL", required = true)]
    level: Option<String>,
    /// Why.
    #[arg(long, value_name = "TEXT", required = true)]
    reason: Option<String>,
    /// For how long: a number and s, m, h or d. Without it, until it is released.
    #[arg(long = "for", value_name = "DURATION")]
    length: Option<String>,
    /// With --uid and --host: end it after so long unless it is confirmed. Without it, after five minutes.
    #[arg(long, value_name = "DURATION")]
    revert: Option<String>,
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

/// Who is meant: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// A subject, or SUBJECT/SESSION.
    #[arg(value_name = "SUBJECT[/SESSION]")]
    subject: Option<String>,
    /// The session that this process is in, or its subject if it is in none; without a label the process, with all that
    /// it has made and makes.
    #[arg(long)]
    pid: Option<i32>,
    /// Whatever this systemd unit starts.
    #[arg(long)]
    unit: Option<String>,
    /// Whatever runs in this cgroup or below.
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// This container, by its id or by podman's name.
    #[arg(long)]
    container: Option<String>,
    /// Whatever runs as this user, by name or number. Ends by itself unless it is confirmed.
    #[arg(long, value_name = "USER")]
    uid: Option<String>,
    /// Whatever runs this program.
    #[arg(long, value_name = "PATH")]
    exe: Option<String>,
    /// Everything on this host. Ends by itself unless it is confirmed.
    #[arg(long)]
    host: bool,
}

#[derive(Debug, Subcommand)]
enum QuarantineCommand {
    /// Let a quarantine of a user or of the host go on, which ends by itself otherwise
    Confirm {
        /// Its number.
        id: i64,
        /// Answer with one JSON value.
        #[arg(long)]
        json: bool,
    },
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
            Some(QuarantineCommand::List { json, .. } | QuarantineCommand::Confirm { json, .. }) => *json,
            None => self.json,
        }
    }

    /// Does it and says what came of it.
    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        match self.command {
            Some(QuarantineCommand::List { all, json }) => return list(client, screen, all, json).await,
            Some(QuarantineCommand::Confirm { id, json }) => {
                return confirmed(client, screen, id, json).await;
            }
            None => {}
        }
        let Whom { subject, pid, unit, cgroup, container, uid, exe, host } = self.target;
        let (subject, session) = match &subject {
            Some(target) => holder(target.clone()).map(|(subject, session)| (Some(subject), session))?,
            None => (None, None),
        };
        let mut request = QuarantineRequest {
            subject,
            session,
            pid,
            unit,
            cgroup,
            container,
            uid: uid.as_deref().map(user).transpose()?,
            exe: exe.map(absolute),
            host,
            revert_seconds: seconds(self.revert.as_deref())?,
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

/// The number of a user.
fn user(name: &str) -> Result<u32, CliError> {
    let known = || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
    let none = || CliError::invalid(format!("there is no user {name:?}"));
    name.parse().ok().or_else(known).ok_or_else(none)
}

/// A path as the agent can find it, whose directory is another one.
fn absolute(path: String) -> String {
    std::path::absolute(&path).map_or(path, |path| path.to_string_lossy().into_owned())
}

async fn confirmed(client: &Client, screen: &Screen, id: i64, json: bool) -> Result<Exit, CliError> {
    let answer = client.post(&format!("/v1/quarantines/{id}/confirm"), b"{}".to_vec()).await?;
    if json {
        screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
    } else {
        let answer: Confirmed = decode(&answer)?;
        let until = answer.quarantine.until.as_ref();
        let until = until.map_or("it is released".to_owned(), |until| format!("{} UTC", time::people(until)));
        screen.answer(&format!(
            "quarantine {id} of {} goes on until {}",
            line(&answer.quarantine.name()),
            line(&until)
        ))?;
    }
    Ok(Exit::Yes)
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

/// So many connections are shown.
const SHOWN: usize = 10;

/// What it would cover.
fn covers(target: &str, covers: &Covers) -> String {
    let orphans = covers.processes.iter().filter(|process| process.orphan).count();
    let connected = covers.connections.iter().filter(|one| one.remote.is_some()).count();
    let mut text = format!(
        "covers    {}: {} processes ({orphans} whose starter has ended), {connected} connections, {} other sockets",
        line(target),
        covers.processes.len(),
        covers.processes.iter().map(|process| process.sockets).sum::<usize>().saturating_sub(connected),
    );
    for one in covers.connections.iter().filter(|one| one.remote.is_some()).take(SHOWN) {
        let remote = one.remote.as_deref().unwrap_or_default();
        text.push_str(&format!(
            "\n          {} {} → {} {} (process {})",
            line(&one.protocol),
            line(&one.local),
            line(remote),
            line(&one.state),
            one.pid
        ));
    }
    text.push_str(&format!(
        "\nbound to  {}\nnot       {}",
        line(&covers.bound_to),
        line(&covers.not_covered)
    ));
    let listed = |those: &[(i32, String)]| {
        those.iter().map(|(pid, name)| format!("{pid} ({})", line(name))).collect::<Vec<_>>().join(", ")
    };
    if !covers.beyond.is_empty() {
        text.push_str(&format!("\nnot       what has become another subject: {}", listed(&covers.beyond)));
    }
    if !covers.spared.is_empty() {
        text.push_str(&format!("\nkeeps     {}", listed(&covers.spared)));
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
        if answer.ended_connections > 0 {
            text.push_str(&format!("\nended     {} connections", answer.ended_connections));
        }
        if let Some(why) = &answer.not_ended {
            text.push_str(&format!(
                "\nnot ended other connections, over which nothing passes: {}",
                line(why)
            ));
        }
        if let Some(by) = &quarantine.confirm_by {
            text.push_str(&format!(
                "\nreverts   {} UTC, unless you say: guardctl quarantine confirm {}",
                line(&time::people(by)),
                quarantine.id
            ));
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
    let until = one
        .until
        .as_ref()
        .map(|until| format!(" until {} UTC", line(&time::people(until))))
        .unwrap_or_default();
    let confirm = one
        .confirm_by
        .as_ref()
        .map(|by| format!(" unless confirmed until {} UTC", line(&time::people(by))))
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
        "{:>4}  {}  {}  since {} UTC{until}{confirm}  by {}  \"{}\"{released}",
        one.id,
        line(&one.name()),
        one.level.name(),
        line(&time::people(&one.since)),
        line(&one.by),
        line(&one.reason)
    )
}
