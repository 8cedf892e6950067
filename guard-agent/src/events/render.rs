//! From the kernel's event to its record.

use super::escape::lossless;
use super::mounts::{MountPoint, Mounts};
use super::record::{DIRECTORY, Record, ResourceRecord, ShadowRecord};
use super::time::{Clock, rfc3339};
use super::{Kind, escape};
use crate::policy::AGENT;
use guard_common::action::{self, Action, EACCES, EAGAIN, ECONNREFUSED, ENOENT, EPERM, EXDEV, Resource};
use guard_common::class::{ANONYMOUS_MEMORY, BUILTINS, FIRST_CAPABILITY, capability_name, is_capability};
use guard_common::decide::Reason;
use guard_common::event::{Event, FLAG_ABSTRACT, FLAG_PATH, FLAG_PATH_CUT, FLAG_WOULD_ALLOW, Verdict};
use guard_common::label::AGENT_SUBJECT;
use guard_common::path::OWN_ROOT;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// Bits of the minor number in the kernel's device numbers (`include/linux/kdev_t.h`).
const MINOR_BITS: u32 = 20;

/// Turns events into records. Make a new one when a new generation or a mount changes the names.
#[derive(Clone, Debug)]
pub struct Renderer {
    names: Arc<BTreeMap<u32, String>>,
    mounts: Mounts,
    clock: Clock,
}

impl Renderer {
    /// A renderer that knows these names of subjects and these mounts.
    pub fn new(names: impl Into<Arc<BTreeMap<u32, String>>>, mounts: Vec<MountPoint>) -> Self {
        Self { names: names.into(), mounts: Mounts::new(mounts), clock: Clock::Host }
    }

    /// The same, with a clock of its own.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Name of a subject.
    pub fn subject(&self, number: u32) -> Option<&str> {
        self.names.get(&number).map(String::as_str)
    }

    /// When an event happened, in nanoseconds since 1970.
    pub fn wall(&self, event: &Event) -> i64 {
        self.clock.wall(event.boot_ns)
    }

    /// The record of an event. Numbers that this version does not know become `unknown`.
    pub fn record(&self, event: &Event) -> Record {
        self.record_as(Kind::of(event), event)
    }

    /// The record of an event whose kind is known.
    pub fn record_as(&self, kind: Kind, event: &Event) -> Record {
        let comm = event.comm.split(|byte| *byte == 0).next().unwrap_or_default();
        Record {
            schema: Record::SCHEMA.to_owned(),
            id: kind.id(),
            time: rfc3339(self.clock.wall(event.boot_ns)),
            boot_ns: event.boot_ns,
            verdict: verdict_name(event.verdict).to_owned(),
            would_allow: event.flags & FLAG_WOULD_ALLOW != 0,
            subject: self.names.get(&event.subject).cloned(),
            subject_id: event.subject,
            session: (event.session != 0).then_some(event.session),
            actions: action::names(event.actions).map(str::to_owned).collect(),
            resource: self.resource(event),
            reason: Reason::from_number(event.reason).map_or("unknown", Reason::name).to_owned(),
            errno: (event.errno != 0).then(|| errno_name(i32::from(event.errno))),
            pid: event.tgid,
            tid: event.tid,
            uid: event.uid,
            comm: escape::escape(comm),
            cgroup: event.cgroup,
            generation: event.generation,
            sequence: event.sequence,
            cpu: event.cpu,
            ask_for: Vec::new(),
            class: event.class,
            features: event.features,
            shadow: shadow(event),
            seen: None,
        }
    }

    /// The name of the subject that another process carries.
    fn peer(&self, number: u32) -> String {
        match self.names.get(&number) {
            Some(name) => name.clone(),
            None if number == AGENT_SUBJECT => AGENT.to_owned(),
            None => format!("#{number}"),
        }
    }

    fn resource(&self, event: &Event) -> ResourceRecord {
        let bytes = event.path.get(..usize::from(event.path_len)).unwrap_or(&event.path);
        let mut record = ResourceRecord { kind: kind(event).to_owned(), ..ResourceRecord::default() };
        record.builtin = BUILTINS.iter().find(|row| row.class == event.class).map(|row| row.id.to_owned());
        if event.device != 0 && event.device != OWN_ROOT {
            let (major, minor) = (event.device >> MINOR_BITS, event.device & ((1 << MINOR_BITS) - 1));
            record.device = Some(format!("{major}:{minor}"));
        }
        if event.flags & FLAG_PATH != 0 {
            let path = if bytes.is_empty() { b"/" } else { bytes };
            let (text, hex) = lossless(path);
            (record.fs_path, record.fs_path_bytes) = (Some(text), hex);
            record.path_truncated = event.flags & FLAG_PATH_CUT != 0;
            // A cut path may lack its beginning: it would be another file's path.
            let whole = (!record.path_truncated).then_some(path);
            // In a root of its own it is called so by the subject, and by the subject's policies.
            let host = whole.and_then(|path| match event.device {
                OWN_ROOT => Some(path.to_vec()),
                device => self.mounts.host_path(device, path),
            });
            if let Some(host) = host {
                let (text, hex) = lossless(&host);
                (record.path, record.path_bytes) = (Some(text), hex);
            }
        } else if event.flags & FLAG_ABSTRACT != 0 {
            let (text, hex) = lossless(bytes);
            (record.abstract_name, record.abstract_name_bytes) = (Some(text), hex);
        }
        if let Some(address) = address(event) {
            record.address = Some(address.to_string());
            record.port = Some(event.port);
        }
        if record.address.is_some() || event.protocol != 0 {
            record.protocol = Some(protocol_name(event.protocol));
        }
        let peer = (event.peer != 0).then(|| self.peer(event.peer));
        if on(event) == Some(Resource::Process) {
            (record.pid, record.subject) = (Some(event.peer_tgid), peer);
        } else {
            record.listener = peer;
        }
        if is_capability(event.class) {
            let number = event.class - FIRST_CAPABILITY;
            record.capability =
                Some(capability_name(event.class).map_or_else(|| number.to_string(), str::to_owned));
        }
        record
    }
}

/// How the operation would have ended if the shadow were live, if otherwise.
fn shadow(event: &Event) -> Option<ShadowRecord> {
    let verdict = if event.verdict == Verdict::Denied as u8 { "allowed" } else { "denied" };
    let actions = action::names(event.shadow).map(str::to_owned).collect();
    (event.shadow != 0).then(|| ShadowRecord { verdict: verdict.to_owned(), actions })
}

/// The actions whose bits are set, in the order of the table.
fn actions(mask: u64) -> impl Iterator<Item = Action> {
    (0..64).filter(move |index| mask >> index & 1 == 1).filter_map(Action::from_index)
}

fn verdict_name(number: u8) -> &'static str {
    match Verdict::from_number(number) {
        Some(Verdict::Denied) => "denied",
        Some(Verdict::WouldDeny) => "would_deny",
        Some(Verdict::Audited) => "audited",
        Some(Verdict::Attached) => "attached",
        Some(Verdict::ShadowDeny) => "shadow_deny",
        None => "unknown",
    }
}

/// What the first action of the event is taken on.
fn on(event: &Event) -> Option<Resource> {
    actions(event.actions).next().map(|action| action.row().resource)
}

/// The kind of resource, by what the first action of the event is taken on.
fn kind(event: &Event) -> &'static str {
    match on(event) {
        Some(Resource::FileOrMemory) if event.class == ANONYMOUS_MEMORY => "memory",
        Some(Resource::File | Resource::FileOrMemory) => "file",
        Some(Resource::Dir) => DIRECTORY,
        Some(Resource::Endpoint) => "endpoint",
        Some(Resource::Protocol) => "protocol",
        Some(Resource::Unix) => "unix",
        Some(Resource::Process) => "process",
        Some(Resource::Capability) => "capability",
        Some(Resource::Machine) => "machine",
        None => "other",
    }
}

fn address(event: &Event) -> Option<IpAddr> {
    let [a, b, c, d, ..] = event.address;
    match event.family {
        AF_INET => Some(Ipv4Addr::new(a, b, c, d).into()),
        AF_INET6 => Some(Ipv6Addr::from(event.address).into()),
        _ => None,
    }
}

/// The name of an error number that a denial can have.
pub fn errno_name(errno: i32) -> String {
    match errno {
        ENOENT => "ENOENT".to_owned(),
        ECONNREFUSED => "ECONNREFUSED".to_owned(),
        EPERM => "EPERM".to_owned(),
        EAGAIN => "EAGAIN".to_owned(),
        EACCES => "EACCES".to_owned(),
        EXDEV => "EXDEV".to_owned(),
        other => other.to_string(),
    }
}

/// The names of the IANA registry that programs meet; 262 is Linux's own number for MPTCP.
fn protocol_name(number: u16) -> String {
    let name = match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        58 => "icmpv6",
        132 => "sctp",
        136 => "udplite",
        262 => "mptcp",
        other => return other.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
