//! Sessions with variables.

use super::*;
use crate::policy::{Seat, compile_beside, compile_seated};
use guard_common::decide::Reason;

const TREES: &str = "[subjects.job]\nselector = { adopt = [\"user:web\"] }\ngoverns = [\"*\"]\n\
     session = { tree = { kind = \"dir\" } }\n";
const POLICY: &str = "@id(\"tree\") permit (principal == Guard::Subject::\"job\", action in Guard::Action::\"file.*\",\n\
     resource in Guard::Dir::\"${session.tree}\");\n\
     @id(\"all\") permit (principal == Guard::Subject::\"job\", action == Guard::Action::\"file.read\",\n\
     resource in Guard::Dir::\"/usr\");\n";

fn seat(row: u32, session: u64, tree: &str) -> Seat {
    let variables = [("tree".to_owned(), tree.to_owned())].into();
    Seat { row, session, subject: "job".to_owned(), variables }
}

fn may(compiled: &Compiled, row: u32, session: u64, action: &str, path: &str) -> Result<bool, Reason> {
    let found = walk(compiled, path, &file(1000, false));
    let required = Action::from_name(action).unwrap().bit();
    let query = Query { subject: row, session, class: found.class, features: found.features, required };
    let decision = decide(&compiled.generation, &query, || 0);
    match decision.reason {
        Reason::Policy => Ok(decision.denied == 0),
        reason => Err(reason),
    }
}

fn bundle(policy: &str) -> (Directory, Bundle) {
    let directory = Directory::new(&[("guard.toml", &format!("{TOML}{TREES}")), ("job.cedar", policy)]);
    let bundle = load(&directory.0).unwrap();
    (directory, bundle)
}

#[test]
fn each_session_has_its_own_literals_and_its_subjects_policies() {
    let (_directory, bundle) = bundle(POLICY);
    let seats = [seat(40, 7, "/data/one"), seat(41, 8, "/data/two")];
    let mut ids = SubjectIds::default();
    let compiled = compile_seated(&bundle, (None, &seats), &host(), &Facts::default(), &mut ids).unwrap();
    for (row, session, own, other) in
        [(40, 7, "/data/one/x", "/data/two/x"), (41, 8, "/data/two/x", "/data/one/x")]
    {
        assert_eq!(may(&compiled, row, session, "file.write", own), Ok(true));
        assert_eq!(may(&compiled, row, session, "file.write", other), Ok(false));
        assert_eq!(may(&compiled, row, session, "file.read", "/usr/x"), Ok(true));
        // The row of another session decides nothing.
        assert_eq!(may(&compiled, row, 99, "file.read", "/usr/x"), Err(Reason::SubjectRemoved));
    }
    let subject = number(&compiled, "job");
    for path in ["/data/one/x", "/data/two/x"] {
        assert_eq!(may(&compiled, subject, 0, "file.write", path), Ok(false));
    }
    assert_eq!(may(&compiled, subject, 5, "file.read", "/usr/x"), Ok(true), "a session without variables");
}

#[test]
fn a_session_is_decided_as_cedar_decides_with_its_variables() {
    let (_directory, bundle) = bundle(POLICY);
    let host = host();
    let seats = [seat(40, 7, "/data/one")];
    let compiled =
        compile_seated(&bundle, (None, &seats), &host, &Facts::default(), &mut SubjectIds::default())
            .unwrap();
    let facts = Facts { session: seats[0].variables.clone(), ..Facts::default() };
    let alone = compile_with(&bundle, &host, &facts, &mut SubjectIds::default()).unwrap();
    for action in ["file.read", "file.write", "exec"] {
        for path in ["/data/one", "/data/one/x", "/data/onex", "/data/two", "/usr/x", "/etc"] {
            assert_eq!(
                may(&compiled, 40, 7, action, path),
                may(&alone, number(&alone, "job"), 0, action, path),
                "{action} {path}"
            );
        }
    }
}

#[test]
fn a_shadow_is_compared_for_sessions_as_well() {
    let (_directory, live) = bundle(POLICY);
    let (_other, shadow) = bundle(&POLICY.replace("file.*", "read"));
    let seats = [seat(40, 7, "/data/one")];
    let compiled = compile_seated(
        &live,
        (Some(&shadow), &seats),
        &host(),
        &Facts::default(),
        &mut SubjectIds::default(),
    )
    .unwrap();
    let found = walk(&compiled, "/data/one/x", &file(1000, false));
    let differs = |action: &str| {
        let required = Action::from_name(action).unwrap().bit();
        let query = Query { subject: 40, session: 7, class: found.class, features: found.features, required };
        decide(&compiled.generation, &query, || 0).shadow() != 0
    };
    assert!(differs("file.write") && !differs("file.read"));
}

#[test]
fn a_session_of_a_subject_that_is_not_there_has_no_row() {
    let (_directory, bundle) = bundle(POLICY);
    let other = Seat { subject: "other".to_owned(), ..seat(40, 7, "/data/one") };
    let mut ids = SubjectIds::default();
    let compiled = compile_seated(&bundle, (None, &[other]), &host(), &Facts::default(), &mut ids).unwrap();
    assert!(!compiled.has_row(40));
    assert_eq!(may(&compiled, 40, 7, "file.read", "/usr/x"), Err(Reason::SubjectRemoved));
}

#[test]
fn a_session_that_names_a_link_does_not_compile() {
    let (_directory, bundle) = bundle(POLICY);
    let seats = [seat(40, 7, "/home/ann/link/tree")];
    assert!(!seats[0].fits(&host()) && seat(40, 7, "/home/ann/tree").fits(&host()));
    let mut ids = SubjectIds::default();
    assert!(compile_seated(&bundle, (None, &seats), &host(), &Facts::default(), &mut ids).is_err());
    assert!(compile_beside(&bundle, None, &host(), &Facts::default(), &mut ids).is_ok());
}

#[test]
fn what_guard_toml_says_of_sessions_is_checked() {
    for (text, expected) in [
        ("selector = { adopt = [\"ann\"] }", "error[adopt]: job: \"ann\" is neither a user nor a group"),
        (
            "selector = { adopt = [\"user:web\"] }\nsession = { tree = { kind = \"socket\" } }",
            "error[session]: job: a session variable cannot be a socket",
        ),
        (
            "selector = { adopt = [\"user:web\"] }\nsession = { tree = { kind = \"dir\", under = \"home/*\" } }",
            "error[session]: job: \"home/*\" is not the path of a directory",
        ),
        (
            "selector = { adopt = [\"user:web\"] }\nsession = { tree = { kind = \"dir\", owner = \"root\" } }",
            "error[session]: job: the owner cannot be root",
        ),
        (
            "selector = { adopt = [\"user:web\"] }\nsession = { tree = { kind = \"dir\", value = \"${PATH}/x\" } }",
            "error[session]: job: \"${PATH}/x\" is not a path",
        ),
        (
            "selector = { adopt = [\"user:web\"] }\nsession = { Tree = { kind = \"dir\" } }",
            "error[session]: job: \"Tree\" is not the name of a session variable",
        ),
    ] {
        let toml = format!("{TOML}[subjects.job]\ngoverns = [\"*\"]\n{text}\n");
        let directory = Directory::new(&[("guard.toml", &toml)]);
        let found = match load(&directory.0) {
            Ok(_) => String::new(),
            Err(errors) => errors.to_string(),
        };
        assert!(found.contains(expected), "{text}: {found}");
    }
    let directory = Directory::new(&[
        ("guard.toml", &format!("{TOML}{TREES}")),
        (
            "job.cedar",
            "@id(\"no\") forbid (principal, action in Guard::Action::\"file.*\", resource in Guard::Dir::\"${session.tree}\");",
        ),
    ]);
    let errors = load(&directory.0).and_then(|bundle| compile(&bundle, &host(), &mut SubjectIds::default()));
    let errors = errors.unwrap_err().to_string();
    assert!(errors.contains("cannot be enforced outside of a session"), "{errors}");
}
