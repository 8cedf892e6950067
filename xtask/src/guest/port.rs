//! Finding the virtio-serial port that leads to the host.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Name of the port, given by the host to QEMU.
pub(crate) const NAME: &str = "guard.channel";

/// Opens the port, waiting for the kernel to announce it.
pub(super) fn open() -> Result<File> {
    // Watching starts before looking, so that the port cannot appear in between.
    let announced = Inotify::init(InitFlags::IN_CLOEXEC)?;
    announced.add_watch("/dev", AddWatchFlags::IN_CREATE)?;
    loop {
        if let Some(path) = find() {
            let options = || File::options().read(true).write(true).open(&path);
            return options().with_context(|| format!("open {}", path.display()));
        }
        announced.read_events().context("wait for the port in /dev")?;
    }
}

fn find() -> Option<PathBuf> {
    fs::read_dir("/sys/class/virtio-ports").ok()?.find_map(|entry| {
        let entry = entry.ok()?;
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        let device = PathBuf::from("/dev").join(entry.file_name());
        (name.trim() == NAME && device.exists()).then_some(device)
    })
}
