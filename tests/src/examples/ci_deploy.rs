//! `examples/ci-deploy`: to production only in a window, with an approval and a signed tool.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use guard_agent::artifact::{Artifact, ArtifactList, DIRECTORY, digest_of};
use guard_agent::bundle::PrivateKey;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::{RITA, logged_in, passes_its_own_tests, policy, start_with};
use crate::attempt::{Outcome, attempt, eventually};
use crate::case::Case;
use crate::daemon::BASE;
use crate::layout;
use crate::lifecycle::ends_with;
use crate::puppet::Puppet;
use crate::users::CI;
use crate::{raw, step};

/// The tool of the example, and what only that may read.
const TOOL: &str = "/opt/deploy/bin/deployctl";
const PRODUCTION_KEY: &str = "/etc/ci/production.key";
/// A day, in seconds.
const DAY: i64 = 24 * 3600;

/// What a host has to have for the example of a CI account: the tool on a file system that keeps its content, a key
/// of production, and a bundle with this host's own key in it.
fn ci_host(key: &PrivateKey) -> Result<PathBuf> {
    let (kept, place) = (Path::new("/scratch/ext4/deploy"), Path::new("/opt/deploy"));
    for directory in [kept, place, Path::new("/etc/ci"), Path::new("/var/lib/ci/work"), Path::new(DIRECTORY)]
    {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        layout::mode(directory, 0o755)?;
    }
    if !place.join("bin").exists() {
        fs::create_dir_all(kept.join("bin")).context("make the directory of the tool")?;
        mount(Some(kept), place, None::<&str>, MsFlags::MS_BIND, None::<&str>).context("mount the tool")?;
    }
    layout::file(Path::new(PRODUCTION_KEY), b"key\n")?;
    let bundle = Path::new(BASE).join("ci-deploy-policy");
    let _ = fs::remove_dir_all(&bundle);
    fs::create_dir_all(&bundle).context("make the bundle")?;
    for name in ["guard.toml", "ci.cedar"] {
        let text = fs::read_to_string(policy("ci-deploy").join(name)).context("read the example")?;
        let own = |line: &str| {
            let key = format!("release = {{ key = \"{}\" }}", key.public());
            if line.starts_with("release = { key") { key } else { line.to_owned() }
        };
        let text: Vec<String> = text.lines().map(own).collect();
        fs::write(bundle.join(name), text.join("\n") + "\n").context("write the bundle")?;
    }
    Ok(bundle)
}

/// Puts a tool there, and on the list of what was signed if it is to be.
fn install(content: &[u8], signed_by: Option<&PrivateKey>) -> Result<()> {
    let tool = Path::new(TOOL);
    layout::program(tool, content)?;
    if let Some(key) = signed_by {
        let artifact = Artifact { digest: digest_of(tool)?, name: TOOL.to_owned() };
        let list = Path::new(DIRECTORY).join("deployctl.artifacts");
        fs::write(&list, ArtifactList::sign(&[artifact], key)?).context("write the list")?;
        layout::mode(&list, 0o644)?;
    }
    Ok(())
}

/// Seconds from now to the next Tuesday, half past eight in UTC, when the example's window is open.
fn until_tuesday() -> i64 {
    let day = DAY as u64;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // The first day of the epoch was a Thursday.
    let tuesday = (now / day..).find(|number| number % 7 == 5).unwrap_or_default();
    (tuesday * day + 8 * 3600 + 1800) as i64 - now as i64
}

pub(super) fn a_ci_account_deploys_to_production_with_a_window_an_approval_and_a_signed_tool(
    _: &Case<'_>,
) -> Result<()> {
    passes_its_own_tests("ci-deploy")?;
    let key = PrivateKey::generate().context("make a key")?;
    let bundle = ci_host(&key)?;
    let own = fs::read("/proc/self/exe").context("read this program")?;
    install(&own, Some(&key))?;
    let deploys = |expected: Outcome, when: &str| -> Result<()> {
        let outcome = attempt(CI, || {
            let mut tool = Command::new(TOOL);
            step::result(tool.args(["step", "read", PRODUCTION_KEY]).stdin(Stdio::null()).status()?)
        })?;
        ensure!(outcome == expected, "{when}: {outcome:?}");
        Ok(())
    };
    let refused = || Outcome::Failed(Errno::EACCES);
    deploys(Outcome::Worked, "without Guard")?;

    let daemon = start_with("ci-deploy", &bundle, "")?;
    let mut job = Puppet::start(CI)?;
    job.is_refused(Path::new(PRODUCTION_KEY)).context("a job has no key of production")?;
    let approve = || -> Result<()> {
        let grant = ["lease", "grant", "prod-deploy", "--subject", "ci-job", "--for", "30m"];
        ends_with(&logged_in(&daemon, RITA, &grant)?, 0)
    };
    let window = |shift: i64, open: bool| -> Result<()> {
        raw::shift_clock(shift).context("set the clock")?;
        raw::synchronise().context("call the clock right")?;
        eventually("the agent knows the window", || {
            Ok(daemon.status()?["windows"][0]["open"] == serde_json::json!(open))
        })
    };
    let shift = until_tuesday();
    window(shift, true)?;
    deploys(refused(), "in the window, without an approval")?;
    window(DAY, false)?;
    approve()?;
    deploys(refused(), "approved, the day after the window")?;
    window(-DAY, true)?;
    deploys(Outcome::Worked, "in the window, approved, signed")?;
    deploys(refused(), "a second time with one approval")?;
    approve()?;
    install(&[own.as_slice(), b"\0"].concat(), None)?;
    deploys(refused(), "a tool with one byte more")?;
    install(&own, None)?;
    deploys(Outcome::Worked, "the signed tool again")?;
    raw::shift_clock(-shift).context("set the clock back")?;
    job.end()?;
    daemon.stop().map(drop)
}
