//! The trees that operations are made on: planned at random, made, described and copied.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, Result};
use fastrand::Rng;
use guard_tests::{elf, layout};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// Names that things in a tree have.
pub(crate) const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// The program that scripts and other programs name as their interpreter, seen from the tree's root.
pub(crate) const INTERPRETER: &str = "interpreter";
/// How deep directories are planned; operations make deeper ones.
const DEPTH: usize = 3;

/// A character device that every kernel of ours has and that Guard takes for nothing special: the screen
/// of the first console. It can be read and written, and answers no ioctl.
pub(crate) fn screen() -> u64 {
    makedev(7, 0)
}

/// /dev/full, which Guard knows by its number wherever its node lies.
pub(crate) fn full() -> u64 {
    makedev(1, 7)
}

/// A block device that nobody can open, because of its node's mode.
pub(crate) fn block() -> u64 {
    makedev(7, 7)
}

/// What something is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Directory,
    File(String),
    Program,
    Script,
    Interpreted,
    Fifo,
    Socket,
    Screen,
    Full,
    Block,
    Link(String),
}

/// Something in a tree.
#[derive(Clone, Debug)]
pub(crate) struct Thing {
    /// Seen from the tree's root, which itself is not listed.
    pub(crate) path: String,
    pub(crate) kind: Kind,
}

/// `directory/name`, where the root is the empty path.
pub(crate) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// How many directories are above a path.
pub(crate) fn depth(path: &str) -> usize {
    if path.is_empty() { 0 } else { 1 + path.matches('/').count() }
}

/// A random tree; directories come before what is in them.
pub(crate) fn plan(rng: &mut Rng) -> Vec<Thing> {
    let mut things: Vec<Thing> = Vec::new();
    let mut directories = vec![String::new()];
    let is_free = |things: &[Thing], path: &str| things.iter().all(|thing| thing.path != path);
    for _ in 0..rng.usize(4..8) {
        let within = directories[rng.usize(..directories.len())].clone();
        let path = join(&within, NAMES[rng.usize(..NAMES.len())]);
        if depth(&path) <= DEPTH && is_free(&things, &path) {
            things.push(Thing { path: path.clone(), kind: Kind::Directory });
            directories.push(path);
        }
    }
    things.push(Thing { path: INTERPRETER.to_owned(), kind: Kind::Program });
    for _ in 0..rng.usize(10..18) {
        let within = directories[rng.usize(..directories.len())].clone();
        let path = join(&within, NAMES[rng.usize(..NAMES.len())]);
        if is_free(&things, &path) {
            things.push(Thing { kind: kind(rng, &things), path });
        }
    }
    things
}

fn kind(rng: &mut Rng, things: &[Thing]) -> Kind {
    match rng.u8(0..20) {
        0..=1 => Kind::Program,
        2 => Kind::Script,
        3 => Kind::Interpreted,
        4 => Kind::Fifo,
        5 => Kind::Socket,
        6..=7 => Kind::Screen,
        8 if rng.bool() => Kind::Full,
        9 => Kind::Block,
        // Links are read from where they lie; those of the root lead where they say, others mostly nowhere.
        10..=11 => Kind::Link(match rng.u8(0..3) {
            0 => NAMES[rng.usize(..NAMES.len())].to_owned(),
            1 => format!("../{}", NAMES[rng.usize(..NAMES.len())]),
            _ => things[rng.usize(..things.len())].path.clone(),
        }),
        _ => Kind::File("content ".repeat(rng.usize(0..4))),
    }
}

/// Makes a tree in a new directory, open to everybody.
pub(crate) fn build(root: &Path, things: &[Thing]) -> Result<()> {
    layout::directory(root)?;
    for Thing { path, kind } in things {
        let path = root.join(path);
        match kind {
            Kind::Directory => layout::directory(&path)?,
            Kind::File(content) => layout::file(&path, content.as_bytes())?,
            Kind::Program if path.ends_with(INTERPRETER) => program(&path, &elf::interpreter())?,
            Kind::Program => program(&path, &elf::exits_with(0))?,
            Kind::Script => program(&path, format!("#!{INTERPRETER}\n").as_bytes())?,
            Kind::Interpreted => program(&path, &elf::interpreted_by(INTERPRETER))?,
            Kind::Fifo => node(&path, SFlag::S_IFIFO, 0o666, 0)?,
            Kind::Socket => {
                drop(UnixListener::bind(&path).with_context(|| format!("bind {}", path.display()))?);
                layout::mode(&path, 0o666)?;
            }
            Kind::Screen => node(&path, SFlag::S_IFCHR, 0o666, screen())?,
            Kind::Full => node(&path, SFlag::S_IFCHR, 0o666, full())?,
            Kind::Block => node(&path, SFlag::S_IFBLK, 0, block())?,
            Kind::Link(target) => {
                symlink(target, &path).with_context(|| format!("link {}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// A program that can also be written to.
fn program(path: &Path, content: &[u8]) -> Result<()> {
    layout::program(path, content)?;
    layout::mode(path, 0o777)
}

fn node(path: &Path, kind: SFlag, mode: u32, device: u64) -> Result<()> {
    mknod(path, kind, Mode::from_bits_truncate(mode), device)
        .with_context(|| format!("make {}", path.display()))?;
    layout::mode(path, mode)
}

/// One line for everything below `root`, in order of names: what it is, without times, owners and numbers
/// of inodes.
pub(crate) fn describe(root: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    below(root, root, &mut lines)?;
    Ok(lines)
}

fn entries(directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn below(root: &Path, directory: &Path, lines: &mut Vec<String>) -> Result<()> {
    for path in entries(directory)? {
        let data = path.symlink_metadata().with_context(|| format!("look at {}", path.display()))?;
        let kind = data.file_type();
        let what = if kind.is_file() {
            let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            let mut hasher = DefaultHasher::new();
            content.hash(&mut hasher);
            format!("{} bytes {:016x} links {}", content.len(), hasher.finish(), data.nlink())
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).with_context(|| format!("read {}", path.display()))?;
            format!("link to {}", target.display())
        } else if kind.is_char_device() || kind.is_block_device() {
            format!("device {:x}", data.rdev())
        } else {
            String::new()
        };
        let name = path.strip_prefix(root).unwrap_or(&path).display();
        lines.push(format!("{name} {:o} {what}", data.mode()));
        if kind.is_dir() {
            below(root, &path, lines)?;
        }
    }
    Ok(())
}

/// Makes the tree at `to` what the one at `from` is. What is not root's becomes `owner`'s.
pub(crate) fn copy(from: &Path, to: &Path, owner: u32) -> Result<()> {
    for path in entries(to)? {
        let is_directory = path.symlink_metadata().is_ok_and(|data| data.is_dir());
        let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("remove {}", path.display()))?;
    }
    copy_below(from, to, owner, &mut BTreeMap::new())
}

fn copy_below(
    from: &Path,
    to: &Path,
    owner: u32,
    links: &mut BTreeMap<u64, std::path::PathBuf>,
) -> Result<()> {
    for path in entries(from)? {
        let data = path.symlink_metadata().with_context(|| format!("look at {}", path.display()))?;
        let new = to.join(path.file_name().unwrap_or_default());
        let failed = || format!("copy {} to {}", path.display(), new.display());
        let kind = data.file_type();
        if !kind.is_dir() && data.nlink() > 1 {
            if let Some(first) = links.get(&data.ino()) {
                fs::hard_link(first, &new).with_context(failed)?;
                continue;
            }
            links.insert(data.ino(), new.clone());
        }
        if kind.is_dir() {
            fs::create_dir(&new).with_context(failed)?;
            copy_below(&path, &new, owner, links)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&path).with_context(failed)?, &new).with_context(failed)?;
        } else if kind.is_file() {
            fs::write(&new, fs::read(&path).with_context(failed)?).with_context(failed)?;
        } else {
            let bits = SFlag::from_bits_truncate(data.mode() & SFlag::S_IFMT.bits());
            mknod(&new, bits, Mode::empty(), data.rdev()).with_context(failed)?;
        }
        if data.uid() != 0 {
            lchown(&new, Some(owner), Some(owner)).with_context(failed)?;
        }
        if !kind.is_symlink() {
            fs::set_permissions(&new, fs::Permissions::from_mode(data.mode() & 0o7777))
                .with_context(failed)?;
        }
    }
    Ok(())
}
