//! One generation in user space: what the compiler produces and the kernel module loads.

use guard_common::decide;
use guard_common::label::DIGEST;
use guard_common::path::{EdgeKey, Node, Pattern};
use guard_common::tables::{
    AttributeTest, CellWord, Control, Header, MAX_BOUNDARIES, Masks, Net4, Net6, OUTCOME_SLOTS, Outcome,
    Ports, SEGMENTS, SUBJECT_ASKS_SIGNERS, SUBJECT_LIVE, SUBJECT_OWN_ROOT, SubjectRow, Timeline,
    cell_position,
};

/// Which running and starting processes a subject's label is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Real, effective and saved user id all are this one.
    User(u32),
    /// Real or effective group id at exec is this one.
    Group(u32),
    /// The cgroup with this name as the last component of its path, and everything below it.
    Unit(String),
    /// The cgroup at this path below the cgroup2 mount, and everything below it.
    Cgroup(String),
    /// The same of a container: what is executed there with the host's root is its runtime.
    Container(String),
    /// Containers that podman runs for root.
    Podman(Podman),
}

/// Which of podman's containers: those that fit all that is set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Podman {
    /// The container's name.
    pub name: Option<String>,
    /// The image, as podman lists it, with or without its tag, or by its id.
    pub image: Option<String>,
}

/// What posture makes of one subject: the masks of each segment of its timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectOutcomes {
    /// Instants of CLOCK_BOOTTIME in nanoseconds at which the next segment begins, ascending; at most
    /// [`MAX_BOUNDARIES`].
    pub boundaries: Vec<u64>,
    /// The masks of the first segment, then those after each boundary.
    pub masks: Vec<Masks>,
    /// More instants are known than fit: when to compute these outcomes again. Until then the last
    /// segment is stricter than it need be.
    pub replan: Option<u64>,
}

impl SubjectOutcomes {
    /// Whether they are outcomes of the subject with this row.
    pub fn fits(&self, row: &SubjectRow) -> bool {
        row.flags & SUBJECT_LIVE != 0
            && self.boundaries.len() <= MAX_BOUNDARIES
            && self.boundaries.is_sorted()
            && self.masks.len() == (self.boundaries.len() + 1) * row.rows as usize
    }

    /// The boundaries as the kernel stores them.
    pub fn timeline(&self) -> Timeline {
        let mut timeline = Timeline::default();
        timeline.boundary.iter_mut().zip(&self.boundaries).for_each(|(stored, known)| *stored = *known);
        timeline
    }
}

/// A complete compiled policy. Executable selectors are part of `nodes`. Masks and timelines are those
/// of slot 0; everything else is static.
#[derive(Clone, Debug, Default)]
pub struct Generation {
    /// Head; its counts agree with the vectors below. `header.generation` is set at load.
    pub header: Header,
    /// Rows by subject id.
    pub subjects: Vec<SubjectRow>,
    /// `subjects[s].cells + class` → outcome number within the subject. Four to a word.
    pub cells: Vec<CellWord>,
    /// `subjects[s].outcomes` + outcome number → where its masks are.
    pub outcomes: Vec<Outcome>,
    /// `subjects[s].timeline` → when its masks change by themselves.
    pub timelines: Vec<Timeline>,
    /// `subjects[s].masks` + row of a segment → masks.
    pub masks: Vec<Masks>,
    /// Trie edges, file-system roots, names at any depth, abstract socket names.
    pub edges: Vec<(EdgeKey, u32)>,
    /// Trie nodes; index = node number.
    pub nodes: Vec<Node>,
    /// IPv4 ranges, ascending, the first begins at 0.
    pub net4: Vec<Net4>,
    /// IPv6 ranges, ascending, the first begins at 0.
    pub net6: Vec<Net6>,
    /// Port ranges, ascending, the first begins at 0.
    pub ports: Vec<Ports>,
    /// Attribute tests.
    pub attributes: Vec<AttributeTest>,
    /// Patterns on the last component.
    pub patterns: Vec<Pattern>,
    /// SHA-256 digest of a file → the features that hold because somebody signed it.
    pub signers: Vec<([u8; DIGEST], u64)>,
    /// Selectors and the subject id each attaches.
    pub selectors: Vec<(Selector, u32)>,
}

/// The static tables of one subject.
pub struct SubjectTables<'a> {
    /// Outcome numbers, by class.
    pub cells: &'a [u16],
    /// Outcomes.
    pub outcomes: &'a [Outcome],
    /// Mask rows per segment.
    pub rows: u32,
}

impl Generation {
    /// Adds a subject. [`Generation::finish`] must follow the last one.
    pub fn add(&mut self, id: u32, tables: &SubjectTables<'_>, outcomes: &SubjectOutcomes) {
        let index = id as usize;
        if self.subjects.len() <= index {
            self.subjects.resize(index + 1, SubjectRow::default());
        }
        self.subjects[index] = SubjectRow {
            flags: SUBJECT_LIVE,
            cells: self.cells.len() as u32 * 4,
            outcomes: self.outcomes.len() as u32,
            masks: self.masks.len() as u32,
            rows: tables.rows,
            timeline: self.timelines.len() as u32,
            ..SubjectRow::default()
        };
        self.cells.extend(tables.cells.chunks(4).map(|chunk| {
            chunk
                .iter()
                .enumerate()
                .fold(0, |word, (at, cell)| word | CellWord::from(*cell) << cell_position(at as u32).1)
        }));
        self.outcomes.extend(tables.outcomes);
        self.timelines.push(Timeline::default());
        self.masks.resize(self.masks.len() + (tables.rows * SEGMENTS) as usize, Masks::default());
        self.set_outcomes(id, outcomes);
    }

    /// Makes a row that was added one of this session alone.
    pub fn belongs(&mut self, row: u32, session: u64) {
        if let Some(row) = self.subjects.get_mut(row as usize) {
            row.session = session;
        }
    }

    /// Makes paths of a row that was added count from a root of its own.
    pub fn has_own_root(&mut self, id: u32) {
        if let Some(row) = self.subjects.get_mut(id as usize) {
            row.flags |= SUBJECT_OWN_ROOT;
        }
    }

    /// Tells every row how far the slots are apart, and whether it asks for signers, which these features are about.
    pub fn finish(&mut self, signers: u64) {
        let asks = |outcome: &Outcome| decide::matters(outcome, signers) != 0;
        let ends: Vec<u32> = self.subjects.iter().map(|row| row.outcomes).collect();
        for row in &mut self.subjects {
            // Outcomes of one row lie together, up to where those of another begin.
            let end = ends.iter().copied().filter(|end| *end > row.outcomes).min();
            let end = end.map_or(self.outcomes.len(), |end| end as usize);
            let own = self.outcomes.get(row.outcomes as usize..end).unwrap_or_default();
            if row.flags & SUBJECT_LIVE != 0 && own.iter().any(asks) {
                row.flags |= SUBJECT_ASKS_SIGNERS;
            }
            row.mask_stride = self.masks.len() as u32;
            row.timeline_stride = self.timelines.len() as u32;
        }
    }

    /// Bytes that each table takes in the kernel, by its map's name; hash tables without their heads.
    pub fn memory(&self) -> [(&'static str, usize); 13] {
        let slots = OUTCOME_SLOTS as usize;
        [
            ("SUBJECTS", size_of_val(self.subjects.as_slice())),
            ("CELLS", size_of_val(self.cells.as_slice())),
            ("OUTCOMES", size_of_val(self.outcomes.as_slice())),
            ("USED", self.outcomes.len() * size_of::<u64>()),
            ("MASKS", size_of_val(self.masks.as_slice()) * slots),
            ("TIMELINES", size_of_val(self.timelines.as_slice()) * slots),
            ("NODES", size_of_val(self.nodes.as_slice())),
            // An element has its key, its value and the kernel's 48 bytes (`struct htab_elem`).
            ("EDGES", self.edges.len() * (size_of::<EdgeKey>() + 8 + 48)),
            ("SIGNERS", self.signers.len() * (DIGEST + 8 + 48)),
            ("NETS4", size_of_val(self.net4.as_slice())),
            ("NETS6", size_of_val(self.net6.as_slice())),
            ("PORTS", size_of_val(self.ports.as_slice())),
            ("ATTRIBUTES", size_of_val(self.attributes.as_slice())),
        ]
    }

    /// Replaces the outcomes of a subject. Returns false, and changes nothing, if they do not fit it.
    pub fn set_outcomes(&mut self, id: u32, outcomes: &SubjectOutcomes) -> bool {
        let Some(row) = self.subjects.get_mut(id as usize) else { return false };
        if !outcomes.fits(row) {
            return false;
        }
        let control = Control(row.control);
        row.control = Control::new(0, outcomes.boundaries.len() as u32, control.sequence() + 1).0;
        let start = row.masks as usize;
        self.masks[start..start + outcomes.masks.len()].copy_from_slice(&outcomes.masks);
        self.timelines[row.timeline as usize] = outcomes.timeline();
        true
    }
}

impl decide::Tables for Generation {
    type Row = u32;
    fn subject(&self, id: u32) -> Option<u32> {
        ((id as usize) < self.subjects.len()).then_some(id)
    }
    fn row(&self, row: u32) -> SubjectRow {
        self.subjects.get(row as usize).copied().unwrap_or_default()
    }
    fn control(&self, row: u32) -> Control {
        Control(self.row(row).control)
    }
    fn cell(&self, index: u32) -> Option<u32> {
        let (word, shift) = cell_position(index);
        self.cells.get(word as usize).map(|word| (word >> shift) as u32 & 0xffff)
    }
    fn outcome(&self, index: u32) -> Option<Outcome> {
        self.outcomes.get(index as usize).copied()
    }
    fn timeline(&self, index: u32) -> Option<Timeline> {
        self.timelines.get(index as usize).copied()
    }
    fn masks(&self, index: u32) -> Option<Masks> {
        self.masks.get(index as usize).copied()
    }
}
