//! The trees that the tests work in: on every file system, a directory that policy permits and one
//! that it does not, with a canary in it.

use std::ffi::CStr;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};

/// The tree on the root file system, which is an overlay in every guest.
pub const ROOT: &str = "/srv/gt";
/// What a canary holds.
const CANARY: &str = "canary: nobody should have read this, or changed it\n";

/// The trees, one for each kind of file system.
pub const TREES: [(&str, &str); 7] = [
    ("root overlay", ROOT),
    ("tmpfs", "/scratch/tmpfs/gt"),
    ("ext4", "/scratch/ext4/gt"),
    ("xfs", "/scratch/xfs/gt"),
    ("btrfs", "/scratch/btrfs/gt"),
    ("btrfs subvolume", "/scratch/btrfs/volume/gt"),
    ("overlay on ext4", "/scratch/overlay/gt"),
];

/// A path below the tree on the root file system.
pub fn path(relative: &str) -> PathBuf {
    Path::new(ROOT).join(relative)
}

/// The directories `name` of all trees.
pub fn in_all_trees(name: &str) -> Vec<PathBuf> {
    TREES.iter().map(|(_, root)| Path::new(root).join(name)).collect()
}

/// The canary of a tree.
pub fn canary(root: &str) -> PathBuf {
    Path::new(root).join("shut/secret")
}

/// Makes all trees. Called once, before anything is labelled.
pub fn create() -> Result<()> {
    if !Path::new("/scratch/btrfs/volume").exists() {
        run("btrfs", &["-q", "subvolume", "create", "/scratch/btrfs/volume"])?;
    }
    let overlay = Path::new("/scratch/overlay");
    if !overlay.exists() {
        fs::create_dir(overlay).context("create /scratch/overlay")?;
        for layer in ["lower/gt/shut", "lower/gt/open", "upper", "work"] {
            directory(&Path::new("/scratch/ext4/layers").join(layer))?;
        }
        // These exist in the lower layer only, so that changing them copies them up.
        let lower = Path::new("/scratch/ext4/layers/lower/gt");
        file(&lower.join("shut/secret"), CANARY.as_bytes())?;
        file(&lower.join("open/lower"), b"from the lower layer\n")?;
        let layers = Path::new("/scratch/ext4/layers").display();
        let options = format!("lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work");
        mount(Some("overlay"), overlay, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .context("mount an overlay on ext4")?;
    }
    for (_, root) in TREES {
        let root = Path::new(root);
        directory(&root.join("open"))?;
        directory(&root.join("shut"))?;
        file(&root.join("open/notes"), b"anybody may read this\n")?;
        if !root.join("shut/secret").exists() {
            file(&root.join("shut/secret"), CANARY.as_bytes())?;
        }
    }
    Ok(())
}

/// Whether every canary is as it was made.
pub fn check_canaries() -> Result<()> {
    for (kind, root) in TREES {
        let canary = canary(root);
        if !Path::new(root).exists() {
            continue;
        }
        let found = fs::read(&canary).with_context(|| format!("read the canary on {kind}"))?;
        ensure!(found == CANARY.as_bytes(), "the canary on {kind} was changed: {}", found.escape_ascii());
    }
    Ok(())
}

/// Makes every canary as it was again.
pub fn restore_canaries() -> Result<()> {
    for (_, root) in TREES {
        let canary = canary(root);
        if Path::new(root).exists() && fs::read(&canary).ok().as_deref() != Some(CANARY.as_bytes()) {
            file(&canary, CANARY.as_bytes())?;
        }
    }
    Ok(())
}

/// A directory that everybody may write to.
pub fn directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
    mode(path, 0o777)
}

/// The same, empty.
pub fn empty_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => directory(path),
    }
}

/// A file that everybody may read and write.
pub fn file(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        directory(parent)?;
    }
    fs::write(path, content).with_context(|| format!("write {}", path.display()))?;
    mode(path, 0o666)
}

/// A program that everybody may execute and nobody may write to.
pub fn program(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        directory(parent)?;
    }
    // Another inode than the one before, which may still be executed.
    let _ = fs::remove_file(path);
    let mut file = fs::File::create(path).with_context(|| format!("create {}", path.display()))?;
    file.write_all(content).with_context(|| format!("write {}", path.display()))?;
    mode(path, 0o755)
}

/// Sets the mode of a file.
pub fn mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("chmod {}", path.display()))
}

/// Runs a program of the guest that must succeed, as root.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The path of a program on `PATH`, with symbolic links followed: what policy must name.
pub fn which(program: &str) -> Result<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&paths).map(|directory| directory.join(program)).find(|path| path.is_file());
    let found = found.with_context(|| format!("this guest has no {program}"))?;
    found.canonicalize().with_context(|| format!("resolve {}", found.display()))
}

/// The name of an empty path, for system calls that take a descriptor instead.
pub const EMPTY: &CStr = c"";
