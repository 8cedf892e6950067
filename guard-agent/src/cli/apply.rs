//! `guardctl policy apply`.

use super::client::Client;
use super::screen::{Screen, short};
use super::{CliError, Exit};
use crate::api::types::{Applied, ApplyRequest};
use crate::events::escape::{block, line};
use std::io::Write;
use std::path::Path;

/// Has the daemon load the bundle at `path` and prints what is live then, or would be.
pub(super) async fn run(
    client: &Client,
    screen: &Screen,
    path: &Path,
    dry_run: bool,
    json: bool,
) -> Result<Exit, CliError> {
    let answer = client.post("/v1/policy/apply", request(path, dry_run)?).await?;
    tell(screen, &answer, "applied", json)
}

/// The body of a request to load the bundle at `path`.
pub(super) fn request(path: &Path, dry_run: bool) -> Result<Vec<u8>, CliError> {
    let request = ApplyRequest { directory: absolute(path)?, dry_run };
    serde_json::to_vec(&request)
        .map_err(|error| CliError::internal(format!("cannot write the request: {error}")))
}

/// Prints the daemon's answer to what makes another bundle live. `done` is the word for that.
pub(super) fn tell(screen: &Screen, answer: &[u8], done: &str, json: bool) -> Result<Exit, CliError> {
    let applied: Applied = serde_json::from_slice(answer)
        .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))?;
    if json {
        screen.answer(String::from_utf8_lossy(answer).trim_end())?;
    } else {
        for note in &applied.notes {
            // Notes are not the answer: nobody who misses them misses that.
            let _ = writeln!(std::io::stderr().lock(), "{}", block(note.trim_end()));
        }
        screen.answer(&render(&applied, done))?;
    }
    Ok(Exit::Yes)
}

/// The path as the daemon, which has another working directory, can find it.
pub(super) fn absolute(path: &Path) -> Result<String, CliError> {
    let canonical = path
        .canonicalize()
        .map_err(|error| CliError::invalid(format!("cannot find the bundle {}: {error}", path.display())))?;
    if !canonical.is_dir() && !canonical.is_file() {
        let message = format!("{} is neither a directory nor an archive", canonical.display());
        return Err(CliError::invalid(message));
    }
    canonical.into_os_string().into_string().map_err(|path| {
        CliError::invalid(format!("the path {} is not UTF-8: move the bundle", path.to_string_lossy()))
    })
}

fn render(applied: &Applied, done: &str) -> String {
    let bundle = &applied.bundle;
    let what = format!(
        "generation {}  {} version {} ({}…)",
        applied.generation,
        line(&bundle.name),
        bundle.version,
        line(&short(&bundle.digest))
    );
    if !applied.changed {
        return format!("unchanged {what}");
    }
    if applied.dry_run {
        let bundle =
            format!("{} version {} ({}…)", line(&bundle.name), bundle.version, line(&short(&bundle.digest)));
        let took = applied.milliseconds;
        return format!("would change  {bundle} compiles for this host in {took:.0} ms; nothing was changed");
    }
    let plural = if applied.labelled == 1 { "task" } else { "tasks" };
    format!(
        "{done} {what}  in {:.0} ms  labelled {} running {plural}",
        applied.milliseconds, applied.labelled
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::BundleStatus;

    #[test]
    fn the_answer_is_one_line() {
        let mut applied = Applied {
            schema: "guard.applied/1".to_owned(),
            changed: true,
            dry_run: false,
            generation: 3,
            bundle: BundleStatus {
                name: "quick\nstart".to_owned(),
                version: 2,
                digest: "0123456789abcdef".to_owned(),
                directory: "/etc/guard/policy".to_owned(),
                copy: String::new(),
            },
            milliseconds: 31.4,
            labelled: 1,
            notes: Vec::new(),
        };
        let what = "generation 3  quick\\x0astart version 2 (0123456789ab…)";
        let changed = format!("back to {what}  in 31 ms  labelled 1 running task");
        assert_eq!(render(&applied, "back to"), changed);
        applied.dry_run = true;
        assert!(render(&applied, "applied").starts_with("would change  quick\\x0astart version 2 "));
        applied.changed = false;
        assert_eq!(render(&applied, "applied"), format!("unchanged {what}"));
    }

    #[test]
    fn a_bundle_that_is_not_there_is_invalid_input() {
        assert_eq!(absolute(Path::new("/nowhere/at/all")).unwrap_err().exit(), Exit::Invalid);
        assert_eq!(absolute(Path::new("/dev/null")).unwrap_err().exit(), Exit::Invalid);
        assert_eq!(absolute(Path::new("/usr/..")).unwrap(), "/");
    }
}
