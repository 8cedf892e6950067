//! Events from the ring to everybody who wants them.

use super::output::Output;
use super::serve::Shared;
use crate::events::{Kind, Lost, Renderer, SequenceTracker};
use crate::kernel::{EventStream, Seen};
use crate::store::Noted;
use guard_common::event::{Event, Verdict};
use guard_common::label::CANARY_SUBJECT;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Events handled before what they became is handed on and others may run.
const BATCH: usize = 1024;

/// Batches that hold more events than the ring.
const LAST_BATCHES: usize = 32;

/// Reads the ring until `stop`, and then what is left in it. Every line goes to standard output and to
/// the API, every event to the store. `early` are events that were read before, `seen` says up to where an agent
/// before this one had got.
///
/// # Errors
/// If the ring cannot be waited for.
pub(super) async fn run(
    events: EventStream,
    early: Vec<Event>,
    seen: Seen,
    shared: Shared,
    output: Output,
    mut stop: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let mut ring = events.register()?;
    let mut batch = Batch::after(seen);
    let renderer = shared.renderer();
    for event in &early {
        batch.take(event, &renderer, &shared);
    }
    batch.hand_on(&shared, &output);
    loop {
        let mut guard = tokio::select! {
            guard = ring.readable_mut() => guard?,
            _ = &mut stop => break,
        };
        let renderer = shared.renderer();
        let emptied = guard.get_inner_mut().drain(BATCH, |event| batch.take(event, &renderer, &shared));
        if emptied {
            guard.clear_ready();
        }
        drop(guard);
        batch.hand_on(&shared, &output);
        if !emptied {
            tokio::task::yield_now().await;
        }
    }
    let renderer = shared.renderer();
    // Where the programs stay, events go on coming: no more than the ring holds.
    for _ in 0..LAST_BATCHES {
        let emptied = ring.get_mut().drain(BATCH, |event| batch.take(event, &renderer, &shared));
        batch.hand_on(&shared, &output);
        if emptied {
            break;
        }
    }
    tokio::task::block_in_place(|| output.finish());
    Ok(())
}

/// What one turn of the loop produced.
struct Batch {
    seen: Seen,
    tracker: SequenceTracker,
    lines: Vec<Arc<str>>,
    noted: Vec<Noted>,
    lost: u64,
    attached: bool,
}

impl Batch {
    fn after(seen: Seen) -> Self {
        let tracker = SequenceTracker::after(seen.last());
        Self { seen, tracker, lines: Vec::new(), noted: Vec::new(), lost: 0, attached: false }
    }

    fn take(&mut self, event: &Event, renderer: &Renderer, shared: &Shared) {
        let missing = self.tracker.observe(event.cpu, event.sequence);
        if missing != 0 {
            self.lost += missing;
            self.lines.push(Lost::new(event.cpu, missing).to_json_line().into());
        }
        if event.verdict == Verdict::Attached as u8 {
            self.attached = true;
        } else if event.subject == CANARY_SUBJECT {
            if event.verdict == Verdict::Denied as u8 {
                shared.trials().note(event.session, event.actions);
            }
        } else {
            let kind = Kind::of(event);
            let mut record = renderer.record_as(kind, event);
            record.ask_for = shared.lifting().leases_for(event);
            self.lines.push(record.to_json_line().into());
            self.noted.push(Noted { kind, record, at: renderer.wall(event) });
        }
    }

    fn hand_on(&mut self, shared: &Shared, output: &Output) {
        for line in self.lines.drain(..) {
            output.line(Arc::clone(&line));
            shared.publish(line);
        }
        if !self.noted.is_empty() {
            shared.store().note(self.noted.drain(..));
        }
        let lost = std::mem::take(&mut self.lost);
        if lost != 0 {
            shared.store().lost(lost);
        }
        for (cpu, last) in self.tracker.last() {
            self.seen.note(cpu, last);
        }
        if std::mem::take(&mut self.attached) {
            shared.relabel();
        }
    }
}
