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
fn files_and_directories_are_renamed_by_permits_of_their_own() {
    let named = |entity: &str, name: &str| {
        format!(
            "@id(\"{entity}\") permit (principal, action == Guard::Action::\"file.rename\", resource == Guard::{entity}::\"{name}\");"
        )
    };
    let compiled = bundle(&(named("File", "/srv/file") + &named("Dir", "/srv/directory")));
    for (path, file_may, dir_may) in [("/srv/file", true, false), ("/srv/directory", false, true)] {
        let found = walk(&compiled, path, &file(0, false));
        for (action, may) in [(Action::FileRename, file_may), (Action::DirRename, dir_may)] {
            let query = Query {
                subject: number(&compiled, "web"),
                session: 0,
                class: found.class,
                features: found.features,
                required: action.bit(),
            };
            assert_eq!(decide(&compiled.generation, &query, || 0).denied == 0, may, "{action:?} {path}");
        }
    }
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
    let connect = "action == Guard::Action::\"net.connect\"";
    let reaches = |compiled: &Compiled| {
        let walker = Walker::new(&compiled.generation);
        let found = walker.endpoint("127.0.0.1".parse().unwrap(), 80, &Attributes::default());
        ask(compiled, "web", "net.connect", found).denied == 0
    };
    let all = format!("@id(\"all\") permit (principal, {connect}, resource);");
    let own = "when { resource has listener && resource.listener == principal }";
    let other = "when { !(resource has listener) }";
    for condition in [own, other] {
        let compiled = bundle(&format!("@id(\"p\") permit (principal, {connect}, resource) {condition};"));
        assert!(!reaches(&compiled), "permit {condition}");
        let compiled =
            bundle(&format!("{all}@id(\"f\") forbid (principal, {connect}, resource) {condition};"));
        assert!(!reaches(&compiled), "forbid {condition}");
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

const TWO: &str = "[subjects.web]\nselector = { user = \"web\" }\ngroups = [\"g\"]\ngoverns = [\"*\"]\n\
    [subjects.other]\nselector = { user = \"ci\" }\ngroups = [\"g\"]\ngoverns = [\"*\"]\n";

/// Whether `web` may signal a process: its own, one of `other`, of a subject unknown to the bundle, and
/// one without a label.
fn signals(condition: &str) -> [bool; 4] {
    let cedar = format!(
        "@id(\"p\") permit (principal, action == Guard::Action::\"proc.signal\", resource) when {{ {condition} }};"
    );
    let toml = format!("{TOML}{TWO}");
    let compiled = compiled(&Directory::new(&[("guard.toml", &toml), ("web.cedar", &cedar)]));
    let web = |subject: Option<u32>| {
        ask(&compiled, "web", "proc.signal", processes(&compiled, "web", subject)).denied == 0
    };
    let (own, other) = (number(&compiled, "web"), number(&compiled, "other"));
    [web(Some(own)), web(Some(other)), web(Some(9999)), web(None)]
}

#[test]
fn processes_are_told_apart_by_the_subject_of_their_label() {
    let has = "resource has subject && resource.subject";
    assert_eq!(signals("true"), [true; 4]);
    assert_eq!(signals("resource has subject"), [true, true, true, false]);
    assert_eq!(signals("!(resource has subject)"), [false, false, false, true]);
    assert_eq!(signals(&format!("{has} == principal")), [true, false, false, false]);
    assert_eq!(signals(&format!("{has} == Guard::Subject::\"web\"")), [true, false, false, false]);
    assert_eq!(signals(&format!("{has} == Guard::Subject::\"other\"")), [false, true, false, false]);
    assert_eq!(signals(&format!("{has} in Guard::Group::\"g\"")), [true, true, false, false]);
    assert_eq!(signals(&format!("{has} != principal")), [false, true, true, false]);
    assert_eq!(
        signals(&format!("!({has} in [Guard::Subject::\"gone\", Guard::Subject::\"other\"])")),
        [true, false, true, true]
    );
}

/// The test for the asker's own label is one for all, so there can be more subjects than tests.
#[test]
fn every_one_of_many_subjects_may_signal_its_own() {
    let subjects: String = (0..50)
        .map(|n| format!("[subjects.s{n}]\nselector = {{ unit = \"s{n}.service\" }}\ngoverns = [\"*\"]\n"))
        .collect();
    let cedar = "@id(\"p\") permit (principal, action in Guard::Action::\"proc.*\", resource) \
        when { resource has subject && resource.subject == principal };";
    let compiled =
        compiled(&Directory::new(&[("guard.toml", &format!("{TOML}{subjects}")), ("s.cedar", cedar)]));
    let of = |asker: &str, name: &str| {
        let found = processes(&compiled, asker, Some(number(&compiled, name)));
        ask(&compiled, asker, "proc.trace", found).denied == 0
    };
    assert!(of("s3", "s3") && of("s49", "s49") && !of("s3", "s4"));
    // One for all of them, that there is a subject, and that it is not the agent.
    assert_eq!(compiled.generation.attributes.len(), 3);
}

#[test]
fn capabilities_and_the_machine_are_classes() {
    let compiled = bundle(
        "@id(\"caps\") permit (principal, action == Guard::Action::\"sys.cap\", resource) \
            when { [Guard::Capability::\"chown\", Guard::Capability::\"net_bind_service\"].contains(resource) };\
         @id(\"mount\") permit (principal, action == Guard::Action::\"sys.mount\", resource == Guard::Machine::\"this\");\
         @id(\"rest\") permit (principal, action == Guard::Action::\"sys.bpf\", resource is Guard::Machine);",
    );
    let of =
        |action: &str, class: u32| ask(&compiled, "web", action, Found { class, features: 0 }).denied == 0;
    for (number, name) in class::CAPABILITIES.iter().enumerate() {
        let allowed = of("sys.cap", class::FIRST_CAPABILITY + number as u32);
        assert_eq!(allowed, ["chown", "net_bind_service"].contains(name), "{name}");
    }
    assert!(!of("sys.cap", class::FIRST_CAPABILITY + 63), "one that has no name yet");
    assert!(of("sys.mount", class::MACHINE) && of("sys.bpf", class::MACHINE));
    assert!(!of("sys.userns", class::MACHINE) && !of("sys.cap", class::MACHINE));
    // What loads code into the kernel is forbidden by a policy that every bundle has.
    assert!(!of("sys.bpf", class::KERNEL) && !of("sys.mount", class::KERNEL));
}

#[test]
fn what_protects_guard_counts_for_whatever_a_subject_governs_until_it_is_lifted() {
    let with = |lift: &str| {
        compiled(&Directory::new(&[(
            "guard.toml",
            &format!(
                "{TOML}{lift}\n[subjects.free]\nselector = {{ unit = \"f.service\" }}\ngoverns = [\"net.raw\"]\n"
            ),
        )]))
    };
    let denied =
        |compiled: &Compiled, action: &str, found: Found| ask(compiled, "free", action, found).denied != 0;
    let kernel = Found { class: class::KERNEL, features: 0 };
    let machine = Found { class: class::MACHINE, features: 0 };
    let (usual, lifted) = (with(""), with("[builtin]\nlift = [\"kernel-code\"]"));
    for action in ["sys.bpf", "sys.module"] {
        assert!(denied(&usual, action, kernel) && !denied(&usual, action, machine), "{action}");
        assert!(!denied(&lifted, action, kernel), "{action}");
    }
    for compiled in [&usual, &lifted] {
        let agent = processes(compiled, "free", Some(guard_common::label::AGENT_SUBJECT));
        let other = processes(compiled, "free", None);
        assert!(denied(compiled, "proc.signal", agent) && !denied(compiled, "proc.signal", other));
        assert!(!allowed(compiled, "free", "file.write", "/etc/guard/agent.toml"));
        assert!(allowed(compiled, "free", "file.write", "/etc/hosts"));
        assert!(!allowed(compiled, "free", "file.write", "/proc/sys/kernel/core_pattern"));
    }
    let refused =
        errors(&Directory::new(&[("guard.toml", &format!("{TOML}[builtin]\nlift = [\"canary\"]\n"))]));
    assert!(refused.contains("canary cannot be lifted"), "{refused}");
}

#[test]
fn what_no_policy_can_name_of_processes_and_capabilities_is_refused() {
    let refused = |action: &str, resource: &str| {
        errors(&web(&format!(
            "@id(\"p\") permit (principal, action == Guard::Action::\"{action}\", resource == Guard::{resource});"
        )))
    };
    assert!(refused("sys.cap", "Capability::\"cap_chown\"").contains("there is no capability \"cap_chown\""));
    assert!(refused("proc.signal", "Process::\"1\"").contains("a process has no name"));
    assert!(refused("sys.mount", "Machine::\"that\"").contains("policy knows no machine \"that\""));
}

#[test]
fn who_listens_is_told_of_unix_sockets_and_not_of_endpoints() {
    let cedar = "@id(\"own\") permit (principal, action in Guard::Action::\"*\", resource) \
        when { resource has listener && resource.listener == principal };\
        @id(\"files\") permit (principal, action == Guard::Action::\"file.read\", resource);\
        @id(\"theirs\") forbid (principal, action in Guard::Action::\"*\", resource) \
        when { resource has listener && resource.listener == Guard::Subject::\"other\" };";
    let toml = format!("{TOML}{TWO}");
    let directory = Directory::new(&[("guard.toml", &toml), ("web.cedar", cedar)]);
    let compiled = compiled(&directory);
    let (own, other) = (number(&compiled, "web"), number(&compiled, "other"));
    let walker = Walker::new(&compiled.generation);
    for (listener, connects) in [(Some(own), true), (Some(other), false), (None, false)] {
        let attributes = Attributes {
            listener: listener.map_or(ABSENT, u64::from),
            own: own.into(),
            ..Attributes::default()
        };
        let found = walker.builtin(class::UNNAMED_UNIX, &attributes);
        assert_eq!(ask(&compiled, "web", "unix.connect", found).denied == 0, connects, "{listener:?}");
        let found = walker.endpoint("127.0.0.1".parse().unwrap(), 80, &attributes);
        assert_ne!(ask(&compiled, "web", "net.connect", found).denied, 0, "{listener:?}");
    }
    assert!(allowed(&compiled, "web", "file.read", "/x"), "a file has no listener");
    let bundle = load(&directory.0).unwrap();
    let notes = check_report(&bundle, &compiled);
    for expected in [
        "web/own depends on resource.listener of an endpoint",
        "web/theirs depends on resource.listener of an endpoint",
    ] {
        assert!(notes.contains(expected), "{notes}");
    }
}

/// As it will be once the kernel tells who listens everywhere.
#[test]
fn a_listener_that_is_told_is_compared_like_the_subject_of_a_process() {
    let cedar = "@id(\"p\") permit (principal, action == Guard::Action::\"net.connect\", resource) \
        when { resource has listener && resource.listener == principal };\
        @id(\"q\") permit (principal, action == Guard::Action::\"unix.connect\", resource) \
        unless { resource has listener };";
    let toml = format!("{TOML}{TWO}");
    let directory = Directory::new(&[("guard.toml", &toml), ("web.cedar", cedar)]);
    let bundle = load(&directory.0).unwrap_or_else(|errors| panic!("{errors}"));
    let facts = Facts { listener: Listener::Told, ..Facts::default() };
    let compiled = compile_with(&bundle, &host(), &facts, &mut SubjectIds::default()).unwrap();
    let (own, other) = (number(&compiled, "web"), number(&compiled, "other"));
    let attributes = |listener: Option<u32>| Attributes {
        listener: listener.map_or(ABSENT, u64::from),
        own: own.into(),
        ..Attributes::default()
    };
    let walker = Walker::new(&compiled.generation);
    for (listener, connects, unix) in
        [(Some(own), true, false), (Some(other), false, false), (None, false, true)]
    {
        let found = walker.endpoint("127.0.0.1".parse().unwrap(), 80, &attributes(listener));
        assert_eq!(ask(&compiled, "web", "net.connect", found).denied == 0, connects, "{listener:?}");
        let found = walker.builtin(class::UNNAMED_UNIX, &attributes(listener));
        assert_eq!(ask(&compiled, "web", "unix.connect", found).denied == 0, unix, "{listener:?}");
    }
}
