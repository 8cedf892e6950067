//! The record of one event: what `guard-agent` prints and `guardctl events` shows.

use guard_common::action::Action;
use serde::{Deserialize, Serialize};

/// One event. Fields are only ever added; `docs/events.md` describes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Event"))]
pub struct Record {
    /// [`Record::SCHEMA`].
    pub schema: String,
    /// Short id, to be typed; the same for repeats. See [`super::Kind`].
    pub id: String,
    /// RFC 3339 in UTC, with microseconds.
    pub time: String,
    /// Nanoseconds of CLOCK_BOOTTIME.
    pub boot_ns: u64,
    /// `denied`, `would_deny`, `audited` or `shadow_deny`.
    pub verdict: String,
    /// The operation was denied, and with the policies in monitor mode it would have been allowed.
    #[serde(default)]
    pub would_allow: bool,
    /// Name of the subject, or null for an id that the agent does not know.
    pub subject: Option<String>,
    /// Id of the subject.
    pub subject_id: u32,
    /// Session of the label, or null without one.
    pub session: Option<u64>,
    /// Dotted names of the actions concerned.
    pub actions: Vec<String>,
    /// What they were taken on.
    pub resource: ResourceRecord,
    /// Why it was decided so.
    pub reason: String,
    /// Name of the error number the caller got, or null if the operation was allowed.
    pub errno: Option<String>,
    /// Process id (thread-group id) in the initial PID namespace.
    pub pid: u32,
    /// Thread id in the initial PID namespace.
    pub tid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// What the task calls itself, escaped: for display only.
    pub comm: String,
    /// Cgroup id.
    pub cgroup: u64,
    /// Generation that decided.
    pub generation: u64,
    /// Number of the event on its CPU.
    pub sequence: u64,
    /// The CPU.
    pub cpu: u32,
    /// Leases to ask for, each of which alone would have turned the denial into permission as things stood when it
    /// was read from the kernel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ask_for: Vec<String>,
    /// Class of the resource in that generation.
    #[serde(default)]
    pub class: u32,
    /// Features of the resource in that generation, one bit each.
    #[serde(default)]
    pub features: u64,
    /// What the shadow would have done; only where the operation would have ended otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowRecord>,
    /// What the agent remembers besides: only in what comes from its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
}

/// How an operation would have ended if the shadow were live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ShadowRecord {
    /// `denied` or `allowed`.
    pub verdict: String,
    /// The actions that it would have denied, or those that were denied and would have been allowed.
    pub actions: Vec<String>,
}

impl ShadowRecord {
    /// Whether the shadow would have allowed what was denied; else it would have denied what was allowed.
    pub fn allows(&self) -> bool {
        self.verdict == "allowed"
    }
}

/// How often an event happened, and what was found out about it. The record itself is the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Seen {
    /// How often, under this bundle.
    pub count: u64,
    /// The first time, RFC 3339 in UTC.
    pub first: String,
    /// The executable of the process when the event arrived, escaped; null if it was gone.
    pub exe: Option<String>,
    /// The bundle that decided; null if it is not known.
    pub bundle: Option<BundleRecord>,
    /// The shadow that stood beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<BundleRecord>,
}

/// A bundle, as a record names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BundleRecord {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Its digest, hexadecimal.
    pub digest: String,
}

/// The type of what only directories can be asked for.
pub(super) const DIRECTORY: &str = "directory";

impl ResourceRecord {
    /// The action with this name on such a resource, if there is one.
    pub fn action(&self, name: &str) -> Option<Action> {
        Action::on(name, self.kind == DIRECTORY)
    }
}

/// The resource of an event. What does not apply is null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ResourceRecord {
    /// `file`, [`DIRECTORY`], `memory`, `endpoint`, `protocol`, `unix`, `process`, `capability`, `machine`, `other`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The built-in class that a policy would name, such as `guard:own-proc`.
    #[serde(default)]
    pub builtin: Option<String>,
    /// Path on this host, escaped.
    pub path: Option<String>,
    /// The bytes of `path` in hexadecimal, if it had to be escaped.
    #[serde(default)]
    pub path_bytes: Option<String>,
    /// Path from the root of the file system, escaped.
    pub fs_path: Option<String>,
    /// The bytes of `fs_path` in hexadecimal, if it had to be escaped.
    #[serde(default)]
    pub fs_path_bytes: Option<String>,
    /// Device of the file system, `major:minor`.
    pub device: Option<String>,
    /// `fs_path` is not the whole path.
    pub path_truncated: bool,
    /// Name of an abstract unix socket without its leading zero byte, escaped.
    pub abstract_name: Option<String>,
    /// The bytes of `abstract_name` in hexadecimal, if it had to be escaped.
    #[serde(default)]
    pub abstract_name_bytes: Option<String>,
    /// IP address.
    pub address: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// IP protocol: `tcp`, `udp` and so on, or its number.
    pub protocol: Option<String>,
    /// Process id of the process that is acted on, in the initial PID namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The subject of that process, or null if it has no label; `#` and its id if the name is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The subject of the process that listens, written the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// The capability, as policy names it, or its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
}

/// Why a line is not a record.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It is no JSON, or fields are missing.
    #[error("not an event: {0}")]
    Json(#[from] serde_json::Error),
    /// It says that it is something else.
    #[error("not an event but {0:?}")]
    Schema(String),
}

impl Record {
    /// The schema of the record.
    pub const SCHEMA: &str = "guard.event/1";

    /// The record as one line of JSON, without a line end.
    pub fn to_json_line(&self) -> String {
        json_line(self)
    }

    /// The bytes of the path on this host, as the kernel has them.
    pub fn path_bytes(&self) -> Option<Vec<u8>> {
        bytes(self.resource.path.as_deref(), self.resource.path_bytes.as_deref())
    }

    /// The bytes of the path from the root of the file system, as the kernel has them.
    pub fn fs_path_bytes(&self) -> Option<Vec<u8>> {
        bytes(self.resource.fs_path.as_deref(), self.resource.fs_path_bytes.as_deref())
    }

    /// The bytes of the abstract name, as the kernel has them.
    pub fn abstract_name_bytes(&self) -> Option<Vec<u8>> {
        bytes(self.resource.abstract_name.as_deref(), self.resource.abstract_name_bytes.as_deref())
    }

    /// The device of the file system as the kernel keeps it: major << 20 | minor.
    pub fn device(&self) -> Option<u32> {
        let (major, minor) = self.resource.device.as_deref()?.split_once(':')?;
        let (major, minor) = (major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?);
        (major < 1 << 12 && minor < 1 << 20).then_some(major << 20 | minor)
    }

    /// The actions as bits; unknown names have none.
    pub fn action_bits(&self) -> u64 {
        self.bits_of(&self.actions)
    }

    /// Actions by name on the same resource, as bits; unknown names have none.
    pub fn bits_of(&self, names: &[String]) -> u64 {
        let actions = names.iter().filter_map(|name| self.resource.action(name));
        actions.fold(0, |bits, action| bits | action.bit())
    }

    /// Reads a line that [`Record::to_json_line`] wrote.
    ///
    /// # Errors
    /// If it is something else.
    pub fn from_json_line(line: &str) -> Result<Self, ParseError> {
        let record: Self = serde_json::from_str(line)?;
        if record.schema == Self::SCHEMA { Ok(record) } else { Err(ParseError::Schema(record.schema)) }
    }
}

/// The bytes of a text that may have been escaped: then their digits are beside it.
fn bytes(text: Option<&str>, hex: Option<&str>) -> Option<Vec<u8>> {
    let Some(hex) = hex else { return text.map(|text| text.as_bytes().to_vec()) };
    let digits = hex.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// A value as one line of JSON. Writing numbers, strings and lists cannot fail.
pub(super) fn json_line<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| {
        serde_json::json!({ "schema": "guard.error/1", "message": error.to_string() }).to_string()
    })
}
