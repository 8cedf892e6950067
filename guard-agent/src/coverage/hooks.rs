//! The hooks of a kernel, by the names in its type information.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use crate::fault;

/// Where a kernel exposes its types.
const VMLINUX: &str = "sys/kernel/btf/vmlinux";
/// What the names of the functions begin with that LSM programs are attached to (kernel/bpf/bpf_lsm.c), and
/// of the types of trace points.
const PREFIXES: [&str; 2] = ["bpf_lsm_", "btf_trace_"];
/// `BTF_MAGIC` (include/uapi/linux/btf.h).
const MAGIC: u16 = 0xeb9f;

/// Names of hooks and trace points.
#[derive(Clone, Debug, Default)]
pub struct Hooks(BTreeSet<String>);

impl Hooks {
    /// Those of the kernel of the host whose file system is at `root`; nothing if that cannot be read.
    pub fn read(root: &Path) -> Option<Self> {
        Self::parse(&fs::read(root.join(VMLINUX)).ok()?)
    }

    /// Those of the running kernel, read once.
    pub fn running() -> Option<&'static Self> {
        static RUNNING: OnceLock<Option<Hooks>> = OnceLock::new();
        RUNNING.get_or_init(|| Self::read(Path::new("/"))).as_ref()
    }

    /// Whether there is this hook.
    pub fn has(&self, hook: &str) -> bool {
        self.0.contains(hook) && !is_left_out(hook)
    }

    /// The section of strings is all that is looked at: a name of this form is nothing else's.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
        if u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        // `struct btf_header`: magic, version, flags, hdr_len, type_off, type_len, str_off, str_len.
        let (header, offset, length) = (word(4)?, word(16)?, word(20)?);
        let start = header.checked_add(offset)?;
        let strings = bytes.get(start..start.checked_add(length)?)?;
        let names = strings.split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
        let hooks = names.filter_map(|name| PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)));
        Some(Self(hooks.map(str::to_owned).collect()))
    }
}

/// Whether a test wants the kernel to lack this hook.
pub(crate) fn is_left_out(hook: &str) -> bool {
    fault::leaves_out(&format!("hook {hook}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn btf(strings: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [24u32, 0, 0, 4, strings.len() as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        // A type section of four bytes, which nothing looks at.
        bytes.extend([0; 4]);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn names_are_found_in_the_strings() {
        let hooks = Hooks::parse(&btf(b"\0bpf_lsm_file_open\0btf_trace_task_newtask\0file_ioctl\0")).unwrap();
        assert!(hooks.has("file_open") && hooks.has("task_newtask") && !hooks.has("file_ioctl"));
    }

    #[test]
    fn what_is_no_type_information_says_nothing() {
        assert!(Hooks::parse(b"").is_none());
        assert!(Hooks::parse(&[0; 64]).is_none());
        let mut long = btf(b"\0x\0");
        long[20] = 0xff;
        assert!(Hooks::parse(&long).is_none());
    }
}
