//! What is said about quarantines.

use crate::ledger::Quarantine;
use serde::{Deserialize, Serialize};

/// Body of `POST /v1/quarantines`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct QuarantineRequest {
    /// The subject; null with `pid`.
    #[serde(default)]
    pub subject: Option<String>,
    /// One session of the subject; null: all of it.
    #[serde(default)]
    pub session: Option<u64>,
    /// A process, which stands for the session that it is in, or for its subject if it is in none.
    #[serde(default)]
    pub pid: Option<i32>,
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
