//! What stays in the kernel when the agent ends: programs and maps that are pinned in a directory of a BPF file
//! system (Documentation/bpf/, bpf(2) `BPF_OBJ_PIN`).
//!
//! ```text
//! DIR/current/about/   format-1 layout-1 links-78 object-SHA256 state-UUID   (empty directories)
//! DIR/current/maps/    LABELS, LIVE, …
//! DIR/current/links/   file_open, …        a program is attached as long as its link is pinned or open
//! DIR/current/iterators/
//! DIR/new/             the same, not finished, or not needed any more: whoever finds it removes it
//! ```
//!
//! `current` appears, changes and disappears by one rename, whole. Whoever works on a directory holds the lock
//! on it, which ends with the process.

use super::KernelError;
use super::load::describe;
use aya::programs::links::{FdLink, PinnedLink};
use guard_common::handover::{FORMAT, LAYOUT};
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::error::Error;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const CURRENT: &str = "current";
const NEW: &str = "new";
const ABOUT: &str = "about";
pub(super) const MAPS: &str = "maps";
pub(super) const LINKS: &str = "links";
pub(super) const ITERATORS: &str = "iterators";

/// Pins that cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The directory is not on a BPF file system.
    #[error(
        "{0} is on no BPF file system: mount one (`mount -t bpf bpf /sys/fs/bpf`), or set `pins = \"none\"`, with which enforcement ends with the agent"
    )]
    NoBpffs(PathBuf),
    /// Somebody else works on it.
    #[error("another guard-agent holds {0}: only one can enforce on a host; `guardctl status` shows it")]
    Held(PathBuf),
    /// The programs are those of another state directory.
    #[error(
        "the programs that are pinned in {path} enforce by another state directory than this agent's: their labels would mean other subjects; use that `state_dir`, or end their enforcement with `guardctl disarm --offline --reason TEXT`"
    )]
    Foreign {
        /// The directory of pins.
        path: PathBuf,
    },
    /// They were pinned by a version of Guard that this one does not understand.
    #[error(
        "the programs that are pinned in {path} have format {found}, and this agent takes over format {FORMAT}: use the version of Guard that pinned them, or end their enforcement with `guardctl disarm --offline --reason TEXT`"
    )]
    Format {
        /// The directory of pins.
        path: PathBuf,
        /// What stands there.
        found: String,
    },
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An object cannot be pinned or opened.
    #[error("cannot {action} {path}: {cause}")]
    Object {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        cause: String,
    },
}

impl PinError {
    pub(super) fn object(action: &'static str, path: &Path, cause: &dyn Error) -> Self {
        Self::Object { action, path: path.to_owned(), cause: describe(cause) }
    }

    fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

/// A directory of pins, held.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    /// Whose numbers the labels carry.
    state: String,
    _lock: Flock<File>,
}

/// What is pinned and enforces.
#[derive(Debug)]
pub(super) struct Armed {
    /// Its directory.
    pub(super) path: PathBuf,
    /// Digest of the object that its programs are from.
    pub(super) object: String,
    /// Whether its maps are laid out as those of this agent's programs.
    pub(super) same_layout: bool,
    /// Whether every link is there that was pinned.
    pub(super) is_whole: bool,
}

impl Pins {
    /// Takes a directory of pins, for the state directory with this identity. It is made if it is not there.
    ///
    /// # Errors
    /// If it is not on a BPF file system, or somebody holds it.
    pub fn open(directory: &Path, state: &str) -> Result<Self, PinError> {
        let lock = hold(directory)?;
        Ok(Self { directory: directory.to_owned(), state: state.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is pinned; what was left unfinished is removed.
    pub(super) fn armed(&self) -> Result<Option<Armed>, PinError> {
        self.clear()?;
        let path = self.directory.join(CURRENT);
        if !path.exists() {
            return Ok(None);
        }
        let about = About::read(&path)?;
        if about.get("format") != Some(FORMAT.to_string().as_str()) {
            let found = about.get("format").unwrap_or("none").to_owned();
            return Err(PinError::Format { path, found });
        }
        if about.get("state") != Some(&self.state) {
            return Err(PinError::Foreign { path });
        }
        let links = entries(&path.join(LINKS))?.len().to_string();
        Ok(Some(Armed {
            object: about.get("object").unwrap_or_default().to_owned(),
            same_layout: about.get("layout") == Some(LAYOUT.to_string().as_str()),
            is_whole: about.get("links") == Some(&links),
            path,
        }))
    }

    /// Makes the directories of what is to be pinned. Returns where.
    pub(super) fn begin(&self, object: &str, links: usize) -> Result<PathBuf, PinError> {
        self.clear()?;
        let new = self.directory.join(NEW);
        let about = [
            format!("format-{FORMAT}"),
            format!("layout-{LAYOUT}"),
            format!("links-{links}"),
            format!("object-{object}"),
            format!("state-{}", self.state),
        ];
        let parts = [MAPS, LINKS, ITERATORS].map(PathBuf::from);
        for part in about.map(|about| Path::new(ABOUT).join(about)).into_iter().chain(parts) {
            make(&new.join(part))?;
        }
        Ok(new)
    }

    /// Makes what was pinned the current one. What was current before is removed, and its programs are
    /// detached when this returns.
    pub(super) fn commit(&self) -> Result<PathBuf, PinError> {
        let (new, current) = (self.directory.join(NEW), self.directory.join(CURRENT));
        let flags =
            if current.exists() { RenameFlags::RENAME_EXCHANGE } else { RenameFlags::RENAME_NOREPLACE };
        crate::fault::at("commit pins").map_err(PinError::file("rename", &new))?;
        renameat2(AT_FDCWD, &new, AT_FDCWD, &current, flags)
            .map_err(|errno| PinError::file("rename", &new)(errno.into()))?;
        crate::fault::at("remove old pins").map_err(PinError::file("remove", &new))?;
        self.clear()?;
        Ok(current)
    }

    /// Removes everything; programs that nobody else holds are detached when this returns.
    pub(super) fn remove(&self) -> Result<(), PinError> {
        remove(&self.directory)
    }

    /// Removes what is unfinished, or was replaced.
    pub(super) fn clear(&self) -> Result<(), PinError> {
        remove_tree(&self.directory.join(NEW))
    }
}

/// Ends the enforcement of programs that no agent holds. Returns whether there were any.
///
/// # Errors
/// If an agent holds them, or they cannot be removed.
pub fn disarm(directory: &Path) -> Result<bool, PinError> {
    if !directory.exists() {
        return Ok(false);
    }
    let _lock = hold(directory)?;
    let armed = is_armed(directory) || directory.join(NEW).exists();
    remove(directory)?;
    Ok(armed)
}

/// Whether programs are pinned in a directory, with or without an agent.
pub fn is_armed(directory: &Path) -> bool {
    directory.join(CURRENT).exists()
}

/// What is said about a directory of pins in the names of its `about`.
struct About(Vec<(String, String)>);

impl About {
    fn read(path: &Path) -> Result<Self, PinError> {
        let names = entries(&path.join(ABOUT))?;
        let pair = |path: &PathBuf| {
            let name = path.file_name()?.to_str()?;
            let (key, value) = name.split_once('-')?;
            Some((key.to_owned(), value.to_owned()))
        };
        Ok(Self(names.iter().filter_map(pair).collect()))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// What lies in a directory, in the order of names.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, PinError> {
    let read = || -> io::Result<Vec<PathBuf>> {
        let mut found = fs::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        found.sort();
        Ok(found)
    };
    read().map_err(PinError::file("read", directory))
}

/// Makes the directory if need be, and holds it.
fn hold(directory: &Path) -> Result<Flock<File>, PinError> {
    // Before anything is made elsewhere.
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(directory);
    let kind = statfs(there).map_err(|errno| PinError::file("look at", there)(errno.into()))?;
    if kind.filesystem_type() != BPF_FS_MAGIC {
        return Err(PinError::NoBpffs(directory.to_owned()));
    }
    make(directory)?;
    let file = File::open(directory).map_err(PinError::file("open", directory))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| PinError::Held(directory.to_owned()))
}

fn make(directory: &Path) -> Result<(), PinError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(PinError::file("create", directory))
}

/// Removes what is current, and what is not. From the first step on it is unfinished for whoever comes.
fn remove(directory: &Path) -> Result<(), PinError> {
    let (new, current) = (directory.join(NEW), directory.join(CURRENT));
    remove_tree(&new)?;
    if current.exists() {
        fs::rename(&current, &new).map_err(PinError::file("rename", &current))?;
    }
    crate::fault::at("disarm").map_err(PinError::file("remove", &new))?;
    remove_tree(&new)
}

/// Removes a directory of pins. The links are opened before and closed after: closing the last descriptor waits
/// until the program is detached, removing the last pin does not (`bpf_link_put`, kernel/bpf/syscall.c).
fn remove_tree(path: &Path) -> Result<(), PinError> {
    if !path.exists() {
        return Ok(());
    }
    let links = path.join(LINKS);
    let open: Vec<PinnedLink> = if links.exists() {
        entries(&links)?.iter().filter_map(|link| PinnedLink::from_pin(link).ok()).collect()
    } else {
        Vec::new()
    };
    fs::remove_dir_all(path).map_err(PinError::file("remove", path))?;
    drop(open);
    Ok(())
}

/// Pins a link and gives it back.
pub(super) fn pin_link(link: FdLink, path: &Path) -> Result<FdLink, PinError> {
    link.pin(path).map(FdLink::from).map_err(|cause| PinError::object("pin", path, &cause))
}

/// Opens a link that is pinned.
pub(super) fn open_link(path: &Path) -> Result<FdLink, KernelError> {
    let link = PinnedLink::from_pin(path).map_err(|cause| PinError::object("open", path, &cause))?;
    Ok(link.into())
}
