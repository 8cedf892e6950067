//! What a first bundle holds: includes and permits, each for a reason that can be read.

use std::path::{Path, PathBuf};

use super::program::{Program, Runtime};
use super::unit::Unit;

/// What the policy will be about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// A unit of the service manager.
    Unit(Unit),
    /// Everything that a user runs.
    User(String),
    /// An executable.
    Executable(PathBuf),
}

/// An include and why it was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its name.
    pub include: String,
    /// Why.
    pub why: String,
}

/// A permit and why it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// Its id.
    pub id: String,
    /// Why.
    pub why: String,
    /// The actions and groups.
    pub actions: Vec<&'static str>,
    /// The resource, as the scope or the condition of a Cedar policy names it:
    /// `resource in Guard::Dir::"/srv"`.
    pub resources: Vec<String>,
}

/// The contents of a first bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Includes, in the order in which they are written.
    pub includes: Vec<Chosen>,
    /// Permits.
    pub rights: Vec<Right>,
    /// What the reader has to know, because Guard will not see it or left it out.
    pub notes: Vec<String>,
}

/// A directory that holds more than one service's files is nothing to give to one service.
const SHARED: [&str; 24] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/tmp",
];

/// Whether a directory holds more than one service's files.
pub(super) fn is_shared(path: &Path) -> bool {
    SHARED.iter().any(|shared| path == Path::new(shared))
}

/// What one directory of a service may be used for, by whether it may be written.
const WRITES: [&str; 2] = ["read", "mutate"];
/// As little as a log needs: it can be added to, never be changed.
const LOGS: [&str; 3] = ["file.append", "file.create", "file.setattr"];

/// Chooses for `service`, whose programs are of these kinds. `known` are the includes that exist,
/// and `exists` says whether a path does.
pub fn plan(
    subject: &str,
    service: &Service,
    programs: &[(PathBuf, Program)],
    known: &[&str],
    exists: &dyn Fn(&Path) -> bool,
) -> Plan {
    let mut plan = Plan { includes: includes(service, programs, known), ..Plan::default() };
    for (path, program) in programs {
        let why = match program {
            Program::Script { interpreter } => format!("the program, a script for {interpreter}"),
            _ => "the program".to_owned(),
        };
        let id = if plan.rights.is_empty() {
            "program".to_owned()
        } else {
            format!("program-{}", plan.rights.len() + 1)
        };
        plan.right(id, why, &["exec"], vec![file(path)]);
    }
    match service {
        Service::Unit(unit) => of_unit(&mut plan, subject, unit, exists),
        Service::User(user) => plan.notes.push(format!(
            "every process whose user is {user} is the subject, those of cron, ssh and sudo included"
        )),
        Service::Executable(_) => plan.notes.push(
            "the subject begins where this executable is started; what it starts belongs to it".to_owned(),
        ),
    }
    plan
}

impl Plan {
    fn right(
        &mut self,
        id: impl Into<String>,
        why: impl Into<String>,
        actions: &[&'static str],
        resources: Vec<String>,
    ) {
        self.rights.push(Right { id: id.into(), why: why.into(), actions: actions.to_vec(), resources });
    }
}

/// `resource == Guard::File::"…"`
pub(super) fn file(path: &Path) -> String {
    format!("resource == Guard::File::{}", quoted(&path.to_string_lossy()))
}

/// `resource in Guard::Dir::"…"`
pub(super) fn directory(path: &Path) -> String {
    format!("resource in Guard::Dir::{}", quoted(&path.to_string_lossy()))
}

/// A Cedar string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn includes(service: &Service, programs: &[(PathBuf, Program)], known: &[&str]) -> Vec<Chosen> {
    let mut chosen: Vec<Chosen> = Vec::new();
    let mut choose = |include: &str, why: &str| {
        if known.contains(&include) && chosen.iter().all(|one| one.include != include) {
            chosen.push(Chosen { include: include.to_owned(), why: why.to_owned() });
        }
    };
    let is_static = !programs.is_empty() && programs.iter().all(|(_, program)| *program == Program::Static);
    let runtimes = runtimes(service, programs);
    if !is_static {
        choose("base/dynamic-exec", "shared libraries, locales and time zones");
    }
    choose("base/devices", "null, zero and random");
    choose("base/stdio", "what is open as 0, 1 and 2 when it starts");
    choose("base/anonymous", "pipes, sockets and memory of its own");
    choose("base/own-proc", "its own directory in /proc");
    choose("base/proc-facts", "processors, memory and limits, which the C library asks for");
    choose("base/accounts", "names of users and groups");
    choose("base/name-resolution", "names of hosts and services");
    let tls = ["libssl", "libgnutls", "libnss3", "libmbedtls", "libcrypto"];
    let speaks_tls = programs.iter().any(|(_, program)| tls.iter().any(|library| program.needs(library)));
    if speaks_tls {
        choose("base/tls-roots", "it is linked with a TLS library");
    }
    if !matches!(service, Service::Unit(_)) {
        choose("base/terminal", "people start it on a terminal");
    }
    for runtime in runtimes {
        match runtime {
            Runtime::Python => choose("lang/python", "it runs on Python"),
            Runtime::Node => choose("lang/node", "it runs on Node.js, which makes executable memory"),
            Runtime::Shell => {
                choose("shell/posix", "it is a shell script");
                choose("shell/bash", "many scripts are for bash");
                choose("shell/coreutils", "what shell scripts are made of");
            }
        }
        if runtime != Runtime::Shell {
            choose("base/tls-roots", "its run-time system comes with TLS");
        }
    }
    if matches!(service, Service::Unit(_)) {
        choose("service/systemd", "readiness, watchdog and the journal");
    }
    chosen
}

/// The run-time systems of the programs: named as the program, by a first line, or both.
fn runtimes(service: &Service, programs: &[(PathBuf, Program)]) -> Vec<Runtime> {
    let mut found: Vec<Runtime> = programs
        .iter()
        .filter_map(|(path, program)| match program {
            Program::Script { interpreter } => Runtime::of(interpreter),
            _ => Runtime::of(&path.to_string_lossy()),
        })
        .collect();
    // `/bin/sh -c "exec python3 …"`: the words say what will run.
    if let Service::Unit(unit) = service {
        let words = unit.arguments.iter().flat_map(|argument| argument.split_whitespace());
        if found.contains(&Runtime::Shell) {
            found.extend(words.filter_map(Runtime::of));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn of_unit(plan: &mut Plan, subject: &str, unit: &Unit, exists: &dyn Fn(&Path) -> bool) {
    let own = Path::new("/etc").join(subject);
    let configured = unit.directories.iter().any(|directory| directory.path == own);
    if !configured && exists(&own) {
        plan.right("configuration", format!("{} exists", own.display()), &["read"], vec![directory(&own)]);
    }
    // The script behind an interpreter, and other files that ExecStart= names.
    for argument in unit.arguments.iter().filter(|argument| argument.starts_with('/')) {
        let path = Path::new(argument);
        if exists(path) && !is_shared(path) && !path.starts_with("/dev") {
            let id = format!("argument-{}", plan.rights.len());
            plan.right(id, "named by ExecStart=", &["file.read"], vec![file(path)]);
        }
    }
    let shared: Vec<_> = unit.directories.iter().filter(|one| is_shared(&one.path)).collect();
    for one in &unit.directories {
        if is_shared(&one.path) {
            continue;
        }
        let logs = one.path.starts_with("/var/log");
        let actions: &[&'static str] = match (one.writable, logs) {
            (true, true) => &LOGS,
            (true, false) => &WRITES,
            (false, _) => &["read"],
        };
        let id = id_of(&one.path, &plan.rights);
        plan.right(id, format!("{}= of {}", one.key, unit.name), actions, vec![directory(&one.path)]);
    }
    if let Some(path) = &unit.pid_file {
        plan.right("pid", "PIDFile=", &["file.read", "mutate"], vec![file(path)]);
    }
    for one in shared {
        plan.notes.push(format!(
            "{}={} is not permitted as a whole: other services' files are there too; learn will name the files",
            one.key,
            one.path.display()
        ));
    }
    if unit.private_tmp {
        plan.notes
            .push("the unit has a /tmp of its own; for policy it is below /tmp/systemd-private-…".to_owned());
    }
    if unit.own_root {
        plan.notes.push(
            "the unit has a root directory of its own; paths in a policy are those of the host".to_owned(),
        );
    }
    if !unit.sockets.is_empty() {
        plan.notes
            .push(format!("its sockets are opened by the service manager: {}", unit.sockets.join(", ")));
    }
    if unit.programs.is_empty() {
        plan.notes.push("ExecStart= names no program that could be found here".to_owned());
    }
}

/// A short id for a directory that no other right has.
fn id_of(path: &Path, rights: &[Right]) -> String {
    let words = path.components().skip(1).map(|part| part.as_os_str().to_string_lossy().into_owned());
    let id: String = words.collect::<Vec<_>>().join("-");
    let id: String =
        id.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let taken = |id: &str| rights.iter().any(|right| right.id == id);
    if !taken(&id) { id } else { format!("{id}-{}", rights.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onboard::Directory;

    const KNOWN: [&str; 12] = [
        "base/dynamic-exec",
        "base/devices",
        "base/stdio",
        "base/anonymous",
        "base/own-proc",
        "base/proc-facts",
        "base/name-resolution",
        "base/tls-roots",
        "base/terminal",
        "lang/python",
        "lang/node",
        "service/systemd",
    ];

    fn names(plan: &Plan) -> Vec<&str> {
        plan.includes.iter().map(|one| one.include.as_str()).collect()
    }

    fn unit(program: &str) -> Unit {
        Unit { name: "x.service".to_owned(), programs: vec![program.into()], ..Unit::default() }
    }

    #[test]
    fn a_web_server_gets_its_configuration_logs_and_state() {
        let directory = |path: &str| Directory { key: "ReadWritePaths", path: path.into(), writable: true };
        let unit = Unit {
            directories: vec![directory("/run"), directory("/var/log/nginx"), directory("/var/lib/nginx")],
            pid_file: Some("/run/nginx.pid".into()),
            ..unit("/usr/sbin/nginx")
        };
        let program = Program::Dynamic { libraries: vec!["libssl.so.3".to_owned()] };
        let programs = [("/usr/sbin/nginx".into(), program)];
        let plan =
            plan("nginx", &Service::Unit(unit), &programs, &KNOWN, &|path| path == Path::new("/etc/nginx"));
        assert!(names(&plan).contains(&"base/tls-roots") && names(&plan).contains(&"service/systemd"));
        assert!(!names(&plan).contains(&"base/terminal"));
        let rights: Vec<_> =
            plan.rights.iter().map(|right| (right.id.as_str(), right.actions.as_slice())).collect();
        assert_eq!(
            rights,
            [
                ("program", &["exec"][..]),
                ("configuration", &["read"]),
                ("var-log-nginx", &LOGS),
                ("var-lib-nginx", &WRITES),
                ("pid", &["file.read", "mutate"]),
            ]
        );
        assert!(
            plan.notes[0].starts_with("ReadWritePaths=/run is not permitted as a whole"),
            "{:?}",
            plan.notes
        );
    }

    #[test]
    fn a_script_needs_its_interpreter_includes_and_itself() {
        let service = Unit { arguments: vec!["/opt/app/main.py".to_owned()], ..unit("/usr/bin/python3") };
        let programs = [("/usr/bin/python3".into(), Program::Dynamic { libraries: Vec::new() })];
        let plan = plan("app", &Service::Unit(service), &programs, &KNOWN, &|path| {
            path == Path::new("/opt/app/main.py")
        });
        assert!(names(&plan).contains(&"lang/python") && names(&plan).contains(&"base/tls-roots"));
        assert_eq!(plan.rights[1].resources, ["resource == Guard::File::\"/opt/app/main.py\""]);
    }

    #[test]
    fn a_static_program_needs_no_loader_and_unknown_includes_are_left_out() {
        let service = Service::Executable("/opt/x".into());
        let plan = plan("x", &service, &[("/opt/x".into(), Program::Static)], &["base/devices"], &|_| false);
        assert_eq!(names(&plan), ["base/devices"]);
    }

    #[test]
    fn strings_cannot_leave_their_quotes() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u{a}\"");
    }
}
