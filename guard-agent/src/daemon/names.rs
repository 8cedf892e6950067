//! Tells when something that the live tables follow from changes on the host: where a symbolic link
//! leads, who an account is, which resolvers and artifact lists there are.
//!
//! Directories are watched (inotify(7)), not the names in them, so a name that does not exist yet is
//! watched as well. A change of another name in such a directory costs a look-up and nothing more.

use crate::host::Answers;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Least time between two readings: how often a busy directory can wake the agent, and how late a
/// change may be noticed. The kernel keeps what happens meanwhile.
const INTERVAL: Duration = Duration::from_millis(200);

/// A watch on everything that the live tables follow from.
#[derive(Clone)]
pub(super) struct Watch(Arc<Inner>);

struct Inner {
    inotify: Inotify,
    followed: Mutex<Followed>,
    changed: mpsc::Sender<()>,
}

#[derive(Default)]
struct Followed {
    answers: Answers,
    /// What they depend on.
    paths: BTreeSet<PathBuf>,
    /// Directories of which they depend on everything.
    whole: BTreeSet<PathBuf>,
    directories: HashMap<PathBuf, WatchDescriptor>,
}

impl Watch {
    /// Starts a thread that sends a message when an answer is another one than in what is followed. At
    /// first, that is nothing.
    ///
    /// # Errors
    /// If the kernel gives no inotify instance or the thread cannot be started.
    pub(super) fn start() -> std::io::Result<(Self, mpsc::Receiver<()>)> {
        // One message waiting is enough: it stands for all changes up to its reception.
        let (changed, receiver) = mpsc::channel(1);
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
        let watch = Self(Arc::new(Inner { inotify, followed: Mutex::default(), changed }));
        let inner = Arc::clone(&watch.0);
        std::thread::Builder::new().name("names".to_owned()).spawn(move || inner.run())?;
        Ok((watch, receiver))
    }

    /// Follows `answers` from now on, and nothing else.
    ///
    /// # Errors
    /// Which directory cannot be watched, and why; the others are.
    pub(super) fn follow(&self, answers: Answers) -> Result<(), String> {
        let mut followed = self.0.followed();
        followed.paths = answers.paths();
        followed.whole = answers.directories();
        followed.answers = answers;
        let result = self.0.watch(&mut followed);
        // What changed between the question and the watch is noticed by nobody else.
        if followed.answers.difference().is_some() {
            let _ = self.0.changed.try_send(());
        }
        result
    }
}

impl Inner {
    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the directories of what is followed, and no other.
    fn watch(&self, followed: &mut Followed) -> Result<(), String> {
        let mut result = Ok(());
        let above = followed.paths.iter().filter_map(|path| path.parent());
        let wanted: BTreeSet<&Path> = above.chain(followed.whole.iter().map(PathBuf::as_path)).collect();
        let mut directories = HashMap::with_capacity(wanted.len());
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_ONLYDIR;
        for directory in wanted {
            match self.inotify.add_watch(directory, flags) {
                Ok(descriptor) => drop(directories.insert(directory.to_owned(), descriptor)),
                // Nothing is below what does not exist; its appearance is seen from above.
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => result = result.and(Err(unwatched(directory, errno))),
            }
        }
        // The same directory has the same descriptor, also by another path.
        let kept: Vec<&WatchDescriptor> = directories.values().collect();
        for old in followed.directories.values().filter(|old| !kept.contains(old)) {
            // It may be gone with its directory.
            let _ = self.inotify.rm_watch(*old);
        }
        followed.directories = directories;
        result
    }

    fn run(&self) {
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EINTR) => continue,
                Err(errno) => {
                    tracing::error!(%errno, "cannot watch names: what paths lead to is looked up at the next reload");
                    return;
                }
            };
            let followed = self.followed();
            let concerned = events.iter().any(|event| followed.concerns(event));
            let difference = concerned.then(|| followed.answers.difference()).flatten();
            drop(followed);
            if let Some(difference) = difference {
                tracing::info!("{difference} is something else now: the policy is compiled anew");
                if matches!(self.changed.try_send(()), Err(mpsc::error::TrySendError::Closed(()))) {
                    return;
                }
            }
            std::thread::sleep(INTERVAL);
        }
    }
}

impl Followed {
    fn concerns(&self, event: &InotifyEvent) -> bool {
        // Events were lost: anything may have happened.
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return true;
        }
        let Some(name) = &event.name else { return false };
        let mut of_it = self.directories.iter().filter(|(_, descriptor)| **descriptor == event.wd);
        of_it.any(|(directory, _)| {
            self.whole.contains(directory) || self.paths.contains(&directory.join(name))
        })
    }
}

fn unwatched(directory: &Path, errno: Errno) -> String {
    let help = match errno {
        Errno::ENOSPC => "; raise fs.inotify.max_user_watches (sysctl)",
        _ => "",
    };
    format!("cannot watch {}: {errno}{help}", directory.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Asked, Host};
    use std::os::unix::fs::symlink;

    #[tokio::test]
    async fn a_link_that_leads_elsewhere_is_told_and_another_name_is_not() {
        let directory = std::env::temp_dir().join(format!("guard-names-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        let link = directory.join("current");
        symlink("release-1", &link).unwrap();
        let (watch, mut changes) = Watch::start().unwrap();
        let follow = || {
            let asked = Asked::new(&Host::read().unwrap());
            crate::host::Lookup::entry(&asked, &link);
            watch.follow(asked.answers()).unwrap();
        };
        follow();
        std::fs::write(directory.join("other"), "").unwrap();
        symlink("release-2", directory.join("new")).unwrap();
        std::fs::rename(directory.join("new"), &link).unwrap();
        changes.recv().await.unwrap();
        // The same again is nothing new.
        follow();
        std::fs::write(directory.join("another"), "").unwrap();
        std::thread::sleep(2 * INTERVAL);
        assert!(changes.try_recv().is_err());
        std::fs::remove_file(&link).unwrap();
        changes.recv().await.unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
