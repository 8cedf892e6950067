//! What kind of program a file is, by its first bytes and its dynamic section.

use object::elf::{DT_NEEDED, FileHeader64, PT_INTERP};
use object::endian::Endianness;
use object::read::elf::{FileHeader, ProgramHeader};

/// A kind of program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// An ELF file with an interpreter: the dynamic loader maps libraries into it.
    Dynamic {
        /// The libraries it names.
        libraries: Vec<String>,
    },
    /// An ELF file that needs nothing.
    Static,
    /// A text that an interpreter runs.
    Script {
        /// The interpreter, as the first line names it; that of `env` is looked through.
        interpreter: String,
    },
    /// Something else, or nothing that could be read.
    Unknown,
}

/// A run-time system that includes know about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Runtime {
    /// CPython.
    Python,
    /// Node.js.
    Node,
    /// A shell.
    Shell,
}

impl Program {
    /// The kind of the program with these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(b"#!") {
            return script(bytes);
        }
        elf(bytes).unwrap_or(Self::Unknown)
    }

    /// Whether one of its libraries begins with `name`.
    pub fn needs(&self, name: &str) -> bool {
        matches!(self, Self::Dynamic { libraries } if libraries.iter().any(|library| library.starts_with(name)))
    }
}

impl Runtime {
    /// The run-time system that a program of this name is, `python3.11` for example.
    pub fn of(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        match stem {
            "python" | "pypy" => Some(Self::Python),
            "node" | "nodejs" => Some(Self::Node),
            "sh" | "bash" | "dash" | "ksh" | "zsh" | "busybox" => Some(Self::Shell),
            _ => None,
        }
    }
}

fn script(bytes: &[u8]) -> Program {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line.get(2..).unwrap_or_default());
    let mut words = line.split_whitespace();
    let first = words.next().unwrap_or_default();
    let through_env = first.ends_with("/env");
    let named =
        if through_env { words.find(|word| !word.starts_with('-') && !word.contains('=')) } else { None };
    match named.unwrap_or(first) {
        "" => Program::Unknown,
        interpreter => Program::Script { interpreter: interpreter.to_owned() },
    }
}

fn elf(bytes: &[u8]) -> Option<Program> {
    let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, bytes).ok()?;
    if segments.iter().all(|segment| segment.p_type(endian) != PT_INTERP) {
        return Some(Program::Static);
    }
    let libraries = || {
        let table = header.sections(endian, bytes).ok()?.dynamic_table(endian, bytes).ok()?;
        let needed = table.iter().filter(|entry| entry.tag == DT_NEEDED);
        let names = needed.filter_map(|entry| table.string(entry).ok());
        Some(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    };
    Some(Program::Dynamic { libraries: libraries().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_dynamic_and_needs_the_c_library() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let program = Program::of(&bytes);
        assert!(program.needs("libc.so") && !program.needs("libssl.so"), "{program:?}");
    }

    #[test]
    fn interpreters_are_found_through_env() {
        let script = |text: &str| match Program::of(text.as_bytes()) {
            Program::Script { interpreter } => interpreter,
            other => format!("{other:?}"),
        };
        assert_eq!(script("#!/usr/bin/python3\nimport os\n"), "/usr/bin/python3");
        assert_eq!(script("#! /bin/sh -e"), "/bin/sh");
        assert_eq!(script("#!/usr/bin/env -S FOO=1 node --harmony\n"), "node");
        assert_eq!(script("#!\n"), "Unknown");
    }

    #[test]
    fn damaged_files_are_unknown() {
        for bytes in [&b""[..], b"\x7fELF", b"\x7fELF\x02\x01\x01", &[0xff; 64]] {
            assert_eq!(Program::of(bytes), Program::Unknown);
        }
    }

    #[test]
    fn runtimes_are_known_by_name() {
        let cases = [
            ("/usr/bin/python3.11", Some(Runtime::Python)),
            ("node", Some(Runtime::Node)),
            ("/bin/dash", Some(Runtime::Shell)),
            ("/usr/sbin/nginx", None),
            ("/usr/bin/pythonish", None),
        ];
        for (name, wanted) in cases {
            assert_eq!(Runtime::of(name), wanted, "{name}");
        }
    }
}
