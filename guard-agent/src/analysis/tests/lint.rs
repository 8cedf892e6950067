//! What looks wrong: each code has a bundle that has it and one that has not.

use super::*;
use crate::analysis::lint::{CODES, Report, lint};

fn report(bundle: &Bundle) -> Report {
    lint(bundle, &host()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// `code: message`, one for each finding.
fn found(bundle: &Bundle) -> Vec<String> {
    let report = report(bundle);
    report.findings.iter().map(|finding| format!("{}: {}", finding.code, finding.message)).collect()
}

const READ: &str = "@id(\"read\") permit (principal == Guard::Subject::\"web\", action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/srv/www\");\n";

#[test]
fn a_bundle_without_faults_has_no_findings() {
    assert_eq!(found(&web(READ)), Vec::<String>::new());
}

#[test]
fn a_finding_points_at_the_policy_and_says_what_to_write() {
    let twice = "@id(\"one\") permit (principal, action == Guard::Action::\"file.read\", resource == Guard::File::\"/srv/www/a\");\n";
    let report = report(&web(&format!("{READ}{twice}")));
    let text = report.findings[0].to_string();
    assert!(text.starts_with("warning[shadowed]: web/one changes no decision: what it permits is permitted by web/read as well\n"), "{text}");
    assert!(text.contains("web.cedar:2:1\n") && text.contains("^^^"), "{text}");
    assert!(text.contains("= help: remove it"), "{text}");
}

#[test]
fn a_policy_is_shadowed_only_if_nothing_changes_without_it() {
    let part = "@id(\"part\") permit (principal, action in Guard::Action::\"read\", resource in Guard::Dir::\"/srv/www\") when { resource.owner == 0 };\n";
    // dir.list is not permitted by the other one.
    assert_eq!(found(&web(&format!("{READ}{part}"))), Vec::<String>::new());
    let forbid = "@id(\"never\") forbid (principal, action, resource in Guard::Dir::\"/srv\");\n";
    assert_eq!(
        found(&web(&format!("{READ}{forbid}"))),
        ["shadowed: web/read changes no decision: what it permits is forbidden by web/never".to_owned(),]
    );
}

#[test]
fn a_forbid_of_what_nothing_permits_is_idle_and_no_warning() {
    let forbid = "@id(\"keys\") forbid (principal, action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/root\");\n";
    let report = report(&web(&format!("{READ}{forbid}")));
    assert_eq!(report.warnings(), 0);
    assert_eq!(report.findings[0].code, "idle-forbid");
}

#[test]
fn contradictions_and_strangers_never_match() {
    let never = "@id(\"both\") permit (principal, action == Guard::Action::\"file.read\", resource == Guard::File::\"/a\") when { resource == Guard::File::\"/b\" };\n\
        @id(\"name\") permit (principal, action == Guard::Action::\"file.read\", resource == Guard::File::\"/a\") when { resource.name like \"*.pem\" };\n\
        @id(\"who\") permit (principal == Guard::Subject::\"wbe\", action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/srv\");\n";
    assert_eq!(
        found(&web(never)),
        ["both", "name", "who"]
            .map(|id| format!("never-matches: web/{id} matches no request that any subject can make"))
    );
}

#[test]
fn what_depends_on_facts_is_not_decided() {
    let toml = format!("{WEB}[facts]\ntrust = {{ type = \"long\" }}\n");
    let policy = "@id(\"t\") permit (principal, action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/srv\") when { context.posture has trust && context.posture.trust > 2 };\n";
    let report = report(&bundle(&[("guard.toml", &toml), ("web.cedar", policy)]));
    assert!(report.findings.is_empty() && report.undecided.len() == 1, "{report:?}");
}

#[test]
fn programs_that_are_written_and_executed_by_the_same_subject() {
    let both = "@id(\"work\") permit (principal, action in [Guard::Action::\"file.*\", Guard::Action::\"exec.*\"], resource in Guard::Dir::\"/srv/work\");\n";
    let text = found(&web(both));
    assert_eq!(text, ["exec-of-own-files: web may execute what it may write by web/work: /srv/work/**"]);
    let apart = "@id(\"no\") forbid (principal, action == Guard::Action::\"exec\", resource in Guard::Dir::\"/srv/work\");\n";
    assert_eq!(found(&web(&format!("{both}{apart}"))), Vec::<String>::new());
    let governs = WEB.replace("[\"*\"]", "[\"exec.*\"]");
    let exec = "@id(\"x\") permit (principal, action == Guard::Action::\"exec\", resource == Guard::File::\"/usr/sbin/nginx\");\n";
    let text = found(&bundle(&[("guard.toml", &governs), ("web.cedar", exec)]));
    assert!(text[0].starts_with("exec-by-file-modes: web:"), "{text:?}");
}

#[test]
fn a_list_of_forbidden_programs_is_evaded_by_a_copy() {
    let policies = "@id(\"usr\") permit (principal, action in [Guard::Action::\"file.read\", Guard::Action::\"exec\"], resource in Guard::Dir::\"/usr\");\n\
        @id(\"tmp\") permit (principal, action in [Guard::Action::\"file.*\", Guard::Action::\"exec\"], resource in Guard::Dir::\"/tmp\");\n\
        @id(\"no-curl\") forbid (principal, action == Guard::Action::\"exec\", resource == Guard::File::\"/usr/bin/curl\");\n";
    let text = found(&web(policies));
    assert!(text.contains(&"evaded-by-copy: web/no-curl is evaded by a copy: web may read /usr/bin/curl and may write and execute in /tmp/**".to_owned()), "{text:?}");
    let closed =
        policies.replace("Guard::Action::\"file.*\", Guard::Action::\"exec\"", "Guard::Action::\"file.*\"");
    assert!(
        !found(&web(&closed)).iter().any(|text| text.starts_with("evaded")),
        "nothing can be run from /tmp"
    );
}

#[test]
fn grants_for_everything_and_for_what_root_trusts() {
    let all = "@id(\"all\") permit (principal, action == Guard::Action::\"file.read\", resource);\n\
        @id(\"net\") permit (principal, action == Guard::Action::\"net.connect\", resource in Guard::Net::\"0.0.0.0/0\");\n\
        @id(\"etc\") permit (principal, action in Guard::Action::\"mutate\", resource in Guard::Dir::\"/etc\");\n\
        @id(\"trace\") permit (principal, action == Guard::Action::\"proc.trace\", resource);\n";
    let text = found(&web(all)).join("\n");
    for wanted in [
        "broad: web/all permits file.read on every path",
        "broad: web/net permits net.connect on every IPv4 address",
        "broad: web/trace permits proc.trace on every process",
        "sensitive: web may file.read /etc/shadow, which reads password hashes",
        "sensitive: web may file.write /etc/ld.so.preload, which runs code in every program",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing in\n{text}");
    }
    let narrow = all.replace("\"file.read\", resource)", "\"file.read\", resource in Guard::Dir::\"/srv\")");
    assert!(!found(&web(&narrow)).iter().any(|text| text.contains("web/all")));
}

#[test]
fn literals_that_move_or_cannot_be() {
    let policies = "@id(\"py\") permit (principal, action == Guard::Action::\"exec\", resource == Guard::File::\"/usr/bin/python3.11\");\n\
        @id(\"app\") permit (principal, action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/srv/app/current\");\n\
        @id(\"below\") permit (principal, action == Guard::Action::\"file.read\", resource == Guard::File::\"/etc/hostname/x\");\n\
        @id(\"port\") permit (principal, action == Guard::Action::\"net.connect\", resource in Guard::Net::\"10.0.0.0/8\") when { resource.port != 70000 };\n";
    assert_eq!(
        found(&web(policies)),
        [
            "versioned-path: /usr/bin/python3.11 has a version in its name; /usr/bin/python3 leads to it",
            "impossible: nothing can be at /etc/hostname/x: /etc/hostname is a file",
            "impossible: no port is 70000, so this comparison has one answer for everything",
            "versioned-link: /srv/app/current leads to /srv/app/releases/2026-11-25, which is what counts until the policy is compiled again",
        ]
    );
}

#[test]
fn subjects_have_an_owner_and_processes() {
    let toml = "[bundle]\nname = \"test\"\nversion = 1\nprofile = 1\n\
        [subjects.web]\nselector = { exe = \"/opt/none\" }\ngoverns = [\"exec.*\"]\n";
    let text = found(&bundle(&[("guard.toml", toml), ("web.cedar", "")]));
    assert_eq!(
        text,
        [
            "no-owner: web does not say who answers for it",
            "no-processes: no process of this host is web: there is no /opt/none"
        ]
    );
}

#[test]
fn every_successor_that_is_not_proven_to_narrow_is_listed() {
    let toml = |how: &str| {
        format!(
            "{WEB}successors = {{ \"tool\" = {{ by = \"exec\", of = \"/opt/tool\"{how} }} }}\n[subjects.tool]\nowner = \"x\"\ngoverns = [\"*\"]\n"
        )
    };
    let more = format!(
        "{READ}@id(\"tool\") permit (principal == Guard::Subject::\"tool\", action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/srv\");\n"
    );
    assert_eq!(
        found(&bundle(&[("guard.toml", &toml("")), ("web.cedar", &more)])),
        [
            "widening-successor: web → tool widens: tool may file.read /srv/** except /srv/www/** and web may not"
        ]
    );
    let less = more.replace("\"/srv\")", "\"/srv/www/a\")");
    assert_eq!(
        found(&bundle(&[("guard.toml", &toml("")), ("web.cedar", &less)])),
        [
            "widening-successor: web → tool widens: the second may do nothing more today, and nothing keeps it so"
        ]
    );
    let narrow = bundle(&[("guard.toml", &toml(", narrowing = true")), ("web.cedar", &less)]);
    assert_eq!(found(&narrow), Vec::<String>::new());
}

#[test]
fn an_include_that_differs_from_the_shipped_one() {
    let toml = WEB.to_owned() + "include = [\"base/own-proc\"]\n";
    let text = |template: &str| {
        found(&bundle(&[("guard.toml", &toml), ("web.cedar", READ), ("includes/old.cedar", template)]))
    };
    let old = "@id(\"base/own-proc\")\npermit (principal == ?principal, action == Guard::Action::\"file.read\", resource in Guard::Dir::\"guard:own-proc\");\n";
    assert_eq!(
        text(old),
        [
            "older-include: base/own-proc is another version of the include than this agent ships, and what counts"
        ]
    );
    let same = old.replace("== Guard::Action::\"file.read\"", "in Guard::Action::\"read\"")
        + "@id(\"base/own-proc:processes\")\npermit (principal == ?principal, action in Guard::Action::\"proc.*\", resource)\nwhen { resource has subject && resource.subject == principal };\n";
    assert_eq!(text(&same), Vec::<String>::new());
}

#[test]
fn the_shipped_example_and_the_reference_can_be_examined() {
    for (path, wanted) in
        [("../examples/quickstart/policy", "exec-of-own-files"), ("src/policy/tests/reference", "sensitive")]
    {
        let report = report(&load(path));
        assert!(report.findings.iter().any(|finding| finding.code == wanted), "{path}: {report:#?}");
        for finding in &report.findings {
            assert!(CODES.iter().any(|code| code.name == finding.code), "{finding}");
            assert!(finding.help.is_some() && finding.place.is_some(), "{finding}");
        }
    }
}

#[test]
fn what_a_lease_or_a_window_lifts_is_neither_shadowed_nor_never_matching() {
    let toml = WEB.replace("[subjects", "[approvals]\nfix = { approvers = [\"group:x\"], max = \"1h\" }\n[windows]\nnight = { days = [\"mon\"], from = \"01:00\", to = \"02:00\", zone = \"UTC\" }\n[subjects");
    let policies = "@id(\"fix\") permit (principal, action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/srv/fix\") when { context.leases.contains(\"fix\") };\n\
        @id(\"day\") forbid (principal, action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/srv/www/day\") when { context.windows.contains(\"night\") };\n";
    let both = format!("{READ}{policies}");
    assert_eq!(found(&bundle(&[("guard.toml", &toml), ("web.cedar", &both)])), Vec::<String>::new());
    let twice = both.replace("/srv/fix", "/srv/www/fix");
    let text = found(&bundle(&[("guard.toml", &toml), ("web.cedar", &twice)]));
    assert_eq!(
        text,
        ["shadowed: web/fix changes no decision: what it permits is permitted by web/read as well"]
    );
}
