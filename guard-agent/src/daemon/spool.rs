//! Facts in files that others put into a directory of the agent.
//!
//! Whoever knows something writes a file beside it and renames it into the directory, so that it appears whole.
//! A file that was understood is removed; one that was not is renamed and said, and changes nothing.

use super::serve::Shared;
use crate::api::types::FactRequest;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Deserialize;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The directory, in the state directory.
pub(super) const DIRECTORY: &str = "facts";
/// Longest file, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Facts in one file, at most, and how many of those that are refused are said.
const MAX_FACTS: usize = 1000;
const MAX_SAID: usize = 5;
/// What a file that was not understood is called.
const REFUSED: &str = "refused";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    facts: Vec<FactRequest>,
}

/// Makes the directory, reads what lies in it, and what comes, on a thread of its own.
///
/// # Errors
/// If the directory cannot be made or watched.
pub(super) fn watch(state_dir: &Path, shared: Shared) -> io::Result<()> {
    let directory = state_dir.join(DIRECTORY);
    DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    inotify.add_watch(&directory, AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR)?;
    std::thread::Builder::new().name("facts".to_owned()).spawn(move || {
        loop {
            // What is there before the first event, and whatever several events are about.
            read_all(&directory, &shared);
            if let Err(error) = inotify.read_events() {
                tracing::error!("facts in {} are not read any more: {error}", directory.display());
                return;
            }
        }
    })?;
    Ok(())
}

/// Reads every file, oldest first.
fn read_all(directory: &Path, shared: &Shared) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::error!("cannot read {}: {error}", directory.display());
            return;
        }
    };
    let mut files: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension() == Some(OsStr::new("json")))
        .filter_map(|path| Some((fs::symlink_metadata(&path).ok()?.modified().ok()?, path)))
        .collect();
    files.sort();
    for (_, path) in files {
        let done = match read(&path) {
            Ok((facts, age)) => take(&facts, age, &path, shared),
            Err(why) => Err(why),
        };
        let put_away = match done {
            Ok(()) => fs::remove_file(&path),
            Err(why) => {
                tracing::error!("facts in {} are refused: {why}", path.display());
                fs::rename(&path, path.with_extension(REFUSED))
            }
        };
        if let Err(error) = put_away {
            tracing::error!("cannot put {} away: {error}", path.display());
        }
    }
}

/// The facts in a file, and how old it is.
fn read(path: &Path) -> Result<(Vec<FactRequest>, Duration), String> {
    let text = |error: io::Error| error.to_string();
    let file = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(text)?;
    let about = file.metadata().map_err(text)?;
    if !about.is_file() {
        return Err("it is no file".to_owned());
    }
    if about.uid() != 0 {
        return Err(format!("it belongs to uid {}, and facts are for root to tell", about.uid()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(text)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err("it is longer than 1 MiB".to_owned());
    }
    let contents: Contents = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if contents.facts.len() > MAX_FACTS {
        return Err(format!("it has more than {MAX_FACTS} facts"));
    }
    let written = about.modified().map_err(text)?;
    // One from the future is as new as can be.
    Ok((contents.facts, SystemTime::now().duration_since(written).unwrap_or_default()))
}

/// Makes facts count that were told so long ago, each by itself.
fn take(facts: &[FactRequest], age: Duration, path: &Path, shared: &Shared) -> Result<(), String> {
    let by = format!("the file {}", path.display());
    let refused = facts.iter().filter_map(|fact| {
        let error = shared.set_fact(fact, age, &by).err()?;
        Some(format!("{}: {error}", fact.name))
    });
    let mut refused: Vec<String> = refused.collect();
    if refused.is_empty() {
        return Ok(());
    }
    let others = refused.len().saturating_sub(MAX_SAID);
    refused.truncate(MAX_SAID);
    let others = if others == 0 { String::new() } else { format!("; and {others} more") };
    Err(refused.join("; ") + &others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::FactValue;

    #[test]
    fn a_file_is_read_whole_or_refused() {
        let directory = std::env::temp_dir().join(format!("guard-spool-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("edr.json");
        let written = |text: &str| {
            fs::write(&file, text).unwrap();
            read(&file)
        };
        let good = r#"{"facts":[{"name":"trust","subject":"web","value":3,"source":"edr","seconds":60}]}"#;
        if nix::unistd::geteuid().is_root() {
            let (facts, age) = written(good).unwrap();
            assert_eq!((facts.len(), &facts[0].value), (1, &FactValue::Long(3)));
            assert!(age < Duration::from_secs(60));
            for bad in ["", "{}", "{\"facts\":[{\"name\":\"trust\"}]}", "{\"facts\":[],\"more\":1}"] {
                assert!(written(bad).is_err(), "{bad}");
            }
            let many = vec![r#"{"name":"trust","value":3,"source":"edr"}"#; MAX_FACTS + 1].join(",");
            assert!(written(&format!("{{\"facts\":[{many}]}}")).unwrap_err().contains("more than 1000"));
        } else {
            assert!(written(good).unwrap_err().contains("belongs to uid"));
        }
        let link = directory.join("link.json");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(read(&link).is_err());
        fs::remove_dir_all(&directory).unwrap();
    }
}
