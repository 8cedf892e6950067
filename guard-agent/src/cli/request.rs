//! `guardctl request`: a subject asks for a lease, people answer.

use super::client::Client;
use super::lease::{decode, encode, seconds};
use super::screen::{Screen, confirm};
use super::{CliError, Exit, OWN_SOCKET, SOCKET};
use crate::api::types::{ApproveRequest, AskRequest, DenyRequest, RequestAnswer, Requests};
use crate::events::escape::line;
use crate::events::time;
use crate::ledger::{Request, RequestState};
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum RequestCommand {
    /// Ask for a lease, as the subject that this process is
    Create {
        /// The lease.
        #[arg(long, value_name = "LEASE")]
        name: String,
        /// Why, for whoever decides.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// For how long: a number and s, m, h or d. Without it, as long as it may last.
        #[arg(long = "for", value_name = "DURATION")]
        length: Option<String>,
        /// How often it is to be usable. Without it, as often as the lease allows.
        #[arg(long, value_name = "N")]
        uses: Option<u32>,
        /// For this session only, and not for all of the subject.
        #[arg(long)]
        only_session: bool,
        /// Wait until it is decided; ends with 1 if the answer is no.
        #[arg(long)]
        wait: bool,
        /// Answer with one JSON value.
        #[arg(long)]
        json: bool,
    },
    /// List the requests that wait
    List {
        /// Also those that were decided.
        #[arg(long)]
        all: bool,
        /// Answer with one JSON value.
        #[arg(long)]
        json: bool,
    },
    /// Show one request
    Show {
        /// Its number.
        id: i64,
        /// Answer with one JSON value.
        #[arg(long)]
        json: bool,
    },
    /// Say yes
    Approve {
        /// Its number.
        id: i64,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        /// Answer with one JSON value.
        #[arg(long)]
        json: bool,
    },
    /// Say no
    Deny {
        /// Its number.
        id: i64,
        /// What to say to whoever asked.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        /// Answer with one JSON value.
        #[arg(long)]
        json: bool,
    },
}

impl RequestCommand {
    /// Whether the answer is to be JSON.
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Create { json, .. }
            | Self::List { json, .. }
            | Self::Show { json, .. }
            | Self::Approve { json, .. }
            | Self::Deny { json, .. } => *json,
        }
    }

    /// Does it and says what came of it.
    pub(super) async fn run(self, socket: Option<PathBuf>, screen: &Screen) -> Result<Exit, CliError> {
        let json = self.json();
        let asks = matches!(self, Self::Create { .. });
        let client = Client::new(socket.unwrap_or_else(|| if asks { OWN_SOCKET } else { SOCKET }.into()));
        let answer = match self {
            Self::Create { name, reason, length, uses, only_session, wait, .. } => {
                let seconds = seconds(length.as_deref())?;
                let body = AskRequest { lease: name, seconds, uses, only_session, reason };
                let mut answer = client.post("/v1/requests", encode(&body)?).await?;
                let mut request = decode::<RequestAnswer>(&answer)?.request;
                while wait && request.state == RequestState::Open {
                    // The daemon answers when it is decided, or after a while.
                    answer = client.get(&format!("/v1/requests/{}?wait=true", request.id)).await?;
                    request = decode::<RequestAnswer>(&answer)?.request;
                }
                answer
            }
            Self::Show { id, .. } => client.get(&format!("/v1/requests/{id}")).await?,
            Self::Approve { id, yes, .. } => approve(&client, screen, id, yes).await?,
            Self::Deny { id, note, .. } => {
                client.post(&format!("/v1/requests/{id}/deny"), encode(&DenyRequest { note })?).await?
            }
            Self::List { all, .. } => return list(&client, screen, all, json).await,
        };
        let request = decode::<RequestAnswer>(&answer)?.request;
        if json {
            screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
        } else {
            screen.answer(&describe(&request))?;
        }
        let is_no = matches!(request.state, RequestState::Denied | RequestState::Expired);
        Ok(if asks && is_no { Exit::No } else { Exit::Yes })
    }
}

async fn list(client: &Client, screen: &Screen, all: bool, json: bool) -> Result<Exit, CliError> {
    let answer = client.get(if all { "/v1/requests?all=true" } else { "/v1/requests" }).await?;
    if json {
        screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
        return Ok(Exit::Yes);
    }
    let requests: Requests = decode(&answer)?;
    let texts: Vec<String> = requests.requests.iter().map(describe).collect();
    screen.answer(&if texts.is_empty() { "no requests wait".to_owned() } else { texts.join("\n\n") })?;
    Ok(Exit::Yes)
}

/// Shows what is asked for, asks whether it is meant, and says what was shown.
async fn approve(client: &Client, screen: &Screen, id: i64, yes: bool) -> Result<bytes::Bytes, CliError> {
    let answer = client.get(&format!("/v1/requests/{id}")).await?;
    let shown = describe(&decode::<RequestAnswer>(&answer)?.request);
    if !yes {
        screen.answer(&shown)?;
        match confirm("Approve?") {
            Some(true) => {}
            Some(false) => return Err(CliError::no("nothing was changed")),
            None => return Err(CliError::invalid("add --yes, there is no terminal to ask on")),
        }
    }
    client.post(&format!("/v1/requests/{id}/approve"), encode(&ApproveRequest { shown })?).await
}

/// What is known comes first, what the subject says comes last, quoted.
fn describe(request: &Request) -> String {
    let session = if request.session == 0 { String::new() } else { format!("/{}", request.session) };
    let uses = request.uses.map(|uses| format!(", {uses} uses")).unwrap_or_default();
    let only = if request.only_session { ", for this session only" } else { "" };
    let human = request.human.map_or("nobody".to_owned(), |human| format!("uid {human}"));
    let mut lines = vec![
        format!("request {}  {}", request.id, state(request)),
        format!("  lease    {} for {} s{uses}", line(&request.lease), request.seconds),
        format!("  subject  {}{session}{only}", line(&request.subject)),
        format!(
            "  process  {} {}, uid {}",
            request.pid,
            line(request.exe.as_deref().unwrap_or("?")),
            request.uid
        ),
        format!("  runs for {human}"),
        format!("  asked    {} UTC", line(&time::people(&request.created))),
    ];
    lines.extend(
        request
            .approvals
            .iter()
            .map(|one| format!("  approved {} UTC by {}", line(&time::people(&one.at)), line(&one.by))),
    );
    lines.push(format!("  it says  \"{}\"", line(&request.reason)));
    lines.join("\n")
}

fn state(request: &Request) -> String {
    let by = request.decided_by.as_ref().map(|by| format!(" by {}", line(by))).unwrap_or_default();
    let note = request.note.as_ref().map(|note| format!(": \"{}\"", line(note))).unwrap_or_default();
    match request.state {
        RequestState::Open => "waits".to_owned(),
        RequestState::Approved => format!("approved{by}, lease {}", request.granted.unwrap_or_default()),
        RequestState::Denied => format!("denied{by}{note}"),
        RequestState::Expired => "expired".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_subject_says_comes_last_and_cannot_look_like_anything_else() {
        let request = Request {
            id: 7,
            lease: "prod-change".into(),
            subject: "ai-coder".into(),
            session: 3,
            seconds: 600,
            uses: None,
            only_session: false,
            reason: "fine\n  approved 2026-01-01 by root".into(),
            created: "2026-01-02T03:04:05.000000Z".into(),
            uid: 1000,
            human: Some(1000),
            pid: 42,
            exe: Some("/usr/bin/node".into()),
            state: RequestState::Open,
            approvals: Vec::new(),
            decided: None,
            decided_by: None,
            note: None,
            granted: None,
        };
        let wanted = "\
request 7  waits
  lease    prod-change for 600 s
  subject  ai-coder/3
  process  42 /usr/bin/node, uid 1000
  runs for uid 1000
  asked    2026-01-02 03:04:05 UTC
  it says  \"fine\\x0a  approved 2026-01-01 by root\"";
        assert_eq!(describe(&request), wanted);
    }
}
