//! Which lease would lift a denial, for every event: of what was told to the kernel last, without waiting for whoever
//! changes that.

use super::engine::Engine;
use super::leases;
use super::modes::Now;
use super::windows;
use crate::policy::{Instant, Lifts, Posture};
use guard_common::action::{Action, TABLE};
use guard_common::class::Class;
use guard_common::decide::Reason;
use guard_common::event::{Event, Verdict};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

/// Answers that are remembered; then they are found anew.
const REMEMBERED: usize = 4096;

/// What is known of the live generation.
#[derive(Debug, Default)]
pub(super) struct Lifting(Mutex<Option<Known>>);

#[derive(Debug)]
struct Known {
    generation: u64,
    lifts: Lifts,
    /// Rows of sessions that have one of their own.
    sessions: BTreeMap<u64, u32>,
    postures: BTreeMap<u32, Posture>,
    /// Answers, and until when they are right.
    answers: HashMap<Asked, (Vec<String>, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Asked {
    row: u32,
    class: Class,
    features: u64,
    actions: u64,
}

impl Lifting {
    /// Another generation is live, or another posture.
    pub(super) fn learn(&self, engine: &Engine) {
        let known = engine.live.as_ref().map(|live| {
            let now = Now::read();
            let openings = windows::from_now_on(&live.bundle, &now);
            let lifts = live.compiled.lifts();
            let rows = engine.rows(&live.compiled);
            let sessions = rows.iter().filter(|one| one.session != 0).map(|one| (one.session, one.row));
            let sessions = sessions.collect();
            let posture = |subject: &str, session: u64| {
                let known = engine.known()?;
                Some(leases::posture(&engine.modes, known, (subject, session), &openings, &now))
            };
            let postures = rows
                .iter()
                .filter(|one| lifts.concern(one.row))
                .filter_map(|one| Some((one.row, posture(&one.subject, one.session)?)))
                .collect();
            Known { generation: live.generation, lifts, sessions, postures, answers: HashMap::new() }
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// The leases that would have lifted a denial; none for what policy did not deny, or another generation did.
    pub(super) fn leases_for(&self, event: &Event) -> Vec<String> {
        let by_policy = event.verdict == Verdict::Denied as u8 && event.reason == Reason::Policy as u8;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = known.as_mut().filter(|known| by_policy && known.generation == event.generation)
        else {
            return Vec::new();
        };
        let row = known.sessions.get(&event.session).copied().unwrap_or(event.subject);
        let Some(posture) = known.postures.get(&row) else { return Vec::new() };
        let asked = Asked { row, class: event.class, features: event.features, actions: event.actions };
        if let Some((answer, until)) = known.answers.get(&asked)
            && event.boot_ns < *until
        {
            return answer.clone();
        }
        let actions: Vec<Action> =
            TABLE.iter().map(|one| one.action).filter(|one| event.actions & one.bit() != 0).collect();
        let answer = known.lifts.of(row, (event.class, event.features), &actions, posture, event.boot_ns);
        let until = known.lifts.until(row, posture, event.boot_ns);
        if known.answers.len() == REMEMBERED {
            known.answers.clear();
        }
        known.answers.insert(asked, (answer.clone(), until));
        answer
    }
}
