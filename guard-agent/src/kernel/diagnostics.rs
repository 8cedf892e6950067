//! What the programs say when something went wrong inside the kernel, as log lines of the agent.

use super::{Kernel, KernelError};
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The programs' own messages. They are rare: a label without memory, for example.
pub struct Diagnostics {
    logger: EbpfLogger<&'static dyn log::Log>,
}

impl Kernel {
    /// Takes the programs' messages out; they can be taken once.
    ///
    /// # Errors
    /// If they were taken before or cannot be mapped.
    pub fn take_diagnostics(&mut self) -> Result<Diagnostics, KernelError> {
        let logger = EbpfLogger::init_from_id(self.logging).map_err(KernelError::map("open", "AYA_LOGS"))?;
        Ok(Diagnostics { logger })
    }
}

impl Diagnostics {
    /// Logs the messages until the daemon ends.
    ///
    /// # Errors
    /// If the runtime cannot wait for them.
    pub async fn run(self) -> std::io::Result<()> {
        // SAFETY: the logger always returns its ring's own descriptor, which stays open until the
        // logger, now owned by the registration, is dropped.
        let mut ring = unsafe { AsyncFd::register_with_interest(self.logger, Interest::READABLE) }?;
        loop {
            let mut guard = ring.readable_mut().await?;
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    }
}
