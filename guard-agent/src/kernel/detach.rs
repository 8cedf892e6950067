//! Ending enforcement.

use super::{Kernel, KernelError};
use aya::programs::Program;

impl Kernel {
    /// Detaches every program, so that no event comes any more. The maps stay until this is dropped.
    ///
    /// # Errors
    /// The first program that the kernel did not let go; the others are detached.
    pub fn detach(&mut self) -> Result<(), KernelError> {
        let mut result = Ok(());
        for (name, program) in self.ebpf.programs_mut() {
            let unloaded = match program {
                Program::Lsm(program) => program.unload(),
                Program::BtfTracePoint(program) => program.unload(),
                Program::Iter(program) => program.unload(),
                _ => Ok(()),
            };
            if let Err(source) = unloaded {
                result = result.and(Err(KernelError::Object(format!("cannot detach {name}: {source}"))));
            }
        }
        result
    }
}
