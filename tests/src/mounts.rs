//! The same files through other mounts: bind mounts, detached trees, chroots of mounts, overlays and
//! new file systems, made by the subject in namespaces of its own or by root.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;

use crate::attempt::{Outcome, attempt, eventually};
use crate::bundle::{Bundle, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::file::{read, write};
use crate::identity::own_user_namespace;
use crate::layout::{self, ROOT, canary, path};
use crate::raw;
use crate::users::AGENT;

pub(crate) const PART: Part = Part {
    name: "mounts",
    bundle,
    prepare,
    tests: tests!(
        smoke: [a_bind_mount_in_an_own_namespace_is_refused],
        others: [
            a_detached_tree_is_refused,
            a_pivoted_root_is_refused,
            a_new_tmpfs_of_the_subject_is_refused,
            an_overlay_of_the_subject_is_refused,
            copy_up_works_where_writing_is_permitted,
            a_file_system_that_root_mounts_below_a_permitted_directory_is_permitted,
            a_private_dev_is_judged_by_its_devices,
        ],
    ),
};

const NONE: Option<&str> = None;

fn prepare() -> Result<()> {
    layout::create()?;
    layout::directory(&path("open/mnt"))?;
    layout::directory(&path("open/by-root"))?;
    let dev = path("dev");
    if !dev.exists() {
        layout::directory(&dev)?;
        mount(Some("tmpfs"), &dev, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .context("mount a dev")?;
        for (name, major, minor) in [("null", 1, 3), ("zero", 1, 5), ("urandom", 1, 9), ("kmsg", 1, 11)] {
            let node = dev.join(name);
            let device = nix::sys::stat::makedev(major, minor);
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
            nix::sys::stat::mknod(&node, nix::sys::stat::SFlag::S_IFCHR, mode, device).context("mknod")?;
            layout::mode(&node, 0o666)?;
        }
    }
    Ok(())
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    // The base include speaks of /dev; nothing here permits the private one by its path.
    Ok(bundle.policy("mounts", permit("mounts-none", "agent", &["file.read"], &within(&[path("mounts")]))))
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    Ok(mount(Some(from), to, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?)
}

fn own_mounts() -> io::Result<()> {
    own_user_namespace(CloneFlags::CLONE_NEWNS)
}

fn a_bind_mount_in_an_own_namespace_is_refused(case: &Case<'_>) -> Result<()> {
    let through = |directory: PathBuf, name: &str| {
        own_mounts()?;
        bind(&directory, &path("open/mnt"))?;
        read(path("open/mnt").join(name))
    };
    case.refused(refusal(AGENT, "file.read").at("shut/secret"), || through(path("shut"), "secret"))?;
    case.allowed(AGENT, || through(path("open"), "notes"))?;
    // A single file over a permitted one.
    case.refused(refusal(AGENT, "file.write").at("shut/secret"), || {
        own_mounts()?;
        bind(&canary(ROOT), &path("open/notes"))?;
        write(path("open/notes"))
    })
}

fn a_detached_tree_is_refused(case: &Case<'_>) -> Result<()> {
    let detached = |directory: PathBuf, name: &str| {
        own_mounts()?;
        let tree = raw::open_tree_clone(&directory)?;
        read(format!("/proc/self/fd/{}/{name}", tree.as_raw_fd()))
    };
    case.refused(refusal(AGENT, "file.read").at("shut/secret"), || detached(path("shut"), "secret"))?;
    case.allowed(AGENT, || detached(path("open"), "notes"))
}

fn a_pivoted_root_is_refused(case: &Case<'_>) -> Result<()> {
    let pivoted = |directory: PathBuf, name: &str| {
        own_mounts()?;
        bind(&directory, &path("open/mnt"))?;
        nix::unistd::chdir(&path("open/mnt"))?;
        nix::unistd::pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        read(Path::new("/").join(name))
    };
    case.refused(refusal(AGENT, "file.read").at("shut/secret"), || pivoted(path("shut"), "secret"))?;
    case.allowed(AGENT, || pivoted(path("open"), "notes"))
}

fn a_new_tmpfs_of_the_subject_is_refused(case: &Case<'_>) -> Result<()> {
    case.refused(refusal(AGENT, "file.write"), || {
        own_mounts()?;
        mount(Some("tmpfs"), &path("open/mnt"), Some("tmpfs"), MsFlags::empty(), NONE)?;
        File::create(path("open/mnt/new"))?.write_all(b"new")
    })
}

fn an_overlay_of_the_subject_is_refused(case: &Case<'_>) -> Result<()> {
    // Nothing can be written to it, so it needs no directories of its own.
    let overlaid = || {
        own_mounts()?;
        let options = format!("lowerdir={}:{},userxattr", path("shut").display(), path("open").display());
        mount(Some("overlay"), &path("open/mnt"), Some("overlay"), MsFlags::empty(), Some(&*options))?;
        read(path("open/mnt/secret"))
    };
    case.refused(refusal(AGENT, "file.read").at("/secret"), overlaid)
}

fn copy_up_works_where_writing_is_permitted(case: &Case<'_>) -> Result<()> {
    let overlay = Path::new("/scratch/overlay/gt");
    let (lower, upper) = (overlay.join("open/lower"), Path::new("/scratch/ext4/layers/upper/gt/open/lower"));
    case.allowed(AGENT, || {
        write(&lower)?;
        read(&lower)
    })?;
    ensure!(upper.exists(), "writing to a file of the lower layer did not copy it up");
    // The layers themselves are other files, under names that policy does not permit.
    case.refused(refusal(AGENT, "file.read").at("upper/gt/open/lower"), || read(upper))?;
    case.refused(refusal(AGENT, "file.write").at("gt/shut/secret"), || write(overlay.join("shut/secret")))
}

fn a_file_system_that_root_mounts_below_a_permitted_directory_is_permitted(case: &Case<'_>) -> Result<()> {
    let target = path("open/by-root");
    mount(Some("tmpfs"), &target, Some("tmpfs"), MsFlags::empty(), Some("mode=777"))
        .context("mount a tmpfs")?;
    let result = layout::file(&target.join("file"), b"content\n").and_then(|()| {
        if case.daemon().is_some() {
            let works = || Ok(attempt(AGENT, || read(target.join("file")))? == Outcome::Worked);
            eventually("the new file system is known", works)?;
        }
        case.allowed(AGENT, || write(target.join("file")))
    });
    umount2(&target, MntFlags::MNT_DETACH).context("unmount it")?;
    result
}

fn a_private_dev_is_judged_by_its_devices(case: &Case<'_>) -> Result<()> {
    let dev = path("dev");
    for name in ["null", "zero", "urandom"] {
        case.allowed(AGENT, || File::options().read(true).write(true).open(dev.join(name)).map(drop))?;
    }
    case.refused(refusal(AGENT, "file.write").at("kmsg"), || {
        File::options().write(true).open(dev.join("kmsg")).map(drop)
    })
}
