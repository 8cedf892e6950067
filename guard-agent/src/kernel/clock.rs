//! Whether something keeps the clock right, and when it is set.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bit of `timex.status`: nothing has set the clock right (include/uapi/linux/timex.h).
const STA_UNSYNC: i32 = 0x0040;

/// Whether the kernel's clock is synchronised; nothing if it does not say.
pub fn clock_is_synchronised() -> Option<bool> {
    // SAFETY: `timex` is plain integers and padding, for which zero is a value.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: adjtimex(2) writes one `timex` to a pointer that is valid for it; with `modes` 0 it changes nothing.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    (state >= 0).then_some(timex.status & STA_UNSYNC == 0)
}

/// Says when the wall clock was set.
pub struct ClockWatch(AsyncFd<Timer>);

struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl ClockWatch {
    /// Begins to watch.
    ///
    /// # Errors
    /// If the kernel gives no timer.
    pub fn new() -> io::Result<Self> {
        let timer =
            TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        // SAFETY: `as_raw_fd` always returns the timer's own descriptor, which stays open until the timer, now
        // owned by the registration, is dropped.
        let this = Self(unsafe { AsyncFd::register_with_interest(Timer(timer), Interest::READABLE) }?);
        this.arm()?;
        Ok(this)
    }

    /// Far away: nothing but a change of the clock ends it.
    fn arm(&self) -> io::Result<()> {
        let never = Expiration::OneShot(TimeSpec::new(i64::MAX / 4, 0));
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        Ok(self.0.get_ref().0.set(never, flags)?)
    }

    /// Waits until the clock is set.
    ///
    /// # Errors
    /// If the timer fails.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|timer| {
                let mut count = [0u8; 8];
                nix::unistd::read(timer.get_ref().0.as_fd(), &mut count).map(drop).map_err(io::Error::from)
            });
            match read {
                // ECANCELED, timerfd_create(2).
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::ECANCELED as i32) => return self.arm(),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(())) => self.arm()?,
                // Nothing was there after all.
                Err(_) => {}
            }
        }
    }
}
