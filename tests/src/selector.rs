//! Who becomes a subject: by user, by executable, by cgroup, and who does not.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::unistd::{Uid, seteuid, setresuid};

use crate::attempt::{Outcome, eventually};
use crate::bundle::{Bundle, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::file::read;
use crate::identity::{helper, run_helper};
use crate::layout::{self, ROOT, canary, path};
use crate::puppet::Puppet;
use crate::users::{AGENT, FREE, ROOT as AS_ROOT};
use crate::{raw, step};

pub(crate) const PART: Part = Part {
    name: "selector",
    bundle,
    prepare,
    tests: tests!(
        others: [
            runuser_labels_what_it_starts,
            su_labels_what_it_starts,
            a_set_user_id_program_of_a_subject_labels_its_caller,
            a_daemon_that_borrows_an_effective_user_is_not_labelled,
            an_exec_with_a_borrowed_effective_user_is_labelled,
            an_executable_selects_its_subject,
            a_symbolic_link_to_an_executable_selects_its_subject,
            everything_below_a_directory_selects_its_subject,
            children_of_a_selected_executable_are_labelled,
            a_cgroup_selects_what_is_executed_in_it,
            a_cgroup_made_below_a_selected_one_selects_too,
            a_process_that_is_moved_into_a_selected_cgroup_is_labelled,
        ],
    ),
};

/// The selected cgroup.
const BOX: &str = "/sys/fs/cgroup/guard-tests-box";

fn prepare() -> Result<()> {
    layout::create()?;
    let own = fs::read("/proc/self/exe").context("read this program")?;
    layout::program(&path("programs/agents-helper"), &own)?;
    std::os::unix::fs::chown(path("programs/agents-helper"), Some(AGENT.uid), None).context("chown")?;
    layout::mode(&path("programs/agents-helper"), 0o4755)?;
    layout::program(&path("selected/tool"), &own)?;
    layout::program(&path("kit/versions/1.2/bin/tool"), &own)?;
    let link = path("open/link-to-tool");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(path("selected/tool"), link).context("make a link to the tool")?;
    fs::create_dir_all(BOX).context("make a cgroup")
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let mut policy = String::new();
    let programs = within(&[path("programs"), path("selected"), path("kit")]);
    for subject in ["tool", "kit", "boxed"] {
        policy += &permit(&format!("{subject}-programs"), subject, &["read", "exec.*"], &programs);
        policy += &permit(&format!("{subject}-open"), subject, &["file.*"], &within(&[path("open")]));
    }
    Ok(bundle
        .subject("tool", &format!("exe = \"{ROOT}/selected/tool\""))
        .subject("kit", &format!("exe_in = [\"{ROOT}/kit/versions\"]"))
        .subject("boxed", "cgroup = \"/guard-tests-box\"")
        .policy("selector", policy))
}

fn secret() -> PathBuf {
    canary(ROOT)
}

fn notes() -> PathBuf {
    path("open/notes")
}

fn through(launcher: &[&str], file: PathBuf) -> io::Result<()> {
    let command = format!("exec {} step read {}", helper().display(), file.display());
    step::result(Command::new(launcher[0]).args(&launcher[1..]).arg(command).status()?)
}

fn runuser_labels_what_it_starts(case: &Case<'_>) -> Result<()> {
    let agent = ["runuser", "-u", "agent", "--", "/bin/sh", "-c"];
    let free = ["runuser", "-u", "free", "--", "/bin/sh", "-c"];
    let as_agent = AS_ROOT.becoming("agent");
    case.refused(refusal(as_agent, "file.read").only_labelled(), || through(&agent, secret()))?;
    case.allowed(as_agent, || through(&agent, notes()))?;
    case.allowed(AS_ROOT, || through(&free, secret()))
}

fn su_labels_what_it_starts(case: &Case<'_>) -> Result<()> {
    let as_agent = AS_ROOT.becoming("agent");
    let su = ["su", "agent", "-s", "/bin/sh", "-c"];
    case.refused(refusal(as_agent, "file.read").only_labelled(), || through(&su, secret()))?;
    case.allowed(as_agent, || through(&su, notes()))?;
    case.allowed(AS_ROOT, || through(&["su", "free", "-s", "/bin/sh", "-c"], secret()))
}

fn a_set_user_id_program_of_a_subject_labels_its_caller(case: &Case<'_>) -> Result<()> {
    let helper = path("programs/agents-helper");
    let as_agent = FREE.becoming("agent");
    case.refused(refusal(as_agent, "file.read").only_labelled(), || run_helper(&helper, "read", secret()))?;
    case.allowed(as_agent, || run_helper(&helper, "read", notes()))
}

fn a_daemon_that_borrows_an_effective_user_is_not_labelled(case: &Case<'_>) -> Result<()> {
    case.allowed(AS_ROOT, || {
        let (root, agent) = (Uid::from_raw(0), Uid::from_raw(AGENT.uid));
        seteuid(agent)?;
        read(secret())?;
        seteuid(root)?;
        raw::set_fs_uid(AGENT.uid);
        read(secret())?;
        raw::set_fs_uid(0);
        setresuid(agent, agent, root)?;
        read(secret())?;
        setresuid(root, root, root)?;
        File::open("/etc/shadow").map(drop)
    })
}

fn an_exec_with_a_borrowed_effective_user_is_labelled(case: &Case<'_>) -> Result<()> {
    let borrowed = |file: PathBuf| {
        seteuid(Uid::from_raw(AGENT.uid))?;
        run_helper(&helper(), "read", file)
    };
    let as_agent = AS_ROOT.becoming("agent");
    case.refused(refusal(as_agent, "file.read").only_labelled(), || borrowed(secret()))?;
    case.allowed(as_agent, || borrowed(notes()))
}

fn an_executable_selects_its_subject(case: &Case<'_>) -> Result<()> {
    let tool = path("selected/tool");
    for who in [AS_ROOT, FREE] {
        let who = who.becoming("tool");
        case.refused(refusal(who, "file.read").only_labelled(), || run_helper(&tool, "read", secret()))?;
        case.allowed(who, || run_helper(&tool, "read", notes()))?;
    }
    // The same program under a name that selects nothing.
    case.allowed(FREE, || run_helper(&helper(), "read", secret()))
}

fn a_symbolic_link_to_an_executable_selects_its_subject(case: &Case<'_>) -> Result<()> {
    let link = path("open/link-to-tool");
    let who = FREE.becoming("tool");
    case.refused(refusal(who, "file.read").only_labelled(), || run_helper(&link, "read", secret()))?;
    case.allowed(who, || run_helper(&link, "read", notes()))
}

fn everything_below_a_directory_selects_its_subject(case: &Case<'_>) -> Result<()> {
    let tool = path("kit/versions/1.2/bin/tool");
    let who = FREE.becoming("kit");
    case.refused(refusal(who, "file.read").only_labelled(), || run_helper(&tool, "read", secret()))?;
    case.allowed(who, || run_helper(&tool, "read", notes()))
}

fn children_of_a_selected_executable_are_labelled(case: &Case<'_>) -> Result<()> {
    let tool = path("selected/tool");
    let who = AS_ROOT.becoming("tool");
    let child = |file: PathBuf| run_helper(&tool, "read-in-child", file);
    case.refused(refusal(who, "file.read").only_labelled(), || child(secret()))?;
    case.allowed(who, || child(notes()))
}

/// Moves this process into a cgroup and takes a step there.
fn boxed(cgroup: &str, file: PathBuf) -> io::Result<()> {
    fs::write(format!("{cgroup}/cgroup.procs"), "0")?;
    run_helper(&helper(), "read", file)
}

fn a_cgroup_selects_what_is_executed_in_it(case: &Case<'_>) -> Result<()> {
    let who = AS_ROOT.becoming("boxed");
    case.refused(refusal(who, "file.read").only_labelled(), || boxed(BOX, secret()))?;
    case.allowed(who, || boxed(BOX, notes()))
}

fn a_cgroup_made_below_a_selected_one_selects_too(case: &Case<'_>) -> Result<()> {
    let who = AS_ROOT.becoming("boxed");
    // Made by the attempt itself, so nothing but the kernel can know it in time.
    let inside = |file: PathBuf| {
        let cgroup = format!("{BOX}/new-{}", std::process::id());
        fs::create_dir(&cgroup)?;
        boxed(&cgroup, file)
    };
    case.refused(refusal(who, "file.read").only_labelled(), || inside(secret()))?;
    case.allowed(who, || inside(notes()))
}

fn a_process_that_is_moved_into_a_selected_cgroup_is_labelled(case: &Case<'_>) -> Result<()> {
    let mut puppet = Puppet::start(FREE)?;
    puppet.is_allowed(&secret())?;
    let pid = puppet.pid().to_string();
    fs::write(format!("{BOX}/cgroup.procs"), &pid).context("move the process")?;
    if case.daemon().is_some() {
        eventually("the process is labelled", || {
            Ok(puppet.read(&secret())? == Outcome::Failed(Errno::EACCES))
        })?;
    }
    puppet.is_allowed(&notes())?;
    // Moving it out again does not take the label away.
    fs::write("/sys/fs/cgroup/cgroup.procs", &pid).context("move the process back")?;
    if case.daemon().is_some() {
        puppet.is_refused(&secret())?
    } else {
        puppet.is_allowed(&secret())?
    }
    puppet.end()
}
