//! From a path in a file system to a path on this host.

use crate::host::parse_mounts;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount, as far as paths need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// Device number of the file system as the kernel keeps it: major << 20 | minor.
    pub device: u32,
    /// The directory of the file system that is visible at the mount point.
    pub root: Vec<u8>,
    /// Where it is mounted.
    pub point: Vec<u8>,
}

impl MountPoint {
    /// The mounts of this process's mount namespace, in the order they were made. None if
    /// `/proc/self/mountinfo` cannot be read: events then have paths in their file systems only.
    pub fn read_all() -> Vec<Self> {
        std::fs::read("/proc/self/mountinfo").map(|text| Self::parse_all(&text)).unwrap_or_default()
    }

    /// Parses the text of `/proc/self/mountinfo`. Lines of mounts without a path (namespace files)
    /// are left out.
    pub fn parse_all(text: &[u8]) -> Vec<Self> {
        let bytes = |path: PathBuf| path.into_os_string().into_vec();
        parse_mounts(text)
            .into_iter()
            .map(|mount| Self { device: mount.device, root: bytes(mount.root), point: bytes(mount.point) })
            .collect()
    }
}

/// The mounts of one mount namespace.
#[derive(Clone, Debug, Default)]
pub struct Mounts(Vec<MountPoint>);

impl Mounts {
    /// Mounts in the order they were made.
    pub fn new(mounts: Vec<MountPoint>) -> Self {
        Self(mounts)
    }

    /// Where `path`, which counts from the root of the file system, is seen on this host. `None` if
    /// no mount shows it, as for a file system that is only mounted elsewhere.
    ///
    /// Of several mounts that show it, the one with the longest root wins, and of equals the oldest.
    /// A mount that another one lies over shows nothing.
    pub fn host_path(&self, device: u32, path: &[u8]) -> Option<Vec<u8>> {
        let mut best: Option<(usize, Vec<u8>)> = None;
        for (index, mount) in self.0.iter().enumerate().filter(|(_, mount)| mount.device == device) {
            let Some(rest) = below(&mount.root, path) else { continue };
            let candidate = join(&mount.point, rest);
            let longer = best.as_ref().is_none_or(|(length, _)| mount.root.len() > *length);
            if longer && self.shows(&candidate) == Some(index) {
                best = Some((mount.root.len(), candidate));
            }
        }
        best.map(|(_, path)| path)
    }

    /// The mount that is seen at a path: the deepest mount point above it, the youngest of equals.
    fn shows(&self, path: &[u8]) -> Option<usize> {
        let points = self.0.iter().enumerate().filter(|(_, mount)| below(&mount.point, path).is_some());
        points.max_by_key(|(index, mount)| (mount.point.len(), *index)).map(|(index, _)| index)
    }
}

/// What is left of `path` below the directory `top`, with its leading slash; empty if they are equal.
fn below<'a>(top: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    if path == b"/" || path == top {
        return (path == top).then_some(b"");
    }
    let rest = path.strip_prefix(if top == b"/" { b"".as_slice() } else { top })?;
    rest.starts_with(b"/").then_some(rest)
}

fn join(point: &[u8], rest: &[u8]) -> Vec<u8> {
    match (point, rest) {
        (_, b"") => point.to_vec(),
        (b"/", _) => rest.to_vec(),
        _ => [point, rest].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &[u8] = b"22 1 254:1 / / rw,relatime - ext4 /dev/root rw\n\
        23 22 0:21 / /proc rw - proc proc rw\n\
        30 22 254:1 /srv/site /var/www rw shared:1 - ext4 /dev/root rw\n\
        31 22 0:40 /@home /home rw - btrfs /dev/vdb rw\n\
        32 22 0:41 / /mnt/a\\040b\\134c rw - tmpfs tmpfs rw\n\
        33 22 0:42 / /data rw - tmpfs tmpfs rw\n\
        34 22 0:43 / /data rw - tmpfs tmpfs rw\n\
        35 23 0:4 mnt:[4026531840] /run/ns rw - nsfs nsfs rw\n\
        broken line\n";

    fn device(major: u32, minor: u32) -> u32 {
        major << 20 | minor
    }

    fn host(major: u32, minor: u32, path: &str) -> Option<String> {
        let mounts = Mounts::new(MountPoint::parse_all(HOST));
        mounts.host_path(device(major, minor), path.as_bytes()).map(|path| String::from_utf8(path).unwrap())
    }

    #[test]
    fn mountinfo_is_read_with_its_escapes() {
        let mounts = MountPoint::parse_all(HOST);
        assert_eq!(mounts.len(), 7);
        assert_eq!(mounts[0].device, device(254, 1));
        assert_eq!(mounts[4].point, b"/mnt/a b\\c");
    }

    #[test]
    fn paths_are_seen_through_the_mount_with_the_longest_root() {
        assert_eq!(host(254, 1, "/etc/shadow").as_deref(), Some("/etc/shadow"));
        assert_eq!(host(254, 1, "/").as_deref(), Some("/"));
        assert_eq!(host(254, 1, "/srv/site/a.html").as_deref(), Some("/var/www/a.html"));
        assert_eq!(host(254, 1, "/srv/site").as_deref(), Some("/var/www"));
        assert_eq!(host(254, 1, "/srv/site2/a").as_deref(), Some("/srv/site2/a"), "a name, not a prefix");
        assert_eq!(host(0, 40, "/@home/ada/.ssh/id").as_deref(), Some("/home/ada/.ssh/id"));
        assert_eq!(host(0, 41, "/x").as_deref(), Some("/mnt/a b\\c/x"));
    }

    #[test]
    fn what_no_mount_shows_has_no_host_path() {
        assert_eq!(host(0, 40, "/@root/x"), None, "another subvolume");
        assert_eq!(host(9, 9, "/x"), None, "another namespace's mount");
        assert_eq!(host(0, 42, "/x"), None, "covered by the next mount");
        assert_eq!(host(0, 43, "/x").as_deref(), Some("/data/x"));
        assert_eq!(host(254, 1, "/proc/x"), None, "covered by a mount in the middle");
    }

    #[test]
    fn this_process_has_a_root() {
        assert!(MountPoint::read_all().iter().any(|mount| mount.point == b"/"));
    }
}
