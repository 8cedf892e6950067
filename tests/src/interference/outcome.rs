//! What a workload gave.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::tree;
use crate::workloads::{DIRECTORY, Workload};

/// Lines of a difference that are shown.
const SHOWN: usize = 6;

/// What there is to compare.
pub(crate) struct Outcome {
    status: String,
    output: String,
    /// One line for everything in the directory afterwards.
    tree: Vec<String>,
    /// How long it took, which is not compared.
    pub(crate) time: Duration,
}

impl Outcome {
    /// Runs a workload in a new directory, in this cgroup.
    pub(crate) fn of(workload: &Workload, cgroup: &Path, cargo: &Path) -> Result<Self> {
        let directory = Path::new(DIRECTORY);
        if directory.exists() {
            fs::remove_dir_all(directory).context("remove what an earlier workload left")?;
        }
        fs::create_dir_all(directory).context("make a directory")?;
        let log = directory.with_extension("log");
        let output = File::create(&log).context("create a file for the output")?;
        let begin = Instant::now();
        // The shell that enters the cgroup becomes the one that runs the script, so that there is an exec
        // after it.
        let status = Command::new("/bin/sh")
            .args(["-ec", "echo 0 > \"$0/cgroup.procs\"; exec /bin/sh -euc \"$1\""])
            .arg(cgroup)
            .arg(workload.script)
            .current_dir(directory)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("HOME", directory)
            .env("CARGO", cargo)
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("share the file")?)
            .stderr(output)
            .status()
            .context("start a shell")?;
        let time = begin.elapsed();
        let output = String::from_utf8_lossy(&fs::read(&log).context("read the output")?).into_owned();
        let tree = tree::describe(directory)?;
        ensure!(!tree.is_empty() || !output.is_empty(), "it left nothing to compare");
        Ok(Self { status: status.to_string(), output, tree, time })
    }

    /// What is not as it was without Guard.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        if self.status != other.status {
            return Some(format!("{}, was {}; it said: {}", other.status, self.status, end(&other.output)));
        }
        if self.output != other.output {
            return Some(format!("it said: {}; before: {}", end(&other.output), end(&self.output)));
        }
        let only = |these: &[String], those: &[String]| {
            let only: Vec<&str> =
                these.iter().filter(|line| !those.contains(line)).map(String::as_str).take(SHOWN).collect();
            only.join(", ")
        };
        (self.tree != other.tree).then(|| {
            let (new, gone) = (only(&other.tree, &self.tree), only(&self.tree, &other.tree));
            format!("it left {new} instead of {gone}")
        })
    }

    /// A workload that fails without Guard shows nothing.
    pub(crate) fn complaint(&self) -> Option<String> {
        (self.status != "exit status: 0")
            .then(|| format!("without Guard: {}; it said: {}", self.status, end(&self.output)))
    }
}

/// The last lines.
fn end(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join(" | ")
}
