//! How a distribution sets the kernel's command line.

/// The families that differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Debian, Ubuntu and what is made from them.
    Debian,
    /// Fedora, RHEL and what is made from them.
    Fedora,
    /// SUSE.
    Suse,
    /// Everything else.
    Other,
}

impl Distribution {
    /// The family that the text of `/etc/os-release` names.
    pub fn from_os_release(text: &str) -> Self {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches(['"', '\'']).to_ascii_lowercase()
        };
        let ids = format!("{} {}", value("ID"), value("ID_LIKE"));
        for id in ids.split_whitespace() {
            match id {
                "debian" | "ubuntu" => return Self::Debian,
                "fedora" | "rhel" | "centos" => return Self::Fedora,
                "suse" | "opensuse" | "sles" => return Self::Suse,
                _ => {}
            }
        }
        Self::Other
    }

    /// The steps that put `parameter` on the kernel's command line, ready to be followed.
    pub fn steps(self, parameter: &str) -> Vec<String> {
        match self {
            Self::Debian => vec![
                format!(
                    "in /etc/default/grub add it to GRUB_CMDLINE_LINUX: GRUB_CMDLINE_LINUX=\"… {parameter}\""
                ),
                "sudo update-grub && sudo reboot".to_owned(),
            ],
            Self::Fedora => {
                vec![format!("sudo grubby --update-kernel=ALL --args=\"{parameter}\" && sudo reboot")]
            }
            Self::Suse => vec![
                format!(
                    "in /etc/default/grub add it to GRUB_CMDLINE_LINUX: GRUB_CMDLINE_LINUX=\"… {parameter}\""
                ),
                "sudo grub2-mkconfig -o /boot/grub2/grub.cfg && sudo reboot".to_owned(),
            ],
            Self::Other => vec![
                format!("add {parameter} to the kernel command line of the boot loader:"),
                "GRUB: GRUB_CMDLINE_LINUX in /etc/default/grub, then grub-mkconfig -o /boot/grub/grub.cfg"
                    .to_owned(),
                "systemd-boot: the options line in the entries below /boot/loader/entries".to_owned(),
                "then reboot".to_owned(),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_recognised_by_id_and_by_likeness() {
        let cases = [
            ("NAME=\"Debian GNU/Linux\"\nID=debian\n", Distribution::Debian),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Distribution::Debian),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Distribution::Fedora),
            ("ID=fedora\nVERSION_ID=42\n", Distribution::Fedora),
            ("ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\n", Distribution::Suse),
            ("ID=arch\n", Distribution::Other),
            ("", Distribution::Other),
            ("BUILD_ID=debian\n", Distribution::Other),
        ];
        for (text, wanted) in cases {
            assert_eq!(Distribution::from_os_release(text), wanted, "{text}");
        }
    }

    #[test]
    fn the_steps_hold_the_exact_parameter() {
        for family in [Distribution::Debian, Distribution::Fedora, Distribution::Suse, Distribution::Other] {
            let steps = family.steps("lsm=yama,bpf").join("\n");
            assert!(steps.contains("lsm=yama,bpf") && steps.contains("reboot"), "{steps}");
        }
    }
}
