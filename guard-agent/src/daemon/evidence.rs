//! What is written down of processes before they are put in quarantine.
//!
//! Bounded in number, size and time: whoever makes a lot of it to look at does not gain time by it.

use super::connections::{self, Connection};
use super::labelling::stat;
use crate::bundle::{hexadecimal, replace};
use crate::events::escape::line;
use crate::ledger::Quarantine;
use crate::store::{Filter, Store};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Processes that are described.
const MAX_PROCESSES: usize = 512;
/// Descriptors of one process that are listed.
const MAX_DESCRIPTORS: usize = 256;
/// Bytes of arguments of one process that are kept.
const MAX_ARGUMENTS: usize = 4096;
/// Larger programs are not digested.
const MAX_PROGRAM: u64 = 64 << 20;
/// Denials of the subject that are kept.
const MAX_DENIALS: usize = 200;
/// How long the operation may wait for this.
const BUDGET: Duration = Duration::from_millis(200);

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Evidence {
    schema: &'static str,
    /// Some of it is missing, because there was too much of it.
    cut: bool,
    processes: Vec<Process>,
    /// The sockets that they have open.
    sockets: Vec<Connection>,
    /// SHA-256 of the programs, by path.
    programs: BTreeMap<String, String>,
    /// The last denials of the subject, or of all where none is meant.
    denials: Vec<serde_json::Value>,
}

#[derive(Debug, Serialize)]
struct Process {
    pid: i32,
    parent: i32,
    /// Clock ticks since boot.
    start: u64,
    uid: u32,
    exe: Option<String>,
    directory: Option<String>,
    arguments: Vec<String>,
    cgroup: Option<String>,
    namespaces: BTreeMap<String, String>,
    /// What each descriptor leads to.
    descriptors: BTreeMap<String, String>,
}

/// Looks at processes, for no longer than the budget.
pub(super) fn collect(pids: &[i32], subject: Option<&str>, store: &Store) -> Evidence {
    let begun = Instant::now();
    let mut found = Evidence {
        schema: "guard.evidence/1",
        cut: pids.len() > MAX_PROCESSES,
        processes: Vec::new(),
        sockets: Vec::new(),
        programs: BTreeMap::new(),
        denials: Vec::new(),
    };
    for pid in pids.iter().take(MAX_PROCESSES) {
        if begun.elapsed() > BUDGET {
            found.cut = true;
            break;
        }
        if let Some(process) = process(*pid, &mut found.cut) {
            found.processes.push(process);
        }
    }
    if begun.elapsed() <= BUDGET {
        let described: Vec<i32> = found.processes.iter().map(|process| process.pid).collect();
        found.sockets = connections::of(&described);
    } else {
        found.cut = true;
    }
    let filter =
        Filter { subject: subject.map(str::to_owned), limit: Some(MAX_DENIALS), ..Filter::default() };
    match store.query(&filter) {
        Ok((rows, _)) => {
            let rows = rows.into_iter().map(|row| serde_json::to_value(row.record));
            found.denials = rows.filter_map(Result::ok).collect();
        }
        Err(error) => tracing::warn!("denials are not part of the evidence: {error}"),
    }
    // Last, since it can take long.
    for process in &found.processes {
        let Some(exe) = &process.exe else { continue };
        if found.programs.contains_key(exe) {
            continue;
        }
        if begun.elapsed() > BUDGET {
            found.cut = true;
            break;
        }
        match digest(Path::new(&format!("/proc/{}/exe", process.pid))) {
            Ok(Some(digest)) => {
                found.programs.insert(exe.clone(), digest);
            }
            Ok(None) => found.cut = true,
            Err(_) => {}
        }
    }
    found
}

/// Writes it down for a quarantine; the file and its SHA-256.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write(
    state_dir: &Path,
    quarantine: &Quarantine,
    evidence: &Evidence,
) -> io::Result<(String, String)> {
    let directory = state_dir.join("evidence");
    fs::create_dir_all(&directory)?;
    let file = directory.join(format!("{}.json", quarantine.id));
    let bytes = serde_json::to_vec_pretty(evidence)?;
    replace(&file, &bytes, 0o600)?;
    Ok((file.display().to_string(), hexadecimal(&Sha256::digest(&bytes))))
}

fn process(pid: i32, cut: &mut bool) -> Option<Process> {
    let (parent, start) = stat(pid)?;
    let directory = Path::new("/proc").join(pid.to_string());
    let link =
        |name: &str| fs::read_link(directory.join(name)).ok().map(|path| line(&path.to_string_lossy()));
    let mut arguments = Vec::new();
    let _ = File::open(directory.join("cmdline"))
        .and_then(|file| file.take(MAX_ARGUMENTS as u64).read_to_end(&mut arguments));
    let arguments = arguments.split(|byte| *byte == 0).map(|part| line(&String::from_utf8_lossy(part)));
    let links = |name: &str, limit: usize, cut: &mut bool| {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(directory.join(name)).into_iter().flatten().flatten() {
            if found.len() == limit {
                *cut = true;
                break;
            }
            if let Ok(target) = fs::read_link(entry.path()) {
                let name = entry.file_name().to_string_lossy().into_owned();
                found.insert(name, line(&target.to_string_lossy()));
            }
        }
        found
    };
    Some(Process {
        pid,
        parent,
        start,
        uid: fs::metadata(&directory).ok()?.uid(),
        exe: link("exe"),
        directory: link("cwd"),
        arguments: arguments.filter(|part| !part.is_empty()).collect(),
        cgroup: fs::read_to_string(directory.join("cgroup")).ok().map(|text| text.trim().to_owned()),
        namespaces: links("ns", usize::MAX, cut),
        descriptors: links("fd", MAX_DESCRIPTORS, cut),
    })
}

/// SHA-256 of a program; nothing if it is too large.
fn digest(path: &Path) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() > MAX_PROGRAM {
        return Ok(None);
    }
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Some(hexadecimal(&digest.finalize()))),
            read => digest.update(&buffer[..read]),
        }
    }
}
