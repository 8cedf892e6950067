//! Labelling processes that run already.

use super::load::describe;
use super::pod::Wire;
use super::{Kernel, KernelError, PinError};
use aya::Ebpf;
use aya::maps::{HashMap, MapData, PerCpuArray};
use aya::programs::Iter;
use guard_common::event::{COUNTERS, Counter};
use guard_common::label::LabelRequest;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Passes after which something must be wrong: each one but the last has labelled a task.
const MAX_PASSES: usize = 10_000;

impl Kernel {
    /// Labels running tasks by cgroup and user selectors and by `requests` (thread-group id → label),
    /// which come first; a request for subject 0 exempts a process from this call. Repeated until a
    /// pass over all tasks labels nothing. Returns how many tasks were labelled.
    ///
    /// # Errors
    /// If the iterator cannot run.
    pub fn label_running(&mut self, requests: &[(i32, LabelRequest)]) -> Result<usize, KernelError> {
        self.label("label_running", requests)
    }

    /// The same for `requests` alone, whatever the selectors are. A request may replace a label.
    ///
    /// # Errors
    /// If the iterator cannot run.
    pub fn label_requested(&mut self, requests: &[(i32, LabelRequest)]) -> Result<usize, KernelError> {
        self.label("label_requested", requests)
    }

    /// Has quarantines that are bound to no subject cover running tasks, by what they are bound to and by
    /// `requests`, and lets go of those that none covers any more. Returns how many tasks that changed something
    /// for.
    ///
    /// # Errors
    /// If the iterator cannot run.
    pub fn cover_running(&mut self, requests: &[(i32, LabelRequest)]) -> Result<usize, KernelError> {
        self.set_requests(requests)?;
        let result = self.repeat("cover_running", Counter::Covered);
        self.clear_requests(requests)?;
        result
    }

    fn label(
        &mut self,
        iterator: &'static str,
        requests: &[(i32, LabelRequest)],
    ) -> Result<usize, KernelError> {
        self.set_requests(requests)?;
        let result = self.label_to_fixed_point(iterator);
        self.clear_requests(requests)?;
        result
    }

    /// Gives every task the label that it carries by the programs before these. Returns how many labels were
    /// given.
    pub(super) fn inherit_to_fixed_point(&mut self) -> Result<usize, KernelError> {
        self.repeat("inherit_labels", Counter::Inherited)
    }

    fn label_to_fixed_point(&mut self, iterator: &'static str) -> Result<usize, KernelError> {
        self.repeat(iterator, Counter::Labelled)
    }

    /// Runs an iterator until it counts nothing.
    fn repeat(&mut self, iterator: &'static str, counter: Counter) -> Result<usize, KernelError> {
        let mut total = 0;
        for _ in 0..MAX_PASSES {
            let before = self.counters()?[counter as usize];
            self.iterators.run(iterator)?;
            let counted = self.counters()?[counter as usize].saturating_sub(before) as usize;
            if counted == 0 {
                return Ok(total);
            }
            total += counted;
        }
        Ok(total)
    }

    /// The counters of `guard_common::event::Counter`, summed over all CPUs.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn counters(&self) -> Result<[u64; COUNTERS as usize], KernelError> {
        const NAME: &str = "COUNTERS";
        let map: PerCpuArray<&MapData, u64> =
            PerCpuArray::try_from(self.maps.get(NAME)?).map_err(KernelError::map("open", NAME))?;
        let mut sums = [0; COUNTERS as usize];
        for (index, sum) in sums.iter_mut().enumerate() {
            let values = map.get(&(index as u32), 0).map_err(KernelError::map("read", NAME))?;
            *sum = values.iter().sum();
        }
        Ok(sums)
    }

    fn requests(&mut self) -> Result<HashMap<&mut MapData, u32, Wire<LabelRequest>>, KernelError> {
        const NAME: &str = "REQUESTS";
        HashMap::try_from(self.maps.get_mut(NAME)?).map_err(KernelError::map("open", NAME))
    }

    fn set_requests(&mut self, requests: &[(i32, LabelRequest)]) -> Result<(), KernelError> {
        let mut map = self.requests()?;
        for (tgid, request) in requests {
            map.insert(*tgid as u32, Wire(*request), 0).map_err(KernelError::map("add to", "REQUESTS"))?;
        }
        Ok(())
    }

    fn clear_requests(&mut self, requests: &[(i32, LabelRequest)]) -> Result<(), KernelError> {
        let mut map = self.requests()?;
        for (tgid, _) in requests {
            map.remove(&(*tgid as u32)).map_err(KernelError::map("remove from", "REQUESTS"))?;
        }
        Ok(())
    }
}

/// The programs that go through all tasks.
pub(super) enum Iterators {
    /// In the object that was loaded.
    Loaded(Ebpf),
    /// Pinned in a directory.
    Pinned(PathBuf),
}

/// Those that another agent may need.
const ITERATORS: [&str; 3] = ["label_running", "label_requested", "cover_running"];

impl Iterators {
    /// Runs one over all tasks.
    fn run(&mut self, name: &'static str) -> Result<(), KernelError> {
        match self {
            Self::Loaded(ebpf) => {
                let program = ebpf
                    .program_mut(name)
                    .ok_or_else(|| KernelError::Object(format!("the object has no program {name}")))?;
                run(program.try_into().map_err(|cause| not_run(name, &cause))?, name)
            }
            Self::Pinned(directory) => {
                let mut program =
                    Iter::from_pin(directory.join(name)).map_err(|cause| not_run(name, &cause))?;
                run(&mut program, name)
            }
        }
    }

    /// Pins them in a directory.
    pub(super) fn pin(&mut self, directory: &Path) -> Result<(), PinError> {
        let Self::Loaded(ebpf) = self else { return Ok(()) };
        for name in ITERATORS {
            let path = directory.join(name);
            if let Some(program) = ebpf.program_mut(name) {
                program.pin(&path).map_err(|cause| PinError::object("pin", &path, &cause))?;
            }
        }
        Ok(())
    }
}

fn run(iterator: &mut Iter, name: &'static str) -> Result<(), KernelError> {
    let id = iterator.attach().map_err(|cause| not_run(name, &cause))?;
    let link = iterator.take_link(id).map_err(|cause| not_run(name, &cause))?;
    let mut file = link.into_file().map_err(|cause| not_run(name, &cause))?;
    // Reading runs the program once for each task; it writes nothing.
    let mut nothing = Vec::new();
    file.read_to_end(&mut nothing).map_err(KernelError::system("read of the task iterator"))?;
    Ok(())
}

fn not_run(name: &str, cause: &dyn std::error::Error) -> KernelError {
    KernelError::Attach {
        program: name.to_owned(),
        hook: "the iterator over tasks".to_owned(),
        cause: describe(cause),
    }
}
