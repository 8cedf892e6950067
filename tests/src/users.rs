//! Accounts of the tests, and who an attempt is made as.

use std::fs;

use anyhow::{Context, Result};

/// Who makes an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The subject the attempt is reported as, or the name of the unlabelled account.
    pub name: &'static str,
    /// User and group id.
    pub uid: u32,
    /// Capabilities kept over the change of user, as bits.
    pub capabilities: u64,
}

/// The subject with the narrowest policy.
pub const AGENT: Identity = Identity::new("agent", 2001);
/// A second subject, with a wider policy.
pub const CI: Identity = Identity::new("ci", 2002);
/// The user of the web server.
pub const WEBSRV: Identity = Identity::new("websrv", 2003);
/// A subject that may run interpreters and other programs that start programs.
pub const SCRIPTER: Identity = Identity::new("scripter", 2004);
/// A user that no policy names.
pub const FREE: Identity = Identity::new("free", 2999);
/// Root; attempts made as root are reported as the subject that what they execute selects.
pub const ROOT: Identity = Identity::new("root", 0);

/// The first of the ids that subuid(5) lets two of them use.
pub const SUBORDINATE: u32 = 100_000;

/// `CAP_SETUID` (include/uapi/linux/capability.h).
pub const SETUID: u64 = 1 << 7;
/// `CAP_SYS_CHROOT`.
pub const CHROOT: u64 = 1 << 18;
/// `CAP_DAC_READ_SEARCH`.
pub const READ_SEARCH: u64 = 1 << 2;

impl Identity {
    /// Somebody without capabilities.
    pub const fn new(name: &'static str, uid: u32) -> Self {
        Self { name, uid, capabilities: 0 }
    }

    /// The same, with capabilities.
    pub const fn with(self, capabilities: u64) -> Self {
        Self { capabilities, ..self }
    }

    /// The same process, reported as another subject: what it executes attaches that label.
    pub const fn becoming(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
}

/// Adds the accounts, and `more`, to the guest's own, which are a copy of the host's.
pub fn create(more: impl Iterator<Item = Identity>) -> Result<()> {
    let mut passwd = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    let mut group = fs::read_to_string("/etc/group").context("read /etc/group")?;
    let mut shadow = fs::read_to_string("/etc/shadow").context("read /etc/shadow")?;
    for Identity { name, uid, .. } in [AGENT, CI, WEBSRV, SCRIPTER, FREE].into_iter().chain(more) {
        if passwd.lines().any(|line| line.starts_with(&format!("{name}:"))) {
            continue;
        }
        passwd.push_str(&format!("{name}:x:{uid}:{uid}::/home/{name}:/bin/sh\n"));
        group.push_str(&format!("{name}:x:{uid}:\n"));
        shadow.push_str(&format!("{name}:*:20000:0:99999:7:::\n"));
    }
    let ranges = [CI, FREE].map(|who| format!("{}:{SUBORDINATE}:65536\n", who.name)).concat();
    fs::write("/etc/subuid", ranges).context("write /etc/subuid")?;
    fs::write("/etc/passwd", passwd).context("write /etc/passwd")?;
    fs::write("/etc/group", group).context("write /etc/group")?;
    fs::write("/etc/shadow", shadow).context("write /etc/shadow")
}
