//! `cargo xtask build`: the BPF object, then the binaries that embed or use it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{CommandExt, say};
use crate::rust_src::RustSrc;
use crate::{btf_names, object_check, paths, setup, verifier};

const BPF_TARGET: &str = "bpfel-unknown-none";
/// Debug information becomes BTF, which maps and local storage need. CPU v3 is the newest that
/// Linux 6.1 runs.
const BPF_RUSTFLAGS: [&str; 6] = ["-C", "debuginfo=2", "-C", "link-arg=--btf", "-C", "target-cpu=v3"];

/// Compile the BPF programs and the binaries, and let every kernel series verify the programs.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Stop after the BPF object.
    #[arg(long)]
    bpf_only: bool,
    /// Do not boot guests to count the instructions that their verifiers walk.
    #[arg(long)]
    no_verify: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let object = bpf_object()?;
    say!("BPF object: {}", object.display());
    if !args.bpf_only {
        binaries()?;
        if !args.no_verify {
            verifier::print_counts()?;
        }
    }
    Ok(())
}

/// Builds everything a guest runs.
pub(crate) fn all() -> Result<()> {
    bpf_object()?;
    binaries()
}

/// Compiles the BPF programs; the result is replaced only when its content changed, because the
/// agent embeds it and would be rebuilt otherwise.
pub(crate) fn bpf_object() -> Result<PathBuf> {
    let build_dir = paths::target().join("bpf-build");
    bpf_cargo("build")?.args(["--release", "--bin", "guard-ebpf"]).run()?;
    let built = build_dir.join(BPF_TARGET).join("release/guard-ebpf");
    let mut bytes = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    object_check::check_symbols(&bytes, &built)?;
    btf_names::sanitize(&mut bytes, &built)?;

    let object = paths::bpf_object();
    if fs::read(&object).is_ok_and(|old| old == bytes) {
        return Ok(object);
    }
    let dir = object.parent().context("the object has a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let partial = tempfile::NamedTempFile::new_in(dir)?;
    fs::write(partial.path(), &bytes).with_context(|| format!("write {}", partial.path().display()))?;
    partial.persist(&object).with_context(|| format!("write {}", object.display()))?;
    Ok(object)
}

/// `cargo SUBCOMMAND` in the workspace of the BPF programs, with everything their target needs.
pub(crate) fn bpf_cargo(subcommand: &str) -> Result<Command> {
    let toolchain = setup::bpf_toolchain()?;
    let mut cargo = Command::new(paths::cargo());
    cargo
        .current_dir(paths::root().join("guard-ebpf"))
        .args([subcommand, "--target", BPF_TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(paths::target().join("bpf-build"))
        // The stable compiler has what building `core` needs, behind this switch.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", BPF_RUSTFLAGS.join("\x1f"))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", toolchain.linker)
        .env_remove("CARGO_BUILD_TARGET");
    if let RustSrc::Library(library) = toolchain.rust_src {
        cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
    }
    Ok(cargo)
}

/// Compiles the agent, the client and the in-guest tests.
fn binaries() -> Result<()> {
    Command::new(paths::cargo())
        .current_dir(paths::root())
        .args(["build", "--package", "guard-agent", "--package", "guard-tests"])
        .run()
}
