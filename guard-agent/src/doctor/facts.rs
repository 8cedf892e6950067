//! What can be read about a host.

use super::Distribution;
use std::fs;
use std::path::Path;

/// Programs that run containers.
const ENGINES: [&str; 9] =
    ["systemd-nspawn", "podman", "dockerd", "containerd", "crio", "kubelet", "k3s", "lxc-start", "incusd"];

/// What a host says about itself. `None` is "could not be read".
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether this process has root's user id.
    pub root: bool,
    /// Release of the running kernel.
    pub release: Option<String>,
    /// Whether the kernel exposes its types.
    pub btf: bool,
    /// Whether securityfs is mounted where it belongs.
    pub securityfs: bool,
    /// The list of active security modules.
    pub lsm: Option<String>,
    /// Whether the kernel was built with BPF as a security module, by its stored configuration.
    pub bpf_lsm_built: Option<bool>,
    /// The kernel's command line.
    pub command_line: String,
    /// The lockdown mode: `none`, `integrity` or `confidentiality`.
    pub lockdown: Option<String>,
    /// Whether a BPF file system is mounted at `/sys/fs/bpf`.
    pub bpffs: bool,
    /// Whether the unified cgroup hierarchy is mounted.
    pub cgroup2: bool,
    /// Whether the kernel tells addresses of its symbols to nobody, not even root.
    pub addresses_hidden: bool,
    /// Whether the kernel measures files (`CONFIG_IMA`).
    pub ima: Option<bool>,
    /// Programs that run containers, of those that are known here, by the names of their files.
    pub engines: Vec<&'static str>,
    /// Whether something keeps the clock right.
    pub clock_synchronised: Option<bool>,
    /// The distribution's family.
    pub distribution: Distribution,
}

impl Facts {
    /// Reads the facts of the host whose file system is at `root`.
    pub fn read(root: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        let release = text("proc/sys/kernel/osrelease").map(|text| text.trim().to_owned());
        let mounts = text("proc/self/mountinfo").unwrap_or_default();
        let os_release = text("etc/os-release").or_else(|| text("usr/lib/os-release")).unwrap_or_default();
        Self {
            root: nix::unistd::geteuid().is_root(),
            btf: root.join("sys/kernel/btf/vmlinux").exists(),
            securityfs: mounted(&mounts, "securityfs", "/sys/kernel/security"),
            lsm: text("sys/kernel/security/lsm").map(|text| text.trim().to_owned()),
            bpf_lsm_built: release
                .as_ref()
                .and_then(|release| text(&format!("boot/config-{release}")))
                .map(|config| config.lines().any(|line| line == "CONFIG_BPF_LSM=y")),
            command_line: text("proc/cmdline").unwrap_or_default(),
            lockdown: text("sys/kernel/security/lockdown").and_then(|text| selected(&text)),
            bpffs: mounted(&mounts, "bpf", "/sys/fs/bpf"),
            cgroup2: mounted(&mounts, "cgroup2", "/sys/fs/cgroup")
                || mounted(&mounts, "cgroup2", "/sys/fs/cgroup/unified"),
            addresses_hidden: text("proc/sys/kernel/kptr_restrict").is_some_and(|text| text.trim() == "2"),
            ima: mounted(&mounts, "securityfs", "/sys/kernel/security")
                .then(|| root.join("sys/kernel/security/ima").exists()),
            engines: ENGINES
                .into_iter()
                .filter(|name| ["usr/bin", "usr/sbin"].iter().any(|at| root.join(at).join(name).exists()))
                .collect(),
            // A foreign root has no clock.
            clock_synchronised: (root == Path::new("/")).then(crate::kernel::clock_is_synchronised).flatten(),
            distribution: Distribution::from_os_release(&os_release),
            release,
        }
    }
}

/// The value in brackets: `none [integrity] confidentiality`.
fn selected(text: &str) -> Option<String> {
    text.split_once('[')?.1.split_once(']').map(|(mode, _)| mode.to_owned())
}

/// Whether the text of `mountinfo` has a mount of this kind at this place.
fn mounted(mountinfo: &str, kind: &str, point: &str) -> bool {
    mountinfo.lines().any(|line| {
        let (front, back) = line.split_once(" - ").unwrap_or((line, ""));
        front.split(' ').nth(4) == Some(point) && back.split(' ').next() == Some(kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selected_mode_is_the_one_in_brackets() {
        assert_eq!(selected("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(selected("none"), None);
    }

    #[test]
    fn a_mount_is_recognised_by_kind_and_place() {
        let text = "36 35 0:30 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700\n";
        assert!(mounted(text, "bpf", "/sys/fs/bpf"));
        assert!(!mounted(text, "bpf", "/sys/fs"));
        assert!(!mounted(text, "cgroup2", "/sys/fs/bpf"));
    }
}
