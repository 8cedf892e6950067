//! Commands that ask a policy: they change nothing, and need the daemon only to find the live bundle.

mod answer;
mod can;
mod diff;
mod explain;
mod fmt;
mod lint;
mod list;
mod show;
pub(super) mod source;
mod suggest;
mod test;

pub(super) use answer::{lifted, place, signers};

use super::client::Client;
use super::screen::Screen;
use super::{CliError, Exit};
use clap::Subcommand;

/// Questions about the live policy, or a bundle.
#[derive(Debug, Subcommand)]
pub(super) enum Ask {
    /// May this subject do that, which policies say so, and what would change it?
    Can(Box<can::Args>),
    /// What may this subject do at all?
    List(list::Args),
}

impl Ask {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Can(args) => args.json,
            Self::List(args) => args.json,
        }
    }

    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        match self {
            Self::Can(args) => can::run(client, screen, &args).await,
            Self::List(args) => list::run(client, screen, &args).await,
        }
    }
}

/// Tools for policies.
#[derive(Debug, Subcommand)]
pub(super) enum Tool {
    /// The policies that are in force, or of a bundle; with --effective as Cedar decides by them.
    Show(show::Args),
    /// All decisions of one operation: a rename is up to three.
    Explain(Box<explain::Args>),
    /// Run the tests of a bundle, and say which of its policies no test decides.
    Test(test::Args),
    /// What would permit an operation that was denied: diffs of the bundle, none of them applied.
    Suggest(suggest::Args),
    /// What looks wrong in a bundle that is valid: broad, shadowed, never matching, evaded.
    Lint(lint::Args),
    /// What one bundle allows and denies that another does not, in decisions; not in text.
    Diff(diff::Args),
    /// Lay out the *.cedar files of a bundle in one style; comments stay.
    Fmt(fmt::Args),
}

impl Tool {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Show(args) => args.json,
            Self::Explain(args) => args.json,
            Self::Suggest(args) => args.json,
            Self::Test(args) => args.json,
            Self::Diff(args) => args.json,
            Self::Lint(args) => args.json,
            Self::Fmt(args) => args.json,
        }
    }

    pub(super) async fn run(self, client: &Client, screen: &Screen) -> Result<Exit, CliError> {
        match self {
            Self::Show(args) => show::run(client, screen, &args).await,
            Self::Explain(args) => explain::run(client, screen, &args).await,
            Self::Suggest(args) => suggest::run(client, screen, &args).await,
            Self::Test(args) => test::run(screen, &args),
            Self::Diff(args) => diff::run(client, screen, &args).await,
            Self::Lint(args) => lint::run(screen, &args),
            Self::Fmt(args) => fmt::run(screen, &args),
        }
    }
}

/// Adds the fields of `value` to a JSON object.
fn merge(body: &mut serde_json::Value, value: &impl serde::Serialize) -> Result<(), CliError> {
    let fields = serde_json::to_value(value)
        .map_err(|error| CliError::internal(format!("cannot write the answer: {error}")))?;
    if let (Some(body), serde_json::Value::Object(fields)) = (body.as_object_mut(), fields) {
        body.extend(fields);
    }
    Ok(())
}
