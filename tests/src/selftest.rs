//! The self-test that operators run on their own hosts.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::case::Case;
use crate::daemon::BASE;
use crate::family::{Part, tests};
use crate::layout;

pub(crate) const PART: Part = Part {
    name: "selftest",
    bundle: Ok,
    prepare: layout::create,
    tests: tests!(others: [the_selftest_sees_every_way_refused_and_leaves_nothing]),
};

/// The admin socket of this family's daemon.
fn socket() -> PathBuf {
    Path::new(BASE).join("admin/run/admin.sock")
}

fn the_selftest_sees_every_way_refused_and_leaves_nothing(case: &Case<'_>) -> Result<()> {
    let output = Command::new("guardctl")
        .arg("--socket")
        .arg(socket())
        .args(["selftest", "--json"])
        .output()
        .context("start guardctl")?;
    let left = std::fs::read_dir("/run")
        .context("list /run")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| name.starts_with("guard-selftest"));
    ensure!(left.is_none(), "the self-test left {left:?} in /run");
    let text = String::from_utf8_lossy(&output.stdout);
    if case.daemon().is_none() {
        ensure!(
            output.status.code() == Some(3),
            "without a daemon it should end with 3, not {}",
            output.status
        );
        return Ok(());
    }
    ensure!(
        output.status.success(),
        "it ended with {}: {text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_str(text.trim()).context("read its answer")?;
    let count = |name: &str| report.get(name).and_then(Value::as_u64).with_context(|| format!("no {name}"));
    // Everything can be tried in a guest.
    ensure!(count("failed")? == 0 && count("not_here")? == 0 && count("refused")? > 30, "it says {report}");
    case.tried(count("refused")?);
    Ok(())
}
