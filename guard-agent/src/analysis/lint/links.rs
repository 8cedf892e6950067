//! Literals that mean something else after an upgrade, or nothing ever.

use std::path::{Path, PathBuf};

use super::Job;
use super::codes::finding;
use crate::host::Entry;
use crate::policy::{Diagnostic, resolved};

pub(super) fn check(job: &Job<'_>, found: &mut Vec<Diagnostic>) {
    for (text, directory, at) in job.bundle.path_literals() {
        let path = Path::new(&text);
        if let Some(file) = above_is_a_file(job, path) {
            let message = format!("nothing can be at {text}: {} is a file", file.display());
            found.push(finding("impossible", message, at, None));
            continue;
        }
        let target = resolved(job.host, &text);
        if target == path {
            if !directory && let Some(link) = unversioned(job, path) {
                let message = format!("{text} has a version in its name; {} leads to it", link.display());
                let help = format!("write Guard::File::\"{}\"", link.display());
                found.push(finding("versioned-path", message, at, Some(help)));
            }
            continue;
        }
        let moved = versioned_part(path, &target);
        if let Some(versions) = moved {
            let message = format!(
                "{text} leads to {}, which is what counts until the policy is compiled again",
                target.display()
            );
            let help = format!(
                "write `resource in Guard::Dir::\"{}\"` if every version is meant, or apply the policy again when the link moves",
                versions.display()
            );
            found.push(finding("versioned-link", message, at, Some(help)));
        }
    }
}

/// The component above `path` that is no directory.
fn above_is_a_file(job: &Job<'_>, path: &Path) -> Option<PathBuf> {
    let target = resolved(job.host, path.to_str()?);
    let mut above: Vec<&Path> = target.ancestors().skip(1).collect();
    above.reverse();
    above
        .into_iter()
        .find(|one| matches!(job.host.lookup.entry(one), Some(Entry::Other)))
        .map(Path::to_path_buf)
}

/// Whether a component looks like it changes with every release: a digit, a dot or a dash, a digit;
/// or a long number.
fn versioned(name: &str) -> bool {
    let bytes = name.as_bytes();
    let dotted = bytes
        .windows(3)
        .any(|part| part[0].is_ascii_digit() && matches!(part[1], b'.' | b'-') && part[2].is_ascii_digit());
    dotted || bytes.split(|byte| !byte.is_ascii_digit()).any(|digits| digits.len() >= 6)
}

/// A link beside `path`, named without the version, that leads to it.
fn unversioned(job: &Job<'_>, path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    if !versioned(name) {
        return None;
    }
    // python3.11 → python3, python; node-18.1 → node.
    let stems = (1..name.len()).rev().filter(|end| name.is_char_boundary(*end)).map(|end| &name[..end]);
    stems.map(|stem| path.with_file_name(stem)).find(|link| {
        matches!(job.host.lookup.entry(link), Some(Entry::Link { .. }))
            && resolved(job.host, &link.display().to_string()) == path
    })
}

/// The directory above the first component of `target` that has a version and that `path` does not
/// name.
fn versioned_part(path: &Path, target: &Path) -> Option<PathBuf> {
    let named: Vec<_> = path.components().collect();
    let mut above = PathBuf::new();
    for component in target.components() {
        let text = component.as_os_str().to_string_lossy();
        if versioned(&text) && !named.contains(&component) {
            return Some(above);
        }
        above.push(component);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_recognised() {
        for name in ["python3.11", "node-18.1.0", "release-20261125"] {
            assert!(versioned(name), "{name}");
        }
        for name in ["python3", "x86_64-linux-gnu", "nginx", "e2fsck"] {
            assert!(!versioned(name), "{name}");
        }
        let target = Path::new("/srv/app/releases/2026-11-25/bin/app");
        let found = versioned_part(Path::new("/srv/app/current/bin/app"), target);
        assert_eq!(found.as_deref(), Some(Path::new("/srv/app/releases")));
    }
}
