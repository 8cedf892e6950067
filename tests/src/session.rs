//! Sessions: a user's command as a subject, with variables of its own.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write, pipe};
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::adoption::Fixture;
use crate::attempt::{Outcome, attempt, start};
use crate::bundle::{Bundle, one_of, permit, within};
use crate::case::{Case, refusal};
use crate::daemon::{BASE, Daemon, configure_apart, spawn};
use crate::family::{Part, tests};
use crate::file::read;
use crate::identity::{helper, run_helper};
use crate::layout::{self, ROOT, canary, path};
use crate::lifecycle::{ends_with, output};
use crate::step;
use crate::users::{AGENT, CI, FREE, Identity, WEBSRV};

pub(crate) const PART: Part = Part {
    name: "session",
    bundle,
    prepare,
    tests: tests!(
        others: [
            a_command_is_the_subject_from_its_first_instruction,
            a_command_that_the_subject_may_not_execute_does_not_run,
            a_command_keeps_user_environment_exit_status_and_signals,
            a_group_may_open_a_session_and_who_is_not_named_may_not,
            a_session_has_a_number_of_its_own_and_ends_with_its_last_process,
            what_a_variable_names_is_open_to_its_session_only,
            a_variable_that_is_not_what_it_must_be_opens_no_session,
            a_variable_that_becomes_a_link_leads_nowhere,
            a_labelled_process_opens_no_session,
            the_self_service_socket_does_nothing_else,
            a_flood_of_connections_keeps_nobody_else_out,
        ],
    ),
};

pub(crate) const ALONE: Part = Part {
    name: "sessions-and-agent",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            a_session_is_what_it_was_when_the_agent_starts_again,
            a_session_is_what_it_was_without_the_agent_and_under_its_next_version,
            a_session_of_a_removed_subject_is_denied_everything,
            a_mode_counts_for_sessions_with_variables,
        ],
    ),
};

/// The directory that the trees of users lie below.
const HOMES: &str = "/srv/gt/homes";

fn tree(who: Identity, name: &str) -> PathBuf {
    Path::new(HOMES).join(who.name).join("src").join(name)
}

fn prepare() -> Result<()> {
    layout::create()?;
    let own = fs::read("/proc/self/exe").context("read this program")?;
    layout::program(&helper(), &own)?;
    layout::program(&path("other/helper"), &own)?;
    layout::program(
        &path("programs/guardctl"),
        &fs::read(layout::which("guardctl")?).context("read guardctl")?,
    )?;
    for who in [FREE, WEBSRV] {
        for name in ["one", "two"] {
            let tree = tree(who, name);
            layout::file(&tree.join("file"), b"of this tree\n")?;
            chown(&tree, Some(who.uid), Some(who.uid)).context("give a tree to its user")?;
        }
    }
    let link = tree(FREE, "link");
    let _ = fs::remove_file(&link);
    symlink(tree(FREE, "one"), link).context("make a link to a tree")
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    let programs = within(&[path("programs")]);
    let shell = one_of(&[layout::which("sh")?]);
    let socket = format!("resource == Guard::Unix::\"{}\"", socket(PART.name).display());
    let mut policy = String::new();
    for subject in ["coder", "builder"] {
        policy += &permit(&format!("{subject}-programs"), subject, &["read", "exec.*"], &programs);
        policy += &permit(&format!("{subject}-shell"), subject, &["file.read", "exec.*"], &shell);
        policy += &permit(&format!("{subject}-open"), subject, &["file.*"], &within(&[path("open")]));
        policy += &permit(&format!("{subject}-socket"), subject, &["unix.connect"], &socket);
    }
    policy += &permit("tree", "builder", &["file.*"], &within(&["${session.tree}"]));
    Ok(bundle
        .subject("coder", "adopt = [\"user:free\"]")
        .subject("builder", &format!("adopt = [\"group:free\", \"group:websrv\"] }}\nsession = {{ tree = {{ kind = \"dir\", under = \"{HOMES}/*/src\", owner = \"caller\" }}"))
        .policy("session", policy))
}

/// The self-service socket of a fixture.
fn socket(fixture: &str) -> PathBuf {
    Path::new(BASE).join(fixture).join("run/self.sock")
}

/// A command that runs its further arguments as a subject; without Guard, that just runs them.
fn as_subject(case: &Case<'_>, subject: &str, more: &[&str]) -> Command {
    match case.daemon() {
        Some(daemon) => of_daemon(daemon, subject, more),
        None => Command::new("env"),
    }
}

fn of_daemon(daemon: &Daemon, subject: &str, more: &[&str]) -> Command {
    let mut command = Command::new("guardctl");
    command.arg("--socket").arg(daemon.directory().join("run/self.sock"));
    command.args(["run", "--as", subject]).args(more).arg("--");
    command
}

fn reads(mut command: Command, file: &Path) -> io::Result<()> {
    step::result(command.arg(helper()).args(["step", "read"]).arg(file).status()?)
}

fn secret() -> PathBuf {
    canary(ROOT)
}

fn notes() -> PathBuf {
    path("open/notes")
}

fn a_command_is_the_subject_from_its_first_instruction(case: &Case<'_>) -> Result<()> {
    let coder = FREE.becoming("coder");
    let refused = refusal(coder, "file.read").at("shut/secret").only_labelled();
    case.refused(refused, || reads(as_subject(case, "coder", &[]), &secret()))?;
    case.allowed(coder, || reads(as_subject(case, "coder", &[]), &notes()))?;
    case.allowed(FREE, || run_helper(&helper(), "read", secret()))?;
    // Its children as well.
    let child = |file: PathBuf| {
        let mut command = as_subject(case, "coder", &[]);
        step::result(command.arg(helper()).args(["step", "read-in-child"]).arg(file).status()?)
    };
    case.refused(refusal(coder, "file.read").at("shut/secret").only_labelled(), || child(secret()))?;
    case.allowed(coder, || child(notes()))
}

fn a_command_that_the_subject_may_not_execute_does_not_run(case: &Case<'_>) -> Result<()> {
    let coder = FREE.becoming("coder");
    let other = || {
        let mut command = as_subject(case, "coder", &[]);
        let status = command.arg(path("other/helper")).args(["step", "read"]).arg(notes()).status()?;
        match status.code() {
            Some(126) => Err(nix::errno::Errno::EACCES.into()),
            _ => step::result(status),
        }
    };
    case.refused(refusal(coder, "exec").at("other/helper").only_labelled(), other)?;
    case.allowed(FREE, || run_helper(&path("other/helper"), "read", notes()))
}

fn a_command_keeps_user_environment_exit_status_and_signals(case: &Case<'_>) -> Result<()> {
    let Some(daemon) = case.daemon() else { return Ok(()) };
    let script = "read line; echo \"$line $1 $GUARD_SUBJECT $GUARD_SESSION $GUARD_SOCKET $OWN\"; exit 7";
    let mut command = as_free(of_daemon(daemon, "coder", &["--reason", "a test"]));
    command.args(["sh", "-c", script, "sh", "an argument"]).env("OWN", "mine");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start guardctl")?;
    child.stdin.take().context("its input")?.write_all(b"hello\n").context("write to it")?;
    let result = child.wait_with_output().context("wait for it")?;
    ensure!(result.status.code() == Some(7), "it ended with {}", result.status);
    let said = String::from_utf8_lossy(&result.stdout).into_owned();
    let words: Vec<&str> = said.split_whitespace().collect();
    let socket = daemon.directory().join("run/self.sock").display().to_string();
    let [hello, an, argument, subject, session, where_, own] = words[..] else {
        anyhow::bail!("it said {said:?}");
    };
    ensure!([hello, an, argument, subject, own] == ["hello", "an", "argument", "coder", "mine"], "{said}");
    ensure!(session.parse::<u64>().is_ok_and(|session| session > 0) && where_ == socket, "{said}");
    // It is the process that was started: signals reach it, and its end is that of the command.
    let mut waiting = Waiting::start(as_free(of_daemon(daemon, "coder", &[])), &notes())?;
    kill(waiting.pid(), Signal::SIGTERM).context("signal it")?;
    let status = waiting.child.wait().context("wait for it")?;
    ensure!(status.signal() == Some(Signal::SIGTERM as i32), "it ended with {status}");
    let missing = output(as_free(of_daemon(daemon, "coder", &[])).arg("no-such-command"))?;
    ends_with(&missing, 127)
}

fn as_free(mut command: Command) -> Command {
    command.uid(FREE.uid).gid(FREE.uid);
    command
}

fn a_group_may_open_a_session_and_who_is_not_named_may_not(case: &Case<'_>) -> Result<()> {
    let Some(daemon) = case.daemon() else { return Ok(()) };
    let marker = path("open/ran");
    let before = sessions(daemon, true)?.len();
    let touch = |who: Identity, subject: &str, more: &[&str]| -> Result<Output> {
        let mut command = of_daemon(daemon, subject, more);
        command.uid(who.uid).gid(who.uid);
        command.args(["sh", "-c", "echo >$1", "sh"]).arg(&marker);
        output(&mut command)
    };
    for (who, subject) in
        [(AGENT, "coder"), (CI, "builder"), (FREE, "nobody"), (Identity::new("root", 0), "coder")]
    {
        let result = touch(who, subject, &[])?;
        ends_with(&result, 5).with_context(|| format!("{} as {subject}", who.name))?;
        let text = String::from_utf8_lossy(&result.stderr);
        ensure!(text.contains(&format!("you may not open a session as {subject}")), "{text}");
        ensure!(!marker.exists(), "the command ran");
    }
    ensure!(sessions(daemon, true)?.len() == before, "a session was recorded");
    let tree = format!("tree={}", tree(WEBSRV, "one").display());
    ends_with(&touch(WEBSRV, "builder", &["--set", &tree])?, 0)?;
    ensure!(marker.exists(), "the command did not run");
    fs::remove_file(&marker).context("remove the marker")?;
    // By a supplementary group.
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={}", FREE.uid), format!("--regid={}", CI.uid)]);
    command.arg(format!("--groups={},{}", CI.uid, WEBSRV.uid));
    let inner = of_daemon(daemon, "builder", &["--set", &format!("tree={}", tree_of(FREE))]);
    command.arg(inner.get_program()).args(inner.get_args()).args(["sh", "-c", "exit 3"]);
    ends_with(&output(&mut command)?, 3)
}

fn tree_of(who: Identity) -> String {
    tree(who, "one").display().to_string()
}

/// A copy of this program that waits to be told to read a file.
struct Waiting {
    child: Child,
    input: ChildStdin,
}

impl Waiting {
    fn start(mut command: Command, file: &Path) -> Result<Self> {
        command.arg(helper()).args(["step", "read-when-told"]).arg(file);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start guardctl")?;
        let mut line = String::new();
        let said = child.stdout.take().context("its output")?;
        BufReader::new(said).read_line(&mut line).context("wait for the command")?;
        ensure!(line == "running\n", "the command said {line:?}");
        let input = child.stdin.take().context("its input")?;
        Ok(Self { child, input })
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn read(mut self) -> Result<io::Result<()>> {
        self.input.write_all(b"go\n").context("tell the command")?;
        Ok(step::result(self.child.wait().context("wait for the command")?))
    }

    fn expect_refusal(self) -> Result<()> {
        let result = self.read()?.map_err(|error| error.raw_os_error());
        ensure!(result == Err(Some(nix::libc::EACCES)), "the command should be refused: {result:?}");
        Ok(())
    }
}

fn sessions(daemon: &Daemon, all: bool) -> Result<Vec<Value>> {
    let (status, answer) = daemon.request("GET", &format!("/v1/sessions?all={all}"), "")?;
    ensure!(status == 200, "the daemon answered {status}: {answer}");
    let answer: Value = serde_json::from_str(&answer).context("the sessions are JSON")?;
    Ok(answer["sessions"].as_array().context("a list of sessions")?.clone())
}

/// The session that began with this process.
fn session_of(daemon: &Daemon, pid: Pid) -> Result<Value> {
    let found = sessions(daemon, true)?.into_iter().rfind(|session| session["pid"] == pid.as_raw());
    found.with_context(|| format!("no session began with process {pid}"))
}

fn a_session_has_a_number_of_its_own_and_ends_with_its_last_process(case: &Case<'_>) -> Result<()> {
    let Some(daemon) = case.daemon() else { return Ok(()) };
    let start = || Waiting::start(as_free(of_daemon(daemon, "coder", &["--reason", "INC-7"])), &notes());
    let (one, two) = (start()?, start()?);
    let [first, second] = [session_of(daemon, one.pid())?, session_of(daemon, two.pid())?];
    ensure!(first["id"].as_u64() < second["id"].as_u64(), "{first} {second}");
    for session in [&first, &second] {
        ensure!(session["subject"] == "coder" && session["uid"] == FREE.uid, "{session}");
        ensure!(session["user"] == "free" && session["reason"] == "INC-7", "{session}");
        ensure!(session["ended"].is_null(), "{session}");
    }
    let pid = one.pid();
    one.read()?.context("what policy permits")?;
    let first = session_of(daemon, pid)?;
    ensure!(first["ended"].is_string(), "a session without processes lasts: {first}");
    ensure!(session_of(daemon, two.pid())?["ended"].is_null(), "a session with a process has ended");
    let text = output(&mut daemon.control(&["sessions"]))?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let name = |session: &Value| format!("coder/{} ", session["id"]);
    ensure!(text.contains(&name(&second)) && !text.contains(&name(&first)), "{text}");
    two.read()?.context("what policy permits")
}

fn what_a_variable_names_is_open_to_its_session_only(case: &Case<'_>) -> Result<()> {
    let builder = FREE.becoming("builder");
    let (one, two) = (tree(FREE, "one"), tree(FREE, "two"));
    let set = |tree: &Path| format!("tree={}", tree.display());
    let [with_one, with_two] = [set(&one), set(&two)];
    for (own, other, value) in [(&one, &two, &with_one), (&two, &one, &with_two)] {
        let run = || as_subject(case, "builder", &["--set", value]);
        case.allowed(builder, || reads(run(), &own.join("file")))?;
        let place = other.join("file");
        let refused = refusal(builder, "file.read").at(&place).only_labelled();
        case.refused(refused, || reads(run(), &place))?;
        // Nobody else's either, nor what is open to no session.
        let place = tree(WEBSRV, "one").join("file");
        case.refused(refusal(builder, "file.read").at(&place).only_labelled(), || reads(run(), &place))?;
        case.allowed(builder, || reads(run(), &notes()))?;
    }
    let Some(daemon) = case.daemon() else { return Ok(()) };
    // Both at once, beside each other.
    let start = |value: &str, file: &Path| {
        Waiting::start(as_free(of_daemon(daemon, "builder", &["--set", value])), file)
    };
    let (own, refused) = (start(&with_one, &one.join("file"))?, start(&with_two, &one.join("file"))?);
    let mark = daemon.events.mark()?;
    let number = session_of(daemon, refused.pid())?["id"].as_u64();
    let session = session_of(daemon, own.pid())?;
    ensure!(session["variables"]["tree"] == one.display().to_string(), "{session}");
    refused.expect_refusal()?;
    own.read()?.context("the tree of the session")?;
    daemon.events.wait(mark, std::time::Duration::from_secs(20), "the denial", |event| {
        event.is_denial() && event.subject() == "builder"
    })?;
    // The policies behind it are told as they were for that session.
    let why = output(&mut daemon.control(&["why", "--last", "builder", "--json"]))?;
    let why: Value = serde_json::from_slice(&why.stdout).context("why is JSON")?;
    ensure!(why["event"]["session"].as_u64() == number, "{why}");
    ensure!(why["note"].is_null() && why["decisions"][0]["allowed"] == false, "{why}");
    Ok(())
}

fn a_variable_that_is_not_what_it_must_be_opens_no_session(case: &Case<'_>) -> Result<()> {
    let Some(daemon) = case.daemon() else { return Ok(()) };
    let before = sessions(daemon, true)?.len();
    let one = tree(FREE, "one");
    let inside = |name: &str| format!("tree={}", one.parent().unwrap_or(&one).join(name).display());
    for (set, why) in [
        (vec![], "has no value"),
        (vec![inside("link")], "a symbolic link"),
        (vec![inside("link/x")], "a symbolic link"),
        (vec![inside("none")], "No such file"),
        (vec![inside("one/file")], "not a directory"),
        (vec![inside("../src/one")], "no empty, . or .. components"),
        (vec![format!("tree={}", tree(WEBSRV, "one").display())], "does not belong to you"),
        (vec!["tree=/etc".to_owned()], "does not lie below"),
        (vec![format!("tree={}", Path::new(HOMES).join("free/src").display())], "does not lie below"),
        (vec![inside("one"), "other=/x".to_owned()], "no session variable other"),
    ] {
        let more: Vec<&str> = set.iter().flat_map(|set| ["--set", set.as_str()]).collect();
        let result = output(as_free(of_daemon(daemon, "builder", &more)).args(["sh", "-c", "exit 0"]))?;
        let text = String::from_utf8_lossy(&result.stderr).into_owned();
        ends_with(&result, 6).with_context(|| format!("{set:?}: {text}"))?;
        ensure!(text.contains(why), "{set:?}: {text}");
    }
    ensure!(sessions(daemon, true)?.len() == before, "a session was recorded");
    Ok(())
}

fn a_variable_that_becomes_a_link_leads_nowhere(case: &Case<'_>) -> Result<()> {
    let Some(daemon) = case.daemon() else { return Ok(()) };
    let moving = tree(FREE, "moving");
    let _ = fs::remove_dir_all(&moving);
    let _ = fs::remove_file(&moving);
    layout::file(&moving.join("file"), b"of this tree\n")?;
    chown(&moving, Some(FREE.uid), Some(FREE.uid)).context("give a tree to its user")?;
    let set = format!("tree={}", moving.display());
    let run = || as_free(of_daemon(daemon, "builder", &["--set", &set]));
    let (refused, allowed) =
        (Waiting::start(run(), &moving.join("secret"))?, Waiting::start(run(), &notes())?);
    // The user, whose directory it is, puts a link to the canary's directory in the tree's place.
    let (away, above) = (tree(FREE, "moved"), moving.parent().context("a tree lies somewhere")?);
    let _ = fs::remove_dir_all(&away);
    chown(above, Some(FREE.uid), Some(FREE.uid)).context("give the directory to its user")?;
    let exchange = || {
        fs::rename(&moving, &away)?;
        symlink(path("shut"), &moving)
    };
    let exchanged = attempt(FREE, exchange)?;
    ensure!(exchanged == Outcome::Worked, "the user's own directory: {exchanged:?}");
    let mut said = String::new();
    crate::attempt::eventually("the agent notices the link", || {
        said = daemon.status()?["degraded"].to_string();
        Ok(said.contains("has no place in the tables"))
    })
    .with_context(|| format!("degraded: {said}\n{}", daemon.log()))?;
    refused.expect_refusal()?;
    // A session without a place in the tables is denied what the subject may do, too.
    allowed.expect_refusal()?;
    fs::remove_file(&moving).context("remove the link")?;
    fs::rename(&away, &moving).context("move the tree back")?;
    crate::attempt::eventually("the sessions have ended", || {
        let own = moving.display().to_string();
        Ok(sessions(daemon, false)?.iter().all(|session| session["variables"]["tree"] != own.as_str()))
    })
}

fn a_labelled_process_opens_no_session(case: &Case<'_>) -> Result<()> {
    let Some(daemon) = case.daemon() else { return Ok(()) };
    let mut command = as_free(of_daemon(daemon, "coder", &[]));
    command.arg(path("programs/guardctl")).args(["run", "--as", "coder", "--", "sh", "-c", "exit 0"]);
    let result = output(&mut command)?;
    ends_with(&result, 5)?;
    let text = String::from_utf8_lossy(&result.stderr).into_owned();
    ensure!(text.contains("itself subject to policy, as coder"), "{text}");
    Ok(())
}

fn the_self_service_socket_does_nothing_else(case: &Case<'_>) -> Result<()> {
    let Some(daemon) = case.daemon() else { return Ok(()) };
    let socket = daemon.directory().join("run/self.sock");
    for (method, asked, wanted) in [
        ("GET", "/v1/status", 404),
        ("POST", "/v1/policy/apply", 404),
        ("GET", "/v1/events", 404),
        ("GET", "/v1/adopt", 405),
        ("POST", "/v1/adopt", 400),
    ] {
        let stream = UnixStream::connect(&socket).context("connect")?;
        let (status, text) = crate::http::exchange(stream, method, asked, "{\"x\":1}")?;
        ensure!(status == wanted, "{method} {asked}: {status} {text}");
    }
    // Nothing but the socket can be used in its directory, and its name is all there is to know.
    let directory = socket.parent().context("a directory")?.to_owned();
    for file in ["lock", "admin.sock", "private/canary.sock", "."] {
        let outcome = crate::attempt::attempt(FREE, || fs::File::open(directory.join(file)).map(drop))?;
        let denied = crate::attempt::Outcome::Failed(nix::errno::Errno::EACCES);
        ensure!(outcome == denied, "{file}: {outcome:?}");
    }
    Ok(())
}

/// Connections that are made, and those of them that one process can hold open.
const FLOOD: usize = 10_000;
const HELD: usize = 900;

fn a_flood_of_connections_keeps_nobody_else_out(case: &Case<'_>) -> Result<()> {
    let Some(daemon) = case.daemon() else { return Ok(()) };
    let socket = daemon.directory().join("run/self.sock");
    let ((mut ready, is_ready), (wait, end)) = (pipe().context("a pipe")?, pipe().context("a pipe")?);
    let flood = start(FREE, || {
        let mut held = VecDeque::new();
        for _ in 0..FLOOD {
            if held.len() == HELD {
                held.pop_front();
            }
            held.push_back(UnixStream::connect(&socket)?);
        }
        (&is_ready).write_all(b"r")?;
        let _ = (&wait).read(&mut [0]);
        drop(held);
        Ok(())
    })?;
    drop(is_ready);
    ready.read_exact(&mut [0]).context("wait for the flood")?;
    // Others are answered.
    let asks = || match crate::http::exchange(UnixStream::connect(&socket)?, "GET", "/v1/status", "")? {
        (404, _) => Ok(()),
        (status, text) => Err(io::Error::other(format!("{status}: {text}"))),
    };
    let answered = attempt(WEBSRV, asks)?;
    ensure!(answered == Outcome::Worked, "another user is not answered: {answered:?}");
    daemon.status().context("the admin socket meanwhile")?;
    (&end).write_all(b"x").context("end the flood")?;
    let ended = flood.outcome()?;
    ensure!(ended == Outcome::Worked, "the flood: {ended:?}");
    Ok(())
}

fn alone(version: u64) -> Result<Bundle> {
    bundle(Bundle::new("alone").version(version))
}

fn a_session_is_what_it_was_when_the_agent_starts_again(_: &Case<'_>) -> Result<()> {
    let directory = configure_apart("sessions", &alone(1)?)?;
    let daemon = spawn(&directory)?.ready()?;
    let one = tree(FREE, "one");
    let set = format!("tree={}", one.display());
    let builder =
        |file: &Path| Waiting::start(as_free(of_daemon(&daemon, "builder", &["--set", &set])), file);
    let (own, other) = (builder(&one.join("file"))?, builder(&tree(FREE, "two").join("file"))?);
    let plain = Waiting::start(as_free(of_daemon(&daemon, "coder", &[])), &secret())?;
    let numbers = [&own, &other, &plain].map(|waiting| session_of(&daemon, waiting.pid()));
    daemon.stop()?;
    read(secret()).context("nothing is enforced")?;
    let daemon = spawn(&directory)?.ready()?;
    for (waiting, before) in [&own, &other, &plain].into_iter().zip(numbers) {
        let (before, now) = (before?, session_of(&daemon, waiting.pid())?);
        ensure!(now["id"] == before["id"] && now["ended"].is_null(), "{before} became {now}");
    }
    own.read()?.context("the tree of the session")?;
    other.expect_refusal()?;
    plain.expect_refusal()?;
    // No number comes again.
    let known: Vec<u64> =
        sessions(&daemon, true)?.iter().filter_map(|session| session["id"].as_u64()).collect();
    let new = Waiting::start(as_free(of_daemon(&daemon, "coder", &[])), &notes())?;
    let number = session_of(&daemon, new.pid())?["id"].as_u64().context("a number")?;
    ensure!(known.iter().all(|known| *known < number), "{number} among {known:?}");
    new.read()?.context("what policy permits")?;
    daemon.stop().map(drop)
}

fn a_session_is_what_it_was_without_the_agent_and_under_its_next_version(_: &Case<'_>) -> Result<()> {
    let fixture = Fixture::new("sessions-pinned", &alone(1)?)?;
    let daemon = fixture.start()?;
    let one = tree(FREE, "one");
    let set = format!("tree={}", one.display());
    let builder =
        |file: &Path| Waiting::start(as_free(of_daemon(&daemon, "builder", &["--set", &set])), file);
    let (own, other) = (one.join("file"), tree(FREE, "two").join("file"));
    let alone = (builder(&own)?, builder(&other)?);
    let later = (builder(&own)?, builder(&other)?);
    let before = session_of(&daemon, later.0.pid())?;
    drop(daemon);
    alone.0.read()?.context("the tree of the session, without an agent")?;
    alone.1.expect_refusal()?;
    let daemon = fixture.upgraded(true)?;
    let now = session_of(&daemon, later.0.pid())?;
    ensure!(now["id"] == before["id"] && now["ended"].is_null(), "{before} became {now}");
    later.0.read()?.context("the tree of the session, under the next version")?;
    later.1.expect_refusal()
}

fn a_session_of_a_removed_subject_is_denied_everything(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("removed", &alone(1)?)?;
    let set = format!("tree={}", tree(FREE, "one").display());
    let run =
        |subject: &str, more: &[&str]| Waiting::start(as_free(of_daemon(&daemon, subject, more)), &notes());
    let (plain, seated) = (run("coder", &[])?, run("builder", &["--set", &set])?);
    let (plain_again, seated_again) = (run("coder", &[])?, run("builder", &["--set", &set])?);
    let empty = Bundle::new("alone").version(2).subject("other", "user = \"ci\"");
    daemon.apply(&empty.write(&daemon.directory().join("empty"))?)?;
    plain.expect_refusal()?;
    seated.expect_refusal()?;
    daemon.apply(&alone(3)?.write(&daemon.directory().join("again"))?)?;
    plain_again.read()?.context("the subject is there again")?;
    seated_again.read()?.context("the subject is there again")?;
    daemon.stop().map(drop)
}

fn a_mode_counts_for_sessions_with_variables(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("modes-of-sessions", &alone(1)?)?;
    let set = format!("tree={}", tree(FREE, "one").display());
    let run = || Waiting::start(as_free(of_daemon(&daemon, "builder", &["--set", &set])), &secret());
    let (before, monitored, kept, after) = (run()?, run()?, run()?, run()?);
    before.expect_refusal()?;
    let mode = |arguments: &[&str]| ends_with(&output(&mut daemon.control(arguments))?, 0);
    mode(&["mode", "monitor", "builder", "--for", "10m", "--reason", "a test", "-y"])?;
    monitored.read()?.context("monitored")?;
    // A compile between keeps it.
    let other = run()?;
    kept.read()?.context("monitored after another session")?;
    other.read()?.context("a session that was opened while monitored")?;
    mode(&["mode", "bundle", "builder"])?;
    after.expect_refusal()?;
    daemon.stop().map(drop)
}
