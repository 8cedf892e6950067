//! What goes over the admin socket: request and response bodies, all JSON.
//!
//! Fields are only ever added; `schema` names the shape.

mod quarantine;

pub use quarantine::{
    Confirmed, CoveredProcess, Covers, Inspection, QuarantineAnswer, QuarantineRequest, Quarantines,
    ReleaseRequest,
};

use crate::analysis::can::Finding;
use crate::analysis::can::Named;
use crate::bundle::{Ended, Entry, Hold, Shadow};
use crate::coverage::ActionCoverage;
use crate::daemon::{Disarm, ModeChange, ModeSetting, Session};
use crate::events::{BundleRecord, Missing, Record};
use crate::ledger::{Fact, Lease, Quarantine, Request};
use crate::policy::{FactValue, Mode, Unenforceable};
use crate::store::StoreStatus;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Body of `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    /// Who vouches for it, and what else could become live.
    #[serde(default)]
    pub policy: PolicyStatus,
    /// The shadow; null without one.
    #[serde(default)]
    pub shadow: Option<ShadowStatus>,
    /// Why a shadow that stood does not stand any more, although nobody ended it.
    #[serde(default)]
    pub shadow_lost: Option<String>,
    /// Where the programs are pinned, so that enforcement goes on when the agent ends; null if it ends with the
    /// agent.
    #[serde(default)]
    pub pinned: Option<String>,
    /// When enforcement was last ended on purpose.
    #[serde(default)]
    pub disarmed: Option<Disarm>,
    /// Change windows of the live bundle.
    #[serde(default)]
    pub windows: Vec<WindowStatus>,
    /// Quarantines that are in force.
    #[serde(default)]
    pub quarantines: Vec<Quarantine>,
    /// Subjects of the live bundle.
    pub subjects: Vec<SubjectStatus>,
    /// Attached programs.
    pub programs: Vec<ProgramStatus>,
    /// Counters since start.
    pub counters: Counters,
    /// What is remembered of events.
    #[serde(default)]
    pub store: StoreStatus,
}

/// Body of `POST /v1/disarm`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DisarmRequest {
    /// Why.
    pub reason: String,
}

/// The answer to it: nothing is enforced any more.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Disarmed {
    /// [`Disarmed::SCHEMA`].
    pub schema: String,
    /// What was recorded.
    #[serde(flatten)]
    pub disarm: Disarm,
}

impl Disarmed {
    /// The schema of the answer.
    pub const SCHEMA: &str = "guard.disarmed/1";
}

/// The live bundle.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BundleStatus {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// SHA-256 over its files, hexadecimal.
    pub digest: String,
    /// The directory or archive it was loaded from.
    pub directory: String,
    /// The daemon's own copy of it, an archive that root can read; the directory may have changed
    /// since. Empty if nothing was applied.
    #[serde(default)]
    pub copy: String,
}

/// Trust, hold and what the start had to fall back to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PolicyStatus {
    /// Names of the trusted keys that signed the live bundle; none if it is local.
    pub signed_by: Vec<String>,
    /// Trusted keys.
    pub keys: usize,
    /// How many of them must sign.
    pub threshold: usize,
    /// Whether unsigned bundles are accepted.
    pub accepts_unsigned: bool,
    /// Why the daemon started with a kept bundle instead of the configured one, if that is in order; if
    /// not, `degraded` says it.
    pub kept: Option<String>,
    /// What is applied is refused until it ends.
    pub hold: Option<Hold>,
}

/// A change window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WindowStatus {
    /// Its name.
    pub name: String,
    /// Whether it is open.
    pub open: bool,
    /// When that changes, RFC 3339 UTC; null if not within a year, or if nobody knows for want of a clock.
    pub until: Option<String>,
}

/// A shadow.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShadowStatus {
    /// Name of its bundle.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// SHA-256 over its files, hexadecimal.
    pub digest: String,
    /// Since when it stands beside the live bundle, RFC 3339 UTC.
    pub since: String,
    /// Who asked for it.
    pub by: String,
    /// The directory or archive it was read from.
    pub source: String,
    /// Names of the trusted keys that signed it; none if it is local.
    pub signed_by: Vec<String>,
    /// Why nothing is compared now; null while it is.
    pub paused: Option<String>,
}

/// Answer to what begins or ends a shadow.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShadowSet {
    /// [`ShadowSet::SCHEMA`].
    pub schema: String,
    /// Whether anything changed, or would; false if this very shadow stood already.
    pub changed: bool,
    /// Nothing was changed, because only that was asked for.
    pub dry_run: bool,
    /// The shadow that begins, or ended.
    pub shadow: ShadowStatus,
    /// The live bundle.
    pub bundle: BundleStatus,
    /// Number of the generation that is live now.
    pub generation: u64,
    /// Milliseconds from request to done.
    pub milliseconds: f64,
    /// Notes of the compiler.
    pub notes: Vec<String>,
}

impl ShadowSet {
    /// The schema of the answer.
    pub const SCHEMA: &str = "guard.shadow-set/1";
}

/// Answer to `GET /v1/policy/shadow`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShadowReport {
    /// [`ShadowReport::SCHEMA`].
    pub schema: String,
    /// The shadow.
    pub shadow: ShadowStatus,
    /// The live bundle.
    pub bundle: BundleStatus,
    /// Number of the generation that is live now.
    pub generation: u64,
    /// Operations of labelled processes that were decided since `decided_since`.
    pub decided: u64,
    /// When the shadow began, or the agent started if that was later, RFC 3339 UTC.
    pub decided_since: String,
    /// Operations that would have been denied and were not.
    pub newly_denied: u64,
    /// Operations that would have been allowed and were not.
    pub newly_allowed: u64,
    /// Both, by what was done to what: newest first.
    pub differences: Vec<ShadowDifference>,
    /// How many more there are than were asked for.
    pub more: usize,
    /// Operations of which nothing more is known: there were too many kinds.
    pub forgotten: u64,
    /// What cannot be compared, one sentence each.
    pub not_compared: Vec<String>,
    /// What the memory lacks.
    pub missing: Missing,
}

impl ShadowReport {
    /// The schema of the answer.
    pub const SCHEMA: &str = "guard.shadow/1";
}

/// Operations that would have ended otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShadowDifference {
    /// `newly_denied` or `newly_allowed`.
    pub change: String,
    /// The subject.
    pub subject: String,
    /// The actions that the shadow decides otherwise.
    pub actions: Vec<String>,
    /// The resource, as events show it.
    pub resource: String,
    /// How often.
    pub count: u64,
    /// The first time, RFC 3339 UTC.
    pub first: String,
    /// The last time.
    pub last: String,
    /// Id of the last event.
    pub id: String,
    /// The policies of the shadow that decide, none for a denial by default; null if that cannot be told.
    pub policies: Option<Vec<Named>>,
}

/// One subject.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SubjectStatus {
    /// Its name.
    pub name: String,
    /// Its id in labels and events.
    pub id: u32,
    /// `enforce` or `monitor`, as it is in force.
    pub mode: String,
    /// What its bundle says.
    #[serde(default)]
    pub bundle_mode: String,
    /// Who set the mode, and until when; null while the bundle's counts.
    #[serde(default)]
    pub mode_set: Option<ModeSetting>,
    /// Governed actions that this version decides at no operation.
    pub not_enforced: Vec<String>,
    /// Governed actions that this version decides and this kernel has no hook for.
    #[serde(default)]
    pub unenforceable: Vec<String>,
    /// What its bundle wants then.
    #[serde(default)]
    pub when_unenforceable: Unenforceable,
}

/// Answer to `GET /v1/coverage`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CoverageReport {
    /// [`CoverageReport::SCHEMA`].
    pub schema: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Every action.
    pub actions: Vec<ActionCoverage>,
    /// Subjects of the live bundle.
    pub subjects: Vec<SubjectCoverage>,
}

impl CoverageReport {
    /// The schema of the answer.
    pub const SCHEMA: &str = "guard.coverage/1";
}

/// What a kernel lacks for one subject.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SubjectCoverage {
    /// The subject.
    pub subject: String,
    /// Governed actions that this version decides and this kernel has no hook for.
    pub unenforceable: Vec<String>,
    /// What its bundle wants then.
    pub when_unenforceable: Unenforceable,
}

/// One program.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Counters {
    /// Operations of labelled tasks decided.
    pub decided: u64,
    /// Operations denied.
    pub denied: u64,
    /// Allowed operations that the candidate policy set would deny.
    pub would_deny: u64,
    /// Denied operations that the candidate policy set would allow.
    #[serde(default)]
    pub would_allow: u64,
    /// Allowed operations that the shadow of then would have denied.
    #[serde(default)]
    pub shadow_deny: u64,
    /// Denied operations that the shadow of then would have allowed.
    #[serde(default)]
    pub shadow_allow: u64,
    /// Events sent by the kernel.
    pub events_sent: u64,
    /// Events lost because the ring was full.
    pub events_lost: u64,
    /// Tasks labelled by selectors.
    pub labelled: u64,
    /// Denials for want of a decision.
    pub internal_denied: u64,
    /// File systems of subjects that were one too many to be known as their own.
    #[serde(default)]
    pub file_systems_not_noted: u64,
}

/// Body of `POST /v1/mode`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ModeRequest {
    /// The subject.
    pub subject: String,
    /// Its mode, or null for the bundle's.
    pub mode: Option<Mode>,
    /// For how many seconds; of no meaning for the bundle's mode.
    #[serde(default)]
    pub seconds: u64,
    /// Why. Required where less is denied than before.
    #[serde(default)]
    pub reason: Option<String>,
    /// That less is denied than before is known to whoever asks. Without it such a change is refused.
    #[serde(default)]
    pub confirmed: bool,
}

impl ModeRequest {
    /// The code of the refusal of a change that is not confirmed and has to be.
    pub const UNCONFIRMED: &str = "unconfirmed";
}

/// Answer to `POST /v1/mode`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ModeSet {
    /// `guard.mode/1`
    pub schema: String,
    /// The subject.
    pub subject: String,
    /// Its mode now.
    pub mode: Mode,
    /// Until when, as RFC 3339 in UTC; null if it is the bundle's.
    pub until: Option<String>,
    /// Its mode from then on.
    pub then: Mode,
}

/// Body of `POST /v1/adopt` of the self-service socket: label the calling process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AdoptRequest {
    /// The subject.
    pub subject: String,
    /// Values of the session's variables, by name.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Why, for the record.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Answer to it: the process carries the label.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Adopted {
    /// [`Adopted::SCHEMA`].
    pub schema: String,
    /// The subject.
    pub subject: String,
    /// The session.
    pub session: u64,
}

impl Adopted {
    /// The schema of the answer.
    pub const SCHEMA: &str = "guard.adopted/1";
}

/// Answer to `GET /v1/sessions`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sessions {
    /// [`Sessions::SCHEMA`].
    pub schema: String,
    /// The sessions, oldest first.
    pub sessions: Vec<Session>,
}

impl Sessions {
    /// The schema of the answer.
    pub const SCHEMA: &str = "guard.sessions/1";
}

/// Answer to `POST /v1/selftest`: the calling process is denied everything from here on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TrialBegun {
    /// [`TrialBegun::SCHEMA`].
    pub schema: String,
    /// The number by which its denials can be asked for; less than 2^53.
    pub session: u64,
}

impl TrialBegun {
    /// The schema of the answer.
    pub const SCHEMA: &str = "guard.trial/1";
}

/// Answer to `GET /v1/selftest`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Denials {
    /// [`Denials::SCHEMA`].
    pub schema: String,
    /// How often the kernel has reported an action as denied, by its name.
    pub denied: BTreeMap<String, u32>,
}

impl Denials {
    /// The schema of the answer.
    pub const SCHEMA: &str = "guard.denials/1";
}

/// Body of `POST /v1/policy/apply`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// Absolute path of the bundle, a directory or an archive, as the daemon sees it.
    pub directory: String,
    /// Only verify and compile it, and say what would happen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// Body of `POST /v1/policy/rollback`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RollbackRequest {
    /// Refuse applies for so many seconds.
    pub hold_seconds: Option<u64>,
    /// Why, for the history.
    pub reason: Option<String>,
}

/// Answer to `GET /v1/policy/history`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct History {
    /// `guard.history/1`.
    pub schema: String,
    /// Changes of the live bundle, oldest first.
    pub entries: Vec<Entry>,
    /// The hold in force.
    pub hold: Option<Hold>,
    /// Modes of subjects that were set for a while, oldest first.
    #[serde(default)]
    pub modes: Vec<ModeChange>,
    /// The shadow that stands.
    #[serde(default)]
    pub shadow: Option<Shadow>,
    /// Shadows that ended, oldest first.
    #[serde(default)]
    pub shadows: Vec<Ended>,
    /// When enforcement was ended on purpose, oldest first.
    #[serde(default)]
    pub disarms: Vec<Disarm>,
}

/// Answer to `POST /v1/policy/release-hold`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Released {
    /// `guard.released/1`.
    pub schema: String,
    /// Whether there was a hold.
    pub changed: bool,
}

/// Answer to an apply.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Applied {
    /// `guard.applied/1`.
    pub schema: String,
    /// Whether anything changed, or would; false if this very bundle was live already.
    pub changed: bool,
    /// Nothing was changed, because only that was asked for.
    #[serde(default)]
    pub dry_run: bool,
    /// Number of the generation that is live now.
    pub generation: u64,
    /// The bundle that is live now, or would be.
    pub bundle: BundleStatus,
    /// Milliseconds from request to live.
    pub milliseconds: f64,
    /// Running tasks that were labelled by it.
    pub labelled: usize,
    /// Notes of the compiler.
    pub notes: Vec<String>,
}

/// Answer to `GET /v1/why`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Why {
    /// [`Why::SCHEMA`].
    pub schema: String,
    /// The event; null if there is none.
    pub event: Option<Record>,
    /// Rows of the same id: the same kind under other bundles, newest first, and rarely another kind.
    pub others: Vec<Record>,
    /// What Cedar says over the bundle that decided: one answer for each action of the event.
    pub decisions: Vec<Finding>,
    /// What the shadow would have decided, where that is another verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<WhyShadow>,
    /// What it means, if it was not policy that decided.
    pub reason: Option<String>,
    /// What keeps this answer from being the whole truth.
    pub note: Option<String>,
    /// Without an event: why not.
    pub message: Option<String>,
    /// Without an event: the subject of the process that was asked about.
    pub subject: Option<String>,
    /// Without an event: what the memory lacks.
    pub missing: Missing,
}

impl Why {
    /// The schema of the answer.
    pub const SCHEMA: &str = "guard.why/1";

    /// An answer without anything.
    pub fn new() -> Self {
        Self {
            schema: Self::SCHEMA.to_owned(),
            event: None,
            others: Vec::new(),
            decisions: Vec::new(),
            shadow: None,
            reason: None,
            note: None,
            message: None,
            subject: None,
            missing: Missing::new(0, 0),
        }
    }
}

/// What the shadow of that time says of an event.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WhyShadow {
    /// Its bundle; null if it is not known.
    pub bundle: Option<BundleRecord>,
    /// `denied` or `allowed`.
    pub verdict: String,
    /// What Cedar says over that bundle: one answer for each action that it decides otherwise.
    pub decisions: Vec<Finding>,
    /// What keeps this answer from being the whole truth.
    pub note: Option<String>,
}

impl Default for Why {
    fn default() -> Self {
        Self::new()
    }
}

/// Answer to `GET /v1/report/unused`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Report {
    /// [`Report::SCHEMA`].
    pub schema: String,
    /// The live bundle.
    pub bundle: BundleStatus,
    /// Its subjects.
    pub subjects: Vec<SubjectReport>,
}

impl Report {
    /// The schema of the answer.
    pub const SCHEMA: &str = "guard.unused/1";
}

/// Permits of one subject that were never used.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SubjectReport {
    /// The subject.
    pub subject: String,
    /// Since when its use is known, RFC 3339 UTC; null if it is not.
    pub since: Option<String>,
    /// Permits it has, with those of includes.
    pub permits: usize,
    /// Those of which no action on any class was used.
    pub unused: Vec<UnusedPermit>,
    /// Those of which that cannot be known.
    pub untold: Vec<UnusedPermit>,
}

/// A permit that was never used.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UnusedPermit {
    /// The policy.
    pub policy: String,
    /// The file of the bundle that it is written in.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// The actions it gives.
    pub actions: Vec<String>,
    /// On what, in words; not all of it if there is much.
    pub on: Vec<String>,
    /// How much more there is.
    pub more: usize,
    /// Why its use cannot be known.
    pub why: Option<String>,
}

/// Body of every answer that is not a success.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failure {
    /// [`Failure::SCHEMA`].
    pub schema: String,
    /// One of the codes that docs/api.md lists.
    pub code: String,
    /// For people: the diagnostics of an invalid policy, rendered.
    pub message: String,
    /// The action of Guard's own API that the caller may not ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The roles that have it, besides root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
}

impl Failure {
    /// The schema of the answer.
    pub const SCHEMA: &str = "guard.error/1";
}

/// Body of `POST /v1/leases`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// The lease.
    pub name: String,
    /// To whom.
    pub subject: String,
    /// To one session of the subject only; null: to all of it.
    #[serde(default)]
    pub session: Option<u64>,
    /// For how long, in seconds; null: as long as it may last.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// How often it can be used; null: as often as the lease allows.
    #[serde(default)]
    pub uses: Option<u32>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Body of `POST /v1/leases/{id}/renew`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// For how long from now, in seconds; null: as long as it may last.
    #[serde(default)]
    pub seconds: Option<u64>,
}

/// A lease that was granted, renewed or revoked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeaseAnswer {
    /// [`LeaseAnswer::SCHEMA`].
    pub schema: String,
    /// The lease.
    #[serde(flatten)]
    pub lease: Lease,
}

impl LeaseAnswer {
    /// The schema of the answer.
    pub const SCHEMA: &str = "guard.lease/1";
}

/// Body of `GET /v1/leases`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Leases {
    /// [`Leases::SCHEMA`].
    pub schema: String,
    /// The leases.
    pub leases: Vec<Lease>,
}

impl Leases {
    /// The schema of the body.
    pub const SCHEMA: &str = "guard.leases/1";
}

/// Body of `POST /v1/requests` at the self-service socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AskRequest {
    /// The lease.
    pub lease: String,
    /// For how long, in seconds; null: as long as it may last.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// How often it is to be usable; null: as often as the lease allows.
    #[serde(default)]
    pub uses: Option<u32>,
    /// For this session only.
    #[serde(default)]
    pub only_session: bool,
    /// Why.
    pub reason: String,
}

/// Body of `POST /v1/requests/{id}/approve`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    /// What the approver was shown, which is recorded.
    pub shown: String,
}

/// Body of `POST /v1/requests/{id}/deny`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DenyRequest {
    /// What to say to whoever asked.
    #[serde(default)]
    pub note: Option<String>,
}

/// One request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RequestAnswer {
    /// [`RequestAnswer::SCHEMA`].
    pub schema: String,
    /// The request.
    #[serde(flatten)]
    pub request: Request,
}

impl RequestAnswer {
    /// The schema of the answer.
    pub const SCHEMA: &str = "guard.request/1";
}

/// Body of `GET /v1/requests`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Requests {
    /// [`Requests::SCHEMA`].
    pub schema: String,
    /// The requests, newest first.
    pub requests: Vec<Request>,
}

impl Requests {
    /// The schema of the body.
    pub const SCHEMA: &str = "guard.requests/1";
}

/// Body of `POST /v1/facts`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FactRequest {
    /// The fact.
    pub name: String,
    /// Of which subject; null: of the host.
    #[serde(default)]
    pub subject: Option<String>,
    /// Its value.
    pub value: FactValue,
    /// Where it comes from.
    pub source: String,
    /// For how long it holds, in seconds; null: as long as the bundle says, and without an end if it says nothing.
    #[serde(default)]
    pub seconds: Option<u64>,
}

/// Body of `GET /v1/facts`, and the answer to what changes one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Facts {
    /// [`Facts::SCHEMA`].
    pub schema: String,
    /// The facts.
    pub facts: Vec<Fact>,
}

impl Facts {
    /// The schema of the body.
    pub const SCHEMA: &str = "guard.facts/1";
}

/// How a fact changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FactChangeKind {
    /// It was known already when following began.
    Known,
    /// It was not known before from this source.
    New,
    /// Its value or its end is another one, or whether it counts.
    Changed,
    /// It ended, or was taken back.
    Gone,
}

/// One line of `GET /v1/facts?follow=true`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FactChange {
    /// [`FactChange::SCHEMA`].
    pub schema: String,
    /// When that was noticed, RFC 3339 UTC.
    pub at: String,
    /// What happened to it.
    pub change: FactChangeKind,
    /// What it is, or was.
    pub fact: Fact,
}

impl FactChange {
    /// The schema of a line.
    pub const SCHEMA: &str = "guard.fact-change/1";
}

/// Body of `GET /v1/denials/last` at the self-service socket: what a subject may know of its own last denial.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OwnDenial {
    /// [`OwnDenial::SCHEMA`].
    pub schema: String,
    /// Id of the event; null if none is remembered.
    pub id: Option<String>,
    /// When, RFC 3339 UTC.
    pub time: Option<String>,
    /// What was tried.
    pub actions: Vec<String>,
    /// On what.
    pub resource: Option<String>,
    /// The error that the process got.
    pub errno: Option<String>,
    /// Why, in the words of the policy.
    pub reasons: Vec<String>,
    /// Leases to ask for, any of which would lift it now; empty: none would.
    pub ask_for: Vec<String>,
    /// Change windows that would lift it.
    pub windows: Vec<String>,
    /// Whether the same operation could work without anything else having changed. It never could.
    pub retry: bool,
}

impl OwnDenial {
    /// The schema of the body.
    pub const SCHEMA: &str = "guard.own-denial/1";

    /// Nothing was denied.
    pub fn none() -> Self {
        Self {
            schema: Self::SCHEMA.to_owned(),
            id: None,
            time: None,
            actions: Vec::new(),
            resource: None,
            errno: None,
            reasons: Vec::new(),
            ask_for: Vec::new(),
            windows: Vec::new(),
            retry: false,
        }
    }

    /// What of an event and its explanation is the subject's to know.
    pub fn of(record: &Record, why: &Why) -> Self {
        let denied = || why.decisions.iter().filter(|finding| !finding.allowed);
        let mut reasons: Vec<String> = denied()
            .flat_map(|finding| &finding.policies)
            .filter_map(|policy| policy.reason.clone())
            .collect();
        reasons.dedup();
        // What lifts one action is no help if another one stays denied.
        let lifts = |of: fn(&crate::policy::Lift) -> Option<&String>| -> Vec<String> {
            let alone = |finding: &Finding| -> std::collections::BTreeSet<String> {
                let one = |lift: &&crate::policy::Lift| lift.lease.is_none() != lift.window.is_none();
                finding.lifts.iter().filter(one).filter_map(of).cloned().collect()
            };
            let all = denied().map(alone).reduce(|both, other| &both & &other);
            all.unwrap_or_default().into_iter().collect()
        };
        Self {
            id: Some(record.id.clone()),
            time: Some(record.time.clone()),
            actions: record.actions.clone(),
            resource: Some(record.what()),
            errno: record.errno.clone(),
            reasons,
            ask_for: lifts(|lift| lift.lease.as_ref()),
            windows: lifts(|lift| lift.window.as_ref()),
            ..Self::none()
        }
    }
}
