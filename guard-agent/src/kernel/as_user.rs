//! Doing something with the rights that another user has on files.

use nix::libc;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use std::io;
use std::thread;

/// Runs `work` in a thread that opens files as this user, with these groups and without root's capabilities on
/// files: the kernel takes those away when the user that counts for files is not root any more (capabilities(7)).
///
/// # Errors
/// If the thread cannot become that user; nothing was done then.
pub fn as_user<T: Send>(
    uid: u32,
    gid: u32,
    groups: &[u32],
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("as-user".to_owned()).spawn_scoped(scope, || {
            become_user(uid, gid, groups)?;
            Ok(work())
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that reads files panicked")))
    })
}

/// Changes what counts for files, of this thread alone.
fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // The library's setgroups(3) would change every thread of the process.
    // SAFETY: address and number are those of the slice; the call reads it.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setfsgid(group);
    setfsuid(user);
    // They report no failure; each answers what counted before (setfsuid(2)).
    if setfsgid(group) == group && setfsuid(user) == user {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_of_others_are_not_opened_and_this_thread_stays_what_it_is() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not tried: only root can read files as somebody else");
            return;
        }
        let path = std::env::temp_dir().join(format!("guard-as-user-{}", std::process::id()));
        std::fs::write(&path, "x").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let opens =
            |uid, gid, groups: &[u32]| as_user(uid, gid, groups, || File::open(&path).is_ok()).unwrap();
        mode(0o600);
        assert!(!opens(65534, 65534, &[]), "root's own file");
        assert!(File::open(&path).is_ok(), "this thread");
        mode(0o640);
        assert!(!opens(65534, 65534, &[]), "of root's group");
        assert!(opens(65534, 65534, &[0]) && opens(65534, 0, &[]), "by a member of the group");
        mode(0o644);
        assert!(opens(65534, 65534, &[]));
        std::fs::remove_file(&path).unwrap();
    }
}
