//! Programs that guests need and this machine may lack, as a tree laid over its root in the guest.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::apt::Apt;
use crate::command::say;
use crate::paths;

/// What the guest itself uses (shell of the initramfs, modules, file systems, systemd) and what the
/// tests, the quickstart and the workloads of `cargo xtask interference` start in it.
const PACKAGES: [&str; 27] = [
    "acl",
    "btrfs-progs",
    "bubblewrap",
    "busybox-static",
    "cron",
    "crun",
    "curl",
    "dbus",
    "e2fsprogs",
    "fuse3",
    "git",
    "iproute2",
    "kmod",
    "nginx",
    "nodejs",
    "openssh-server",
    "openssl",
    "podman",
    "postgresql",
    "procps",
    "python3",
    "stress-ng",
    "sudo",
    "systemd-container",
    "systemd-sysv",
    "uidmap",
    "xfsprogs",
];

/// The packages among [`PACKAGES`] that this machine lacks, unpacked.
pub(crate) struct GuestPackages {
    root: PathBuf,
}

impl GuestPackages {
    /// The cached tree, or a new one fetched now.
    pub(crate) fn find_or_fetch() -> Result<Self> {
        // Guests that run now use the tree of their own list, which another checkout may not share.
        let mut list = DefaultHasher::new();
        PACKAGES.hash(&mut list);
        let root = paths::cache()?.join(format!("guest-root-{:016x}", list.finish()));
        if root.exists() {
            return Ok(Self { root });
        }
        let apt = Apt::open()?;
        let missing = apt.missing(&PACKAGES, false)?;
        let names: Vec<&str> = missing.iter().map(|package| package.name.as_str()).collect();
        say!("fetching packages for guests, unpacked in the cache and not installed: {}", names.join(" "));
        apt.extract(&missing, &root)?;
        Ok(Self { root })
    }

    /// The tree.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A file of the tree, or of this machine where the package is installed.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        let ours = self.root.join(path);
        if ours.exists() { ours } else { Path::new("/").join(path) }
    }

    /// A program of the tree or of this machine, ready to run here with the tree's libraries.
    pub(crate) fn command(&self, path: &str) -> Command {
        let mut command = Command::new(self.file(path));
        command.env("LD_LIBRARY_PATH", self.root.join("usr/lib/x86_64-linux-gnu"));
        command
    }
}
