//! `guardctl run --as SUBJECT -- COMMAND`: a command in a session of its own.
//!
//! `guardctl` asks for its own process to be labelled and then executes the command in its place: the
//! command has the process id, terminal, signals and descriptors that it would have had without
//! `guardctl`, and carries the label from its first instruction on. Whether the subject may execute it is
//! for the subject's policy to say.

use super::client::Client;
use super::{CliError, Exit};
use crate::api::types::{AdoptRequest, Adopted};
use crate::events::escape;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Exit status where the command was found and cannot be executed, as shells have it.
const NOT_EXECUTED: i32 = 126;
/// Exit status where there is no such command.
const NOT_FOUND: i32 = 127;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The subject.
    #[arg(long = "as", value_name = "SUBJECT")]
    subject: String,
    /// The value of a session variable: an absolute path, or one relative to the working directory, which
    /// is PWD.
    #[arg(long = "set", value_name = "NAME=PATH", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// Why, for the record of the session.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// The command and its arguments.
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=PATH".to_owned()),
    }
}

impl Args {
    /// Opens the session and becomes the command. Returns only if that fails.
    pub(super) async fn run(self, socket: &Path) -> Result<Exit, CliError> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(CliError::invalid("there is no command to run"));
        };
        // Looked for before there is a label, so that the subject's policy meets only what is executed.
        let path = find(program, std::env::var_os("PATH").as_deref()).unwrap_or_else(|| {
            complain(&format!("{}: there is no such command", program.to_string_lossy()));
            std::process::exit(NOT_FOUND)
        });
        let request =
            AdoptRequest { subject: self.subject, variables: variables(self.set)?, reason: self.reason };
        let body = serde_json::to_vec(&request)
            .map_err(|error| CliError::internal(format!("cannot write the request: {error}")))?;
        let mut command = Command::new(&path);
        command
            .arg0(program)
            .args(arguments)
            .env("GUARD_SUBJECT", &request.subject)
            .env("GUARD_SOCKET", socket);
        let answer = Client::new(socket.to_owned()).post("/v1/adopt", body).await?;
        let adopted: Adopted = serde_json::from_slice(&answer)
            .map_err(|error| CliError::internal(format!("the daemon's answer is not understood: {error}")))?;
        // From the answer on, this process is the subject, and policy decides what it does.
        let error = command.env("GUARD_SESSION", adopted.session.to_string()).exec();
        complain(&format!("{}: {}", program.to_string_lossy(), describe(&error)));
        std::process::exit(if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTED })
    }
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("{error} (the policy of the subject says what it may execute)")
        }
        _ => error.to_string(),
    }
}

fn complain(text: &str) {
    // Where nobody reads, the exit status is all that is left to say it.
    let _ = writeln!(io::stderr().lock(), "guardctl: {}", escape::block(text));
}

/// The values of variables, absolute.
fn variables(set: Vec<(String, String)>) -> Result<BTreeMap<String, String>, CliError> {
    let mut values = BTreeMap::new();
    for (name, value) in set {
        let value = if value.starts_with('/') {
            value
        } else {
            let here = std::env::current_dir()
                .map_err(|error| CliError::invalid(format!("cannot tell the working directory: {error}")))?;
            let path = if matches!(value.as_str(), "PWD" | ".") { here } else { here.join(&value) };
            let wrong = || CliError::invalid(format!("the value of {name} is not valid UTF-8"));
            path.to_str().ok_or_else(wrong)?.to_owned()
        };
        if values.insert(name.clone(), value).is_some() {
            return Err(CliError::invalid(format!("--set {name} is there twice")));
        }
    }
    Ok(values)
}

/// Where a command lies, as execvp(3) would find it.
fn find(program: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(program.into());
    }
    let executable = |candidate: &PathBuf| {
        candidate.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let directories = std::env::split_paths(path.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin")));
    directories.map(|directory| directory.join(program)).find(executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_as_a_shell_finds_it() {
        let sh = find(OsStr::new("sh"), Some(OsStr::new("/nowhere:/usr/bin:/bin"))).unwrap();
        assert!(sh.ends_with("bin/sh"));
        assert_eq!(find(OsStr::new("./x"), None), Some("./x".into()));
        assert_eq!(find(OsStr::new("no-such-command"), None), None);
        // A directory of that name is no command.
        assert_eq!(find(OsStr::new("bin"), Some(OsStr::new("/usr"))), None);
    }

    #[test]
    fn values_are_absolute_paths() {
        let here = std::env::current_dir().unwrap().display().to_string();
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let values = variables(vec![set("a", "PWD"), set("b", "."), set("c", "/x"), set("d", "y")]).unwrap();
        assert_eq!([&values["a"], &values["b"]], [&here, &here]);
        assert_eq!([values["c"].as_str(), values["d"].as_str()], ["/x", &format!("{here}/y")]);
        assert!(variables(vec![set("a", "/x"), set("a", "/y")]).is_err());
    }
}
