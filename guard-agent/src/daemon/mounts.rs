//! Tells when the mount table changes: a literal may lie on another file system then.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::os::fd::AsFd;
use tokio::sync::mpsc;

/// Starts a thread that sends a message for every change of this namespace's mount table. The
/// kernel raises a priority event on `/proc/self/mountinfo` then (proc(5)).
///
/// # Errors
/// If the table cannot be opened or the thread cannot be started.
pub(super) fn watch() -> std::io::Result<mpsc::Receiver<()>> {
    let file = File::open("/proc/self/mountinfo")?;
    // One message waiting is enough: it stands for all changes up to its reception.
    let (sender, receiver) = mpsc::channel(1);
    std::thread::Builder::new().name("mounts".to_owned()).spawn(move || {
        loop {
            let mut descriptors = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
            match poll(&mut descriptors, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => {
                    tracing::error!(%errno, "cannot watch the mount table: new mounts stay unclassified until the next reload");
                    return;
                }
            }
            let changed = descriptors[0].revents().is_some_and(|events| !events.is_empty());
            if changed && matches!(sender.try_send(()), Err(mpsc::error::TrySendError::Closed(()))) {
                return;
            }
        }
    })?;
    Ok(receiver)
}
