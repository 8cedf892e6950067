//! Files: reading, writing, appending, truncating, listing; under whatever name and through whatever
//! door.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::libc;

use crate::bundle::{Bundle, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::layout::{self, ROOT, TREES, canary, path};
use crate::raw;
use crate::users::{AGENT, CHROOT, READ_SEARCH};

pub(crate) const PART: Part = Part {
    name: "file",
    bundle,
    prepare,
    tests: tests!(
        smoke: [
            reading_is_refused_on_every_file_system,
            reading_through_a_symbolic_link_is_refused,
        ],
        others: [
            writing_is_refused_on_every_file_system,
            appending_and_truncating_are_decided_apart_from_writing,
            listing_a_directory_is_decided_apart_from_reading,
            every_way_to_open_a_file_is_refused,
            opening_for_nothing_but_ioctl_is_refused,
            reading_through_dots_and_relative_names_is_refused,
            reading_through_the_links_in_proc_is_refused,
            reopening_a_path_descriptor_is_refused,
            reading_by_handle_is_refused,
            reading_inside_a_chroot_is_refused,
            a_hard_link_is_judged_by_the_name_used,
            a_deleted_file_is_judged_by_its_last_name,
            a_temporary_file_without_a_name_is_judged_by_its_directory,
        ],
    ),
};

fn prepare() -> Result<()> {
    layout::create()?;
    for name in ["append", "truncate", "list/entry", "read-only/file", "write-only/file"] {
        layout::file(&path("verbs").join(name), b"content\n")?;
    }
    Ok(())
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let verbs = |name: &str| within(&[path("verbs").join(name)]);
    let policy = permit("open", "agent", &["file.*"], &within(&layout::in_all_trees("open")))
        + &permit("append", "agent", &["file.append"], &verbs("append"))
        + &permit("truncate", "agent", &["file.write", "file.truncate"], &verbs("truncate"))
        + &permit("list", "agent", &["dir.list"], &verbs("list"))
        + &permit("read-only", "agent", &["file.read"], &verbs("read-only"))
        + &permit("write-only", "agent", &["file.write"], &verbs("write-only"));
    Ok(bundle.policy("file", policy))
}

/// Opens a file for reading and reads from it.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<()> {
    File::open(path)?.read_exact(&mut [0])
}

/// Opens a file for writing and changes its first byte.
pub(crate) fn write(path: impl AsRef<Path>) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(b"X")
}

fn append(path: impl AsRef<Path>) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(b"more\n")
}

fn truncate(path: impl AsRef<Path>) -> io::Result<()> {
    OpenOptions::new().write(true).truncate(true).open(path).map(drop)
}

fn list(path: impl AsRef<Path>) -> io::Result<()> {
    fs::read_dir(path)?.try_for_each(|entry| entry.map(drop))
}

fn secret() -> PathBuf {
    canary(ROOT)
}

fn notes() -> PathBuf {
    path("open/notes")
}

fn reading_is_refused_on_every_file_system(case: &Case<'_>) -> Result<()> {
    for (kind, root) in TREES {
        let refused = refusal(AGENT, "file.read").at("gt/shut/secret");
        case.refused(refused, || read(canary(root))).context(kind)?;
        case.allowed(AGENT, || read(Path::new(root).join("open/notes"))).context(kind)?;
    }
    Ok(())
}

fn writing_is_refused_on_every_file_system(case: &Case<'_>) -> Result<()> {
    for (kind, root) in TREES {
        case.refused(refusal(AGENT, "file.write").at("gt/shut/secret"), || write(canary(root)))
            .context(kind)?;
        case.allowed(AGENT, || write(Path::new(root).join("open/notes"))).context(kind)?;
        let new = Path::new(root).join("open/new");
        case.allowed(AGENT, || {
            File::create(&new)?.write_all(b"new\n")?;
            read(&new)?;
            fs::remove_file(&new)
        })
        .with_context(|| format!("a new file on {kind}"))?;
    }
    Ok(())
}

fn appending_and_truncating_are_decided_apart_from_writing(case: &Case<'_>) -> Result<()> {
    let (appendable, truncatable, writable) =
        (path("verbs/append"), path("verbs/truncate"), path("verbs/write-only/file"));
    case.allowed(AGENT, || append(&appendable))?;
    case.refused(refusal(AGENT, "file.write"), || write(&appendable))?;
    case.allowed(AGENT, || truncate(&truncatable))?;
    case.refused(refusal(AGENT, "file.append"), || append(&truncatable))?;
    case.allowed(AGENT, || write(&writable))?;
    case.refused(refusal(AGENT, "file.truncate"), || truncate(&writable))?;
    let both = || OpenOptions::new().read(true).write(true).open(&writable).map(drop);
    case.refused(refusal(AGENT, "file.read"), both)?;
    layout::file(&appendable, b"content\n")?;
    layout::file(&writable, b"content\n")
}

fn listing_a_directory_is_decided_apart_from_reading(case: &Case<'_>) -> Result<()> {
    let (listed, readable) = (path("verbs/list"), path("verbs/read-only"));
    case.allowed(AGENT, || list(&listed))?;
    case.refused(refusal(AGENT, "file.read"), || read(listed.join("entry")))?;
    case.refused(refusal(AGENT, "dir.list").at("verbs/read-only"), || list(&readable))?;
    case.allowed(AGENT, || read(readable.join("file")))
}

fn every_way_to_open_a_file_is_refused(case: &Case<'_>) -> Result<()> {
    let directory = path("shut");
    let ways: [(&str, &dyn Fn() -> io::Result<()>); 4] = [
        ("open", &|| File::open(secret()).map(drop)),
        ("openat", &|| {
            let directory = File::options().read(true).custom_flags(libc::O_PATH).open(&directory)?;
            let name = Path::new("secret");
            nix::fcntl::openat(&directory, name, nix::fcntl::OFlag::O_RDONLY, nix::sys::stat::Mode::empty())?;
            Ok(())
        }),
        ("openat2", &|| raw::openat2(&secret(), libc::O_RDONLY, 0).map(drop)),
        ("openat2 without symbolic links", &|| {
            const RESOLVE_NO_SYMLINKS: u64 = 4;
            raw::openat2(&secret(), libc::O_RDONLY, RESOLVE_NO_SYMLINKS).map(drop)
        }),
    ];
    for (way, open) in ways {
        case.refused(refusal(AGENT, "file.read").at("shut/secret"), open).context(way)?;
    }
    Ok(())
}

fn opening_for_nothing_but_ioctl_is_refused(case: &Case<'_>) -> Result<()> {
    // Access mode 3 needs read and write permission and gives neither.
    let open = |path: PathBuf| raw::open(&path, libc::O_ACCMODE).map(drop);
    case.refused(refusal(AGENT, "file.ioctl").at("shut/secret"), || open(secret()))?;
    case.allowed(AGENT, || open(notes()))
}

fn reading_through_a_symbolic_link_is_refused(case: &Case<'_>) -> Result<()> {
    let (link, chain, good) = (path("open/link"), path("open/chain"), path("open/good"));
    for link in [&link, &chain, &good] {
        let _ = fs::remove_file(link);
    }
    std::os::unix::fs::symlink("../shut/secret", &link).context("make a link")?;
    std::os::unix::fs::symlink(&link, &chain).context("make a link to the link")?;
    std::os::unix::fs::symlink("notes", &good).context("make a link to the notes")?;
    case.refused(refusal(AGENT, "file.read").at("shut/secret"), || read(&link))?;
    case.refused(refusal(AGENT, "file.read").at("shut/secret"), || read(&chain))?;
    case.refused(refusal(AGENT, "file.write").at("shut/secret"), || write(&chain))?;
    case.allowed(AGENT, || read(&good))
}

fn reading_through_dots_and_relative_names_is_refused(case: &Case<'_>) -> Result<()> {
    let refused = || refusal(AGENT, "file.read").at("shut/secret");
    case.refused(refused(), || read(path("open/../shut/./secret")))?;
    case.refused(refused(), || {
        nix::unistd::chdir(&path("open"))?;
        read("../shut/secret")
    })?;
    case.refused(refused(), || {
        nix::unistd::chdir(&path("shut"))?;
        read("secret")
    })?;
    case.allowed(AGENT, || {
        nix::unistd::chdir(&path("shut"))?;
        read("../open/notes")
    })
}

fn reading_through_the_links_in_proc_is_refused(case: &Case<'_>) -> Result<()> {
    let refused = || refusal(AGENT, "file.read").at("shut/secret");
    let below = |link: &str, file: &Path| Path::new(link).join(file.strip_prefix("/").unwrap_or(file));
    for link in ["/proc/self/root", "/proc/thread-self/root", "/proc/self/task/../root"] {
        case.refused(refused(), || read(below(link, &secret()))).context(link)?;
        case.allowed(AGENT, || read(below(link, &notes()))).context(link)?;
    }
    case.refused(refused(), || {
        nix::unistd::chdir(&path("shut"))?;
        read("/proc/self/cwd/secret")
    })?;
    case.allowed(AGENT, || {
        nix::unistd::chdir(&path("open"))?;
        read("/proc/self/cwd/notes")
    })
}

fn reopening_a_path_descriptor_is_refused(case: &Case<'_>) -> Result<()> {
    let reopen = |file: &Path| {
        let handle = File::options().read(true).custom_flags(libc::O_PATH).open(file)?;
        read(format!("/proc/self/fd/{}", handle.as_raw_fd()))
    };
    case.refused(refusal(AGENT, "file.read").at("shut/secret"), || reopen(&secret()))?;
    case.allowed(AGENT, || reopen(&notes()))?;
    // A descriptor that was opened for reading is not one for writing.
    let file = path("verbs/read-only/file");
    case.refused(refusal(AGENT, "file.write"), || {
        let reading = File::open(&file)?;
        write(format!("/proc/self/fd/{}", reading.as_raw_fd()))
    })?;
    layout::file(&file, b"content\n")
}

fn reading_by_handle_is_refused(case: &Case<'_>) -> Result<()> {
    let agent = AGENT.with(READ_SEARCH);
    // Overlayfs has no handles of its own unless it is mounted to, so the others are used.
    for (kind, root) in TREES.iter().filter(|(kind, _)| !kind.contains("overlay")) {
        let file = Path::new(root).join("open/by-handle");
        layout::file(&file, b"content\n")?;
        let open = |file: &Path| {
            let directory = File::open(Path::new(root).join("open"))?;
            raw::open_by_handle(&directory, file).map(drop)
        };
        case.refused(refusal(agent, "file.read"), || open(&canary(root))).context(*kind)?;
        case.allowed(agent, || open(&file)).context(*kind)?;
    }
    Ok(())
}

fn reading_inside_a_chroot_is_refused(case: &Case<'_>) -> Result<()> {
    let agent = AGENT.with(CHROOT);
    case.refused(refusal(agent, "file.read").at("shut/secret"), || {
        nix::unistd::chroot(&path("shut"))?;
        read("/secret")
    })?;
    case.allowed(agent, || {
        nix::unistd::chroot(&path("open"))?;
        read("/notes")
    })
}

fn a_hard_link_is_judged_by_the_name_used(case: &Case<'_>) -> Result<()> {
    for (kind, root) in TREES {
        let root = Path::new(root);
        let (shut, open) = (root.join("shut/hard-link"), root.join("open/hard-link"));
        for link in [&shut, &open] {
            let _ = fs::remove_file(link);
        }
        fs::hard_link(root.join("open/notes"), &shut).context("link into the shut directory")?;
        fs::hard_link(root.join("open/notes"), &open).context("link into the open directory")?;
        case.refused(refusal(AGENT, "file.read").at("shut/hard-link"), || read(&shut)).context(kind)?;
        case.allowed(AGENT, || read(&open)).context(kind)?;
        // Having been opened by the one name makes no difference to the other.
        case.refused(refusal(AGENT, "file.read").at("shut/hard-link"), || read(&shut)).context(kind)?;
    }
    Ok(())
}

fn a_deleted_file_is_judged_by_its_last_name(case: &Case<'_>) -> Result<()> {
    let deleted = |directory: &str| {
        let file = path(directory).join(format!("deleted-{}", std::process::id()));
        let handle = File::options().create_new(true).write(true).custom_flags(libc::O_PATH).open(&file);
        // O_PATH ignores creation, so the runner's copy is linked instead.
        drop(handle);
        fs::hard_link(path(directory).join("to-delete"), &file)?;
        let handle = File::options().read(true).custom_flags(libc::O_PATH).open(&file)?;
        fs::remove_file(&file)?;
        read(format!("/proc/self/fd/{}", handle.as_raw_fd()))
    };
    for directory in ["shut", "open"] {
        layout::file(&path(directory).join("to-delete"), b"content\n")?;
    }
    case.refused(refusal(AGENT, "file.read"), || deleted("shut"))?;
    case.allowed(AGENT, || deleted("open"))
}

fn a_temporary_file_without_a_name_is_judged_by_its_directory(case: &Case<'_>) -> Result<()> {
    let temporary = |directory: PathBuf| {
        let file = File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).open(directory)?;
        file.write_all_at(b"content", 0)?;
        read(format!("/proc/self/fd/{}", file.as_raw_fd()))
    };
    // Overlayfs has none before 6.3.
    for (kind, root) in TREES.iter().filter(|(kind, _)| !kind.contains("overlay")) {
        let root = Path::new(root);
        case.refused(refusal(AGENT, "file.write"), || temporary(root.join("shut"))).context(*kind)?;
        case.allowed(AGENT, || temporary(root.join("open"))).context(*kind)?;
    }
    Ok(())
}
