//! Programs that start others as somebody else: they stay what they are, and what they start is labelled.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;

use crate::attempt::eventually;
use crate::bundle::{Bundle, permit, within};
use crate::case::{Case, refusal};
use crate::family::{Part, tests};
use crate::file::read;
use crate::identity::helper;
use crate::layout::{self, ROOT, canary, path};
use crate::programs::Server;
use crate::step;
use crate::users::{CI, FREE, Identity, ROOT as AS_ROOT};

pub(crate) const PART: Part = Part {
    name: "starters",
    bundle,
    prepare,
    tests: tests!(
        others: [
            sudo_labels_what_it_starts_and_not_itself,
            runuser_and_setpriv_label_what_they_start,
            a_login_by_ssh_is_labelled_and_the_server_is_not,
            a_job_of_cron_is_labelled_and_cron_is_not,
        ],
    ),
};

/// Port of the ssh server.
const SSH: u16 = 7022;
const HOME: &str = "/home/ci";

fn prepare() -> Result<()> {
    layout::create()?;
    layout::program(&helper(), &fs::read("/proc/self/exe").context("read this program")?)?;
    layout::directory(Path::new(HOME))
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let everywhere = within(&["/etc", "/usr", "/proc", "/dev", "/run", "/var", "/home/ci", "/tmp"]);
    let own = within(&[path("programs"), path("open")]);
    let policy = permit("login", "ci", &["read", "exec.*"], &everywhere)
        + &permit("own", "ci", &["file.*", "exec.*"], &own);
    let subject = "[subjects.ci]\nselector = { user = \"ci\" }\ngoverns = [\"file.read\", \"exec\"]\n";
    Ok(bundle.toml(subject).policy("starters", policy))
}

fn secret() -> PathBuf {
    canary(ROOT)
}

fn notes() -> PathBuf {
    path("open/notes")
}

/// `launch` has a file read as the subject, and root's own process that does so goes on unlabelled.
fn labels(case: &Case<'_>, launch: impl Fn(Identity, &Path) -> io::Result<()>) -> Result<()> {
    let as_ci = AS_ROOT.becoming("ci");
    let refused = refusal(as_ci, "file.read").at("shut/secret").only_labelled();
    case.refused(refused, || launch(CI, &secret()))?;
    case.allowed(as_ci, || launch(CI, &notes()))?;
    // The same program, for a user that no policy names.
    case.allowed(AS_ROOT, || launch(FREE, &secret()))?;
    case.allowed(AS_ROOT, || read(secret()))
}

fn sudo_labels_what_it_starts_and_not_itself(case: &Case<'_>) -> Result<()> {
    labels(case, |who, file| {
        let mut command = Command::new("sudo");
        command.args(["-n", "-u", who.name, "--"]).arg(helper()).args(["step", "read"]).arg(file);
        step::result(command.stdin(Stdio::null()).status()?)
    })
}

fn runuser_and_setpriv_label_what_they_start(case: &Case<'_>) -> Result<()> {
    labels(case, |who, file| {
        let mut command = Command::new("runuser");
        command.args(["-u", who.name, "--"]).arg(helper()).args(["step", "read"]).arg(file);
        step::result(command.status()?)
    })?;
    labels(case, |who, file| {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={}", who.uid)).args(["--clear-groups"]).arg(helper());
        step::result(command.args(["step", "read"]).arg(file).status()?)
    })
}

fn key(name: &str) -> PathBuf {
    path("ssh").join(name)
}

/// A server that takes one key, for two users.
fn ssh_server() -> Result<Server> {
    let directory = path("ssh");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).context("make a directory for keys")?;
    layout::mode(&directory, 0o755)?;
    for name in ["host", "user"] {
        let file = key(name).display().to_string();
        layout::run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &file])?;
    }
    fs::create_dir_all("/run/sshd").context("make the server's directory")?;
    let accounts = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    if !accounts.lines().any(|line| line.starts_with("sshd:")) {
        let line = "sshd:x:2990:65534::/run/sshd:/usr/sbin/nologin\n";
        fs::write("/etc/passwd", accounts + line).context("add the server's account")?;
    }
    let keys = key("user.pub");
    layout::mode(&keys, 0o644)?;
    let mut command = Command::new(layout::which("sshd").unwrap_or_else(|_| "/usr/sbin/sshd".into()));
    command.args(["-D", "-e", "-f", "/dev/null", "-p", &SSH.to_string(), "-h"]).arg(key("host"));
    for option in [
        "ListenAddress=127.0.0.1".to_owned(),
        format!("AuthorizedKeysFile={}", keys.display()),
        "StrictModes=no".to_owned(),
        "UsePAM=no".to_owned(),
        "UseDNS=no".to_owned(),
        "PidFile=none".to_owned(),
    ] {
        command.arg("-o").arg(option);
    }
    let log = fs::File::create(path("ssh/log")).context("make a log")?;
    Server::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log), SSH)
}

fn a_login_by_ssh_is_labelled_and_the_server_is_not(case: &Case<'_>) -> Result<()> {
    let _server = ssh_server()?;
    labels(case, |who, file| {
        let mut command = Command::new("ssh");
        command.args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]);
        command.args(["-p", &SSH.to_string(), "-i"]).arg(key("user"));
        command.arg(format!("{}@127.0.0.1", who.name));
        command.arg(format!("{} step read {}", helper().display(), file.display()));
        step::result(command.stdin(Stdio::null()).status()?)
    })
    .with_context(|| fs::read_to_string(path("ssh/log")).unwrap_or_default())
}

fn a_job_of_cron_is_labelled_and_cron_is_not(case: &Case<'_>) -> Result<()> {
    let table = Path::new("/etc/cron.d/guard-tests");
    let directory = path("open/cron");
    layout::empty_directory(&directory)?;
    let job = |name: &str, who: Identity, file: &Path| {
        let result = directory.join(name);
        let helper = helper();
        let (helper, file, result) = (helper.display(), file.display(), result.display());
        format!("* * * * * {} {helper} step read {file}; echo $? >{result}\n", who.name)
    };
    let mut text = job("secret", CI, &secret()) + &job("notes", CI, &notes()) + &job("free", FREE, &secret());
    text.insert_str(0, "SHELL=/bin/sh\nPATH=/usr/bin:/bin\n");
    fs::create_dir_all("/etc/cron.d").context("make the directory of tables")?;
    fs::create_dir_all("/var/spool/cron/crontabs").context("make the directory of users' tables")?;
    fs::write(table, text).context("write a table")?;
    layout::mode(table, 0o644)?;
    let mut cron = Ends(Command::new("cron").arg("-f").stdin(Stdio::null()).spawn().context("start cron")?);
    let result = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default().trim().to_owned();
    let begin = std::time::Instant::now();
    let mut found = Vec::new();
    let outcome = eventually("cron runs its jobs", || {
        found = ["secret", "notes", "free"].map(result).to_vec();
        Ok(found.iter().all(|status| !status.is_empty()))
    });
    let _ = fs::remove_file(table);
    outcome.with_context(|| format!("after {:?}: {found:?}", begin.elapsed()))?;
    let denied = (Errno::EACCES as i32).to_string();
    let wanted = if case.daemon().is_some() { [denied.as_str(), "0", "0"] } else { ["0", "0", "0"] };
    ensure!(found == wanted, "secret, notes and a free user's job ended with {found:?}");
    ensure!(matches!(cron.0.try_wait(), Ok(None)), "cron ended");
    Ok(())
}

/// A process that ends with the value.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
