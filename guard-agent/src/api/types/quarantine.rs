//! What is said about quarantines.

use crate::daemon::Connection;
use crate::ledger::Quarantine;
use serde::{Deserialize, Serialize};

/// Body of `POST /v1/quarantines`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct QuarantineRequest {
    /// The subject. Of this and the targets below exactly one is said.
    #[serde(default)]
    pub subject: Option<String>,
    /// One session of the subject; null: all of it.
    #[serde(default)]
    pub session: Option<u64>,
    /// A process, which stands for the session that it is in, or for its subject if it is in none; without a label for
    /// itself and all that it has made and makes.
    #[serde(default)]
    pub pid: Option<i32>,
    /// The name of a systemd unit.
    #[serde(default)]
    pub unit: Option<String>,
    /// The path of a cgroup below the cgroup2 mount.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// A container: its id, the first twelve digits of that or more, or the name that podman knows it by.
    #[serde(default)]
    pub container: Option<String>,
    /// The number of a user.
    #[serde(default)]
    pub uid: Option<u32>,
    /// The path of a program.
    #[serde(default)]
    pub exe: Option<String>,
    /// Everything on the host.
    #[serde(default)]
    pub host: bool,
    /// With `uid` and `host`: after how many seconds it ends unless it is confirmed; null: 300.
    #[serde(default)]
    pub revert_seconds: Option<u64>,
    /// How much is denied: network, write, exec, full or freeze.
    pub level: String,
    /// Why, at most 1000 bytes.
    pub reason: String,
    /// For how long, in seconds; null: until it is released.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// Only say what it would cover.
    #[serde(default)]
    pub dry_run: bool,
    /// Whether what is found is written down.
    #[serde(default = "yes")]
    pub evidence: bool,
}

fn yes() -> bool {
    true
}

/// A process that a quarantine covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CoveredProcess {
    /// Its number.
    pub pid: i32,
    /// What it calls itself.
    pub comm: String,
    /// Its parent is not covered, and is not who started it: that one has ended.
    pub orphan: bool,
    /// Sockets that it has open.
    pub sockets: usize,
}

/// What a quarantine covers, as it was when that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Covers {
    /// The processes.
    pub processes: Vec<CoveredProcess>,
    /// Processes of the same session that have become another subject, which it does not cover, with that
    /// subject.
    pub beyond: Vec<(i32, String)>,
    /// Processes that it does not cover although they are meant: the session of whoever asks, sshd, and what the
    /// configuration names under `rescue`.
    #[serde(default)]
    pub spared: Vec<(i32, String)>,
    /// Connections and listening sockets of the processes.
    #[serde(default)]
    pub connections: Vec<Connection>,
    /// What it is bound to.
    #[serde(default)]
    pub bound_to: String,
    /// What it does not cover.
    #[serde(default)]
    pub not_covered: String,
}

/// Answer to `POST /v1/quarantines`, and to a release.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct QuarantineAnswer {
    /// `guard.quarantine/1`.
    pub schema: String,
    /// Whom it is about.
    pub target: String,
    /// The quarantine; null for a dry run.
    pub quarantine: Option<Quarantine>,
    /// What it covers.
    pub covers: Covers,
    /// Microseconds from the arrival of the request until no further operation was admitted.
    pub in_force_us: Option<u64>,
    /// Connections that were ended.
    #[serde(default)]
    pub ended_connections: usize,
    /// Why other connections were not ended; nothing passes over them.
    #[serde(default)]
    pub not_ended: Option<String>,
    /// Processes that still ran a call that began before when this was answered; their next one is denied.
    pub unfinished: Vec<i32>,
}

impl QuarantineAnswer {
    /// The schema of this version.
    pub const SCHEMA: &'static str = "guard.quarantine/1";
}

/// Answer to `GET /v1/quarantines`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Quarantines {
    /// `guard.quarantines/1`.
    pub schema: String,
    /// Those in force, or with `all` the last ones that there were.
    pub quarantines: Vec<Quarantine>,
}

impl Quarantines {
    /// The schema of this version.
    pub const SCHEMA: &'static str = "guard.quarantines/1";
}

/// Body of `POST /v1/quarantines/{id}/release`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Why, at most 1000 bytes.
    pub reason: String,
    /// The level to go down to; null: to none.
    #[serde(default)]
    pub to: Option<String>,
}

/// Answer to `POST /v1/quarantines/{id}/confirm`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Confirmed {
    /// `guard.quarantine-confirmed/1`.
    pub schema: String,
    /// The quarantine, which goes on.
    pub quarantine: Quarantine,
}

impl Confirmed {
    /// The schema of this version.
    pub const SCHEMA: &'static str = "guard.quarantine-confirmed/1";
}

/// Answer to `POST /v1/quarantines/{id}/inspect`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Inspection {
    /// `guard.inspection/1`.
    pub schema: String,
    /// Whom it is about.
    pub target: String,
    /// A process whose namespaces are meant if none is named.
    pub pid: i32,
    /// All that are covered.
    pub processes: Vec<i32>,
}

impl Inspection {
    /// The schema of this version.
    pub const SCHEMA: &'static str = "guard.inspection/1";
}
