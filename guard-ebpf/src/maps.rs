//! Every map, with who writes it.

use aya_ebpf::bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use guard_common::handover::{COUNTER_PLACES, SEEN_PLACES};
use guard_common::label::{DIGEST, Label, LabelHead, LabelRequest, Maker, SocketLabel, UnitName};
use guard_common::path::{Directory, EdgeKey, Node, Pattern};
use guard_common::tables::{
    AttributeTest, CellWord, Header, Masks, Net4, Net6, Outcome, Ports, SLOTS, SubjectRow, Timeline,
    USES_WORDS,
};

/// Flags of the arrays of a generation: any size, and the agent fills and changes them through memory.
const INNER: usize = (BPF_F_INNER_MAP | BPF_F_MMAPABLE) as usize;
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;
const SLOT_COUNT: usize = SLOTS as usize;

/// The word that names the live generation. Written by one atomic store of the agent.
#[btf_map]
pub static LIVE: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// An array of the agent's making, one per slot; its real size is set when it is filled.
type PerSlot<T> = ArrayOfMaps<Array<T, 1, INNER>, SLOT_COUNT>;

// One set of tables per slot. The agent fills the slot that is not live.
#[btf_map]
pub static HEADERS: PerSlot<Header> = ArrayOfMaps::new();
#[btf_map]
pub static SUBJECTS: PerSlot<SubjectRow> = ArrayOfMaps::new();
#[btf_map]
pub static CELLS: PerSlot<CellWord> = ArrayOfMaps::new();
#[btf_map]
pub static OUTCOMES: PerSlot<Outcome> = ArrayOfMaps::new();
/// Actions that were used at least once, by outcome. Written by the programs.
#[btf_map]
pub static USED: PerSlot<u64> = ArrayOfMaps::new();
#[btf_map]
pub static TIMELINES: PerSlot<Timeline> = ArrayOfMaps::new();
#[btf_map]
pub static MASKS: PerSlot<Masks> = ArrayOfMaps::new();
#[btf_map]
pub static NODES: PerSlot<Node> = ArrayOfMaps::new();
#[btf_map]
pub static NETS4: PerSlot<Net4> = ArrayOfMaps::new();
#[btf_map]
pub static NETS6: PerSlot<Net6> = ArrayOfMaps::new();
#[btf_map]
pub static PORTS: PerSlot<Ports> = ArrayOfMaps::new();
#[btf_map]
pub static ATTRIBUTES: PerSlot<AttributeTest> = ArrayOfMaps::new();
#[btf_map]
pub static PATTERNS: PerSlot<Pattern> = ArrayOfMaps::new();
#[btf_map]
pub static EDGES: ArrayOfMaps<HashMap<EdgeKey, u32, 1, ON_DEMAND>, SLOT_COUNT> = ArrayOfMaps::new();

/// The features that hold for a file with this SHA-256 digest, because somebody signed it.
#[btf_map]
pub static SIGNERS: ArrayOfMaps<HashMap<[u8; DIGEST], u64, 1, ON_DEMAND>, SLOT_COUNT> = ArrayOfMaps::new();

/// Updating a map of maps waits until every running program that cannot sleep has finished; the
/// agent uses this one for nothing else, before it empties a slot.
#[btf_map]
pub static BARRIER: PerSlot<u64> = ArrayOfMaps::new();

// Selectors. The agent writes users, groups, units; cgroups also come from the cgroup programs.
#[btf_map]
pub static SELECT_USER: HashMap<u32, u32, 4096, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static SELECT_GROUP: HashMap<u32, u32, 4096, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static SELECT_UNIT: HashMap<UnitName, u32, 4096, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static SELECT_CGROUP: HashMap<u64, u32, 65536, ON_DEMAND> = HashMap::new();
/// Processes that the agent wants labelled, by thread-group id, or (subject 0) exempt for now.
#[btf_map]
pub static REQUESTS: HashMap<u32, LabelRequest, 65536, ON_DEMAND> = HashMap::new();

/// Thread-group id of the agent, 0 before it has run the first iterator. Written by the iterators that it reads.
#[btf_map]
pub static AGENT: Array<u64, 1> = Array::new();

/// What tests make fail (`guard_common::fault`).
#[btf_map]
pub static FAULTS: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Events to user space.
#[btf_map]
pub static EVENTS: RingBuf<u8, { 4 << 20 }> = RingBuf::new();
/// Counters, see `guard_common::event::Counter`.
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, COUNTER_PLACES> = PerCpuArray::new();
/// Events made on this CPU, lost ones included.
#[btf_map]
pub static SEQUENCE: PerCpuArray<u64, 1> = PerCpuArray::new();
/// Number of the last event of each CPU that an agent has handed on. Written by the agent alone: the next one
/// goes on from there.
#[btf_map]
pub static SEEN: Array<u64, SEEN_PLACES, { BPF_F_MMAPABLE as usize }> = Array::new();

/// A label for decisions that are not about the running task, and a walk buffer for tasks that have no
/// storage (an exec that may attach a label).
#[repr(C)]
pub struct SharedLabel {
    pub busy: u64,
    pub label: Label,
}
/// So many per CPU: a program can be preempted by another task's exec, and by what arrives from the network.
pub const SHARED_LABELS: usize = 4;
#[btf_map]
pub static SHARED: PerCpuArray<SharedLabel, SHARED_LABELS> = PerCpuArray::new();

/// Directories that a CPU remembers, a power of two.
pub const DIRECTORIES: usize = 512;
/// What walks found out about directories, see `directory.rs`. A memory of each CPU's own: two CPUs
/// never wait for each other, and only a preempting program can see a half-written entry.
#[btf_map]
pub static REMEMBERED: PerCpuArray<Directory, DIRECTORIES> = PerCpuArray::new();
/// How many inodes of directories were freed since the programs were loaded.
#[btf_map]
pub static FREED: Array<u64, 1> = Array::new();

/// File systems that labelled tasks made at a time, of whatever type. Further ones stay unknown.
pub const FILE_SYSTEMS: usize = 4096;
/// Who made a file system, by the address of its super block, see `own_tmpfs.rs`.
#[btf_map]
pub static MAKERS: HashMap<u64, Maker, FILE_SYSTEMS, ON_DEMAND> = HashMap::new();
/// How many entries that map has, at least.
#[btf_map]
pub static MADE: Array<u64, 1> = Array::new();

/// Files at a time that send signals to whom a labelled task named. Who names one for a further file is
/// killed.
pub const FILE_OWNERS: usize = 65536;
/// Who named the owner of a file, by the address of the file, see `owners.rs`.
#[btf_map]
pub static OWNERS: HashMap<u64, SocketLabel, FILE_OWNERS, ON_DEMAND> = HashMap::new();

/// Directories that are roots of labels at a time. A label with a further one has no root.
pub const OWN_ROOTS: usize = 4096;
/// The number of each, by the address of its inode, see `own_root.rs`.
#[btf_map]
pub static ROOTS: HashMap<u64, u64, OWN_ROOTS, ON_DEMAND> = HashMap::new();
/// The last number that was given, and how many entries that map has, at least.
#[btf_map]
pub static ROOT_COUNTS: Array<u64, 2> = Array::new();
/// Addresses of the inode of the agent's root, and of its mount namespace, which are the host's; 0 = not known yet.
#[btf_map]
pub static HOST_ROOT: Array<u64, 2> = Array::new();

/// How often leases can still be used, by the place that masks name. The agent puts a count there before masks name
/// it; programs count it down.
#[btf_map]
pub static USES: Array<u64, USES_WORDS, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Storage that the kernel keeps with an object and frees with it. aya has no wrapper for it, so the
/// definition is spelled out: `KIND` is the map type, `V` the value.
#[repr(C)]
pub struct Storage<V, const KIND: usize> {
    r#type: *const [i32; KIND],
    key: *const i32,
    value: *const V,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; 1],
}
// SAFETY: the fields are null pointers that only carry types for the loader; nobody reads them.
unsafe impl<V, const KIND: usize> Sync for Storage<V, KIND> {}

// enum bpf_map_type (include/uapi/linux/bpf.h).
const SK_STORAGE: usize = 24;
const TASK_STORAGE: usize = 29;

/// Task storage: the label.
#[btf_map]
pub static LABELS: Storage<Label, TASK_STORAGE> = Storage::new();
/// The labels of the programs that these take the place of, of which no more than the head is known; empty
/// where these take nobody's place. Read by `inherit_labels` alone.
#[btf_map]
pub static LABELS_BEFORE: Storage<LabelHead, TASK_STORAGE> = Storage::new();
/// Socket storage: whose it is.
#[btf_map]
pub static SOCKETS: Storage<SocketLabel, SK_STORAGE> = Storage::new();

impl<V, const KIND: usize> Storage<V, KIND> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    /// The map as helpers want it.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut core::ffi::c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}
