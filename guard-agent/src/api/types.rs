//! What goes over the admin socket: request and response bodies, all JSON.
//!
//! Fields are only ever added; `schema` names the shape.

use serde::{Deserialize, Serialize};

/// Body of `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// `guard.status/1`.
    pub schema: String,
    /// `enforcing` or `degraded`.
    pub state: String,
    /// What is degraded, one sentence each; empty when enforcing.
    pub degraded: Vec<String>,
    /// When enforcement was proven, RFC 3339 UTC.
    pub since: String,
    /// Version of the agent.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Release of the kernel.
    pub kernel: String,
    /// Number of the live generation.
    pub generation: u64,
    /// The live bundle.
    pub bundle: BundleStatus,
    /// Subjects of the live bundle.
    pub subjects: Vec<SubjectStatus>,
    /// Attached programs.
    pub programs: Vec<ProgramStatus>,
    /// Counters since start.
    pub counters: Counters,
}

/// The live bundle.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BundleStatus {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// SHA-256 over its files, hexadecimal.
    pub digest: String,
    /// The directory it was loaded from.
    pub directory: String,
}

/// One subject.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SubjectStatus {
    /// Its name.
    pub name: String,
    /// Its id in labels and events.
    pub id: u32,
    /// `enforce` or `monitor`.
    pub mode: String,
    /// Governed actions that this version decides at no operation.
    pub not_enforced: Vec<String>,
}

/// One program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProgramStatus {
    /// Its name.
    pub name: String,
    /// The hook.
    pub hook: String,
    /// Instructions the verifier walked through at load.
    pub instructions_verified: u32,
    /// Whether it is attached.
    pub attached: bool,
}

/// Counters since the programs were loaded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Operations of labelled tasks decided.
    pub decided: u64,
    /// Operations denied.
    pub denied: u64,
    /// Operations that the candidate policy set would deny.
    pub would_deny: u64,
    /// Events sent by the kernel.
    pub events_sent: u64,
    /// Events lost because the ring was full.
    pub events_lost: u64,
    /// Tasks labelled by selectors.
    pub labelled: u64,
    /// Denials for want of a decision.
    pub internal_denied: u64,
}

/// Body of `POST /v1/policy/apply`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// Absolute path of the bundle directory, as the daemon sees it.
    pub directory: String,
}

/// Answer to an apply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Applied {
    /// `guard.applied/1`.
    pub schema: String,
    /// Whether anything changed; false if this very bundle was live already.
    pub changed: bool,
    /// Number of the generation that is live now.
    pub generation: u64,
    /// The bundle that is live now.
    pub bundle: BundleStatus,
    /// Milliseconds from request to live.
    pub milliseconds: f64,
    /// Running tasks that were labelled by it.
    pub labelled: usize,
    /// Notes of the compiler.
    pub notes: Vec<String>,
}

/// Body of every answer that is not a success.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// `guard.error/1`.
    pub schema: String,
    /// `invalid-policy` (HTTP 422), `not-permitted` (403), `invalid-request` (400), `internal` (500).
    pub code: String,
    /// For people: the diagnostics of an invalid policy, rendered.
    pub message: String,
}
