//! Whether what lies below a mount point is encrypted on its disk, from sysfs.
//!
//! A block device is encrypted if it is one of dm-crypt, or if everything it is made of is. Devices that encrypt by
//! themselves look like any other, so they count as not encrypted; of what is no local disk nothing is known.

use crate::host::{Mount, parse_mounts};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most devices on top of each other.
const MAX_DEPTH: usize = 16;
/// Kinds of device-mapper devices whose UUID begins as that of dm-crypt and that encrypt nothing
/// (libcryptsetup, lib/utils_dm.h).
const NOT_CRYPT: [&str; 2] = ["CRYPT-VERITY", "CRYPT-INTEGRITY"];

/// Whether all that lies below this directory on the same file system is encrypted on its disk; nothing if that is
/// not known.
pub(crate) fn is_encrypted(directory: &Path) -> Option<bool> {
    let mounts = fs::read("/proc/self/mountinfo").ok()?;
    of_mount(&mounts, directory, Path::new("/sys"))
}

fn of_mount(mounts: &[u8], directory: &Path, sys: &Path) -> Option<bool> {
    // Of mounts on one point the last one is seen.
    let covers = |mount: &&Mount| directory.starts_with(&mount.point);
    let parsed = parse_mounts(mounts);
    let mount = parsed.iter().filter(covers).max_by_key(|mount| mount.point.components().count())?;
    let devices = match (mount.device >> 20, mount.device & 0xf_ffff) {
        (0, _) if mount.kind == "btrfs" => of_btrfs(mounts, mount.id, sys)?,
        (0, _) => return None,
        (major, minor) => vec![fs::canonicalize(sys.join(format!("dev/block/{major}:{minor}"))).ok()?],
    };
    all(devices.iter().map(|device| of_device(device, MAX_DEPTH)))
}

/// The devices of the btrfs that is this mount. Its device number is made up, so the source of the mount names one of
/// them, and sysfs the others.
fn of_btrfs(mounts: &[u8], id: u32, sys: &Path) -> Option<Vec<PathBuf>> {
    let text = String::from_utf8_lossy(mounts);
    let line = text.lines().find(|line| line.split(' ').next() == Some(id.to_string().as_str()))?;
    let source = line.split_once(" - ")?.1.split(' ').nth(1)?;
    let number = fs::metadata(source).ok()?.rdev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let one = fs::canonicalize(sys.join(format!("dev/block/{major}:{minor}"))).ok()?;
    with_companions(&one, sys)
}

/// The devices of the btrfs that one device belongs to.
fn with_companions(one: &Path, sys: &Path) -> Option<Vec<PathBuf>> {
    for file_system in fs::read_dir(sys.join("fs/btrfs")).ok()?.flatten() {
        let Ok(devices) = fs::read_dir(file_system.path().join("devices")) else { continue };
        let paths: Vec<PathBuf> =
            devices.map(|device| fs::canonicalize(device.ok()?.path()).ok()).collect::<Option<_>>()?;
        if paths.iter().any(|path| path == one) {
            return Some(paths);
        }
    }
    None
}

/// Whether a block device, a directory of sysfs, is encrypted.
fn of_device(device: &Path, depth: usize) -> Option<bool> {
    let depth = depth.checked_sub(1)?;
    let mapped = fs::read_to_string(device.join("dm/uuid")).ok();
    if mapped.as_deref().is_some_and(is_crypt) {
        return Some(true);
    }
    if device.join("loop").exists() {
        // Where the file behind it lies is another question.
        return None;
    }
    if device.join("partition").exists() {
        return of_device(device.parent()?, depth);
    }
    let mut below = Vec::new();
    for entry in fs::read_dir(device.join("slaves")).ok()? {
        below.push(fs::canonicalize(entry.ok()?.path()).ok()?);
    }
    if below.is_empty() {
        // A disk, unless device-mapper made it of nothing.
        return mapped.is_none().then_some(false);
    }
    all(below.iter().map(|device| of_device(device, depth)))
}

fn is_crypt(uuid: &str) -> bool {
    uuid.starts_with("CRYPT-") && !NOT_CRYPT.iter().any(|other| uuid.starts_with(other))
}

/// One that is not is enough for no; without one, all must be known.
fn all(devices: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let known: Vec<Option<bool>> = devices.collect();
    if known.contains(&Some(false)) {
        return Some(false);
    }
    known.into_iter().collect::<Option<Vec<bool>>>().map(|all| !all.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A tree that looks like sysfs.
    struct Sys(PathBuf);

    impl Sys {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("guard-disk-{}-{number}", std::process::id()));
            fs::create_dir_all(path.join("dev/block")).unwrap();
            let path = fs::canonicalize(path).unwrap();
            Self(path)
        }

        /// A device by its number, made of others.
        fn device(&self, name: &str, number: &str, below: &[&str]) -> PathBuf {
            let directory = self.0.join("devices").join(name);
            fs::create_dir_all(directory.join("slaves")).unwrap();
            symlink(&directory, self.0.join("dev/block").join(number)).unwrap();
            for other in below {
                let target = self.0.join("devices").join(other);
                symlink(target, directory.join("slaves").join(other.replace('/', "!"))).unwrap();
            }
            directory
        }

        fn mapped(&self, name: &str, number: &str, uuid: &str, below: &[&str]) {
            let directory = self.device(name, number, below);
            fs::create_dir(directory.join("dm")).unwrap();
            fs::write(directory.join("dm/uuid"), format!("{uuid}\n")).unwrap();
        }

        fn partition(&self, name: &str, number: &str) {
            let directory = self.device(name, number, &[]);
            fs::remove_dir(directory.join("slaves")).unwrap();
            fs::write(directory.join("partition"), "1\n").unwrap();
        }

        fn is_encrypted(&self, device: &str) -> Option<bool> {
            let mounts = format!("1 0 {device} / / rw - ext4 /dev/x rw\n2 1 0:20 / /proc rw - proc p rw\n");
            of_mount(mounts.as_bytes(), Path::new("/"), &self.0)
        }
    }

    impl Drop for Sys {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_lies_on_dm_crypt_is_encrypted_and_what_does_not_is_not() {
        let sys = Sys::new();
        sys.device("sda", "8:0", &[]);
        sys.partition("sda/sda1", "8:1");
        sys.partition("sda/sda2", "8:2");
        sys.mapped("dm-0", "253:0", "CRYPT-LUKS2-0123-root", &["sda/sda2"]);
        sys.mapped("dm-1", "253:1", "LVM-abcdef", &["dm-0"]);
        assert_eq!(sys.is_encrypted("8:1"), Some(false));
        assert_eq!(sys.is_encrypted("253:0"), Some(true));
        assert_eq!(sys.is_encrypted("253:1"), Some(true), "a volume on it");
        sys.mapped("dm-2", "253:2", "LVM-wider", &["dm-0", "sda/sda1"]);
        assert_eq!(sys.is_encrypted("253:2"), Some(false), "a part of it is not");
        sys.mapped("dm-3", "253:3", "CRYPT-VERITY-0123", &["sda/sda1"]);
        assert_eq!(sys.is_encrypted("253:3"), Some(false), "checked is not encrypted");
        sys.device("md0", "9:0", &["dm-0"]);
        assert_eq!(sys.is_encrypted("9:0"), Some(true), "an array of it");
    }

    #[test]
    fn of_what_is_no_local_disk_nothing_is_known() {
        let sys = Sys::new();
        assert_eq!(sys.is_encrypted("8:9"), None, "no such device");
        assert_eq!(sys.is_encrypted("0:44"), None, "a network file system");
        let looped = sys.device("loop0", "7:0", &[]);
        fs::create_dir(looped.join("loop")).unwrap();
        assert_eq!(sys.is_encrypted("7:0"), None);
        sys.mapped("dm-0", "253:0", "zero", &[]);
        assert_eq!(sys.is_encrypted("253:0"), None);
        sys.device("round", "9:1", &["round"]);
        assert_eq!(sys.is_encrypted("9:1"), None, "made of itself");
    }

    #[test]
    fn the_mount_that_is_seen_at_a_directory_counts() {
        let sys = Sys::new();
        sys.device("sda", "8:0", &[]);
        sys.mapped("dm-0", "253:0", "CRYPT-LUKS2-0123-srv", &["sda"]);
        let mounts = b"1 0 8:0 / / rw - ext4 /dev/sda rw\n2 1 8:0 / /srv rw - ext4 /dev/sda rw\n\
                       3 2 253:0 / /srv rw - ext4 /dev/mapper/srv rw\n4 1 8:0 / /srv-2 rw - ext4 /dev/sda rw\n";
        let at = |path: &str| of_mount(mounts, Path::new(path), &sys.0);
        assert_eq!(
            (at("/"), at("/srv"), at("/srv/data"), at("/srv-2")),
            (Some(false), Some(true), Some(true), Some(false))
        );
    }

    #[test]
    fn all_devices_of_a_btrfs_count() {
        let sys = Sys::new();
        let one = sys.device("sda", "8:0", &[]);
        sys.mapped("dm-0", "253:0", "CRYPT-LUKS2-0123-root", &["sda"]);
        let devices = sys.0.join("fs/btrfs/0123/devices");
        fs::create_dir_all(&devices).unwrap();
        for name in ["sda", "dm-0"] {
            symlink(sys.0.join("devices").join(name), devices.join(name)).unwrap();
        }
        let mut found = with_companions(&one, &sys.0).unwrap();
        found.sort();
        assert_eq!(found, [sys.0.join("devices/dm-0"), one.clone()]);
        assert_eq!(with_companions(&sys.0.join("devices/sdb"), &sys.0), None);
    }
}
