//! `cargo xtask lint`: formatting and clippy, for both workspaces.

use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{CommandExt, say};
use crate::{build, paths};

/// Check formatting and lints of both workspaces.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_args: &Args) -> Result<()> {
    for dir in [paths::root().to_owned(), paths::root().join("guard-ebpf")] {
        Command::new(paths::cargo()).current_dir(&dir).args(["fmt", "--all", "--check"]).run().with_context(
            || format!("some files in {} are not formatted: run `cargo fmt` there", dir.display()),
        )?;
    }
    // The agent embeds the object, so it comes first.
    build::bpf_object()?;
    say!("clippy: BPF programs");
    build::bpf_cargo("clippy")?.args(["--release", "--", "-D", "warnings"]).run()?;
    say!("clippy: everything else");
    Command::new(paths::cargo())
        .current_dir(paths::root())
        .args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
        .run()
}
