//! The virtual machine itself: QEMU's command line and process.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::accelerator::Accelerator;
use crate::command;
use crate::guest::PORT;
use crate::kernels::Kernel;
use crate::qemu::Qemu;

/// Everything that makes up one virtual machine.
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) initramfs: PathBuf,
    pub(super) accelerator: Accelerator,
    pub(super) cpus: u32,
    pub(super) memory_mib: u32,
    /// Guest packages, the second layer of its root.
    pub(super) packages: PathBuf,
    /// Disk images, written to in temporary copies only.
    pub(super) disks: Vec<PathBuf>,
    pub(super) console: PathBuf,
    /// Whether what QEMU says is worth showing.
    pub(super) quiet: bool,
    /// Kernel parameters besides those that every guest gets.
    pub(super) append: Vec<String>,
}

impl Machine<'_> {
    /// Starts it; the returned stream is the guest's channel.
    pub(super) fn start(&self, qemu: &Qemu) -> Result<(Child, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = with_our_death(&self.command(qemu));
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        if self.quiet {
            command.stderr(Stdio::null());
        }
        let child = command.spawn().context("start QEMU")?;
        Ok((child, ours))
    }

    fn command(&self, qemu: &Qemu) -> Command {
        let mut command = qemu.command();
        let accelerator: &[&str] = match self.accelerator {
            Accelerator::Kvm => &["-accel", "kvm", "-cpu", "host"],
            Accelerator::Emulation => &["-accel", "tcg,thread=multi", "-cpu", "max"],
            Accelerator::InstructionCount => {
                &["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-cpu", "max"]
            }
        };
        command.args(accelerator);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none"]);
        command.arg("-smp").arg(self.cpus.to_string()).arg("-m").arg(format!("{}M", self.memory_mib));
        command.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(&self.initramfs);
        command.arg("-append").arg(self.parameters());
        command.arg("-serial").arg(format!("file:{}", escaped(&self.console)));
        // QEMU inherits its end of the channel as standard input.
        command.args(["-chardev", "socket,id=channel,fd=0", "-device", "virtio-serial-pci", "-device"]);
        command.arg(format!("virtserialport,chardev=channel,name={PORT}"));
        for (tag, path) in [("host", PathBuf::from("/")), ("packages", self.packages.clone())] {
            let path = escaped(&path);
            command.arg("-virtfs").arg(format!(
                "local,path={path},mount_tag={tag},security_model=none,readonly=on,multidevs=remap"
            ));
        }
        for disk in &self.disks {
            command.arg("-drive").arg(format!("file={},format=raw,if=virtio,snapshot=on", escaped(disk)));
        }
        command
    }

    fn parameters(&self) -> String {
        let mut parameters = vec![
            // Warnings and worse reach the console, where they are looked for.
            "console=ttyS0 loglevel=6 panic=-1 oops=panic".to_owned(),
            "random.trust_cpu=on rdinit=/init".to_owned(),
        ];
        parameters.extend(self.append.iter().cloned());
        parameters.join(" ")
    }
}

/// QEMU reads a comma as the end of a value and two as one comma.
fn escaped(path: &std::path::Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The same command, killed by the kernel should we die first, where the system has `setpriv`.
fn with_our_death(command: &Command) -> Command {
    if !command::exists("setpriv") {
        let mut same = Command::new(command.get_program());
        same.args(command.get_args());
        return same;
    }
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            wrapped.env(key, value);
        }
    }
    wrapped
}
