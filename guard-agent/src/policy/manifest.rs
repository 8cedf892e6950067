//! `guard.toml`: what it may say. Unknown keys are errors.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::diagnostics::{Diagnostic, Source};
use crate::bundle::Release;

/// A table whose keys have places in the source.
pub(super) type Table<T> = BTreeMap<Spanned<String>, T>;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) bundle: Head,
    #[serde(default)]
    pub(super) builtin: Builtin,
    #[serde(default)]
    pub(super) release: Release,
    #[serde(default)]
    pub(super) modes: Table<Spanned<String>>,
    #[serde(default)]
    pub(super) facts: Table<Fact>,
    #[serde(default)]
    pub(super) windows: Table<Window>,
    #[serde(default)]
    pub(super) approvals: Table<Approval>,
    #[serde(default)]
    pub(super) names: Table<DnsName>,
    #[serde(default)]
    pub(super) signers: Table<Signer>,
    #[serde(default)]
    pub(super) subjects: Table<Subject>,
}

/// `[bundle]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) name: Spanned<String>,
    pub(super) version: u64,
    pub(super) profile: Spanned<u32>,
    #[serde(default)]
    pub(super) schema: Vec<Spanned<String>>,
}

/// `[builtin]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Builtin {
    /// Names of the policies of `builtin.cedar` that are not to count.
    #[serde(default)]
    pub(super) lift: Vec<Spanned<String>>,
}

/// Type of a posture fact.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum FactType {
    Long,
    String,
    Bool,
}

/// One entry of `[facts]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fact {
    #[serde(rename = "type")]
    pub(super) kind: FactType,
    pub(super) source: Option<String>,
    pub(super) ttl: Option<Spanned<String>>,
}

/// One entry of `[windows]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    #[serde(default)]
    pub(super) days: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) dates: Vec<Spanned<String>>,
    pub(super) from: Spanned<String>,
    pub(super) to: Spanned<String>,
    pub(super) zone: Spanned<String>,
    #[serde(default)]
    pub(super) except: Vec<Spanned<String>>,
}

/// One entry of `[approvals]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Approval {
    pub(super) approvers: Vec<Spanned<String>>,
    pub(super) max: Spanned<String>,
    pub(super) uses: Option<Spanned<u32>>,
    pub(super) count: Option<Spanned<toml::Value>>,
    #[serde(default)]
    pub(super) not: Vec<Spanned<String>>,
}

/// One entry of `[names]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DnsName {
    pub(super) via: Option<Spanned<String>>,
    pub(super) addresses: Option<Vec<Spanned<String>>>,
}

/// One entry of `[signers]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signer {
    pub(super) key: Spanned<String>,
    pub(super) digests: Option<Spanned<String>>,
}

/// One entry of `[subjects]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subject {
    pub(super) selector: Option<Spanned<SelectorDefinition>>,
    pub(super) also: Option<Spanned<SelectorDefinition>>,
    pub(super) owner: Option<String>,
    #[serde(default)]
    pub(super) groups: Vec<Spanned<String>>,
    pub(super) governs: Option<Vec<Spanned<String>>>,
    pub(super) max_staleness: Option<Spanned<String>>,
    pub(super) fail_mode: Option<Spanned<FailMode>>,
    pub(super) unenforceable: Option<Unenforceable>,
    #[serde(default)]
    pub(super) include: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) root: Root,
    pub(super) session: Option<Spanned<Table<SessionVariable>>>,
    pub(super) successors: Option<Spanned<Table<Successor>>>,
    pub(super) hide: Option<Spanned<Vec<String>>>,
}

/// A session variable.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionVariable {
    pub(super) kind: Spanned<String>,
    pub(super) under: Option<Spanned<String>>,
    pub(super) owner: Option<Spanned<String>>,
    pub(super) value: Option<Spanned<String>>,
}

/// A successor subject.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Successor {
    pub(super) by: Spanned<String>,
    pub(super) of: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) narrowing: bool,
    pub(super) secureexec: Option<Spanned<bool>>,
}

/// What facts without an end are to a subject once no agent has vouched for them for too long. What has an end ends
/// then, whatever this says.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum FailMode {
    /// They count as absent.
    #[default]
    Deny,
    /// They go on counting.
    Keep,
    /// They go on counting, and what only they allow is reported.
    Audit,
}

/// Which root the paths of a subject's policies count from.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Root {
    /// The host's: a path means its place in the agent's mount namespace.
    #[default]
    Host,
    /// The one that the task has when the label is attached: that of its container.
    Own,
}

/// What a subject gets on a kernel that lacks what enforcing its policy takes.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Unenforceable {
    /// What the kernel decides stays decided; the rest is said.
    #[default]
    Accept,
    /// Nothing of what it governs is permitted.
    Deny,
    /// The bundle is refused.
    Stop,
}

/// Which processes a subject's label is attached to, as `guard.toml` says it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct SelectorDefinition {
    /// A user name or number.
    pub user: Option<String>,
    /// A group name or number.
    pub group: Option<String>,
    /// A systemd unit.
    pub unit: Option<String>,
    /// Which commands of the unit.
    pub start: Option<String>,
    /// A cgroup, as a path below the cgroup2 mount.
    pub cgroup: Option<String>,
    /// Containers.
    #[serde(default, deserialize_with = "container")]
    pub container: Option<Container>,
    /// Executables.
    #[serde(default, deserialize_with = "one_or_many")]
    pub exe: Vec<String>,
    /// Directories whose executables, at any depth, are meant.
    #[serde(default, deserialize_with = "one_or_many")]
    pub exe_in: Vec<String>,
    /// Who may open a session.
    #[serde(default)]
    pub adopt: Vec<String>,
}

impl SelectorDefinition {
    /// Whether it can attach a label in this version.
    pub fn attaches(&self) -> bool {
        self.user.is_some()
            || self.group.is_some()
            || self.unit.is_some()
            || self.cgroup.is_some()
            || self.container.is_some()
            || !self.exe.is_empty()
            || !self.exe_in.is_empty()
            || !self.adopt.is_empty()
    }
}

/// A program that runs containers, as selectors name it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// systemd-nspawn.
    Nspawn,
    /// podman, run by root.
    Podman,
}

/// Which containers a selector means: those that all of its keys fit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// The container's name.
    pub name: Option<String>,
    /// The image it was made of.
    pub image: Option<String>,
    /// What runs it; any known engine if it is left out.
    pub engine: Option<Engine>,
}

/// Accepts `"x"` for `{ name = "x" }`.
fn container<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Container>, D::Error> {
    struct Visitor;
    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Container;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the name of a container, or a table with name, image, engine")
        }
        fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
            Ok(Container { name: Some(value.to_owned()), ..Container::default() })
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            Container::deserialize(serde::de::value::MapAccessDeserializer::new(map))
        }
    }
    deserializer.deserialize_any(Visitor).map(Some)
}

/// Accepts `"x"` for `["x"]`.
fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Visitor;
    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a path or a list of paths")
        }
        fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
            Ok(vec![value.to_owned()])
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut values = Vec::new();
            while let Some(value) = items.next_element()? {
                values.push(value);
            }
            Ok(values)
        }
    }
    deserializer.deserialize_any(Visitor)
}

/// Parses the file.
pub(super) fn parse(source: &Source) -> Result<Manifest, Diagnostic> {
    toml(source, "guard-toml")
}

/// Parses a TOML file. `code` names the kind of finding.
pub(crate) fn toml<T: serde::de::DeserializeOwned>(
    source: &Source,
    code: &'static str,
) -> Result<T, Diagnostic> {
    toml::from_str(&source.text).map_err(|error| {
        let message = error.message().to_owned();
        let code = if message.starts_with("unknown field") { "unknown-key" } else { code };
        let message = message.replace("unknown field", "unknown key").replace("missing field", "missing key");
        match error.span() {
            Some(span) => source.error(code, span, message),
            None => Diagnostic::error(code, format!("{}: {message}", source.name)),
        }
    })
}

impl Manifest {
    /// Checks values that the types above leave open.
    pub(super) fn check(&self, source: &Source, found: &mut Vec<Diagnostic>) {
        let name = &self.bundle.name;
        if name.get_ref().is_empty() || name.get_ref().contains(char::is_control) {
            let error = source.error("guard-toml", name.span(), "a bundle has a name");
            found.push(error.help("write name = \"my-hosts\""));
        }
        super::facts::check(&self.facts, source, found);
        self.release.check(source, found);
        if *self.bundle.profile.get_ref() != 1 {
            found.push(
                source
                    .error(
                        "profile",
                        self.bundle.profile.span(),
                        format!("this version knows profile 1 only, not {}", self.bundle.profile.get_ref()),
                    )
                    .help("write profile = 1"),
            );
        }
    }
}

/// A whole number, not zero, and `s`, `m`, `h` or `d`.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    // A sign is no digit.
    let number: u32 = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())??;
    (number > 0).then(|| Duration::from_secs(u64::from(number) * seconds))
}
