//! `guardctl why`: the policies that decided, by Cedar over the bundle of that time.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::attempt::{Outcome, attempt, eventually};
use crate::bundle::{Bundle, forbid, permit, within};
use crate::case::Case;
use crate::daemon::Daemon;
use crate::family::{Part, tests};
use crate::file::read;
use crate::generations::reader;
use crate::layout::path;
use crate::lifecycle::{apply, ends_with, output, prepare};
use crate::puppet::Puppet;
use crate::users::{AGENT, FREE};

pub(crate) const PART: Part = Part {
    name: "why",
    bundle: Ok,
    prepare,
    tests: tests!(
        others: [
            a_denial_by_default_names_the_nearest_permit,
            a_forbid_is_named_with_its_reason_after_the_policy_and_the_file_have_changed,
            what_another_check_refused_is_not_us,
            a_removed_subject_is_explained_in_words,
            a_path_too_long_to_be_reported_is_explained_by_the_tables,
        ],
    ),
};

fn file(name: &str) -> PathBuf {
    path("flip").join(name)
}

/// A bundle that permits `first` and everything of another user's, and forbids `both` and what root owns.
fn bundle(version: u64) -> Bundle {
    let policy = permit("first", "agent", &["file.read"], &within(&[file("first")]))
        + "@reason(\"not for agents\")\n"
        + &forbid("named", "agent", &["file.read"], &within(&[file("both")]))
        + &forbid(
            "owned",
            "agent",
            &["file.read"],
            &format!("{} && resource.owner == 0", within(&[file("second")])),
        );
    Bundle::new("small").version(version).subject("agent", "user = \"agent\"").policy("web", policy)
}

fn why(daemon: &Daemon, arguments: &[&str]) -> Result<Output> {
    output(daemon.control(&["why"]).args(arguments))
}

fn why_json(daemon: &Daemon, arguments: &[&str]) -> Result<Value> {
    let result = why(daemon, &[arguments, &["--json"]].concat())?;
    let value: Value = serde_json::from_slice(&result.stdout).context("JSON")?;
    ensure!(value["schema"] == "guard.why/1", "{value}");
    Ok(value)
}

/// The answer about the last denial, once it is the one of `path`.
fn last(daemon: &Daemon, path: &Path) -> Result<Value> {
    let mut answer = Value::Null;
    eventually("the denial is remembered", || {
        answer = why_json(daemon, &["--last", "agent"])?;
        Ok(answer["event"]["resource"]["path"] == path.to_string_lossy().as_ref())
    })?;
    Ok(answer)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn a_denial_by_default_names_the_nearest_permit(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("why", &bundle(1))?;
    chown(file("second"), Some(FREE.uid), None).context("chown")?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_allowed(&file("first"))?;
    puppet.is_refused(&file("second"))?;
    let answer = last(&daemon, &file("second"))?;
    let decision = &answer["decisions"][0];
    ensure!(decision["allowed"] == false && decision["policies"] == serde_json::json!([]), "{answer}");
    ensure!(decision["nearest"]["id"] == "web/first" && answer["note"].is_null(), "{answer}");
    let id = answer["event"]["id"].as_str().context("an id")?.to_owned();
    let screen = why(&daemon, &["--last"])?;
    ends_with(&screen, 0)?;
    let (screen, path) = (text(&screen), file("second").display().to_string());
    ensure!(
        screen.starts_with(&format!("DENIED {id}  agent  file.read {path}  by default (no permit)")),
        "{screen}"
    );
    for wanted in
        ["nearest permit   web/first  web.cedar:1  covers", &format!("guardctl policy suggest {id}")]
    {
        ensure!(screen.contains(wanted), "{wanted}: {screen}");
    }
    // As it is typed from paper.
    ends_with(&why(&daemon, &[&id[2..].to_lowercase()])?, 0)?;
    ends_with(&why(&daemon, &["d-000000"])?, 1)?;
    ends_with(&why(&daemon, &["nonsense!"])?, 6)?;
    puppet.end()?;
    chown(file("second"), Some(0), None).context("chown")?;
    daemon.stop().map(drop)
}

fn a_forbid_is_named_with_its_reason_after_the_policy_and_the_file_have_changed(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("why-old", &bundle(1))?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&file("both"))?;
    let named = last(&daemon, &file("both"))?;
    ensure!(named["decisions"][0]["policies"][0]["id"] == "web/named", "{named}");
    ensure!(named["decisions"][0]["policies"][0]["reason"] == "not for agents", "{named}");
    puppet.is_refused(&file("second"))?;
    let owned = last(&daemon, &file("second"))?;
    ensure!(owned["decisions"][0]["policies"][0]["id"] == "web/owned", "{owned}");

    // What decided is neither in the live policy nor in the file any more.
    let next = Bundle::new("small")
        .version(2)
        .subject("agent", "user = \"agent\"")
        .policy("web", permit("all", "agent", &["file.read"], &within(&[path("flip")])));
    ends_with(&apply(&daemon, &next, "next")?, 0)?;
    chown(file("second"), Some(FREE.uid), None).context("chown")?;
    puppet.is_allowed(&file("second"))?;
    for (before, policy) in [(&named, "web/named"), (&owned, "web/owned")] {
        let id = before["event"]["id"].as_str().context("an id")?;
        let after = why_json(&daemon, &[id])?;
        ensure!(after["decisions"][0]["policies"][0]["id"] == policy && after["note"].is_null(), "{after}");
    }
    chown(file("second"), Some(0), None).context("chown")?;
    puppet.end()?;
    daemon.stop().map(drop)
}

fn what_another_check_refused_is_not_us(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("why-not", &bundle(1))?;
    let closed = file("closed");
    fs::write(&closed, b"content\n").context("write")?;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).context("chmod")?;
    // Nobody's subject, refused by the mode of the file.
    ensure!(
        attempt(FREE, || read(&closed))? == Outcome::Failed(nix::errno::Errno::EACCES),
        "the mode is not checked"
    );
    let (name, own) = (closed.display().to_string(), std::process::id().to_string());
    let result = why(&daemon, &["--path", &name, "--pid", &own])?;
    ends_with(&result, 1)?;
    let screen = text(&result);
    ensure!(
        screen.contains("not us") && screen.contains("carries no label") && screen.contains("namei"),
        "{screen}"
    );

    // A subject that policy refuses.
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&file("both"))?;
    last(&daemon, &file("both"))?;
    let (name, pid) = (file("both").display().to_string(), puppet.pid().to_string());
    let answer = why_json(&daemon, &["--path", &name, "--pid", &pid])?;
    ensure!(answer["decisions"][0]["policies"][0]["id"] == "web/named", "{answer}");
    // And one that it permits.
    let name = file("first").display().to_string();
    let answer = why_json(&daemon, &["--path", &name, "--pid", &pid])?;
    ensure!(answer["event"].is_null() && answer["subject"] == "agent", "{answer}");
    puppet.end()?;
    daemon.stop().map(drop)
}

fn a_removed_subject_is_explained_in_words(_: &Case<'_>) -> Result<()> {
    let daemon = Daemon::start("why-removed", &bundle(1))?;
    let mut reader = reader()?;
    reader.works("read")?;
    let without = Bundle::new("small").version(2).subject("other", "user = \"ci\"");
    ends_with(&apply(&daemon, &without, "without")?, 0)?;
    reader.is_refused("read")?;
    let mut screen = String::new();
    eventually("it is remembered", || {
        screen = text(&why(&daemon, &["--last"])?);
        Ok(screen.contains("subject-removed"))
    })?;
    ensure!(screen.contains("did not define the subject of this process any more"), "{screen}");
    reader.end()?;
    daemon.stop().map(drop)
}

fn a_path_too_long_to_be_reported_is_explained_by_the_tables(_: &Case<'_>) -> Result<()> {
    let policy = permit("all", "agent", &["file.read", "dir.list"], &within(&[path("flip")]))
        + &forbid("deep", "agent", &["file.read"], &within(&[file("deep")]));
    let bundle = Bundle::new("small").subject("agent", "user = \"agent\"").policy("web", policy);
    let daemon = Daemon::start("why-deep", &bundle)?;
    let long = "d".repeat(200);
    let directory = file("deep").join(&long).join(&long).join(&long);
    fs::create_dir_all(&directory).context("mkdir")?;
    let deep = directory.join("file");
    fs::write(&deep, b"content\n").context("write")?;
    let mut puppet = Puppet::start(AGENT)?;
    puppet.is_refused(&deep)?;
    let mut answer = Value::Null;
    eventually("the denial is remembered", || {
        answer = why_json(&daemon, &["--last", "agent"])?;
        Ok(answer["event"]["resource"]["path_truncated"] == true)
    })?;
    let decision = &answer["decisions"][0];
    ensure!(decision["policies"][0]["id"] == "web/deep" && decision["allowed"] == false, "{answer}");
    ensure!(answer["note"].is_null(), "{answer}");
    puppet.end()?;
    fs::remove_dir_all(file("deep")).context("rm")?;
    daemon.stop().map(drop)
}
