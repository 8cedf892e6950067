//! Landlock's rule sets as a bundle of Guard.
//!
//! | Landlock | asked of | Guard | asked of |
//! |---|---|---|---|
//! | READ_FILE, WRITE_FILE, TRUNCATE, READ_DIR | the file | file.read, file.write and file.append, file.truncate, dir.list | the file |
//! | EXECUTE and READ_FILE | the program | exec and exec.map | the program |
//! | IOCTL_DEV | the device | file.ioctl, permitted on what is no device | the device |
//! | MAKE_REG, MAKE_SYM, MAKE_DIR, MAKE_SOCK | the directory | file.create, file.symlink, dir.create, unix.bind | the new name |
//! | MAKE_CHAR, MAKE_BLOCK, MAKE_FIFO | the directory | file.mknod by kind | the new name |
//! | REMOVE_FILE, REMOVE_DIR | the directory | file.remove, dir.remove; with REFER: file.rename | the name |
//! | REFER | both directories | file.link, a part of file.rename | the old name |
//! | BIND_TCP, CONNECT_TCP | the port | net.bind, net.connect, permitted where the protocol is another | the address |

use std::fmt::Write;

use crate::rights::{
    BIND_TCP, CONNECT_TCP, EXECUTE, IOCTL_DEV, MAKE_BLOCK, MAKE_CHAR, MAKE_DIR, MAKE_FIFO, MAKE_REG,
    MAKE_SOCK, MAKE_SYM, READ_DIR, READ_FILE, REFER, REMOVE_DIR, REMOVE_FILE, Rights, TRUNCATE, WRITE_FILE,
};
use crate::rules::Rules;

/// A rule set for the tree whose root has this path.
pub(crate) struct Grounded {
    pub(crate) root: String,
    pub(crate) rules: Rules,
}

/// The rule sets of one subject, which all handle the same rights and have the same ports.
pub(crate) struct Translation<'a> {
    pub(crate) subject: &'a str,
    pub(crate) handled: Rights,
    pub(crate) ports: &'a [(u16, Rights)],
    pub(crate) trees: &'a [Grounded],
}

/// The actions that any of these rights governs.
const GOVERNS: [(Rights, &str); 18] = [
    (READ_FILE, "file.read"),
    (WRITE_FILE, "file.write"),
    (WRITE_FILE, "file.append"),
    (TRUNCATE, "file.truncate"),
    (EXECUTE | READ_FILE, "exec"),
    (EXECUTE | READ_FILE, "exec.map"),
    (READ_DIR, "dir.list"),
    (IOCTL_DEV, "file.ioctl"),
    (MAKE_REG | MAKE_SOCK, "file.create"),
    (MAKE_SYM, "file.symlink"),
    (MAKE_CHAR | MAKE_BLOCK | MAKE_FIFO, "file.mknod"),
    (MAKE_DIR, "dir.create"),
    (MAKE_SOCK, "unix.bind"),
    (REMOVE_FILE, "file.remove"),
    (REMOVE_DIR, "dir.remove"),
    (REFER, "file.rename"),
    (REFER, "file.link"),
    (BIND_TCP, "net.bind"),
];

/// Which resource a condition is about: how its own name is written.
#[derive(Clone, Copy)]
enum Type {
    File,
    Dir,
    Unix,
}

impl Type {
    fn entity(self) -> &'static str {
        match self {
            Self::File => "File",
            Self::Dir => "Dir",
            Self::Unix => "Unix",
        }
    }
}

/// A condition, or always, or never.
enum Condition {
    Always,
    Never,
    When(String),
}

impl Condition {
    fn any(terms: Vec<String>) -> Self {
        if terms.is_empty() { Self::Never } else { Self::When(format!("({})", terms.join(" || "))) }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, _) | (_, Self::Never) => Self::Never,
            (Self::Always, other) | (other, Self::Always) => other,
            (Self::When(one), Self::When(other)) => Self::When(format!("({one} && {other})")),
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Always, _) | (_, Self::Always) => Self::Always,
            (Self::Never, other) | (other, Self::Never) => other,
            (Self::When(one), Self::When(other)) => Self::When(format!("({one} || {other})")),
        }
    }
}

fn kind(names: &[&str], is: bool) -> Condition {
    let (operator, between) = if is { ("==", " || ") } else { ("!=", " && ") };
    let terms: Vec<String> =
        names.iter().map(|name| format!("resource.kind {operator} \"{name}\"")).collect();
    Condition::When(format!("({})", terms.join(between)))
}

impl Translation<'_> {
    /// The subject's table in `guard.toml`.
    pub(crate) fn toml(&self) -> String {
        let further = [(CONNECT_TCP, "net.connect")];
        let governs: Vec<String> = GOVERNS
            .into_iter()
            .chain(further)
            .filter(|(rights, _)| rights & self.handled != 0)
            .map(|(_, action)| format!("\"{action}\""))
            .collect();
        format!(
            "[subjects.{0}]\nselector = {{ user = \"{0}\" }}\ngoverns = [{1}]\n",
            self.subject,
            governs.join(", ")
        )
    }

    /// Its policies.
    pub(crate) fn cedar(&self) -> String {
        let mut text = String::new();
        for (action, right) in [
            ("file.read", READ_FILE),
            ("file.write", WRITE_FILE),
            ("file.append", WRITE_FILE),
            ("file.truncate", TRUNCATE),
        ] {
            self.permit(&mut text, action, Type::File, self.at(right));
        }
        for action in ["exec", "exec.map"] {
            let execute = self.at(EXECUTE).and(self.at(READ_FILE));
            self.permit(&mut text, action, Type::File, execute);
        }
        let devices = kind(&["chr", "blk"], false).or(self.at(IOCTL_DEV));
        self.permit(&mut text, "file.ioctl", Type::File, devices);
        self.permit(&mut text, "dir.list", Type::Dir, self.at(READ_DIR));
        for (action, on, right) in [
            ("file.symlink", Type::File, MAKE_SYM),
            ("file.remove", Type::File, REMOVE_FILE),
            ("file.link", Type::File, REFER),
            ("dir.create", Type::Dir, MAKE_DIR),
            ("dir.remove", Type::Dir, REMOVE_DIR),
            ("unix.bind", Type::Unix, MAKE_SOCK),
        ] {
            self.permit(&mut text, action, on, self.beside(right, on));
        }
        let create =
            kind(&["socket"], false)
                .and(self.beside(MAKE_REG, Type::File))
                .or(kind(&["socket"], true).and(self.beside(MAKE_SOCK, Type::File)));
        self.permit(&mut text, "file.create", Type::File, create);
        let node = [("chr", MAKE_CHAR), ("blk", MAKE_BLOCK), ("fifo", MAKE_FIFO)]
            .into_iter()
            .map(|(name, right)| kind(&[name], true).and(self.beside(right, Type::File)))
            .fold(Condition::Never, Condition::or);
        self.permit(&mut text, "file.mknod", Type::File, node);
        for (on, right) in [(Type::File, REMOVE_FILE), (Type::Dir, REMOVE_DIR)] {
            self.permit(&mut text, "file.rename", on, self.beside(REFER, on).and(self.beside(right, on)));
        }
        for (action, right) in [("net.bind", BIND_TCP), ("net.connect", CONNECT_TCP)] {
            self.permit_ports(&mut text, action, right);
        }
        text
    }

    fn permit(&self, text: &mut String, action: &str, on: Type, condition: Condition) {
        let governed = GOVERNS.iter().any(|(rights, name)| *name == action && rights & self.handled != 0);
        let when = match condition {
            Condition::Never => return,
            Condition::Always => String::new(),
            Condition::When(condition) => format!("\nwhen {{ {condition} }}"),
        };
        if governed {
            let (id, entity) = (action.replace('.', "-"), on.entity());
            let _ = writeln!(
                text,
                "@id(\"{id}-{entity}\")\npermit (principal == Guard::Subject::\"{}\", action == Guard::Action::\"{action}\", resource is Guard::{entity}){when};",
                self.subject
            );
        }
    }

    fn permit_ports(&self, text: &mut String, action: &str, right: Rights) {
        if self.handled & right == 0 {
            return;
        }
        let ports: Vec<String> = self
            .ports
            .iter()
            .filter(|(_, rights)| rights & right != 0)
            .map(|(port, _)| format!("resource.port == {port}"))
            .collect();
        let other = Condition::When("resource.protocol != \"tcp\"".to_owned());
        let Condition::When(condition) = other.or(Condition::any(ports)) else { return };
        let id = action.replace('.', "-");
        let _ = writeln!(
            text,
            "@id(\"{id}\")\npermit (principal == Guard::Subject::\"{}\", action == Guard::Action::\"{action}\", resource)\nwhen {{ {condition} }};",
            self.subject
        );
    }

    /// That a right is given to what is acted on.
    fn at(&self, right: Rights) -> Condition {
        self.rules(right, |path, is_directory| {
            if is_directory {
                format!("resource in Guard::Dir::\"{path}\"")
            } else {
                format!("resource == Guard::File::\"{path}\"")
            }
        })
    }

    /// That a right is given to the directory of what is acted on.
    fn beside(&self, right: Rights, on: Type) -> Condition {
        let entity = on.entity();
        self.rules(right, |path, _| {
            format!("resource in Guard::Dir::\"{path}\" && !(resource == Guard::{entity}::\"{path}\")")
        })
    }

    fn rules(&self, right: Rights, term: impl Fn(&str, bool) -> String) -> Condition {
        if self.handled & right == 0 {
            return Condition::Always;
        }
        let rules =
            self.trees.iter().flat_map(|tree| tree.rules.rules.iter().map(move |rule| (&tree.root, rule)));
        Condition::any(
            rules
                .filter(|(_, rule)| rule.rights & right != 0)
                .map(|(root, rule)| {
                    let path =
                        if rule.path.is_empty() { root.clone() } else { format!("{root}/{}", rule.path) };
                    term(&path, rule.is_directory)
                })
                .collect(),
        )
    }
}
