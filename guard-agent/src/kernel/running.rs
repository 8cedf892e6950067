//! Labelling processes that run already.

use super::load::describe;
use super::pod::Wire;
use super::{Kernel, KernelError};
use aya::maps::{HashMap, MapData, PerCpuArray};
use aya::programs::Iter;
use guard_common::event::{COUNTERS, Counter};
use guard_common::label::LabelRequest;
use std::io::Read;

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

    fn label_to_fixed_point(&mut self, iterator: &'static str) -> Result<usize, KernelError> {
        let mut total = 0;
        for _ in 0..MAX_PASSES {
            let before = self.labelled()?;
            self.run_iterator(iterator)?;
            let labelled = self.labelled()?.saturating_sub(before) as usize;
            if labelled == 0 {
                return Ok(total);
            }
            total += labelled;
        }
        Ok(total)
    }

    fn labelled(&self) -> Result<u64, KernelError> {
        Ok(self.counters()?[Counter::Labelled as usize])
    }

    /// The counters of `guard_common::event::Counter`, summed over all CPUs.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn counters(&self) -> Result<[u64; COUNTERS as usize], KernelError> {
        const NAME: &str = "COUNTERS";
        let map = self
            .ebpf
            .map(NAME)
            .ok_or_else(|| KernelError::Object(format!("the object has no map {NAME}")))?;
        let map: PerCpuArray<&MapData, u64> =
            PerCpuArray::try_from(map).map_err(KernelError::map("open", NAME))?;
        let mut sums = [0; COUNTERS as usize];
        for (index, sum) in sums.iter_mut().enumerate() {
            let values = map.get(&(index as u32), 0).map_err(KernelError::map("read", NAME))?;
            *sum = values.iter().sum();
        }
        Ok(sums)
    }

    fn run_iterator(&mut self, name: &'static str) -> Result<(), KernelError> {
        let attach = |cause: String| KernelError::Attach {
            program: name.to_owned(),
            hook: "the iterator over tasks".to_owned(),
            cause,
        };
        let program = self
            .ebpf
            .program_mut(name)
            .ok_or_else(|| KernelError::Object(format!("the object has no program {name}")))?;
        let iterator: &mut Iter = program.try_into().map_err(|cause| attach(describe(&cause)))?;
        let id = iterator.attach().map_err(|cause| attach(describe(&cause)))?;
        let link = iterator.take_link(id).map_err(|cause| attach(describe(&cause)))?;
        let mut file = link.into_file().map_err(|cause| attach(describe(&cause)))?;
        // Reading runs the program once for each task; it writes nothing.
        let mut nothing = Vec::new();
        file.read_to_end(&mut nothing).map_err(KernelError::system("read of the task iterator"))?;
        Ok(())
    }

    fn requests(&mut self) -> Result<HashMap<&mut MapData, u32, Wire<LabelRequest>>, KernelError> {
        const NAME: &str = "REQUESTS";
        let map = self
            .ebpf
            .map_mut(NAME)
            .ok_or_else(|| KernelError::Object(format!("the object has no map {NAME}")))?;
        HashMap::try_from(map).map_err(KernelError::map("open", NAME))
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
