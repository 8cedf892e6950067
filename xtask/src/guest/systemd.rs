//! Guests with a real systemd: a target of our own whose one service runs the command.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Config;

const UNITS: &str = "/etc/systemd/system";
/// Units of the host that only cost time in a guest.
const MASKED: [&str; 14] = [
    "apt-daily.timer",
    "dev-hugepages.mount",
    "e2scrub_all.timer",
    "kmod-static-nodes.service",
    "man-db.timer",
    "modprobe@.service",
    "systemd-binfmt.service",
    "systemd-journal-flush.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-sysusers.service",
    "systemd-timesyncd.service",
    "systemd-update-utmp.service",
];
const TARGET: &str = "[Unit]
Description=The guest's command
Requires=basic.target
Wants=guard-vm.service
After=basic.target
AllowIsolate=yes
";

/// Replaces this process, PID 1, by systemd.
pub(super) fn become_init(config: &Config) -> Result<()> {
    for unit in MASKED {
        let path = Path::new(UNITS).join(unit);
        let _ = fs::remove_file(&path);
        symlink("/dev/null", &path).with_context(|| format!("mask {unit}"))?;
    }
    fs::write(format!("{UNITS}/guard-vm.target"), TARGET).context("write guard-vm.target")?;
    fs::write(format!("{UNITS}/guard-vm.service"), service(&config.program))
        .context("write guard-vm.service")?;
    let error = Command::new("/lib/systemd/systemd").arg("--unit=guard-vm.target").env_clear().exec();
    Err(error).context("start /lib/systemd/systemd")
}

fn service(program: &Path) -> String {
    format!(
        "[Unit]
Description=The guest's command
DefaultDependencies=no
Requires=basic.target
After=basic.target dbus.socket
Wants=dbus.socket

[Service]
Type=exec
ExecStart=\"{}\" guest --session
StandardInput=null
StandardOutput=journal
KillMode=process
Delegate=yes
TasksMax=infinity
LimitNOFILE=524288
OOMScoreAdjust=-900
",
        program.display()
    )
}
