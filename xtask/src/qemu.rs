//! QEMU: the machine's own where it is new enough, else Debian's backport in the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::Apt;
use crate::command::{CommandExt, say};
use crate::paths;

/// Older releases corrupt patched kernel text under emulation: half of all boots die early.
const MINIMUM: (u32, u32) = (8, 1);
const PROGRAM: &str = "qemu-system-x86_64";

/// A QEMU that boots guests.
pub(crate) struct Qemu {
    program: PathBuf,
    /// The unpacked tree it lives in, unless it is installed.
    tree: Option<PathBuf>,
    /// Release, for keys and messages.
    pub(crate) version: String,
}

impl Qemu {
    /// Finds a usable QEMU or fetches one.
    pub(crate) fn find_or_fetch() -> Result<Self> {
        let installed = Self::probe(PROGRAM.into(), None);
        if let Some(qemu) = &installed
            && qemu.is_new_enough()
        {
            return installed.context("QEMU vanished");
        }
        let tree = paths::cache()?.join("qemu");
        if let Some(qemu) = Self::in_tree(&tree) {
            return Ok(qemu);
        }
        let apt = Apt::open()?;
        let missing = apt.missing(&["qemu-system-x86"], true)?;
        let why = installed.map_or_else(
            || "QEMU is not installed".to_owned(),
            |old| format!("the installed QEMU {} is older than {}.{}", old.version, MINIMUM.0, MINIMUM.1),
        );
        say!("{why}: fetching Debian's backport, unpacked in the cache and not installed");
        apt.extract(&missing, &tree)?;
        match Self::in_tree(&tree) {
            Some(qemu) => Ok(qemu),
            None => bail!(
                "guests need QEMU {}.{} or newer and Debian offered none that starts here; \
                 install qemu-system-x86 from a newer suite and try again",
                MINIMUM.0,
                MINIMUM.1
            ),
        }
    }

    /// A command that starts it, complete but for the machine's description.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(tree) = &self.tree {
            let libraries = tree.join("usr/lib/x86_64-linux-gnu");
            command.env("QEMU_MODULE_DIR", libraries.join("qemu")).env("LD_LIBRARY_PATH", libraries);
            for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
                command.arg("-L").arg(tree.join(data));
            }
        }
        command
    }

    fn in_tree(tree: &Path) -> Option<Self> {
        Self::probe(tree.join("usr/bin").join(PROGRAM), Some(tree.to_owned())).filter(Self::is_new_enough)
    }

    fn probe(program: PathBuf, tree: Option<PathBuf>) -> Option<Self> {
        let mut qemu = Self { program, tree, version: String::new() };
        let text = qemu.command().arg("--version").read().ok()?;
        // "QEMU emulator version 10.0.2 (Debian …)"
        qemu.version = text.split_whitespace().nth(3)?.to_owned();
        Some(qemu)
    }

    fn is_new_enough(&self) -> bool {
        let mut numbers = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= MINIMUM
    }
}
