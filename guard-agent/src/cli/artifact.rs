//! `guardctl artifact`: lists of signed files, and what is known of a file. No daemon is asked, no root needed.

use super::screen::{Screen, note};
use super::{CliError, Exit};
use crate::artifact::{Artifact, ArtifactList, DIRECTORY, Lists, MAX_LIST, digest_of};
use crate::bundle::{PrivateKey, PublicKey, hexadecimal, read_file, replace};
use crate::events::escape::line;
use crate::policy;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum ArtifactCommand {
    /// Sign files as they are now: write a list of their digests, to be put into /etc/guard/artifacts.d.
    Sign(Sign),
    /// Is this an artifact list, and what is in it?
    Check(Check),
    /// Who signed these files, by the lists of this host?
    Show(Show),
}

#[derive(Debug, Args)]
pub(super) struct Sign {
    /// The files.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The private key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The list; one that is there is replaced.
    #[arg(short, long, value_name = "LIST")]
    output: PathBuf,
    /// Keep what the list has already, if the same key signed it.
    #[arg(long)]
    add: bool,
    /// Answer with one JSON value.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The list.
    #[arg(value_name = "LIST")]
    list: PathBuf,
    /// The public key that must have signed it.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Answer with one JSON value.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The files.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The bundle whose names of keys count; without it, keys are shown by their fingerprints.
    #[arg(long, value_name = "BUNDLE")]
    bundle: Option<PathBuf>,
    /// Directory of the lists.
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    lists: PathBuf,
    /// Answer with one JSON value.
    #[arg(long)]
    json: bool,
}

impl ArtifactCommand {
    /// Whether the answer is to be JSON.
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Sign(args) => args.json,
            Self::Check(args) => args.json,
            Self::Show(args) => args.json,
        }
    }

    /// Does it.
    pub(super) fn run(&self, screen: &Screen) -> Result<Exit, CliError> {
        match self {
            Self::Sign(args) => sign(args, screen),
            Self::Check(args) => check(args, screen),
            Self::Show(args) => show(args, screen),
        }
    }
}

fn sign(args: &Sign, screen: &Screen) -> Result<Exit, CliError> {
    let key = PrivateKey::read(&args.key)?;
    let mut artifacts = Vec::new();
    for path in &args.files {
        artifacts.push(Artifact { digest: digest(path)?, name: path.display().to_string() });
    }
    if args.add && args.output.exists() {
        let before = read(&args.output)?;
        if before.key != key.public() {
            let message = format!("{} is signed by another key: write another list", args.output.display());
            return Err(CliError::invalid(message));
        }
        artifacts.extend(before.artifacts());
    }
    let text = ArtifactList::sign(&artifacts, &key).map_err(|error| CliError::invalid(error.why))?;
    replace(&args.output, text.as_bytes(), 0o644)
        .map_err(|error| CliError::invalid(format!("cannot write {}: {error}", args.output.display())))?;
    let list = ArtifactList::parse(text.as_bytes()).map_err(|error| CliError::internal(error.to_string()))?;
    answer(&args.output, &list, args.json, screen)
}

fn check(args: &Check, screen: &Screen) -> Result<Exit, CliError> {
    let list = read(&args.list)?;
    if let Some(path) = &args.key {
        let wanted = PublicKey::read(path)?;
        if wanted != list.key {
            let message = format!("{} is signed by another key: {}", args.list.display(), list.key);
            return Err(CliError::invalid(message));
        }
    }
    answer(&args.list, &list, args.json, screen)
}

fn answer(path: &Path, list: &ArtifactList, as_json: bool, screen: &Screen) -> Result<Exit, CliError> {
    if as_json {
        let artifacts: Vec<Value> = list
            .artifacts()
            .map(|one| json!({ "sha256": hexadecimal(&one.digest), "name": one.name }))
            .collect();
        let body = json!({
            "schema": "guard.artifact-list/1",
            "path": path,
            "key": list.key.to_string(),
            "fingerprint": list.key.fingerprint(),
            "artifacts": artifacts,
        });
        screen.answer(&body.to_string())?;
    } else {
        let mut lines = vec![format!(
            "{}  signed by {}  {} files",
            line(&path.display().to_string()),
            list.key.fingerprint(),
            list.digests().count()
        )];
        lines.extend(
            list.artifacts().map(|one| format!("  {}  {}", hexadecimal(&one.digest), line(&one.name))),
        );
        screen.answer(&lines.join("\n"))?;
    }
    Ok(Exit::Yes)
}

fn show(args: &Show, screen: &Screen) -> Result<Exit, CliError> {
    let lists = Lists::read(&args.lists);
    for refused in &lists.refused {
        note(&line(&format!("{} does not count: {}", refused.path.display(), refused.why)));
    }
    let bundle = args.bundle.as_deref().map(policy::load).transpose()?;
    let named = |key: &PublicKey| {
        let signers = bundle.iter().flat_map(|bundle| bundle.signers());
        signers.filter(|(_, known)| *known == key).map(|(name, _)| name.to_owned()).next()
    };
    let (mut all, mut bodies, mut lines) = (true, Vec::new(), Vec::new());
    for path in &args.files {
        let digest = digest(path)?;
        let found: Vec<_> = lists
            .lists
            .iter()
            .filter_map(|(file, list)| Some((file, list, list.name_of(&digest)?)))
            .collect();
        all &= !found.is_empty();
        lines.push(format!("{}  sha256 {}", line(&path.display().to_string()), hexadecimal(&digest)));
        if found.is_empty() {
            lines.push("  signed by nobody, as far as the lists say".to_owned());
        }
        for (file, list, name) in &found {
            let key = list.key.fingerprint();
            let who =
                named(&list.key).map_or_else(|| format!("key {key}"), |name| format!("{name} (key {key})"));
            let file = file.display().to_string();
            lines.push(format!("  signed by {}  in {} as {}", line(&who), line(&file), line(name)));
        }
        let signed: Vec<Value> = found
            .iter()
            .map(|(file, list, name)| {
                json!({
                    "list": file,
                    "as": name,
                    "key": list.key.to_string(),
                    "fingerprint": list.key.fingerprint(),
                    "signer": named(&list.key),
                })
            })
            .collect();
        bodies.push(json!({ "path": path, "sha256": hexadecimal(&digest), "signed": signed }));
    }
    if args.json {
        screen.answer(&json!({ "schema": "guard.artifact/1", "files": bodies }).to_string())?;
    } else {
        screen.answer(&lines.join("\n"))?;
    }
    Ok(if all { Exit::Yes } else { Exit::No })
}

fn read(path: &Path) -> Result<ArtifactList, CliError> {
    let bytes = read_file(path, MAX_LIST)
        .map_err(|error| CliError::invalid(format!("cannot read {}: {error}", path.display())))?;
    ArtifactList::parse(&bytes).map_err(|error| CliError::invalid(format!("{}: {error}", path.display())))
}

fn digest(path: &Path) -> Result<[u8; guard_common::label::DIGEST], CliError> {
    digest_of(path).map_err(|error| CliError::invalid(format!("cannot read {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;

    #[test]
    fn what_was_signed_is_shown_until_it_changes() {
        let dir = std::env::temp_dir().join(format!("guard-artifact-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let (key, file) = (dir.join("release.key"), dir.join("tool"));
        let mut options = std::fs::OpenOptions::new();
        let made = options.write(true).create_new(true).mode(0o600).open(&key);
        let private = PrivateKey::generate().unwrap();
        std::io::Write::write_all(&mut made.unwrap(), private.to_line().as_bytes()).unwrap();
        std::fs::write(&file, "one").unwrap();
        let screen = Screen { colour: false };
        let output = dir.join("tool.artifacts");
        let sign = |add| Sign {
            files: vec![file.clone()],
            key: key.clone(),
            output: output.clone(),
            add,
            json: false,
        };
        let show = || {
            let args = Show { files: vec![file.clone()], bundle: None, lists: dir.clone(), json: true };
            super::show(&args, &screen).unwrap()
        };
        assert_eq!(show(), Exit::No);
        assert_eq!(super::sign(&sign(false), &screen).unwrap(), Exit::Yes);
        assert_eq!(show(), Exit::Yes);
        std::fs::write(&file, "two").unwrap();
        assert_eq!(show(), Exit::No);
        assert_eq!(super::sign(&sign(true), &screen).unwrap(), Exit::Yes);
        assert_eq!(read(&output).unwrap().digests().count(), 2);
        std::fs::write(&output, "garbage").unwrap();
        let check = Check { list: output, key: None, json: false };
        assert_eq!(super::check(&check, &screen).unwrap_err().exit(), Exit::Invalid);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
