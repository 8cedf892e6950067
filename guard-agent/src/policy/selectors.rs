//! Selectors: which of them are refused, and what they are in the tables.

use std::path::{Path, PathBuf};

use guard_common::label::UNIT_NAME_MAX;
use guard_common::path::NODE_NEVER_SELECTS;

use super::bundle::Bundle;
use super::compile::ExecSelector;
use super::diagnostics::Diagnostic;
use super::ids::SubjectIds;
use super::manifest::{Container, Engine, SelectorDefinition};
use super::places::{Mounts, Place, resolve};
use super::trie::Trie;
use crate::host::{Host, SERVICE_MANAGER};
use crate::tables::{Podman, Selector};

/// The agent's own unit.
const AGENT_UNIT: &str = "guard-agent.service";
/// Units that hold the first process, the agent, or everything.
const PROTECTED_UNITS: [&str; 4] = ["-.slice", "init.scope", "system.slice", AGENT_UNIT];
/// Cgroups that hold the first process or the agent.
const PROTECTED_CGROUPS: [&str; 2] = ["/init.scope", "/system.slice/guard-agent.service"];
/// Directories that hold what every process executes.
const PROTECTED_DIRECTORIES: [&str; 9] = [
    "/",
    "/usr",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/libexec",
    "/usr/lib64",
    "/usr/local",
    "/usr/local/bin",
];

/// What the selectors of a bundle compile to, besides trie nodes.
#[derive(Debug, Default)]
pub(super) struct Selected {
    pub(super) selectors: Vec<(Selector, u32)>,
    pub(super) exec: Vec<ExecSelector>,
}

/// Compiles every selector into `trie` and the result.
pub(super) fn compile(
    bundle: &Bundle,
    host: &Host,
    mounts: &Mounts<'_>,
    ids: &mut SubjectIds,
    trie: &mut Trie,
    found: &mut Vec<Diagnostic>,
) -> Selected {
    let mut selected = Selected::default();
    for path in SERVICE_MANAGER {
        let path =
            resolve(host, Path::new(path)).map_or_else(|_| PathBuf::from(path), |resolved| resolved.path);
        if let Some(place) = mounts.locate(&path) {
            trie.flag(&place, NODE_NEVER_SELECTS);
        }
    }
    for subject in &bundle.subjects {
        let id = ids.assign(&subject.name);
        for (definition, span) in subject.selectors.iter().zip(&subject.spans) {
            let mut one = One { host, mounts, subject: id, errors: Vec::new(), notes: Vec::new() };
            one.accounts(definition, &mut selected.selectors);
            one.cgroups(definition, &mut selected.selectors);
            one.containers(definition, &mut selected.selectors);
            one.executables(definition, trie, ids, &mut selected.exec);
            let name = &subject.name;
            let text = |message: String| format!("{name}: {message}");
            found.extend(one.errors.into_iter().map(|(message, help)| {
                bundle.toml.error("selector", span.clone(), text(message)).help(help)
            }));
            found.extend(
                one.notes
                    .into_iter()
                    .map(|(code, message)| bundle.toml.note(code, span.clone(), text(message))),
            );
        }
    }
    conflicts(&selected.selectors, ids, found);
    selected
}

/// Where systemd-nspawn puts the processes of a machine: in the scope that systemd-machined makes for it, in the
/// one that it makes itself, or in its service. Beside `payload` there can be a cgroup of its own.
fn machine_cgroups(name: &str) -> [String; 3] {
    [
        format!("machine-{}.scope", escaped(name)),
        format!("{name}.scope"),
        format!("systemd-nspawn@{name}.service"),
    ]
    .map(|unit| format!("/machine.slice/{unit}/payload"))
}

/// A name as part of the name of a unit (systemd-escape(1)).
fn escaped(name: &str) -> String {
    let plain = |at: usize, byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_') || byte == b'.' && at != 0
    };
    name.bytes()
        .enumerate()
        .map(|(at, byte)| match byte {
            b'/' => "-".to_owned(),
            byte if plain(at, byte) => char::from(byte).to_string(),
            byte => format!("\\x{byte:02x}"),
        })
        .collect()
}

/// The same selector for two subjects would leave the choice to chance.
fn conflicts(selectors: &[(Selector, u32)], ids: &SubjectIds, found: &mut Vec<Diagnostic>) {
    for (index, (selector, subject)) in selectors.iter().enumerate() {
        if let Some((_, other)) =
            selectors[..index].iter().find(|(earlier, other)| earlier == selector && other != subject)
        {
            let name = |id: &u32| ids.name(*id).unwrap_or_default().to_owned();
            found.push(
                Diagnostic::error(
                    "selector",
                    format!("{} and {} have the same selector", name(other), name(subject)),
                )
                .help("a process has one label; remove one of the two"),
            );
        }
    }
}

struct One<'a> {
    host: &'a Host,
    mounts: &'a Mounts<'a>,
    subject: u32,
    errors: Vec<(String, String)>,
    notes: Vec<(&'static str, String)>,
}

impl One<'_> {
    fn refuse(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.errors.push((message.into(), help.into()));
    }

    fn accounts(&mut self, definition: &SelectorDefinition, selectors: &mut Vec<(Selector, u32)>) {
        let number = |name: &str, found: Option<u32>| name.parse::<u32>().ok().or(found);
        if let Some(name) = &definition.user {
            match number(name, self.host.lookup.user(name)) {
                Some(0) => self.refuse(
                    "the user root covers the first process and the agent",
                    "give the workload a user of its own, or select it by unit or exe",
                ),
                Some(uid) => selectors.push((Selector::User(uid), self.subject)),
                None => self.notes.push(("unknown-user", format!("there is no user {name} on this host; the selector matches nothing until there is one and the policy is applied again"))),
            }
        }
        if let Some(name) = &definition.group {
            match number(name, self.host.lookup.group(name)) {
                Some(0) => self.refuse(
                    "the group root covers the first process and the agent",
                    "give the workload a group of its own, or select it by unit or exe",
                ),
                Some(gid) => selectors.push((Selector::Group(gid), self.subject)),
                None => self.notes.push(("unknown-group", format!("there is no group {name} on this host; the selector matches nothing until there is one and the policy is applied again"))),
            }
        }
    }

    fn cgroups(&mut self, definition: &SelectorDefinition, selectors: &mut Vec<(Selector, u32)>) {
        if let Some(unit) = &definition.unit {
            let suffixed =
                [".service", ".scope", ".slice", ".socket"].iter().any(|suffix| unit.ends_with(suffix));
            if PROTECTED_UNITS.contains(&unit.as_str()) {
                self.refuse(
                    format!("the unit {unit} covers the first process or the agent"),
                    "name the unit of the workload",
                );
            } else if !suffixed || unit.contains('/') {
                self.refuse(
                    format!("\"{unit}\" is not the full name of a unit"),
                    format!("write \"{}.service\"", unit.replace('/', "-")),
                );
            } else if unit.len() > UNIT_NAME_MAX {
                self.refuse(
                    format!("unit names have at most {UNIT_NAME_MAX} bytes here"),
                    "select the workload by user, cgroup or exe",
                );
            } else {
                selectors.push((Selector::Unit(unit.clone()), self.subject));
            }
        }
        if let Some(cgroup) = &definition.cgroup {
            let path = Path::new(cgroup);
            let plain = cgroup.starts_with('/')
                && (cgroup.len() == 1 || cgroup[1..].split('/').all(|part| !matches!(part, "" | "." | "..")));
            if !plain {
                self.refuse(
                    format!("\"{cgroup}\" is not a path below the cgroup2 mount"),
                    "write \"/system.slice/my.service\"",
                );
            } else if let Some(inside) =
                PROTECTED_CGROUPS.iter().find(|inside| Path::new(inside).starts_with(path))
            {
                self.refuse(
                    format!("the cgroup {cgroup} covers {inside}"),
                    "name the cgroup of the workload",
                );
            } else if PROTECTED_CGROUPS.iter().any(|inside| path.starts_with(inside)) {
                self.refuse(
                    format!("the cgroup {cgroup} belongs to the first process or the agent"),
                    "name the cgroup of the workload",
                );
            } else {
                selectors.push((Selector::Cgroup(cgroup.clone()), self.subject));
            }
        }
    }

    fn containers(&mut self, definition: &SelectorDefinition, selectors: &mut Vec<(Selector, u32)>) {
        let Some(container) = &definition.container else { return };
        let Container { name, image, engine } = container;
        if name.is_none() && image.is_none() {
            self.refuse("container says neither name nor image", "write container = \"NAME\"");
            return;
        }
        for (text, what) in [(name, "name"), (image, "image")] {
            if text.as_ref().is_some_and(|text| text.is_empty() || text.contains(char::is_control)) {
                self.refuse(format!("this is no {what} of a container"), "write it as the engine lists it");
                return;
            }
        }
        if *engine != Some(Engine::Podman) {
            match (name, image) {
                (Some(name), None) => {
                    for path in machine_cgroups(name) {
                        if path.len() >= UNIT_NAME_MAX {
                            let message =
                                format!("the cgroup of a machine called {name} has too long a path");
                            self.refuse(message, "shorten the name, or add engine = \"podman\"");
                            return;
                        }
                        selectors.push((Selector::Container(path), self.subject));
                    }
                }
                (_, Some(_)) if *engine == Some(Engine::Nspawn) => {
                    self.refuse("systemd-nspawn knows no images", "select the machine by its name");
                }
                _ => {}
            }
        }
        if *engine != Some(Engine::Nspawn) {
            let podman = Podman { name: name.clone(), image: image.clone() };
            selectors.push((Selector::Podman(podman), self.subject));
        }
    }

    fn executables(
        &mut self,
        definition: &SelectorDefinition,
        trie: &mut Trie,
        ids: &SubjectIds,
        exec: &mut Vec<ExecSelector>,
    ) {
        let all = definition
            .exe
            .iter()
            .map(|path| (path, false))
            .chain(definition.exe_in.iter().map(|path| (path, true)));
        for (text, below) in all {
            let Target { path, place, notes } = match target(self.host, self.mounts, text, below) {
                Ok(target) => target,
                Err((message, help)) => {
                    self.refuse(message, help);
                    continue;
                }
            };
            self.notes.extend(notes);
            let mut claims = vec![trie.select(&place, below, self.subject)];
            if below {
                // What is mounted below the directory belongs to it as well.
                let inside = self
                    .mounts
                    .visible()
                    .filter(|mount| mount.point != path && mount.point.starts_with(&path));
                claims.extend(inside.map(|mount| {
                    trie.select(
                        &super::places::Place { device: mount.device, path: mount.root.clone() },
                        true,
                        self.subject,
                    )
                }));
            }
            if let Some(other) = claims.into_iter().flatten().next() {
                let other = ids.name(other).unwrap_or_default().to_owned();
                self.refuse(
                    format!("executing {text} already attaches {other}"),
                    "a process has one label; remove one of the two",
                );
            }
            exec.push(ExecSelector { path, below, subject: self.subject });
        }
    }
}

/// An executable that guard.toml names, or a directory of them.
pub(super) struct Target {
    /// Its path, with every symbolic link resolved.
    pub(super) path: PathBuf,
    /// Where it lies.
    pub(super) place: Place,
    /// What is worth knowing about it.
    pub(super) notes: Vec<(&'static str, String)>,
}

/// What `text` names on this host; why it may not be named, and what to do, if it may not.
pub(super) fn target(
    host: &Host,
    mounts: &Mounts<'_>,
    text: &str,
    below: bool,
) -> Result<Target, (String, String)> {
    let plain = text.starts_with('/')
        && (text.len() == 1 || text[1..].split('/').all(|part| !matches!(part, "" | "." | "..")));
    if !plain {
        return Err((
            format!("\"{text}\" is not an absolute path"),
            "begin it with / and leave out . and .. and a slash at the end".to_owned(),
        ));
    }
    let mut notes = Vec::new();
    let resolved = resolve(host, Path::new(text))?;
    if !resolved.links.is_empty() {
        notes.push((
            "resolved",
            format!("{text} leads to {}, which is what is meant", resolved.path.display()),
        ));
    }
    if let Some(refused) = covers_too_much(host, text, &resolved.path, below) {
        return Err(refused);
    }
    if host.lookup.entry(&resolved.path).is_none() {
        notes.push(("unknown-path", format!("{text} does not exist; the selector matches once it does")));
    }
    match mounts.locate(&resolved.path) {
        Some(place) => Ok(Target { path: resolved.path, place, notes }),
        None => Err((
            format!("{text} lies on no file system that this host has mounted"),
            "name a path that can be reached".to_owned(),
        )),
    }
}

fn covers_too_much(host: &Host, text: &str, path: &Path, below: bool) -> Option<(String, String)> {
    let help = "name the program, or a directory that holds only the workload's programs";
    if below && PROTECTED_DIRECTORIES.iter().any(|directory| Path::new(directory) == path) {
        return Some((format!("{text} holds the programs of every process"), help.into()));
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !below && name.starts_with("ld-linux") {
        return Some((format!("{text} is the dynamic loader, which can start every program"), help.into()));
    }
    host.protected
        .iter()
        .find(|(protected, _)| if below { protected.starts_with(path) } else { protected == path })
        .map(|(protected, what)| {
            let relation = if below { "holds" } else { "is" };
            (format!("{text} {relation} {what} ({})", protected.display()), help.into())
        })
}
