//! `guardctl can`.

use super::answer::{Assume, render};
use super::source::{Source, host, invalid, refused};
use crate::analysis::can::can;
use crate::analysis::question::Files;
use crate::cli::client::Client;
use crate::cli::screen::Screen;
use crate::cli::{CliError, Exit};
use crate::policy::Oracle;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The subject.
    #[arg(long = "as", value_name = "SUBJECT")]
    subject: String,
    /// The action, such as file.read or net.connect.
    action: String,
    /// The resource: a path, ADDRESS:PORT, a name; with its type in front where the action allows
    /// several ("Memory anonymous"). Actions on the machine need none.
    resource: Option<String>,
    #[command(flatten)]
    assume: Assume,
    #[command(flatten)]
    source: Source,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

/// Answers with the decision, the policies behind it and what would change it.
pub(super) async fn run(client: &Client, screen: &Screen, args: &Args) -> Result<Exit, CliError> {
    let bundle = args.source.load(client).await?;
    let host = host()?;
    let words = args.assume.words(&args.subject, &args.action, args.resource.as_deref());
    let question = words.question(&bundle, &host, Files::Read).map_err(refused)?;
    let oracle = Oracle::new(&bundle, &host, &question.facts).map_err(invalid)?;
    let finding = can(&bundle, &oracle, &question).map_err(refused)?;
    if args.json {
        let mut body = serde_json::json!({ "schema": "guard.can/1" });
        super::merge(&mut body, &finding)?;
        screen.answer(&body.to_string())?;
    } else {
        screen.answer(&render(&finding, screen))?;
    }
    Ok(if finding.allowed { Exit::Yes } else { Exit::No })
}
