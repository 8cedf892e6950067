//! A process that lives through changes of policy and tries files when it is told to.

use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;

use crate::attempt::{self, Outcome, Running};
use crate::file::read;
use crate::users::Identity;

/// A process that waits for names of files.
pub(crate) struct Puppet {
    orders: PipeWriter,
    answers: BufReader<PipeReader>,
    running: Running,
}

impl Puppet {
    /// Starts one as `who`, and waits until it is.
    pub(crate) fn start(who: Identity) -> Result<Self> {
        let (orders_in, orders) = io::pipe().context("make a pipe")?;
        let (answers, answers_out) = io::pipe().context("make a pipe")?;
        let running = attempt::start(who, || {
            let mut answers_out = answers_out.try_clone()?;
            answers_out.write_all(b"0\n")?;
            for line in BufReader::new(orders_in.try_clone()?).lines() {
                let line = line?;
                // This process has a copy of the writing end, so the pipe itself does not end.
                if line.is_empty() {
                    break;
                }
                let number = match read(Path::new(&line)) {
                    Ok(()) => 0,
                    Err(error) => error.raw_os_error().unwrap_or(-1),
                };
                answers_out.write_all(format!("{number}\n").as_bytes())?;
            }
            Ok(())
        })?;
        drop((orders_in, answers_out));
        let mut puppet = Self { orders, answers: BufReader::new(answers), running };
        puppet.answer()?;
        Ok(puppet)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        self.running.pid()
    }

    /// Has it read a file.
    pub(crate) fn read(&mut self, path: &Path) -> Result<Outcome> {
        writeln!(self.orders, "{}", path.display()).context("tell the puppet")?;
        self.answer()
    }

    /// It must be refused.
    pub(crate) fn is_refused(&mut self, path: &Path) -> Result<()> {
        let outcome = self.read(path)?;
        ensure!(
            outcome == Outcome::Failed(Errno::EACCES),
            "{} should be refused: {outcome:?}",
            path.display()
        );
        Ok(())
    }

    /// It must be allowed.
    pub(crate) fn is_allowed(&mut self, path: &Path) -> Result<()> {
        let outcome = self.read(path)?;
        ensure!(outcome == Outcome::Worked, "{} should be allowed: {outcome:?}", path.display());
        Ok(())
    }

    fn answer(&mut self) -> Result<Outcome> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("hear from the puppet")?;
        match line.trim().parse().context("the puppet is gone")? {
            0 => Ok(Outcome::Worked),
            number => Ok(Outcome::Failed(Errno::from_raw(number))),
        }
    }

    /// Ends it.
    pub(crate) fn end(mut self) -> Result<()> {
        writeln!(self.orders).context("tell the puppet")?;
        let outcome = self.running.outcome()?;
        ensure!(outcome == Outcome::Worked, "the puppet: {outcome:?}");
        Ok(())
    }
}
