use super::*;
use nix::errno::Errno;
use nix::sys::signal::kill;

const LONG: Duration = Duration::from_secs(60);

fn shell(script: &str, patience: Duration) -> Result<Vec<u8>, CommandError> {
    let arguments = ["-c".to_owned(), script.to_owned()];
    run(&Program { path: Path::new("/bin/sh"), arguments: &arguments, user: None, patience, longest: 1000 })
}

fn text(answer: Result<Vec<u8>, CommandError>) -> String {
    String::from_utf8(answer.unwrap()).unwrap()
}

#[test]
fn what_it_prints_is_the_answer_and_nothing_of_the_agents_is_handed_on() {
    assert_eq!(text(shell("echo one; echo words >&2; pwd; cat", LONG)), "one\n/\n");
    let environment = text(shell("env | cut -d= -f1 | sort | tr '\\n' ' '", LONG));
    assert!(!environment.contains("HOME") && !environment.contains("CARGO"), "{environment}");
    let group = text(shell("cut -d' ' -f5 /proc/$$/stat", LONG));
    assert_ne!(group.trim(), nix::unistd::getpgrp().to_string());
}

#[test]
fn it_is_somebody_else_and_in_no_other_group() {
    let (own, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    // Only root can become somebody else.
    let user = if own.is_root() { (65534, 65534) } else { (own.as_raw(), group.as_raw()) };
    let arguments = ["-c".to_owned(), "id -u; id -g; id -G".to_owned()];
    let printed = text(run(&Program {
        path: Path::new("/bin/sh"),
        arguments: &arguments,
        user: Some(user),
        patience: LONG,
        longest: 1000,
    }));
    let mut lines = printed.lines();
    assert_eq!(lines.next(), Some(user.0.to_string().as_str()), "{printed}");
    assert_eq!(lines.next(), Some(user.1.to_string().as_str()), "{printed}");
    if own.is_root() {
        assert_eq!(lines.next(), Some("65534"), "{printed}");
    }
}

#[test]
fn one_that_fails_says_how() {
    let failed = shell("echo half; echo no route >&2; exit 3", LONG).unwrap_err().to_string();
    assert_eq!(failed, "it failed, exit status: 3: no route");
    let arguments = [];
    let missing = run(&Program {
        path: Path::new("/nonexistent/program"),
        arguments: &arguments,
        user: None,
        patience: LONG,
        longest: 1000,
    });
    assert!(missing.unwrap_err().to_string().contains("/nonexistent/program"));
}

#[test]
fn one_that_hangs_is_killed_with_its_children() {
    let file = std::env::temp_dir().join(format!("guard-command-{}", std::process::id()));
    let script = format!("sleep 1000 & echo $! >{}; sleep 1000", file.display());
    let slow = shell(&script, Duration::from_secs(2)).unwrap_err();
    assert!(matches!(slow, CommandError::TooSlow(_)), "{slow}");
    let child: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    std::fs::remove_file(&file).unwrap();
    // Its parent is gone as well, so whoever adopts it has to be told; until then it is a zombie.
    let is_gone = || {
        let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        kill(Pid::from_raw(child), None) == Err(Errno::ESRCH) || state.contains(") Z ")
    };
    while !is_gone() {
        std::thread::yield_now();
    }
}

#[test]
fn what_it_leaves_behind_does_not_hold_it_up() {
    // The child has the pipes; with its parent it ends.
    assert_eq!(text(shell("sleep 1000 & echo done", LONG)), "done\n");
}

#[test]
fn one_that_prints_without_end_is_killed() {
    let endless = shell("while :; do echo garbage garbage garbage; done", LONG).unwrap_err();
    assert!(matches!(endless, CommandError::TooLong(1000)), "{endless}");
    // On standard error it may say what it wants; little of it is kept.
    let words = shell("head -c 300000 /dev/zero | tr '\\0' x >&2; exit 1", LONG).unwrap_err().to_string();
    assert!(words.len() < 600, "{}", words.len());
}
