//! Type names in the object's BTF that the kernel would refuse.
//!
//! The kernel wants C identifiers (`btf_name_valid_identifier`, kernel/bpf/btf.c). The linker rewrites
//! the names of structures, but not those of unions, which generic Rust types bring in.

use std::path::Path;

use anyhow::{Context, Result};
use object::{Object, ObjectSection};

/// Bytes of `struct btf_header` (include/uapi/linux/btf.h).
const HEADER: usize = 24;

/// Replaces what is not part of an identifier in the generic type names of `.BTF`.
pub(crate) fn sanitize(bytes: &mut [u8], path: &Path) -> Result<()> {
    let file = object::File::parse(&*bytes).with_context(|| format!("read {} as ELF", path.display()))?;
    let range = file.section_by_name(".BTF").and_then(|section| section.file_range());
    let (start, size) = range.with_context(|| format!("{} has no BTF section", path.display()))?;
    let section = bytes
        .get_mut(start as usize..(start + size) as usize)
        .with_context(|| format!("{} is cut off in its BTF section", path.display()))?;
    let field = |at: usize| -> Option<usize> {
        Some(u32::from_le_bytes(section.get(at..at + 4)?.try_into().ok()?) as usize)
    };
    let strings = field(16).zip(field(20)).map(|(offset, length)| (HEADER + offset, length));
    let (offset, length) = strings.context("the BTF section has no header")?;
    let strings = section.get_mut(offset..offset + length).context("the BTF strings are cut off")?;
    for name in strings.split_mut(|byte| *byte == 0) {
        if is_generic_name(name) {
            for byte in name.iter_mut().filter(|byte| !byte.is_ascii_alphanumeric()) {
                *byte = b'_';
            }
        }
    }
    Ok(())
}

/// Whether this is the name of a generic type, and not a line of source text, which may hold anything.
fn is_generic_name(name: &[u8]) -> bool {
    name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
        && name.last() == Some(&b'>')
        && name.contains(&b'<')
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_<>:,*&[]() ".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::is_generic_name;

    #[test]
    fn only_names_of_generic_types_are_touched() {
        assert!(is_generic_name(b"MaybeUninit<u8>"));
        assert!(!is_generic_name(b"    let x: Vec<u8>"));
        assert!(!is_generic_name(b"task_struct"));
        assert!(!is_generic_name(b"fn f() -> Option<u8> {"));
    }
}
