//! What the agent can find out by itself, as `source` of a fact names it.

use std::path::{Component, Path, PathBuf};

use super::world::FactValue;

/// What the source of a fact begins with that the agent finds out by itself.
pub const COLLECTOR: &str = "collector:";
/// What the source of a fact begins with that a command of the agent's configuration says.
pub const PROVIDER: &str = "provider:";

/// Kinds of units that systemd knows (systemd.unit(5)).
const UNITS: [&str; 11] = [
    "automount",
    "device",
    "mount",
    "path",
    "scope",
    "service",
    "slice",
    "socket",
    "swap",
    "target",
    "timer",
];
/// Longest name of a unit, in bytes (`UNIT_NAME_MAX`, src/basic/unit-name.h of systemd).
const MAX_UNIT: usize = 255;

/// One thing that the agent can find out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Collector {
    /// Whether something keeps the clock right.
    Clock,
    /// The kernel's lockdown mode.
    Lockdown,
    /// Whether the firmware checked what it booted.
    SecureBoot,
    /// Name of the network that the host is in.
    Network,
    /// State of a systemd unit.
    Unit(String),
    /// Whether all that lies below a mount point is encrypted on its disk.
    DiskEncryption(PathBuf),
}

/// A source that names no collector of this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoCollector {
    /// Another version may have it.
    Unknown,
    /// It is written wrongly; how to write it.
    Malformed(&'static str),
}

impl Collector {
    /// The collector that is this source; nothing if the source is none that this version has.
    pub fn of(source: &str) -> Option<Self> {
        Self::parse(source.strip_prefix(COLLECTOR)?).ok()
    }

    /// Parses what follows `collector:`.
    pub(super) fn parse(text: &str) -> Result<Self, NoCollector> {
        let (name, of) = text.split_once(':').map_or((text, None), |(name, of)| (name, Some(of)));
        match (name, of) {
            ("clock", None) => Ok(Self::Clock),
            ("lockdown", None) => Ok(Self::Lockdown),
            ("secure-boot", None) => Ok(Self::SecureBoot),
            ("network", None) => Ok(Self::Network),
            ("unit", Some(unit)) if is_unit(unit) => Ok(Self::Unit(unit.to_owned())),
            ("unit", _) => Err(NoCollector::Malformed("name a unit: \"collector:unit:sshd.service\"")),
            ("disk-encryption", None) => Ok(Self::DiskEncryption(PathBuf::from("/"))),
            ("disk-encryption", Some(path)) if is_plain(Path::new(path)) => {
                Ok(Self::DiskEncryption(PathBuf::from(path)))
            }
            ("disk-encryption", _) => Err(NoCollector::Malformed(
                "name a directory by its whole path: \"collector:disk-encryption:/srv\"",
            )),
            _ => Err(NoCollector::Unknown),
        }
    }

    /// Some value of the type that it finds out.
    pub fn example(&self) -> FactValue {
        match self {
            Self::Clock | Self::SecureBoot | Self::DiskEncryption(_) => FactValue::Bool(false),
            Self::Lockdown | Self::Network | Self::Unit(_) => FactValue::String(String::new()),
        }
    }
}

/// Whether this is the whole name of a unit, and no pattern of names.
fn is_unit(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    let kind = name.rsplit_once('.').map(|(_, kind)| kind);
    name.len() <= MAX_UNIT
        && !name.starts_with(['-', '.'])
        && name.bytes().all(allowed)
        && kind.is_some_and(|kind| UNITS.contains(&kind))
}

fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_names_what_is_found_out_and_where() {
        let of = |text: &str| Collector::of(text);
        assert_eq!(of("collector:clock"), Some(Collector::Clock));
        assert_eq!(of("collector:unit:sshd.service"), Some(Collector::Unit("sshd.service".into())));
        assert_eq!(of("collector:unit:x@a\\x2db.service"), Some(Collector::Unit("x@a\\x2db.service".into())));
        assert_eq!(of("collector:disk-encryption"), Some(Collector::DiskEncryption("/".into())));
        assert_eq!(of("collector:disk-encryption:/srv"), Some(Collector::DiskEncryption("/srv".into())));
        for none in [
            "clock",
            "edr",
            "collector:moon",
            "collector:clock:now",
            "collector:unit",
            "collector:unit:sshd",
            "collector:unit:*.service",
            "collector:unit:--all.service",
            "collector:unit:a b.service",
            "collector:disk-encryption:srv",
            "collector:disk-encryption:/srv/../etc",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
