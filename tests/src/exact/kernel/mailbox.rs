//! How a labelled process is told what to do: through memory that it shares with this one, so that no
//! file or socket is involved that policy could refuse it.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use guard_tests::raw::{SharedPages, futex_wait, futex_wake};

/// Bytes of both pages that messages may use.
const ROOM: usize = 8192 - 16;

/// Nobody waits.
const IDLE: u32 = 0;
/// There is an order.
const ORDER: u32 = 1;
/// There is an answer.
const ANSWER: u32 = 2;

/// Room for one order or one answer.
pub(super) struct Mailbox {
    pages: SharedPages,
}

impl Mailbox {
    /// An empty one, which forked processes share.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { pages: SharedPages::new(ROOM + 16)? })
    }

    fn state(&self) -> &AtomicU32 {
        self.pages.word(0)
    }

    /// Leaves an order and waits for the answer; nothing if the other side does not give one in time.
    pub(super) fn ask(&self, order: &[u8], seconds: u32) -> Option<i32> {
        if order.len() > ROOM {
            return None;
        }
        self.pages.word(1).store(order.len() as u32, Ordering::Relaxed);
        for (index, bytes) in order.chunks(4).enumerate() {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            self.pages.word(4 + index).store(u32::from_ne_bytes(word), Ordering::Relaxed);
        }
        self.state().store(ORDER, Ordering::Release);
        futex_wake(self.state());
        for _ in 0..seconds {
            if self.wait_while(ORDER, true) {
                let answer = self.pages.word(2).load(Ordering::Relaxed).cast_signed();
                self.state().store(IDLE, Ordering::Relaxed);
                return Some(answer);
            }
        }
        None
    }

    /// Waits for an order.
    pub(super) fn order(&self) -> Vec<u8> {
        while self.state().load(Ordering::Acquire) != ORDER {
            let now = self.state().load(Ordering::Acquire);
            if now != ORDER {
                futex_wait(self.state(), now, false);
            }
        }
        let length = self.pages.word(1).load(Ordering::Relaxed) as usize;
        let mut order: Vec<u8> = (0..length.div_ceil(4))
            .flat_map(|index| self.pages.word(4 + index).load(Ordering::Relaxed).to_ne_bytes())
            .collect();
        order.truncate(length);
        order
    }

    /// Answers the order.
    pub(super) fn answer(&self, answer: i32) {
        self.pages.word(2).store(answer.cast_unsigned(), Ordering::Relaxed);
        self.state().store(ANSWER, Ordering::Release);
        futex_wake(self.state());
    }

    /// Waits as long as the state is `old`; whether it changed, within a second if `bounded`.
    fn wait_while(&self, old: u32, bounded: bool) -> bool {
        while self.state().load(Ordering::Acquire) == old {
            if !futex_wait(self.state(), old, bounded) {
                return self.state().load(Ordering::Acquire) != old;
            }
        }
        true
    }
}
