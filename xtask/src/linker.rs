//! `bpf-linker`, which turns rustc's bitcode into the BPF object.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{CommandExt, say};
use crate::paths;

/// The release that links with rustc's own LLVM. Later ones default to a system LLVM, and a linker
/// whose LLVM is older than rustc's fails with "Invalid record".
const VERSION: &str = "0.10.0";
/// The LLVM it was made for.
const LLVM: &str = "22";

/// Path of a `bpf-linker` of the right version: from PATH, from the cache, or installed now.
pub(crate) fn find_or_install() -> Result<PathBuf> {
    if version_of(&PathBuf::from("bpf-linker")).is_some_and(|version| version == VERSION) {
        return Ok(PathBuf::from("bpf-linker"));
    }
    let dir = paths::cache()?.join(format!("bpf-linker-{VERSION}"));
    let program = dir.join("bin/bpf-linker");
    if version_of(&program).is_some() {
        return Ok(program);
    }
    let rustc = Command::new("rustc").arg("-vV").read()?;
    if let Some(version) = rustc.lines().find_map(|line| line.strip_prefix("LLVM version: "))
        && version.split('.').next() != Some(LLVM)
    {
        say!(
            "this rustc has LLVM {version} and bpf-linker {VERSION} fits LLVM {LLVM}: if linking fails, use Rust 1.95"
        );
    }
    say!("installing bpf-linker {VERSION} with cargo into {} (about two minutes)", dir.display());
    Command::new(paths::cargo())
        .args(["install", "bpf-linker", "--locked", "--force", "--version", VERSION, "--root"])
        .arg(&dir)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .current_dir("/")
        .run()
        .context("install bpf-linker: it needs a C compiler and access to crates.io")?;
    if version_of(&program).is_none() {
        bail!(
            "{} was installed and does not start; remove {} and try again",
            program.display(),
            dir.display()
        );
    }
    Ok(program)
}

fn version_of(program: &PathBuf) -> Option<String> {
    let text = Command::new(program).arg("--version").read().ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}
