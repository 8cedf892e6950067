//! Operations: one system call can be several decisions, and succeeds if every one allows it.

/// What a decision of an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The first argument.
    First,
    /// The second argument.
    Second,
    /// The second argument, if something is there already.
    SecondIfThere,
    /// The first argument, if nothing is there yet.
    FirstIfNew,
    /// Nothing but the machine.
    Machine,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// What it is called.
    pub name: &'static str,
    /// The system calls that are this operation.
    pub calls: &'static str,
    /// Its arguments, for help.
    pub arguments: &'static [&'static str],
    /// What has to be allowed.
    pub decisions: &'static [(&'static str, On)],
}

macro_rules! operations {
    ($($name:literal, $calls:literal, [$($argument:literal),*], [$(($action:literal, $on:ident)),*];)*) => {
        /// Every operation.
        pub const OPERATIONS: &[Operation] = &[
            $(Operation {
                name: $name,
                calls: $calls,
                arguments: &[$($argument),*],
                decisions: &[$(($action, On::$on)),*],
            },)*
        ];
    };
}

operations! {
    "read", "open(O_RDONLY)", ["FILE"], [("file.read", First)];
    "write", "open(O_WRONLY)", ["FILE"], [("file.write", First)];
    "append", "open(O_WRONLY|O_APPEND)", ["FILE"], [("file.append", First)];
    "update", "open(O_RDWR)", ["FILE"], [("file.read", First), ("file.write", First)];
    "overwrite", "open(O_WRONLY|O_CREAT|O_TRUNC)", ["FILE"],
        [("file.create", FirstIfNew), ("file.write", First), ("file.truncate", First)];
    "truncate", "truncate", ["FILE"], [("file.truncate", First)];
    "rename", "rename, renameat2", ["OLD", "NEW"],
        [("file.rename", First), ("file.create", Second), ("file.remove", SecondIfThere)];
    "link", "link, linkat", ["OLD", "NEW"], [("file.link", First), ("file.create", Second)];
    "symlink", "symlink, symlinkat", ["NEW"], [("file.symlink", First)];
    "unlink", "unlink", ["FILE"], [("file.remove", First)];
    "mknod", "mknod", ["FILE"], [("file.mknod", First)];
    "setattr", "chmod, chown, utimensat, setxattr", ["FILE"], [("file.setattr", First)];
    "list", "open(O_DIRECTORY), getdents", ["DIR"], [("dir.list", First)];
    "mkdir", "mkdir", ["DIR"], [("dir.create", First)];
    "rmdir", "rmdir", ["DIR"], [("dir.remove", First)];
    "exec", "execve", ["PROGRAM"], [("exec", First)];
    "script", "execve of a file that begins with #!", ["SCRIPT", "INTERPRETER"],
        [("exec", First), ("exec", Second)];
    "map", "mmap(PROT_EXEC)", ["FILE"], [("exec.map", First)];
    "connect", "connect", ["ADDRESS:PORT"], [("net.connect", First)];
    "send", "sendto without a connection", ["ADDRESS:PORT"], [("net.send", First)];
    "serve", "bind, listen", ["ADDRESS:PORT"], [("net.bind", First), ("net.listen", First)];
    "accept", "accept", ["PEER:PORT"], [("net.accept", First)];
    "unix-connect", "connect on a unix socket", ["SOCKET"], [("unix.connect", First)];
    "unix-send", "sendto on a unix socket", ["SOCKET"], [("unix.send", First)];
    "unix-bind", "bind on a unix socket", ["SOCKET"], [("unix.bind", First)];
    "signal", "kill", ["PROCESS"], [("proc.signal", First)];
    "trace", "ptrace, process_vm_readv", ["PROCESS"], [("proc.trace", First)];
    "mount", "mount, move_mount", [], [("sys.mount", Machine)];
    "unshare", "unshare(CLONE_NEWUSER)", [], [("sys.userns", Machine)];
    "setuid", "setuid, setgid, setgroups", [], [("sys.setid", Machine)];
}

/// The operation with this name.
pub fn operation(name: &str) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|operation| operation.name == name)
}

impl Operation {
    /// The decisions on these arguments: action, and resource in words. `exists` tells whether
    /// something is at a path already.
    pub fn decisions<'a>(
        &self,
        arguments: &'a [String],
        exists: &dyn Fn(&str) -> bool,
    ) -> Vec<(&'static str, Option<&'a str>)> {
        let at = |index: usize| arguments.get(index).map(String::as_str);
        let asked = |on: On| match on {
            On::First => Some(at(0)),
            On::Second => Some(at(1)),
            On::SecondIfThere => at(1).is_some_and(exists).then(|| at(1)),
            On::FirstIfNew => (!at(0).is_some_and(exists)).then(|| at(0)),
            On::Machine => Some(None),
        };
        self.decisions.iter().filter_map(|(action, on)| Some((*action, asked(*on)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guard_common::action::Action;

    #[test]
    fn every_decision_is_an_action_of_the_table() {
        for operation in OPERATIONS {
            for (action, on) in operation.decisions {
                assert!(Action::from_name(action).is_some(), "{action}");
                let needs = match on {
                    On::First | On::FirstIfNew => 1,
                    On::Second | On::SecondIfThere => 2,
                    On::Machine => 0,
                };
                assert!(operation.arguments.len() >= needs, "{}", operation.name);
            }
        }
    }

    #[test]
    fn a_rename_is_up_to_three_decisions() {
        let arguments = ["/a".to_owned(), "/b".to_owned()];
        let rename = operation("rename").unwrap();
        let names = |exists: bool| -> Vec<_> {
            rename
                .decisions(&arguments, &|_| exists)
                .into_iter()
                .map(|(action, on)| (action, on.unwrap()))
                .collect()
        };
        assert_eq!(names(false), [("file.rename", "/a"), ("file.create", "/b")]);
        assert_eq!(names(true)[2], ("file.remove", "/b"));
    }
}
