//! Where things are: the checkout, its target directory, and the cache that survives `cargo clean`.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// Cargo's target directory of the main workspace.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The finished BPF object, where the agent's build script looks for it whatever the target directory.
pub(crate) fn bpf_object() -> PathBuf {
    root().join("target/bpf/guard-ebpf.o")
}

/// Where `cargo build` leaves the binaries of the dev profile.
pub(crate) fn binaries() -> PathBuf {
    target().join("debug")
}

/// Downloads and tools, kept between checkouts and across `cargo clean`.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => PathBuf::from(dir),
        None => env::home_dir().context("HOME is not set: set it, or XDG_CACHE_HOME")?.join(".cache"),
    };
    let dir = base.join("guard");
    fs::create_dir_all(&dir).with_context(|| format!("create the cache directory {}", dir.display()))?;
    Ok(dir)
}

/// Holds the cache for this process, so that two runs at the same time do not fetch the same thing.
pub(crate) fn lock_cache() -> Result<File> {
    let path = cache()?.join("lock");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("xtask: waiting for another xtask to finish with the cache");
        file.lock().with_context(|| format!("lock {}", path.display()))?;
    }
    Ok(file)
}

/// Makes `dir` appear complete or not at all: `fill` works in a neighbour that is renamed at the end.
pub(crate) fn publish_dir(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = dir.parent().context("a cache entry has a parent directory")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let partial = tempfile::Builder::new().prefix(".partial-").tempdir_in(parent)?;
    fill(partial.path())?;
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("remove the old {}", dir.display()))?;
    }
    let partial = partial.keep();
    // Guests read the cache as whatever user they run; a temporary directory is private.
    fs::set_permissions(&partial, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    fs::rename(&partial, dir).with_context(|| format!("move {} into place", dir.display()))
}

/// The cargo that started us, so that everything uses one toolchain.
pub(crate) fn cargo() -> std::ffi::OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
