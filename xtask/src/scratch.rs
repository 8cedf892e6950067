//! Empty file systems for tests of file semantics, made once and attached to every guest.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::command::{CommandExt, say};
use crate::guest_packages::GuestPackages;
use crate::paths;

/// File system, the program that makes it with arguments, and its size in MiB.
const KINDS: [(&str, &[&str], u64); 3] = [
    ("ext4", &["usr/sbin/mkfs.ext4", "-q", "-F"], 256),
    ("xfs", &["usr/sbin/mkfs.xfs", "-q", "-f"], 320),
    ("btrfs", &["usr/sbin/mkfs.btrfs", "-q", "-f"], 256),
];

/// A disk image with an empty file system.
pub(crate) struct Disk {
    /// Its type, as mount knows it.
    pub(crate) kind: &'static str,
    /// The image.
    pub(crate) image: PathBuf,
}

/// The images, made now where they are missing.
pub(crate) fn find_or_make(packages: &GuestPackages) -> Result<Vec<Disk>> {
    let dir = paths::cache()?.join("scratch");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let mut disks = Vec::new();
    for (kind, words, mib) in KINDS {
        let image = dir.join(format!("{kind}.img"));
        if !image.exists() {
            say!("making a scratch image with {kind}");
            let partial = tempfile::NamedTempFile::new_in(&dir)?;
            File::create(partial.path())?.set_len(mib << 20).context("size the image")?;
            // What it prints is advice for people who choose options.
            packages.command(words[0]).args(&words[1..]).arg(partial.path()).read()?;
            partial.persist(&image).with_context(|| format!("write {}", image.display()))?;
        }
        disks.push(Disk { kind, image });
    }
    Ok(disks)
}
