//! Other doors to the same files: old and new calls, handles, other processes, devices, races, and what
//! the kernel forgets.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{OFlag, openat};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;

use crate::attempt::{Outcome, start};
use crate::bundle::{Bundle, one_of, permit};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::file::{read, write};
use crate::identity::own_user_namespace;
use crate::layout::{self, ROOT, TREES, canary, path};
use crate::puppet::Puppet;
use crate::raw::{self, SharedCounters};
use crate::users::{AGENT, FREE, READ_SEARCH};

pub(crate) const PART: Part = Part {
    name: "doors",
    bundle,
    prepare,
    tests: tests!(
        others: [
            old_and_new_calls_to_open_are_refused,
            a_handle_of_a_directory_leads_to_what_is_refused,
            a_mount_made_writable_again_is_refused,
            the_root_of_another_process_is_no_way,
            a_directory_moved_out_of_a_mount_is_judged_by_its_place,
            the_mark_of_deleted_files_is_no_name,
            raw_devices_are_refused,
            devices_that_anybody_may_use_are_refused,
            a_symbolic_link_that_changes_never_leads_to_what_is_refused,
            what_the_kernel_forgets_changes_nothing,
        ],
    ),
};

const NONE: Option<&str> = None;

fn prepare() -> Result<()> {
    layout::create()?;
    layout::directory(&path("open/mnt"))
}

/// A file with the name that the kernel prints for one that is deleted.
fn marked() -> PathBuf {
    path("spoof/tool (deleted)")
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    Ok(bundle.policy("doors", permit("doors-marked", "agent", &["file.*"], &one_of(&[marked()]))))
}

fn secret() -> PathBuf {
    canary(ROOT)
}

fn notes() -> PathBuf {
    path("open/notes")
}

/// For reference only.
fn open_path(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_PATH).open(path)
}

fn old_and_new_calls_to_open_are_refused(case: &Case<'_>) -> Result<()> {
    // include/uapi/linux/openat2.h.
    const RESOLVE_NO_XDEV: u64 = 1;
    const RESOLVE_NO_MAGICLINKS: u64 = 2;
    const RESOLVE_BENEATH: u64 = 8;
    const RESOLVE_IN_ROOT: u64 = 16;
    let refused = |action| refusal(AGENT, action).at("shut/secret");
    case.refused(refused("file.read"), || raw::old_open(&secret()).map(drop)).context("open")?;
    case.allowed(AGENT, || raw::old_open(&notes()).map(drop)).context("open")?;
    case.refused(refused("file.write"), || raw::creat(&secret()).map(drop)).context("creat")?;
    case.allowed(AGENT, || raw::creat(&path("open/created")).map(drop)).context("creat")?;
    for resolve in [RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT] {
        let context = || format!("openat2 with resolve {resolve}");
        let open = |directory: &str, name: &str| {
            nix::unistd::chdir(&path(directory))?;
            raw::openat2(Path::new(name), libc::O_RDONLY, resolve).map(drop)
        };
        case.refused(refused("file.read"), || open("shut", "secret")).with_context(context)?;
        case.allowed(AGENT, || open("open", "notes")).with_context(context)?;
    }
    Ok(())
}

fn a_handle_of_a_directory_leads_to_what_is_refused(case: &Case<'_>) -> Result<()> {
    let agent = AGENT.with(READ_SEARCH);
    // Overlayfs has no handles of its own unless it is mounted to, so the others are used.
    for (kind, root) in TREES.iter().filter(|(kind, _)| !kind.contains("overlay")) {
        let root = Path::new(root);
        let open = |directory: &str, name: &str| {
            let here = File::open(root.join("open"))?;
            let directory = raw::open_by_handle_with(&here, &root.join(directory), libc::O_PATH)?;
            openat(&directory, name, OFlag::O_RDONLY, Mode::empty()).map(drop)?;
            Ok(())
        };
        let refused = refusal(agent, "file.read").at("shut/secret");
        case.refused(refused, || open("shut", "secret")).context(*kind)?;
        case.allowed(agent, || open("open", "notes")).context(*kind)?;
    }
    Ok(())
}

fn a_mount_made_writable_again_is_refused(case: &Case<'_>) -> Result<()> {
    let place = path("open/mnt");
    let through = |directory: PathBuf, name: &str| {
        own_user_namespace(CloneFlags::CLONE_NEWNS)?;
        mount(Some(&directory), &place, NONE, MsFlags::MS_BIND, NONE)?;
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(NONE, &place, NONE, read_only, NONE)?;
        match write(place.join(name)) {
            Err(error) if error.raw_os_error() == Some(libc::EROFS) => {}
            other => return Err(io::Error::other(format!("writing to a read-only mount: {other:?}"))),
        }
        raw::make_writable(&place)?;
        write(place.join(name))
    };
    case.refused(refusal(AGENT, "file.write").at("shut/secret"), || through(path("shut"), "secret"))?;
    case.allowed(AGENT, || through(path("open"), "notes"))
}

fn the_root_of_another_process_is_no_way(case: &Case<'_>) -> Result<()> {
    let (sibling, free) = (Puppet::start(AGENT)?, Puppet::start(FREE)?);
    let below = |pid: nix::unistd::Pid, link: &str, file: &Path| {
        PathBuf::from(format!("/proc/{pid}/{link}")).join(file.strip_prefix("/").unwrap_or(file))
    };
    for link in ["root", "task/../root"] {
        let refused = refusal(AGENT, "file.read").at("shut/secret").only_labelled();
        case.refused(refused, || read(below(sibling.pid(), link, &secret()))).context(link)?;
        case.allowed(FREE, || read(below(free.pid(), link, &secret()))).context(link)?;
        case.allowed(AGENT, || read(below(sibling.pid(), link, &notes()))).context(link)?;
    }
    [sibling, free].into_iter().try_for_each(Puppet::end)
}

fn a_directory_moved_out_of_a_mount_is_judged_by_its_place(case: &Case<'_>) -> Result<()> {
    let (shown, seen, away) = (path("open/shown"), path("open/seen"), path("shut/moved"));
    for directory in [&shown, &seen] {
        layout::empty_directory(directory)?;
    }
    let _ = fs::remove_dir_all(&away);
    layout::file(&shown.join("part/file"), b"content\n")?;
    mount(Some(&shown), &seen, NONE, MsFlags::MS_BIND, NONE).context("bind")?;
    let result = (|| {
        let directory: OwnedFd = open_path(&seen.join("part")).context("open the directory")?.into();
        let open = || Ok(openat(directory.as_fd(), "file", OFlag::O_RDONLY, Mode::empty()).map(drop)?);
        case.allowed(AGENT, open)?;
        // From here on it lies outside of what the mount shows.
        fs::rename(shown.join("part"), &away).context("move the directory")?;
        case.refused(refusal(AGENT, "file.read").at("shut/moved/file"), open)?;
        fs::rename(&away, shown.join("part")).context("move it back")?;
        case.allowed(AGENT, open)
    })();
    umount2(&seen, MntFlags::MNT_DETACH).context("unmount")?;
    result
}

fn the_mark_of_deleted_files_is_no_name(case: &Case<'_>) -> Result<()> {
    let tool = path("spoof/tool");
    for file in [&tool, &marked()] {
        layout::file(file, b"content\n")?;
    }
    case.refused(refusal(AGENT, "file.read").at("spoof/tool"), || read(&tool))?;
    case.allowed(AGENT, || read(marked()))?;
    let handle = open_path(&tool).context("open the file")?;
    let again = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    fs::remove_file(&tool).context("remove the file")?;
    // The kernel prints the name that is permitted.
    let printed = fs::read_link(&again).context("read the link")?;
    ensure!(printed == marked(), "the kernel prints {}", printed.display());
    case.refused(refusal(AGENT, "file.read"), || read(&again))
}

/// Lets everybody open a device while `test` runs.
fn with_mode(device: &Path, test: impl Fn() -> Result<()>) -> Result<()> {
    let before = device.metadata().with_context(|| device.display().to_string())?.permissions();
    fs::set_permissions(device, PermissionsExt::from_mode(0o666)).context("chmod")?;
    let result = test();
    fs::set_permissions(device, before).context("chmod")?;
    result
}

fn raw_devices_are_refused(case: &Case<'_>) -> Result<()> {
    let mounted = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    let disks: Vec<&Path> = mounted
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|device| device.starts_with("/dev/vd"))
        .map(Path::new)
        .collect();
    ensure!(!disks.is_empty(), "this guest has no disk");
    for disk in disks {
        with_mode(disk, || {
            case.refused(refusal(AGENT, "file.read").at(disk), || read(disk))?;
            case.refused(refusal(AGENT, "file.write").at(disk), || {
                File::options().write(true).open(disk).map(drop)
            })
        })
        .with_context(|| disk.display().to_string())?;
    }
    Ok(())
}

fn devices_that_anybody_may_use_are_refused(case: &Case<'_>) -> Result<()> {
    for module in ["fuse", "tun"] {
        layout::run("modprobe", &[module])?;
    }
    let both = |name: &Path| File::options().read(true).write(true).open(name).map(drop);
    for name in ["/dev/fuse", "/dev/net/tun", "/dev/ptmx"].map(Path::new) {
        with_mode(name, || case.refused(refusal(AGENT, "file.write").at(name), || both(name)))
            .with_context(|| name.display().to_string())?;
    }
    for directory in ["open", "shut"] {
        let fifo = path(directory).join("fifo");
        let _ = fs::remove_file(&fifo);
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o666)).context("make a fifo")?;
        layout::mode(&fifo, 0o666)?;
    }
    case.refused(refusal(AGENT, "file.write").at("shut/fifo"), || both(&path("shut/fifo")))?;
    case.allowed(AGENT, || both(&path("open/fifo")))
}

fn a_symbolic_link_that_changes_never_leads_to_what_is_refused(case: &Case<'_>) -> Result<()> {
    const OPENS: u64 = 5_000;
    let rounds = if case.full { 200 } else { 1 };
    let directory = path("open/race");
    layout::empty_directory(&directory)?;
    let link = directory.join("link");
    symlink(notes(), &link).context("make a link")?;
    let stop = SharedCounters::new().context("share memory")?;
    let swapper = start(FREE, || {
        let other = directory.join("other");
        while stop.at(0).load(Ordering::Relaxed) == 0 {
            for target in [secret(), notes()] {
                let _ = fs::remove_file(&other);
                symlink(target, &other)?;
                fs::rename(&other, &link)?;
            }
        }
        Ok(())
    })?;
    let reached = fs::read(secret()).context("read the canary")?;
    // Works as soon as one open led to the canary.
    let race = || {
        for _ in 0..OPENS {
            let mut found = Vec::new();
            match File::open(&link) {
                Ok(mut file) => file.read_to_end(&mut found).map(drop)?,
                Err(error) if error.raw_os_error() == Some(libc::EACCES) => continue,
                Err(error) => return Err(error),
            }
            if found == reached {
                return Ok(());
            }
        }
        Err(io::Error::from_raw_os_error(libc::EACCES))
    };
    let result = (0..rounds).try_for_each(|_| {
        case.tried(OPENS);
        case.refused(refusal(AGENT, "file.read").at("shut/secret"), race)
    });
    stop.at(0).store(1, Ordering::Relaxed);
    let swapped = swapper.outcome()?;
    ensure!(swapped == Outcome::Worked, "whoever changes the link: {swapped:?}");
    result
}

fn what_the_kernel_forgets_changes_nothing(case: &Case<'_>) -> Result<()> {
    for _ in 0..if case.full { 20 } else { 2 } {
        for (kind, root) in TREES {
            let refused = refusal(AGENT, "file.read").at("gt/shut/secret");
            case.refused(refused, || read(canary(root))).context(kind)?;
            case.allowed(AGENT, || read(Path::new(root).join("open/notes"))).context(kind)?;
        }
        fs::write("/proc/sys/vm/drop_caches", "3").context("drop caches")?;
    }
    Ok(())
}
