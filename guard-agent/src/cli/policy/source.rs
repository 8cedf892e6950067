//! The bundle that a command is about: one that is named, or the live one.

use crate::api::types::{BundleStatus, Status};
use crate::bundle;
use crate::cli::CliError;
use crate::cli::client::Client;
use crate::host::Host;
use crate::policy::{self, Bundle, Diagnostic, Diagnostics, Mode};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the bundle is.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// The bundle; without it, the one that the daemon enforces.
    #[arg(long, value_name = "DIR")]
    pub(super) bundle: Option<PathBuf>,
}

impl Source {
    /// Loads the bundle.
    pub(super) async fn load(&self, client: &Client) -> Result<Bundle, CliError> {
        match &self.bundle {
            Some(directory) => load(directory),
            None => live(client).await,
        }
    }
}

/// Loads the bundle in `directory`.
pub(super) fn load(directory: &Path) -> Result<Bundle, CliError> {
    policy::load(directory).map_err(invalid)
}

async fn daemon(client: &Client) -> Result<Status, CliError> {
    let answer = client.get("/v1/status").await?;
    serde_json::from_slice(&answer)
        .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))
}

/// The modes that subjects are in for a while, whatever bundle is live.
pub(super) async fn modes(client: &Client) -> Result<BTreeMap<String, Mode>, CliError> {
    let subjects = daemon(client).await?.subjects.into_iter();
    Ok(subjects.filter_map(|subject| Some((subject.name, subject.mode_set?.mode))).collect())
}

/// The bundle that the daemon enforces, as it knows it.
async fn status(client: &Client) -> Result<BundleStatus, CliError> {
    let live = daemon(client).await?.bundle;
    if live.directory.is_empty() {
        return Err(CliError::invalid("no policy is live: name a bundle with --bundle DIR"));
    }
    Ok(live)
}

/// Where the bundle is that the daemon enforces. What is there may have changed since.
pub(in crate::cli) async fn directory(client: &Client) -> Result<PathBuf, CliError> {
    Ok(PathBuf::from(status(client).await?.directory))
}

/// Loads the bundle that the daemon enforces, from where the daemon has it.
pub(super) async fn live(client: &Client) -> Result<Bundle, CliError> {
    let live = status(client).await?;
    // The place it came from gives diagnostics the better names, as long as nothing has changed there.
    if let Ok(bundle) = policy::load(Path::new(&live.directory))
        && bundle.digest == live.digest
    {
        return Ok(bundle);
    }
    let kept = bundle::open_kept(Path::new(&live.copy)).and_then(|opened| policy::parse(&opened));
    match kept {
        Ok(bundle) if bundle.digest == live.digest => Ok(bundle),
        _ => Err(CliError::invalid(format!(
            "{} has changed since it was applied, and the daemon's copy of the live policy cannot be read: apply it, or name it with --bundle {0}",
            live.directory
        ))),
    }
}

/// This host, as the compiler sees it.
pub(super) fn host() -> Result<Host, CliError> {
    Host::read().map_err(|error| CliError::internal(error.to_string()))
}

/// A bundle that is refused.
pub(super) fn invalid(diagnostics: Diagnostics) -> CliError {
    CliError::invalid(diagnostics.to_string())
}

/// A question that is refused, or a fault of Guard.
pub(super) fn refused(diagnostic: Diagnostic) -> CliError {
    if diagnostic.code == "internal" {
        return CliError::internal(diagnostic.message);
    }
    let help = diagnostic.help.map_or_else(String::new, |help| format!("\n  {help}"));
    CliError::invalid(format!("{}{help}", diagnostic.message))
}

/// `NAME=VALUE`
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}
