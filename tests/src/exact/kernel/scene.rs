//! What the operations are made on: trees on several file systems, seen through several mounts, with
//! programs, links, sockets and devices in them. Everything belongs to root and is open to everybody,
//! so that only Guard refuses anything.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fastrand::Rng;
use guard_tests::{elf, layout};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::words::component;
use crate::world::pick;

/// Where the trees are: one for each kind of file system.
const TREES: [&str; 6] = [
    "/scratch/tmpfs/ex",
    "/scratch/ext4/ex",
    "/scratch/xfs/ex",
    "/scratch/btrfs/ex",
    "/scratch/btrfs/volume/ex",
    "/scratch/overlay/ex",
];
/// Abstract names of sockets; the first of each list listens, the second receives datagrams.
const STREAMS: [&str; 3] = ["bus", "exactly-24-bytes-long-ab", "a-name-of-more-than-24-bytes-here"];
const DATAGRAMS: [&str; 2] = ["b", "busy"];
/// What else can be opened, whoever one is.
const OTHERS: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/urandom", "/etc/passwd", "/etc", "/proc/meminfo"];

/// A socket that is kept open for others to reach.
enum Kept {
    Stream(UnixListener),
    Datagram(UnixDatagram),
}

/// The scene.
pub(super) struct Scene {
    kept: Vec<Kept>,
    /// Symbolic links to directories, and where they lead.
    detours: Vec<(PathBuf, PathBuf)>,
}

impl Scene {
    /// Makes it.
    pub(super) fn make(rng: &mut Rng) -> Result<Self> {
        layout::create()?;
        let mut this = Self { kept: Vec::new(), detours: Vec::new() };
        for tree in TREES {
            let tree = Path::new(tree);
            directory(tree)?;
            let mut directories = vec![tree.to_owned()];
            for _ in 0..8 {
                let within = pick(rng, &directories).join(component(rng));
                if directory(&within).is_ok() && !directories.contains(&within) {
                    directories.push(within);
                }
            }
            let interpreter = tree.join("interpreter");
            layout::program(&interpreter, &elf::interpreter())?;
            for _ in 0..24 {
                let path = pick(rng, &directories).join(component(rng));
                if !path.exists() {
                    this.file(rng, &path, &interpreter)?;
                }
            }
            for (number, target) in directories.iter().enumerate().skip(1).step_by(2) {
                let link = tree.join(format!("way-{number}"));
                symlink(target, &link).with_context(|| format!("link {}", link.display()))?;
                this.detours.push((link, target.clone()));
            }
        }
        for (from, to) in [(1, 0), (0, 1), (3, 2), (2, 5)] {
            this.bind(rng, Path::new(TREES[from]), &Path::new(TREES[to]).join("bind"))?;
        }
        for name in STREAMS {
            let address = SocketAddr::from_abstract_name(name).context("make an abstract name")?;
            let listener = UnixListener::bind_addr(&address).context("bind an abstract socket")?;
            this.keep(Kept::Stream(listener))?;
        }
        for name in DATAGRAMS {
            let address = SocketAddr::from_abstract_name(name).context("make an abstract name")?;
            let socket = UnixDatagram::bind_addr(&address).context("bind an abstract socket")?;
            this.keep(Kept::Datagram(socket))?;
        }
        Ok(this)
    }

    fn file(&mut self, rng: &mut Rng, path: &Path, interpreter: &Path) -> Result<()> {
        match rng.u8(0..16) {
            0 => layout::program(path, &elf::exits_with(0))?,
            1 => {
                layout::program(path, &elf::exits_with(0))?;
                owned(rng, path)?;
                // A change of owner takes these bits away.
                return layout::mode(path, 0o6777);
            }
            2 => layout::program(path, format!("#!{}\n", interpreter.display()).as_bytes())?,
            3 => layout::program(path, &elf::interpreted_by(&interpreter.display().to_string()))?,
            4 => {
                mknod(path, SFlag::S_IFIFO, Mode::from_bits_truncate(0o666), 0).context("make a pipe")?;
                return layout::mode(path, 0o666);
            }
            5 => {
                mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3))
                    .context("make a device")?;
                return layout::mode(path, 0o666);
            }
            6 if path.as_os_str().len() < 100 => {
                let listener = UnixListener::bind(path).context("bind a socket")?;
                self.keep(Kept::Stream(listener))?;
                return layout::mode(path, 0o666);
            }
            7 if path.as_os_str().len() < 100 => {
                let socket = UnixDatagram::bind(path).context("bind a socket")?;
                self.keep(Kept::Datagram(socket))?;
                return layout::mode(path, 0o666);
            }
            _ => layout::file(path, b"content\n")?,
        }
        owned(rng, path)
    }

    fn bind(&self, rng: &mut Rng, from: &Path, to: &Path) -> Result<()> {
        directory(to)?;
        let within: Vec<PathBuf> = walk(from).into_iter().filter(|path| is_directory(path)).collect();
        let from = pick(rng, &within);
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("bind {} to {}", from.display(), to.display()))
    }

    fn keep(&mut self, socket: Kept) -> Result<()> {
        match &socket {
            Kept::Stream(listener) => listener.set_nonblocking(true),
            Kept::Datagram(socket) => socket.set_nonblocking(true),
        }
        .context("keep a socket")?;
        self.kept.push(socket);
        Ok(())
    }

    /// Takes what was sent to the sockets, so that there is room for more.
    pub(super) fn drain(&self) {
        for socket in &self.kept {
            match socket {
                Kept::Stream(listener) => while listener.accept().is_ok() {},
                Kept::Datagram(socket) => while socket.recv(&mut [0; 8]).is_ok() {},
            }
        }
    }

    /// Every path, through every mount.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = TREES.iter().flat_map(|tree| walk(Path::new(tree))).collect();
        paths.extend(OTHERS.map(PathBuf::from));
        paths
    }

    /// The same file by another path, if there is one.
    pub(super) fn another_way(&self, rng: &mut Rng, path: &Path) -> Option<PathBuf> {
        let ways: Vec<PathBuf> = self
            .detours
            .iter()
            .filter_map(|(link, target)| Some(link.join(path.strip_prefix(target).ok()?)))
            .filter(|way| way.exists())
            .collect();
        (!ways.is_empty()).then(|| pick(rng, &ways).clone())
    }

    /// Names that abstract sockets have.
    pub(super) fn abstract_names(datagrams: bool) -> &'static [&'static str] {
        if datagrams { &DATAGRAMS } else { &STREAMS }
    }

    /// Changes names: renames, exchanges, links. What does not work is left.
    pub(super) fn change(&self, rng: &mut Rng) {
        let paths = walk(Path::new(*pick(rng, &TREES)));
        let (one, other) = (pick(rng, &paths), pick(rng, &paths));
        let beside = one.with_file_name(component(rng));
        let new = if is_directory(other) { other.join(component(rng)) } else { beside.clone() };
        match rng.u8(0..4) {
            // A tree itself stays, and so does what scripts name.
            _ if TREES.iter().any(|tree| Path::new(tree) == one) || one.ends_with("interpreter") => {}
            0 if !new.exists() => drop(fs::rename(one, new)),
            1 if !beside.exists() => drop(fs::rename(one, beside)),
            2 if !other.ends_with("interpreter") => {
                let _ = renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE);
            }
            _ if fs::symlink_metadata(one).is_ok_and(|data| data.is_file() && data.nlink() < 4) => {
                let _ = fs::hard_link(one, new);
            }
            _ => {}
        }
    }

    /// Words for policies about what is here.
    pub(super) fn words_paths(&self, rng: &mut Rng) -> Vec<String> {
        let all: Vec<String> =
            self.paths().iter().filter_map(|path| path.to_str().map(str::to_owned)).collect();
        let mut chosen: Vec<String> = (0..rng.usize(3..8)).map(|_| pick(rng, &all).clone()).collect();
        for index in 0..chosen.len() {
            let above: Vec<&Path> = Path::new(&chosen[index]).ancestors().collect();
            let above = pick(rng, &above).display().to_string();
            chosen.push(above);
        }
        chosen.extend(TREES.iter().filter(|_| rng.u8(0..6) == 0).map(|tree| (*tree).to_owned()));
        chosen.extend((rng.u8(0..3) == 0).then(|| "/scratch".to_owned()));
        chosen
    }
}

/// A directory that only root can change, so that links in it are followed in literals.
fn directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
    layout::mode(path, 0o755)
}

/// Gives a file to somebody.
fn owned(rng: &mut Rng, path: &Path) -> Result<()> {
    let owner = *pick(rng, &[0, 0, 1000, 1001]);
    chown(path, Some(owner), None).with_context(|| format!("chown {}", path.display()))
}

pub(super) fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|data| data.is_dir())
}

/// Whether there is a socket at the path.
pub(super) fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket())
}

/// Whether it can be executed; such files are not truncated.
pub(super) fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// The directory and everything below it, what is mounted there included; links are not followed.
fn walk(directory: &Path) -> Vec<PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(path) = left.pop() {
        if is_directory(&path) {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            // A bind mount can hold itself only once, but two can hold each other.
            let deep = path.components().filter(|part| part.as_os_str() == "bind").count() > 2;
            left.extend(entries.map(|entry| entry.path()).filter(|_| !deep));
        }
        found.push(path);
    }
    found.sort();
    found
}
