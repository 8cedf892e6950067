//! Checks on the finished BPF object that neither compiler nor linker makes.

use std::path::Path;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSymbol};

/// Refuses an object with undefined symbols: they link silently and become `call -1`, which the
/// verifier reports far from the cause.
pub(crate) fn check_symbols(bytes: &[u8], path: &Path) -> Result<()> {
    let file = object::File::parse(bytes).with_context(|| format!("read {} as ELF", path.display()))?;
    let mut undefined: Vec<_> = file
        .symbols()
        .filter(|symbol| symbol.is_undefined())
        .filter_map(|symbol| symbol.name().ok())
        .filter(|name| !name.is_empty())
        .collect();
    undefined.sort_unstable();
    undefined.dedup();
    if !undefined.is_empty() {
        bail!(
            "the BPF object calls functions that do not exist in it: {}\n\
             a call was not inlined, or the code needs a compiler builtin that BPF does not have \
             (memcmp, 128-bit arithmetic, a panic path)",
            undefined.join(", ")
        );
    }
    Ok(())
}
