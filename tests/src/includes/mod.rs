//! The includes that Guard ships, with the real programs they are for.
//!
//! Each include has two subjects that govern everything: one with it and one without, alike in all
//! else. Under the first the program does its ordinary work and still gets at no secret; under the
//! second it is refused the thing that the include gives.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::errno::Errno;

use crate::bundle::{Bundle, permit, within};
use crate::case::{Case, refusal};
use crate::layout;
use crate::users::Identity;

pub(crate) mod base;
pub(crate) mod container;
pub(crate) mod lang;
pub(crate) mod sandbox;
pub(crate) mod shell;
pub(crate) mod tool;

/// What a dynamically linked program needs to start.
const START: &[&str] =
    &["base/dynamic-exec", "base/devices", "base/stdio", "base/anonymous", "base/own-proc"];
/// What a shell needs besides.
const SHELL: &[&str] = &["base/accounts", "shell/bash", "shell/posix"];
/// Commands of scripts.
const COREUTILS: &[&str] = &["shell/coreutils"];
/// What a script is made of.
const SCRIPT: &[&[&str]] = &[START, SHELL, COREUTILS];

/// A secret that file modes give to everybody, so that only Guard refuses it.
const SECRET: &str = "/home/inc/.ssh/id_ed25519";

/// The two subjects of one include.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Twins {
    include: &'static str,
    /// What both include.
    both: &'static [&'static [&'static str]],
    /// The subject that has the include.
    pub(crate) with: Identity,
    /// The subject that lacks it.
    pub(crate) without: Identity,
}

/// First user id of the accounts.
const FIRST_UID: u32 = 2100;

impl Twins {
    const fn new(
        number: u32,
        include: &'static str,
        both: &'static [&'static [&'static str]],
        names: [&'static str; 2],
    ) -> Self {
        let uid = FIRST_UID + 2 * number;
        let [with, without] = names;
        Self {
            include,
            both,
            with: Identity { name: with, uid, capabilities: 0 },
            without: Identity { name: without, uid: uid + 1, capabilities: 0 },
        }
    }

    /// The tree in which a subject may do everything.
    fn tree(who: Identity) -> PathBuf {
        Path::new("/srv/inc").join(who.name)
    }

    /// Adds both subjects; `more` is permitted to both besides their trees.
    fn add(&self, bundle: Bundle, more: &[(&[&str], String)]) -> Bundle {
        let include = |who: Identity, includes: &[&str]| {
            let list: Vec<String> = includes.iter().map(|name| format!("{name:?}")).collect();
            let name = who.name;
            format!(
                "[subjects.{name}]\nselector = {{ user = {name:?} }}\ngoverns = [\"*\"]\ninclude = [{}]\n",
                list.join(", ")
            )
        };
        let mut policy = String::new();
        for who in [self.with, self.without] {
            policy += &permit("tree", who.name, &["file.*", "exec.*", "unix.*"], &within(&[Self::tree(who)]))
                .replace("\"tree\"", &format!("\"{}-tree\"", who.name));
            for (number, (actions, condition)) in more.iter().enumerate() {
                policy += &permit(&format!("{}-{number}", who.name), who.name, actions, condition);
            }
        }
        let both = self.both.concat();
        let has = [both.as_slice(), &[self.include]].concat();
        bundle
            .toml(&include(self.with, &has))
            .toml(&include(self.without, &both))
            .policy(self.with.name, policy)
    }

    /// Makes both trees anew.
    fn prepare(&self) -> Result<()> {
        for who in [self.with, self.without] {
            let tree = Self::tree(who);
            layout::empty_directory(&tree)?;
            std::os::unix::fs::chown(&tree, Some(who.uid), Some(who.uid)).context("chown a tree")?;
        }
        layout::file(Path::new(SECRET), b"a key\n")
    }

    /// With the include, `work` works, and `peek` at the secret is refused all the same.
    fn does(&self, case: &Case<'_>, work: impl Fn(&Path) -> io::Result<()>) -> Result<()> {
        case.allowed(self.with, || work(&Self::tree(self.with)))
            .with_context(|| format!("with {}", self.include))
    }

    /// Without the include, `work` is refused `action` at `place`.
    fn needs(
        &self,
        case: &Case<'_>,
        action: &'static str,
        place: &str,
        work: impl Fn(&Path) -> io::Result<()>,
    ) -> Result<()> {
        // Whoever tries it works in the tree of the subject that is refused.
        case.refused(refusal(self.without, action).at(place), || work(&Self::tree(self.without)))
            .with_context(|| format!("without {}", self.include))
    }

    /// The include gives no secret.
    fn keeps_the_secret(&self, case: &Case<'_>, peek: impl Fn(&Path, &str) -> io::Result<()>) -> Result<()> {
        case.refused(refusal(self.with, "file.read").at(SECRET), || peek(&Self::tree(self.with), SECRET))
            .with_context(|| format!("a secret with {}", self.include))
    }
}

/// Adds them all; `more` is permitted to every subject besides its tree.
fn add_all(mut bundle: Bundle, all: &[Twins], more: &[(&[&str], String)]) -> Bundle {
    for twins in all {
        bundle = twins.add(bundle, more);
    }
    bundle
}

/// The accounts of all subjects.
pub(crate) fn accounts() -> impl Iterator<Item = Identity> {
    [base::TWINS, lang::TWINS, sandbox::TWINS, shell::TWINS, tool::TWINS]
        .into_iter()
        .flatten()
        .flat_map(|twins| [twins.with, twins.without])
        .chain([sandbox::WITHOUT_TMPFS])
}

/// A command as it is run in a tree of its own: nothing of the caller's environment, no input.
fn command(program: &str, arguments: &[&str], tree: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(tree)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", tree)
        .env("TMPDIR", tree)
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null());
    command
}

/// Runs it; EACCES if it fails and says one of `words`, or that permission was denied.
fn run(mut command: Command, words: &[&str]) -> io::Result<String> {
    let output = command.output()?;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = |words: &str| message.contains(words);
    if said("ermission denied") || said("EACCES") || words.iter().any(|words| said(words)) {
        return Err(Errno::EACCES.into());
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &message;
    Err(io::Error::other(format!("{command:?}: {}: {said}", output.status)))
}

/// Runs a script of bash that stops at the first failure.
fn bash(script: &str, tree: &Path) -> io::Result<String> {
    run(command("/usr/bin/bash", &["-euo", "pipefail", "-c", script], tree), &[])
}

/// Reads a file with cat.
fn cat(tree: &Path, file: &str) -> io::Result<()> {
    run(command("/usr/bin/cat", &[file], tree), &[]).map(drop)
}
