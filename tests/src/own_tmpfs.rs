//! A tmpfs that a subject mounts: its own, and nobody else's.

use std::fs::{self, File};
use std::io::{self, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::waitpid;
use serde_json::Value;

use crate::attempt::{Outcome, Running, attempt, eventually, start};
use crate::bundle::{Bundle, forbid, permit, within};
use crate::case::{Case, refusal};
use crate::elf;
use crate::family::{Part, tests};
use crate::file::{read, write};
use crate::identity::own_user_namespace;
use crate::layout::{self, path};
use crate::raw;
use crate::users::{AGENT, CI, Identity};

pub(crate) const PART: Part = Part {
    name: "own-tmpfs",
    bundle,
    prepare,
    tests: tests!(
        smoke: [a_tmpfs_is_its_makers_own],
        others: [
            a_tmpfs_is_nobody_elses,
            a_tmpfs_made_with_the_new_mount_calls_is_its_makers_own,
            a_tmpfs_is_the_same_through_a_bind_and_a_clone,
            an_overlay_on_ones_own_tmpfs_is_refused,
            names_count_on_ones_own_tmpfs,
            executing_from_ones_own_tmpfs_needs_its_own_permit,
            a_socket_on_ones_own_tmpfs_is_ones_own,
            devices_on_ones_own_tmpfs_are_refused,
            mounting_the_devtmpfs_again_makes_it_nobodys_own,
            a_tmpfs_mounted_on_the_host_does_not_become_the_place,
            the_memory_of_a_tmpfs_that_ended_says_nothing,
            a_tmpfs_too_many_is_unknown,
        ],
    ),
};

/// May do everything but execute on a tmpfs of its own.
const MAKER: Identity = Identity::new("tmpfs-maker", 2310);
/// The same.
const OTHER: Identity = Identity::new("tmpfs-other", 2311);
/// May execute there as well.
const RUNNER: Identity = Identity::new("tmpfs-runner", 2312);
/// `CAP_SYS_ADMIN` (include/uapi/linux/capability.h).
const SYS_ADMIN: u64 = 1 << 21;
/// `CAP_MKNOD`.
const MKNOD: u64 = 1 << 27;
/// What a subject can have mounted at a time and still be its own (`FILE_SYSTEMS` in the programs).
const NOTED: usize = 4096;

const NONE: Option<&str> = None;
const OPTIONS: Option<&str> = Some("mode=777");

fn prepare() -> Result<()> {
    layout::create()?;
    layout::directory(&at())?;
    layout::directory(&path("open/by-subject"))
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let mut policy = String::new();
    let mut bundle = bundle;
    let own = within(&["guard:own-tmpfs"]);
    for Identity { name, uid, .. } in [MAKER, OTHER, RUNNER] {
        bundle = bundle.subject(name, &format!("user = \"{uid}\""));
        policy += &permit(&format!("{name}-own"), name, &["file.*", "unix.*"], &own);
        policy += &permit(&format!("{name}-proc"), name, &["file.*"], &within(&["guard:own-proc"]));
    }
    policy += &permit("runner-exec", RUNNER.name, &["exec.*"], &own);
    policy += &forbid(
        "names",
        MAKER.name,
        &["file.read"],
        "resource in Guard::Name::\".ssh\" || resource.name like \"*.pem\"",
    );
    Ok(bundle.policy("own-tmpfs", policy))
}

/// Where it is mounted.
fn at() -> PathBuf {
    path("tmpfs-here")
}

/// Mounts a new one in namespaces of one's own.
fn mount_new() -> io::Result<()> {
    own_user_namespace(CloneFlags::CLONE_NEWNS)?;
    Ok(mount(Some("tmpfs"), &at(), Some("tmpfs"), MsFlags::empty(), OPTIONS)?)
}

/// A file with everybody's permission.
fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    File::create(path)?.write_all(content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
}

/// Writes, reads and lists there.
fn use_tree(tree: &Path) -> io::Result<()> {
    fs::create_dir(tree.join("directory"))?;
    create(&tree.join("directory/file"), b"content")?;
    write(tree.join("directory/file"))?;
    read(tree.join("directory/file"))?;
    match fs::read_dir(tree)?.count() {
        1 => Ok(()),
        other => Err(io::Error::other(format!("{other} entries"))),
    }
}

fn through(fd: &OwnedFd, name: &str) -> PathBuf {
    Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string()).join(name)
}

fn a_tmpfs_is_its_makers_own(case: &Case<'_>) -> Result<()> {
    let work = || {
        mount_new()?;
        use_tree(&at())
    };
    case.allowed(MAKER, work)?;
    // Nothing permits it to this subject, wherever it is mounted.
    case.refused(refusal(AGENT, "file.write").at("/directory/file"), work)
}

/// A process that stays as it is until this ends.
struct Kept(Running);

impl Kept {
    /// Has `who` do something and then stay.
    fn start(who: Identity, action: impl Fn() -> io::Result<()>) -> Result<Self> {
        let (mut ready, tell) = pipe().context("make a pipe")?;
        let kept = Self(start(who, || {
            action()?;
            (&tell).write_all(b".")?;
            loop {
                nix::unistd::pause();
            }
        })?);
        drop(tell);
        // Nothing comes if the action failed.
        match ready.read(&mut [0]).context("wait for a process")? {
            1 => Ok(kept),
            _ => bail!("the process of {} does not stay: {:?}", who.name, attempt(who, action)?),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = kill(self.0.pid(), Signal::SIGKILL);
        let _ = waitpid(self.0.pid(), None);
    }
}

/// The root of a tmpfs of `who` with a file in it, which stays mounted as long as the descriptor is open.
fn tmpfs_of(who: Identity) -> Result<OwnedFd> {
    let maker = Kept::start(who, || {
        mount_new()?;
        create(&at().join("file"), b"content")
    })?;
    let inside = format!("/proc/{}/root{}", maker.0.pid(), at().display());
    raw::open_path(Path::new(&inside)).context("open the tmpfs of another process")
}

fn a_tmpfs_is_nobody_elses(case: &Case<'_>) -> Result<()> {
    // The other subject has the same rights on every tmpfs of its own.
    let root = tmpfs_of(MAKER)?;
    let read_it = || read(through(&root, "file"));
    case.refused(refusal(OTHER, "file.read").at("/file"), read_it)?;
    case.refused(refusal(OTHER, "dir.list"), || fs::read_dir(through(&root, "")).map(drop))?;
    // Another process with the maker's label.
    case.allowed(MAKER, read_it)
}

fn a_tmpfs_made_with_the_new_mount_calls_is_its_makers_own(case: &Case<'_>) -> Result<()> {
    let detached = || {
        own_user_namespace(CloneFlags::CLONE_NEWNS)?;
        let root = raw::fsmount(&raw::new_tmpfs()?)?;
        use_tree(&through(&root, ""))
    };
    case.allowed(MAKER, detached)?;
    case.refused(refusal(AGENT, "file.write").at("/directory/file"), detached)
}

fn a_tmpfs_is_the_same_through_a_bind_and_a_clone(case: &Case<'_>) -> Result<()> {
    let bound = || {
        mount_new()?;
        let (from, to) = (at().join("from"), at().join("to"));
        fs::create_dir(&from)?;
        fs::create_dir(&to)?;
        mount(Some(&from), &to, NONE, MsFlags::MS_BIND, NONE)?;
        use_tree(&to)?;
        let tree = raw::open_tree_clone(&from)?;
        read(through(&tree, "directory/file"))
    };
    case.allowed(MAKER, bound)?;
    case.refused(refusal(AGENT, "file.write"), bound)?;
    // What is bound into it stays what it was.
    case.refused(refusal(MAKER, "file.read").at("shut/secret"), || {
        mount_new()?;
        let to = at().join("to");
        fs::create_dir(&to)?;
        mount(Some(&path("shut")), &to, NONE, MsFlags::MS_BIND, NONE)?;
        read(to.join("secret"))
    })
}

fn an_overlay_on_ones_own_tmpfs_is_refused(case: &Case<'_>) -> Result<()> {
    case.refused(refusal(MAKER, "file.read").at("/file"), || {
        mount_new()?;
        for name in ["lower", "lowest", "merged"] {
            fs::create_dir(at().join(name))?;
        }
        create(&at().join("lower/file"), b"content")?;
        let options = format!("lowerdir={0}/lower:{0}/lowest,userxattr", at().display());
        let merged = at().join("merged");
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(&*options))?;
        read(merged.join("file"))
    })
}

fn names_count_on_ones_own_tmpfs(case: &Case<'_>) -> Result<()> {
    let made = |name: &str| {
        mount_new()?;
        let file = at().join(name);
        fs::create_dir_all(at().join(".ssh"))?;
        create(&file, b"content")?;
        io::Result::Ok(file)
    };
    case.allowed(MAKER, || read(made("notes")?))?;
    case.refused(refusal(MAKER, "file.read").at("/.ssh/key"), || read(made(".ssh/key")?))?;
    case.refused(refusal(MAKER, "file.read").at("/a.pem"), || read(made("a.pem")?))?;
    case.refused(refusal(MAKER, "file.read").at("/.ssh/key"), || {
        let file = made(".ssh/key")?;
        fs::create_dir(at().join("to"))?;
        let to = at().join("to");
        mount(file.parent(), &to, NONE, MsFlags::MS_BIND, NONE)?;
        read(to.join("key"))
    })?;
    case.allowed(MAKER, || {
        made(".ssh/key")?;
        fs::rename(at().join(".ssh"), at().join("renamed"))?;
        read(at().join("renamed/key"))
    })
}

fn executing_from_ones_own_tmpfs_needs_its_own_permit(case: &Case<'_>) -> Result<()> {
    let program = || {
        mount_new()?;
        create(&at().join("program"), &elf::exits_with(0))?;
        Ok(at().join("program"))
    };
    let execute = || {
        let program: io::Result<PathBuf> = program();
        match std::process::Command::new(program?).status()?.success() {
            true => Ok(()),
            false => Err(io::Error::other("the program failed")),
        }
    };
    let map = || {
        let program: io::Result<PathBuf> = program();
        let file = File::open(program?)?;
        raw::map_page(Some(file.as_fd()), libc::PROT_READ | libc::PROT_EXEC)
    };
    case.refused(refusal(MAKER, "exec").at("/program"), execute)?;
    case.refused(refusal(MAKER, "exec.map").at("/program"), map)?;
    case.allowed(RUNNER, execute)?;
    case.allowed(RUNNER, map)
}

fn a_socket_on_ones_own_tmpfs_is_ones_own(case: &Case<'_>) -> Result<()> {
    let connect = || {
        mount_new()?;
        let name = at().join("socket");
        let listener = UnixListener::bind(&name)?;
        UnixStream::connect(&name)?;
        drop(listener);
        Ok(())
    };
    case.allowed(MAKER, connect)?;
    case.refused(refusal(AGENT, "unix.connect").at("/socket"), connect)
}

/// Mounts a new file system in a mount namespace of one's own, with the rights of root.
fn mount_as_root(kind: &str) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    Ok(mount(Some(kind), &at(), Some(kind), MsFlags::empty(), OPTIONS)?)
}

/// The number of a block device of this guest.
fn block_device() -> Result<(u64, u64)> {
    let mut devices = fs::read_dir("/sys/class/block").context("list block devices")?.flatten();
    let any = devices.next().context("this guest has no block device")?.path().join("dev");
    let text = fs::read_to_string(&any).with_context(|| format!("read {}", any.display()))?;
    let (major, minor) = text.trim().split_once(':').context("the number of a device")?;
    Ok((major.parse().context("a number")?, minor.parse().context("a number")?))
}

fn devices_on_ones_own_tmpfs_are_refused(case: &Case<'_>) -> Result<()> {
    let open = |kind: SFlag, (major, minor): (u64, u64), writes: bool| {
        mount_as_root("tmpfs")?;
        let node = at().join("node");
        mknod(&node, kind, Mode::from_bits_truncate(0o666), makedev(major, minor))?;
        layout::mode(&node, 0o666).map_err(io::Error::other)?;
        File::options().read(!writes).write(writes).open(node).map(drop)
    };
    let maker = MAKER.with(SYS_ADMIN | MKNOD);
    let disk = block_device()?;
    case.refused(refusal(maker, "file.read").at("/node"), || open(SFlag::S_IFBLK, disk, false))?;
    let kmsg = (1, 11);
    case.refused(refusal(maker, "file.write").at("/node"), || open(SFlag::S_IFCHR, kmsg, true))?;
    // These are judged by what they are, wherever they are.
    case.allowed(maker, || open(SFlag::S_IFCHR, (1, 3), true))
}

fn mounting_the_devtmpfs_again_makes_it_nobodys_own(case: &Case<'_>) -> Result<()> {
    let devices = path("devtmpfs");
    layout::directory(&devices)?;
    mount(Some("devtmpfs"), &devices, Some("devtmpfs"), MsFlags::empty(), NONE)
        .context("mount a devtmpfs")?;
    layout::file(&devices.join("own-tmpfs-file"), b"content\n")?;
    let result = case.refused(refusal(MAKER.with(SYS_ADMIN), "file.read").at("own-tmpfs-file"), || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        mount(Some("devtmpfs"), &at(), Some("devtmpfs"), MsFlags::empty(), NONE)?;
        read(at().join("own-tmpfs-file"))
    });
    fs::remove_file(devices.join("own-tmpfs-file")).context("remove a file")?;
    umount2(&devices, MntFlags::MNT_DETACH).context("unmount the devtmpfs")?;
    result
}

fn generation(case: &Case<'_>) -> Result<u64> {
    let Some(daemon) = case.daemon() else { return Ok(0) };
    daemon.status()?["generation"].as_u64().context("the status has no generation")
}

fn a_tmpfs_mounted_on_the_host_does_not_become_the_place(case: &Case<'_>) -> Result<()> {
    // Policy permits everything below this directory, and says nothing of a tmpfs of the subject's own.
    let target = path("open/by-subject");
    let before = generation(case)?;
    let mounted = attempt(AGENT.with(SYS_ADMIN), || {
        Ok(mount(Some("tmpfs"), &target, Some("tmpfs"), MsFlags::empty(), OPTIONS)?)
    })?;
    ensure!(mounted == Outcome::Worked, "mounting on the host: {mounted:?}");
    let result = layout::file(&target.join("file"), b"content\n").and_then(|()| {
        let known = || Ok(case.daemon().is_none() || generation(case)? > before);
        eventually("the agent has seen the mount", known)?;
        case.refused(refusal(AGENT, "file.read").at("/file"), || read(target.join("file")))?;
        case.refused(refusal(CI, "file.read").at("/file"), || read(target.join("file")))
    });
    umount2(&target, MntFlags::MNT_DETACH).context("unmount it")?;
    result
}

fn the_memory_of_a_tmpfs_that_ended_says_nothing(case: &Case<'_>) -> Result<()> {
    const AT_ONCE: usize = 48;
    for _ in 0..4 {
        let ended = attempt(MAKER, || {
            own_user_namespace(CloneFlags::CLONE_NEWNS)?;
            let made: io::Result<Vec<OwnedFd>> = (0..AT_ONCE).map(|_| raw::new_tmpfs()).collect();
            made.map(drop)
        })?;
        ensure!(ended == Outcome::Worked, "making file systems: {ended:?}");
        // Their memory is given back after a grace period.
        raw::wait_for_every_processor().context("wait for a grace period")?;
        let made = (0..2 * AT_ONCE).map(|_| {
            let root = raw::fsmount(&raw::new_tmpfs()?)?;
            create(&through(&root, "file"), b"content")?;
            Ok(root)
        });
        let made: Vec<OwnedFd> = made.collect::<io::Result<_>>().context("make file systems as root")?;
        case.refused(refusal(MAKER, "file.read").at("/file"), || {
            let opened = made.iter().map(|root| read(through(root, "file")));
            // One that can be read is one too many.
            opened.reduce(|one, other| one.or(other)).unwrap_or(Ok(()))
        })?;
        case.tried(2 * AT_ONCE as u64);
    }
    Ok(())
}

fn a_tmpfs_too_many_is_unknown(case: &Case<'_>) -> Result<()> {
    let files = 2 * NOTED as u64;
    setrlimit(Resource::RLIMIT_NOFILE, files, files).context("allow more open files")?;
    let hoard = Kept::start(OTHER, || {
        own_user_namespace(CloneFlags::CLONE_NEWNS)?;
        let made: io::Result<Vec<OwnedFd>> = (0..=NOTED).map(|_| raw::new_tmpfs()).collect();
        std::mem::forget(made?);
        Ok(())
    })?;
    let work = || {
        mount_new()?;
        use_tree(&at())
    };
    case.refused(refusal(MAKER, "file.write").at("/directory/file"), work)?;
    if let Some(daemon) = case.daemon() {
        let status = daemon.status()?;
        let counted = status.pointer("/counters/file_systems_not_noted").and_then(Value::as_u64);
        ensure!(counted.is_some_and(|count| count > 0), "the status counts {counted:?} file systems");
    }
    drop(hoard);
    eventually("there is room again", || Ok(attempt(MAKER, work)? == Outcome::Worked))
}
