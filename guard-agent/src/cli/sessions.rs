//! `guardctl sessions`: who runs what as which subject.

use super::client::Client;
use super::screen::Screen;
use super::{CliError, Exit};
use crate::api::types::Sessions;
use crate::daemon::Session;
use crate::events::escape::{line, word};
use crate::events::time;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Also those that have ended.
    #[arg(long)]
    all: bool,
    /// Only those of this subject.
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

impl Args {
    /// Lists them, oldest first.
    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        let answer = client.get(&format!("/v1/sessions?all={}", self.all)).await?;
        let mut found: Sessions = serde_json::from_slice(&answer)
            .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))?;
        found
            .sessions
            .retain(|session| self.subject.as_ref().is_none_or(|subject| session.subject == *subject));
        if self.json {
            let text = serde_json::to_string(&found)
                .map_err(|error| CliError::internal(format!("cannot write the answer: {error}")))?;
            screen.answer(&text)?;
        } else if found.sessions.is_empty() {
            screen.answer("no sessions")?;
        } else {
            screen.answer(&found.sessions.iter().map(render).collect::<Vec<_>>().join("\n"))?;
        }
        Ok(Exit::Yes)
    }
}

fn render(session: &Session) -> String {
    let who = session.user.as_ref().map_or_else(|| format!("uid {}", session.uid), |user| word(user));
    let human = match session.human {
        Some(human) if human != session.uid => format!(" (login uid {human})"),
        _ => String::new(),
    };
    let tty = session.tty.as_ref().map(|tty| format!(" on {}", word(tty))).unwrap_or_default();
    let state = match &session.ended {
        Some(ended) => format!("ended {}", time::people(ended)),
        None if session.processes.len() == 1 => "1 process".to_owned(),
        None => format!("{} processes", session.processes.len()),
    };
    let mut text = format!(
        "{}/{}  since {}  by {who}{human}{tty}  pid {}  {state}",
        word(&session.subject),
        session.id,
        time::people(&session.started),
        session.pid,
    );
    if let Some(parent) = &session.parent {
        text.push_str(&format!("  from {}", word(parent)));
    }
    let values = session.variables.iter().map(|(name, value)| format!("  {}={}", word(name), word(value)));
    text.extend(values);
    if let Some(reason) = &session.reason {
        text.push_str(&format!("  {}", line(reason)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_one_line() {
        let text = r#"{"id":17,"subject":"ai-coder","uid":1000,"user":"ann","human":1001,"tty":"pts/3",
            "pid":812,"start_ticks":1,"reason":"fix\u001b[31m it","variables":{"worktree":"/home/ann/src/app"},
            "started":"2026-05-04T03:02:01.123456Z","ended":null,"processes":[[812,1],[813,2]]}"#;
        let mut session: Session = serde_json::from_str(text).unwrap();
        assert_eq!(
            render(&session),
            "ai-coder/17  since 2026-05-04 03:02:01  by ann (login uid 1001) on pts/3  pid 812  2 processes  \
             worktree=/home/ann/src/app  fix\\x1b[31m it"
        );
        session.ended = Some("2026-05-04T04:02:01.000000Z".to_owned());
        assert!(render(&session).contains("  ended 2026-05-04 04:02:01  "));
    }
}
