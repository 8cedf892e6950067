//! The reference bundle in a guest: every request that a system call can express for what this version
//! decides, made by a process of its subject.
//!
//! The bundle is the one that user space tests (`guard-agent/src/policy/tests/reference`), with subjects
//! that users attach and with values for the session's variables, which no session gives in this version.

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use guard_common::action::{Action, Coverage};
use guard_tests::bundle::Bundle;
use guard_tests::daemon::Daemon;
use guard_tests::reference_bundle::{POLICIES, TOML};
use guard_tests::users::Identity;
use guard_tests::{elf, layout};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use super::call::{BEFORE, Call, Name, Socket, Transport};
use super::worker::Worker;

const CASES: &str = include_str!("../../../../guard-agent/src/policy/tests/reference/tests/cases.json");
/// Subjects, and the users that attach them here.
const SUBJECTS: [Identity; 6] = [
    Identity::new("ai-coder", 2101),
    Identity::new("ci-job", 2102),
    Identity::new("ci-prod", 2103),
    Identity::new("nginx", 2104),
    Identity::new("postgres", 2105),
    Identity::new("ir-bot", 2106),
];
/// How many of the requests a system call expresses in this version, at least.
const EXPRESSED: usize = 29;

/// Makes every request; whether all got their answers.
pub(crate) fn run() -> Result<bool> {
    let file: Value = serde_json::from_str(CASES).context("parse the cases")?;
    let cases = file["tests"].as_array().context("the cases are a list")?;
    ensure!(cases.len() == 63, "the reference bundle has {} requests", cases.len());
    let kept = prepare(cases)?;
    let daemon = Daemon::start("reference", &bundle()?)?;
    unshare(CloneFlags::CLONE_NEWNET).context("leave the network")?;
    let workers = SUBJECTS.into_iter().map(Worker::start).collect::<Result<Vec<_>>>()?;
    let unlabelled = Worker::unlabelled()?;
    let (mut right, mut wrong) = (0, 0);
    for (case, number) in cases.iter().zip(1..) {
        let name = format!("{number:>2} {} {} {} -> {}", case["as"], case["do"], case["on"], case["expect"]);
        let name = name.replace('"', "");
        let call = match express(case) {
            Ok(call) => call,
            Err(why) => {
                println!("not expressed: {name}: {why}");
                continue;
            }
        };
        let who = SUBJECTS.iter().position(|subject| case["as"] == subject.name);
        let worker = &workers[who.context("a subject of the bundle")?];
        let control = unlabelled.make(&call)?;
        drain(&kept);
        ensure!(
            control < BEFORE && control != libc::EACCES,
            "{name}: without a label it fails with {control}"
        );
        let got = worker.make(&call)?;
        drain(&kept);
        let expected = if case["expect"] == "allow" { control } else { libc::EACCES };
        if got == expected {
            right += 1;
            println!("ok {name}");
        } else {
            wrong += 1;
            println!("WRONG {name}: {call:?} gives {got} instead of {expected}");
        }
    }
    daemon.stop()?;
    println!("{right} of {} requests made, {wrong} differences", cases.len());
    ensure!(right + wrong >= EXPRESSED, "only {} requests were made", right + wrong);
    Ok(wrong == 0)
}

/// The bundle, with subjects that users attach and values for the session's variables.
fn bundle() -> Result<Bundle> {
    // What comes before is about the bundle as such; facts are declared in guard.toml alone.
    let from = TOML.find("[modes]").context("guard.toml has modes")?;
    let mut toml = String::new();
    for line in TOML[from..].lines() {
        let replaced = ["selector", "also", "session", "successors"];
        if replaced.iter().any(|key| line.split_whitespace().next() == Some(key)) {
            continue;
        }
        toml.push_str(line);
        toml.push('\n');
        let subject = SUBJECTS.iter().find(|subject| line == format!("[subjects.{}]", subject.name));
        if let Some(subject) = subject {
            toml.push_str(&format!("selector = {{ user = \"{}\" }}\n", subject.uid));
        }
    }
    let session =
        [("${session.worktree}", "/home/ann/src/app"), ("${session.state}", "/home/ann/.cache/ai-coder")];
    Ok(POLICIES.into_iter().fold(Bundle::new("reference").toml(&toml), |bundle, (file, text)| {
        let text = session.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value));
        bundle.policy(file, text)
    }))
}

/// The call that a request is, or why there is none.
fn express(case: &Value) -> std::result::Result<Call, String> {
    let action = case["do"].as_str().unwrap_or_default();
    let Some(known) = Action::from_name(action) else {
        return Err("a verb of Guard's own API, which no system call is".into());
    };
    if matches!(known.row().coverage, Coverage::NotYet) {
        return Err("decided by nothing in this version".into());
    }
    for (key, what) in [("leases", "leases"), ("windows", "open windows"), ("posture", "posture facts")] {
        if !case[key].is_null() {
            return Err(format!("there are no {what} in this version"));
        }
    }
    let on = case["on"].as_str().unwrap_or_default();
    let (kind, id) = on.split_once(' ').ok_or("no resource")?;
    for (attribute, what) in [("listener", " of an endpoint"), ("signed_by", "")] {
        if !case["with"][attribute].is_null() {
            return Err(format!("resource.{attribute}{what} is not known in this version"));
        }
    }
    let path = || Name::new(id);
    let open = |flags| Call::Open { path: Name::new(id), flags, detour: false };
    Ok(match (action, kind) {
        ("file.read", _) => open(libc::O_RDONLY),
        ("file.write", _) => open(libc::O_WRONLY),
        ("file.append", _) => open(libc::O_WRONLY | libc::O_APPEND),
        // Nothing truncates without writing, so appending says nothing about it; reading need not be asked.
        ("file.truncate", _) => open(libc::O_WRONLY | libc::O_APPEND | libc::O_TRUNC),
        ("exec", _) => Call::Exec { path: path() },
        ("exec.map", "Memory") => Call::MapAnonymous,
        ("net.connect", _) => Call::Connect {
            address: id.parse().map_err(|error| format!("{id}: {error}"))?,
            transport: if case["with"]["protocol"] == "udp" { Transport::Udp } else { Transport::Tcp },
        },
        ("unix.connect", _) => Call::UnixConnect { socket: Socket::Path(path()) },
        ("unix.send", _) => Call::UnixSend { socket: Socket::Path(path()) },
        other => return Err(format!("{other:?} is not made here")),
    })
}

/// Sockets that others reach.
enum Kept {
    Stream(UnixListener),
    Datagram(UnixDatagram),
}

/// Makes what the requests are about.
fn prepare(cases: &[Value]) -> Result<Vec<Kept>> {
    let mut kept = Vec::new();
    for case in cases {
        let Some((kind, id)) = case["on"].as_str().and_then(|on| on.split_once(' ')) else { continue };
        let path = Path::new(id);
        if !matches!(kind, "File" | "Unix") {
            continue;
        }
        let parent = path.parent().context("a path has a parent")?;
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        match (kind, case["do"].as_str()) {
            ("Unix", Some("unix.connect")) => {
                let _ = fs::remove_file(path);
                let listener = UnixListener::bind(path).with_context(|| format!("bind {id}"))?;
                listener.set_nonblocking(true).context("keep a socket")?;
                layout::mode(path, 0o666)?;
                kept.push(Kept::Stream(listener));
            }
            ("Unix", Some("unix.send")) => {
                let _ = fs::remove_file(path);
                let socket = UnixDatagram::bind(path).with_context(|| format!("bind {id}"))?;
                socket.set_nonblocking(true).context("keep a socket")?;
                layout::mode(path, 0o666)?;
                kept.push(Kept::Datagram(socket));
            }
            // What the guest has stays what it is.
            _ if path.exists() => {}
            (_, Some("exec")) => {
                layout::program(path, &elf::exits_with(0))?;
                if case["with"]["set_id"] == true {
                    layout::mode(path, 0o4755)?;
                }
            }
            (_, Some("file.create" | "file.remove")) | ("Unix", _) => {}
            _ => layout::file(path, b"content\n")?,
        }
    }
    Ok(kept)
}

fn drain(kept: &[Kept]) {
    for socket in kept {
        match socket {
            Kept::Stream(listener) => while listener.accept().is_ok() {},
            Kept::Datagram(socket) => while socket.recv(&mut [0; 8]).is_ok() {},
        }
    }
}
