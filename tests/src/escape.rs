//! Ways out of a label that need other parts of the system: id mappings of user namespaces, and cgroups.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{ForkResult, Pid, Uid, setresuid};
use std::os::fd::AsFd;

use crate::bundle::{Bundle, one_of, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::file::read;
use crate::identity::{fork, helper, in_child, run_helper, run_step};
use crate::layout::{self, ROOT, canary, path};
use crate::raw;
use crate::users::{AGENT, CI, Identity, ROOT as AS_ROOT, SUBORDINATE};

pub(crate) const PART: Part = Part {
    name: "escape",
    bundle,
    prepare,
    tests: tests!(
        others: [
            another_user_id_by_an_id_mapping_keeps_the_label,
            a_process_that_moves_to_another_cgroup_keeps_the_label,
            a_child_cloned_into_another_cgroup_keeps_the_label,
            moving_to_the_cgroup_of_another_subject_does_not_exchange_the_label,
            what_is_cloned_into_a_selected_cgroup_is_labelled_at_its_exec,
        ],
    ),
};

/// A cgroup that its users may delegate, and one that selects another subject.
const OTHER: &str = "/sys/fs/cgroup/guard-tests-other";
pub(crate) const SELECTED: &str = "/sys/fs/cgroup/guard-tests-box";

fn prepare() -> Result<()> {
    layout::create()?;
    for cgroup in ["/sys/fs/cgroup", OTHER, SELECTED] {
        fs::create_dir_all(cgroup).with_context(|| format!("make {cgroup}"))?;
        // Moving between two cgroups takes the right to write to the file of what is above both.
        layout::mode(&Path::new(cgroup).join("cgroup.procs"), 0o666)?;
    }
    Ok(())
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let files = "resource.name == \"cgroup.procs\" || resource.name == \"uid_map\"";
    let directories = within(&["/sys/fs/cgroup"]);
    let policy = permit("escape-files", "agent", &["file.write"], files)
        + &permit("escape-directories", "agent", &["dir.list"], &directories);
    let newuidmap = one_of(&[layout::which("newuidmap")?]);
    let policy = policy
        + &permit("escape-newuidmap", "ci", &["file.read", "exec"], &newuidmap)
        + &permit("escape-read", "ci", &["read"], &within(&["/etc", "/proc"]))
        + &permit("escape-write", "ci", &["file.write"], "resource.name == \"uid_map\"");
    Ok(bundle.policy("escape", policy))
}

fn secret() -> PathBuf {
    canary(ROOT)
}

fn notes() -> PathBuf {
    path("open/notes")
}

/// Gives a process, which made a user namespace, more than its own user id there.
type Mapper = fn(Pid) -> io::Result<()>;

/// As newuidmap(1) does it: a set-user-id program that root owns.
fn by_helper(child: Pid) -> io::Result<()> {
    let mapping = format!("0 {} 1\n1 {SUBORDINATE} 1000\n", nix::unistd::getuid());
    run_step(&path("programs/root-helper"), &["write", &format!("/proc/{child}/uid_map"), &mapping])
}

fn by_newuidmap(child: Pid) -> io::Result<()> {
    let own = nix::unistd::getuid().to_string();
    let (child, first) = (child.to_string(), SUBORDINATE.to_string());
    let output = Command::new("newuidmap").args([&child, "0", &own, "1", "1", &first, "1000"]).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))))
}

/// Reads as user 1 of a new user namespace, who is nobody's user outside of it.
fn as_subordinate_user(mapper: Mapper, file: &Path) -> io::Result<()> {
    let (ready, ready_out) = io::pipe()?;
    let (go, go_out) = io::pipe()?;
    let inside = || {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        io::Write::write_all(&mut ready_out.try_clone()?, &[1])?;
        io::Read::read_exact(&mut go.try_clone()?, &mut [0])?;
        let one = Uid::from_raw(1);
        setresuid(one, one, one)?;
        read(file)
    };
    let map = |child: Pid| {
        io::Read::read_exact(&mut ready.try_clone()?, &mut [0])?;
        mapper(child).map_err(|error| io::Error::other(format!("cannot map ids: {error}")))?;
        io::Write::write_all(&mut go_out.try_clone()?, &[1])
    };
    in_child(
        || {
            let forked = fork()?;
            if let ForkResult::Parent { child } = forked {
                map(child)?;
            }
            Ok(forked)
        },
        inside,
    )
}

fn another_user_id_by_an_id_mapping_keeps_the_label(case: &Case<'_>) -> Result<()> {
    let ways: [(&str, Identity, Mapper); 2] =
        [("a helper", AGENT, by_helper), ("newuidmap", CI, by_newuidmap)];
    for (way, who, mapper) in ways {
        let refused = refusal(who, "file.read").at("shut/secret");
        case.refused(refused, || as_subordinate_user(mapper, &secret())).context(way)?;
        case.allowed(who, || as_subordinate_user(mapper, &notes())).context(way)?;
    }
    Ok(())
}

/// Moves this process.
fn enter(cgroup: &str) -> io::Result<()> {
    let file = File::options().write(true).open(format!("{cgroup}/cgroup.procs"));
    let moved = file.and_then(|mut file| io::Write::write_all(&mut file, b"0"));
    moved.map_err(|error| io::Error::other(format!("cannot move to {cgroup}: {error}")))
}

fn a_process_that_moves_to_another_cgroup_keeps_the_label(case: &Case<'_>) -> Result<()> {
    let moved = |file: PathBuf| {
        enter(OTHER)?;
        read(&file)?;
        in_child(fork, || read(&file))
    };
    case.refused(refusal(AGENT, "file.read").at("shut/secret"), || moved(secret()))?;
    case.allowed(AGENT, || moved(notes()))
}

/// Does something in a child that begins its life in a cgroup.
pub(crate) fn in_child_of(cgroup: &str, action: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let broken = |error: io::Error| io::Error::other(format!("cannot clone into {cgroup}: {error}"));
    let directory = File::open(cgroup).map_err(broken)?;
    let clone = || match raw::fork_into(directory.as_fd()).map_err(broken)? {
        0 => Ok(ForkResult::Child),
        pid => Ok(ForkResult::Parent { child: Pid::from_raw(pid) }),
    };
    in_child(clone, action)
}

fn a_child_cloned_into_another_cgroup_keeps_the_label(case: &Case<'_>) -> Result<()> {
    let refused = refusal(AGENT, "file.read").at("shut/secret");
    case.refused(refused, || in_child_of(OTHER, || read(secret())))?;
    case.allowed(AGENT, || in_child_of(OTHER, || read(notes())))
}

fn moving_to_the_cgroup_of_another_subject_does_not_exchange_the_label(case: &Case<'_>) -> Result<()> {
    let refused = || refusal(AGENT, "file.read").at("shut/secret").only_labelled();
    case.refused(refused(), || {
        enter(SELECTED)?;
        run_helper(&helper(), "read", secret())
    })?;
    case.refused(refused(), || in_child_of(SELECTED, || run_helper(&helper(), "read", secret())))
}

fn what_is_cloned_into_a_selected_cgroup_is_labelled_at_its_exec(case: &Case<'_>) -> Result<()> {
    let who = AS_ROOT.becoming("boxed");
    let cloned = |file: PathBuf| in_child_of(SELECTED, || run_helper(&helper(), "read", file.clone()));
    case.refused(refusal(who, "file.read").at("shut/secret").only_labelled(), || cloned(secret()))?;
    case.allowed(who, || cloned(notes()))
}
