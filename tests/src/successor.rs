//! Successors: by executing a file, and by asking for a session.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, setresgid, setresuid};

use crate::attempt::{Outcome, attempt};
use crate::bundle::{Bundle, ORDINARY, one_of, permit, within};
use crate::case::{Case, Refusal, refusal};
use crate::daemon::{BASE, configure, configure_apart, spawn};
use crate::exec::run_in_child;
use crate::family::{Part, tests};
use crate::file::read;
use crate::identity::{fork, run_helper, run_step};
use crate::layout::{self, ROOT, canary, path};
use crate::lifecycle::{ends_with, output};
use crate::users::{CI, FREE, Identity, ROOT as AS_ROOT, WEBSRV};
use crate::{elf, raw, step};

pub(crate) const PART: Part = Part {
    name: "successor",
    bundle,
    prepare,
    tests: tests!(
        smoke: [
            an_exec_begins_a_narrower_subject_and_its_children_keep_it,
            an_exec_begins_a_subject_with_more_rights,
        ],
        others: [
            only_the_declared_file_begins_it,
            others_begin_nothing_with_the_file,
            an_exec_that_fails_changes_nothing,
            there_is_no_way_back,
            a_script_begins_a_narrower_subject_and_none_with_more_rights,
            who_is_traced_shares_or_gave_up_rights_begins_nothing_with_more,
            a_file_that_others_could_have_changed_begins_nothing_with_more,
            a_program_with_more_rights_is_told_not_to_trust_its_environment,
            the_parent_may_not_steer_what_has_more_rights,
            a_subject_asks_for_the_successors_that_it_has,
        ],
    ),
};

pub(crate) const ALONE: Part = Part {
    name: "successor-and-agent",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            a_successor_is_one_when_the_agent_starts_again,
            what_runs_the_file_already_is_the_narrower_subject_only,
        ],
    ),
};

const NARROW: Identity = CI.becoming("narrow");
const WIDE: Identity = CI.becoming("wide");

/// Successors with more rights whose files are not what they must be.
const UNTRUSTED: [&str; 3] = ["foreign", "loose", "linked"];

fn program(name: &str) -> PathBuf {
    path("programs").join(name)
}

/// What the parent may read and its narrower successor may not.
fn more() -> PathBuf {
    path("more/notes")
}

fn notes() -> PathBuf {
    path("open/notes")
}

fn secret() -> PathBuf {
    canary(ROOT)
}

fn prepare() -> Result<()> {
    layout::create()?;
    let own = fs::read("/proc/self/exe").context("read this program")?;
    for name in ["helper", "narrow", "narrow-copy", "wide"] {
        layout::program(&program(name), &own)?;
    }
    for name in UNTRUSTED {
        layout::program(&program(name), &elf::exits_with(0))?;
    }
    chown(program("foreign"), Some(FREE.uid), None).context("give a program away")?;
    layout::mode(&program("loose"), 0o775)?;
    for (program_name, link) in [("narrow", "narrow-link"), ("linked", "linked-too")] {
        let _ = fs::remove_file(program(link));
        fs::hard_link(program(program_name), program(link)).context("link a program")?;
    }
    layout::program(&program("quick-wide"), &elf::exits_with(0))?;
    layout::program(&program("quick-narrow"), &elf::exits_with(0))?;
    layout::program(&program("broken"), &elf::interpreted_by("/srv/gt/no-interpreter"))?;
    let script = format!("#!{}\nexec {} step read \"$1\"\n", shell()?.display(), program("helper").display());
    layout::program(&program("script"), script.as_bytes())?;
    layout::program(&program("wide-script"), script.as_bytes())?;
    layout::program(&program("guardctl"), &fs::read(layout::which("guardctl")?).context("read guardctl")?)?;
    layout::file(&more(), b"more\n")
}

fn shell() -> Result<PathBuf> {
    layout::which("sh")
}

fn bundle(bundle: Bundle) -> Result<Bundle> {
    of_fixture(bundle, PART.name)
}

fn of_fixture(bundle: Bundle, fixture: &str) -> Result<Bundle> {
    let programs = within(&[path("programs")]);
    let shell = one_of(&[shell()?]);
    let socket = format!(
        "resource == Guard::Unix::\"{}\"",
        Path::new(BASE).join(fixture).join("run/self.sock").display()
    );
    let narrow = ["narrow", "quick-narrow", "broken", "script", "asked"];
    let wide = ["wide", "quick-wide", "wide-script"];
    let mut edges: Vec<String> = Vec::new();
    for name in narrow.iter().filter(|name| **name != "asked") {
        edges.push(format!(
            "{name} = {{ by = \"exec\", of = \"{}\", narrowing = true }}",
            program(name).display()
        ));
    }
    for name in wide.iter().chain(&UNTRUSTED) {
        edges.push(format!("{name} = {{ by = \"exec\", of = \"{}\" }}", program(name).display()));
    }
    edges.push("asked = { by = \"adopt\", narrowing = true }".to_owned());
    let mut policy = String::new();
    let mut toml = String::new();
    let all = ["job", "other"].iter().chain(&narrow).chain(&wide).chain(&UNTRUSTED);
    for subject in all {
        policy += &permit(&format!("{subject}-programs"), subject, &["read", "exec.*"], &programs);
        policy += &permit(&format!("{subject}-shell"), subject, &["file.read", "exec.*"], &shell);
        policy += &permit(&format!("{subject}-open"), subject, &["file.*"], &within(&[path("open")]));
        policy += &permit(&format!("{subject}-socket"), subject, &["unix.connect"], &socket);
        let more = match *subject {
            "job" => format!("selector = {{ user = \"ci\" }}\nsuccessors = {{ {} }}", edges.join(", ")),
            "other" => "selector = { user = \"websrv\" }".to_owned(),
            _ => String::new(),
        };
        toml += &format!("[subjects.{subject}]\ngoverns = [\"*\"]\ninclude = [{ORDINARY}]\n{more}\n");
    }
    for subject in ["job", "other"] {
        policy += &permit(&format!("{subject}-more"), subject, &["file.read"], &within(&[path("more")]));
    }
    policy += &permit("job-processes", "job", &["proc.*"], "true");
    policy += &permit("job-namespaces", "job", &["sys.userns"], "true");
    for subject in wide.iter().chain(&UNTRUSTED) {
        policy += &permit(&format!("{subject}-secret"), subject, &["file.read"], &within(&[path("shut")]));
    }
    Ok(bundle.toml(&toml).policy("successor", policy))
}

/// Refused to the narrower successor.
fn less(file: &Path) -> Refusal {
    refusal(NARROW, "file.read").at(file).only_labelled()
}

fn an_exec_begins_a_narrower_subject_and_its_children_keep_it(case: &Case<'_>) -> Result<()> {
    case.allowed(CI, || run_helper(&program("helper"), "read", more()))?;
    for verb in ["read", "read-in-child"] {
        case.refused(less(&more()), || run_helper(&program("narrow"), verb, more()))?;
        case.allowed(NARROW, || run_helper(&program("narrow"), verb, notes()))?;
    }
    // By an exec of another thread as well, and of a descriptor.
    let threaded = |file: PathBuf| {
        run_in_child(fork, || {
            let file = file.clone();
            let exec = move || Command::new(program("narrow")).args(["step", "read"]).arg(file).exec();
            let _ = std::thread::spawn(exec).join();
            Err(io::Error::other("it did not execute"))
        })
    };
    case.refused(less(&more()), || threaded(more()))?;
    case.allowed(NARROW, || threaded(notes()))
}

fn an_exec_begins_a_subject_with_more_rights(case: &Case<'_>) -> Result<()> {
    let refused = || refusal(CI.becoming("job"), "file.read").at("shut/secret").only_labelled();
    case.refused(refused(), || run_helper(&program("helper"), "read", secret()))?;
    case.allowed(WIDE, || run_helper(&program("wide"), "read", secret()))?;
    case.allowed(WIDE, || run_helper(&program("wide"), "read-in-child", secret()))?;
    // It has the rights of its own, and not the parent's besides.
    let refused = refusal(WIDE, "file.read").at(more()).only_labelled();
    case.refused(refused, || run_helper(&program("wide"), "read", more()))
}

fn only_the_declared_file_begins_it(case: &Case<'_>) -> Result<()> {
    for name in ["narrow-copy", "narrow-link"] {
        case.allowed(CI, || run_helper(&program(name), "read", more()))?;
    }
    // What is mounted over the name lies elsewhere.
    let mounted = |file: PathBuf| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        let (helper, over) = (program("helper"), program("narrow"));
        mount(Some(&helper), &over, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        become_ci()?;
        run_helper(&over, "read", file)
    };
    case.allowed(AS_ROOT, || mounted(more()))?;
    case.refused(refusal(AS_ROOT.becoming("job"), "file.read").at("shut/secret").only_labelled(), || {
        mounted(secret())
    })?;
    // The file itself begins it wherever it is mounted.
    let elsewhere = |file: PathBuf| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        let (narrow, over) = (program("narrow"), program("helper"));
        mount(Some(&narrow), &over, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        become_ci()?;
        run_helper(&over, "read", file)
    };
    case.refused(refusal(AS_ROOT.becoming("narrow"), "file.read").at(more()).only_labelled(), || {
        elsewhere(more())
    })
}

fn become_ci() -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(CI.uid), Gid::from_raw(CI.uid));
    setresgid(gid, gid, gid)?;
    Ok(setresuid(uid, uid, uid)?)
}

fn others_begin_nothing_with_the_file(case: &Case<'_>) -> Result<()> {
    let other = WEBSRV.becoming("other");
    case.allowed(other, || run_helper(&program("narrow"), "read", more()))?;
    case.refused(refusal(other, "file.read").at("shut/secret"), || {
        run_helper(&program("wide"), "read", secret())
    })?;
    for name in ["narrow", "wide"] {
        case.allowed(FREE, || {
            run_helper(&program(name), "read", more())?;
            run_helper(&program(name), "read", secret())
        })?;
    }
    Ok(())
}

fn an_exec_that_fails_changes_nothing(case: &Case<'_>) -> Result<()> {
    let failing = |then: PathBuf| {
        let error = Command::new(program("broken")).exec();
        if error.raw_os_error() != Some(libc::ENOENT) {
            return Err(io::Error::other(format!("the exec ended with {error}")));
        }
        read(&then)?;
        // What it prepared does not count at the next one.
        run_in_child(fork, || Err(Command::new(program("helper")).args(["step", "read"]).arg(&then).exec()))
    };
    case.allowed(CI, || failing(more()))?;
    case.refused(refusal(CI.becoming("job"), "file.read").at("shut/secret").only_labelled(), || {
        failing(secret())
    })
}

fn there_is_no_way_back(case: &Case<'_>) -> Result<()> {
    // Neither by what the parent may execute, nor by what begins another of its successors.
    for name in ["helper", "wide"] {
        let chain = |file: PathBuf| {
            let inner = program(name);
            let words = ["run".as_ref(), inner.as_os_str(), "read".as_ref(), file.as_os_str()];
            run_step(&program("narrow"), &words)
        };
        case.refused(less(&more()), || chain(more()))?;
        case.allowed(NARROW, || chain(notes()))?;
    }
    Ok(())
}

fn a_script_begins_a_narrower_subject_and_none_with_more_rights(case: &Case<'_>) -> Result<()> {
    let run = |name: &str, file: PathBuf| step::result(Command::new(program(name)).arg(file).status()?);
    let script = CI.becoming("script");
    case.refused(refusal(script, "file.read").at(more()).only_labelled(), || run("script", more()))?;
    case.allowed(script, || run("script", notes()))?;
    let job = CI.becoming("job");
    let refused = refusal(job, "exec").because("unsafe-exec").only_labelled();
    case.refused(refused, || run("wide-script", notes()))
}

/// Executes a program that ends at once, in a child.
fn quickly(name: &str) -> io::Result<()> {
    run_in_child(fork, || Err(Command::new(program(name)).exec()))
}

fn unsafe_exec() -> Refusal {
    refusal(CI.becoming("job"), "exec").because("unsafe-exec").at("programs/quick-wide").only_labelled()
}

fn who_is_traced_shares_or_gave_up_rights_begins_nothing_with_more(case: &Case<'_>) -> Result<()> {
    let without = |name: &str| {
        nix::sys::prctl::set_no_new_privs()?;
        quickly(name)
    };
    let namespace = |name: &str| {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        quickly(name)
    };
    let sharing = |name: &str| run_in_child(sharing_directories, || Err(Command::new(program(name)).exec()));
    let ways: [Way<'_>; 4] = [&without, &namespace, &sharing, &traced];
    for way in ways {
        case.refused(unsafe_exec(), || way("quick-wide"))?;
        case.allowed(CI.becoming("quick-narrow"), || way("quick-narrow"))?;
    }
    case.allowed(CI.becoming("quick-wide"), || quickly("quick-wide"))
}

/// A way to execute the program of this name.
type Way<'a> = &'a dyn Fn(&str) -> io::Result<()>;

/// A child that shares working directory and root with this process.
fn sharing_directories() -> io::Result<ForkResult> {
    Ok(match raw::clone_sharing_directories()? {
        0 => ForkResult::Child,
        pid => ForkResult::Parent { child: Pid::from_raw(pid) },
    })
}

/// Executes a program in a child that is traced by this process.
fn traced(name: &str) -> io::Result<()> {
    match fork()? {
        ForkResult::Child => {
            let error = match raw::trace_me() {
                Ok(()) => Command::new(program(name)).exec(),
                Err(error) => error,
            };
            raw::exit_now(error.raw_os_error().unwrap_or(254))
        }
        ForkResult::Parent { child } => match waitpid(child, None)? {
            // The stop after an exec.
            WaitStatus::Stopped(..) => {
                kill(child, Signal::SIGKILL)?;
                waitpid(child, None)?;
                Ok(())
            }
            WaitStatus::Exited(_, number) => Err(io::Error::from_raw_os_error(number)),
            other => Err(io::Error::other(format!("{other:?}"))),
        },
    }
}

fn a_file_that_others_could_have_changed_begins_nothing_with_more(case: &Case<'_>) -> Result<()> {
    for name in UNTRUSTED {
        let refused =
            refusal(CI.becoming("job"), "exec").because("untrusted-file").at(program(name)).only_labelled();
        case.refused(refused, || quickly(name))?;
    }
    case.allowed(CI.becoming("quick-wide"), || quickly("quick-wide"))
}

fn a_program_with_more_rights_is_told_not_to_trust_its_environment(case: &Case<'_>) -> Result<()> {
    let told = |name: &str| attempt(CI, || run_step(&program(name), &["is-secure"]));
    let no = Outcome::Failed(Errno::EPERM);
    let wide = if case.daemon().is_some() { Outcome::Worked } else { no.clone() };
    ensure!(told("wide")? == wide, "a program with more rights: {:?}", told("wide")?);
    for name in ["narrow", "helper"] {
        ensure!(told(name)? == no, "{name}: {:?}", told(name)?);
    }
    Ok(())
}

/// A copy of this program that waits to be told to read a file.
struct Waiting {
    child: Child,
    input: ChildStdin,
}

impl Waiting {
    fn start(mut command: Command, file: &Path) -> io::Result<Self> {
        command.args(["step", "read-when-told"]).arg(file);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(said), Some(input)) = (child.stdout.take(), child.stdin.take()) else {
            return Err(io::Error::other("no pipes"));
        };
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        if line != "running\n" {
            return Err(io::Error::other(format!("the program said {line:?}")));
        }
        Ok(Self { child, input })
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn read(mut self) -> io::Result<()> {
        self.input.write_all(b"go\n")?;
        step::result(self.child.wait()?)
    }
}

/// Something that is done to a process.
type Act<'a> = &'a dyn Fn(Pid) -> io::Result<()>;

fn the_parent_may_not_steer_what_has_more_rights(case: &Case<'_>) -> Result<()> {
    let on = |name: &str, act: Act<'_>| {
        let waiting = Waiting::start(Command::new(program(name)), &notes())?;
        let result = act(waiting.pid());
        waiting.read()?;
        result
    };
    let signal = |pid: Pid| Ok(kill(pid, None)?);
    let look = |pid: Pid| fs::read_link(format!("/proc/{pid}/cwd")).map(drop);
    let job = CI.becoming("job");
    let acts: [(&str, Errno, Act<'_>); 2] =
        [("proc.signal", Errno::EPERM, &signal), ("proc.trace", Errno::EACCES, &look)];
    for (action, heard, act) in acts {
        let refused = refusal(job, action).with(Errno::EPERM).heard_as(heard).only_labelled();
        case.refused(refused, || on("wide", act))?;
        case.allowed(job, || on("narrow", act))?;
    }
    Ok(())
}

fn a_subject_asks_for_the_successors_that_it_has(case: &Case<'_>) -> Result<()> {
    let Some(daemon) = case.daemon() else { return Ok(()) };
    let socket = daemon.directory().join("run/self.sock");
    let asking = |who: Identity, subject: &str| {
        let mut command = Command::new(program("guardctl"));
        command.arg("--socket").arg(&socket).args(["run", "--as", subject, "--reason", "sub-agent", "--"]);
        command.uid(who.uid).gid(who.uid);
        command
    };
    let asked = CI.becoming("asked");
    let reads = |file: PathBuf| {
        let mut command = asking(CI, "asked");
        step::result(command.arg(program("helper")).args(["step", "read"]).arg(file).status()?)
    };
    case.refused(refusal(AS_ROOT.becoming("asked"), "file.read").at(more()).only_labelled(), || {
        reads(more())
    })?;
    case.allowed(AS_ROOT.becoming("asked"), || reads(notes()))?;
    let refused = |who: Identity, subject: &str, wanted: &str| -> Result<()> {
        let result = output(asking(who, subject).arg(program("helper")).args(["step", "read"]).arg(notes()))?;
        ends_with(&result, 5)?;
        let text = String::from_utf8_lossy(&result.stderr).into_owned();
        ensure!(text.contains(wanted), "{} as {subject}: {text}", who.name);
        Ok(())
    };
    // What is entered by exec, what is none, and who has none.
    for subject in ["narrow", "wide", "other", "job", "nobody"] {
        refused(CI, subject, "itself subject to policy, as job")?;
    }
    refused(WEBSRV, "asked", "itself subject to policy, as other")?;
    refused(FREE, "asked", "you may not open a session as asked")?;
    // It is known where it came from, and it has no way back.
    let mut command = asking(CI, "asked");
    command.arg(program("helper"));
    let waiting = Waiting::start(command, &more()).context("ask for a successor")?;
    let (status, answer) = daemon.request("GET", "/v1/sessions?all=false", "")?;
    ensure!(status == 200, "the daemon answered {status}: {answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).context("the sessions are JSON")?;
    let found = answer["sessions"].as_array().context("a list")?.iter().any(|session| {
        session["pid"] == waiting.pid().as_raw()
            && session["parent"] == "job"
            && session["subject"] == "asked"
    });
    ensure!(found, "no session of {}: {answer}", asked.name);
    let result = waiting.read().map_err(|error| error.raw_os_error());
    ensure!(result == Err(Some(libc::EACCES)), "the successor reads: {result:?}");
    let mut command = asking(CI, "asked");
    command.arg(program("guardctl")).arg("--socket").arg(&socket).args(["run", "--as", "job", "--"]);
    let result = output(command.arg(program("helper")))?;
    ends_with(&result, 5)
}

/// A program of `ci` that waits, before or under an agent.
fn waiting(name: &str, file: &Path) -> Result<Waiting> {
    let mut command = Command::new(program(name));
    command.uid(CI.uid).gid(CI.uid);
    Waiting::start(command, file).with_context(|| format!("start {name}"))
}

fn result_of(waiting: Waiting) -> std::result::Result<(), Option<i32>> {
    waiting.read().map_err(|error| error.raw_os_error())
}

const DENIED: std::result::Result<(), Option<i32>> = Err(Some(libc::EACCES));

/// A program below a process of `ci`, so that it is what this executes.
fn below(name: &str, file: &Path) -> Result<Waiting> {
    let mut command = Command::new(program("helper"));
    command.uid(CI.uid).gid(CI.uid).args(["step", "exec"]).arg(program(name));
    Waiting::start(command, file).with_context(|| format!("start {name}"))
}

fn a_successor_is_one_when_the_agent_starts_again(_: &Case<'_>) -> Result<()> {
    let directory = configure_apart("successors", &of_fixture(Bundle::new("alone"), "successors")?)?;
    let daemon = spawn(&directory)?.ready()?;
    let narrow = [below("narrow", &more())?, below("narrow", &notes())?];
    let wide = [below("wide", &secret())?, below("wide", &more())?];
    let job = [below("helper", &more())?, below("helper", &secret())?];
    daemon.stop()?;
    read(secret()).context("nothing is enforced")?;
    let daemon = spawn(&directory)?.ready()?;
    for (who, [first, second], wanted) in [
        ("narrow", narrow, [DENIED, Ok(())]),
        ("wide", wide, [Ok(()), DENIED]),
        ("job", job, [Ok(()), DENIED]),
    ] {
        let found = [result_of(first), result_of(second)];
        ensure!(found == wanted, "{who} reads: {found:?}");
    }
    daemon.stop().map(drop)
}

fn what_runs_the_file_already_is_the_narrower_subject_only(_: &Case<'_>) -> Result<()> {
    let directory = configure("successors-found", &of_fixture(Bundle::new("found"), "successors-found")?)?;
    // No agent has seen how these came to run what they run.
    let narrow = [waiting("narrow", &more())?, waiting("narrow", &notes())?];
    let wide = [waiting("wide", &secret())?, waiting("wide", &more())?];
    let daemon = spawn(&directory)?.ready()?;
    for (who, [first, second], wanted) in
        [("narrow", narrow, [DENIED, Ok(())]), ("wide", wide, [DENIED, Ok(())])]
    {
        let found = [result_of(first), result_of(second)];
        ensure!(found == wanted, "{who} reads: {found:?}");
    }
    daemon.stop().map(drop)
}
