//! What was seen: one kind of operation that monitor mode reported, and what policy can name of it.

use guard_common::action::Action;
use guard_common::action::Resource as On;
use guard_common::class::BUILTINS;

use crate::analysis::question::Words;
use crate::events::ResourceRecord;

/// One kind of operation of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The action.
    pub action: String,
    /// What it was taken on.
    pub thing: Thing,
    /// How often.
    pub count: u64,
    /// When first, in nanoseconds since 1970.
    pub first: i64,
    /// When last, in nanoseconds since 1970.
    pub last: i64,
}

/// What an operation was taken on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A path of this host.
    Path(String),
    /// The path of a directory, where a file could have been meant.
    Directory(String),
    /// A built-in class: its entity type and id.
    Builtin(String, String),
    /// A unix socket with an abstract name.
    Abstract(String),
    /// An address, a port and a protocol.
    Endpoint {
        /// The far end, or the near end for bind and listen.
        address: std::net::IpAddr,
        /// The port.
        port: u16,
        /// `tcp`, `udp` and so on.
        protocol: String,
    },
    /// Processes of a subject, or those without a label.
    Process(Option<String>),
    /// A capability, a protocol, the machine: the entity type and id.
    Named(String, String),
    /// What no policy can name, and why.
    Nameless(String),
}

impl Thing {
    /// What the record of an event says.
    pub fn of(action: &str, record: &ResourceRecord) -> Self {
        if let Some(id) = &record.builtin {
            let row = BUILTINS.iter().find(|row| row.id == id);
            return Self::Builtin(row.map_or("File", |row| row.entity_type).to_owned(), id.clone());
        }
        if record.path.is_some() {
            return match plain(record.path.as_deref(), record.path_bytes.as_deref()) {
                Some(path) if Action::from_name(action) != record.action(action) => Self::Directory(path),
                Some(path) => Self::Path(path),
                None => Self::Nameless("its path is not UTF-8".to_owned()),
            };
        }
        if record.abstract_name.is_some() {
            return match plain(record.abstract_name.as_deref(), record.abstract_name_bytes.as_deref()) {
                Some(name) if !name.contains('\0') => Self::Abstract(name),
                _ => Self::Nameless("the name of its socket is no text".to_owned()),
            };
        }
        if let (Some(address), Some(port)) = (&record.address, record.port)
            && let Ok(address) = address.parse()
        {
            let protocol = record.protocol.clone().unwrap_or_else(|| "tcp".to_owned());
            return Self::Endpoint { address, port, protocol };
        }
        if let Some(path) = &record.fs_path {
            let device = record.device.as_deref().unwrap_or("?");
            let cut = if record.path_truncated { ", and its path is cut" } else { "" };
            return Self::Nameless(format!(
                "no mount of this host shows {path} of file system {device}{cut}"
            ));
        }
        if record.pid.is_some() {
            return match &record.subject {
                Some(name) if name.starts_with('#') => {
                    Self::Nameless(format!("nobody knows the name of subject {name}"))
                }
                name => Self::Process(name.clone()),
            };
        }
        if let Some(name) = &record.capability {
            return Self::Named("Capability".to_owned(), name.clone());
        }
        match Action::from_name(action).map(|action| action.row().resource) {
            Some(On::Machine) => Self::Named("Machine".to_owned(), String::new()),
            _ => Self::Nameless(format!("a {} without a name", record.kind)),
        }
    }

    /// The path, if it has one.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Path(path) | Self::Directory(path) => Some(path),
            _ => None,
        }
    }

    /// In words.
    pub fn text(&self) -> String {
        match self {
            Self::Path(path) | Self::Directory(path) => path.clone(),
            Self::Builtin(_, id) => id.clone(),
            Self::Abstract(name) => format!("@{name}"),
            Self::Endpoint { address, port, protocol } => {
                format!("{}/{protocol}", std::net::SocketAddr::new(*address, *port))
            }
            Self::Process(Some(name)) => format!("processes of {name}"),
            Self::Process(None) => "processes without a label".to_owned(),
            Self::Named(kind, id) if id.is_empty() => kind.clone(),
            Self::Named(kind, id) => format!("{kind} {id}"),
            Self::Nameless(why) => why.clone(),
        }
    }

    /// The question whether `subject` may do `action` on it; nothing for what cannot be named.
    pub fn question(&self, subject: &str, action: &str) -> Option<Words> {
        let kind = kind_of(action);
        let (resource, with) = match self {
            Self::Path(path) => (format!("{kind} {path}"), Vec::new()),
            Self::Directory(path) => (format!("Dir {path}"), Vec::new()),
            Self::Builtin(entity, id) if matches!(entity.as_str(), "Memory" | "Protocol") => {
                (format!("{entity} {id}"), Vec::new())
            }
            Self::Builtin(_, id) => (format!("{kind} {id}"), Vec::new()),
            Self::Abstract(name) => (format!("{kind} @{name}"), Vec::new()),
            Self::Endpoint { address, port, protocol } => (
                format!("Endpoint {}", std::net::SocketAddr::new(*address, *port)),
                vec![("protocol".to_owned(), protocol.clone())],
            ),
            // Which process it was makes no difference.
            Self::Process(of) => {
                ("Process 1".to_owned(), of.iter().map(|name| ("subject".to_owned(), name.clone())).collect())
            }
            Self::Named(kind, id) => (format!("{kind} {id}"), Vec::new()),
            Self::Nameless(_) => return None,
        };
        Some(Words {
            subject: subject.to_owned(),
            action: action.to_owned(),
            resource: (resource.trim_end() != "Machine").then_some(resource),
            with,
            ..Words::default()
        })
    }
}

/// The entity types of what has a path or a socket's name, for an action.
pub(super) fn kinds_of(action: &str) -> impl Iterator<Item = &'static str> {
    let of_directories = Action::on(action, true) != Action::from_name(action);
    [kind_of(action)].into_iter().chain(of_directories.then_some("Dir"))
}

/// The entity type of what has a path or a socket's name, for an action; of a file for one on either.
pub(super) fn kind_of(action: &str) -> &'static str {
    match Action::from_name(action).map(|action| action.row().resource) {
        Some(On::Dir) => "Dir",
        Some(On::Unix) => "Unix",
        _ => "File",
    }
}

/// A text of a record without its escapes.
fn plain(text: Option<&str>, bytes: Option<&str>) -> Option<String> {
    match bytes {
        None => text.map(str::to_owned),
        Some(hex) => String::from_utf8(unhex(hex)?).ok().filter(|text| !text.contains('\0')),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ResourceRecord {
        ResourceRecord { kind: "file".to_owned(), ..ResourceRecord::default() }
    }

    #[test]
    fn escapes_are_undone() {
        let escaped = ResourceRecord {
            path: Some("/a\\\\b".to_owned()),
            path_bytes: Some("2f615c62".to_owned()),
            ..record()
        };
        assert_eq!(Thing::of("file.read", &escaped), Thing::Path("/a\\b".to_owned()));
        let bytes = ResourceRecord { path_bytes: Some("2fff".to_owned()), ..escaped };
        assert!(matches!(Thing::of("file.read", &bytes), Thing::Nameless(_)));
    }

    #[test]
    fn what_has_no_name_says_why() {
        let hidden =
            ResourceRecord { fs_path: Some("/x".to_owned()), device: Some("0:40".to_owned()), ..record() };
        let thing = Thing::of("file.read", &hidden);
        assert_eq!(thing.text(), "no mount of this host shows /x of file system 0:40");
        assert!(thing.question("s", "file.read").is_none());
    }

    #[test]
    fn questions_name_the_type() {
        let question = |thing: Thing, action: &str| thing.question("s", action).unwrap().resource;
        let of = |text: &str| Some(text.to_owned());
        assert_eq!(question(Thing::Path("/x".into()), "dir.list"), of("Dir /x"));
        assert_eq!(question(Thing::Path("/x".into()), "unix.connect"), of("Unix /x"));
        let own = Thing::Builtin("Dir".into(), "guard:own-proc".into());
        assert_eq!(question(own, "file.read"), of("File guard:own-proc"));
        let memory = Thing::Builtin("Memory".into(), "anonymous".into());
        assert_eq!(question(memory, "exec.map"), of("Memory anonymous"));
        assert_eq!(question(Thing::Named("Machine".into(), String::new()), "sys.mount"), None);
    }
}
