//! `guardctl doctor`.

use super::screen::Screen;
use super::{CliError, Exit};
use crate::{doctor, kernel};
use std::path::Path;

/// Examines this host, or the files below `root`.
pub(super) fn run(screen: &Screen, root: Option<&Path>, json: bool) -> Result<Exit, CliError> {
    let load = || kernel::probe().map_err(|error| error.to_string());
    let report = match root {
        Some(root) if !root.is_dir() => {
            return Err(CliError::invalid(format!("{} is not a directory", root.display())));
        }
        Some(root) => doctor::run(root, None),
        None => doctor::run(Path::new("/"), Some(&load)),
    };
    if json {
        screen.answer(&report.to_json().to_string())?;
    } else {
        screen.answer(&report.to_text(screen.colour))?;
    }
    Ok(if report.is_ready() { Exit::Yes } else { Exit::Degraded })
}
