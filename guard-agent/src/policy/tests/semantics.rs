//! Rules of the language, one test each.

use super::*;

const READ_ALL: &str = "@id(\"all\") permit (principal == Guard::Subject::\"web\", action in Guard::Action::\"read\", resource);\n";

fn bundle(cedar: &str) -> Compiled {
    compiled(&web(cedar))
}

fn permit(action: &str, resource: &str) -> String {
    format!(
        "@id(\"it\") permit (principal == Guard::Subject::\"web\", action in Guard::Action::\"{action}\", resource {resource});\n"
    )
}

#[test]
fn what_no_policy_permits_is_denied() {
    let compiled = bundle("");
    assert!(!allowed(&compiled, "web", "file.read", "/etc/hosts"));
    assert!(!allowed(&compiled, "guard-canary", "file.read", "/etc/hosts"));
}

#[test]
fn forbid_beats_permit() {
    let compiled = bundle(&format!(
        "{READ_ALL}@id(\"no\") forbid (principal, action, resource in Guard::Dir::\"/srv/secret\");"
    ));
    assert!(allowed(&compiled, "web", "file.read", "/srv/x"));
    assert!(!allowed(&compiled, "web", "file.read", "/srv/secret/x"));
}

#[test]
fn a_directory_covers_what_is_mounted_in_it_and_its_place_through_other_mounts() {
    let compiled = bundle(&permit("file.*", "in Guard::Dir::\"/data\""));
    assert!(allowed(&compiled, "web", "file.read", "/data/deep/mount/x"));
    let compiled = bundle(&permit("file.*", "in Guard::Dir::\"/srv/www\""));
    assert!(allowed(&compiled, "web", "file.read", "/mnt/www/index.html"), "the same place, bound elsewhere");
    let compiled = bundle(&permit("file.*", "in Guard::Dir::\"/mnt\""));
    assert!(allowed(&compiled, "web", "file.read", "/srv/www/index.html"));
    assert!(!allowed(&compiled, "web", "file.read", "/srv/other"));
}

#[test]
fn a_name_holds_at_any_depth_and_above_a_mount_point() {
    let forbid =
        "@id(\"no\") forbid (principal, action, resource) when { resource in Guard::Name::\".ssh\" };";
    let compiled = bundle(&format!("{READ_ALL}{forbid}"));
    assert!(!allowed(&compiled, "web", "file.read", "/srv/.ssh/a/b"));
    assert!(!allowed(&compiled, "web", "file.read", "/home/ann/.ssh/id"), ".ssh is a mount point here");
    assert!(allowed(&compiled, "web", "file.read", "/srv/x.ssh/a"));
}

#[test]
fn a_file_is_exact_and_long_names_are_compared_whole() {
    let long = "a-name-that-is-much-longer-than-one-chunk-of-the-trie-is";
    let compiled = bundle(&permit("file.*", &format!("== Guard::File::\"/srv/{long}/f\"")));
    assert!(allowed(&compiled, "web", "file.read", &format!("/srv/{long}/f")));
    for other in [
        format!("/srv/{long}/f/g"),
        format!("/srv/{long}x/f"),
        format!("/srv/{}/f", &long[..24]),
        format!("/srv/{long}"),
    ] {
        assert!(!allowed(&compiled, "web", "file.read", &other), "{other}");
    }
}

#[test]
fn links_that_root_controls_are_followed_in_literals() {
    let compiled = bundle(&permit("exec.*", "== Guard::File::\"/bin/python\""));
    assert!(allowed(&compiled, "web", "exec", "/usr/bin/python3.11"));
    assert!(
        compiled
            .notes
            .iter()
            .any(|note| note.message == "/bin/python leads to /usr/bin/python3.11, which is what is meant")
    );
}

#[test]
fn ungoverned_actions_are_permitted_and_still_forbidden_by_name() {
    let toml = format!("{TOML}[subjects.web]\nselector = {{ user = \"web\" }}\ngoverns = [\"exec.*\"]\n");
    let cedar = "@id(\"no\") forbid (principal, action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/srv/secret\");";
    let compiled = compiled(&Directory::new(&[("guard.toml", &toml), ("web.cedar", cedar)]));
    assert!(allowed(&compiled, "web", "file.read", "/etc/hosts"));
    assert!(!allowed(&compiled, "web", "exec", "/etc/hosts"));
    assert!(!allowed(&compiled, "web", "file.read", "/srv/secret/x"));
}

#[test]
fn a_monitor_policy_only_reports() {
    let forbid =
        "@id(\"no\") @mode(\"monitor\") forbid (principal, action, resource in Guard::Dir::\"/srv\");";
    let permit = "@id(\"yes\") @mode(\"monitor\") permit (principal, action == Guard::Action::\"file.write\", resource);";
    let compiled = bundle(&format!("{READ_ALL}{forbid}{permit}"));
    let decision = ask(&compiled, "web", "file.read", walk(&compiled, "/srv/x", &file(0, false)));
    assert_eq!((decision.denied, decision.would_deny), (0, Action::FileRead.bit()));
    let decision = ask(&compiled, "web", "file.read", walk(&compiled, "/etc/x", &file(0, false)));
    assert_eq!((decision.denied, decision.would_deny), (0, 0));
    assert!(!allowed(&compiled, "web", "file.write", "/etc/x"), "a monitor permit never grants");
}

#[test]
fn a_monitor_subject_is_allowed_everything_and_reported() {
    let toml = format!(
        "{TOML}[modes]\nweb = \"monitor\"\n[subjects.web]\nselector = {{ user = \"web\" }}\ngoverns = [\"*\"]\n"
    );
    let compiled = compiled(&Directory::new(&[("guard.toml", &toml), ("web.cedar", READ_ALL)]));
    let found = walk(&compiled, "/srv/x", &file(0, false));
    assert_eq!(ask(&compiled, "web", "file.read", found).would_deny, 0);
    let decision = ask(&compiled, "web", "file.write", found);
    assert_eq!((decision.denied, decision.would_deny), (0, Action::FileWrite.bit()));
    let unknown = Found { class: guard_common::class::UNKNOWN, features: 0 };
    assert_eq!(ask(&compiled, "web", "file.write", unknown).denied, 0);
}

#[test]
fn audited_policies_report_what_they_allow() {
    let compiled = bundle(
        "@id(\"a\") @audit permit (principal, action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/srv\");",
    );
    let decision = ask(&compiled, "web", "file.read", walk(&compiled, "/srv/x", &file(0, false)));
    assert_eq!((decision.denied, decision.audit), (0, Action::FileRead.bit()));
}

#[test]
fn absent_facts_fail_closed_unless_ignored() {
    let toml = format!(
        "{TOML}[facts]\nnetwork = {{ type = \"string\" }}\n[subjects.web]\nselector = {{ user = \"web\" }}\ngoverns = [\"*\"]\n"
    );
    let forbid = |annotation: &str, condition: &str| {
        let cedar =
            format!("{READ_ALL}@id(\"no\") {annotation} forbid (principal, action, resource) {condition};");
        Directory::new(&[("guard.toml", &toml), ("web.cedar", &cedar)])
    };
    let guest = "when { context.posture has network && context.posture.network == \"guest\" }";
    let reads = |directory: &Directory| allowed(&compiled(directory), "web", "file.read", "/x");
    assert!(!reads(&forbid("", guest)));
    assert!(reads(&forbid("@absent(\"ignore\")", guest)));
    assert!(!reads(&forbid(
        "",
        "unless { context.posture has network && context.posture.network == \"office\" }"
    )));
    let never = "when { context.posture has network && context.posture.network == \"a\" && context.posture.network == \"b\" }";
    assert!(reads(&forbid("", never)), "no value makes it true");
}

#[test]
fn what_this_version_cannot_tell_fails_closed_both_ways() {
    let connect = "action == Guard::Action::\"unix.connect\"";
    let all = format!("@id(\"all\") permit (principal, {connect}, resource);");
    let own = "when { resource has listener && resource.listener == principal }";
    let other = "when { !(resource has listener) }";
    for condition in [own, other] {
        let compiled = bundle(&format!("@id(\"p\") permit (principal, {connect}, resource) {condition};"));
        assert!(!allowed(&compiled, "web", "unix.connect", "/run/x.sock"), "permit {condition}");
        let compiled =
            bundle(&format!("{all}@id(\"f\") forbid (principal, {connect}, resource) {condition};"));
        assert!(!allowed(&compiled, "web", "unix.connect", "/run/x.sock"), "forbid {condition}");
    }
}

#[test]
fn an_unclassified_file_system_is_allowed_only_what_every_path_is() {
    let unknown = Found { class: guard_common::class::UNKNOWN, features: 0 };
    let compiled = bundle(READ_ALL);
    assert_eq!(ask(&compiled, "web", "file.read", unknown).denied, 0);
    let compiled = bundle(&format!(
        "{READ_ALL}@id(\"no\") forbid (principal, action, resource in Guard::Dir::\"/srv\");"
    ));
    assert_ne!(ask(&compiled, "web", "file.read", unknown).denied, 0);
    assert_eq!(
        ask(&compiled, "web", "dir.list", Found { class: 0, features: 0 }).denied,
        Action::DirList.bit()
    );
}

#[test]
fn addresses_and_ports() {
    let compiled = bundle(
        "@id(\"net\") permit (principal, action == Guard::Action::\"net.connect\", resource in Guard::Net::\"10.0.0.0/8\") \
         when { resource.port >= 1024 && resource.port <= 2000 && resource.protocol == \"tcp\" };",
    );
    let walker = Walker::new(&compiled.generation);
    let tcp = Attributes { protocol: 6, ..Attributes::default() };
    let connect = |address: &str, port| {
        ask(&compiled, "web", "net.connect", walker.endpoint(address.parse().unwrap(), port, &tcp)).denied
            == 0
    };
    assert!(connect("10.1.2.3", 1024) && connect("10.1.2.3", 2000) && connect("::ffff:10.1.2.3", 1500));
    assert!(
        !connect("10.1.2.3", 1023)
            && !connect("10.1.2.3", 2001)
            && !connect("11.0.0.0", 1500)
            && !connect("fe80::1", 1500)
    );
}

#[test]
fn builtin_classes_and_abstract_sockets() {
    let compiled = bundle(
        "@id(\"anon\") permit (principal, action in Guard::Action::\"file.*\", resource in Guard::Dir::\"guard:own-anonymous\");\
         @id(\"proc\") permit (principal, action in Guard::Action::\"read\", resource in Guard::Dir::\"/proc\");\
         @id(\"null\") permit (principal, action in Guard::Action::\"read\", resource == Guard::File::\"/dev/null\");\
         @id(\"bus\") permit (principal, action in Guard::Action::\"unix.*\", resource == Guard::Unix::\"@bus\");",
    );
    let class = |class| Found { class, features: 0 };
    assert_eq!(ask(&compiled, "web", "file.read", class(guard_common::class::OWN_ANONYMOUS)).denied, 0);
    assert_eq!(ask(&compiled, "web", "file.read", class(guard_common::class::OWN_PROC)).denied, 0);
    assert_ne!(ask(&compiled, "web", "file.read", class(guard_common::class::TERMINAL)).denied, 0);
    assert_eq!(ask(&compiled, "web", "file.read", class(compiled.generation.header.devices[0])).denied, 0);
    assert_ne!(ask(&compiled, "web", "file.read", class(compiled.generation.header.devices[1])).denied, 0);
    let walker = Walker::new(&compiled.generation);
    let connect = |name: &[u8]| {
        ask(&compiled, "web", "unix.connect", walker.abstract_name(name, &Attributes::default())).denied == 0
    };
    assert!(connect(b"bus") && !connect(b"bus2") && !connect(b""));
}

#[test]
fn a_tmpfs_of_ones_own_is_in_no_directory_and_its_names_count() {
    let compiled = bundle(
        "@id(\"root\") permit (principal, action in Guard::Action::\"file.*\", resource in Guard::Dir::\"/\");\
         @id(\"own\") permit (principal, action in Guard::Action::\"read\", resource in Guard::Dir::\"guard:own-tmpfs\");\
         @id(\"names\") forbid (principal, action, resource in Guard::Name::\".ssh\");",
    );
    let walker = Walker::new(&compiled.generation);
    let may = |action: &str, path: &str| {
        let class = guard_common::class::OWN_TMPFS;
        let found = walker.inside(class, Path::new(path), &file(0, false));
        ask(&compiled, "web", action, found).denied == 0
    };
    assert!(may("file.read", "/a/b") && may("dir.list", "/"));
    assert!(!may("file.write", "/a/b") && !may("file.read", "/.ssh/id") && !may("exec", "/a/b"));
}

#[test]
fn executables_select_and_directories_hand_down() {
    let toml = format!(
        "{TOML}[subjects.a]\nselector = {{ exe_in = \"/opt/agent\" }}\ngoverns = [\"*\"]\n\
         [subjects.b]\nselector = {{ exe = \"/opt/agent/tool\", unit = \"b.service\", group = \"www-data\" }}\ngoverns = [\"*\"]\n"
    );
    let compiled = compiled(&Directory::new(&[("guard.toml", &toml)]));
    let walker = Walker::new(&compiled.generation);
    let subject = |path: &str| {
        let (device, path) = place(path);
        compiled.names.subjects.get(&walker.exec_subject(device, &path)).map(String::as_str)
    };
    assert_eq!(subject("/opt/agent/v1/bin/x"), Some("a"));
    assert_eq!(subject("/opt/agent/tool"), Some("b"));
    assert_eq!(subject("/opt/other"), None);
    assert_eq!(compiled.generation.selectors.len(), 2);
    assert_eq!(compiled.exec_selectors.len(), 2);
}

#[test]
fn the_digest_covers_every_file_and_nothing_else() {
    let digest = |files: &[(&str, &str)]| load(&Directory::new(files).0).unwrap().digest;
    let one = digest(&[("guard.toml", TOML), ("a.cedar", "")]);
    assert_eq!(one, digest(&[("guard.toml", TOML), ("a.cedar", ""), ("README", "x")]));
    assert_ne!(one, digest(&[("guard.toml", TOML), ("b.cedar", "")]));
    assert_ne!(one, digest(&[("guard.toml", TOML), ("a.cedar", "\n")]));
}
