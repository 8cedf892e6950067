//! What almost every program needs, taken away one by one.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::libc;
use nix::pty::openpty;
use nix::unistd::{Gid, Uid, fchown};

use super::{SCRIPT, START, Twins, add_all, bash, cat, command, run};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::bundle::{Bundle, one_of, within};
use crate::case::Case;
use crate::family::{Part, tests};
use crate::layout::which;

pub(crate) const TWINS: &[Twins] = &[DYNAMIC, DEVICES, TERMINAL, ANONYMOUS, OWN_PROC, FACTS, ACCOUNTS];

const DYNAMIC: Twins = Twins::new(0, "base/dynamic-exec", &[], ["inc-dynamic", "inc-dynamic-less"]);
const DEVICES: Twins = Twins::new(
    1,
    "base/devices",
    &[&["base/dynamic-exec", "base/anonymous", "shell/posix"]],
    ["inc-devices", "inc-devices-less"],
);
const TERMINAL: Twins = Twins::new(2, "base/terminal", SCRIPT, ["inc-terminal", "inc-terminal-less"]);
const ANONYMOUS: Twins = Twins::new(
    3,
    "base/anonymous",
    &[&["base/dynamic-exec", "base/devices", "base/own-proc", "shell/bash", "shell/coreutils"]],
    ["inc-anonymous", "inc-anonymous-less"],
);
const OWN_PROC: Twins = Twins::new(
    4,
    "base/own-proc",
    &[&["base/dynamic-exec", "base/devices", "shell/coreutils"]],
    ["inc-own-proc", "inc-own-proc-less"],
);
const FACTS: Twins = Twins::new(5, "base/proc-facts", SCRIPT, ["inc-facts", "inc-facts-less"]);
const ACCOUNTS: Twins = Twins::new(6, "base/accounts", &[START], ["inc-accounts", "inc-accounts-less"]);

pub(crate) const PART: Part = Part {
    name: "includes-base",
    bundle,
    prepare,
    tests: tests!(
        others: [
            a_dynamic_program_needs_its_libraries,
            a_redirection_needs_the_null_device,
            a_script_on_a_terminal_needs_that_terminal,
            a_process_substitution_needs_its_own_pipes,
            a_process_reads_about_itself_and_nobody_else,
            asking_for_the_size_of_the_machine_needs_facts,
            names_of_accounts_need_the_account_files,
        ],
    ),
};

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let programs = one_of(&[which("true")?, which("getent")?, which("ls")?, which("id")?]);
    // A terminal that is not the controlling one yet is a file like others: it takes an `ioctl` to become it.
    let terminals = within(&["/dev/pts"]);
    Ok(add_all(bundle, TWINS, &[(&["exec"], programs), (&["file.ioctl"], terminals)]))
}

fn prepare() -> Result<()> {
    TWINS.iter().try_for_each(Twins::prepare)
}

fn a_dynamic_program_needs_its_libraries(case: &Case<'_>) -> Result<()> {
    // With nothing but inherited descriptors: nothing is opened besides the program's own parts.
    let start = |_: &Path| match Command::new("/usr/bin/true").status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("true failed")),
    };
    DYNAMIC.does(case, start)?;
    DYNAMIC.needs(case, "exec", "ld-linux-x86-64.so.2", start)
}

fn a_redirection_needs_the_null_device(case: &Case<'_>) -> Result<()> {
    let redirect = |_: &Path| {
        let mut shell = Command::new("/usr/bin/sh");
        shell.args(["-c", "echo lost >/dev/null && read -r nothing </dev/null || exec 3</dev/urandom"]);
        run(
            {
                shell.stdin(Stdio::inherit());
                shell
            },
            &[],
        )
        .map(drop)
    };
    DEVICES.does(case, redirect)?;
    DEVICES.needs(case, "file.write", "dev/null", redirect)
}

/// Runs a script with a new terminal as its input, its output and its controlling terminal.
fn on_a_terminal(tree: &Path, script: &str, terminal: &std::os::fd::OwnedFd) -> io::Result<()> {
    use std::os::unix::process::CommandExt;
    let raw = terminal.as_raw_fd();
    let mut shell = command("/usr/bin/bash", &["-euc", script], tree);
    shell.env("TERM", "xterm").stdin(terminal.try_clone()?).stdout(terminal.try_clone()?);
    // SAFETY: both calls take numbers only and may be made between fork and exec.
    let shell = unsafe {
        shell.pre_exec(move || {
            nix::unistd::setsid()?;
            nix::errno::Errno::result(libc::ioctl(raw, libc::TIOCSCTTY, 0)).map(drop).map_err(Into::into)
        })
    };
    let output = shell.stderr(Stdio::piped()).output()?;
    let message = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false if message.contains("ermission denied") => Err(nix::errno::Errno::EACCES.into()),
        false => Err(io::Error::other(format!("{}: {message}", output.status))),
    }
}

fn a_script_on_a_terminal_needs_that_terminal(case: &Case<'_>) -> Result<()> {
    let script = "test -t 0; stty size >/dev/tty; echo hello >/dev/tty; stty -a </dev/tty >/dev/null";
    // The attempt may be anybody's, and the terminal is the one of whoever makes it.
    let terminal = |uid: u32| -> Result<_> {
        let pty = openpty(None, None).context("make a terminal")?;
        fchown(&pty.slave, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid))).context("chown")?;
        Ok(pty)
    };
    let (mine, other) = (terminal(TERMINAL.with.uid)?, terminal(TERMINAL.without.uid)?);
    TERMINAL.does(case, |tree| on_a_terminal(tree, script, &mine.slave))?;
    TERMINAL.needs(case, "file.write", "/dev/tty", |tree| on_a_terminal(tree, script, &other.slave))?;
    // Another terminal of the same user is not the own one, whatever the file modes say.
    let name = nix::unistd::ttyname(&other.slave).context("name of the terminal")?;
    fchown(&other.slave, Some(Uid::from_raw(TERMINAL.with.uid)), None).context("chown")?;
    crate::layout::mode(&name, 0o666)?;
    let foreign = name.display().to_string();
    let refused = crate::case::refusal(TERMINAL.with, "file.write").at(&foreign);
    case.refused(refused, || {
        on_a_terminal(&Twins::tree(TERMINAL.with), &format!("echo hello >{foreign}"), &mine.slave)
    })
}

fn a_process_substitution_needs_its_own_pipes(case: &Case<'_>) -> Result<()> {
    let substitute = |tree: &Path| {
        let same = bash("cat <(echo one; echo two) | tail -n 1", tree)?;
        if same == "two\n" { Ok(()) } else { Err(io::Error::other(same)) }
    };
    ANONYMOUS.does(case, substitute)?;
    // Reading and writing them are permitted to everybody; to change what is in memory without a name is not.
    let truncate = |_: &Path| {
        let memory = memfd_create(c"memory", MFdFlags::empty()).map_err(io::Error::from)?;
        std::fs::File::from(memory).set_len(4096)
    };
    ANONYMOUS.does(case, truncate)?;
    ANONYMOUS.needs(case, "file.truncate", "", truncate)
}

fn a_process_reads_about_itself_and_nobody_else(case: &Case<'_>) -> Result<()> {
    OWN_PROC.does(case, |tree| cat(tree, "/proc/self/status"))?;
    OWN_PROC.needs(case, "file.read", "/status", |tree| cat(tree, "/proc/self/status"))?;
    let other = format!("/proc/{}/status", std::process::id());
    let refused = crate::case::refusal(OWN_PROC.with, "file.read").at(&other);
    case.refused(refused, || cat(&Twins::tree(OWN_PROC.with), &other))
}

fn asking_for_the_size_of_the_machine_needs_facts(case: &Case<'_>) -> Result<()> {
    let ask = |tree: &Path| {
        bash("nproc; cat /proc/meminfo /proc/loadavg /sys/devices/system/cpu/online", tree).map(drop)
    };
    FACTS.does(case, ask)?;
    FACTS.needs(case, "file.read", "/proc/meminfo", ask)?;
    FACTS.keeps_the_secret(case, cat)
}

fn names_of_accounts_need_the_account_files(case: &Case<'_>) -> Result<()> {
    let ask = |tree: &Path| {
        let found = run(command("/usr/bin/getent", &["passwd", "root"], tree), &[]);
        match found {
            Ok(line) if line.starts_with("root:") => {}
            // getent says nothing; it has not found the account.
            Ok(line) => return Err(io::Error::other(line)),
            Err(error) if error.raw_os_error().is_none() => return Err(nix::errno::Errno::EACCES.into()),
            Err(error) => return Err(error),
        }
        run(command("/usr/bin/ls", &["-l", "/"], tree), &[]).map(drop)
    };
    ensure!(std::path::Path::new("/etc/passwd").is_file(), "this guest has no /etc/passwd");
    ACCOUNTS.does(case, ask_ids)?;
    ACCOUNTS.needs(case, "file.read", "/etc/passwd", ask)?;
    ACCOUNTS.keeps_the_secret(case, |tree, _| {
        let _ = tree;
        std::fs::read(super::SECRET).map(drop)
    })
}

fn ask_ids(tree: &Path) -> io::Result<()> {
    let line = run(command("/usr/bin/getent", &["passwd", "root"], tree), &[])?;
    let id = run(command("/usr/bin/id", &[], tree), &[])?;
    if line.starts_with("root:") && id.contains("(inc-") { Ok(()) } else { Err(io::Error::other(line + &id)) }
}
