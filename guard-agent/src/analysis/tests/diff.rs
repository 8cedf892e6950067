//! What changes between two bundles.

use super::*;
use crate::analysis::diff::{Diff, Sign, diff};
use crate::policy::Facts;

fn changes(before: &Bundle, after: &Bundle) -> Diff {
    diff(before, after, &host(), &Facts::default()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// `+ actions resource condition`, one line for each resource.
fn lines(found: &Diff) -> Vec<String> {
    let mut lines = Vec::new();
    for change in &found.changes {
        let mark = match change.change {
            Sign::NewlyAllowed => "+",
            Sign::NewlyDenied => "-",
            Sign::NewlyReported => "!",
            Sign::NoLongerReported => "~",
        };
        for resource in &change.resources {
            let text = format!("{mark} {} {resource}  {}", change.actions.join(" "), change.condition);
            lines.push(text.trim_end().to_owned());
        }
    }
    lines
}

const SITE: &str = "@id(\"site\") permit (principal == Guard::Subject::\"web\", action in Guard::Action::\"read\", resource in Guard::Dir::\"/srv/www\");\n";

#[test]
fn one_more_file_is_one_line() {
    let more = "@id(\"private\") permit (principal == Guard::Subject::\"web\", action == Guard::Action::\"file.read\", resource == Guard::File::\"/srv/private/x\");\n";
    let found = changes(&web(SITE), &web(&format!("{SITE}{more}")));
    assert_eq!(lines(&found), ["+ file.read /srv/private/x"]);
    assert_eq!(found.changes[0].policies_after, ["web/private"]);
    assert_eq!((found.count(Sign::NewlyAllowed), found.count(Sign::NewlyDenied)), (1, 0));
}

#[test]
fn what_is_written_differently_and_decides_alike_is_the_same() {
    let other = "@id(\"a\") permit (principal is Guard::Subject, action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/srv/www\");\n\
        @id(\"b\") permit (principal, action, resource) when { action == Guard::Action::\"dir.list\" && resource in Guard::Dir::\"/srv/www\" };\n\
        @id(\"c\") forbid (principal, action == Guard::Action::\"file.write\", resource in Guard::Dir::\"/etc\");\n";
    let found = changes(&web(SITE), &web(other));
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_forbid_says_where_and_under_what_condition() {
    let forbid = "@id(\"no\") forbid (principal, action == Guard::Action::\"file.read\", resource) when { resource.name like \"*.pem\" || resource in Guard::Name::\".git\" };\n";
    let found = changes(&web(SITE), &web(&format!("{SITE}{forbid}")));
    assert_eq!(
        lines(&found),
        [
            "- file.read /srv/www/**  named *.pem",
            "- file.read guard:stdio  named *.pem",
            "- file.read /srv/www/**  with .git on the path",
            "- file.read guard:stdio  with .git on the path",
        ]
    );
}

#[test]
fn networks_are_shown_as_networks_and_ports_as_ranges() {
    let net = |networks: &str| {
        format!(
            "@id(\"n\") permit (principal, action == Guard::Action::\"net.connect\", resource) when {{ {networks} }};\n"
        )
    };
    let before = net("resource in Guard::Net::\"10.0.0.0/8\" && resource.port < 1024");
    let after = net(
        "resource in Guard::Net::\"10.0.0.0/9\" && resource.port <= 8080 && resource.protocol == \"tcp\"",
    );
    assert_eq!(
        lines(&changes(&web(&before), &web(&after))),
        [
            "+ net.connect 10.0.0.0/9  ports 1024-8080, tcp",
            "- net.connect 10.0.0.0/9  ports 0-1023, not tcp",
            "- net.connect 10.128.0.0/9  ports 0-1023",
        ]
    );
}

#[test]
fn everything_but_a_place_names_the_place() {
    let all = "@id(\"all\") permit (principal, action == Guard::Action::\"file.read\", resource) unless { resource in Guard::Dir::\"/etc\" };\n";
    let found = changes(&web(""), &web(all));
    let text = lines(&found);
    assert!(text.contains(&"+ file.read any path except /etc/**".to_owned()), "{text:?}");
    assert!(text.contains(&"+ file.read guard:own-proc".to_owned()), "{text:?}");
    // What everybody may read is no change.
    assert!(!text.iter().any(|line| line.contains("guard:own-anonymous")), "{text:?}");
}

#[test]
fn the_same_name_with_other_addresses_is_another_place() {
    let policy = "@id(\"n\") permit (principal, action == Guard::Action::\"net.connect\", resource in Guard::DnsName::\"api.example\");\n";
    let with = |address: &str| {
        let toml = format!("{WEB}[names]\n\"api.example\" = {{ addresses = [\"{address}\"] }}\n");
        bundle(&[("guard.toml", &toml), ("web.cedar", policy)])
    };
    assert_eq!(
        lines(&changes(&with("192.0.2.1"), &with("192.0.2.9"))),
        ["+ net.connect 192.0.2.9 (api.example)", "- net.connect 192.0.2.1 (api.example)"]
    );
}

#[test]
fn monitor_mode_changes_what_is_reported() {
    let monitor = WEB.replace("[subjects", "[modes]\ndefault = \"monitor\"\n[subjects");
    let quiet = bundle(&[("guard.toml", &monitor), ("web.cedar", SITE)]);
    let wide = "@id(\"all\") permit (principal, action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/srv\");\n";
    let wider = bundle(&[("guard.toml", &monitor), ("web.cedar", &format!("{SITE}{wide}"))]);
    assert_eq!(lines(&changes(&quiet, &wider)), ["~ file.read /srv/** except /srv/www/**"]);
    let enforced = changes(&quiet, &web(SITE));
    assert_eq!(enforced.count(Sign::NewlyAllowed), 0);
    assert!(enforced.count(Sign::NewlyDenied) > 20, "what was only reported is denied");
}

#[test]
fn what_no_table_holds_is_compared_too() {
    let caps = |names: &str| {
        format!(
            "@id(\"caps\") permit (principal, action == Guard::Action::\"sys.cap\", resource) when {{ [{names}].contains(resource) }};\n"
        )
    };
    let before = caps("Guard::Capability::\"chown\"");
    let after = caps("Guard::Capability::\"chown\", Guard::Capability::\"setuid\"");
    assert_eq!(lines(&changes(&web(&before), &web(&after))), ["+ sys.cap setuid"]);
}

#[test]
fn subjects_and_their_processes_are_compared() {
    let other = format!("{WEB}[subjects.db]\nselector = {{ user = \"db\" }}\ngoverns = [\"exec.*\"]\n");
    let two = bundle(&[("guard.toml", &other), ("web.cedar", SITE)]);
    let found = changes(&web(SITE), &two);
    assert_eq!((found.added.as_slice(), found.changes.len()), (&["db".to_owned()][..], 0));
    assert_eq!(changes(&two, &web(SITE)).removed, ["db"]);
    let moved = WEB.replace("user = \"web\"", "exe = \"/usr/sbin/nginx\"");
    let found = changes(&web(SITE), &bundle(&[("guard.toml", &moved), ("web.cedar", SITE)]));
    assert_eq!(found.processes[0].before, ["user web"]);
    assert_eq!(found.processes[0].after, ["exe /usr/sbin/nginx"]);
}

#[test]
fn the_shipped_and_the_reference_bundles_are_equal_to_themselves() {
    for path in ["../examples/quickstart/policy", "src/policy/tests/reference"] {
        let (first, second) = (load(path), load(path));
        let found = changes(&first, &second);
        assert!(found.is_empty(), "{path}: {found:?}");
    }
}

const LEASE: &str = "[approvals]\nfix = { approvers = [\"group:x\"], max = \"1h\" }\n";
const UNDER_LEASE: &str = "@id(\"fix\") permit (principal, action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/srv/fix\") when { context.leases.contains(\"fix\") };\n";

#[test]
fn what_a_lease_lifts_is_compared_under_the_lease() {
    let toml = WEB.replace("[subjects", &format!("{LEASE}[subjects"));
    let with = |cedar: &str| bundle(&[("guard.toml", toml.as_str()), ("web.cedar", cedar)]);
    let (before, after) = (with(SITE), with(&format!("{SITE}{UNDER_LEASE}")));
    assert!(changes(&before, &after).is_empty(), "no lease lives");
    let facts = Facts { leases: ["fix".to_owned()].into(), ..Facts::default() };
    let found = diff(&before, &after, &host(), &facts).unwrap();
    assert_eq!(lines(&found), ["+ file.read /srv/fix/**"]);
    // A forbid that the lease suspends.
    let forbid = "@id(\"f\") forbid (principal, action, resource in Guard::Dir::\"/srv/www/x\") unless { context.leases.contains(\"fix\") };\n";
    let after = with(&format!("{SITE}{forbid}"));
    assert_eq!(lines(&changes(&before, &after)), ["- file.read dir.list /srv/www/x/**"]);
    assert!(diff(&before, &after, &host(), &facts).unwrap().is_empty());
}
