//! The codes of findings: what each means and what to write instead. `docs/lint.md` is made of this.

use crate::policy::{Diagnostic, Severity};

/// One kind of finding.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    /// Its stable name.
    pub name: &'static str,
    /// A warning makes the command answer no; a note does not.
    pub severity: Severity,
    /// What is the case.
    pub what: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What to write instead.
    pub instead: &'static str,
}

/// Every kind of finding.
pub const CODES: &[Code] = &[
    Code {
        name: "broad",
        severity: Severity::Warning,
        what: "A permit holds for every resource that the action can be taken on: every path, every address.",
        why: "What is permitted everywhere is not restricted by anything but a forbid.",
        instead: "Name directories and networks; give up an action in `governs` if policy is not to decide it.",
    },
    Code {
        name: "sensitive",
        severity: Severity::Warning,
        what: "A subject may do something that ends in control of the host, or in everybody's secrets: write what root executes or reads, read password hashes or raw memory, connect to a container runtime.",
        why: "Whoever may do that may do everything, whatever else policy says.",
        instead: "Narrow the permit, or add a forbid for the place.",
    },
    Code {
        name: "exec-of-own-files",
        severity: Severity::Warning,
        what: "A subject may execute files that it may also create or write.",
        why: "A list of programs restricts nothing then: the subject writes, or copies, whatever it wants to run to where it may execute.",
        instead: "Permit exec where the subject cannot write, or forbid exec in the directory that it writes.",
    },
    Code {
        name: "exec-by-file-modes",
        severity: Severity::Note,
        what: "A subject's policy decides what it executes, but not what it writes.",
        why: "Its programs are what file modes let it write, so the list restricts a subject that is not root, and no other.",
        instead: "Add `mutate` to `governs` and permit what it writes.",
    },
    Code {
        name: "evaded-by-copy",
        severity: Severity::Warning,
        what: "A forbid on exec names programs that the subject may read, and there is a place where it may write and execute.",
        why: "A copy has another name. A list of what must not run only holds if nothing can be added to what may.",
        instead: "Permit the programs that may run instead of forbidding others, and forbid exec where the subject writes.",
    },
    Code {
        name: "shadowed",
        severity: Severity::Warning,
        what: "Removing the policy changes no decision of any subject on any resource.",
        why: "It says something that other policies say already or undo; whoever changes it will wonder why nothing happens.",
        instead: "Remove it, or narrow the policy that shadows it.",
    },
    Code {
        name: "idle-forbid",
        severity: Severity::Note,
        what: "A forbid names only what no policy permits.",
        why: "It changes nothing today. It may be there for permits to come: it keeps them out.",
        instead: "Keep it if that is what it is for.",
    },
    Code {
        name: "never-matches",
        severity: Severity::Warning,
        what: "No request of any subject can match the policy.",
        why: "Its subject or group is not in the bundle, or its condition contradicts itself.",
        instead: "Correct the name or the condition, or remove the policy.",
    },
    Code {
        name: "impossible",
        severity: Severity::Warning,
        what: "A condition compares with what no resource can be: a port above 65535, a negative owner, a path below a file.",
        why: "The comparison has the same answer for everything.",
        instead: "Correct the literal.",
    },
    Code {
        name: "versioned-path",
        severity: Severity::Warning,
        what: "A literal names a file with a version in its name, and there is a link without one that leads to it.",
        why: "After an upgrade the file has another name and the policy misses it.",
        instead: "Name the link: Guard follows it at every compilation.",
    },
    Code {
        name: "versioned-link",
        severity: Severity::Note,
        what: "A literal leads through a link to a place with a version in its name.",
        why: "The place is looked up when the policy is compiled; after an upgrade or a deployment the old one counts until then.",
        instead: "Name the directory above the versions, or have the policy applied again by whatever moves the link.",
    },
    Code {
        name: "no-owner",
        severity: Severity::Warning,
        what: "A subject does not say who answers for it.",
        why: "Somebody has to be asked when it is denied something, and when it should go.",
        instead: "Write `owner = \"team@example\"` in `[subjects.NAME]`.",
    },
    Code {
        name: "no-processes",
        severity: Severity::Warning,
        what: "Everything that attaches the label is missing on this host: accounts, units, executables.",
        why: "No process gets the label, so nothing of the subject's policy is in force.",
        instead: "Correct the selector, or leave the subject out of this host's bundle.",
    },
    Code {
        name: "widening-successor",
        severity: Severity::Warning,
        what: "A subject can become one of which it is not proven that it may do no more.",
        why: "That is what sudo is: everything the first one controls about the second's start is a way to its rights.",
        instead: "Write `narrowing = true` and take what is more away from the successor, or accept the edge knowingly: [identity](identity.md#successors) says what keeps it.",
    },
    Code {
        name: "older-include",
        severity: Severity::Warning,
        what: "The bundle has its own copy of an include that this agent ships, and the two differ.",
        why: "The copy counts. What was corrected in the shipped one since is missing.",
        instead: "Build the bundle again, or give the include a name of its own if it is meant to differ.",
    },
];

/// The code with this name.
fn code(name: &str) -> Option<&'static Code> {
    CODES.iter().find(|code| code.name == name)
}

/// A finding at the place of `at`. Without `help`, the code's own advice.
pub(super) fn finding(
    name: &'static str,
    message: String,
    at: Diagnostic,
    help: Option<String>,
) -> Diagnostic {
    let known = code(name);
    Diagnostic {
        severity: known.map_or(Severity::Warning, |code| code.severity),
        code: name,
        message,
        help: help.or_else(|| known.map(|code| as_advice(code.instead))),
        ..at
    }
}

/// A sentence of the documentation as one of a diagnostic, which begins with a small letter.
fn as_advice(sentence: &str) -> String {
    let mut letters = sentence.chars();
    let first = letters.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
    format!("{first}{}", letters.as_str().trim_end_matches('.'))
}

/// `docs/lint.md`.
pub fn reference() -> String {
    let mut text = String::from(
        "# What `guardctl policy lint` finds\n\n\
         Generated from the table in `guard-agent/src/analysis/lint/codes.rs`; a test compares this file with it. To write it again: \
         `GUARD_BLESS=1 cargo test -p guard-agent --lib lint`.\n\n\
         `guardctl policy lint BUNDLE` examines a valid bundle for this host. It ends with 0 if there is no warning, with 1 if there is one, and with 6 \
         if the bundle is not valid. What the compiled tables can tell is decided exactly, over every resource that the literals of the bundle tell apart. \
         What depends on posture facts, on who listens or on who signed, or on too many names and attributes at once, is not decided, and said.\n",
    );
    for code in CODES {
        text.push_str(&format!(
            "\n## `{}` ({})\n{} {}\n\n{}\n",
            code.name, code.severity, code.what, code.why, code.instead
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lint_is_documented() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/lint.md");
        if std::env::var_os("GUARD_BLESS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), reference(), "run with GUARD_BLESS=1");
    }
}
