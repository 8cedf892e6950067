//! What this same program does when a test executes a copy of it: one step of an attack, whose
//! exit status is 0 or the errno that it met.

use std::io;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use clap::Subcommand;

/// A step.
#[derive(Subcommand)]
pub(crate) enum Step {
    /// Opens a file for reading and reads from it.
    Read {
        /// The file.
        path: PathBuf,
    },
    /// Writes a text to a file with one call.
    Write {
        /// The file.
        path: PathBuf,
        /// The text.
        text: String,
    },
    /// Reads a file as a child of this process.
    ReadInChild {
        /// The file.
        path: PathBuf,
    },
    /// Says that it runs, waits for a line, then reads a file.
    ReadWhenTold {
        /// The file.
        path: PathBuf,
    },
    /// The same in a child of this process.
    ReadInWaitingChild {
        /// The file.
        path: PathBuf,
    },
    /// Becomes another copy of this program, which takes a step.
    Exec {
        /// The copy.
        program: PathBuf,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Has another copy of this program take a step about a file, as a child of this process.
    Run {
        /// The copy.
        program: PathBuf,
        /// The step.
        verb: String,
        /// The file.
        path: PathBuf,
    },
    /// Whether the kernel has told this program not to trust its environment (`AT_SECURE`): EPERM if not.
    IsSecure,
    /// Connects to a unix socket.
    Connect {
        /// Its name.
        path: PathBuf,
    },
    /// Tells the service manager that the service is ready, and the journal something (sd_notify(3)).
    Notify,
}

/// Has a child of this process take another step.
fn in_child(verb: &str, path: &Path) -> io::Result<()> {
    let program = std::env::current_exe()?;
    result(Command::new(program).args(["step", verb]).arg(path).status()?)
}

/// The entry `AT_SECURE` of the auxiliary vector (getauxval(3)): pairs of a type and a value.
fn is_secure() -> io::Result<bool> {
    let vector = std::fs::read("/proc/self/auxv")?;
    let words: Vec<u64> =
        vector.chunks_exact(8).filter_map(|word| word.try_into().ok().map(u64::from_ne_bytes)).collect();
    let secure = words.chunks_exact(2).find(|entry| entry[0] == nix::libc::AT_SECURE);
    secure.map(|entry| entry[1] != 0).ok_or_else(|| io::Error::other("no AT_SECURE"))
}

/// Exit status for a failure that was no system call's.
const BROKE: u8 = 255;

impl Step {
    /// Takes the step.
    pub(crate) fn run(&self) -> ExitCode {
        match self.take() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let number = error.raw_os_error().and_then(|number| u8::try_from(number).ok());
                ExitCode::from(number.unwrap_or(BROKE))
            }
        }
    }

    fn take(&self) -> io::Result<()> {
        match self {
            Self::Read { path } => crate::file::read(path),
            Self::Write { path, text } => {
                io::Write::write_all(&mut std::fs::File::options().write(true).open(path)?, text.as_bytes())
            }
            Self::Connect { path } => UnixStream::connect(path).map(drop),
            Self::Notify => {
                let socket = UnixDatagram::unbound()?;
                let manager = std::env::var_os("NOTIFY_SOCKET").ok_or_else(|| io::Error::other("unset"))?;
                socket.send_to(b"MESSAGE=ready\n", "/run/systemd/journal/socket")?;
                socket.send_to(b"READY=1", manager).map(drop)
            }
            Self::Exec { program, arguments } => Err(Command::new(program).args(arguments).exec()),
            Self::Run { program, verb, path } => {
                result(Command::new(program).args(["step", verb]).arg(path).status()?)
            }
            Self::IsSecure if is_secure()? => Ok(()),
            Self::IsSecure => Err(io::Error::from_raw_os_error(nix::libc::EPERM)),
            Self::ReadInChild { path } => in_child("read", path),
            Self::ReadInWaitingChild { path } => in_child("read-when-told", path),
            Self::ReadWhenTold { path } => {
                println!("running");
                io::stdin().read_line(&mut String::new())?;
                crate::file::read(path)
            }
        }
    }
}

/// The result that the exit status of a step stands for.
pub(crate) fn result(status: ExitStatus) -> io::Result<()> {
    match status.code() {
        Some(0) => Ok(()),
        Some(number) if number < i32::from(BROKE) => Err(io::Error::from_raw_os_error(number)),
        _ => Err(io::Error::other(format!("the step ended with {status}"))),
    }
}
