//! Subjects that govern what a kernel has no hook for.

use super::*;
use crate::policy::{EffectiveSet, Facts, Unenforceable};
use guard_common::action::Action;

/// A host whose kernel lets nobody see unix datagrams.
fn lacking() -> Host {
    Host { undecided: Action::UnixSend.bit(), ..host() }
}

/// A bundle that permits `web` everything, with this line in its definition.
fn bundle(governs: &str, line: &str) -> Directory {
    let toml =
        format!("{TOML}[subjects.web]\nselector = {{ user = \"web\" }}\ngoverns = [{governs}]\n{line}\n");
    Directory::new(&[
        ("guard.toml", &toml),
        ("web.cedar", "@id(\"all\") permit (principal, action, resource);"),
    ])
}

fn on(host: &Host, directory: &Directory) -> Result<Compiled, Diagnostics> {
    compile(&load(&directory.0).unwrap(), host, &mut SubjectIds::default())
}

fn says(compiled: &Compiled, text: &str) -> bool {
    compiled.notes.iter().any(|note| note.message.contains(text))
}

#[test]
fn by_default_it_is_said_and_the_rest_is_enforced() {
    for line in ["", "unenforceable = \"accept\""] {
        let compiled = on(&lacking(), &bundle("\"*\"", line)).unwrap();
        assert!(says(&compiled, "web: this kernel has no hook for these governed actions: unix.send"));
        assert!(allowed(&compiled, "web", "file.read", "/etc/x"));
    }
}

#[test]
fn deny_forbids_all_that_is_governed_and_nothing_else() {
    let directory = bundle("\"read\", \"unix.*\"", "unenforceable = \"deny\"");
    let compiled = on(&lacking(), &directory).unwrap();
    assert!(says(&compiled, "all that it governs is denied"));
    assert!(!allowed(&compiled, "web", "file.read", "/etc/x"));
    assert!(allowed(&compiled, "web", "file.write", "/etc/x"));
    assert!(
        allowed(&on(&host(), &directory).unwrap(), "web", "file.read", "/etc/x"),
        "on a kernel with all hooks"
    );
    // The oracle is asked over a set that says so, and the set is shown.
    let set = EffectiveSet::new(&load(&directory.0).unwrap(), &lacking(), &Facts::default()).unwrap();
    let policy = set.get("generated/unenforceable@web").unwrap();
    assert!(!policy.permit && policy.actions & Action::FileRead.bit() != 0);
    let text = set.text(&load(&directory.0).unwrap(), Some("web")).unwrap();
    assert!(text.contains("this kernel cannot enforce all that the subject governs"), "{text}");
}

#[test]
fn stop_refuses_the_bundle() {
    let directory = bundle("\"*\"", "unenforceable = \"stop\"");
    let errors = on(&lacking(), &directory).unwrap_err().to_string();
    assert!(errors.contains("error[unenforceable]") && errors.contains("unix.send"), "{errors}");
    assert!(on(&host(), &directory).is_ok());
}

#[test]
fn what_is_not_governed_does_not_matter() {
    let compiled = on(&lacking(), &bundle("\"file.*\"", "unenforceable = \"stop\"")).unwrap();
    assert!(!says(&compiled, "this kernel has no hook"));
}

#[test]
fn the_choice_is_one_of_three_words() {
    let definition = |line| load(&bundle("\"*\"", line).0);
    assert_eq!(definition("").unwrap().subjects().next().unwrap().unenforceable, Unenforceable::Accept);
    assert!(definition("unenforceable = \"ignore\"").is_err());
}
