//! Files by which others, or the kernel, are made to do something.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::case::{Case, refusal};
use crate::escape::{SELECTED, in_child_of};
use crate::family::{Part, tests};
use crate::file::{read, write};
use crate::identity::{helper, run_step};
use crate::layout::{self, path};
use crate::users::{AGENT, ROOT as AS_ROOT};

pub(crate) const PART: Part = Part {
    name: "deputies",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            programs_that_the_kernel_starts_cannot_be_set,
            files_that_others_execute_are_refused,
            the_records_of_the_host_cannot_be_rewritten,
            the_agents_own_files_are_refused,
        ],
    ),
};

/// What schedulers, shells, version control and builds of others execute or obey.
const EXECUTED: [&str; 9] = [
    "/etc/cron.d/guard-tests",
    "/etc/profile.d/guard-tests.sh",
    "/etc/logrotate.d/guard-tests",
    "/etc/systemd/system/guard-tests.service",
    "/etc/udev/rules.d/99-guard-tests.rules",
    "/home/free/.bashrc",
    "/home/free/work/.git/hooks/pre-commit",
    "/home/free/work/Makefile",
    "/usr/local/bin/guard-tests-tool",
];

/// What tells who did what.
const RECORDS: [&str; 4] =
    ["/var/log/wtmp", "/var/log/guard-tests.log", "/home/free/.bash_history", "/var/log/journal/guard-tests"];

fn prepare() -> Result<()> {
    layout::create()?;
    for name in EXECUTED.into_iter().chain(RECORDS).map(Path::new) {
        // The directories of the host stay as they are: writing to the files takes no more.
        if let Some(parent) = name.parent() {
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        fs::write(name, "# nothing\n").with_context(|| format!("write {}", name.display()))?;
        layout::mode(name, 0o666)?;
    }
    Ok(())
}

fn programs_that_the_kernel_starts_cannot_be_set(case: &Case<'_>) -> Result<()> {
    let boxed = AS_ROOT.becoming("boxed");
    let set = |file: &Path, text: &str| {
        in_child_of(SELECTED, || run_step(&helper(), &["write".as_ref(), file.as_os_str(), text.as_ref()]))
    };
    let mut tried = 0;
    for name in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hotplug",
        "/sys/kernel/uevent_helper",
        "/proc/sys/kernel/poweroff_cmd",
    ] {
        let name = Path::new(name);
        // Each kernel has some of them. What is written is what is there.
        let Ok(text) = fs::read_to_string(name) else { continue };
        let refused = refusal(boxed, "file.write").at(name).only_labelled();
        case.refused(refused, || set(name, &text)).with_context(|| name.display().to_string())?;
        case.allowed(AS_ROOT, || fs::write(name, &text))?;
        tried += 1;
    }
    anyhow::ensure!(tried >= 2, "this kernel has only {tried} of the files");
    layout::file(&path("open/setting"), b"0\n")?;
    case.allowed(boxed, || set(&path("open/setting"), "1"))
}

fn files_that_others_execute_are_refused(case: &Case<'_>) -> Result<()> {
    for name in EXECUTED {
        case.refused(refusal(AGENT, "file.write").at(name), || write(name)).context(name)?;
    }
    case.allowed(AGENT, || write(path("open/notes")))
}

fn the_records_of_the_host_cannot_be_rewritten(case: &Case<'_>) -> Result<()> {
    for name in RECORDS {
        case.refused(refusal(AGENT, "file.write").at(name), || write(name)).context(name)?;
        let truncate = || fs::File::options().write(true).truncate(true).open(name).map(drop);
        case.refused(refusal(AGENT, "file.truncate").at(name), truncate).context(name)?;
    }
    Ok(())
}

fn the_agents_own_files_are_refused(case: &Case<'_>) -> Result<()> {
    // Without a daemon there are only stand-ins: what must be shown is that file modes would allow it.
    let directory = case.daemon().map_or_else(|| path("agent"), |daemon| daemon.directory().to_owned());
    let files: [PathBuf; 3] =
        ["bundle/guard.toml", "agent.toml", "state/events.db"].map(|name| directory.join(name));
    if case.daemon().is_none() {
        files.iter().try_for_each(|file| layout::file(file, b"nothing\n"))?;
    }
    for file in &files {
        let open = |write: bool| fs::File::options().read(true).write(write).open(file).map(drop);
        let before = file.metadata().with_context(|| file.display().to_string())?.permissions();
        let parent = directory.join("state");
        let of_parent = parent.metadata().context("look at the state")?.permissions();
        // Everybody may, but for Guard.
        layout::mode(&parent, 0o755)?;
        layout::mode(file, 0o666)?;
        let result = case
            .refused(refusal(AGENT, "file.write").at(file), || open(true))
            .and_then(|()| case.refused(refusal(AGENT, "file.read").at(file), || read(file)))
            .with_context(|| file.display().to_string());
        fs::set_permissions(file, PermissionsExt::from_mode(before.mode())).context("chmod")?;
        fs::set_permissions(&parent, of_parent).context("chmod")?;
        result?;
    }
    Ok(())
}
