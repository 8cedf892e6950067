//! Successors: what is proven of narrower ones, and what is refused to those with more rights.

use super::*;
use crate::policy::{Seat, compile_seated};
use guard_common::path::{SUCCESSOR_SECURE, SUCCESSOR_WIDENS};

const NARROW: &str = "{ \"tool\" = { by = \"exec\", of = \"/opt/tool\", narrowing = true } }";
const WIDE: &str = "{ \"tool\" = { by = \"exec\", of = \"/opt/tool\" } }";

/// A bundle in which `web` may read below /srv and becomes `tool`, with more policies and lines for both.
fn bundle(successors: &str, tool: &str, cedar: &str) -> Directory {
    let toml = format!(
        "{TOML}[subjects.web]\nselector = {{ user = \"web\" }}\ngoverns = [\"*\"]\nsuccessors = {successors}\n\
         [subjects.tool]\ngoverns = [\"*\"]\n{tool}\n"
    );
    let read = "@id(\"read\") permit (principal == Guard::Subject::\"web\", action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/srv\");\n";
    Directory::new(&[("guard.toml", &toml), ("web.cedar", &format!("{read}{cedar}"))])
}

/// A policy about `tool`.
fn tool(effect: &str, action: &str, resource: &str) -> String {
    format!(
        "@id(\"{effect}\") {effect} (principal == Guard::Subject::\"tool\", action == Guard::Action::\"{action}\", resource) when {{ {resource} }};\n"
    )
}

#[test]
fn a_narrower_successor_is_proven_and_begins_with_its_file() {
    let cedar = tool("permit", "file.read", "resource in Guard::Dir::\"/srv/www\"");
    let compiled = compiled(&bundle(NARROW, "", &cedar));
    let (web, tool) = (number(&compiled, "web"), number(&compiled, "tool"));
    let becomes = |path: &str, subject| {
        let (device, path) = place(path);
        Walker::new(&compiled.generation).successor(device, &path, subject)
    };
    assert_eq!(becomes("/opt/tool", web), tool);
    for path in ["/opt/tool/x", "/opt", "/opt/tool2", "/srv/www/tool"] {
        assert_eq!(becomes(path, web), 0, "{path}");
    }
    assert_eq!(becomes("/opt/tool", tool), 0, "there is no way back, nor a second one");
    assert_eq!(becomes("/opt/tool", 0), 0);
    assert!(compiled.exec_successors[0].narrowing && compiled.exec_selectors.is_empty());
}

#[test]
fn a_counterexample_is_named_with_the_place_of_the_declaration() {
    for (resource, action, more) in [
        ("resource in Guard::Dir::\"/etc\"", "file.read", "file.read /etc/**"),
        ("resource in Guard::Dir::\"/srv\"", "file.write", "file.write /srv/**"),
        ("resource.name like \"*.pem\"", "file.read", "(named *.pem)"),
        (
            "resource in Guard::Net::\"10.0.0.0/8\" && resource.port == 80",
            "net.connect",
            "net.connect 10.0.0.0/8 (port 80)",
        ),
        ("resource == Guard::Capability::\"sys_admin\"", "sys.cap", "sys.cap sys_admin"),
        (
            "resource has subject && resource.subject == Guard::Subject::\"web\"",
            "proc.signal",
            "processes (of web)",
        ),
    ] {
        let text = errors(&bundle(NARROW, "", &tool("permit", action, resource)));
        assert!(
            text.contains("web → tool: narrowing = true, but tool may ") && text.contains(more),
            "{text}"
        );
        assert!(text.contains("guard.toml:8:16"), "{text}");
    }
}

#[test]
fn what_is_a_subjects_own_is_compared_as_its_own() {
    let own = "resource has subject && resource.subject == principal";
    let both = tool("permit", "proc.signal", own)
        + "@id(\"own\") permit (principal == Guard::Subject::\"web\", action == Guard::Action::\"proc.signal\", resource) when { resource has subject && resource.subject == principal };\n";
    assert_eq!(errors(&bundle(NARROW, "", &both)), "");
    assert!(
        errors(&bundle(NARROW, "", &tool("permit", "proc.signal", own))).contains("(of its own subject)")
    );
    // What is forbidden of somebody else's processes is none of it, what is forbidden of one's own is.
    let forbid = |of: &str| {
        format!(
            "{both}@id(\"no\") forbid (principal == Guard::Subject::\"web\", action == Guard::Action::\"proc.signal\", resource) when {{ resource has subject && resource.subject == Guard::Subject::\"{of}\" }};\n"
        )
    };
    let toml = "[subjects.other]\nselector = { user = \"ci\" }\ngoverns = [\"*\"]";
    assert_eq!(errors(&bundle(NARROW, toml, &forbid("other"))), "");
    assert!(errors(&bundle(NARROW, toml, &forbid("web"))).contains("(of its own subject)"));
}

#[test]
fn a_condition_of_posture_counts_in_every_state() {
    let approvals = "[approvals]\nfix = { approvers = [\"group:oncall\"], max = \"30m\" }\n";
    let cedar =
        tool("permit", "file.write", "resource in Guard::Dir::\"/srv\" && context.leases.contains(\"fix\")");
    let text = errors(&bundle(NARROW, approvals, &cedar));
    assert!(text.contains("tool may file.write /srv/**") && text.contains("with the lease fix"), "{text}");
    let too = cedar.replace("\"tool\"", "\"web\"").replace("@id(\"permit\")", "@id(\"too\")");
    assert_eq!(errors(&bundle(NARROW, approvals, &format!("{cedar}{too}"))), "");
}

#[test]
fn a_forbid_of_the_parent_is_missed_and_what_is_not_governed_is_more() {
    let forbid = "@id(\"no\") forbid (principal == Guard::Subject::\"web\", action, resource in Guard::Dir::\"/srv/secret\");\n";
    let read = tool("permit", "file.read", "resource in Guard::Dir::\"/srv\"");
    let text = errors(&bundle(NARROW, "", &format!("{forbid}{read}")));
    assert!(text.contains("tool may file.read /srv/secret/** and web may not"), "{text}");
    let toml = "[subjects.other]\nselector = { user = \"ci\" }\ngoverns = [\"exec.*\"]\nsuccessors = { \"tool\" = { by = \"adopt\", narrowing = true } }";
    assert_eq!(errors(&bundle(NARROW, toml, &read)), "", "who does not govern it may do it");
    let text = errors(&bundle(&NARROW.replace("tool", "other"), toml, &read));
    assert!(text.contains("web → other: narrowing = true, but other may "), "{text}");
}

#[test]
fn a_name_that_a_path_has_rules_out_what_it_has_not() {
    let web = "@id(\"conf\") permit (principal == Guard::Subject::\"web\", action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/etc\") when { resource.name like \"*.conf\" };\n";
    let one = tool("permit", "file.read", "resource == Guard::File::\"/etc/app.conf\"");
    assert_eq!(errors(&bundle(NARROW, "", &format!("{web}{one}"))), "");
    let other = one.replace("app.conf", "app.key");
    assert!(errors(&bundle(NARROW, "", &format!("{web}{other}"))).contains("file.read /etc/app.key"));
}

#[test]
fn a_successor_that_is_only_watched_is_not_narrower() {
    let modes = "[modes]\ntool = \"monitor\"\n";
    assert!(errors(&bundle(NARROW, modes, "")).contains("the successor is in monitor mode"));
    assert_eq!(errors(&bundle(NARROW, "[modes]\ndefault = \"monitor\"\n", "")), "");
}

#[test]
fn more_rights_take_a_file_that_no_subject_may_change() {
    let directory = bundle(WIDE, "", &tool("permit", "file.write", "resource in Guard::Dir::\"/etc\""));
    let made = compiled(&directory);
    let (device, path) = place("/opt/tool");
    assert_eq!(
        Walker::new(&made.generation).successor(device, &path, number(&made, "web")),
        number(&made, "tool") | SUCCESSOR_WIDENS | SUCCESSOR_SECURE
    );
    for (who, rights, resource) in [
        ("web", "file.write", "resource in Guard::Dir::\"/opt\""),
        ("web", "file.create", "resource.name like \"to*\""),
        ("web", "file.setattr", "resource.owner == 0"),
        ("tool", "file.rename", "resource == Guard::File::\"/opt/tool\""),
        ("tool", "file.append", "resource in Guard::Name::\"opt\""),
    ] {
        let cedar = tool("permit", rights, resource).replace("\"tool\",", &format!("\"{who}\","));
        let text = errors(&bundle(WIDE, "", &cedar));
        assert!(text.contains(&format!("web → tool: {who} may {rights} /opt/tool, and so choose")), "{text}");
    }
    let toml = "[subjects.other]\nselector = { user = \"ci\" }\ngoverns = [\"exec.*\"]";
    assert!(errors(&bundle(WIDE, toml, "")).contains("web → tool: other may "));
    let other = "@id(\"x\") permit (principal, action == Guard::Action::\"file.write\", resource in Guard::Dir::\"/opt/other\") when { resource.name like \"*.txt\" };\n";
    assert_eq!(errors(&bundle(WIDE, "", other)), "");
}

#[test]
fn who_may_mount_or_change_its_root_has_no_successor_with_more_rights() {
    for capability in ["sys_admin", "sys_chroot"] {
        let cedar = format!(
            "@id(\"cap\") permit (principal == Guard::Subject::\"web\", action == Guard::Action::\"sys.cap\", resource == Guard::Capability::\"{capability}\");\n"
        );
        let text = errors(&bundle(WIDE, "", &cedar));
        assert!(text.contains(&format!("web may use the capability {capability}")), "{text}");
        assert_eq!(errors(&bundle(WIDE, "", &cedar.replace("\"web\"", "\"tool\""))), "");
    }
}

#[test]
fn a_successor_with_more_rights_is_kept_apart_from_its_parent() {
    let all = "@id(\"all\") permit (principal, action in Guard::Action::\"proc.*\", resource);\n";
    let directory = bundle(WIDE, "", all);
    let made = compiled(&directory);
    let other = |of: &str| processes(&made, "web", Some(number(&made, of)));
    for action in ["proc.trace", "proc.signal"] {
        assert_ne!(ask(&made, "web", action, other("tool")).denied, 0);
        assert_eq!(ask(&made, "web", action, other("web")).denied, 0);
        assert_eq!(
            ask(&made, "tool", action, processes(&made, "tool", Some(number(&made, "web")))).denied,
            0
        );
    }
    let loaded = load(&directory.0).unwrap();
    let set = EffectiveSet::new(&loaded, &host(), &Facts::default()).unwrap();
    assert!(set.get("generated/apart:web:tool").is_some_and(|policy| !policy.permit));
    valid(&loaded, &set);
    let narrow = bundle(NARROW, "", "");
    assert!(
        EffectiveSet::new(&load(&narrow.0).unwrap(), &host(), &Facts::default())
            .unwrap()
            .get("generated/apart:web:tool")
            .is_none()
    );
}

#[test]
fn declarations_that_mean_nothing_are_refused() {
    for (successors, wanted) in [
        ("{ \"tool\" = { by = \"exec\", narrowing = true } }", "tool: of is missing"),
        ("{ \"tool\" = { by = \"adopt\" } }", "a session cannot give more rights"),
        ("{ \"tool\" = { by = \"adopt\", of = \"/x\", narrowing = true } }", "belong to by = \"exec\""),
        ("{ \"tool\" = { by = \"fork\" } }", "entered by exec or by adopt"),
        ("{ \"web\" = { by = \"adopt\", narrowing = true } }", "no successor of its own"),
        ("{ \"tool\" = { by = \"exec\", of = \"/opt/tool\", secureexec = false } }", "always told"),
        ("{ \"tool\" = { by = \"exec\", of = \"opt/tool\" } }", "is not an absolute path"),
        ("{ \"tool\" = { by = \"exec\", of = \"/home/ann/link\" } }", "symbolic link that others than root"),
        ("{ \"tool\" = { by = \"exec\", of = \"/usr/lib/systemd/systemd\" } }", "the service manager"),
    ] {
        let text = errors(&bundle(successors, "", ""));
        assert!(text.contains(wanted), "{successors}: {text}");
    }
    let two = "{ \"tool\" = { by = \"exec\", of = \"/opt/tool\", narrowing = true }, \"more\" = { by = \"exec\", of = \"/opt/tool\", narrowing = true } }";
    assert!(
        errors(&bundle(two, "[subjects.more]\ngoverns = [\"*\"]", "")).contains("already begins another")
    );
}

#[test]
fn a_session_with_variables_is_compared_with_its_values() {
    let toml = "session = { tree = { kind = \"dir\" } }";
    let cedar = tool("permit", "file.read", "resource in Guard::Dir::\"${session.tree}\"");
    let directory = bundle("{ \"tool\" = { by = \"adopt\", narrowing = true } }", toml, &cedar);
    let bundle = load(&directory.0).unwrap();
    let (mut ids, host) = (SubjectIds::default(), host());
    let seat = |row, tree: &str| Seat {
        row,
        session: u64::from(row),
        subject: "tool".to_owned(),
        variables: [("tree".to_owned(), tree.to_owned())].into(),
    };
    let seats = [seat(40, "/srv/www"), seat(41, "/etc")];
    let compiled = compile_seated(&bundle, (None, &seats), &host, &Facts::default(), &mut ids).unwrap();
    let web = number(&compiled, "web");
    assert_eq!(compiled.wider(&bundle, &host, web, 40), None);
    assert_eq!(compiled.wider(&bundle, &host, web, 41).as_deref(), Some("file.read /etc/**"));
    assert!(compiled.wider(&bundle, &host, 99, 40).is_some(), "a row that is not there may do nothing");
}

#[test]
fn a_session_that_could_change_what_begins_more_rights_is_found() {
    let toml = "[subjects.coder]\nselector = { adopt = [\"user:ci\"] }\ngoverns = [\"*\"]\nsession = { tree = { kind = \"dir\" } }";
    let cedar = "@id(\"tree\") permit (principal == Guard::Subject::\"coder\", action in Guard::Action::\"file.*\", resource in Guard::Dir::\"${session.tree}\");\n";
    let directory = bundle(WIDE, toml, cedar);
    let bundle = load(&directory.0).unwrap();
    let (mut ids, host) = (SubjectIds::default(), host());
    let seats = [(40, "/opt"), (41, "/data")].map(|(row, tree)| Seat {
        row,
        session: u64::from(row),
        subject: "coder".to_owned(),
        variables: [("tree".to_owned(), tree.to_owned())].into(),
    });
    let compiled = compile_seated(&bundle, (None, &seats), &host, &Facts::default(), &mut ids).unwrap();
    assert_eq!(compiled.changes_beginning(&bundle, &host, 40), Some("/opt/tool".into()));
    assert_eq!(compiled.changes_beginning(&bundle, &host, 41), None);
}
