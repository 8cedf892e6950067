//! The guest's side: what runs inside the virtual machine, out of a copy of this same program.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

mod init;
mod port;
mod session;
mod systemd;

pub(crate) use port::NAME as PORT;

/// Where the initramfs leaves the configuration.
const CONFIG: &str = "/run/guard-vm/config.json";

/// What the host asks of the guest.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    /// Program and arguments.
    pub(crate) command: Vec<OsString>,
    /// Working directory; `/` when it does not exist in the guest.
    pub(crate) cwd: PathBuf,
    /// The command's whole environment.
    pub(crate) env: Vec<(String, OsString)>,
    /// Rows and columns of the terminal to give it.
    pub(crate) terminal: Option<(u16, u16)>,
    /// Whether systemd is PID 1.
    pub(crate) systemd: bool,
    /// Directories to keep visible where a fresh file system would hide them.
    pub(crate) keep: Vec<PathBuf>,
    /// The kernel's modules in the cache.
    pub(crate) modules: PathBuf,
    /// Where this program is.
    pub(crate) program: PathBuf,
    /// Scratch file systems, in the order of the disks.
    pub(crate) disks: Vec<ScratchDisk>,
}

/// One scratch file system.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ScratchDisk {
    /// Its type.
    pub(crate) kind: String,
    /// Whether it is mounted when the command starts.
    pub(crate) mount: bool,
}

/// Subcommand used inside guests only.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run the command as a child of an init system that is already there.
    #[arg(long)]
    session: bool,
}

/// Runs as PID 1 of a guest, or as the unit that runs the command under systemd.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let text = fs::read(CONFIG).with_context(|| format!("read {CONFIG}: this command is for guests"))?;
    let config: Config = serde_json::from_slice(&text).with_context(|| format!("parse {CONFIG}"))?;
    let result = if args.session { session::run(&config) } else { init::run(&config) };
    // The host learns the reason from the console; PID 1 must not return, that is a panic.
    if let Err(error) = &result {
        let _ = fs::write("/dev/kmsg", format!("<3>guest: {error:#}\n"));
    }
    init::power_off()
}
