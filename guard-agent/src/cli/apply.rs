//! `guardctl policy apply`.

use super::client::Client;
use super::screen::{Screen, short};
use super::{CliError, Exit};
use crate::api::types::{Applied, ApplyRequest};
use crate::events::escape::{block, line};
use std::io::Write;
use std::path::Path;

/// Has the daemon load the bundle in `directory` and prints what is live then.
pub(super) async fn run(
    client: &Client,
    screen: &Screen,
    directory: &Path,
    json: bool,
) -> Result<Exit, CliError> {
    let request = ApplyRequest { directory: absolute(directory)? };
    let body = serde_json::to_vec(&request)
        .map_err(|error| CliError::internal(format!("cannot write the request: {error}")))?;
    let answer = client.post("/v1/policy/apply", body).await?;
    let applied: Applied = serde_json::from_slice(&answer)
        .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))?;
    if json {
        screen.answer(String::from_utf8_lossy(&answer).trim_end())?;
    } else {
        for note in &applied.notes {
            // Notes are not the answer: nobody who misses them misses that.
            let _ = writeln!(std::io::stderr().lock(), "{}", block(note.trim_end()));
        }
        screen.answer(&render(&applied))?;
    }
    Ok(Exit::Yes)
}

/// The directory as the daemon, which has another working directory, can find it.
fn absolute(directory: &Path) -> Result<String, CliError> {
    let canonical = directory.canonicalize().map_err(|error| {
        CliError::invalid(format!("cannot find the bundle {}: {error}", directory.display()))
    })?;
    if !canonical.is_dir() {
        let message = format!("{} is not a directory: name the bundle's directory", canonical.display());
        return Err(CliError::invalid(message));
    }
    canonical.into_os_string().into_string().map_err(|path| {
        CliError::invalid(format!("the path {} is not UTF-8: move the bundle", path.to_string_lossy()))
    })
}

fn render(applied: &Applied) -> String {
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
    let plural = if applied.labelled == 1 { "task" } else { "tasks" };
    format!(
        "applied {what}  in {:.0} ms  labelled {} running {plural}",
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
            generation: 3,
            bundle: BundleStatus {
                name: "quick\nstart".to_owned(),
                version: 2,
                digest: "0123456789abcdef".to_owned(),
                directory: "/etc/guard/policy".to_owned(),
            },
            milliseconds: 31.4,
            labelled: 1,
            notes: Vec::new(),
        };
        let what = "generation 3  quick\\x0astart version 2 (0123456789ab…)";
        assert_eq!(render(&applied), format!("applied {what}  in 31 ms  labelled 1 running task"));
        applied.changed = false;
        assert_eq!(render(&applied), format!("unchanged {what}"));
    }

    #[test]
    fn a_directory_that_is_not_there_is_invalid_input() {
        assert_eq!(absolute(Path::new("/nowhere/at/all")).unwrap_err().exit(), Exit::Invalid);
        assert_eq!(absolute(Path::new("/proc/self/stat")).unwrap_err().exit(), Exit::Invalid);
        assert_eq!(absolute(Path::new("/usr/..")).unwrap(), "/");
    }
}
