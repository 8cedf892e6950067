//! `cargo xtask vm`: a command in a guest, as if it ran here.

use std::ffi::OsString;
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::command::say;
use crate::kernels::Series;
use crate::setup::GuestEnvironment;
use crate::{build, setup};

mod accelerator;
mod console;
mod guest;
mod initramfs;
mod machine;
mod streams;
mod terminal;

pub(crate) use guest::{Ended, Guest, Outcome};
pub(crate) use streams::Stream;
pub(crate) use terminal::is_interactive;

/// Exit status when the guest's time is up, as `timeout` has it.
const TIMED_OUT: u8 = 124;
/// Exit status when the guest crashed or did not boot.
const CRASHED: u8 = 125;

/// Run a command in a virtual machine on this machine's own file system.
///
/// The command runs as root with the caller's working directory and arguments. It sees this
/// machine's files; what it writes is gone afterwards. Its standard output, standard error and exit
/// status become this command's; everything else is said on standard error. Empty file systems are
/// mounted in /scratch/{tmpfs,ext4,xfs,btrfs}. Exit status 124 means time-out, 125 a guest that
/// crashed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series: 6.1, 6.12, 6.18, or 7 for the newest 7.x.
    #[arg(long, value_name = "SERIES", default_value = "6.12")]
    kernel: Series,
    /// Processors of the guest; one is the fastest under emulation, races need two.
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,
    /// Memory of the guest in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    memory: u32,
    /// Count instructions instead of time: one processor, a clock that repeats exactly.
    #[arg(long)]
    icount: bool,
    /// Boot systemd as PID 1 and run the command as one of its services.
    #[arg(long)]
    systemd: bool,
    /// Give up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    timeout: u64,
    /// Scratch file systems to mount; loading each takes a second or two.
    #[arg(long, value_name = "TYPES", value_delimiter = ',', default_value = "ext4,xfs,btrfs")]
    scratch: Vec<String>,
    /// Kernel parameter lsm=LIST, the order of Linux security modules.
    #[arg(long, value_name = "LIST")]
    lsm: Option<String>,
    /// Further kernel parameters.
    #[arg(long, value_name = "PARAMETERS", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Use the binaries as they are instead of building them first.
    #[arg(long)]
    no_build: bool,
    /// The command.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if !args.no_build {
        build::all()?;
    }
    let environment = setup::guest(&args.kernel)?;
    let mut append = args.append;
    append.extend(args.lsm.map(|list| format!("lsm={list}")));
    let is_interactive = is_interactive();
    let guest = Guest {
        cpus: args.cpus,
        memory_mib: args.memory,
        icount: args.icount,
        systemd: args.systemd,
        // A person at a terminal decides when it is over.
        timeout: (!is_interactive).then(|| Duration::from_secs(args.timeout)),
        scratch: args.scratch,
        append,
        command: args.command,
        stdin: true,
        terminal: is_interactive,
    };
    run_and_report(&guest, &environment)
}

/// Runs a guest whose streams and exit status are ours.
pub(crate) fn run_and_report(guest: &Guest, environment: &GuestEnvironment) -> Result<ExitCode> {
    Ok(ExitCode::from(report(&carry(guest, environment)?)))
}

/// The same, and a kernel that warned is a failure.
pub(crate) fn run_and_judge(guest: &Guest, environment: &GuestEnvironment) -> Result<ExitCode> {
    let outcome = carry(guest, environment)?;
    let status = report(&outcome);
    Ok(ExitCode::from(if status == 0 && !outcome.warnings.is_empty() { CRASHED } else { status }))
}

/// Runs a guest whose streams are ours.
fn carry(guest: &Guest, environment: &GuestEnvironment) -> Result<Outcome> {
    guest.run(environment, &mut |stream, bytes| match stream {
        Stream::Stdout => write_all(&mut stdout().lock(), bytes),
        Stream::Stderr => write_all(&mut stderr().lock(), bytes),
    })
}

/// Says what is wrong with the guest, if anything, and returns the exit status for it.
fn report(outcome: &Outcome) -> u8 {
    for warning in &outcome.warnings {
        say!("kernel warning in the guest: {warning}");
    }
    let status = match &outcome.ended {
        Ended::Exit(status) => *status,
        Ended::Crash(why) => {
            say!("the guest crashed: {why}");
            CRASHED
        }
        Ended::TimedOut(why) => {
            say!("time-out: {why}");
            TIMED_OUT
        }
    };
    if let Some(console) = &outcome.console {
        say!("console log: {}", console.display());
    }
    status
}

fn write_all(out: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}
