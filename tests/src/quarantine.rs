//! Quarantine of what is no subject: processes, users, cgroups, units, programs, the host.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};
use serde_json::Value;

use crate::attempt::{self, Outcome, attempt, eventually};
use crate::case::Case;
use crate::daemon::{Daemon, configure, spawn};
use crate::family::{Part, tests};
use crate::layout::{self, path};
use crate::lifecycle::{ends_with, output, prepare};
use crate::raw;
use crate::users::{AGENT, CI, FREE, Identity};
use crate::using::{Busy, Holder, TCP, Use, boot, bundle, echo_tcp, notes, release, scene};

pub(crate) const PART: Part = Part {
    name: "quarantine",
    bundle: Ok,
    prepare,
    tests: tests!(
        smoke: [],
        others: [
            everything_of_a_user_that_streams_waits_and_writes_ends,
            a_process_without_a_label_is_covered_with_what_it_has_made,
            a_user_is_covered_through_kills_and_restarts,
            a_quarantine_that_nobody_confirms_ends_with_the_agent_dead,
            a_cgroup_and_a_unit_are_covered_whoever_comes_to_be_in_them,
            whoever_executes_a_program_is_covered,
            the_host_is_covered_but_for_who_ordered_it,
            connections_are_ended_at_both_ends,
            a_fork_bomb_without_a_label_is_contained,
            what_must_go_on_is_refused_as_a_target,
        ],
    ),
};

/// Orders a quarantine; the answer.
fn order(daemon: &Daemon, target: &[&str], level: &str) -> Result<Value> {
    let words = ["--level", level, "--reason", "INC-2", "--yes", "--json"];
    let ordered = output(&mut daemon.control(&[&["quarantine"][..], target, &words[..]].concat()))?;
    ends_with(&ordered, 0)?;
    serde_json::from_slice(&ordered.stdout).context("JSON")
}

fn write() -> io::Result<()> {
    OpenOptions::new().write(true).open(notes())?.write_at(b"y", 0).map(drop)
}

fn read() -> io::Result<()> {
    fs::read(notes()).map(drop)
}

fn connect() -> io::Result<()> {
    TcpStream::connect(("127.0.0.1", TCP)).map(drop)
}

const USES: [&str; 3] = ["write", "read", "connect"];

/// Leaves the session of this program, which is that of whoever orders the quarantines.
fn leave() -> io::Result<()> {
    Ok(setsid().map(drop)?)
}

fn uses() -> io::Result<Vec<Use>> {
    leave()?;
    Ok(vec![("write", Box::new(write)), ("read", Box::new(read)), ("connect", Box::new(connect))])
}

fn holder(who: Identity) -> Result<Holder> {
    Holder::start(who, &USES, uses)
}

fn everything_of_a_user_that_streams_waits_and_writes_ends(_: &Case<'_>) -> Result<()> {
    scene()?;
    echo_tcp()?;
    let daemon = Daemon::start("quarantine-user-runs", &bundle(1))?;
    let streaming = Busy::start("streaming", FREE, || {
        leave()?;
        let mut stream = TcpStream::connect(("127.0.0.1", TCP))?;
        Ok(Box::new(move || {
            stream.write_all(&[b'x'; 64])?;
            stream.read_exact(&mut [0; 64])
        }))
    })?;
    let writing = Busy::start("writing", FREE, || {
        leave()?;
        let open = OpenOptions::new().write(true).open(notes())?;
        Ok(Box::new(move || open.write_all_at(&[b'w'; 4096], 0)))
    })?;
    let (mut far, near) = UnixStream::pair().context("make a pair")?;
    let waiting = Busy::begin("waiting", FREE, || {
        leave()?;
        let mut near = near.try_clone()?;
        Ok(Box::new(move || near.read_exact(&mut [0])))
    })?;
    drop(near);
    let mut other = holder(CI)?;
    let before = boot();
    let answer = order(&daemon, &["--uid", "free"], "full")?;
    let after = boot();
    let _ = far.write_all(b"x");
    for (name, busy) in [("streaming", streaming), ("writing", writing)] {
        let (last, count) = busy.end().with_context(|| name.to_owned())?;
        ensure!(last < after, "{name}: admitted {} ns after the command had returned", last - after);
        println!(
            "  {name}: the last of {count} was admitted {} µs after the command began",
            last.saturating_sub(before) / 1000
        );
    }
    let (_, received) = waiting.end()?;
    ensure!(received == 0, "who waited in a receive got {received}");
    println!(
        "  the command says {} µs, {} connections ended",
        answer["in_force_us"], answer["ended_connections"]
    );
    for what in USES {
        other.works(what).context("another user")?;
    }
    let evidence = answer["quarantine"]["evidence"].as_str().context("evidence")?;
    let evidence: Value = serde_json::from_slice(&fs::read(evidence).context("read")?).context("JSON")?;
    ensure!(evidence["processes"].as_array().is_some_and(|all| all.len() >= 3), "{evidence}");
    ensure!(evidence["sockets"].as_array().is_some_and(|all| !all.is_empty()), "{evidence}");
    ensure!(answer["covers"]["connections"].as_array().is_some_and(|all| !all.is_empty()), "{answer}");
    release(&daemon, &answer, None)?;
    other.end()?;
    daemon.stop().map(drop)
}

fn a_process_without_a_label_is_covered_with_what_it_has_made(_: &Case<'_>) -> Result<()> {
    scene()?;
    let daemon = Daemon::start("quarantine-tree", &bundle(1))?;
    // The child writes, its parent waits.
    let tree = Busy::start("child", FREE, || {
        // SAFETY: this process has one thread.
        match unsafe { libc::fork() } {
            0 => {
                let open = OpenOptions::new().write(true).open(notes())?;
                Ok(Box::new(move || open.write_all_at(&[b'w'; 64], 0)))
            }
            child => {
                // SAFETY: waits for the child of this process, and keeps nothing of it.
                unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
                raw::exit_now(0)
            }
        }
    })?;
    let mut other = holder(FREE)?;
    let pid = tree.pid().to_string();
    let answer = order(&daemon, &["--pid", &pid], "write")?;
    let after = boot();
    ensure!(answer["covers"]["processes"].as_array().is_some_and(|all| all.len() == 2), "{answer}");
    let (last, count) = tree.end()?;
    ensure!(count > 0 && last < after, "admitted {} ns after the command had returned", last - after);
    other.works("write").context("another process of the same user")?;
    release(&daemon, &answer, None)?;
    // One that is covered is nobody's again when it is released.
    let pid = other.pid().to_string();
    let answer = order(&daemon, &["--pid", &pid], "write")?;
    other.is_refused("write")?;
    other.works("read").context("what the level says nothing of")?;
    release(&daemon, &answer, None)?;
    other.works("write").context("released")?;
    let (status, text) = daemon.request("GET", "/v1/quarantines", "")?;
    ensure!(status == 200 && !text.contains("process"), "{text}");
    other.end()?;
    daemon.stop().map(drop)
}

fn a_user_is_covered_through_kills_and_restarts(_: &Case<'_>) -> Result<()> {
    scene()?;
    echo_tcp()?;
    let directory = configure("quarantine-user", &bundle(1))?;
    let daemon = spawn(&directory)?.ready()?;
    let mut old = holder(FREE)?;
    old.works("write")?;
    let answer = order(&daemon, &["--uid", "free", "--revert", "1h"], "write")?;
    old.is_refused("write").context("at once")?;
    old.is_refused("connect").context("at once")?;
    old.works("read").context("what the level says nothing of")?;
    let new = || -> Result<()> {
        let mut new = holder(FREE)?;
        new.is_refused("write").context("who comes to be the user")?;
        new.works("read")?;
        new.end()
    };
    new()?;
    ends_with(&crate::lifecycle::apply(&daemon, &bundle(2), "next")?, 0)?;
    old.is_refused("write").context("under the next policy")?;
    drop(daemon);
    old.is_refused("write").context("with the agent dead")?;
    new().context("with the agent dead")?;
    let mut other = holder(CI)?;
    other.works("write").context("another user")?;
    other.end()?;
    let daemon = spawn(&directory)?.ready()?;
    old.is_refused("write").context("under the next agent")?;
    let listed = output(&mut daemon.control(&["quarantine", "list"]))?;
    ensure!(String::from_utf8_lossy(&listed.stdout).contains("user 2999  write"), "{listed:?}");
    release(&daemon, &answer, Some("network"))?;
    old.works("write").context("one step down")?;
    old.is_refused("connect").context("one step down")?;
    release(&daemon, &answer, None)?;
    old.works("connect").context("released")?;
    holder(FREE)?.end()?;
    old.end()?;
    daemon.stop().map(drop)
}

fn a_quarantine_that_nobody_confirms_ends_with_the_agent_dead(_: &Case<'_>) -> Result<()> {
    scene()?;
    let directory = configure("quarantine-revert", &bundle(1))?;
    let daemon = spawn(&directory)?.ready()?;
    let mut old = holder(FREE)?;
    const LASTS: Duration = Duration::from_secs(20);
    let lasts = format!("{}s", LASTS.as_secs());
    // Confirmed, it goes on.
    let answer = order(&daemon, &["--uid", "free", "--revert", &lasts], "write")?;
    let ordered = Instant::now();
    let id = answer["quarantine"]["id"].to_string();
    ends_with(&output(&mut daemon.control(&["quarantine", "confirm", &id]))?, 0)?;
    while ordered.elapsed() < LASTS + Duration::from_secs(1) {
        old.is_refused("write").context("confirmed")?;
    }
    release(&daemon, &answer, None)?;
    old.works("write").context("released")?;
    let before = Instant::now();
    order(&daemon, &["--uid", "free", "--revert", &lasts], "write")?;
    old.is_refused("write")?;
    drop(daemon);
    let mut refused = 0;
    loop {
        match old.does("write")? {
            Outcome::Failed(Errno::EACCES) => refused += 1,
            Outcome::Worked => break,
            other => anyhow::bail!("neither: {other:?}"),
        }
        ensure!(before.elapsed() < 10 * LASTS, "it does not end");
    }
    ensure!(before.elapsed() >= LASTS, "it ended {:?} too soon", LASTS.saturating_sub(before.elapsed()));
    println!("  {refused} uses refused, none before the end admitted");
    let daemon = spawn(&directory)?.ready()?;
    old.works("write").context("under the next agent")?;
    let all = output(&mut daemon.control(&["quarantine", "list", "--all", "--json"]))?;
    ensure!(String::from_utf8_lossy(&all.stdout).contains("nobody confirmed it"), "{all:?}");
    old.end()?;
    daemon.stop().map(drop)
}

const CGROUPS: &str = "/sys/fs/cgroup";

fn enter(cgroup: &Path, pid: i32) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), pid.to_string())
        .with_context(|| format!("enter {}", cgroup.display()))
}

fn a_cgroup_and_a_unit_are_covered_whoever_comes_to_be_in_them(_: &Case<'_>) -> Result<()> {
    scene()?;
    let root = Path::new(CGROUPS).join("guard-tests-quarantine");
    let unit = Path::new(CGROUPS).join("guard-tests-q.service");
    fs::create_dir_all(&root).context("make a cgroup")?;
    let directory = configure("quarantine-cgroup", &bundle(1))?;
    let daemon = spawn(&directory)?.ready()?;
    let (mut inside, mut subject, mut outside) = (holder(FREE)?, holder(AGENT)?, holder(FREE)?);
    enter(&root, inside.pid())?;
    enter(&root, subject.pid())?;
    for one in [&mut inside, &mut subject, &mut outside] {
        one.works("write")?;
    }
    let answer = order(&daemon, &["--cgroup", "/guard-tests-quarantine"], "write")?;
    order(&daemon, &["--unit", "guard-tests-q"], "write")?;
    inside.is_refused("write").context("who is in it")?;
    subject.is_refused("write").context("a subject that is in it")?;
    subject.works("read").context("a subject goes on by its policy otherwise")?;
    outside.works("write").context("who is not")?;
    drop(daemon);
    enter(&root, outside.pid())?;
    outside.is_refused("write").context("who is moved into it, with the agent dead")?;
    fs::create_dir(&unit).context("make the unit's cgroup")?;
    let below = unit.join("below");
    fs::create_dir(&below).context("make one below")?;
    let mut started = holder(CI)?;
    started.works("write")?;
    enter(&below, started.pid())?;
    started.is_refused("write").context("what comes to be below the unit, with the agent dead")?;
    let daemon = spawn(&directory)?.ready()?;
    for one in [&mut inside, &mut subject, &mut outside, &mut started] {
        one.is_refused("write").context("under the next agent")?;
    }
    release(&daemon, &answer, None)?;
    for one in [&mut inside, &mut subject, &mut outside] {
        one.works("write").context("released")?;
    }
    started.is_refused("write").context("by the other one")?;
    let listed = output(&mut daemon.control(&["release", "2", "--reason", "INC-2"]))?;
    ends_with(&listed, 0)?;
    started.works("write").context("released")?;
    for one in [inside, subject, outside, started] {
        one.end()?;
    }
    for cgroup in [&below, &unit, &root] {
        eventually("the cgroup is empty", || Ok(fs::remove_dir(cgroup).is_ok()))?;
    }
    daemon.stop().map(drop)
}

fn whoever_executes_a_program_is_covered(_: &Case<'_>) -> Result<()> {
    scene()?;
    let tool = path("using/free/tool");
    fs::copy(layout::which("sh")?, &tool).context("copy a shell")?;
    layout::mode(&tool, 0o755)?;
    let daemon = Daemon::start("quarantine-program", &bundle(1))?;
    let does = |program: &Path| -> Result<bool> {
        let program: PathBuf = program.to_owned();
        let words = format!("echo x 2>/dev/null >>{}", notes().display());
        let outcome = attempt(FREE, || {
            let status = Command::new(&program).args(["-c", &words]).status()?;
            if status.success() { Ok(()) } else { Err(Errno::EACCES.into()) }
        })?;
        ensure!(matches!(outcome, Outcome::Worked | Outcome::Failed(Errno::EACCES)), "{outcome:?}");
        Ok(outcome == Outcome::Worked)
    };
    ensure!(does(&tool)?, "without a quarantine it works");
    let answer = order(&daemon, &["--exe", &tool.display().to_string()], "write")?;
    ensure!(!does(&tool)?, "who executes it is covered");
    ensure!(does(Path::new("/bin/sh"))?, "who executes another one is not");
    release(&daemon, &answer, None)?;
    ensure!(does(&tool)?, "released");
    daemon.stop().map(drop)
}

fn the_host_is_covered_but_for_who_ordered_it(_: &Case<'_>) -> Result<()> {
    scene()?;
    echo_tcp()?;
    let daemon = Daemon::start("quarantine-host", &bundle(1))?;
    let mut free = holder(FREE)?;
    free.works("connect")?;
    let answer = order(&daemon, &["--host", "--revert", "1h"], "network")?;
    let own = std::process::id();
    let spared = answer["covers"]["spared"].as_array().context("spared")?;
    ensure!(spared.iter().any(|one| one[0] == own), "this process is among {spared:?}");
    free.is_refused("connect").context("a process without a label")?;
    free.works("write").context("what the level says nothing of")?;
    connect().context("who ordered it")?;
    ensure!(attempt(CI, connect)? == Outcome::Worked, "and what it starts");
    release(&daemon, &answer, None)?;
    free.works("connect").context("released")?;
    free.end()?;
    daemon.stop().map(drop)
}

fn connections_are_ended_at_both_ends(_: &Case<'_>) -> Result<()> {
    scene()?;
    let daemon = Daemon::start("quarantine-connections", &bundle(1))?;
    let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
    let at = listener.local_addr().context("where")?;
    let open = || -> io::Result<Vec<Use>> {
        let mut stream = TcpStream::connect(at)?;
        Ok(vec![("send", Box::new(move || stream.write_all(b"x")))])
    };
    let mut holder = Holder::start(FREE, &["send"], open)?;
    let (mut far, _) = listener.accept().context("accept")?;
    holder.works("send")?;
    far.read_exact(&mut [0]).context("read what was sent")?;
    let pid = holder.pid().to_string();
    let answer = order(&daemon, &["--pid", &pid], "network")?;
    ensure!(answer["not_ended"].is_null(), "this kernel ends no connections: {answer}");
    ensure!(answer["ended_connections"] == 1, "{answer}");
    far.set_read_timeout(Some(Duration::from_secs(60))).context("set a time limit")?;
    match far.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        other => anyhow::bail!("the other end still waits: {other:?}"),
    }
    holder.is_refused("send")?;
    release(&daemon, &answer, None)?;
    holder.end()?;
    daemon.stop().map(drop)
}

fn a_fork_bomb_without_a_label_is_contained(case: &Case<'_>) -> Result<()> {
    scene()?;
    let daemon = Daemon::start("quarantine-free-bomb", &bundle(1))?;
    let breadth = if case.full { 4000 } else { 200 };
    let bomb = attempt::start(FREE, || {
        let mut made = 0;
        loop {
            // SAFETY: the child only calls what may be called after fork.
            match unsafe { libc::fork() } {
                0 => {
                    // SAFETY: a call without memory; it waits until it is killed.
                    unsafe { libc::pause() };
                }
                -1 => return Ok(()),
                _ => made += 1,
            }
            if made > breadth {
                // SAFETY: waits for children of this process alone.
                unsafe { libc::wait(std::ptr::null_mut()) };
            }
        }
    })?;
    let pid = bomb.pid().to_string();
    let ours = |daemon: &Daemon| -> Result<usize> {
        let words =
            ["quarantine", "--uid", "free", "--level", "full", "--reason", "x", "--dry-run", "--json"];
        let seen = output(&mut daemon.control(&words))?;
        ends_with(&seen, 0)?;
        let seen: Value = serde_json::from_slice(&seen.stdout).context("JSON")?;
        Ok(seen["covers"]["processes"].as_array().map_or(0, Vec::len))
    };
    let begun = Instant::now();
    while ours(&daemon)? < breadth / 2 {
        ensure!(begun.elapsed() < Duration::from_secs(120), "the bomb does not grow");
    }
    let answer = order(&daemon, &["--pid", &pid], "full")?;
    let (first, second) = (ours(&daemon)?, ours(&daemon)?);
    ensure!(second <= first, "it grows: {first}, then {second}");
    println!("  {first} processes contained, {} µs", answer["in_force_us"]);
    layout::run("pkill", &["-KILL", "-u", "free"])?;
    let _ = bomb.outcome();
    release(&daemon, &answer, None)?;
    daemon.stop().map(drop)
}

fn what_must_go_on_is_refused_as_a_target(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("quarantine-refused", &bundle(1))?;
    let own = std::process::id().to_string();
    let agent = daemon.pid().to_string();
    for target in [
        ["--pid", own.as_str()],
        ["--pid", agent.as_str()],
        ["--pid", "1"],
        ["--unit", "init.scope"],
        ["--uid", "root"],
        ["--cgroup", "/"],
        ["--exe", "/proc/1/exe"],
    ] {
        let words =
            [&["quarantine"][..], &target[..], &["--level", "full", "--reason", "x", "--yes"][..]].concat();
        let refused = output(&mut daemon.control(&words))?;
        ensure!(!refused.status.success(), "{target:?}: {refused:?}");
    }
    let words = ["quarantine", "--host", "--level", "freeze", "--reason", "x", "--yes"];
    ensure!(!output(&mut daemon.control(&words))?.status.success(), "a host that nobody could thaw");
    kill(Pid::from_raw(own.parse().context("number")?), None::<Signal>).context("this process goes on")?;
    let (status, text) = daemon.request("GET", "/v1/quarantines", "")?;
    ensure!(status == 200 && text.contains("\"quarantines\":[]"), "{text}");
    daemon.stop().map(drop)
}
