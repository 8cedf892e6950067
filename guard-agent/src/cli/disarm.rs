//! `guardctl disarm`.

use super::client::Client;
use super::screen::{Screen, confirm};
use super::{CliError, Exit};
use crate::api::types::{DisarmRequest, Disarmed};
use crate::config::Config;
use crate::daemon::{Disarm, record_disarm, this_process};
use crate::events::escape::line;
use crate::events::time::{self, rfc3339};
use crate::kernel::{self, PinError};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Disarming {
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Without the agent: remove what one left in the kernel.
    #[arg(long)]
    offline: bool,
    /// The agent's configuration, which says where that is (with --offline).
    #[arg(long, value_name = "FILE", default_value = "/etc/guard/agent.toml")]
    config: PathBuf,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

impl Disarming {
    /// Ends enforcement, by the agent or without one.
    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        if self.reason.trim().is_empty() {
            return Err(CliError::invalid("say why: --reason TEXT"));
        }
        if !self.yes {
            match confirm("Nothing is enforced on this host from then on. Continue?") {
                Some(true) => {}
                Some(false) => return Err(CliError::no("nothing was changed")),
                None => return Err(CliError::invalid("add --yes, there is no terminal to ask on")),
            }
        }
        let disarm = if self.offline { self.offline()? } else { self.ask(client).await? };
        if self.json {
            let answer = Disarmed { schema: Disarmed::SCHEMA.to_owned(), disarm };
            let text = serde_json::to_string(&answer);
            screen.answer(&text.map_err(|error| CliError::internal(error.to_string()))?)?;
        } else {
            screen.answer(&format!(
                "nothing is enforced any more, since {}: \"{}\"\nto enforce again: sudo systemctl start guard-agent",
                line(&time::people(&disarm.at)),
                line(&disarm.reason)
            ))?;
        }
        Ok(Exit::Yes)
    }

    async fn ask(&self, client: &Client) -> Result<Disarm, CliError> {
        let body = serde_json::to_vec(&DisarmRequest { reason: self.reason.clone() })
            .map_err(|error| CliError::internal(format!("cannot write the request: {error}")))?;
        let answer = client.post("/v1/disarm", body).await?;
        let disarmed: Disarmed = serde_json::from_slice(&answer)
            .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))?;
        Ok(disarmed.disarm)
    }

    fn offline(&self) -> Result<Disarm, CliError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(CliError::not_permitted("this needs root: try sudo guardctl".to_owned()));
        }
        let config = Config::read(&self.config).map_err(|error| CliError::invalid(error.to_string()))?;
        let Some(pins) = &config.pins else {
            return Err(CliError::no(
                "enforcement ends with the agent here (`pins = \"none\"`): stop the agent",
            ));
        };
        let disarm = Disarm {
            at: rfc3339(time::now()),
            by: this_process(),
            reason: self.reason.clone(),
            offline: true,
        };
        if !kernel::is_armed(pins) {
            // Half of something may be there.
            kernel::disarm(pins).map_err(refused)?;
            return Err(CliError::no(format!("nothing is pinned in {}", pins.display())));
        }
        if let Err(error) = record_disarm(&config.state_dir, disarm.clone()) {
            eprintln!("guardctl: this is not recorded in {}: {error}", config.state_dir.display());
        }
        kernel::disarm(pins).map_err(refused)?;
        Ok(disarm)
    }
}

fn refused(error: PinError) -> CliError {
    match error {
        PinError::Held(path) => CliError::no(format!(
            "an agent holds {}: end its enforcement with `guardctl disarm --reason TEXT`, without --offline",
            path.display()
        )),
        error => CliError::internal(error.to_string()),
    }
}
