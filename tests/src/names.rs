//! Names: creating, removing, linking and renaming files and directories.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::bundle::{Bundle, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::layout::{self, ROOT, TREES, canary, path};
use crate::users::AGENT;
use crate::{raw, uring};

pub(crate) const PART: Part = Part {
    name: "names",
    bundle,
    prepare,
    tests: tests!(
        smoke: [
            creating_a_file_is_refused_on_every_file_system,
            renaming_a_secret_to_where_it_may_be_read_is_refused,
        ],
        others: [
            a_file_without_a_name_is_not_made_where_none_may_be_created,
            directories_are_made_and_removed_by_rights_of_their_own,
            links_pipes_and_removals_are_decided_apart,
            linking_a_secret_to_where_it_may_be_read_is_refused,
            replacing_a_secret_is_refused,
            exchanging_a_secret_is_refused_in_both_directions,
            names_are_changed_by_io_uring_no_more_than_by_system_calls,
            a_link_or_a_rename_gives_no_more_rights,
            a_directory_is_not_moved_away_from_above_what_policy_names,
            a_directory_is_moved_where_policy_makes_no_difference,
            files_and_directories_are_renamed_by_permits_of_their_own,
            a_whiteout_is_a_device_node,
            what_was_removed_from_a_lower_layer_can_be_made_again,
        ],
    ),
};

const RENAME_EXCHANGE: libc::c_uint = 2;
const RENAME_WHITEOUT: libc::c_uint = 4;

fn prepare() -> Result<()> {
    layout::create()?;
    for name in
        VERBS.iter().map(|(name, _)| *name).chain(["narrow", "wide", "move", "rename-file", "rename-dir"])
    {
        layout::directory(&path("names").join(name))?;
    }
    Ok(())
}

/// A directory for each right.
const VERBS: [(&str, &[&str]); 5] = [
    ("create", &["file.create", "file.write"]),
    ("remove", &["file.remove"]),
    ("directories", &["dir.create", "dir.remove"]),
    ("links", &["file.symlink"]),
    ("nodes", &["file.mknod"]),
];

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let at = |name: &str| within(&[path("names").join(name)]);
    let mut policy = String::new();
    for (name, actions) in VERBS {
        policy += &permit(&format!("names-{name}"), "agent", actions, &at(name));
    }
    let both = within(&[path("names/narrow"), path("names/wide")]);
    policy += &permit("names-narrow", "agent", &["mutate"], &both);
    policy += &permit("names-wide", "agent", &["file.read"], &at("wide"));
    policy += &permit("names-move", "agent", &["mutate", "read"], &at("move"));
    for (name, entity) in [("rename-file", "File"), ("rename-dir", "Dir")] {
        let made = ["file.create", "file.remove", "dir.create", "dir.remove"];
        policy += &permit(&format!("names-{name}-made"), "agent", &made, &at(name));
        let such = format!("resource is Guard::{entity} && {}", at(name));
        policy += &permit(&format!("names-{name}"), "agent", &["file.rename"], &such);
    }
    policy += &permit("names-below", "agent", &["exec"], &at("move/above/named"));
    Ok(bundle.policy("names", policy))
}

fn create(path: impl AsRef<Path>) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path).map(drop)
}

/// Makes a new file and removes it again.
fn make_and_remove(path: impl AsRef<Path>) -> io::Result<()> {
    create(&path)?;
    fs::remove_file(path)
}

fn is_missing(path: &Path) -> Result<()> {
    ensure!(path.symlink_metadata().is_err(), "{} is there", path.display());
    Ok(())
}

fn gone(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn creating_a_file_is_refused_on_every_file_system(case: &Case<'_>) -> Result<()> {
    for (kind, root) in TREES {
        let (shut, open) = (Path::new(root).join("shut/new"), Path::new(root).join("open/new"));
        case.refused(refusal(AGENT, "file.create").at("gt/shut/new"), || make_and_remove(&shut))
            .context(kind)?;
        // The open that was refused has left nothing behind.
        is_missing(&shut)?;
        case.allowed(AGENT, || make_and_remove(&open)).context(kind)?;
    }
    Ok(())
}

fn a_file_without_a_name_is_not_made_where_none_may_be_created(case: &Case<'_>) -> Result<()> {
    let make = |directory: PathBuf| {
        OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(directory).map(drop)
    };
    for (kind, root) in TREES.iter().filter(|(kind, _)| !kind.contains("overlay")) {
        let root = Path::new(root);
        case.refused(refusal(AGENT, "file.create"), || make(root.join("shut"))).context(*kind)?;
        case.allowed(AGENT, || make(root.join("open"))).context(*kind)?;
    }
    Ok(())
}

fn directories_are_made_and_removed_by_rights_of_their_own(case: &Case<'_>) -> Result<()> {
    let both = |directory: PathBuf| {
        fs::create_dir(&directory)?;
        fs::remove_dir(&directory)
    };
    case.allowed(AGENT, || both(path("names/directories/new")))?;
    let directory = path("names/create/directory");
    case.refused(refusal(AGENT, "dir.create").at("names/create/directory"), || both(directory.clone()))?;
    layout::directory(&directory)?;
    let remove = || {
        fs::remove_dir(&directory)?;
        // As it was, for the next one who tries.
        fs::create_dir(&directory)
    };
    case.refused(refusal(AGENT, "dir.remove").at("names/create/directory"), remove)?;
    fs::remove_dir(&directory).context("remove the directory")?;
    case.refused(refusal(AGENT, "file.create"), || make_and_remove(path("names/directories/file")))
}

fn links_pipes_and_removals_are_decided_apart(case: &Case<'_>) -> Result<()> {
    let link = |directory: &str| {
        let link = path("names").join(directory).join("link");
        symlink("/etc/passwd", &link)
    };
    let pipe = |directory: &str| Ok(mkfifo(&path("names").join(directory).join("pipe"), Mode::S_IRWXU)?);
    let clean = || -> Result<()> {
        for directory in ["links", "nodes", "create"] {
            gone(&path("names").join(directory).join("link"))?;
            gone(&path("names").join(directory).join("pipe"))?;
        }
        Ok(())
    };
    clean()?;
    case.allowed(AGENT, || link("links"))?;
    case.allowed(AGENT, || pipe("nodes"))?;
    clean()?;
    case.refused(refusal(AGENT, "file.symlink").at("names/create/link"), || {
        link("create")?;
        fs::remove_file(path("names/create/link"))
    })?;
    case.refused(refusal(AGENT, "file.mknod").at("names/create/pipe"), || {
        pipe("create")?;
        fs::remove_file(path("names/create/pipe"))
    })?;
    for directory in ["remove", "create"] {
        layout::file(&path("names").join(directory).join("file"), b"content\n")?;
    }
    let remove =
        |directory: &'static str| move || fs::remove_file(path("names").join(directory).join("file"));
    case.allowed(AGENT, remove("remove"))?;
    let kept = path("names/create/file");
    case.refused(refusal(AGENT, "file.remove").at("names/create/file"), || {
        fs::remove_file(&kept)?;
        create(&kept)
    })?;
    clean()
}

/// Where a secret is to go, and back again.
fn there_and_back(root: &Path) -> (PathBuf, PathBuf) {
    (root.join("shut/secret"), root.join("open/stolen"))
}

fn renaming_a_secret_to_where_it_may_be_read_is_refused(case: &Case<'_>) -> Result<()> {
    for (kind, root) in TREES {
        let (secret, stolen) = there_and_back(Path::new(root));
        gone(&stolen)?;
        case.refused(refusal(AGENT, "file.rename").at("gt/shut/secret"), || {
            fs::rename(&secret, &stolen)?;
            fs::rename(&stolen, &secret)
        })
        .context(kind)?;
        let (old, new) = (Path::new(root).join("open/old"), Path::new(root).join("open/renamed"));
        layout::file(&old, b"content\n")?;
        case.allowed(AGENT, || fs::rename(&old, &new)).context(kind)?;
    }
    Ok(())
}

fn linking_a_secret_to_where_it_may_be_read_is_refused(case: &Case<'_>) -> Result<()> {
    for (kind, root) in TREES {
        let (secret, stolen) = there_and_back(Path::new(root));
        gone(&stolen)?;
        let link = || {
            fs::hard_link(&secret, &stolen)?;
            fs::remove_file(&stolen)
        };
        case.refused(refusal(AGENT, "file.link").at("gt/shut/secret"), link).context(kind)?;
        let (old, new) = (Path::new(root).join("open/old"), Path::new(root).join("open/linked"));
        layout::file(&old, b"content\n")?;
        gone(&new)?;
        case.allowed(AGENT, || fs::hard_link(&old, &new)).context(kind)?;
        gone(&new)?;
    }
    // By way of a descriptor that only names it.
    let (secret, stolen) = there_and_back(Path::new(ROOT));
    let link = || {
        let handle = raw::open_path(&secret)?;
        let proc = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle));
        let at = nix::fcntl::AT_FDCWD;
        nix::unistd::linkat(at, Path::new(&proc), at, &stolen, nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW)?;
        fs::remove_file(&stolen)
    };
    case.refused(refusal(AGENT, "file.link").at("gt/shut/secret"), link)
}

fn replacing_a_secret_is_refused(case: &Case<'_>) -> Result<()> {
    let secret = canary(ROOT);
    let (fake, kept) = (path("open/fake"), path("open/kept"));
    layout::file(&fake, b"something else\n")?;
    let replace = || {
        // The canary comes back for the next one who tries.
        let content = fs::read(&secret);
        fs::copy(&fake, &kept)?;
        fs::rename(&kept, &secret)?;
        fs::write(&secret, content?)?;
        fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o666))
    };
    let rename = || {
        // Somebody else's copy cannot be overwritten with one's own mode.
        fs::remove_file(&kept).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        fs::copy(&fake, &kept)?;
        fs::rename(&kept, &secret)
    };
    if case.daemon().is_none() {
        return case.allowed(AGENT, replace);
    }
    case.refused(refusal(AGENT, "file.remove").at("gt/shut/secret"), rename)?;
    layout::restore_canaries()
}

fn exchanging_a_secret_is_refused_in_both_directions(case: &Case<'_>) -> Result<()> {
    let secret = canary(ROOT);
    let other = path("open/other");
    layout::file(&other, b"something else\n")?;
    let exchange = |one: &Path, two: &Path| {
        raw::rename(one, two, RENAME_EXCHANGE)?;
        raw::rename(one, two, RENAME_EXCHANGE)
    };
    case.refused(refusal(AGENT, "file.rename").at("gt/shut/secret"), || exchange(&secret, &other))?;
    case.refused(refusal(AGENT, "file.rename").at("gt/shut/secret"), || exchange(&other, &secret))?;
    let (one, two) = (path("open/one"), path("open/two"));
    layout::file(&one, b"one\n")?;
    layout::file(&two, b"two\n")?;
    case.allowed(AGENT, || exchange(&one, &two))
}

fn names_are_changed_by_io_uring_no_more_than_by_system_calls(case: &Case<'_>) -> Result<()> {
    if !uring::is_there()? {
        return Err(crate::case::NotHere("this kernel has no io_uring".to_owned()).into());
    }
    let (secret, stolen) = there_and_back(Path::new(ROOT));
    gone(&stolen)?;
    case.refused(refusal(AGENT, "file.rename").at("gt/shut/secret"), || {
        uring::rename(&secret, &stolen)?;
        uring::rename(&stolen, &secret)
    })?;
    case.refused(refusal(AGENT, "file.link").at("gt/shut/secret"), || {
        uring::link(&secret, &stolen)?;
        uring::unlink(&stolen)
    })?;
    let victim = path("names/create/victim");
    layout::file(&victim, b"content\n")?;
    case.refused(refusal(AGENT, "file.remove").at("names/create/victim"), || {
        uring::unlink(&victim)?;
        create(&victim)
    })?;
    let directory = path("names/create/by-ring");
    case.refused(refusal(AGENT, "dir.create").at("names/create/by-ring"), || {
        uring::mkdir(&directory)?;
        fs::remove_dir(&directory)
    })?;
    case.refused(refusal(AGENT, "file.symlink").at("names/create/by-ring"), || {
        uring::symlink(Path::new("/etc/passwd"), &directory)?;
        uring::unlink(&directory)
    })?;
    let (old, new) = (path("open/ring-old"), path("open/ring-new"));
    layout::file(&old, b"content\n")?;
    gone(&new)?;
    case.allowed(AGENT, || {
        uring::link(&old, &new)?;
        uring::rename(&new, &old)?;
        uring::unlink(&new)?;
        uring::mkdir(&new)?;
        fs::remove_dir(&new)
    })
}

fn a_link_or_a_rename_gives_no_more_rights(case: &Case<'_>) -> Result<()> {
    // The agent may change names in both directories, and read in one of them.
    let (narrow, wide) = (path("names/narrow/file"), path("names/wide/file"));
    layout::file(&narrow, b"not for reading\n")?;
    gone(&wide)?;
    case.refused(refusal(AGENT, "file.rename").at("names/wide/file").for_more_rights(), || {
        fs::rename(&narrow, &wide)?;
        fs::rename(&wide, &narrow)
    })?;
    case.refused(refusal(AGENT, "file.link").at("names/wide/file").for_more_rights(), || {
        fs::hard_link(&narrow, &wide)?;
        fs::remove_file(&wide)
    })?;
    let exchange = || {
        raw::rename(&narrow, &wide, RENAME_EXCHANGE)?;
        raw::rename(&wide, &narrow, RENAME_EXCHANGE)
    };
    layout::file(&wide, b"for reading\n")?;
    case.refused(refusal(AGENT, "file.rename").for_more_rights(), exchange)?;
    // With less, and with the same.
    let lost = path("names/narrow/lost");
    case.allowed(AGENT, || fs::rename(&wide, &lost))?;
    case.allowed(AGENT, || fs::rename(&narrow, path("names/narrow/same")))?;
    // What a program does when it is told so: mv(1) copies, and may not read.
    layout::file(&wide, b"for reading\n")?;
    case.allowed(AGENT, || {
        fs::copy(&wide, path("names/narrow/copy"))?;
        fs::remove_file(&wide)
    })
}

fn a_directory_is_not_moved_away_from_above_what_policy_names(case: &Case<'_>) -> Result<()> {
    let above = path("names/move/above");
    layout::directory(&above)?;
    layout::directory(&above.join("named"))?;
    let (other, free) = (path("names/move/other"), path("names/move/free"));
    for directory in [&other, &free] {
        let _ = fs::remove_dir_all(directory);
    }
    let refused = || refusal(AGENT, "file.rename").for_more_rights();
    let and_back = |old: PathBuf, new: PathBuf| {
        move || {
            fs::rename(&old, &new)?;
            fs::rename(&new, &old)
        }
    };
    case.refused(refused(), and_back(above.clone(), other.clone()))?;
    case.refused(refused(), and_back(above.join("named"), other.clone()))?;
    // Nor is another one put in its place.
    layout::directory(&free)?;
    let exchange = || {
        raw::rename(&free, &above, RENAME_EXCHANGE)?;
        raw::rename(&free, &above, RENAME_EXCHANGE)
    };
    case.refused(refused(), exchange)
}

fn a_directory_is_moved_where_policy_makes_no_difference(case: &Case<'_>) -> Result<()> {
    let (old, new) = (path("names/move/old"), path("names/move/new"));
    let _ = fs::remove_dir_all(&new);
    layout::file(&old.join("deep/file"), b"content\n")?;
    case.allowed(AGENT, || {
        fs::rename(&old, &new)?;
        crate::file::read(new.join("deep/file"))?;
        fs::rename(&new, &old)
    })?;
    let narrow = path("names/narrow/directory");
    layout::directory(&narrow)?;
    let wide = path("names/wide/directory");
    case.refused(refusal(AGENT, "file.rename").for_more_rights(), || {
        fs::rename(&narrow, &wide)?;
        fs::rename(&wide, &narrow)
    })
}

fn files_and_directories_are_renamed_by_permits_of_their_own(case: &Case<'_>) -> Result<()> {
    for (place, may_file) in [("rename-file", true), ("rename-dir", false)] {
        let place = path("names").join(place);
        for (name, is_file) in [("file", true), ("directory", false)] {
            let (old, new) = (place.join(name), place.join("renamed"));
            if is_file {
                layout::file(&old, b"content\n")?
            } else {
                layout::directory(&old)?
            }
            let there_and_back = || {
                fs::rename(&old, &new)?;
                fs::rename(&new, &old)
            };
            if is_file == may_file {
                case.allowed(AGENT, there_and_back)?;
            } else {
                case.refused(refusal(AGENT, "file.rename").at(&old), there_and_back)?;
            }
        }
    }
    Ok(())
}

fn a_whiteout_is_a_device_node(case: &Case<'_>) -> Result<()> {
    // On ext4, because overlayfs makes no whiteouts for others.
    let root = Path::new("/scratch/ext4/gt");
    let (old, new) = (root.join("shut/whiteout"), root.join("shut/renamed"));
    layout::file(&old, b"content\n")?;
    let whiteout = || {
        raw::rename(&old, &new, RENAME_WHITEOUT)?;
        fs::rename(&new, &old)
    };
    case.refused(refusal(AGENT, "file.mknod"), whiteout)?;
    let (old, new) = (root.join("open/whiteout"), root.join("open/renamed"));
    layout::file(&old, b"content\n")?;
    case.allowed(AGENT, || {
        raw::rename(&old, &new, RENAME_WHITEOUT)?;
        fs::rename(&new, &old)
    })
}

fn what_was_removed_from_a_lower_layer_can_be_made_again(case: &Case<'_>) -> Result<()> {
    // Overlayfs marks a directory that it puts over a removed file, on its own behalf.
    let root = Path::new("/scratch/overlay/gt/open");
    let lower = Path::new("/scratch/ext4/layers/lower/gt/open/again");
    let name = root.join("again");
    if name.is_dir() {
        fs::remove_dir(&name).context("remove the directory of the run before")?;
    } else if !lower.exists() {
        return Err(crate::case::NotHere("the lower layer was made without the file".to_owned()).into());
    }
    case.allowed(AGENT, || {
        if name.is_file() {
            fs::remove_file(&name)?;
        }
        fs::create_dir(&name)?;
        File::create(name.join("file")).map(drop)?;
        fs::remove_file(name.join("file"))
    })
}
