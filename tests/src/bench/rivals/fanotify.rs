//! A fanotify listener that allows every open, read and execution on a file system.

use std::path::Path;

use anyhow::{Context, Result};
use guard_tests::raw;
use nix::fcntl::AT_FDCWD;
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};

/// The process of the listener, until dropped.
pub(crate) struct Listener(Pid);

impl Listener {
    /// Listens to the file system that is mounted at `root`.
    pub(crate) fn start(root: &Path) -> Result<Self> {
        let flags = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC;
        let group = Fanotify::init(flags, EventFFlags::O_RDONLY).context("fanotify_init")?;
        let events = MaskFlags::FAN_OPEN_PERM | MaskFlags::FAN_ACCESS_PERM | MaskFlags::FAN_OPEN_EXEC_PERM;
        // Before the fork, so that nothing passes it.
        group
            .mark(MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM, events, AT_FDCWD, Some(root))
            .context("fanotify_mark")?;
        // SAFETY: this program has one thread.
        match unsafe { nix::unistd::fork() }.context("fork")? {
            ForkResult::Parent { child } => Ok(Self(child)),
            ForkResult::Child => raw::exit_now(match listen(&group) {
                Ok(()) => 0,
                Err(_) => 1,
            }),
        }
    }
}

fn listen(group: &Fanotify) -> nix::Result<()> {
    loop {
        for event in group.read_events()? {
            if let Some(fd) = event.fd() {
                group.write_response(FanotifyResponse::new(fd, Response::FAN_ALLOW))?;
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // When it has ended, the kernel allows what still waits for it.
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}
