//! `cargo xtask setup`: everything the other commands need, found or fetched once.

use anyhow::Result;

use crate::command::say;
use crate::{linker, paths, rust_src};

/// Find or fetch what building and testing need.
///
/// Fetches only what this machine lacks; a second run changes nothing and needs no network.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_args: &Args) -> Result<()> {
    bpf_toolchain()?;
    say!("everything is there; downloads are in {}", paths::cache()?.display());
    Ok(())
}

/// What compiling for the BPF target takes.
pub(crate) struct BpfToolchain {
    /// Path or name of the linker.
    pub(crate) linker: std::path::PathBuf,
    /// Sources of `core`.
    pub(crate) rust_src: rust_src::RustSrc,
}

/// Finds or provides the BPF toolchain.
pub(crate) fn bpf_toolchain() -> Result<BpfToolchain> {
    let _lock = paths::lock_cache()?;
    Ok(BpfToolchain { rust_src: rust_src::find_or_fetch()?, linker: linker::find_or_install()? })
}
