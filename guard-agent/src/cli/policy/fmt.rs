//! `guardctl policy fmt`.

use crate::cli::screen::Screen;
use crate::cli::{CliError, Exit};
use crate::events::escape::line;
use crate::policy::format;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The bundle, or one *.cedar file.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Change nothing; answer no if a file would change.
    #[arg(long)]
    check: bool,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

/// Lays out every file, or says which ones are not laid out.
pub(super) fn run(screen: &Screen, args: &Args) -> Result<Exit, CliError> {
    let mut changed = Vec::new();
    // Nothing is written before everything is understood.
    for path in files(&args.path)? {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| CliError::invalid(format!("cannot read {}: {error}", path.display())))?;
        let name = path.display().to_string();
        let laid_out = format(&name, &text).map_err(super::source::invalid)?;
        if laid_out != text {
            changed.push((path, laid_out));
        }
    }
    if !args.check {
        for (path, text) in &changed {
            replace(path, text)
                .map_err(|error| CliError::invalid(format!("cannot write {}: {error}", path.display())))?;
        }
    }
    let names: Vec<String> = changed.iter().map(|(path, _)| path.display().to_string()).collect();
    if args.json {
        let body = serde_json::json!({ "schema": "guard.fmt/1", "changed": names, "written": !args.check });
        screen.answer(&body.to_string())?;
    } else {
        let word = if args.check { "would change" } else { "changed" };
        let lines: Vec<_> = names.iter().map(|name| format!("{word}  {}", line(name))).collect();
        screen.answer(&if lines.is_empty() { "nothing to change".to_owned() } else { lines.join("\n") })?;
    }
    Ok(if args.check && !names.is_empty() { Exit::No } else { Exit::Yes })
}

fn files(path: &Path) -> Result<Vec<PathBuf>, CliError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let cannot =
        |error: std::io::Error| CliError::invalid(format!("cannot list {}: {error}", path.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.extension().is_some_and(|extension| extension == "cedar") && path.is_file() {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(CliError::invalid(format!("there are no *.cedar files in {}", path.display())));
    }
    found.sort();
    Ok(found)
}

/// Replaces a file in one step, with the mode it has.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    // A link stays one: the file behind it is replaced.
    let path = path.canonicalize()?;
    let temporary = path.with_extension("cedar.new");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.set_permissions(path.metadata()?.permissions()))
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&temporary, &path));
    if written.is_err() {
        // What was wrong is the answer; a leaving that cannot be removed is not.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}
