//! Member offsets from the running kernel's BTF.

use super::KernelError;
use btfparse::{Error, ErrorKind, Offset, Readable, TypeInformation, TypeVariant};
use guard_common::offsets::{IN_EXECVE_GLOBAL, MEMBERS, MISSING};
use std::collections::{HashMap, HashSet};

/// Where the kernel exposes its types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// What the running kernel's types say.
pub(super) struct Types {
    /// The values of the offset globals, in the order the object is to be given them.
    pub(super) offsets: Vec<(&'static str, u32)>,
    /// How many parameters each LSM hook has that programs can be attached to, by name.
    pub(super) hooks: HashMap<String, usize>,
}

/// What the names of the functions begin with that LSM programs are attached to
/// (`kernel/bpf/bpf_lsm.c`).
const HOOK_PREFIX: &str = "bpf_lsm_";

/// Reads the kernel's types.
pub(super) fn types() -> Result<Types, KernelError> {
    let bytes = std::fs::read(VMLINUX).map_err(|cause| KernelError::NoBtf(format!("{VMLINUX}: {cause}")))?;
    let types = TypeInformation::new(&Bytes(bytes))
        .map_err(|cause| KernelError::NoBtf(format!("{VMLINUX}: {cause:?}")))?;
    let structures = structures(&types);
    let bits = |structure: &str, member: &str| bits(&types, *structures.get(structure)?, member);
    let mut values = Vec::with_capacity(MEMBERS.len() + 1);
    for member in MEMBERS {
        match bits(member.structure, member.member) {
            Some(bits) => values.push((member.global, bits / 8)),
            None if member.optional => values.push((member.global, MISSING)),
            None => return Err(KernelError::NoMember { structure: member.structure, member: member.member }),
        }
    }
    let in_execve = bits("task_struct", "in_execve")
        .ok_or(KernelError::NoMember { structure: "task_struct", member: "in_execve" })?;
    values.push((IN_EXECVE_GLOBAL, in_execve));
    Ok(Types { offsets: values, hooks: hooks(&types) })
}

fn hooks(types: &TypeInformation) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for variant in types.get().values() {
        let TypeVariant::Func(function) = variant else { continue };
        let Some(hook) = function.name().as_deref().and_then(|name| name.strip_prefix(HOOK_PREFIX)) else {
            continue;
        };
        if let Some(TypeVariant::FuncProto(prototype)) = types.get().get(function.prototype_tid()) {
            found.insert(hook.to_owned(), prototype.parameter_list().len());
        }
    }
    found
}

/// The kernel's types in memory.
struct Bytes(Vec<u8>);

impl Readable for Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = self.0.get(start..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(part.ok_or_else(|| Error::new(ErrorKind::EOF, "the types end here"))?);
        Ok(())
    }
}

/// Type ids of the structures that are asked for. Other kinds of types share their names.
fn structures(types: &TypeInformation) -> HashMap<&'static str, u32> {
    let wanted: HashSet<&'static str> = MEMBERS.iter().map(|member| member.structure).collect();
    let mut found = HashMap::new();
    for (id, variant) in types.get() {
        let TypeVariant::Struct(structure) = variant else { continue };
        if let Some(name) = structure.name().as_deref().and_then(|name| wanted.get(name)) {
            found.entry(*name).or_insert(*id);
        }
    }
    found
}

/// Position of a member in bits from the start of the structure.
fn bits(types: &TypeInformation, structure: u32, member: &str) -> Option<u32> {
    let (_, offset) = types.offset_of(structure, member).ok()?;
    Some(match offset {
        Offset::ByteOffset(bytes) => bytes * 8,
        Offset::BitOffsetAndSize(bits, _) => bits,
    })
}
