//! Facts, judged.

use super::{Facts, lsm};
use serde::Serialize;
use std::fmt;

/// The oldest supported kernel series.
const OLDEST: (u32, u32) = (6, 1);

/// The outcome of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is as it must be.
    Ok,
    /// It is not.
    Missing,
    /// It could not be found out.
    Unknown,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name.
    pub name: &'static str,
    /// The outcome.
    pub state: State,
    /// The agent cannot start without it.
    pub hard: bool,
    /// What was found, in one line.
    pub found: String,
    /// What to do, step by step; empty if nothing.
    pub fix: Vec<String>,
}

/// A hard requirement that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    found: String,
    fix: Vec<String>,
}

impl From<&Check> for Problem {
    fn from(check: &Check) -> Self {
        Self { found: check.found.clone(), fix: check.fix.clone() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.found)?;
        self.fix.iter().try_for_each(|step| write!(f, "\n    {step}"))
    }
}

impl std::error::Error for Problem {}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, hard: true, found: found.into(), fix: Vec::new() }
    }

    fn missing(name: &'static str, found: impl Into<String>, fix: impl IntoIterator<Item = String>) -> Self {
        let fix = fix.into_iter().collect();
        Self { name, state: State::Missing, hard: true, found: found.into(), fix }
    }

    fn unknown(name: &'static str, found: impl Into<String>, fix: impl IntoIterator<Item = String>) -> Self {
        Self { state: State::Unknown, ..Self::missing(name, found, fix) }
    }

    fn soft(self) -> Self {
        Self { hard: false, ..self }
    }
}

/// Judges the facts of a host.
pub fn examine(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![
        root(facts),
        kernel(facts),
        btf(facts),
        security_modules(facts),
        lockdown(facts),
        bpffs(facts),
        cgroup2(facts),
    ];
    checks.extend(containers(facts));
    checks.push(clock(facts));
    checks.extend(hidden_addresses(facts));
    checks.extend(digests(facts));
    checks
}

fn root(facts: &Facts) -> Check {
    if facts.root {
        Check::ok("root", "running as root")
    } else {
        let fix = ["run it as root: sudo guardctl doctor, sudo systemctl start guard-agent".to_owned()];
        Check::missing("root", "not root: loading the programs needs CAP_BPF and CAP_SYS_ADMIN", fix)
    }
}

fn kernel(facts: &Facts) -> Check {
    let Some(release) = &facts.release else {
        return Check::unknown("kernel", "the kernel's release cannot be read from /proc", []);
    };
    match series(release) {
        Some(series) if series >= OLDEST => Check::ok("kernel", format!("kernel {release}")),
        Some(_) => Check::missing(
            "kernel",
            format!("kernel {release} is older than {}.{}", OLDEST.0, OLDEST.1),
            [format!("boot a kernel of series {}.{} or later", OLDEST.0, OLDEST.1)],
        ),
        None => Check::unknown("kernel", format!("kernel release {release:?} has no known form"), []),
    }
}

/// Major and minor number of a release such as `6.1.0-37-amd64`.
fn series(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn btf(facts: &Facts) -> Check {
    if facts.btf {
        return Check::ok("btf", "the kernel describes its types (BTF)");
    }
    let fix =
        ["boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as the distributions' own kernels are"
            .to_owned()];
    Check::missing("btf", "no BTF: /sys/kernel/btf/vmlinux is missing", fix)
}

fn security_modules(facts: &Facts) -> Check {
    const NAME: &str = "bpf-lsm";
    let Some(running) = &facts.lsm else {
        let mount = "mount -t securityfs securityfs /sys/kernel/security";
        let found = if facts.securityfs {
            "the list of security modules cannot be read from /sys/kernel/security/lsm"
        } else {
            "securityfs is not mounted, so the list of security modules cannot be read"
        };
        return Check::unknown(NAME, found, (!facts.securityfs).then(|| format!("sudo {mount}")));
    };
    if lsm::has_bpf(running) {
        return Check::ok(NAME, format!("BPF LSM active: {running}"));
    }
    if facts.bpf_lsm_built == Some(false) {
        return Check::missing(
            NAME,
            format!("this kernel was built without BPF LSM (running: {running})"),
            ["boot a kernel built with CONFIG_BPF_LSM=y".to_owned()],
        );
    }
    let parameter = lsm::boot_parameter(running);
    let mut fix = vec![format!("boot with: {parameter}")];
    match facts.command_line.split_whitespace().rfind(|word| word.starts_with("lsm=")) {
        Some(given) if lsm::has_bpf(given.trim_start_matches("lsm=")) => {
            let found = format!("BPF LSM inactive although booted with {given} (running: {running})");
            return Check::missing(NAME, found, ["boot a kernel built with CONFIG_BPF_LSM=y".to_owned()]);
        }
        Some(given) => fix.push(format!("it replaces {given}, which the running kernel was booted with")),
        None => {}
    }
    fix.extend(facts.distribution.steps(&parameter));
    Check::missing(NAME, format!("BPF LSM inactive (running: {running})"), fix)
}

fn lockdown(facts: &Facts) -> Check {
    match facts.lockdown.as_deref() {
        Some("confidentiality") => Check::missing(
            "lockdown",
            "lockdown is in confidentiality mode: BPF programs may not read kernel memory, so they cannot load",
            ["boot without lockdown=confidentiality; lockdown=integrity is fine".to_owned()],
        ),
        Some(mode) => Check::ok("lockdown", format!("lockdown: {mode}")),
        None => Check::ok("lockdown", "lockdown: not in this kernel, or not readable").soft(),
    }
}

fn bpffs(facts: &Facts) -> Check {
    if facts.bpffs {
        return Check::ok("bpffs", "BPF file system at /sys/fs/bpf").soft();
    }
    let fix = ["sudo mount -t bpf bpf /sys/fs/bpf".to_owned()];
    Check::missing("bpffs", "no BPF file system at /sys/fs/bpf", fix).soft()
}

fn cgroup2(facts: &Facts) -> Check {
    if facts.cgroup2 {
        return Check::ok("cgroup2", "cgroup v2 mounted").soft();
    }
    let fix =
        ["boot with systemd.unified_cgroup_hierarchy=1, or: sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup"
            .to_owned()];
    Check::missing("cgroup2", "no cgroup v2 hierarchy: selectors by unit would find nothing", fix).soft()
}

fn clock(facts: &Facts) -> Check {
    const NAME: &str = "clock";
    match facts.clock_synchronised {
        Some(true) => Check::ok(NAME, "clock: synchronised").soft(),
        Some(false) => Check::unknown(
            NAME,
            "clock: not synchronised since boot, and the times of events and windows count by it",
            ["sudo timedatectl set-ntp true".to_owned()],
        )
        .soft(),
        None => Check::unknown(NAME, "clock: not known whether it is synchronised", []).soft(),
    }
}

/// Said only where it is so: most hosts never hide them.
fn hidden_addresses(facts: &Facts) -> Option<Check> {
    facts.addresses_hidden.then(|| {
        Check::missing(
            "addresses",
            "the kernel hides its addresses (kernel.kptr_restrict=2), so Guard cannot remember directories, \
             decisions about files cost more than they need to, and what is mounted in a container is unclassified",
            ["sudo sysctl kernel.kptr_restrict=1, then restart the agent".to_owned()],
        )
        .soft()
    })
}

/// Said only where it is so: the kernels of most distributions take them.
fn digests(facts: &Facts) -> Option<Check> {
    const NAME: &str = "digests";
    let denied = "what policy lets run because of resource.signed_by is denied";
    if facts.ima == Some(false) {
        let found = format!("the kernel takes no digests of files (CONFIG_IMA), so {denied}");
        return Some(
            Check::missing(NAME, found, ["boot a kernel built with CONFIG_IMA=y".to_owned()]).soft(),
        );
    }
    let hash = facts.command_line.split_whitespace().find_map(|word| word.strip_prefix("ima_hash="))?;
    (hash != "sha256").then(|| {
        let found = format!("the kernel takes digests by {hash}, and lists have SHA-256, so {denied}");
        Check::missing(NAME, found, ["boot with ima_hash=sha256, or without ima_hash".to_owned()]).soft()
    })
}

/// Said only where something runs containers.
fn containers(facts: &Facts) -> Option<Check> {
    const NAME: &str = "containers";
    let known = |name: &&str| ["systemd-nspawn", "podman"].contains(name);
    let (known, others): (Vec<&str>, Vec<&str>) = facts.engines.iter().copied().partition(known);
    let mut covered = Vec::new();
    if known.contains(&"systemd-nspawn") {
        covered.push("those of systemd-nspawn by name");
    }
    if known.contains(&"podman") {
        covered.push(
            "root's of podman by name and image, once the agent has looked into podman's list; not those of other users",
        );
    }
    let covered = covered.join(", ");
    if others.is_empty() {
        return (!covered.is_empty()).then(|| Check::ok(NAME, format!("containers: {covered}")).soft());
    }
    let others = others.join(", ");
    let and = if covered.is_empty() { String::new() } else { format!(" ({covered})") };
    Some(
        Check::unknown(
            NAME,
            format!("containers of {others} are not recognised by name, image or pod{and}"),
            ["select them by cgroup, with root = \"own\" for paths inside of them".to_owned()],
        )
        .soft(),
    )
}

/// The last check: load and attach the programs, if nothing known speaks against it.
pub(super) fn attempt(
    facts: &Facts,
    problems: &[Problem],
    attempt: Option<&dyn Fn() -> Result<(), String>>,
) -> Check {
    const NAME: &str = "programs";
    match attempt {
        None => Check::unknown(NAME, "loading the programs was not tried on a foreign root", []).soft(),
        Some(_) if !facts.root => Check::unknown(NAME, "loading the programs was not tried without root", []),
        Some(_) if !problems.is_empty() => {
            Check::unknown(NAME, "loading the programs was not tried: see above", [])
        }
        Some(load) => match load() {
            Ok(()) => Check::ok(NAME, "the programs load and attach"),
            Err(error) => Check::missing(NAME, error, []),
        },
    }
}
