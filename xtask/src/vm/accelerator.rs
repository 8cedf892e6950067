//! How a guest's processors are run: in hardware where that really works, else by translation.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::command::say;
use crate::paths;
use crate::setup::GuestEnvironment;

/// How the guest's processors are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// In hardware.
    Kvm,
    /// By translation.
    Emulation,
    /// By translation, with a clock that counts instructions.
    InstructionCount,
}

impl Accelerator {
    /// Hardware if a guest boots with it. Having /dev/kvm says little: on nested hypervisors it may
    /// open and then hang or abort, so `boots` tries once, and the answer is kept.
    pub(super) fn detect(
        environment: &GuestEnvironment,
        boots: impl FnOnce(Self) -> Result<bool>,
    ) -> Result<Self> {
        if File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(Self::Emulation);
        }
        if let Some(known) = Self::known(environment)? {
            return Ok(known);
        }
        // Guests that start at the same time wait for one trial.
        let _lock = paths::lock_cache()?;
        if let Some(known) = Self::known(environment)? {
            return Ok(known);
        }
        say!("trying whether guests boot with KVM here (once, at most 20 s)");
        let (found, word) = match boots(Self::Kvm) {
            Ok(true) => (Self::Kvm, "kvm"),
            Ok(false) | Err(_) => (Self::Emulation, "emulation"),
        };
        say!("guests run with {word}");
        let answer = answer_file(environment)?;
        fs::write(&answer, word).with_context(|| format!("write {}", answer.display()))?;
        Ok(found)
    }

    /// The answer that was found earlier.
    fn known(environment: &GuestEnvironment) -> Result<Option<Self>> {
        Ok(match fs::read_to_string(answer_file(environment)?).ok().as_deref() {
            Some("kvm") => Some(Self::Kvm),
            Some("emulation") => Some(Self::Emulation),
            _ => None,
        })
    }
}

/// Where the answer for this machine's kernel and QEMU is kept.
fn answer_file(environment: &GuestEnvironment) -> Result<PathBuf> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read this kernel's release")?;
    Ok(paths::cache()?.join(format!("accelerator-{}-qemu-{}", release.trim(), environment.qemu.version)))
}
