//! Events from the ring to everybody who wants them.

use super::output::Output;
use super::serve::Shared;
use crate::events::{Lost, Renderer, SequenceTracker};
use crate::kernel::EventStream;
use guard_common::event::{Event, Verdict};
use guard_common::label::CANARY_SUBJECT;
use std::sync::Arc;

/// Events handled before what they became is handed on and others may run.
const BATCH: usize = 1024;

/// Reads the ring until the daemon ends. Every line goes to standard output and to the API. `early`
/// are events that were read before.
///
/// # Errors
/// If the ring cannot be waited for.
pub(super) async fn run(
    events: EventStream,
    early: Vec<Event>,
    shared: Shared,
    output: Output,
) -> std::io::Result<()> {
    let mut ring = events.register()?;
    let mut batch = Batch { tracker: SequenceTracker::default(), lines: Vec::new(), attached: false };
    let renderer = shared.renderer();
    for event in &early {
        batch.take(event, &renderer);
    }
    batch.hand_on(&shared, &output);
    loop {
        let mut guard = ring.readable_mut().await?;
        let renderer = shared.renderer();
        let emptied = guard.get_inner_mut().drain(BATCH, |event| batch.take(event, &renderer));
        if emptied {
            guard.clear_ready();
        }
        drop(guard);
        batch.hand_on(&shared, &output);
        if !emptied {
            tokio::task::yield_now().await;
        }
    }
}

/// What one turn of the loop produced.
struct Batch {
    tracker: SequenceTracker,
    lines: Vec<Arc<str>>,
    attached: bool,
}

impl Batch {
    fn take(&mut self, event: &Event, renderer: &Renderer) {
        let missing = self.tracker.observe(event.cpu, event.sequence);
        if missing != 0 {
            self.lines.push(Lost::new(event.cpu, missing).to_json_line().into());
        }
        if event.verdict == Verdict::Attached as u8 {
            self.attached = true;
        } else if event.subject != CANARY_SUBJECT {
            self.lines.push(renderer.record(event).to_json_line().into());
        }
    }

    fn hand_on(&mut self, shared: &Shared, output: &Output) {
        for line in self.lines.drain(..) {
            output.line(Arc::clone(&line));
            shared.publish(line);
        }
        if std::mem::take(&mut self.attached) {
            shared.relabel();
        }
    }
}
