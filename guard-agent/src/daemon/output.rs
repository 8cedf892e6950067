//! Denials as JSON Lines on standard output. A reader that stops reading holds up nothing: lines
//! wait in a bounded queue, and those that do not fit are counted and said.

use crate::events::Dropped;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that may wait for standard output.
const QUEUE: usize = 65_536;
/// How long the end of the daemon waits for a reader to take what is queued.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The queue to the thread that writes.
pub(super) struct Output {
    lines: SyncSender<Arc<str>>,
    dropped: Arc<AtomicU64>,
    /// Nothing is ever sent: the thread's end closes it.
    ended: Receiver<()>,
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
        let (end, ended) = sync_channel::<()>(0);
        std::thread::Builder::new().name("output".to_owned()).spawn(move || {
            write(&queue, &counter);
            drop(end);
        })?;
        Ok(Self { lines, dropped, ended })
    }

    /// Queues a line.
    pub(super) fn line(&self, line: Arc<str>) {
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives the reader time to take what is queued.
    pub(super) fn finish(self) {
        let Self { lines, ended, .. } = self;
        drop(lines);
        if ended.recv_timeout(LAST_LINES) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("nobody reads standard output: the last events are not on it");
        }
    }
}

fn write(queue: &Receiver<Arc<str>>, dropped: &AtomicU64) {
    let mut output = std::io::stdout().lock();
    let mut say = |line: &str| writeln!(output, "{line}").and_then(|()| output.flush());
    let mut said = Ok(());
    for line in queue {
        let missing = dropped.swap(0, Ordering::Relaxed);
        if missing != 0 {
            said = said.and_then(|()| say(&Dropped::new(missing).to_json_line()));
        }
        said = said.and_then(|()| say(&line));
        if said.is_err() {
            tracing::warn!("nobody reads standard output any more: events go to the API only");
            return;
        }
    }
    // Lines that found the queue full right before the end.
    let missing = dropped.swap(0, Ordering::Relaxed);
    if missing != 0 {
        let _ = said.and_then(|()| say(&Dropped::new(missing).to_json_line()));
    }
}
