use super::*;

fn good() -> Facts {
    Facts {
        root: true,
        release: Some("6.12.48+deb13-amd64".to_owned()),
        btf: true,
        securityfs: true,
        lsm: Some("lockdown,capability,landlock,yama,apparmor,bpf".to_owned()),
        bpf_lsm_built: Some(true),
        command_line: "ro quiet".to_owned(),
        lockdown: Some("none".to_owned()),
        bpffs: true,
        cgroup2: true,
        addresses_hidden: false,
        ima: Some(true),
        engines: Vec::new(),
        clock_synchronised: Some(true),
        distribution: Distribution::Debian,
    }
}

fn check(facts: &Facts, name: &str) -> Check {
    examine(facts).into_iter().find(|check| check.name == name).unwrap()
}

fn report(facts: &Facts, load: Result<(), &str>) -> Report {
    let mut checks = examine(facts);
    let load = || load.map_err(str::to_owned);
    checks.push(checks::attempt(facts, &problems(&checks), Some(&load)));
    Report { checks, coverage: crate::coverage::of(&|_| true) }
}

#[test]
fn a_good_host_is_ready() {
    let report = report(&good(), Ok(()));
    assert!(report.is_ready(), "{}", report.to_text(false));
    assert!(report.to_text(false).ends_with("this host can enforce"));
    assert_eq!(report.to_json()["ready"], true);
}

#[test]
fn containers_that_are_not_recognised_are_named_and_stop_nobody() {
    assert!(examine(&good()).iter().all(|check| check.name != "containers"));
    let facts = Facts { engines: vec!["systemd-nspawn", "podman"], ..good() };
    assert_eq!(check(&facts, "containers").state, State::Ok);
    let facts = Facts { engines: vec!["podman", "dockerd", "kubelet"], ..good() };
    let found = check(&facts, "containers");
    assert_eq!(found.state, State::Unknown);
    assert!(
        found.found.contains("dockerd, kubelet") && found.found.contains("podman by name"),
        "{}",
        found.found
    );
    assert!(report(&facts, Ok(())).is_ready());
}

#[test]
fn an_inactive_bpf_lsm_names_the_exact_parameter_and_the_command() {
    let facts = Facts { lsm: Some("lockdown,capability,landlock,yama,apparmor".to_owned()), ..good() };
    let text = report(&facts, Ok(())).to_text(false);
    assert!(text.contains("lsm=lockdown,landlock,yama,apparmor,bpf"), "{text}");
    assert!(text.contains("update-grub"), "{text}");
    assert!(text.contains("[?] loading the programs was not tried: see above"), "{text}");
    let fedora = Facts { distribution: Distribution::Fedora, ..facts };
    assert!(check(&fedora, "bpf-lsm").fix.iter().any(|step| step.starts_with("sudo grubby")));
}

#[test]
fn a_parameter_that_is_there_already_is_named() {
    let without = || Facts { lsm: Some("capability,yama".to_owned()), bpf_lsm_built: None, ..good() };
    let facts = Facts { command_line: "ro lsm=yama".to_owned(), ..without() };
    assert!(
        check(&facts, "bpf-lsm")
            .fix
            .contains(&"it replaces lsm=yama, which the running kernel was booted with".to_owned())
    );
    let facts = Facts { command_line: "ro lsm=yama,bpf".to_owned(), ..without() };
    assert_eq!(check(&facts, "bpf-lsm").fix, ["boot a kernel built with CONFIG_BPF_LSM=y"]);
    let facts = Facts { bpf_lsm_built: Some(false), ..without() };
    assert_eq!(check(&facts, "bpf-lsm").fix, ["boot a kernel built with CONFIG_BPF_LSM=y"]);
}

#[test]
fn a_list_that_cannot_be_read_is_unknown_and_stops_no_daemon() {
    let facts = Facts { lsm: None, securityfs: false, ..good() };
    assert_eq!(check(&facts, "bpf-lsm").state, State::Unknown);
    assert!(check(&facts, "bpf-lsm").fix[0].contains("mount -t securityfs"));
    assert!(problems(&examine(&facts)).is_empty());
    assert!(!report(&facts, Ok(())).is_ready());
}

#[test]
fn every_hard_requirement_is_a_problem_that_says_what_to_do() {
    let cases = [
        (Facts { root: false, ..good() }, "root"),
        (Facts { release: Some("5.15.0-91-generic".to_owned()), ..good() }, "6.1"),
        (Facts { btf: false, ..good() }, "CONFIG_DEBUG_INFO_BTF"),
        (Facts { lsm: Some("capability".to_owned()), ..good() }, "lsm=bpf"),
        (Facts { lockdown: Some("confidentiality".to_owned()), ..good() }, "integrity"),
    ];
    for (facts, wanted) in cases {
        let problems = problems(&examine(&facts));
        let [problem] = problems.as_slice() else { panic!("{wanted}: {problems:?}") };
        assert!(problem.to_string().contains(wanted), "{problem}");
        assert!(!report(&facts, Ok(())).is_ready());
    }
}

#[test]
fn what_is_only_degraded_stops_no_daemon() {
    let facts = Facts { bpffs: false, cgroup2: false, ..good() };
    assert!(problems(&examine(&facts)).is_empty());
    assert_eq!(report(&facts, Ok(())).to_do(), 2);
}

#[test]
fn a_clock_that_nobody_sets_is_said_and_stops_nothing() {
    let facts = Facts { clock_synchronised: Some(false), ..good() };
    let report = report(&facts, Ok(()));
    assert!(report.is_ready());
    assert!(
        report.to_text(false).contains("[?] clock: not synchronised since boot"),
        "{}",
        report.to_text(false)
    );
}

#[test]
fn hidden_addresses_are_said_and_stop_nothing() {
    let facts = Facts { addresses_hidden: true, ..good() };
    let found = check(&facts, "addresses");
    assert!(found.found.contains("kptr_restrict=2") && found.fix[0].contains("sysctl"));
    assert!(problems(&examine(&facts)).is_empty());
}

#[test]
fn a_kernel_that_takes_no_digests_is_said_and_stops_nothing() {
    assert!(examine(&good()).iter().all(|check| check.name != "digests"));
    for facts in [
        Facts { ima: Some(false), ..good() },
        Facts { command_line: "ro ima_hash=sha512".to_owned(), ..good() },
    ] {
        assert!(check(&facts, "digests").found.contains("signed_by"));
        assert!(problems(&examine(&facts)).is_empty());
    }
    let facts = Facts { command_line: "ro ima_hash=sha256".to_owned(), ..good() };
    assert!(examine(&facts).iter().all(|check| check.name != "digests"));
}

#[test]
fn a_failed_attempt_is_shown() {
    let report = report(&good(), Err("hook file_open is full"));
    assert!(!report.is_ready());
    assert!(report.to_text(false).contains("[-] hook file_open is full"));
}

#[test]
fn kernel_releases_are_compared_by_number() {
    for (release, state) in [
        ("6.1.0-37-amd64", State::Ok),
        ("6.12-rc1", State::Ok),
        ("7.0.1", State::Ok),
        ("10.2", State::Ok),
        ("5.15.0", State::Missing),
        ("6.0.19", State::Missing),
        ("next", State::Unknown),
    ] {
        let facts = Facts { release: Some(release.to_owned()), ..good() };
        assert_eq!(check(&facts, "kernel").state, state, "{release}");
    }
}

#[test]
fn the_coverage_names_every_action_once() {
    let json = report(&good(), Ok(())).to_json();
    let text = report(&good(), Ok(())).to_text(false);
    assert_eq!(json["coverage"].as_array().unwrap().len(), guard_common::action::named().count());
    for row in guard_common::action::named() {
        assert!(text.contains(row.name), "{}: {text}", row.name);
    }
}

#[test]
fn facts_are_read_below_a_root() {
    let root = std::env::temp_dir().join(format!("guard-doctor-{}", std::process::id()));
    let files = [
        ("proc/sys/kernel/osrelease", "6.1.0-37-amd64\n"),
        ("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n"),
        ("sys/kernel/security/lsm", "capability,yama\n"),
        ("sys/kernel/security/lockdown", "[none] integrity confidentiality\n"),
        ("boot/config-6.1.0-37-amd64", "CONFIG_BPF=y\n# CONFIG_BPF_LSM is not set\n"),
        ("etc/os-release", "ID=ubuntu\n"),
    ];
    for (path, text) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let facts = Facts::read(&root);
    std::fs::remove_dir_all(&root).unwrap();
    assert_eq!(facts.release.as_deref(), Some("6.1.0-37-amd64"));
    assert_eq!(facts.lsm.as_deref(), Some("capability,yama"));
    assert_eq!((facts.bpf_lsm_built, facts.lockdown.as_deref()), (Some(false), Some("none")));
    assert_eq!((facts.btf, facts.bpffs, facts.cgroup2), (false, false, true));
    assert_eq!(facts.distribution, Distribution::Debian);
}
