//! `guardctl lease`.

use super::client::Client;
use super::screen::Screen;
use super::{CliError, Exit};
use crate::api::types::{LeaseAnswer, LeaseRequest, Leases, RenewRequest};
use crate::events::escape::line;
use crate::events::time;
use crate::ledger::Lease;
use crate::policy;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum LeaseCommand {
    /// Grant a lease to a subject
    Grant {
        /// The lease, an approval that the bundle declares.
        #[arg(value_name = "LEASE")]
        name: String,
        /// To whom: a subject, or one session of it.
        #[arg(long, value_name = "SUBJECT[/SESSION]")]
        subject: String,
        /// How often it can be used. Without it, as often as it may.
        #[arg(long, value_name = "N")]
        uses: Option<u32>,
        /// For how long: a number and s, m, h or d. Without it, as long as it may last.
        #[arg(long = "for", value_name = "DURATION")]
        length: Option<String>,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Answer with one JSON value.
        #[arg(long)]
        json: bool,
    },
    /// List the leases that count
    List {
        /// Also those that ended.
        #[arg(long)]
        all: bool,
        /// Answer with one JSON value.
        #[arg(long)]
        json: bool,
    },
    /// Give a lease another end, counted from now
    Renew {
        /// Its number.
        id: i64,
        /// For how long: a number and s, m, h or d. Without it, as long as it may last.
        #[arg(long = "for", value_name = "DURATION")]
        length: Option<String>,
        /// Answer with one JSON value.
        #[arg(long)]
        json: bool,
    },
    /// End a lease now
    Revoke {
        /// Its number.
        id: i64,
        /// Answer with one JSON value.
        #[arg(long)]
        json: bool,
    },
}

impl LeaseCommand {
    /// Whether the answer is to be JSON.
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Grant { json, .. }
            | Self::List { json, .. }
            | Self::Renew { json, .. }
            | Self::Revoke { json, .. } => *json,
        }
    }

    /// Does it and says what came of it.
    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        let json = self.json();
        let (answer, text) = match self {
            Self::Grant { name, subject, uses, length, reason, .. } => {
                let seconds = seconds(length.as_deref())?;
                let (subject, session) = holder(subject)?;
                let body = LeaseRequest { name, subject, session, seconds, uses, reason };
                one(client.post("/v1/leases", encode(&body)?).await?, "granted")?
            }
            Self::Renew { id, length, .. } => {
                let body = RenewRequest { seconds: seconds(length.as_deref())? };
                one(client.post(&format!("/v1/leases/{id}/renew"), encode(&body)?).await?, "renewed")?
            }
            Self::Revoke { id, .. } => {
                one(client.post(&format!("/v1/leases/{id}/revoke"), b"{}".to_vec()).await?, "revoked")?
            }
            Self::List { all, .. } => {
                let answer = client.get(if all { "/v1/leases?all=true" } else { "/v1/leases" }).await?;
                let leases: Leases = decode(&answer)?;
                let lines: Vec<String> = leases.leases.iter().map(describe).collect();
                let text = if lines.is_empty() { "no leases".to_owned() } else { lines.join("\n") };
                (answer, text)
            }
        };
        if json {
            screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
        } else {
            screen.answer(&text)?;
        }
        Ok(Exit::Yes)
    }
}

fn one(answer: bytes::Bytes, what: &str) -> Result<(bytes::Bytes, String), CliError> {
    let lease: LeaseAnswer = decode(&answer)?;
    let text = format!("{what}: {}", describe(&lease.lease));
    Ok((answer, text))
}

/// `3  prod-change for ai-coder until 2026-05-04 04:02:01 UTC  by uid 0  "INC-1"`
fn describe(lease: &Lease) -> String {
    let reason = lease.reason.as_ref().map(|reason| format!("  \"{}\"", line(reason))).unwrap_or_default();
    let ended = match (&lease.ended, &lease.ended_by) {
        (Some(at), by) => format!(
            "  revoked {} UTC by {}",
            line(&time::people(at)),
            line(by.as_deref().unwrap_or("nobody"))
        ),
        _ => String::new(),
    };
    let session = lease.session.map(|session| format!("/{session}")).unwrap_or_default();
    let uses = match (lease.uses, lease.left) {
        (Some(uses), Some(left)) => format!("  {left} of {uses} uses left"),
        (Some(uses), None) => format!("  {uses} uses"),
        _ => String::new(),
    };
    format!(
        "{:>4}  {} for {}{session} until {} UTC{uses}  by {}{reason}{ended}",
        lease.id,
        line(&lease.name),
        line(&lease.subject),
        line(&time::people(&lease.until)),
        line(&lease.by)
    )
}

/// A subject and a session from `SUBJECT[/SESSION]`.
pub(super) fn holder(text: String) -> Result<(String, Option<u64>), CliError> {
    let Some((subject, session)) = text.split_once('/') else { return Ok((text, None)) };
    let number = session.parse().ok().filter(|number| *number != 0);
    let wrong = || CliError::invalid(format!("{session:?} is no session: `guardctl sessions` lists them"));
    Ok((subject.to_owned(), Some(number.ok_or_else(wrong)?)))
}

/// A duration in seconds.
pub(super) fn seconds(text: Option<&str>) -> Result<Option<u64>, CliError> {
    text.map(|text| {
        let wrong = || CliError::invalid(format!("{text:?} is not a duration: write 30m or 2h"));
        policy::duration(text).map(|length| length.as_secs()).ok_or_else(wrong)
    })
    .transpose()
}

/// The body of a request.
pub(super) fn encode<T: serde::Serialize>(body: &T) -> Result<Vec<u8>, CliError> {
    serde_json::to_vec(body).map_err(|error| CliError::internal(format!("cannot write the request: {error}")))
}

/// The answer to it.
pub(super) fn decode<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<T, CliError> {
    serde_json::from_slice(answer)
        .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))
}
