//! The reference bundle with the programs that its subjects are written for: nginx and PostgreSQL as they
//! are packaged, and what a coding agent runs.
//!
//! Every subject governs everything, and everything is enforced. The bundle is changed as little as this
//! version and these programs need, and each change is one of [`EDITS`]: an edit that finds nothing to
//! change is an error, so the list is complete and has nothing in it that is not needed any more.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guard_tests::reference_bundle::{POLICIES, TOML};
use nix::errno::Errno;

use crate::bundle::Bundle;
use crate::case::Case;
use crate::layout;
use crate::users::Identity;

pub(crate) mod coder;
pub(crate) mod nginx;
pub(crate) mod postgres;

/// Accounts that packages and organisations make.
pub(crate) const ACCOUNTS: [Identity; 3] =
    [coder::DEVELOPER, coder::DEVELOPERS, Identity::new("postgres", 2610)];

/// A place in the bundle, what is there, what is to be there, and why.
type Edit = (&'static str, &'static str, &'static str);

/// What is changed in the bundle.
const EDITS: &[&[Edit]] = &[nginx::EDITS, postgres::EDITS, coder::EDITS];

/// The bundle: without its own includes, for which Guard ships better ones of the same names (ADR 20), and
/// with `edits`.
fn bundle(bundle: Bundle) -> Result<Bundle> {
    // What comes before is about the bundle as such; facts are declared in guard.toml alone.
    let from = TOML.find("[modes]").context("guard.toml has modes")?;
    let mut files: Vec<(&str, String)> = vec![("guard.toml", TOML[from..].to_owned())];
    let policies = POLICIES.iter().filter(|(file, _)| *file != "includes");
    files.extend(policies.map(|(file, text)| (*file, (*text).to_owned())));
    let version = postgres::version()?;
    for (file, old, new) in EDITS.iter().copied().flatten() {
        let (_, text) =
            files.iter_mut().find(|(name, _)| name == file).with_context(|| format!("no file {file}"))?;
        ensure!(text.contains(old), "{file} does not say {old:?} any more");
        *text = text.replace(old, &new.replace("VERSION", &version));
    }
    let mut files = files.into_iter();
    let (_, toml) = files.next().context("guard.toml")?;
    Ok(files.fold(bundle.toml(&toml), |bundle, (file, text)| bundle.policy(file, text)))
}

/// Gives this machine an address: what listens there is reached from there as well.
fn address(address: &str) -> Result<()> {
    layout::run("ip", &["link", "set", "lo", "up"])?;
    layout::run("ip", &["address", "replace", &format!("{address}/32"), "dev", "lo"])
}

/// How long a peer may take.
const PEER: Duration = Duration::from_secs(30);

/// One request to a web server, and the number it answers with.
fn get(server: SocketAddr, page: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PEER))?;
    write!(stream, "GET {page} HTTP/1.0\r\nHost: reference\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let number = answer.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("the server answered {answer:?}")))
}

/// Runs a command; EACCES if it fails and says that permission was denied.
fn run(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let message = String::from_utf8_lossy(&output.stderr);
    if ["ermission denied", "EACCES"].iter().any(|words| message.contains(words)) {
        return Err(Errno::EACCES.into());
    }
    Err(io::Error::other(format!("{command:?}: {}: {said}{message}", output.status)))
}

/// `systemctl`, with what the unit says of itself if it fails.
fn systemctl(arguments: &[&str], unit: &str) -> Result<()> {
    let result = layout::run("systemctl", &[arguments, &[unit]].concat());
    result.map_err(|error| {
        let status = Command::new("systemctl").args(["status", "--no-pager", "--full", unit]).output();
        let status = status.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        error.context(status.unwrap_or_default())
    })
}

/// Whether the main process of a unit ended as it was asked to, and nothing else of it failed.
fn ended_well(unit: &str) -> Result<()> {
    let output = Command::new("systemctl").args(["show", "--property=ActiveState,Result", unit]).output();
    let text = String::from_utf8_lossy(&output.context("start systemctl")?.stdout).into_owned();
    ensure!(text.contains("ActiveState=inactive") && text.contains("Result=success"), "{unit}: {text}");
    Ok(())
}

/// What a subject was denied since.
struct Watch<'a> {
    case: &'a Case<'a>,
    subject: &'static str,
    mark: Option<u64>,
}

impl<'a> Watch<'a> {
    fn begin(case: &'a Case<'_>, subject: &'static str) -> Result<Self> {
        let mark = case.daemon().map(|daemon| daemon.events.mark()).transpose()?;
        Ok(Self { case, subject, mark })
    }

    /// Nothing was denied but this, `(action, end of the place)`. Comes after a denial whose event the test
    /// has seen, so the events of all that was before are there.
    fn denied_nothing_but(&self, known: &[(&str, &str)]) -> Result<()> {
        let (Some(daemon), Some(mark)) = (self.case.daemon(), self.mark) else { return Ok(()) };
        let events = daemon.events.since(mark)?;
        let unknown: Vec<String> = events
            .iter()
            .filter(|event| event.is_denial() && event.subject() == self.subject)
            .filter(|event| !known.iter().any(|(action, place)| event.is_about(action) && event.is_at(place)))
            .map(ToString::to_string)
            .collect();
        ensure!(unknown.is_empty(), "{} denials in ordinary work:\n{}", unknown.len(), unknown.join("\n"));
        Ok(())
    }
}

/// A file of root's that file modes give to everybody.
fn for_everybody(path: &str, content: &str) -> Result<()> {
    let path = Path::new(path);
    let parent = path.parent().context("a path has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    fs::write(path, content).with_context(|| format!("write {}", path.display()))?;
    layout::mode(path, 0o644)
}
