//! Runs the command, carries its streams to the host, and reports its exit status.

use std::fs::File;
use std::io::{ErrorKind, PipeReader, Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::wait::{WaitStatus, wait};

use super::{Config, port};
use crate::channel::{Kind, MAX_PAYLOAD, read_frame, write_frame};

/// Runs the command to its end; everything about it has reached the host on return.
pub(super) fn run(config: &Config) -> Result<()> {
    let mut host = port::open()?;
    write_frame(&mut host, Kind::Ready, &[])?;
    let mut command = prepare(config);
    let mut streams = Streams::default();
    let status = match start(&mut command, config.terminal, &mut streams) {
        Ok((child, input)) => {
            forward_input(host.try_clone()?, input);
            drop(command);
            let mut ended = reap_until(child)?;
            forward_output(&mut host, &mut streams, &ended)?;
            let mut status = [0];
            // The reaper closes the pipe only after it wrote the status.
            ended.read_exact(&mut status).context("learn the command's exit status")?;
            status[0]
        }
        Err(error) => {
            let name = config.command.first().map(|name| name.to_string_lossy()).unwrap_or_default();
            write_frame(
                &mut host,
                Kind::Stderr,
                format!("guest: cannot start {name}: {error:#}\n").as_bytes(),
            )?;
            127
        }
    };
    write_frame(&mut host, Kind::Exit, &[status])?;
    Ok(())
}

/// The ends of the command's output that we read.
#[derive(Default)]
struct Streams {
    open: Vec<(Kind, File)>,
}

fn prepare(config: &Config) -> Command {
    let cwd = if config.cwd.is_dir() { config.cwd.as_path() } else { Path::new("/") };
    let mut words = config.command.iter();
    // A terminal must become the controlling one, which needs a process between us and the command.
    let mut command = if config.terminal.is_some() {
        let mut setsid = Command::new("setsid");
        setsid.args(["--ctty", "--wait"]);
        setsid
    } else {
        Command::new(words.next().map_or("true".as_ref(), |program| program.as_os_str()))
    };
    command.args(words).current_dir(cwd).env_clear().envs(config.env.iter().map(|(k, v)| (k, v)));
    command
}

/// Starts the command on pipes, or on a terminal of its own; returns its pid and its input.
fn start(
    command: &mut Command,
    terminal: Option<(u16, u16)>,
    streams: &mut Streams,
) -> Result<(u32, OwnedFd)> {
    let input = if let Some((rows, columns)) = terminal {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).context("open a terminal")?;
        command.stdin(pty.slave.try_clone()?).stdout(pty.slave.try_clone()?).stderr(pty.slave);
        streams.open.push((Kind::Stdout, pty.master.try_clone()?.into()));
        pty.master
    } else {
        let ((input, stdin), (stdout, stderr)) = (pipe().map(|(r, w)| (w, r))?, (pipe()?, pipe()?));
        command.stdin(stdin).stdout(stdout.1).stderr(stderr.1);
        let file = |reader: PipeReader| File::from(OwnedFd::from(reader));
        streams.open = vec![(Kind::Stdout, file(stdout.0)), (Kind::Stderr, file(stderr.0))];
        input.into()
    };
    let child = command.spawn()?.id();
    // Our copies of the command's ends would keep its streams open for ever.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok((child, input))
}

/// Carries the host's input to the command. When the host goes away, so does the guest.
fn forward_input(mut host: File, input: OwnedFd) {
    thread::spawn(move || {
        let mut input = Some(File::from(input));
        while let Ok(Some((kind, bytes))) = read_frame(&mut host) {
            match kind {
                Kind::Stdin => {
                    if input.as_mut().is_some_and(|input| input.write_all(&bytes).is_err()) {
                        input = None;
                    }
                }
                Kind::StdinEnd => input = None,
                Kind::Ready | Kind::Stdout | Kind::Stderr | Kind::Exit => {}
            }
        }
        super::init::power_off()
    });
}

/// Collects exited processes, orphans included; the pipe yields the command's status when it ends.
fn reap_until(child: u32) -> Result<PipeReader> {
    let (reader, mut writer) = pipe()?;
    thread::spawn(move || {
        loop {
            let status = match wait() {
                Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() as u32 == child => code as u8,
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() as u32 == child => {
                    128 + signal as u8
                }
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            let _ = writer.write_all(&[status]);
            return;
        }
    });
    Ok(reader)
}

/// Carries output until the command has ended and what it wrote before is read. Processes that it
/// left behind may hold the streams open: they are not waited for.
fn forward_output(host: &mut File, streams: &mut Streams, ended: &PipeReader) -> Result<()> {
    loop {
        let mut fds: Vec<PollFd> = streams.open.iter().map(|(_, file)| readable(file.as_fd())).collect();
        fds.push(readable(ended.as_fd()));
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.context("wait for output")?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        if ready.last() == Some(&true) {
            break;
        }
        streams.pass_on(&ready, host)?;
    }
    for (_, file) in &streams.open {
        fcntl(file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("drain the output")?;
    }
    while !streams.open.is_empty() {
        streams.pass_on(&[true; 2], host)?;
    }
    Ok(())
}

impl Streams {
    /// Reads once from each stream that is ready; forgets those that have ended or are drained.
    fn pass_on(&mut self, ready: &[bool], host: &mut File) -> Result<()> {
        let mut buffer = vec![0; MAX_PAYLOAD];
        let mut still_open = Vec::new();
        for ((kind, mut file), is_ready) in self.open.drain(..).zip(ready) {
            if *is_ready {
                match file.read(&mut buffer) {
                    Ok(0) => continue,
                    Ok(len) => write_frame(host, kind, &buffer[..len]).context("write to the host")?,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // Drained, or a terminal whose other side is closed.
                    Err(_) => continue,
                }
            }
            still_open.push((kind, file));
        }
        self.open = still_open;
        Ok(())
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}
