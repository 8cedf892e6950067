//! Explaining what is remembered: the event, the bundle that decided, and Cedar's answer over it.

use super::engine::compile;
use super::serve::Shared;
use crate::analysis::why::{internal_reason, why};
use crate::api::types::Why;
use crate::events::Record;
use crate::events::time::{Clock, parse};
use crate::host::Host;
use crate::policy::{Bundle, Deciding, Posture};
use crate::store::{Filter, Found, StoreError};
use guard_common::action::Action;
use guard_common::tables::AttributeTest;
use std::sync::Arc;

/// Rows that are looked through for a path.
const ROWS: usize = 1000;

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
            Ok(Some((number, _))) => {
                let name = self.subject_name(number).unwrap_or_else(|| format!("#{number}"));
                (Some(name.clone()), format!("process {pid} is {name}, and Guard denied it nothing there"))
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
        match self.evaluate(record) {
            Ok(found) => {
                answer.decisions = found.decisions;
                if !found.agrees {
                    answer.note = Some(
                        "Cedar over that bundle answers otherwise now: mounts, accounts or links of this host \
                         have changed since"
                            .to_owned(),
                    );
                }
            }
            Err(why) => answer.note = Some(why),
        }
    }

    fn evaluate(&self, record: &Record) -> Result<crate::analysis::why::Why, String> {
        let known = record.seen.as_ref().and_then(|seen| seen.bundle.as_ref());
        let digest = &known.ok_or("the bundle that decided is not known")?.digest;
        let (bundle, tests) = self.bundle(digest)?;
        let host = Host::read().map_err(|error| format!("cannot read facts about this host: {error}"))?;
        why(record, &bundle, &tests, &host, &|action| self.deciding(record, action))
            .map_err(|error| error.message)
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
        let posture = Posture::default();
        live.compiled.deciding(record.subject_id, resource, action, &posture, record.boot_ns)
    }

    /// The bundle with this digest, live or kept, and the attribute tests of its tables.
    fn bundle(&self, digest: &str) -> Result<(Arc<Bundle>, Vec<AttributeTest>), String> {
        let (copies, ids) = {
            let engine = self.engine();
            if let Some(live) = engine.live.as_ref().filter(|live| live.bundle.digest == digest) {
                return Ok((Arc::clone(&live.bundle), live.compiled.generation.attributes.clone()));
            }
            (engine.shelf.copies(), engine.ids.clone())
        };
        let (_, bundle) = copies.get(digest).map_err(|_| {
            "the bundle that decided is not kept any more, so it cannot be asked again".to_owned()
        })?;
        let (compiled, _) = compile(&bundle, &ids).map_err(|error| {
            format!("the bundle that decided does not compile on this host any more: {error}")
        })?;
        Ok((Arc::new(bundle), compiled.generation.attributes))
    }
}

fn is_denial(row: &Found) -> bool {
    row.record.verdict != "audited"
}
