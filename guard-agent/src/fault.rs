//! Failures on demand, so that tests can see what a failed step leaves behind. Only debug builds have
//! them; in a release build nothing here does anything.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io;

/// Names a file whose content is the step to fail or to leave out.
const VARIABLE: &str = "GUARD_TEST_FAULT";

/// A step that can fail. It fails once: the file is removed.
///
/// # Errors
/// If a test wants this step to fail.
///
/// A test may want the agent to be killed here as well.
pub(crate) fn at(step: &str) -> io::Result<()> {
    if let Some(file) = wanted(&format!("kill {step}")) {
        std::fs::remove_file(file)?;
        nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL)?;
    }
    match wanted(step) {
        Some(file) => {
            std::fs::remove_file(file)?;
            Err(io::Error::other("made to fail by a test"))
        }
        None => Ok(()),
    }
}

/// Whether a test wants this step to be left out.
pub(crate) fn leaves_out(step: &str) -> bool {
    wanted(step).is_some()
}

/// The file, if it names this step.
fn wanted(step: &str) -> Option<OsString> {
    if !cfg!(debug_assertions) {
        return None;
    }
    let file = std::env::var_os(VARIABLE)?;
    std::fs::read_to_string(&file).ok()?.lines().any(|line| line == step).then_some(file)
}
