//! Explaining what is remembered: the event, the bundle that decided, and Cedar's answer over it.

use super::adopt::Caller;
use super::collectors;
use super::engine::{ApplyError, Engine, compile};
use super::leases::LeaseError;
use super::serve::Shared;
use super::windows;
use crate::analysis::can::Finding;
use crate::analysis::why::{Explainer, Index, Why as Explained, internal_reason};
use crate::api::types::{OwnDenial, Why, WhyShadow};
use crate::events::Record;
use crate::events::time::{Clock, parse};
use crate::host::Host;
use crate::policy::{self, Bundle, Deciding, Facts, Posture, Signers};
use crate::store::{Filter, Found, StoreError};
use guard_common::action::Action;
use guard_common::tables::AttributeTest;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows that are looked through for a path.
const ROWS: usize = 1000;

/// Why a process does not hear of its last denial.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// It is no subject.
    #[error("{0}")]
    Caller(#[from] LeaseError),
    /// What is remembered cannot be read.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Which event is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The one with this id.
    Id(String),
    /// The last denial, of this subject.
    Last(Option<String>),
    /// A failed operation on this path by this process.
    Operation {
        /// The path on this host.
        path: Vec<u8>,
        /// The process.
        pid: i32,
    },
}

impl Engine {
    /// The windows, leases and facts of the subject of an event at that instant, as far as they are remembered.
    fn held(&self, bundle: &Bundle, record: &Record) -> Facts {
        let Some(at) = parse(&record.time) else { return Facts::default() };
        let subject = record.subject.as_deref().unwrap_or_default();
        let held = self.ledger.facts_at(subject, at).unwrap_or_else(|error| {
            tracing::warn!("leases and facts of an event are not known: {error}");
            Facts::default()
        });
        // What the agent finds out by itself is not remembered: as it is now.
        let mut posture = held.posture;
        let declared = bundle.facts();
        posture.retain(|name, value| declared.get(name).is_some_and(|example| example.is_like(value)));
        for (name, value) in collectors::collect(bundle, &self.found) {
            posture.remove(&name);
            posture.extend(value.map(|value| (name, value)));
        }
        Facts {
            windows: windows::open_at(bundle.schedules(), at),
            posture,
            leases: held.leases,
            ..Facts::default()
        }
    }
}

impl Shared {
    /// Why an event came about. Blocks for as long as compiling its bundle takes.
    ///
    /// # Errors
    /// If what is remembered cannot be read.
    pub fn why(&self, asked: &Asked) -> Result<Why, StoreError> {
        let mut answer = Why::new();
        let found = match asked {
            Asked::Id(id) => {
                answer.message = Some(format!(
                    "no event {id} is remembered: it is mistyped, or so old or of so many that it was forgotten"
                ));
                self.store().find(id)?
            }
            Asked::Last(subject) => {
                let of = subject.as_ref().map_or(String::new(), |subject| format!(" of {subject}"));
                answer.message = Some(format!("no denial{of} is remembered"));
                let (rows, missing) = self.store().query(&Filter {
                    subject: subject.clone(),
                    limit: Some(ROWS),
                    ..Filter::default()
                })?;
                answer.missing = missing;
                rows.into_iter().filter(is_denial).take(1).collect()
            }
            Asked::Operation { path, pid } => self.operation(path, *pid, &mut answer)?,
        };
        let mut found = found.into_iter();
        let Some(first) = found.next() else { return Ok(answer) };
        answer.message = None;
        answer.others = found.map(|row| row.record).collect();
        self.explain(&first.record, &mut answer);
        answer.event = Some(first.record);
        Ok(answer)
    }

    /// The last denial of the subject, and session, whose label a process carries, with what it may know of it.
    ///
    /// # Errors
    /// If it carries none, or what is remembered cannot be read.
    pub fn own_denial(&self, caller: &Caller) -> Result<OwnDenial, OwnError> {
        let asking = self.asking(caller)?;
        self.may_look(&asking)?;
        let filter = Filter { subject: Some(asking.subject), limit: Some(ROWS), ..Filter::default() };
        let (rows, _) = self.store().query(&filter)?;
        let is_own = |row: &Found| row.record.session.unwrap_or(0) == asking.session;
        let Some(last) = rows.into_iter().find(|row| is_denial(row) && is_own(row)) else {
            return Ok(OwnDenial::none());
        };
        let mut why = Why::new();
        self.explain(&last.record, &mut why);
        Ok(OwnDenial::of(&last.record, &why))
    }

    /// Denials that this process can have met on this path.
    fn operation(&self, path: &[u8], pid: i32, answer: &mut Why) -> Result<Vec<Found>, StoreError> {
        let filter = Filter { path: Some(path.to_vec()), limit: Some(ROWS), ..Filter::default() };
        let (rows, missing) = self.store().query(&filter)?;
        answer.missing = missing;
        let label = self.label(pid);
        let carried = label.as_ref().ok().copied().flatten();
        // A row has the last process only; another one with the same label has met the same.
        let same = |row: &Found| {
            i64::from(row.record.pid) == i64::from(pid)
                || carried == Some((row.record.subject_id, row.record.session.unwrap_or(0)))
        };
        let found: Vec<Found> = rows.into_iter().filter(|row| is_denial(row) && same(row)).collect();
        let (subject, who) = match label {
            Ok(None) => (None, format!("process {pid} carries no label, so no policy applies to it")),
            Ok(Some((number, session))) => {
                let name = self.subject_name(number).unwrap_or_else(|| format!("#{number}"));
                let who = if session == 0 { name.clone() } else { format!("{name}/{session}") };
                (Some(name), format!("process {pid} is {who}, and Guard denied it nothing there"))
            }
            Err(error) => (None, format!("process {pid} cannot be asked about: {error}")),
        };
        answer.subject = subject;
        answer.message = Some(format!("not us: {who}"));
        Ok(found)
    }

    /// Adds to `answer` why `record` came about.
    fn explain(&self, record: &Record, answer: &mut Why) {
        if let Some(text) = internal_reason(&record.reason) {
            answer.reason = Some(text.to_owned());
            return;
        }
        let host = match Host::read() {
            Ok(host) => host,
            Err(error) => {
                answer.note = Some(format!("cannot read facts about this host: {error}"));
                return;
            }
        };
        let known = record.seen.as_ref();
        let [bundle, shadow] =
            [known.and_then(|seen| seen.bundle.as_ref()), known.and_then(|seen| seen.shadow.as_ref())]
                .map(|bundle| bundle.map(|bundle| bundle.digest.as_str()));
        let sides = match bundle.ok_or_else(|| "the bundle that decided is not known".to_owned()) {
            Ok(digest) => self.sides(digest, shadow, &host).map(|sides| {
                let held = self.engine().held(&sides.bundle, record);
                let signed_by = sides.signers_of(record);
                Sides { facts: Facts { session: self.variables(record), signed_by, ..held }, ..sides }
            }),
            Err(why) => Err(why),
        };
        let sides = match sides {
            Ok(sides) => sides,
            Err(why) => {
                answer.note = Some(why);
                return;
            }
        };
        answer.shadow = record.shadow.as_ref().map(|differs| {
            let bundle = known.and_then(|seen| seen.shadow.clone());
            let (decisions, note) = match sides.by_shadow(record, &host) {
                Ok((decisions, true)) => (decisions, None),
                Ok((decisions, false)) => (decisions, Some(OTHERWISE.to_owned())),
                Err(why) => (Vec::new(), Some(why)),
            };
            WhyShadow { bundle, verdict: differs.verdict.clone(), decisions, note }
        });
        match sides.live(record, &host, &|action| self.deciding(record, action)) {
            Ok(found) => {
                answer.decisions = found.decisions;
                if !found.agrees {
                    answer.note = Some(OTHERWISE.to_owned());
                }
            }
            Err(why) => answer.note = Some(why),
        }
    }

    /// Values of the variables of the session that an event is of.
    fn variables(&self, record: &Record) -> BTreeMap<String, String> {
        let engine = self.engine();
        let session = record.session.and_then(|session| engine.sessions.get(session));
        // A successor has none of the variables of the subject that the session was opened as.
        let same = session.filter(|session| record.subject.as_ref() == Some(&session.subject));
        same.map(|session| session.variables.clone()).unwrap_or_default()
    }

    /// What the live tables say of an action of `record`, if it is they that decided it.
    fn deciding(&self, record: &Record, action: Action) -> Option<Deciding> {
        let engine = self.engine();
        let live = engine.live.as_ref()?;
        // Numbers of generations begin anew with each run of the agent.
        let since = u64::try_from(live.since).ok()?;
        let decided = record.generation == live.generation
            && record.boot_ns >= since
            && parse(&record.time)? >= Clock::Host.wall(since);
        if !decided {
            return None;
        }
        let resource = (record.class, record.features);
        let posture = Posture::of(&engine.held(&live.bundle, record));
        // A successor is decided by its own row, whatever session it is in.
        let session = record.session.and_then(|session| engine.sessions.get(session));
        let session = session.filter(|session| record.subject.as_ref() == Some(&session.subject));
        let row = session.and_then(|session| engine.sessions.row(session.id));
        let row = row.unwrap_or(record.subject_id);
        live.compiled.deciding(row, resource, action, &posture, record.boot_ns)
    }

    /// The bundle with this digest, live or kept, the shadow that stood beside it, and the attribute tests
    /// of the tables of both.
    fn sides(&self, digest: &str, shadow: Option<&str>, host: &Host) -> Result<Sides, String> {
        let (copies, ids) = {
            let engine = self.engine();
            if let Some(live) = engine.live.as_ref().filter(|live| live.bundle.digest == digest)
                && live.beside.shadow().map(|beside| beside.bundle.digest.as_str()) == shadow
            {
                return Ok(Sides {
                    bundle: Arc::clone(&live.bundle),
                    shadow: engine
                        .shadow
                        .as_ref()
                        .filter(|_| shadow.is_some())
                        .map(|it| Arc::clone(&it.bundle)),
                    tests: live.compiled.generation.attributes.clone(),
                    signers: live.compiled.signers.clone(),
                    facts: Facts::default(),
                });
            }
            (engine.shelf.copies(), engine.ids.clone())
        };
        let kept = |digest: &str, what: &str| {
            copies
                .get(digest)
                .map(|(_, bundle)| Arc::new(bundle))
                .map_err(|_| format!("{what} is not kept any more, so it cannot be asked again"))
        };
        let bundle = kept(digest, "the bundle that decided")?;
        let shadow = match shadow.map(|shadow| kept(shadow, "the shadow of that time")) {
            None => None,
            Some(Ok(shadow)) => Some(shadow),
            Some(Err(why)) => {
                // What the kernel's features mean is then only known if they mean nothing.
                let (compiled, _) = compile(&bundle, &ids).map_err(|error| no_longer(&error))?;
                if !compiled.generation.attributes.is_empty() {
                    return Err(why);
                }
                None
            }
        };
        let compiled =
            policy::compile_beside(&bundle, shadow.as_deref(), host, &Facts::default(), &mut ids.clone())
                .map_err(|errors| no_longer(&ApplyError::Invalid(errors)))?;
        let (tests, signers) = (compiled.generation.attributes, compiled.signers);
        Ok(Sides { bundle, shadow, tests, signers, facts: Facts::default() })
    }
}

/// What to say when a bundle says something else than the kernel did.
const OTHERWISE: &str = "Cedar over that bundle answers otherwise now: mounts, accounts or links of this host \
     have changed since";

fn no_longer(error: &ApplyError) -> String {
    format!("the bundle that decided does not compile on this host any more: {error}")
}

/// The bundles behind an event.
struct Sides {
    bundle: Arc<Bundle>,
    shadow: Option<Arc<Bundle>>,
    tests: Vec<AttributeTest>,
    /// The keys that policies ask for, and the feature of each.
    signers: Vec<(Option<String>, u8)>,
    /// Values of the variables of the event's session, and the windows that were open.
    facts: Facts,
}

impl Sides {
    /// Who signed what `record` is about, as far as policies asked, if it was executed.
    fn signers_of(&self, record: &Record) -> Signers {
        if self.signers.is_empty() || record.actions.iter().all(|action| action != Action::Exec.row().name) {
            return Signers::OfExec;
        }
        let signed = self.signers.iter().filter(|(_, bit)| record.features >> bit & 1 != 0);
        Signers::Are(signed.filter_map(|(name, _)| name.clone()).collect())
    }

    fn live(&self, record: &Record, host: &Host, index: Index<'_>) -> Result<Explained, String> {
        let explainer =
            Explainer::new(&self.bundle, &self.tests, host, &self.facts).map_err(|error| error.message)?;
        explainer.why(record, index).map_err(|error| error.message)
    }

    /// What the shadow says, and whether that is what the event says of it.
    fn by_shadow(&self, record: &Record, host: &Host) -> Result<(Vec<Finding>, bool), String> {
        let shadow = self.shadow.as_ref().ok_or("the shadow of that time is not kept any more")?;
        let explainer =
            Explainer::new(shadow, &self.tests, host, &self.facts).map_err(|error| error.message)?;
        explainer.by_shadow(record).map_err(|error| error.message)
    }
}

fn is_denial(row: &Found) -> bool {
    !matches!(row.record.verdict.as_str(), "audited" | "shadow_deny")
}
