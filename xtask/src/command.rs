//! Running other programs, with errors that name what failed.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// What xtask needs from [`Command`], with failures turned into errors.
pub(crate) trait CommandExt {
    /// Runs to the end; what it prints goes to our standard error.
    fn run(&mut self) -> Result<()>;
    /// Runs to the end and returns its standard output as text.
    fn read(&mut self) -> Result<String>;
}

impl CommandExt for Command {
    fn run(&mut self) -> Result<()> {
        let name = describe(self);
        let status = self.stdout(std::io::stderr()).status().with_context(|| format!("start `{name}`"))?;
        if !status.success() {
            bail!("`{name}` failed ({status})");
        }
        Ok(())
    }

    fn read(&mut self) -> Result<String> {
        let name = describe(self);
        let Output { status, stdout, stderr } =
            self.stdin(Stdio::null()).output().with_context(|| format!("start `{name}`"))?;
        if !status.success() {
            bail!("`{name}` failed ({status}):\n{}", String::from_utf8_lossy(&stderr).trim_end());
        }
        String::from_utf8(stdout).with_context(|| format!("`{name}` printed something that is not UTF-8"))
    }
}

/// The program and its first arguments: enough to recognise it in an error.
fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(
        command.get_args().filter(|arg| !arg.to_string_lossy().contains("::")).map(|a| a.to_string_lossy()),
    );
    words.retain(|word| word != "-o");
    let more = words.len().saturating_sub(8);
    words.truncate(8);
    if more > 0 { format!("{} … ({more} more)", words.join(" ")) } else { words.join(" ") }
}

/// Whether `program` can be started at all.
pub(crate) fn exists(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A word to the contributor about what is going on; standard output belongs to results.
macro_rules! say {
    ($($arg:tt)*) => { eprintln!("xtask: {}", format_args!($($arg)*)) };
}
pub(crate) use say;
