//! Who may ask the agent for what: accounts by their roles, a bundle by its policies, and never whoever has a label or
//! runs below one.

use std::fs;
use std::io::{self, Write, pipe};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, mkfifo, setgroups, setresgid, setresuid};
use serde_json::{Value, json};

use crate::attempt::{Outcome, attempt, eventually};
use crate::bundle::{Bundle, permit, within};
use crate::case::Case;
use crate::daemon::{BASE, Daemon, configure, spawn};
use crate::family::{Part, tests};
use crate::http;
use crate::layout::path;
use crate::lifecycle::{apply, ends_with, output, prepare};
use crate::puppet::Puppet;
use crate::users::{AGENT, FREE, ROOT};

pub(crate) const PART: Part = Part {
    name: "roles",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            a_member_does_what_its_role_may_and_nothing_else,
            a_stranger_gets_nothing_at_the_admin_socket,
            a_labelled_process_gets_nothing_at_the_admin_socket_whatever_group_it_is_in,
            without_roles_the_admin_socket_is_for_root,
            an_approver_grants_and_a_responder_does_not,
            a_responder_puts_a_user_in_quarantine_and_nobody_else_does,
            whoever_runs_below_a_labelled_process_changes_nothing,
            what_a_bundle_says_of_the_api_counts_from_the_next_request_on,
            a_bundle_can_forbid_a_subject_to_ask,
            a_member_that_changes_too_much_is_held_back,
            a_member_is_shown_no_file_that_it_cannot_read,
        ],
    ),
};

/// A group whose members respond.
const RESPONDERS: u32 = 2970;
/// Accounts, by number alone: neither has a name.
const RESPONDER: Account = Account { uid: 2971, groups: &[2971, RESPONDERS] };
const VIEWER: Account = Account { uid: 2972, groups: &[2972] };
const APPROVER: Account = Account { uid: 2973, groups: &[2973] };
const EDITOR: Account = Account { uid: 2974, groups: &[2974] };
/// Has no role.
const STRANGER: Account = Account { uid: FREE.uid, groups: &[FREE.uid] };

const ROLES: &str = "[roles]\nresponder = [\"group:2970\"]\nviewer = [\"user:2972\"]\napprover = [\"user:2973\"]\n\
     policy = [\"user:2974\"]\n";

/// Somebody without a label, or with that of the subject whose user it is.
#[derive(Clone, Copy)]
struct Account {
    uid: u32,
    groups: &'static [u32],
}

impl Account {
    /// Becomes it for good.
    fn begin(self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.uid));
        setgroups(&groups)?;
        setresgid(gid, gid, gid)?;
        Ok(setresuid(uid, uid, uid)?)
    }

    /// One exchange at a socket.
    fn asks(self, socket: &Path, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
        let mut all = self.asks_often(socket, method, path, body, 1, 0)?;
        all.pop().context("no answer")
    }

    /// So many exchanges by one process, or fewer: it stops at an answer with this status.
    fn asks_often(
        self,
        socket: &Path,
        method: &str,
        path: &str,
        body: &str,
        times: usize,
        until: u16,
    ) -> Result<Vec<(u16, Value)>> {
        let (mut reader, writer) = pipe().context("make a pipe")?;
        // More answers than a pipe holds are read while they come.
        let running = crate::attempt::start(ROOT, || {
            self.begin()?;
            for _ in 0..times {
                let (status, text) = http::exchange(UnixStream::connect(socket)?, method, path, body)?;
                (&writer).write_all(format!("{status} {}\n", text.replace('\n', " ")).as_bytes())?;
                if status == until {
                    break;
                }
            }
            Ok(())
        })?;
        drop(writer);
        let text = io::read_to_string(&mut reader).context("read the answers")?;
        let outcome = running.outcome()?;
        ensure!(outcome == Outcome::Worked, "uid {} could not ask {method} {path}: {outcome:?}", self.uid);
        text.lines()
            .map(|line| {
                let (status, body) = line.split_once(' ').context("an answer")?;
                let body = serde_json::from_str(body).with_context(|| format!("{path}: {body}"))?;
                Ok((status.parse().context("a status")?, body))
            })
            .collect()
    }

    /// It must be answered.
    fn may(self, daemon: &Daemon, method: &str, path: &str, body: &str) -> Result<Value> {
        let (status, answer) = self.asks(&daemon.socket(), method, path, body)?;
        ensure!(status == 200, "uid {} should have {method} {path}: {status}: {answer}", self.uid);
        Ok(answer)
    }

    /// It must be told that it lacks this action.
    fn may_not(self, daemon: &Daemon, method: &str, path: &str, body: &str, action: &str) -> Result<()> {
        let (status, answer) = self.asks(&daemon.socket(), method, path, body)?;
        ensure!(
            status == 403 && answer["code"] == "not-permitted" && answer["action"] == action,
            "uid {} should be refused {method} {path} for want of {action}: {status}: {answer}",
            self.uid
        );
        let roles = answer["roles"].as_array().context("the roles that have it")?;
        ensure!(roles.contains(&json!("admin")), "{answer}");
        Ok(())
    }
}

fn file() -> PathBuf {
    path("flip/first")
}

/// `agent` may read a file while a lease lives, and connect to the sockets of a fixture.
fn bundle(name: &str, version: u64) -> Bundle {
    let condition = format!("{} && context.leases.contains(\"change\")", within(&[file()]));
    let sockets = format!(
        "resource == Guard::Unix::\"{BASE}/{name}/run/admin.sock\" || resource == Guard::Unix::\"{BASE}/{name}/run/self.sock\""
    );
    Bundle::new("roles")
        .version(version)
        .toml("[facts]\ncalm = { type = \"bool\" }\n[approvals]\nchange = { approvers = [\"user:2973\", \"user:root\"], max = \"1h\" }\n")
        .subject("agent", "user = \"agent\"")
        .policy(
            "agent",
            permit("change", "agent", &["file.read"], &condition)
                + &permit("sockets", "agent", &["unix.connect"], &sockets),
        )
}

/// A daemon whose host has given these roles.
fn start(name: &str, bundle: &Bundle, roles: &str) -> Result<Daemon> {
    let directory = configure(name, bundle)?;
    let config = directory.join("agent.toml");
    let text = fs::read_to_string(&config).context("read agent.toml")?;
    fs::write(&config, format!("{text}{roles}")).context("write agent.toml")?;
    spawn(&directory)?.ready()
}

/// The body that applies a bundle.
fn applies(directory: &Path) -> String {
    json!({ "directory": directory }).to_string()
}

fn a_member_does_what_its_role_may_and_nothing_else(_: &Case<'_>) -> Result<()> {
    const NAME: &str = "roles-member";
    let daemon = start(NAME, &bundle(NAME, 1), ROLES)?;
    let next = bundle(NAME, 2).write(&daemon.directory().join("next"))?;
    let generation = |who: Account| -> Result<Value> {
        Ok(who.may(&daemon, "GET", "/v1/status", "")?["generation"].clone())
    };
    let before = generation(RESPONDER).context("a member of a group, by a supplementary one")?;
    for who in [VIEWER, APPROVER, EDITOR] {
        ensure!(generation(who)? == before, "another generation");
        who.may(&daemon, "GET", "/v1/leases", "")?;
        who.may_not(&daemon, "POST", "/v1/disarm", "{\"reason\":\"x\"}", "guard.disarm")?;
        who.may_not(
            &daemon,
            "POST",
            "/v1/facts",
            "{\"name\":\"calm\",\"value\":true,\"source\":\"x\"}",
            "guard.fact",
        )?;
    }
    for who in [RESPONDER, VIEWER, APPROVER] {
        who.may_not(&daemon, "POST", "/v1/policy/apply", &applies(&next), "guard.apply")?;
        who.may_not(&daemon, "POST", "/v1/policy/rollback", "{}", "guard.rollback")?;
        let mode =
            "{\"subject\":\"agent\",\"mode\":\"monitor\",\"seconds\":60,\"reason\":\"x\",\"confirmed\":true}";
        who.may_not(&daemon, "POST", "/v1/mode", mode, "guard.mode")?;
    }
    ensure!(generation(RESPONDER)? == before, "something was changed");
    // The twin: whoever has the role, and it is written down by whom.
    let applied = EDITOR.may(&daemon, "POST", "/v1/policy/apply", &applies(&next))?;
    ensure!(applied["changed"] == true, "{applied}");
    let history = RESPONDER.may(&daemon, "GET", "/v1/policy/history", "")?;
    let by = history["entries"].as_array().and_then(|all| all.last()).context("an entry")?["by"].clone();
    ensure!(by.as_str().is_some_and(|by| by.starts_with("uid 2974") && by.ends_with("as policy")), "{by}");
    // The client says the same, with its own exit code.
    let mut client = Command::new("guardctl");
    client.arg("--socket").arg(daemon.socket()).args(["disarm", "--yes", "--reason", "x"]);
    let refused = output(std::os::unix::process::CommandExt::uid(&mut client, VIEWER.uid))?;
    ends_with(&refused, 5)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(said.contains("guard.disarm") && said.contains("admin"), "{said}");
    daemon.stop().map(drop)
}

fn a_responder_puts_a_user_in_quarantine_and_nobody_else_does(_: &Case<'_>) -> Result<()> {
    const NAME: &str = "roles-quarantine";
    let daemon = start(NAME, &bundle(NAME, 1), ROLES)?;
    let body = json!({ "uid": STRANGER.uid, "level": "write", "reason": "INC-3", "revert_seconds": 600 })
        .to_string();
    for who in [VIEWER, APPROVER, EDITOR] {
        who.may_not(&daemon, "POST", "/v1/quarantines", &body, "guard.quarantine")?;
    }
    let write = || {
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open("/tmp/guard-roles-quarantine")
            .map(drop)
    };
    ensure!(attempt(FREE, write)? == Outcome::Worked, "nobody is in quarantine yet");
    let answer = RESPONDER.may(&daemon, "POST", "/v1/quarantines", &body)?;
    let id = answer["quarantine"]["id"].as_i64().context("a number")?;
    ensure!(attempt(FREE, write)? == Outcome::Failed(Errno::EACCES), "the user is in quarantine");
    RESPONDER.may(&daemon, "POST", &format!("/v1/quarantines/{id}/confirm"), "{}")?;
    let release = format!("/v1/quarantines/{id}/release");
    VIEWER.may_not(&daemon, "POST", &release, "{\"reason\":\"x\"}", "guard.release")?;
    RESPONDER.may(&daemon, "POST", &release, "{\"reason\":\"INC-3\"}")?;
    ensure!(attempt(FREE, write)? == Outcome::Worked, "released");
    fs::remove_file("/tmp/guard-roles-quarantine").context("remove the file")?;
    daemon.stop().map(drop)
}

fn a_stranger_gets_nothing_at_the_admin_socket(_: &Case<'_>) -> Result<()> {
    const NAME: &str = "roles-stranger";
    let daemon = start(NAME, &bundle(NAME, 1), ROLES)?;
    for (method, path, body, action) in [
        ("GET", "/v1/status", "", "guard.view"),
        ("GET", "/v1/events", "", "guard.view"),
        ("GET", "/v1/why?last=true", "", "guard.view"),
        // Nothing that it sends is read, and nothing is told of what there is.
        ("POST", "/v1/policy/apply", "{", "guard.apply"),
        ("POST", "/v1/leases", "[]", "guard.lease"),
        ("POST", "/v1/leases/1/revoke", "{}", "guard.lease"),
        ("POST", "/v1/disarm", "{\"reason\":\"x\"}", "guard.disarm"),
        ("GET", "/nowhere", "", "guard.view"),
        ("DELETE", "/v1/status", "", "guard.view"),
    ] {
        STRANGER.may_not(&daemon, method, path, body, action)?;
    }
    // The twins.
    VIEWER.may(&daemon, "GET", "/v1/status", "")?;
    let (status, answer) = VIEWER.asks(&daemon.socket(), "GET", "/nowhere", "")?;
    ensure!(status == 404, "{status}: {answer}");
    let (status, answer) = EDITOR.asks(&daemon.socket(), "POST", "/v1/policy/apply", "{")?;
    ensure!(status == 400 && answer["code"] == "invalid-request", "{status}: {answer}");
    daemon.stop().map(drop)
}

fn a_labelled_process_gets_nothing_at_the_admin_socket_whatever_group_it_is_in(_: &Case<'_>) -> Result<()> {
    const NAME: &str = "roles-labelled";
    const LABELLED: Account = Account { uid: AGENT.uid, groups: &[AGENT.uid, RESPONDERS] };
    // Even if the host's administrator gives it a role by name.
    let roles = format!("{ROLES}admin = [\"user:agent\"]\n");
    let daemon = start(NAME, &bundle(NAME, 1), &roles)?;
    for (method, path) in [("GET", "/v1/status"), ("POST", "/v1/disarm"), ("GET", "/nowhere")] {
        let (status, answer) = LABELLED.asks(&daemon.socket(), method, path, "{\"reason\":\"x\"}")?;
        let message = answer["message"].as_str().unwrap_or_default();
        ensure!(status == 403 && message.contains("itself subject to policy"), "{status}: {answer}");
    }
    // The twin: the same groups, and no label.
    RESPONDER.may(&daemon, "GET", "/v1/status", "")?;
    daemon.stop().map(drop)
}

fn without_roles_the_admin_socket_is_for_root(_: &Case<'_>) -> Result<()> {
    const NAME: &str = "roles-none";
    let mode = |daemon: &Daemon| -> Result<u32> {
        Ok(fs::metadata(daemon.socket()).context("look at the socket")?.permissions().mode() & 0o777)
    };
    let connects = |daemon: &Daemon, who: Account| -> Result<Outcome> {
        let socket = daemon.socket();
        attempt(ROOT, || {
            who.begin()?;
            UnixStream::connect(&socket).map(drop)
        })
    };
    for roles in ["", "[roles]\nviewer = []\n"] {
        let daemon = start(NAME, &bundle(NAME, 1), roles)?;
        ensure!(mode(&daemon)? == 0o600, "{roles}: mode {:o}", mode(&daemon)?);
        let refused = connects(&daemon, RESPONDER)?;
        ensure!(refused == Outcome::Failed(Errno::EACCES), "{roles}: {refused:?}");
        daemon.status().context("root itself")?;
        daemon.stop()?;
    }
    let daemon = start(NAME, &bundle(NAME, 1), ROLES)?;
    ensure!(mode(&daemon)? == 0o666, "mode {:o}", mode(&daemon)?);
    ensure!(connects(&daemon, RESPONDER)? == Outcome::Worked, "with a role");
    daemon.stop()?;
    // A member that is none is no start.
    let directory = configure(NAME, &bundle(NAME, 1))?;
    let config = directory.join("agent.toml");
    let text = fs::read_to_string(&config).context("read agent.toml")?;
    fs::write(&config, format!("{text}[roles]\nviewer = [\"oncall\"]\n")).context("write agent.toml")?;
    let (status, log) = spawn(&directory)?.refused()?;
    ensure!(!status.success() && log.contains("group:NAME"), "{status}: {log}");
    Ok(())
}

fn an_approver_grants_and_a_responder_does_not(_: &Case<'_>) -> Result<()> {
    const NAME: &str = "roles-approver";
    // Has the role as well, and no bundle names it.
    const OTHER: Account = Account { uid: 2975, groups: &[2975] };
    let roles = ROLES.replace("\"user:2973\"", "\"user:2973\", \"user:2975\"");
    let daemon = start(NAME, &bundle(NAME, 1), &roles)?;
    let mut puppet = Puppet::start(AGENT)?;
    let body = json!({ "name": "change", "subject": "agent", "seconds": 600 }).to_string();
    for who in [RESPONDER, VIEWER, EDITOR] {
        who.may_not(&daemon, "POST", "/v1/leases", &body, "guard.lease")?;
    }
    let (status, answer) = OTHER.asks(&daemon.socket(), "POST", "/v1/leases", &body)?;
    let message = answer["message"].as_str().unwrap_or_default();
    ensure!(status == 403 && message.contains("may not approve change"), "{status}: {answer}");
    puppet.is_refused(&file()).context("after refused grants")?;
    let lease = APPROVER.may(&daemon, "POST", "/v1/leases", &body)?;
    let by = lease["by"].as_str().unwrap_or_default();
    ensure!(by.starts_with("uid 2973") && by.ends_with("as approver"), "{lease}");
    puppet.is_allowed(&file()).context("once it is granted")?;
    let revoke = format!("/v1/leases/{}/revoke", lease["id"]);
    RESPONDER.may_not(&daemon, "POST", &revoke, "{}", "guard.lease")?;
    puppet.is_allowed(&file()).context("after a refused revocation")?;
    APPROVER.may(&daemon, "POST", &revoke, "{}")?;
    puppet.is_refused(&file()).context("once it is revoked")?;
    puppet.end()?;
    daemon.stop().map(drop)
}

fn whoever_runs_below_a_labelled_process_changes_nothing(_: &Case<'_>) -> Result<()> {
    const NAME: &str = "roles-below";
    let worker = permit("worker", "worker", &["*"], "true");
    let bundle = |version| {
        bundle(NAME, version).subject("worker", "adopt = [\"user:root\"]").policy("worker", worker.clone())
    };
    let daemon = start(NAME, &bundle(1), ROLES)?;
    let next = bundle(2).write(&daemon.directory().join("next"))?;
    let (go, said) = (daemon.directory().join("go"), daemon.directory().join("said"));
    mkfifo(&go, Mode::S_IRWXU).context("make a fifo")?;
    let commands = [
        "sessions".to_owned(),
        format!("policy apply {}", next.display()),
        "policy rollback".to_owned(),
        "lease grant change --subject agent --for 1m".to_owned(),
        "posture set calm=true --source x".to_owned(),
        "mode monitor agent --for 1m --reason x --yes".to_owned(),
        "disarm --yes --reason x".to_owned(),
    ];
    let lines: Vec<String> = commands
        .iter()
        .map(|command| {
            format!("guardctl --socket {} {command} >/dev/null; echo \"exit $?\"", daemon.socket().display())
        })
        .collect();
    // A shell starts a child, which waits, and becomes a session: the child has no label, and its parent has.
    let script = format!(
        "(read word <{go}; {{ {}; echo done; }} >{said} 2>&1) &\n\
         exec guardctl --socket {own} run --as worker -- cat",
        lines.join("; "),
        go = go.display(),
        said = said.display(),
        own = daemon.directory().join("run/self.sock").display(),
    );
    let mut parent = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("start a shell")?;
    eventually("the parent is in a session", || {
        let sessions = output(&mut daemon.control(&["sessions", "--json"]))?;
        Ok(String::from_utf8_lossy(&sessions.stdout).contains("\"worker\""))
    })?;
    let before = daemon.status()?;
    fs::write(&go, "go\n").context("let the child go on")?;
    let mut text = String::new();
    eventually("the child has its answers", || {
        text = fs::read_to_string(&said).unwrap_or_default();
        Ok(text.ends_with("done\n"))
    })?;
    let exits: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("exit ")).collect();
    // Reading is no harm; what changes something is not permitted.
    ensure!(exits == ["0", "5", "5", "5", "5", "5", "5"], "{text}");
    ensure!(text.matches("subject to policy").count() == commands.len() - 1, "{text}");
    ensure!(daemon.status()?["generation"] == before["generation"], "something was changed");
    // The twins: the same root, elsewhere.
    ends_with(&output(&mut daemon.control(&["posture", "set", "calm=true", "--source", "x"]))?, 0)?;
    daemon.apply(&next)?;
    drop(parent.stdin.take());
    parent.wait().context("wait for the parent")?;
    daemon.stop().map(drop)
}

fn what_a_bundle_says_of_the_api_counts_from_the_next_request_on(_: &Case<'_>) -> Result<()> {
    const NAME: &str = "roles-bundle";
    let daemon = start(NAME, &bundle(NAME, 1), ROLES)?;
    STRANGER.may_not(&daemon, "GET", "/v1/leases", "", "guard.view")?;
    RESPONDER.may(&daemon, "GET", "/v1/leases", "")?;
    let more = "@id(\"free-looks\") permit (principal == Guard::User::\"free\", action == Guard::Action::\"guard.view\", resource);\n\
         @id(\"all\") permit (principal, action, resource);\n\
         @id(\"calm\") @reason(\"not while something is going on\") forbid (principal in Guard::Role::\"policy\", action == Guard::Action::\"guard.apply\", resource)\n\
         unless { context.posture has calm && context.posture.calm };\n";
    ends_with(&apply(&daemon, &bundle(NAME, 2).policy("ops", more), "more")?, 0)?;
    STRANGER.may(&daemon, "GET", "/v1/leases", "")?;
    // A permit for every action is about what processes do, and gives nobody the agent.
    STRANGER.may_not(&daemon, "POST", "/v1/disarm", "{\"reason\":\"x\"}", "guard.disarm")?;
    let next = bundle(NAME, 3).write(&daemon.directory().join("next"))?;
    let forbidden = |who: Account| -> Result<(u16, Value)> {
        who.asks(&daemon.socket(), "POST", "/v1/policy/apply", &applies(&next))
    };
    let (status, answer) = forbidden(EDITOR)?;
    let message = answer["message"].as_str().unwrap_or_default();
    ensure!(
        status == 403 && message.contains("ops/calm") && message.contains("something is going on"),
        "{status}: {answer}"
    );
    ends_with(&output(&mut daemon.control(&["posture", "set", "calm=true", "--source", "x"]))?, 0)?;
    let (status, answer) = forbidden(EDITOR)?;
    ensure!(status == 200, "{status}: {answer}");
    // And with that bundle what the one before gave is gone.
    STRANGER.may_not(&daemon, "GET", "/v1/leases", "", "guard.view")?;
    // A bundle that forbids everything to everybody does not lock root out.
    let nothing = "@id(\"nothing\") forbid (principal, action, resource);\n";
    ends_with(&apply(&daemon, &bundle(NAME, 4).policy("ops", nothing), "nothing")?, 0)?;
    let (status, answer) = RESPONDER.asks(&daemon.socket(), "GET", "/v1/leases", "")?;
    ensure!(status == 403, "{status}: {answer}");
    ends_with(&output(&mut daemon.control(&["policy", "rollback"]))?, 0)?;
    RESPONDER.may(&daemon, "GET", "/v1/leases", "")?;
    // A mistake is said to be one.
    let mistake = "@id(\"x\") permit (principal == Guard::Subject::\"agent\", action == Guard::Action::\"guard.apply\", resource);\n";
    let refused = apply(&daemon, &bundle(NAME, 5).policy("ops", mistake), "mistake")?;
    ends_with(&refused, 6)?;
    ensure!(String::from_utf8_lossy(&refused.stderr).contains("for people"), "{refused:?}");
    daemon.stop().map(drop)
}

fn a_bundle_can_forbid_a_subject_to_ask(_: &Case<'_>) -> Result<()> {
    const NAME: &str = "roles-ask";
    const SUBJECT: Account = Account { uid: AGENT.uid, groups: &[AGENT.uid] };
    let daemon = start(NAME, &bundle(NAME, 1), "")?;
    let own = daemon.directory().join("run/self.sock");
    let body = json!({ "lease": "change", "seconds": 60, "reason": "please" }).to_string();
    let (status, answer) = SUBJECT.asks(&own, "POST", "/v1/requests", &body)?;
    ensure!(status == 200, "{status}: {answer}");
    let id = answer["id"].clone();
    let forbid = "@id(\"quiet\") @reason(\"ask a person\") forbid (principal == Guard::Subject::\"agent\", action in [Guard::Action::\"guard.request\", Guard::Action::\"guard.view\"], resource);\n";
    ends_with(&apply(&daemon, &bundle(NAME, 2).policy("quiet", forbid), "quiet")?, 0)?;
    for (method, path) in [
        ("POST", "/v1/requests".to_owned()),
        ("GET", format!("/v1/requests/{id}")),
        ("GET", "/v1/denials/last".to_owned()),
    ] {
        let (status, answer) = SUBJECT.asks(&own, method, &path, &body)?;
        let message = answer["message"].as_str().unwrap_or_default();
        ensure!(status == 403 && message.contains("ask a person"), "{method} {path}: {status}: {answer}");
    }
    ends_with(&apply(&daemon, &bundle(NAME, 3), "again")?, 0)?;
    let (status, answer) = SUBJECT.asks(&own, "GET", &format!("/v1/requests/{id}"), "")?;
    ensure!(status == 200 && answer["state"] == "open", "{status}: {answer}");
    daemon.stop().map(drop)
}

fn a_member_that_changes_too_much_is_held_back(case: &Case<'_>) -> Result<()> {
    const NAME: &str = "roles-bot";
    /// What an account may do at once (`LIMITS` of the admin socket).
    const BURST: usize = 20;
    const MANY: usize = 500;
    let daemon = start(NAME, &bundle(NAME, 1), ROLES)?;
    let revoke = |who: Account, times| {
        who.asks_often(&daemon.socket(), "POST", "/v1/leases/999/revoke", "{}", times, 429)
    };
    let answers = revoke(APPROVER, MANY)?;
    case.tried(answers.len() as u64);
    let (last, before) = answers.split_last().context("no answers")?;
    ensure!(last.0 == 429 && last.1["code"] == "too-many", "after {} requests: {last:?}", answers.len());
    ensure!(before.len() >= BURST, "only {} of {BURST} at once", before.len());
    ensure!(before.iter().all(|(status, _)| *status == 404), "{before:?}");
    // Reading is not held back, nor is anybody else, nor root.
    let (status, answer) = APPROVER.asks(&daemon.socket(), "GET", "/v1/status", "")?;
    ensure!(status == 200, "{status}: {answer}");
    EDITOR.may(&daemon, "POST", "/v1/policy/release-hold", "")?;
    const ROOTS: Account = Account { uid: 0, groups: &[0] };
    let answers = revoke(ROOTS, 3 * BURST)?;
    ensure!(answers.len() == 3 * BURST && answers.iter().all(|(status, _)| *status == 404), "{answers:?}");
    daemon.stop().map(drop)
}

fn a_member_is_shown_no_file_that_it_cannot_read(_: &Case<'_>) -> Result<()> {
    const NAME: &str = "roles-reader";
    const WORDS: &str = "a-secret-of-root";
    let daemon = start(NAME, &bundle(NAME, 1), ROLES)?;
    let secret = daemon.directory().join("secret");
    fs::write(&secret, format!("{WORDS} = = 1\n")).context("write a secret")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).context("close it")?;
    let trap = daemon.directory().join("trap");
    fs::create_dir_all(&trap).context("make a directory")?;
    symlink(&secret, trap.join("guard.toml")).context("make a link")?;
    // What everybody may open in /proc shows there what the agent is.
    let mirror = daemon.directory().join("mirror");
    fs::create_dir_all(&mirror).context("make a directory")?;
    symlink("/proc/self/maps", mirror.join("guard.toml")).context("make a link")?;
    for path in ["/v1/policy/apply", "/v1/policy/shadow"] {
        for directory in [&trap, &mirror] {
            let (status, answer) = EDITOR.asks(&daemon.socket(), "POST", path, &applies(directory))?;
            let text = answer.to_string();
            let shown = text.contains(WORDS) || text.contains("r--p");
            ensure!(status != 200 && !shown, "{path} {}: {status}: {answer}", directory.display());
        }
    }
    // The control: root may read it, and is shown what is wrong with it.
    let (status, answer) = daemon.request("POST", "/v1/policy/apply", &applies(&trap))?;
    ensure!(status == 422 && answer.contains(WORDS), "{status}: {answer}");
    // The twin: a bundle that the member can read.
    let next = bundle(NAME, 2).write(&daemon.directory().join("next"))?;
    EDITOR.may(&daemon, "POST", "/v1/policy/apply", &applies(&next))?;
    daemon.stop().map(drop)
}
