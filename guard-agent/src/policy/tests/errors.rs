//! What a wrong bundle is told, word for word.

use super::*;

fn toml(subject: &str) -> Directory {
    Directory::new(&[("guard.toml", &format!("{TOML}[subjects.web]\n{subject}\n"))])
}

fn condition(condition: &str) -> String {
    errors(&web(&format!(
        "@id(\"it\") permit (principal, action == Guard::Action::\"file.read\", resource) when {{ {condition} }};"
    )))
}

/// The first error's message and help, without its place.
fn brief(text: &str) -> String {
    let mut lines = text.lines();
    let message = lines.next().unwrap_or_default().to_owned();
    let help = lines.find(|line| line.contains("= help: ")).unwrap_or_default();
    format!("{message} / {}", help.trim_start().trim_start_matches("= help: "))
}

#[test]
fn an_unknown_key_is_underlined() {
    assert_eq!(
        errors(&toml("seletor = { user = \"web\" }\ngoverns = [\"*\"]")),
        "error[unknown-key]: unknown key `seletor`, expected one of `selector`, `also`, `owner`, `groups`, `governs`, `max_staleness`, `fail_mode`, `unenforceable`, \
         `include`, `root`, `session`, `successors`, `hide`\n --> guard.toml:6:1\n  |\n6 | seletor = { user = \"web\" }\n  | ^^^^^^^\n"
    );
}

#[test]
fn a_syntax_error_is_underlined() {
    assert_eq!(
        errors(&web("@id(\"x\")\npermit (principal, action, resource) wen { true };")),
        "error[syntax]: invalid policy condition: wen\n --> web.cedar:2:38\n  |\n2 | permit (principal, action, resource) wen { true };\n  \
         |                                      ^^^\n  = help: condition must be either `when` or `unless`\n"
    );
}

#[test]
fn a_validation_error_is_underlined() {
    assert_eq!(
        errors(&web("@id(\"x\")\npermit (principal, action == Guard::Action::\"file.raed\", resource);")),
        "error[validation]: unrecognized action `Guard::Action::\"file.raed\"`\n --> web.cedar:2:30\n  |\n\
         2 | permit (principal, action == Guard::Action::\"file.raed\", resource);\n  \
         |                              ^^^^^^^^^^^^^^^^^^^^^^^^^^\n  = help: did you mean `Guard::Action::\"*\"`?\n"
    );
}

#[test]
fn selectors_that_cover_too_much_are_refused() {
    for (selector, message) in [
        ("user = \"root\"", "the user root covers the first process and the agent"),
        ("user = \"0\"", "the user root covers the first process and the agent"),
        ("group = \"root\"", "the group root covers the first process and the agent"),
        ("unit = \"init.scope\"", "the unit init.scope covers the first process or the agent"),
        (
            "unit = \"guard-agent.service\"",
            "the unit guard-agent.service covers the first process or the agent",
        ),
        ("cgroup = \"/\"", "the cgroup / covers /init.scope"),
        ("cgroup = \"/system.slice\"", "the cgroup /system.slice covers /system.slice/guard-agent.service"),
        (
            "exe = \"/usr/lib/systemd/systemd\"",
            "/usr/lib/systemd/systemd is the service manager (/usr/lib/systemd/systemd)",
        ),
        (
            "exe = \"/lib64/ld-linux-x86-64.so.2\"",
            "/lib64/ld-linux-x86-64.so.2 is the dynamic loader, which can start every program",
        ),
        ("exe_in = \"/\"", "/ holds the programs of every process"),
        ("exe_in = [\"/bin\"]", "/bin holds the programs of every process"),
        ("exe_in = \"/opt/guard\"", "/opt/guard holds the Guard agent (/opt/guard/bin/guard-agent)"),
    ] {
        let found = errors(&toml(&format!("selector = {{ {selector} }}\ngoverns = [\"*\"]")));
        assert!(
            found.starts_with(&format!("error[selector]: web: {message}\n --> guard.toml:6:12\n")),
            "{selector}: {found}"
        );
    }
}

#[test]
fn unknown_accounts_are_named_with_what_happens() {
    let directory = toml("selector = { user = \"nobody-here\" }\ngoverns = [\"*\"]");
    let notes = compiled(&directory).notes;
    assert!(notes.iter().any(|note| note.message
        == "web: there is no user nobody-here on this host; the selector matches nothing until there is one and the policy is applied again"));
}

#[test]
fn subjects_say_what_they_govern_and_how_they_are_attached() {
    let found = brief(&errors(&toml("selector = { user = \"web\" }")));
    assert!(found.starts_with("error[no-governs]: web: governs is missing"), "{found}");
    assert_eq!(
        brief(&errors(&toml("governs = [\"*\"]"))),
        "error[no-selector]: web: nothing attaches this label / add `selector = { user = \"NAME\" }`, or group, unit, cgroup, container, exe, exe_in, adopt"
    );
    assert_eq!(
        brief(&errors(&toml("selector = { user = \"web\" }\ngoverns = [\"file\"]"))),
        "error[unknown-action]: web: there is no action or group \"file\" / docs/actions.md lists them; groups are read mutate file.* \
         exec.* net.out net.in net.* unix.* proc.* sys.* and *"
    );
    let found = brief(&errors(&toml(
        "selector = { user = \"web\" }\ngoverns = [\"*\"]\ninclude = [\"base/nothing\"]",
    )));
    assert!(
        found.starts_with(
            "error[unknown-include]: there is no include \"base/nothing\" / known: base/accounts base/anonymous"
        ),
        "{found}"
    );
}

#[test]
fn what_the_kernel_cannot_do_is_refused_with_a_rewrite() {
    for (text, expected) in [
        (
            "resource.name like \"*secret*x\"",
            "error[not-exact]: the kernel matches a pattern with one * only / write `prefix*`, `*suffix` or `prefix*suffix`, or name a \
             component with `resource in Guard::Name::\"…\"`",
        ),
        (
            "resource.owner > 1000",
            "error[not-exact]: owners can only be compared with == / write `resource.owner == 1000 || resource.owner == 1001`",
        ),
        (
            "resource in Guard::Dir::\"/srv/*/x\"",
            "error[literal]: Guard::Dir: a path has no wildcards / name the directory with `resource in Guard::Dir::\"…\"`, and add \
             `resource.name like \"prefix*\"` for the last component",
        ),
        (
            "resource in Guard::Dir::\"~/x\"",
            "error[literal]: Guard::Dir: policy does not know whose home ~ is / write the absolute path",
        ),
        (
            "resource in Guard::Dir::\"/srv/\"",
            "error[literal]: Guard::Dir: a path does not end in / / write \"/srv\"",
        ),
        (
            "resource in Guard::Dir::\"/proc/self\"",
            "error[symbolic-link]: /proc/self is another directory for every process / write `resource in Guard::Dir::\"guard:own-proc\"`",
        ),
        (
            "resource == Guard::File::\"/home/ann/link/shadow\"",
            "error[symbolic-link]: /home/ann/link is a symbolic link that others than root can change / name what it leads to: /etc",
        ),
        (
            "resource == Guard::File::\"guard:own-proc\"",
            "error[literal]: Guard::File: \"guard:own-proc\" is not a File / write Guard::Dir::\"guard:own-proc\"",
        ),
        (
            "context.leases.contains(\"nope\")",
            "error[not-exact]: guard.toml declares no approval \"nope\" / add it to [approvals]",
        ),
        (
            "context.session.tty",
            "error[not-exact]: sessions are not in this version / remove the condition on context.session",
        ),
    ] {
        assert_eq!(brief(&condition(text)), expected, "{text}");
    }
}

#[test]
fn a_literal_error_points_at_the_literal() {
    assert_eq!(
        errors(&web("@id(\"x\")\npermit (principal, action, resource in Guard::Net::\"10.0.0.1\");")),
        "error[literal]: Guard::Net: \"10.0.0.1\" has no prefix length\n --> web.cedar:2:40\n  |\n2 | permit (principal, action, resource in \
         Guard::Net::\"10.0.0.1\");\n  |                                        ^^^^^^^^^^^^^^^^^^^^^^\n  = help: write \"10.0.0.1/32\"\n"
    );
}

#[test]
fn policies_have_unique_ids_and_known_annotations() {
    let found = errors(&web("permit (principal, action, resource);"));
    assert!(brief(&found).starts_with("error[no-id]: this policy has no @id"), "{found}");
    let twice = "@id(\"a\") permit (principal, action, resource);\n";
    assert_eq!(
        brief(&errors(&web(&twice.repeat(2)))),
        "error[duplicate-id]: the policy id web/a is used twice / the other one is at web.cedar:1; change one @id"
    );
    assert_eq!(
        brief(&errors(&web("@id(\"a\") @autid permit (principal, action, resource);"))),
        "error[annotation]: there is no annotation @autid / known: @id @mode @audit @reason @approval @absent @errno"
    );
}

#[test]
fn too_many_features_at_once_are_refused_at_the_policy() {
    let names: Vec<_> = (0..12)
        .map(|n| format!("(resource in Guard::Name::\"a{n}\" && resource in Guard::Name::\"b{n}\")"))
        .collect();
    let found = condition(&names.join(" || "));
    assert!(
        found.starts_with("error[too-many-features]: what web may do with one resource depends on 24 names, patterns, ports and attributes"),
        "{found}"
    );
}

#[test]
fn subjects_and_groups_that_nothing_defines_are_named() {
    let cedar = "@id(\"a\") permit (principal == Guard::Subject::\"wbe\", action, resource);\n\
        @id(\"b\") forbid (principal in Guard::Group::\"g\", action == Guard::Action::\"proc.signal\", resource) \
        when { resource has subject && resource.subject == Guard::Subject::\"db\" };";
    let bundle = load(&web(cedar).0).unwrap();
    let found: Vec<_> = bundle
        .notes
        .iter()
        .filter(|note| note.severity == Severity::Warning)
        .map(|note| (note.code, note.message.as_str(), note.place.as_ref().map(|place| place.line)))
        .collect();
    assert_eq!(
        found,
        [
            ("unknown-subject", "web/a names the subject wbe, which this bundle does not have", Some(1)),
            ("unknown-group", "web/b names the group g, which this bundle does not have", Some(2)),
            ("unknown-subject", "web/b names the subject db, which this bundle does not have", Some(2)),
        ]
    );
}

#[test]
fn what_is_accepted_without_effect_is_noted() {
    let rest = "selector = { user = \"web\" }\ngoverns = [\"*\"]\nhide = []\nfail_mode = \"keep\"\n";
    let notes = load(&toml(rest).0).unwrap().notes;
    for wanted in ["web: not in this version: hide;", "web: without max_staleness"] {
        assert!(notes.iter().any(|note| note.message.starts_with(wanted)), "{wanted} {notes:?}");
    }
    let deny =
        load(&toml("selector = { user = \"web\" }\ngoverns = [\"*\"]\nfail_mode = \"deny\"").0).unwrap();
    assert!(deny.notes.iter().all(|note| !note.message.contains("max_staleness")));
    for wrong in ["4s", "8d", "soon", "-1m"] {
        let text = format!("selector = {{ user = \"web\" }}\ngoverns = [\"*\"]\nmax_staleness = \"{wrong}\"");
        assert!(load(&toml(&text).0).is_err(), "{wrong}");
    }
}

#[test]
fn errno_is_for_forbids_whose_actions_can_answer_so() {
    let policy = |annotation: &str, effect: &str, action: &str| {
        brief(&errors(&web(&format!(
            "@id(\"it\") @errno(\"{annotation}\") {effect} (principal, action == Guard::Action::\"{action}\", resource);"
        ))))
    };
    assert_eq!(
        policy("ENOENT", "permit", "file.read"),
        "error[annotation]: @errno has no meaning on a permit / it belongs on a forbid; what no policy permits answers with the number of its action"
    );
    assert_eq!(
        policy("EPERM", "forbid", "file.read"),
        "error[annotation]: no denial can answer \"EPERM\" / write @errno(\"ENOENT\") or @errno(\"ECONNREFUSED\"), or remove it"
    );
    assert_eq!(
        policy("ENOENT", "forbid", "net.connect"),
        "error[annotation]: none of its actions can answer ENOENT / ENOENT is for opening files, listing directories and exec"
    );
    assert_eq!(
        policy("ECONNREFUSED", "forbid", "file.read"),
        "error[annotation]: none of its actions can answer ECONNREFUSED / ECONNREFUSED is for net.connect, net.send and unix.*"
    );
}
