//! Bundles that somebody made to do harm, at the daemon: refused in words, and nothing changes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::case::Case;
use crate::daemon::Daemon;
use crate::family::{Part, tests};
use crate::layout;
use crate::lifecycle::{self, ends_with, output, small};
use crate::puppet::Puppet;
use crate::users::AGENT;

pub(crate) const PART: Part = Part {
    name: "hostile",
    bundle: Ok,
    prepare: lifecycle::prepare,
    tests: tests!(others: [hostile_bundles_are_refused_and_change_nothing]),
};

/// The corpus of the fuzzer; the guest sees the host's files.
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../guard-agent/fuzz/corpus");
const TOML: &str = "[bundle]\nname = \"f\"\nversion = 1\nprofile = 1\n\
    [subjects.web]\nselector = { user = \"2003\" }\ngoverns = [\"*\"]\n";

fn hostile_bundles_are_refused_and_change_nothing(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("hostile", &small(1, &[(&["file.read"], "first")]))?;
    let mut puppet = Puppet::start(AGENT)?;
    let (first, second) = (layout::path("flip/first"), layout::path("flip/second"));
    let mut refused = 0;
    for bundle in bundles(&daemon.directory().join("hostile"))? {
        let name = bundle.display().to_string();
        let apply = |more: &[&str]| {
            let arguments = [&["policy", "apply"], more, &[name.as_str()]].concat();
            output(&mut daemon.control(&arguments))
        };
        // Some of the corpus is harmless.
        if apply(&["--dry-run"])?.status.success() {
            continue;
        }
        let result = apply(&[])?;
        ends_with(&result, 6).with_context(|| name.clone())?;
        let text = String::from_utf8_lossy(&result.stderr);
        // What is not even a bundle is refused by the client.
        ensure!(text.contains("error[") || text.contains(&name), "{name}: no error is named: {text}");
        ensure!(text.len() < 100_000, "{name}: {} bytes about it", text.len());
        ensure!(!text.contains('\u{1b}'), "{name}: the terminal gets a control character");
        puppet.is_allowed(&first).with_context(|| name.clone())?;
        puppet.is_refused(&second).with_context(|| name.clone())?;
        refused += 1;
    }
    ensure!(refused >= 30, "only {refused} bundles were refused");
    let status = output(&mut daemon.control(&["status", "--json"]))?;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).context("the status is JSON")?;
    ensure!(status.pointer("/bundle/version") == Some(&1.into()), "another bundle is live: {status}");
    puppet.end()?;
    daemon.stop().map(drop)
}

/// Every hostile bundle, below `directory`.
fn bundles(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut bundles = Vec::new();
    for archive in corpus("archive")? {
        let bytes = fs::read(&archive).context("read the corpus")?;
        let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = directory.join(format!("{name}.tar.zst"));
        write(&path, &stored(&bytes))?;
        bundles.push(path);
    }
    let mut plain = |name: &str, files: &[(&OsStr, &[u8])]| -> Result<()> {
        for (file, bytes) in files {
            write(&directory.join(name).join(file), bytes)?;
        }
        bundles.push(directory.join(name));
        Ok(())
    };
    let (toml, cedar) = (OsStr::new("guard.toml"), OsStr::new("p.cedar"));
    for file in corpus("guard_toml")? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        plain(&format!("toml-{name}"), &[(toml, &fs::read(&file).context("read the corpus")?)])?;
    }
    for file in corpus("cedar")? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = fs::read(&file).context("read the corpus")?;
        plain(&format!("cedar-{name}"), &[(toml, TOML.as_bytes()), (cedar, &bytes)])?;
    }
    let condition = |text: &str| {
        format!(
            "@id(\"a\") permit (principal, action == Guard::Action::\"file.read\", resource) when {{ {text} }};"
        )
    };
    let deep = condition(&"(".repeat(1_000_000));
    plain("deep", &[(toml, TOML.as_bytes()), (cedar, deep.as_bytes())])?;
    let long = condition(&"true || ".repeat(1_000_000));
    plain("long", &[(toml, TOML.as_bytes()), (cedar, long.as_bytes())])?;
    let giant = condition(&format!("resource.name == \"{}\"", "a".repeat(1 << 20)));
    plain("giant", &[(toml, TOML.as_bytes()), (cedar, giant.as_bytes())])?;
    plain("bytes", &[(toml, TOML.as_bytes()), (OsStr::from_bytes(b"\xff.cedar"), b"")])?;
    plain("empty", &[(OsStr::new("nothing"), b"")])?;
    bundles.push(PathBuf::from("/dev/zero"));
    bundles.push(directory.join("nowhere"));
    Ok(bundles)
}

fn corpus(target: &str) -> Result<Vec<PathBuf>> {
    let directory = Path::new(CORPUS).join(target);
    let entries = fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .context("read the corpus")?;
    files.sort();
    // The fuzzer's own finds have names of digits; a guest is slow, and a few of each kind will do.
    files.retain(|file| file.file_name().is_some_and(|name| name.len() < 40));
    Ok(files)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = path.parent().context("a file has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

/// A zstd frame (RFC 8878) with one block that is stored as it is.
fn stored(contents: &[u8]) -> Vec<u8> {
    let header = (contents.len() as u32) << 3 | 1;
    let size = (contents.len() as u32).to_le_bytes();
    [&[0x28, 0xb5, 0x2f, 0xfd, 0xa0][..], &size, &header.to_le_bytes()[..3], contents].concat()
}
