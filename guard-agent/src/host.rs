//! Facts about this host that compilation needs: mounts, accounts, resolvers and what its paths
//! lead to.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::artifact::{self, Lists};
use crate::coverage::{self, Hooks};

mod answers;

pub use answers::Answers;
pub(crate) use answers::Asked;

/// Where this host's resolvers are configured.
const RESOLVERS: &str = "/etc/resolv.conf";
/// Where systemd-resolved listens, and the resolvers that it asks (systemd-resolved.service(8)).
const STUBS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Number of the mount.
    pub id: u32,
    /// Number of the mount it is mounted on.
    pub parent: u32,
    /// Device number of the file system, as the kernel keeps it in `super_block.s_dev`.
    pub device: u32,
    /// Path in the file system that is visible at the mount point.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// File system type.
    pub kind: String,
}

/// What a path names, without following a symbolic link in its last component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory {
        /// Only root can change what it holds.
        root_only: bool,
    },
    /// A symbolic link.
    Link {
        /// Where it points.
        target: PathBuf,
        /// It belongs to root.
        root_owned: bool,
    },
    /// Anything else.
    Other,
}

/// Look-ups that depend on what a bundle names.
pub trait Lookup: Send + Sync {
    /// What `path` names; `None` if there is nothing, or nothing that can be seen.
    fn entry(&self, path: &Path) -> Option<Entry>;
    /// The number of a user.
    fn user(&self, name: &str) -> Option<u32>;
    /// The number of a group.
    fn group(&self, name: &str) -> Option<u32>;
}

/// The host as the compiler sees it.
pub struct Host {
    /// The mounts of the agent's mount namespace, in the order of `/proc/self/mountinfo`.
    pub mounts: Vec<Mount>,
    /// The resolvers this host is configured with.
    pub resolvers: Vec<IpAddr>,
    /// Programs that no selector may cover, by canonical path, and what each of them is.
    pub protected: Vec<(PathBuf, &'static str)>,
    /// Bits of the actions that this kernel has no hook for.
    pub undecided: u64,
    /// The artifact lists that lie on it.
    pub artifacts: Arc<Lists>,
    /// Look-ups of paths and accounts.
    pub lookup: Arc<dyn Lookup>,
}

/// The service manager and the helper that sets up the sandbox of a unit. Executing them never
/// attaches a label.
pub const SERVICE_MANAGER: [&str; 2] = ["/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd-executor"];

/// Programs that must never be labelled by their path.
const PROTECTED: &[(&str, &str)] = &[
    ("/usr/lib/systemd/systemd", "the service manager"),
    ("/usr/lib/systemd/systemd-executor", "the service manager's helper"),
    ("/sbin/init", "the first process"),
    ("/usr/bin/guard-agent", "the Guard agent"),
    ("/usr/sbin/guard-agent", "the Guard agent"),
    ("/usr/libexec/guard-agent", "the Guard agent"),
    ("/usr/bin/guardctl", "the Guard client"),
    ("/lib64/ld-linux-x86-64.so.2", "the dynamic loader"),
    ("/lib/ld-linux-aarch64.so.1", "the dynamic loader"),
    ("/lib/ld-linux-riscv64-lp64d.so.1", "the dynamic loader"),
];

impl Host {
    /// Reads the facts of this host.
    pub fn read() -> io::Result<Self> {
        let named = |path: &'static str| {
            move |error: io::Error| io::Error::new(error.kind(), format!("cannot read {path}: {error}"))
        };
        let mountinfo = std::fs::read("/proc/self/mountinfo").map_err(named("/proc/self/mountinfo"))?;
        let resolvers = read_resolvers().map_err(named(RESOLVERS))?;
        let mut protected: Vec<_> =
            PROTECTED.iter().map(|(path, what)| (PathBuf::from(path), *what)).collect();
        // Where they are symbolic links, their targets are protected as well. Without the right to
        // read /proc/1/exe the list above has to do.
        protected.extend(
            PROTECTED.iter().filter_map(|(path, what)| Some((std::fs::canonicalize(path).ok()?, *what))),
        );
        protected.extend(std::fs::canonicalize("/proc/1/exe").ok().map(|path| (path, "the first process")));
        protected.extend(
            std::fs::canonicalize("/proc/self/exe")
                .ok()
                .map(|path| (path, "the program that compiles this bundle")),
        );
        // `guardctl` checks bundles for the agent that was installed beside it.
        protected.extend(
            std::fs::canonicalize("/proc/self/exe")
                .ok()
                .map(|path| (path.with_file_name("guard-agent"), "the Guard agent")),
        );
        protected.sort();
        protected.dedup_by(|a, b| a.0 == b.0);
        // What cannot be read is left to the attempt to load the programs.
        let undecided = Hooks::running().map_or(0, |hooks| coverage::undecided(&|hook| hooks.has(hook)));
        let mounts = parse_mounts(&mountinfo);
        let artifacts = Arc::new(Lists::read(Path::new(artifact::DIRECTORY)));
        Ok(Self { mounts, resolvers, protected, undecided, artifacts, lookup: Arc::new(Live) })
    }
}

/// Parses `/proc/self/mountinfo`. Lines of mounts without a path (namespace files) are left out.
pub fn parse_mounts(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_mount).collect()
}

fn parse_mount(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<u32>().ok();
    let device = fields.get(2)?;
    let colon = device.iter().position(|byte| *byte == b':')?;
    let dash = fields.iter().position(|field| *field == b"-")?;
    let (major, minor) = (number(&device[..colon])?, number(&device[colon + 1..])?);
    let (root, point) = (unescape(fields.get(3)?), unescape(fields.get(4)?));
    if !root.starts_with(b"/") || !point.starts_with(b"/") || major >= 1 << 12 || minor >= 1 << 20 {
        return None;
    }
    Some(Mount {
        id: number(fields.first()?)?,
        parent: number(fields.get(1)?)?,
        device: major << 20 | minor,
        root: path(&root),
        point: path(&point),
        kind: String::from_utf8_lossy(fields.get(dash + 1)?).into_owned(),
    })
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Undoes the kernel's octal escapes of space, tab, newline, backslash and `#`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let byte = digits.and_then(|digits| {
            digits.iter().try_fold(0u32, |value, digit| {
                (b'0'..=b'7').contains(digit).then(|| value << 3 | u32::from(digit - b'0'))
            })
        });
        match byte.and_then(|byte| u8::try_from(byte).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// The resolvers this host is configured with now; none without a configuration.
fn read_resolvers() -> io::Result<Vec<IpAddr>> {
    match std::fs::read_to_string(RESOLVERS) {
        Ok(text) => Ok(parse_resolvers(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The resolvers that this host uses: where its programs are told to ask systemd-resolved, those that it asks.
pub(crate) fn used_resolvers() -> io::Result<Vec<IpAddr>> {
    let told = read_resolvers()?;
    if told.is_empty() || !told.iter().all(|address| STUBS.contains(address)) {
        return Ok(told);
    }
    match std::fs::read_to_string(UPSTREAM) {
        Ok(text) => Ok(parse_resolvers(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The addresses of `nameserver` lines.
pub fn parse_resolvers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split_whitespace().next()?.split('%').next()?.parse().ok())
        .collect()
}

/// Look-ups on the running host.
struct Live;

impl Lookup for Live {
    fn entry(&self, path: &Path) -> Option<Entry> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        Some(if metadata.is_symlink() {
            Entry::Link { target: std::fs::read_link(path).ok()?, root_owned: metadata.uid() == 0 }
        } else if metadata.is_dir() {
            Entry::Directory { root_only: metadata.uid() == 0 && metadata.mode() & 0o022 == 0 }
        } else {
            Entry::Other
        })
    }

    fn user(&self, name: &str) -> Option<u32> {
        nix::unistd::User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
    }

    fn group(&self, name: &str) -> Option<u32> {
        nix::unistd::Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
    }
}

/// A host made of plain data, for tests and for compiling a bundle for another machine.
#[derive(Clone, Debug, Default)]
pub struct Fixed {
    /// What paths name. A path that is missing here names nothing.
    pub entries: BTreeMap<PathBuf, Entry>,
    /// Users by name.
    pub users: BTreeMap<String, u32>,
    /// Groups by name.
    pub groups: BTreeMap<String, u32>,
}

impl Lookup for Fixed {
    fn entry(&self, path: &Path) -> Option<Entry> {
        self.entries.get(path).cloned()
    }
    fn user(&self, name: &str) -> Option<u32> {
        self.users.get(name).copied()
    }
    fn group(&self, name: &str) -> Option<u32> {
        self.groups.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_octal_escape_is_kept() {
        assert_eq!(unescape(b"\\777\\04\\"), b"\\777\\04\\", "no byte, no escape");
    }

    #[test]
    fn mountinfo_fields_are_found_behind_optional_ones() {
        let text = b"36 35 98:1 /mnt1 /mnt\\040a rw,noatime master:1 shared:2 - ext3 /dev/root rw\n\
            37 35 0:4 mnt:[4026531840] /run/ns rw - nsfs nsfs rw\n";
        assert_eq!(
            parse_mounts(text),
            [Mount {
                id: 36,
                parent: 35,
                device: 98 << 20 | 1,
                root: "/mnt1".into(),
                point: "/mnt a".into(),
                kind: "ext3".into()
            }]
        );
    }

    #[test]
    fn resolvers_are_nameserver_lines() {
        let found = parse_resolvers("# x\nsearch a\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\n");
        assert_eq!(found, ["10.0.0.53".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
    }

    #[test]
    fn this_host_can_be_read() {
        let host = Host::read().unwrap();
        assert!(host.mounts.iter().any(|mount| mount.point == Path::new("/")));
        assert_eq!(host.lookup.user("root"), Some(0));
    }
}
