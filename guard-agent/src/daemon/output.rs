//! Denials as JSON Lines on standard output. A reader that stops reading holds up nothing: lines
//! wait in a bounded queue, and those that do not fit are counted and said.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

/// Lines that may wait for standard output.
const QUEUE: usize = 65_536;

/// The queue to the thread that writes.
#[derive(Clone)]
pub(super) struct Output {
    lines: SyncSender<Arc<str>>,
    dropped: Arc<AtomicU64>,
}

impl Output {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start() -> std::io::Result<Self> {
        let (lines, queue) = sync_channel::<Arc<str>>(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        std::thread::Builder::new().name("output".to_owned()).spawn(move || {
            let mut output = std::io::stdout().lock();
            for line in queue {
                let missing = counter.swap(0, Ordering::Relaxed);
                if missing != 0 {
                    let _ = writeln!(output, "{{\"schema\":\"guard.dropped/1\",\"dropped\":{missing}}}");
                }
                if writeln!(output, "{line}").and_then(|()| output.flush()).is_err() {
                    tracing::warn!("nobody reads standard output any more: events go to the API only");
                    return;
                }
            }
        })?;
        Ok(Self { lines, dropped })
    }

    /// Queues a line.
    pub(super) fn line(&self, line: Arc<str>) {
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
