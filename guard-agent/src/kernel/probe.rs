//! Can this host enforce? Answered by trying.

use super::{Kernel, KernelError};

/// Loads and attaches all programs, then detaches them again. Nothing is labelled or denied.
///
/// # Errors
/// What is missing on this host, by name.
pub fn probe() -> Result<(), KernelError> {
    Kernel::load(None).map(drop)
}
