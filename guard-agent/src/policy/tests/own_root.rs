//! Subjects with a root of their own: the tables say what Cedar says, and nothing of the host's.

use guard_common::class::OWN_PROC;
use guard_common::path::{NODE_GUARDS_OWN, OWN_ROOT};
use guard_common::tables::{DEVICE_PATHS, HAS_CONTAINERS, HAS_OWN_ROOTS, SUBJECT_OWN_ROOT};

use super::*;
use crate::tables::{Podman, Selector};

const SUBJECTS: &str = "[subjects.box]\nroot = \"own\"\nselector = { container = { image = \"localhost/web\" } }\ngoverns = [\"file.*\", \"exec.*\"]\n\
    [subjects.web]\nselector = { user = \"web\" }\ngoverns = [\"*\"]\n";

const POLICY: &str = "
@id(\"www\") permit (principal, action in Guard::Action::\"read\", resource in Guard::Dir::\"/srv/www\");
@id(\"bin\") permit (principal, action == Guard::Action::\"exec\", resource == Guard::File::\"/bin/python\");
@id(\"null\") permit (principal == Guard::Subject::\"box\", action == Guard::Action::\"file.write\", resource == Guard::File::\"/dev/null\");
@id(\"proc\") permit (principal, action == Guard::Action::\"file.read\", resource in Guard::Dir::\"/proc\");
@id(\"ssh\") forbid (principal, action, resource in Guard::Name::\".ssh\");
@id(\"env\") forbid (principal, action, resource) when { resource has name && resource.name like \".env*\" };
@id(\"www-root\") permit (principal == Guard::Subject::\"box\", action == Guard::Action::\"dir.list\", resource) when { resource has name && resource.name == \"/\" };
@id(\"mounts\") permit (principal, action in Guard::Action::\"sys.*\", resource);
";

fn bundle(subjects: &str, policy: &str) -> Directory {
    Directory::new(&[("guard.toml", &format!("{TOML}{subjects}")), ("p.cedar", policy)])
}

fn request(subject: &str, action: &str, path: &str) -> Request {
    let spot = Spot::Path(path.into());
    let resource = if action.starts_with("dir.") { Resource::Dir(spot) } else { Resource::File(spot) };
    Request {
        subject: subject.into(),
        action: action.into(),
        resource,
        attributes: if action.starts_with("dir.") {
            Attributes { kind: 0o040000, ..file(0, false) }
        } else {
            file(0, false)
        },
        listener: None,
        within: Vec::new(),
    }
}

#[test]
fn paths_count_from_its_root_and_nothing_of_the_host_is_meant() {
    let directory = bundle(SUBJECTS, POLICY);
    let loaded = load(&directory.0).unwrap();
    let host = host();
    let compiled = compiled(&directory);
    let oracle = Oracle::new(&loaded, &host, &Facts::default()).unwrap();
    valid(&loaded, &oracle.set);
    let row = compiled.generation.subjects[number(&compiled, "box") as usize];
    assert_ne!(row.flags & SUBJECT_OWN_ROOT, 0);
    assert_eq!(
        compiled.generation.header.flags & (HAS_OWN_ROOTS | HAS_CONTAINERS),
        HAS_OWN_ROOTS | HAS_CONTAINERS
    );
    let walker = Walker::new(&compiled.generation);
    let mut allowed = 0;
    let paths = [
        "/",
        "/srv",
        "/srv/www",
        "/srv/www/page",
        "/srv/www/.ssh/id",
        "/srv/www/.env.local",
        "/mnt/www/page",
        "/bin/python",
        "/usr/bin/python3.11",
        "/dev/null",
        "/dev/zero",
        "/proc/self/status",
        "/proc/1",
        "/etc",
        "/data/deep/mount/x",
        "/home/ann/.ssh/x",
        "/guard:own-root/srv/www/page",
    ];
    for path in paths {
        for action in ["file.read", "file.write", "exec", "dir.list"] {
            let request = request("box", action, path);
            let verdict = oracle.decide(&request).unwrap();
            let found = walker.path(OWN_ROOT, Path::new(path), &request.attributes);
            let decision = ask(&compiled, "box", action, found);
            assert_eq!(decision.denied == 0, verdict.allowed(), "{action} {path}: {verdict:?}");
            let deciding = compiled
                .deciding(
                    number(&compiled, "box"),
                    (found.class, found.features),
                    Action::from_name(action).unwrap(),
                    &Posture::default(),
                    Instant::MIN,
                )
                .unwrap();
            assert_eq!(deciding.enforced, verdict.enforced, "{action} {path}");
            allowed += u32::from(decision.denied == 0);
            // The host's place of the same name is nothing to it.
            let (device, place) = place(path);
            let elsewhere = walker.path(device, &place, &request.attributes);
            // Its root may be listed by its name, which the host's has as well.
            if !DEVICE_PATHS.contains(&path) && path != "/" {
                assert_ne!(ask(&compiled, "box", action, elsewhere).denied, 0, "{action} {path} on the host");
            }
        }
    }
    assert!(allowed > 5, "{allowed}");
    // A link of the host's is followed for the one, and is what the container makes of it for the other.
    assert!(oracle.decide(&request("web", "exec", "/usr/bin/python3.11")).unwrap().allowed());
    assert!(super::allowed(&compiled, "web", "exec", "/usr/bin/python3.11"));
    assert!(oracle.decide(&request("box", "exec", "/bin/python")).unwrap().allowed());
    assert!(!oracle.decide(&request("box", "exec", "/usr/bin/python3.11")).unwrap().allowed());
}

#[test]
fn what_is_judged_by_what_it_is_is_in_the_directory_of_its_usual_place() {
    let compiled = compiled(&bundle(SUBJECTS, POLICY));
    let header = &compiled.generation.header;
    let null = Found { class: header.devices[0], features: header.device_features[0] };
    assert_eq!(ask(&compiled, "box", "file.write", null).denied, 0);
    assert_ne!(ask(&compiled, "web", "file.write", null).denied, 0);
    let zero = Found { class: header.devices[1], features: header.device_features[1] };
    assert_ne!(ask(&compiled, "box", "file.write", zero).denied, 0);
    let own = Walker::new(&compiled.generation).inside(OWN_PROC, Path::new("/7/status"), &file(0, false));
    assert_eq!(ask(&compiled, "box", "file.read", own).denied, 0);
    assert_eq!(ask(&compiled, "web", "file.read", own).denied, 0);
}

#[test]
fn it_never_mounts_whatever_policy_says() {
    let directory = bundle(SUBJECTS, POLICY);
    let loaded = load(&directory.0).unwrap();
    let compiled = compiled(&directory);
    let machine = Found { class: guard_common::class::MACHINE, features: 0 };
    assert_ne!(ask(&compiled, "box", "sys.mount", machine).denied, 0);
    assert_eq!(ask(&compiled, "box", "sys.userns", machine).denied, 0);
    assert_eq!(ask(&compiled, "web", "sys.mount", machine).denied, 0);
    let host = host();
    let oracle = Oracle::new(&loaded, &host, &Facts::default()).unwrap();
    let mount = |subject: &str| Request { resource: Resource::Machine, ..request(subject, "sys.mount", "/") };
    let verdict = oracle.decide(&mount("box")).unwrap();
    assert_eq!(verdict.enforced.policies, ["generated/own-root@box"]);
    assert!(oracle.decide(&mount("web")).unwrap().allowed());
}

#[test]
fn what_guard_protects_is_marked_for_it_on_the_host() {
    let compiled = compiled(&bundle(SUBJECTS, POLICY));
    let flags = |path: &str| {
        let mut node = place(path).0;
        let edges: std::collections::HashMap<_, _> = compiled.generation.edges.iter().copied().collect();
        let mut bytes = [0; guard_common::path::CHUNK];
        bytes[..4].copy_from_slice(&node.to_ne_bytes());
        let key = |node, tag, bytes| guard_common::path::EdgeKey { node, tag, bytes };
        node = edges[&key(guard_common::path::NODE_FILE_SYSTEMS, 4, bytes)];
        for name in place(path).1.iter().skip(1) {
            for (tag, bytes) in guard_common::path::chunks(name.as_encoded_bytes()) {
                match edges.get(&key(node, tag, bytes)) {
                    Some(next) => node = *next,
                    None => return compiled.generation.nodes[node as usize].flags_below,
                }
            }
        }
        compiled.generation.nodes[node as usize].flags
    };
    for path in ["/etc/guard", "/etc/guard/policy/x", "/run/guard/admin.sock", "/usr/bin/guardctl"] {
        assert_eq!(flags(path) & NODE_GUARDS_OWN, NODE_GUARDS_OWN, "{path}");
    }
    for path in ["/etc", "/etc/passwd", "/srv/www/page", "/usr/bin/guard", "/"] {
        assert_eq!(flags(path) & NODE_GUARDS_OWN, 0, "{path}");
    }
}

#[test]
fn containers_are_selected_by_name_and_image() {
    let toml = "[subjects.a]\nroot = \"own\"\nselector = { container = \"my-web\" }\ngoverns = [\"*\"]\n\
        [subjects.b]\nselector = { container = { name = \"x\", image = \"y:1\", engine = \"podman\" } }\ngoverns = [\"*\"]\n";
    let compiled = compiled(&bundle(toml, ""));
    let of = |subject: &str| -> Vec<Selector> {
        let number = number(&compiled, subject);
        let mine = compiled.generation.selectors.iter().filter(|(_, to)| *to == number);
        mine.map(|(selector, _)| selector.clone()).collect()
    };
    let podman = |name: &str, image: Option<&str>| {
        Selector::Podman(Podman { name: Some(name.into()), image: image.map(str::to_owned) })
    };
    let cgroup = |unit: &str| Selector::Container(format!("/machine.slice/{unit}/payload"));
    assert_eq!(
        of("a"),
        [
            cgroup("machine-my\\x2dweb.scope"),
            cgroup("my-web.scope"),
            cgroup("systemd-nspawn@my-web.service"),
            podman("my-web", None)
        ]
    );
    assert_eq!(of("b"), [podman("x", Some("y:1"))]);
}

#[test]
fn what_cannot_be_is_refused() {
    let subject = |keys: &str| format!("[subjects.a]\n{keys}\ngoverns = [\"*\"]\n");
    for (keys, message) in [
        ("selector = { container = {} }", "neither name nor image"),
        ("selector = { container = { image = \"x\", engine = \"nspawn\" } }", "knows no images"),
        ("selector = { container = \"\" }", "no name of a container"),
        ("selector = { container = { name = \"x\", engine = \"docker\" } }", "unknown variant"),
        ("root = \"theirs\"\nselector = { user = \"web\" }", "unknown variant"),
        (
            "root = \"own\"\nselector = { adopt = [\"user:ci\"] }\nsession = { tree = { kind = \"dir\" } }",
            "session variables are paths of the host",
        ),
    ] {
        let found = errors(&bundle(&subject(keys), ""));
        assert!(found.contains(message), "{keys}: {found}");
    }
}
