//! The streams between xtask and the command in a guest.

use std::io::{self, ErrorKind, Read, stdin};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::guest::Ended;
use crate::channel::{Kind, MAX_PAYLOAD, read_frame, write_frame};

/// Where output of the command comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Reads frames until the command ends, the guest dies (`None`) or time is up.
pub(super) fn follow(
    mut channel: UnixStream,
    boot: Duration,
    timeout: Option<Duration>,
    output: &mut dyn FnMut(Stream, &[u8]) -> io::Result<()>,
) -> Result<Option<Ended>> {
    let mut deadline = Some(Instant::now() + boot);
    let mut is_up = false;
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let frame = if left.is_some_and(|left| left.is_zero()) {
            Err(ErrorKind::WouldBlock.into())
        } else {
            channel.set_read_timeout(left)?;
            read_frame(&mut channel)
        };
        match frame {
            Ok(Some((Kind::Ready, _))) => {
                is_up = true;
                deadline = timeout.map(|timeout| Instant::now() + timeout);
            }
            Ok(Some((Kind::Stdout, bytes))) => output(Stream::Stdout, &bytes).context("pass on output")?,
            Ok(Some((Kind::Stderr, bytes))) => output(Stream::Stderr, &bytes).context("pass on output")?,
            Ok(Some((Kind::Exit, bytes))) => return Ok(bytes.first().map(|status| Ended::Exit(*status))),
            Ok(Some((Kind::Stdin | Kind::StdinEnd, _)) | None) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let seconds = timeout.unwrap_or_default().as_secs();
                return Ok(Some(Ended::TimedOut(if is_up {
                    format!("the command still ran after {seconds} s")
                } else {
                    format!("the guest did not reach user space in {} s", boot.as_secs())
                })));
            }
            Err(error) if [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error.kind()) => {
                return Ok(None);
            }
            Err(error) => return Err(error).context("read from the guest"),
        }
    }
}

/// Sends our standard input to the command until one of them ends.
pub(super) fn forward_input(mut channel: UnixStream) {
    thread::spawn(move || -> io::Result<()> {
        let mut buffer = vec![0; MAX_PAYLOAD];
        loop {
            match stdin().lock().read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => return write_frame(&mut channel, Kind::StdinEnd, &[]),
                Ok(len) => write_frame(&mut channel, Kind::Stdin, &buffer[..len])?,
            }
        }
    });
}
