//! What changes a file without an open: length, owner, mode, times, extended attributes, access lists,
//! flags, and what devices are told; and memory that becomes executable after it was mapped.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use nix::libc;

use crate::bundle::{Bundle, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::layout::{self, TREES, path};
use crate::raw;
use crate::users::{AGENT, CI};

pub(crate) const PART: Part = Part {
    name: "attributes",
    bundle,
    prepare,
    tests: tests!(
        smoke: [
            changing_the_mode_is_refused_on_every_file_system,
            memory_is_not_made_executable_afterwards,
        ],
        others: [
            every_way_to_truncate_is_refused,
            owner_and_times_are_not_changed,
            extended_attributes_and_access_lists_are_not_changed,
            flags_are_not_changed,
            what_only_asks_is_never_refused,
            an_ioctl_that_does_more_is_refused_in_both_widths,
            what_was_written_to_a_mapping_is_not_executed,
            copying_up_is_part_of_what_was_allowed,
        ],
    ),
};

fn prepare() -> Result<()> {
    layout::create()?;
    for root in ["/scratch/ext4/gt", layout::ROOT] {
        layout::file(&Path::new(root).join("attributes/kept"), b"content\n")?;
        layout::file(&Path::new(root).join("attributes/free"), b"content\n")?;
    }
    layout::program(&path("attributes/code"), &[0xc3; 4096])
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let both = within(&["/scratch/ext4/gt/attributes", "/srv/gt/attributes"]);
    let free = "resource.name == \"free\"";
    let policy = permit("attributes-use", "agent", &["file.read", "file.write"], &both)
        + &permit("attributes-free", "agent", &["mutate", "file.ioctl"], free)
        + &permit("attributes-code", "ci", &["file.read", "exec.map"], &within(&[path("attributes")]));
    Ok(bundle.policy("attributes", policy))
}

fn kept() -> PathBuf {
    path("attributes/kept")
}

fn free() -> PathBuf {
    path("attributes/free")
}

/// A file as its user owns it: who changes attributes must be the owner.
fn owned_by_everybody(
    case: &Case<'_>,
    file: &Path,
    action: impl Fn(&Path) -> io::Result<()>,
    verb: &'static str,
) -> Result<()> {
    // Owned by the agent for the control and the refusal, by another user for the unlabelled one.
    layout::file(file, b"content\n")?;
    chown(file, Some(AGENT.uid), Some(AGENT.uid)).with_context(|| format!("chown {}", file.display()))?;
    case.refused(refusal(AGENT, verb).at(file).only_labelled(), || action(file))?;
    if case.daemon().is_some() {
        let other = crate::users::FREE;
        chown(file, Some(other.uid), Some(other.uid)).with_context(|| format!("chown {}", file.display()))?;
        case.allowed(other, || action(file))?;
    }
    Ok(())
}

fn allowed_to_owner(case: &Case<'_>, file: &Path, action: impl Fn(&Path) -> io::Result<()>) -> Result<()> {
    layout::file(file, b"content\n")?;
    chown(file, Some(AGENT.uid), Some(AGENT.uid)).with_context(|| format!("chown {}", file.display()))?;
    case.allowed(AGENT, || action(file))
}

fn both(case: &Case<'_>, verb: &'static str, action: impl Fn(&Path) -> io::Result<()>) -> Result<()> {
    owned_by_everybody(case, &kept(), &action, verb)?;
    allowed_to_owner(case, &free(), &action)
}

fn every_way_to_truncate_is_refused(case: &Case<'_>) -> Result<()> {
    let open = |file: &Path| OpenOptions::new().read(true).write(true).open(file);
    type Way = (&'static str, fn(&Path, &dyn Fn(&Path) -> io::Result<File>) -> io::Result<()>);
    let ways: [Way; 4] = [
        ("truncate", |file, _| Ok(nix::unistd::truncate(file, 0)?)),
        ("ftruncate", |file, open| open(file)?.set_len(0)),
        ("O_TRUNC", |file, _| OpenOptions::new().write(true).truncate(true).open(file).map(drop)),
        ("O_TRUNC of a file opened to be read", |file, _| {
            OpenOptions::new().read(true).custom_flags(libc::O_TRUNC).open(file).map(drop)
        }),
    ];
    for (name, way) in ways {
        both(case, "file.truncate", |file| way(file, &open)).context(name)?;
        if case.daemon().is_some() {
            // The unlabelled twin has truncated it.
            layout::file(&kept(), b"content\n")?;
        }
    }
    Ok(())
}

fn changing_the_mode_is_refused_on_every_file_system(case: &Case<'_>) -> Result<()> {
    let change = |file: &Path| {
        fs::set_permissions(file, Permissions::from_mode(0o600))?;
        fs::set_permissions(file, Permissions::from_mode(0o666))
    };
    for (kind, root) in TREES {
        let root = Path::new(root);
        owned_by_everybody(case, &root.join("shut/mode"), change, "file.setattr").context(kind)?;
        allowed_to_owner(case, &root.join("open/mode"), change).context(kind)?;
    }
    // By a descriptor, and by one that only names it.
    both(case, "file.setattr", |file| File::open(file)?.set_permissions(Permissions::from_mode(0o666)))?;
    both(case, "file.setattr", |file| {
        let handle = raw::open_path(file)?;
        let proc = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle));
        fs::set_permissions(proc, Permissions::from_mode(0o666))
    })
}

fn owner_and_times_are_not_changed(case: &Case<'_>) -> Result<()> {
    both(case, "file.setattr", |file| {
        let own = nix::unistd::getgid().as_raw();
        chown(file, None, Some(own))
    })
    .context("owner")?;
    both(case, "file.setattr", |file| File::open(file)?.set_modified(SystemTime::UNIX_EPOCH)).context("times")
}

fn extended_attributes_and_access_lists_are_not_changed(case: &Case<'_>) -> Result<()> {
    /// `u::rw-, u:2001:r--, g::r--, m::r--, o::r--` (include/uapi/linux/posix_acl_xattr.h).
    fn list() -> Vec<u8> {
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for (tag, rights, id) in [
            (1u16, 6u16, u32::MAX),
            (2, 4, AGENT.uid),
            (4, 4, u32::MAX),
            (16, 4, u32::MAX),
            (32, 4, u32::MAX),
        ] {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(rights.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }
    for name in ["kept", "free"] {
        let file = Path::new("/scratch/ext4/gt/attributes").join(name);
        type Way = (&'static str, fn(&Path) -> io::Result<()>);
        let ways: [Way; 3] = [
            ("an attribute is set", |file| raw::set_attribute(file, c"user.note", b"x")),
            ("a list is set", |file| raw::set_attribute(file, c"system.posix_acl_access", &list())),
            ("an attribute is removed", |file| raw::remove_attribute(file, c"user.there")),
        ];
        for (what, way) in ways {
            layout::file(&file, b"content\n")?;
            raw::set_attribute(&file, c"user.there", b"x").context("set an attribute")?;
            let way = |file: &Path| {
                way(file)?;
                // For the next one who removes it.
                if what.contains("removed") { raw::set_attribute(file, c"user.there", b"x") } else { Ok(()) }
            };
            if name == "kept" {
                owned_by_everybody(case, &file, way, "file.setattr").context(what)?;
            } else {
                allowed_to_owner(case, &file, way).context(what)?;
            }
        }
    }
    Ok(())
}

/// `FS_IOC_SETFLAGS` and a flag that changes nothing else, `FS_NODUMP_FL` (include/uapi/linux/fs.h).
const SET_FLAGS: u32 = 0x4008_6602;
const NO_DUMP: u64 = 0x40;
/// `EXT4_IOC_GETSTATE` (include/uapi/linux/ext4.h): a command that belongs to one file system.
const GET_STATE: u32 = 0x4004_6629;
/// `FS_IOC_GETFLAGS`.
const GET_FLAGS: u32 = 0x8008_6601;
/// `TCGETS`.
const TERMINAL: u32 = 0x5401;

fn on_ext4(name: &str) -> PathBuf {
    Path::new("/scratch/ext4/gt/attributes").join(name)
}

fn flags_are_not_changed(case: &Case<'_>) -> Result<()> {
    let set = |file: &Path| {
        // One flag more: without the flags that ext4 has given it, the file would have to be laid out anew.
        let file = File::open(file)?;
        let flags = raw::ioctl_answer(file.as_fd(), GET_FLAGS)?;
        raw::ioctl(file.as_fd(), SET_FLAGS, flags | NO_DUMP)
    };
    owned_by_everybody(case, &on_ext4("kept"), set, "file.setattr")?;
    allowed_to_owner(case, &on_ext4("free"), set)
}

fn what_only_asks_is_never_refused(case: &Case<'_>) -> Result<()> {
    case.allowed(AGENT, || raw::ioctl(File::open(on_ext4("kept"))?.as_fd(), GET_FLAGS, 0))?;
    case.allowed(AGENT, || {
        // Not a terminal, says the device itself.
        match raw::ioctl(File::open("/dev/null")?.as_fd(), TERMINAL, 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => Ok(()),
            other => other,
        }
    })
}

fn an_ioctl_that_does_more_is_refused_in_both_widths(case: &Case<'_>) -> Result<()> {
    type Call = fn(std::os::fd::BorrowedFd<'_>, u32, u64) -> io::Result<()>;
    let widths: [(&str, Call); 2] = [("64 bits", raw::ioctl), ("32 bits", raw::ioctl_of_32_bits)];
    for (width, call) in widths {
        let ask = |name: &str| call(File::open(on_ext4(name))?.as_fd(), GET_STATE, 0);
        case.refused(refusal(AGENT, "file.ioctl").at("attributes/kept"), || ask("kept")).context(width)?;
        case.allowed(AGENT, || ask("free")).context(width)?;
    }
    Ok(())
}

const EXECUTABLE: libc::c_int = libc::PROT_READ | libc::PROT_EXEC;

fn code() -> io::Result<OwnedFd> {
    Ok(File::open(path("attributes/code"))?.into())
}

fn memory_is_not_made_executable_afterwards(case: &Case<'_>) -> Result<()> {
    let anonymous = || raw::protect_page(None, true, EXECUTABLE);
    case.refused(refusal(AGENT, "exec.map"), anonymous)?;
    case.allowed(CI, anonymous)?;
    case.allowed(AGENT, || raw::protect_page(None, true, libc::PROT_READ))?;
    let file = || raw::protect_page(Some(code()?.as_fd()), false, EXECUTABLE);
    case.refused(refusal(AGENT, "exec.map").at("attributes/code"), file)?;
    case.allowed(CI, file)
}

fn what_was_written_to_a_mapping_is_not_executed(case: &Case<'_>) -> Result<()> {
    // The file may be executed, what was written over it may not: websrv has no anonymous memory.
    let changed = || raw::protect_page(Some(code()?.as_fd()), true, EXECUTABLE);
    case.refused(refusal(AGENT, "exec.map"), changed)?;
    case.allowed(CI, changed)?;
    let writable =
        || raw::map_page(Some(code()?.as_fd()), libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
    case.refused(refusal(AGENT, "exec.map"), writable)?;
    case.allowed(CI, writable)
}

fn copying_up_is_part_of_what_was_allowed(case: &Case<'_>) -> Result<()> {
    // The file is in the lower layer only, until something changes it; then overlayfs copies it, with its
    // owner, mode and attributes, to a directory that no policy names.
    for (number, change) in [
        (|file: &Path| fs::set_permissions(file, Permissions::from_mode(0o640)))
            as fn(&Path) -> io::Result<()>,
        |file| OpenOptions::new().append(true).open(file).map(drop),
        |file| OpenOptions::new().write(true).truncate(true).open(file).map(drop),
        |file| fs::rename(file, file.with_extension("renamed")),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("copied-{}-{number}", if case.daemon().is_some() { "guarded" } else { "control" });
        let lower = Path::new("/scratch/ext4/layers/lower/gt/open").join(&name);
        let merged = Path::new("/scratch/overlay/gt/open").join(&name);
        layout::file(&lower, b"from below\n")?;
        raw::set_attribute(&lower, c"user.note", b"x").context("set an attribute")?;
        chown(&lower, Some(AGENT.uid), Some(AGENT.uid)).context("chown")?;
        case.allowed(AGENT, || change(&merged)).with_context(|| format!("change {number}"))?;
    }
    Ok(())
}
