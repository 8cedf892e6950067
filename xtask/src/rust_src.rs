//! The sources of Rust's `core`, which is compiled for the BPF target together with the programs.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::Apt;
use crate::command::{self, CommandExt, say};
use crate::paths;

/// The sources that fit the installed compiler.
pub(crate) enum RustSrc {
    /// Part of the toolchain: cargo finds them itself.
    InToolchain,
    /// The `library` directory of a copy elsewhere.
    Library(PathBuf),
}

/// Finds the sources, or adds them: with rustup where it manages the toolchain, else from Debian.
pub(crate) fn find_or_fetch() -> Result<RustSrc> {
    let sysroot = PathBuf::from(Command::new("rustc").args(["--print", "sysroot"]).read()?.trim());
    let in_toolchain = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
    if in_toolchain.exists() {
        return Ok(RustSrc::InToolchain);
    }
    let version = rustc_version()?;
    let dir = paths::cache()?.join(format!("rust-src-{version}"));
    let library = dir.join(format!("usr/src/rustc-{version}/library"));
    if library.join("core/Cargo.toml").exists() {
        return Ok(RustSrc::Library(library));
    }
    let has_rustup = command::exists("rustup");
    if has_rustup {
        say!("adding the component rust-src to the Rust toolchain with rustup");
        match Command::new("rustup").args(["component", "add", "rust-src"]).run() {
            Ok(()) if in_toolchain.exists() => return Ok(RustSrc::InToolchain),
            Ok(()) => say!("rustup added rust-src to a toolchain other than the one in use"),
            Err(error) => say!("{error:#}; trying Debian's package instead"),
        }
    }
    fetch_from_debian(&version, &dir).with_context(|| {
        format!("no source of Rust's `core` for rustc {version}; `rustup component add rust-src` provides it")
    })?;
    if !library.join("core/Cargo.toml").exists() {
        bail!(
            "Debian's rust-src {version} does not have the expected layout: {} is missing",
            library.display()
        );
    }
    Ok(RustSrc::Library(library))
}

fn fetch_from_debian(version: &str, dir: &std::path::Path) -> Result<()> {
    let apt = Apt::open()?;
    let package = apt
        .versions("rust-src")?
        .into_iter()
        .find(|candidate| candidate.version.starts_with(version))
        .with_context(|| format!("Debian does not have rust-src {version}"))?;
    say!("fetching Debian's rust-src {} for rustc {version}", package.version);
    apt.extract(&[package], dir)
}

fn rustc_version() -> Result<String> {
    let text = Command::new("rustc").arg("-vV").read()?;
    let release = text.lines().find_map(|line| line.strip_prefix("release: "));
    release.map(str::to_owned).context("`rustc -vV` does not name its release")
}
