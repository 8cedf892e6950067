//! Bundles, generated into a directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A bundle in the making.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    name: String,
    version: u64,
    subjects: String,
    policies: Vec<(String, String)>,
}

/// Includes that let an ordinary program start and talk to its shell.
pub const ORDINARY: &str = "\"base/dynamic-exec\", \"base/devices\", \"base/terminal\", \
     \"base/stdio\", \"base/anonymous\", \"base/own-proc\", \"base/name-resolution\"";

impl Bundle {
    /// An empty bundle.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), version: 1, ..Self::default() }
    }

    /// The same with another version.
    pub fn version(mut self, version: u64) -> Self {
        self.version = version;
        self
    }

    /// Adds a subject that governs everything and includes [`ORDINARY`].
    pub fn subject(self, name: &str, selector: &str) -> Self {
        self.toml(&format!(
            "[subjects.{name}]\nselector = {{ {selector} }}\ngoverns = [\"*\"]\ninclude = [{ORDINARY}]\n"
        ))
    }

    /// Adds text to `guard.toml`.
    pub fn toml(mut self, text: &str) -> Self {
        self.subjects.push_str(text);
        self.subjects.push('\n');
        self
    }

    /// Adds a file of policies.
    pub fn policy(mut self, file: &str, text: impl Into<String>) -> Self {
        self.policies.push((format!("{file}.cedar"), text.into()));
        self
    }

    /// Writes it into `directory`, which then holds nothing else.
    pub fn write(&self, directory: &Path) -> Result<PathBuf> {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        let manifest = format!(
            "[bundle]\nname = \"{}\"\nversion = {}\nprofile = 1\n\n{}",
            self.name, self.version, self.subjects
        );
        for (file, text) in std::iter::once(&("guard.toml".to_owned(), manifest)).chain(&self.policies) {
            let path = directory.join(file);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(directory.to_owned())
    }
}

/// A permit of `actions` (a Cedar list or scope, for example `action in Guard::Action::"file.*"`) for
/// one subject where `condition` holds.
pub fn permit(id: &str, subject: &str, actions: &[&str], condition: &str) -> String {
    rule("permit", id, subject, actions, condition)
}

/// The same as a forbid.
pub fn forbid(id: &str, subject: &str, actions: &[&str], condition: &str) -> String {
    rule("forbid", id, subject, actions, condition)
}

fn rule(effect: &str, id: &str, subject: &str, actions: &[&str], condition: &str) -> String {
    let actions: Vec<String> = actions.iter().map(|action| format!("Guard::Action::\"{action}\"")).collect();
    format!(
        "@id(\"{id}\")\n{effect} (principal == Guard::Subject::\"{subject}\", action in [{}], resource)\nwhen {{ {condition} }};\n",
        actions.join(", ")
    )
}

/// The condition that the resource lies in one of `directories`.
pub fn within<P: AsRef<Path>>(directories: &[P]) -> String {
    any(directories, |path| format!("resource in Guard::Dir::\"{path}\""))
}

/// The condition that the resource is one of `files`.
pub fn one_of<P: AsRef<Path>>(files: &[P]) -> String {
    any(files, |path| format!("resource == Guard::File::\"{path}\""))
}

fn any<P: AsRef<Path>>(paths: &[P], term: impl Fn(std::path::Display<'_>) -> String) -> String {
    let terms: Vec<String> = paths.iter().map(|path| term(path.as_ref().display())).collect();
    terms.join(" || ")
}
