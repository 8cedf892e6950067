//! One run of a guest: boot, carry the streams, and find out how it ended.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::accelerator::Accelerator;
use super::console::{self, Complaints};
use super::machine::Machine;
use super::streams::{self, Stream};
use super::{initramfs, terminal};
use crate::channel::{Kind, write_frame};
use crate::guest::{Config, ScratchDisk};
use crate::paths;
use crate::setup::GuestEnvironment;

/// How long a guest may take to user space, on a machine that is busy with other things.
const BOOT: Duration = Duration::from_secs(180);
/// Variables of the caller that mean the same inside.
const PASSED: [&str; 6] = ["TERM", "COLORTERM", "NO_COLOR", "RUST_BACKTRACE", "RUST_LOG", "GUARD_LOG"];

/// How long the trial of an accelerator may take: in hardware a guest needs two seconds.
const TRIAL: Duration = Duration::from_secs(20);

/// What to run and how.
#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) icount: bool,
    pub(crate) systemd: bool,
    pub(crate) timeout: Option<Duration>,
    /// Types of the scratch file systems to mount.
    pub(crate) scratch: Vec<String>,
    /// Further kernel parameters.
    pub(crate) append: Vec<String>,
    pub(crate) command: Vec<OsString>,
    /// Whether our standard input is the command's.
    pub(crate) stdin: bool,
    /// Whether the command gets a terminal.
    pub(crate) terminal: bool,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The command exited with this status.
    Exit(u8),
    /// The guest died before the command did.
    Crash(String),
    /// It took too long.
    TimedOut(String),
}

/// What there is to know about a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ended: Ended,
    /// Complaints of the guest's kernel.
    pub(crate) warnings: Vec<String>,
    /// The console log, kept when there is something to look up in it.
    pub(crate) console: Option<PathBuf>,
}

impl Guest {
    /// A guest for `command`, with one processor, no terminal, no input and nothing in /scratch but
    /// a tmpfs.
    pub(crate) fn new<S: Into<OsString>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            cpus: 1,
            memory_mib: 2048,
            icount: false,
            systemd: false,
            timeout: None,
            scratch: Vec::new(),
            append: Vec::new(),
            command: command.into_iter().map(Into::into).collect(),
            stdin: false,
            terminal: false,
        }
    }

    /// Boots, runs the command, and passes what it writes to `output`.
    pub(crate) fn run(
        &self,
        environment: &GuestEnvironment,
        output: &mut dyn FnMut(Stream, &[u8]) -> io::Result<()>,
    ) -> Result<Outcome> {
        let accelerator = if self.icount {
            Accelerator::InstructionCount
        } else {
            Accelerator::detect(environment, |accelerator| {
                let trial = Self { timeout: Some(TRIAL), ..Self::new(["true"]) };
                let outcome = trial.run_with(environment, accelerator, TRIAL, &mut |_, _| Ok(()))?;
                Ok(matches!(outcome.ended, Ended::Exit(0)))
            })?
        };
        self.run_with(environment, accelerator, BOOT, output)
    }

    fn run_with(
        &self,
        environment: &GuestEnvironment,
        accelerator: Accelerator,
        boot: Duration,
        output: &mut dyn FnMut(Stream, &[u8]) -> io::Result<()>,
    ) -> Result<Outcome> {
        let dir = self.prepare(environment)?;
        let machine = Machine { quiet: boot == TRIAL, ..self.machine(environment, accelerator, dir.path()) };
        let (child, channel) = machine.start(&environment.qemu)?;
        let mut child = KilledOnDrop(child);
        let raw_mode = if self.terminal { terminal::RawMode::enter() } else { None };
        if self.stdin {
            streams::forward_input(channel.try_clone()?);
        } else {
            write_frame(&mut &channel, Kind::StdinEnd, &[])?;
        }
        let ended = streams::follow(channel, boot, self.timeout, output);
        drop(raw_mode);
        child.kill();
        let mut complaints = Complaints::read(&machine.console);
        let ended = match (ended?, complaints.crash.take()) {
            (Some(ended), crash) => {
                // The command was faster than the crash.
                complaints.warnings.extend(crash);
                ended
            }
            (None, Some(line)) => Ended::Crash(line),
            (None, None) => {
                let tail = console::tail(&machine.console);
                Ended::Crash(format!("it went away without a word; the end of its console:\n{tail}"))
            }
        };
        let is_trial = machine.quiet;
        let keep = !is_trial && (!matches!(ended, Ended::Exit(_)) || !complaints.warnings.is_empty());
        let console = keep.then(|| keep_console(dir));
        Ok(Outcome { ended, warnings: complaints.warnings, console })
    }

    /// The directory of the run: configuration, a copy of this program, later the console log.
    fn prepare(&self, environment: &GuestEnvironment) -> Result<TempDir> {
        let parent = paths::target().join("vm");
        fs::create_dir_all(&parent).with_context(|| format!("create {}", parent.display()))?;
        let name = format!("{}-", environment.kernel.release);
        let dir = tempfile::Builder::new().prefix(&name).tempdir_in(&parent)?;
        let program = dir.path().join("xtask");
        // A copy, because cargo may replace the original while the guest runs it.
        fs::copy(env::current_exe()?, &program).context("copy xtask for the guest")?;
        let config = serde_json::to_vec(&self.config(environment, &program)?)?;
        let mut image = initramfs::base(&environment.kernel, &environment.packages)?;
        image.extend(initramfs::config(&config, &program)?);
        fs::write(dir.path().join("initramfs"), image).context("write the initramfs")?;
        Ok(dir)
    }

    fn config(&self, environment: &GuestEnvironment, program: &Path) -> Result<Config> {
        let cwd = env::current_dir().context("find the working directory")?;
        Ok(Config {
            command: self.command.clone(),
            keep: vec![paths::root().to_owned(), paths::target(), paths::cache()?, cwd.clone()],
            cwd,
            env: environment_variables(),
            terminal: self.terminal.then(terminal::size),
            systemd: self.systemd,
            modules: environment.kernel.modules.clone(),
            program: program.to_owned(),
            disks: environment
                .disks
                .iter()
                .map(|disk| ScratchDisk {
                    kind: disk.kind.to_owned(),
                    mount: self.scratch.iter().any(|kind| kind == disk.kind),
                })
                .collect(),
        })
    }

    fn machine<'a>(
        &self,
        environment: &'a GuestEnvironment,
        accelerator: Accelerator,
        dir: &Path,
    ) -> Machine<'a> {
        let mut append = self.append.clone();
        if self.systemd {
            append.push("systemd.show_status=no systemd.journald.forward_to_console=no".into());
        }
        Machine {
            kernel: &environment.kernel,
            initramfs: dir.join("initramfs"),
            accelerator,
            cpus: if self.icount { 1 } else { self.cpus },
            quiet: false,
            memory_mib: self.memory_mib,
            packages: environment.packages.root().to_owned(),
            disks: environment.disks.iter().map(|disk| disk.image.clone()).collect(),
            console: dir.join("console.log"),
            append,
        }
    }
}

/// Keeps the console log of a run, and nothing else of it.
fn keep_console(dir: TempDir) -> PathBuf {
    let dir = dir.keep();
    for name in ["initramfs", "xtask"] {
        // Left-overs cost space only.
        let _ = fs::remove_file(dir.join(name));
    }
    dir.join("console.log")
}

/// The command's environment: a login of root, with the built binaries first.
fn environment_variables() -> Vec<(String, OsString)> {
    let mut path = paths::binaries().into_os_string();
    path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut variables = vec![
        ("PATH".to_owned(), path),
        ("HOME".to_owned(), "/root".into()),
        ("USER".to_owned(), "root".into()),
        ("LOGNAME".to_owned(), "root".into()),
        ("SHELL".to_owned(), "/bin/bash".into()),
        ("LANG".to_owned(), "C.UTF-8".into()),
    ];
    variables.extend(PASSED.iter().filter_map(|name| Some(((*name).to_owned(), env::var_os(name)?))));
    variables
}

/// QEMU's process, which must not outlive the run.
struct KilledOnDrop(Child);

impl KilledOnDrop {
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        self.kill();
    }
}
