//! The files that operations are about.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use guard_tests::{elf, layout};

/// Files of the rows in which no file, or no directory, is known: more than a processor remembers.
pub(crate) const MANY: usize = 2048;
/// Directories beside, for rules that are not about what is used.
pub(crate) const OTHERS: usize = 1000;
/// What is read and written.
pub(crate) const BLOCK: usize = 4096;

/// Where everything is: two directories of one file system.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    root: PathBuf,
}

impl Places {
    /// Makes everything on the file system that is mounted at `root`.
    pub(crate) fn make(root: &Path) -> Result<Self> {
        let this = Self { root: root.to_owned() };
        for depth in [2, 8, 32] {
            layout::file(&this.at_depth(depth), b"content\n")?;
        }
        for number in 0..MANY {
            layout::file(&this.in_one_directory(number), b"content\n")?;
            layout::file(&this.in_its_own_directory(number), b"content\n")?;
        }
        for number in 0..OTHERS {
            layout::directory(&this.other(number))?;
        }
        layout::file(&this.data(), &[b'x'; BLOCK])?;
        layout::file(&this.beside("old"), b"content\n")?;
        let _ = fs::remove_file(this.beside("new"));
        layout::program(&this.program(), &elf::exits_with(0)).context("make a program")?;
        Ok(this)
    }

    /// The file system.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that every policy and rule permits, one below the root.
    pub(crate) fn permitted(&self) -> PathBuf {
        self.root.join("bench")
    }

    /// A directory so deep that a file in it is `depth` deep.
    fn directory(&self, depth: usize) -> PathBuf {
        let mut path = self.permitted();
        path.extend((2..depth).map(|level| format!("level{level}")));
        path
    }

    /// A file with so many names above the root, its own included.
    pub(crate) fn at_depth(&self, depth: usize) -> PathBuf {
        self.directory(depth).join(format!("file{depth}"))
    }

    /// One of many files that share a directory, eight deep.
    pub(crate) fn in_one_directory(&self, number: usize) -> PathBuf {
        self.directory(7).join("together").join(number.to_string())
    }

    /// One of many files in directories of their own, eight deep.
    pub(crate) fn in_its_own_directory(&self, number: usize) -> PathBuf {
        self.directory(6).join("scattered").join(number.to_string()).join("file")
    }

    /// The file that is read and written, eight deep.
    pub(crate) fn data(&self) -> PathBuf {
        self.beside("data")
    }

    /// A name beside it.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.directory(8).join(name)
    }

    /// A program that does nothing, eight deep.
    pub(crate) fn program(&self) -> PathBuf {
        self.beside("true")
    }

    /// The file that posture decides about.
    pub(crate) fn posture(&self) -> PathBuf {
        self.root.join("posture")
    }

    /// A directory that is not used.
    pub(crate) fn other(&self, number: usize) -> PathBuf {
        self.root.join(format!("other/{}/{}", number / 64, number % 64))
    }
}
