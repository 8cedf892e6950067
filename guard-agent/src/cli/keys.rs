//! `guardctl keys`: keys that sign bundles.

use super::screen::Screen;
use super::{CliError, Exit};
use crate::bundle::{KeyError, PrivateKey};
use crate::events::escape::line;
use clap::{Args, Subcommand};
use serde_json::json;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a key pair: NAME.key signs bundles, NAME.pub goes to the hosts that are to trust it.
    Generate(Generate),
}

#[derive(Debug, Args)]
pub(super) struct Generate {
    /// Name of the key: who or what signs with it.
    name: String,
    /// Where to put the two files.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Answer with one JSON value.
    #[arg(long)]
    pub(super) json: bool,
}

impl Generate {
    /// Makes the pair. A file that is there already is never overwritten.
    pub(super) fn run(&self, screen: &Screen) -> Result<Exit, CliError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.chars().all(plain) {
            let message = format!("{:?} is no name of a key: use letters, digits, - _ . and @", self.name);
            return Err(CliError::invalid(message));
        }
        let key = PrivateKey::generate().map_err(|error| CliError::internal(error.to_string()))?;
        let path = |extension: &str| self.dir.join(format!("{}.{extension}", self.name));
        let (private, public) = (path("key"), path("pub"));
        // The private one first: without it the public one is good for nothing.
        create(&private, &key.to_line(), 0o600)?;
        create(&public, &format!("{} {}", key.public(), self.name), 0o644)?;
        let fingerprint = key.public().fingerprint();
        if self.json {
            let body = json!({
                "schema": "guard.key/1",
                "private": private,
                "public": public,
                "key": key.public().to_string(),
                "fingerprint": fingerprint,
            });
            screen.answer(&body.to_string())?;
        } else {
            screen.answer(&format!(
                "private  {}  keep it where bundles are signed, readable by nobody else\n\
                 public   {}  put it into /etc/guard/trust.d on every host\n\
                 fingerprint  {fingerprint}",
                line(&private.display().to_string()),
                line(&public.display().to_string()),
            ))?;
        }
        Ok(Exit::Yes)
    }
}

/// Writes one line to a new file, durably.
fn create(path: &Path, text: &str, mode: u32) -> Result<(), CliError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    made.and_then(|mut file| writeln!(file, "{text}").and_then(|()| file.sync_all())).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AlreadyExists => ": a key is never overwritten, choose another name",
            _ => "",
        };
        CliError::invalid(format!("cannot write {}: {error}{hint}", path.display()))
    })
}

impl From<KeyError> for CliError {
    fn from(error: KeyError) -> Self {
        Self::invalid(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::PublicKey;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_pair_is_made_once_and_only_its_owner_reads_the_private_key() {
        let dir = std::env::temp_dir().join(format!("guard-keys-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let generate = Generate { name: "release".into(), dir: dir.clone(), json: false };
        let screen = Screen { colour: false };
        assert_eq!(generate.run(&screen).unwrap(), Exit::Yes);
        let mode = std::fs::metadata(dir.join("release.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let private = PrivateKey::read(&dir.join("release.key")).unwrap();
        assert!(private.public() == PublicKey::read(&dir.join("release.pub")).unwrap());
        assert_eq!(generate.run(&screen).unwrap_err().exit(), Exit::Invalid);
        for name in ["", "../x", ".hidden", "a b"] {
            let generate = Generate { name: name.into(), dir: dir.clone(), json: false };
            assert_eq!(generate.run(&screen).unwrap_err().exit(), Exit::Invalid, "{name}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
