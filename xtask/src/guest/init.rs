//! PID 1: mounts what a Linux system has, then runs the command or becomes systemd.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

use super::{Config, session, systemd};

const NONE: Option<&str> = None;

/// Prepares the guest, then hands over.
pub(super) fn run(config: &Config) -> Result<()> {
    pseudo_filesystems()?;
    fresh_tmp(config)?;
    modules(config)?;
    scratch(config)?;
    fs::write("/proc/sys/kernel/hostname", "guest").context("set the host name")?;
    if config.systemd { systemd::become_init(config) } else { session::run(config) }
}

/// Ends the guest without ceremony: nothing in it outlives it.
pub(super) fn power_off() -> Result<ExitCode> {
    let never = reboot(RebootMode::RB_POWER_OFF).context("power off")?;
    match never {}
}

fn pseudo_filesystems() -> Result<()> {
    for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        symlink(target, Path::new("/dev").join(link)).with_context(|| format!("create /dev/{link}"))?;
    }
    for (kind, target, options) in [
        ("devpts", "/dev/pts", Some("mode=620,gid=5,ptmxmode=666")),
        ("tmpfs", "/dev/shm", Some("mode=1777")),
        ("mqueue", "/dev/mqueue", None),
        ("cgroup2", "/sys/fs/cgroup", Some("nsdelegate,memory_recursiveprot")),
        ("bpf", "/sys/fs/bpf", Some("mode=700")),
        ("securityfs", "/sys/kernel/security", None),
        ("debugfs", "/sys/kernel/debug", None),
        ("tracefs", "/sys/kernel/tracing", None),
    ] {
        fs::create_dir_all(target).with_context(|| format!("create {target}"))?;
        mount(Some(kind), target, Some(kind), MsFlags::empty(), options)
            .with_context(|| format!("mount {kind} on {target}"))?;
    }
    Ok(())
}

/// An empty /tmp, in which what the command needs from the host's is still visible.
fn fresh_tmp(config: &Config) -> Result<()> {
    let kept: Vec<(&PathBuf, String)> = config
        .keep
        .iter()
        .filter(|path| path.starts_with("/tmp") && path.exists())
        .enumerate()
        .map(|(number, path)| (path, format!("/run/guard-vm/keep-{number}")))
        .collect();
    for (path, aside) in &kept {
        bind(path, Path::new(aside))?;
    }
    mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=1777"))
        .context("mount tmpfs on /tmp")?;
    for (path, aside) in &kept {
        bind(Path::new(aside), path)?;
    }
    Ok(())
}

fn modules(config: &Config) -> Result<()> {
    let release = config.modules.file_name().context("the modules directory has a name")?;
    bind(&config.modules, &Path::new("/lib/modules").join(release))
}

/// Mounts the wanted file systems, side by side because loading their modules takes seconds, and
/// leaves the others for `mount /scratch/TYPE`.
fn scratch(config: &Config) -> Result<()> {
    fs::create_dir_all("/scratch/tmpfs").context("create /scratch")?;
    mount(Some("tmpfs"), "/scratch/tmpfs", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .context("mount tmpfs on /scratch/tmpfs")?;
    let mut table = String::new();
    let mut mounts = Vec::new();
    for (letter, disk) in ('a'..='z').zip(&config.disks) {
        let (device, kind) = (format!("/dev/vd{letter}"), disk.kind.clone());
        let target = format!("/scratch/{kind}");
        fs::create_dir_all(&target).with_context(|| format!("create {target}"))?;
        table.push_str(&format!("{device} {target} {kind} noauto 0 0\n"));
        if disk.mount {
            mounts.push(thread::spawn(move || {
                mount(Some(device.as_str()), target.as_str(), Some(kind.as_str()), MsFlags::empty(), NONE)
                    .with_context(|| format!("mount {device} on {target}"))
            }));
        }
    }
    // The host's file systems are not the guest's.
    fs::write("/etc/fstab", table).context("write /etc/fstab")?;
    for mount in mounts {
        mount.join().map_err(|_| anyhow!("a thread that mounts panicked"))??;
    }
    Ok(())
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE)
        .with_context(|| format!("bind {} to {}", from.display(), to.display()))
}
