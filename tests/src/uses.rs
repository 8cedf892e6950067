//! Leases that can be used so many times, and leases of one session.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Barrier;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use serde_json::Value;

use crate::adoption::Fixture;
use crate::attempt::{Outcome, attempt};
use crate::bundle::{Bundle, permit, within};
use crate::case::Case;
use crate::daemon::Daemon;
use crate::family::{Part, tests};
use crate::layout::{self, path};
use crate::lifecycle::{ends_with, output, prepare as prepare_host};
use crate::users::AGENT;
use crate::using::{TCP, echo_tcp};
use crate::{elf, raw};

pub(crate) const PART: Part = Part {
    name: "uses",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            a_lease_with_one_use_admits_one_of_64_threads,
            the_uses_of_a_lease_go_down_with_the_agent_dead_and_are_never_given_back,
            a_connection_made_with_the_only_use_of_a_lease_lasts_until_its_deadline,
            a_lease_of_one_session_is_no_other_sessions,
        ],
    ),
};

/// Threads that try at once.
const THREADS: usize = 64;
/// Where ordinary programs are, and what they read.
const SYSTEM: [&str; 7] = ["/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/dev"];
/// How long an event may take to be written.
const EVENT: Duration = Duration::from_secs(20);

fn program() -> PathBuf {
    path("uses/program")
}

fn files() -> PathBuf {
    path("uses/files")
}

fn file(number: usize) -> PathBuf {
    files().join(number.to_string())
}

fn prepare() -> Result<()> {
    prepare_host()?;
    layout::directory(&path("uses"))?;
    layout::program(&program(), &elf::exits_with(0))
}

/// Makes the files that are removed.
fn scene() -> Result<()> {
    layout::empty_directory(&files())?;
    layout::mode(&files(), 0o777)?;
    (0..THREADS).try_for_each(|number| layout::file(&file(number), b"x"))
}

fn bundle() -> Bundle {
    let leased = |lease: &str, also: &str| format!("context.leases.contains(\"{lease}\"){also}");
    let place = within(&[path("uses")]);
    Bundle::new("uses")
        .toml(
            "[approvals]\n\
             deploy = { approvers = [\"user:root\"], max = \"1h\", uses = 1, count = \"exec\" }\n\
             purge = { approvers = [\"user:root\"], max = \"1h\", uses = 5, count = \"file.remove\" }\n\
             reach = { approvers = [\"user:root\"], max = \"1h\", uses = 1, count = \"net.connect\" }\n\
             look = { approvers = [\"user:root\"], max = \"1h\" }\n",
        )
        .subject("agent", "user = \"agent\", adopt = [\"user:root\"]")
        .policy(
            "agent",
            permit("deploy", "agent", &["exec"], &leased("deploy", &format!(" && {place}")))
                + &permit("purge", "agent", &["file.remove"], &leased("purge", &format!(" && {place}")))
                + &permit("reach", "agent", &["net.connect"], &leased("reach", ""))
                + &permit("look", "agent", &["file.read"], &leased("look", &format!(" && {place}")))
                + &permit("programs", "agent", &["exec.*", "read"], &within(&SYSTEM)),
        )
}

/// Grants a lease, with further arguments; its number.
fn grant(daemon: &Daemon, name: &str, to: &str, arguments: &[&str]) -> Result<i64> {
    let mut words = vec!["lease", "grant", name, "--subject", to, "--json"];
    words.extend(arguments);
    let granted = output(&mut daemon.control(&words))?;
    ends_with(&granted, 0)?;
    let answer: Value = serde_json::from_slice(&granted.stdout).context("the lease is JSON")?;
    answer["id"].as_i64().with_context(|| format!("no number: {answer}"))
}

/// What is left of a lease.
fn left(daemon: &Daemon, id: i64) -> Result<Option<u64>> {
    let listed = output(&mut daemon.control(&["lease", "list", "--json"]))?;
    ends_with(&listed, 0)?;
    let answer: Value = serde_json::from_slice(&listed.stdout).context("the list is JSON")?;
    let leases = answer["leases"].as_array().context("a list")?;
    let found = leases.iter().find(|lease| lease["id"] == id);
    Ok(found.with_context(|| format!("lease {id} is not listed: {answer}"))?["left"].as_u64())
}

/// Has as many threads of the subject try something at the same time. How many could; the others must have been
/// refused.
fn all_at_once(action: impl Fn(usize) -> io::Result<()> + Sync) -> Result<usize> {
    let outcome = attempt(AGENT, || {
        let start = Barrier::new(THREADS);
        let results: Vec<io::Result<()>> = thread::scope(|scope| {
            let (start, action) = (&start, &action);
            let run = |number| {
                move || {
                    start.wait();
                    action(number)
                }
            };
            let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(run(number))).collect();
            threads.into_iter().map(|thread| thread.join().map_err(|_| io::ErrorKind::Other)?).collect()
        });
        let mut worked = 0;
        for result in results {
            match result {
                Ok(()) => worked += 1,
                Err(error) if error.raw_os_error() == Some(Errno::EACCES as i32) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!("{worked} worked")))
    })?;
    let Outcome::Broke(text) = outcome else { bail!("they could not try: {outcome:?}") };
    let number = text.strip_suffix(" worked").with_context(|| text.clone())?;
    number.parse().context("a number")
}

fn a_lease_with_one_use_admits_one_of_64_threads(case: &Case<'_>) -> Result<()> {
    scene()?;
    // Before 6.2 a fork of a labelled process fails where another task was preempted while it got its label; there
    // was no attempt then.
    let execute = |_| loop {
        match raw::vfork_exec(&program()) {
            Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => {}
            result => return result,
        }
    };
    let daemon = Daemon::start("uses-threads", &bundle())?;
    ensure!(all_at_once(execute)? == 0, "without a lease nobody may");
    let rounds = if case.full { 100 } else { 10 };
    for round in 1..=rounds {
        let mark = daemon.events.mark()?;
        let id = grant(&daemon, "deploy", "agent", &["--for", "10m"])?;
        ensure!(left(&daemon, id)? == Some(1), "one use is left");
        let worked = all_at_once(execute)?;
        case.tried(THREADS as u64);
        ensure!(worked == 1, "round {round}: {worked} of {THREADS} threads executed it with one use");
        ensure!(left(&daemon, id)? == Some(0), "no use is left");
        for reason in ["lease-used", "lease-spent"] {
            daemon.events.wait(mark, EVENT, reason, |event| {
                event.is_about("exec")
                    && event.reason() == reason
                    && event.is_denial() == (reason == "lease-spent")
            })?;
        }
    }
    // Others by the same name, of which uses are not all spent, do not come beside it.
    grant(&daemon, "purge", "agent", &["--uses", "3"])?;
    let beside = output(&mut daemon.control(&["lease", "grant", "purge", "--subject", "agent"]))?;
    ends_with(&beside, 1)?;
    let said = String::from_utf8_lossy(&beside.stderr).into_owned();
    ensure!(said.contains("already"), "{said}");
    let worked = all_at_once(|number| fs::remove_file(file(number)))?;
    ensure!(worked == 3, "{worked} files were removed with 3 uses");
    ensure!(fs::read_dir(files()).context("list")?.count() == THREADS - 3, "others are gone");
    let many =
        output(&mut daemon.control(&["lease", "grant", "purge", "--subject", "agent", "--uses", "6"]))?;
    ensure!(String::from_utf8_lossy(&many.stderr).contains("at most 5 times"), "{many:?}");
    daemon.stop().map(drop)
}

/// Tries to remove the next file.
fn remove(number: usize) -> Result<Outcome> {
    attempt(AGENT, || fs::remove_file(file(number)))
}

fn the_uses_of_a_lease_go_down_with_the_agent_dead_and_are_never_given_back(_: &Case<'_>) -> Result<()> {
    scene()?;
    let fixture = Fixture::new("uses-dead", &bundle())?;
    let daemon = fixture.start()?;
    let refused = Outcome::Failed(Errno::EACCES);
    ensure!(remove(0)? == refused, "without a lease");
    let id = grant(&daemon, "purge", "agent", &["--uses", "3"])?;
    ensure!(remove(0)? == Outcome::Worked, "the first use");
    drop(daemon);
    ensure!(remove(1)? == Outcome::Worked, "the second use, with the agent dead");
    let daemon = fixture.start()?;
    ensure!(left(&daemon, id)? == Some(1), "{:?} uses are left of 3", left(&daemon, id)?);
    drop(daemon);
    ensure!(remove(2)? == Outcome::Worked, "the third use");
    ensure!(remove(3)? == refused, "there is no fourth");
    let daemon = fixture.start()?;
    ensure!(left(&daemon, id)? == Some(0), "it is still spent");
    ensure!(remove(3)? == refused, "nothing is given back by the next agent");
    // Another version of the programs takes the count over.
    let id = grant(&daemon, "purge", "agent", &["--uses", "2"])?;
    ensure!(remove(3)? == Outcome::Worked, "a new lease");
    drop(daemon);
    let daemon = fixture.upgraded(true)?;
    ensure!(left(&daemon, id)? == Some(1), "{:?} uses are left of 2", left(&daemon, id)?);
    ensure!(remove(4)? == Outcome::Worked && remove(5)? == refused, "exactly one is left");
    daemon.stop().map(drop)
}

fn a_connection_made_with_the_only_use_of_a_lease_lasts_until_its_deadline(_: &Case<'_>) -> Result<()> {
    echo_tcp()?;
    let daemon = Daemon::start("uses-connection", &bundle())?;
    let connect = || TcpStream::connect(("127.0.0.1", TCP));
    ensure!(attempt(AGENT, || connect().map(drop))? == Outcome::Failed(Errno::EACCES), "without a lease");
    let id = grant(&daemon, "reach", "agent", &[])?;
    let (mut go, mut said) = (io::pipe().context("a pipe")?, io::pipe().context("a pipe")?);
    let running = crate::attempt::start(AGENT, || {
        let mut stream = connect()?;
        let again = connect().err().and_then(|error| error.raw_os_error());
        if again != Some(Errno::EACCES as i32) {
            return Err(io::Error::other(format!("a second connection: {again:?}")));
        }
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        said.1.try_clone()?.write_all(b"x")?;
        go.0.try_clone()?.read_exact(&mut [0])?;
        stream.write_all(b"x")
    })?;
    said.0.read_exact(&mut [0]).context("hear of the connection")?;
    let revoked = output(&mut daemon.control(&["lease", "revoke", &id.to_string()]))?;
    ends_with(&revoked, 0)?;
    go.1.write_all(b"x").context("let it go on")?;
    let outcome = running.outcome()?;
    ensure!(outcome == Outcome::Failed(Errno::EACCES), "the connection outlives its lease: {outcome:?}");
    daemon.stop().map(drop)
}

/// A session that says whether it can read a file each time that it is asked.
struct Session(Child, BufReader<ChildStdout>);

impl Session {
    fn begin(daemon: &Daemon) -> Result<Self> {
        let words =
            format!("while read x; do (: <{}) 2>/dev/null && echo yes || echo no; done", file(0).display());
        let mut child = Command::new("guardctl")
            .arg("--socket")
            .arg(daemon.directory().join("run/self.sock"))
            .args(["run", "--as", "agent", "--", "bash", "-c", &words])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("run")?;
        let lines = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Self(child, lines))
    }

    fn reads(&mut self) -> Result<bool> {
        self.0.stdin.as_mut().context("its input")?.write_all(b"x\n").context("ask")?;
        let mut line = String::new();
        self.1.read_line(&mut line).context("hear")?;
        Ok(line.trim() == "yes")
    }

    fn end(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        self.0.wait().map(drop).context("end")
    }
}

fn a_lease_of_one_session_is_no_other_sessions(_: &Case<'_>) -> Result<()> {
    scene()?;
    let daemon = Daemon::start("uses-session", &bundle())?;
    let (mut one, mut two) = (Session::begin(&daemon)?, Session::begin(&daemon)?);
    ensure!(!one.reads()? && !two.reads()?, "neither may read");
    let listed = output(&mut daemon.control(&["sessions", "--json"]))?;
    let sessions: Value = serde_json::from_slice(&listed.stdout).context("the sessions are JSON")?;
    let pid = one.0.id();
    let sessions = sessions["sessions"].as_array().context("a list")?;
    let own = sessions.iter().find(|session| session["pid"] == pid);
    let number = own.with_context(|| format!("no session of {pid}: {sessions:?}"))?["id"].clone();
    let id = grant(&daemon, "look", &format!("agent/{number}"), &[])?;
    ensure!(one.reads()?, "the session that has the lease");
    ensure!(!two.reads()?, "the other one");
    ensure!(attempt(AGENT, || fs::read(file(0)).map(drop))? == Outcome::Failed(Errno::EACCES), "no session");
    ends_with(&output(&mut daemon.control(&["lease", "revoke", &id.to_string()]))?, 0)?;
    ensure!(!one.reads()?, "once it is revoked");
    let id = grant(&daemon, "look", "agent", &[])?;
    ensure!(one.reads()? && two.reads()?, "a lease of the subject is every session's");
    ends_with(&output(&mut daemon.control(&["lease", "revoke", &id.to_string()]))?, 0)?;
    let none = output(&mut daemon.control(&["lease", "grant", "look", "--subject", "agent/999999"]))?;
    ensure!(String::from_utf8_lossy(&none.stderr).contains("no session"), "{none:?}");
    one.end()?;
    two.end()?;
    daemon.stop().map(drop)
}
