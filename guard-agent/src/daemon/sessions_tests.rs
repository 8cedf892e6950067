use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("guard-sessions-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn opening(variables: &[(&str, &str)]) -> Opening {
    Opening {
        subject: "coder".to_owned(),
        uid: 1000,
        user: Some("ann".to_owned()),
        human: Some(1000),
        tty: Some("pts/3".to_owned()),
        pid: 42,
        start_ticks: 7,
        reason: None,
        parent: None,
        variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    }
}

#[test]
fn numbers_are_on_the_disk_before_they_are_told_and_never_given_again() {
    let directory = Directory::new();
    let mut ids = SubjectIds::default();
    let mut sessions = Sessions::read(&directory.0, "a", 1);
    assert_eq!(sessions.begin(opening(&[]), &mut ids, 1).unwrap(), 1);
    let mut sessions = Sessions::read(&directory.0, "a", 1);
    assert_eq!(sessions.begin(opening(&[]), &mut ids, 1).unwrap(), 2);
    sessions.abandon(2, 1);
    let mut sessions = Sessions::read(&directory.0, "a", 1);
    assert_eq!(sessions.begin(opening(&[]), &mut ids, 1).unwrap(), 3);
    assert_eq!(sessions.open().map(|session| session.id).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn a_session_that_could_not_be_written_does_not_exist() {
    let directory = Directory::new();
    let mut sessions = Sessions::read(&directory.0.join("missing"), "a", 1);
    assert!(sessions.begin(opening(&[]), &mut SubjectIds::default(), 1).is_err());
    assert!(sessions.all().is_empty());
}

#[test]
fn a_session_ends_with_its_last_process() {
    let directory = Directory::new();
    let mut ids = SubjectIds::default();
    let mut sessions = Sessions::read(&directory.0, "a", 1);
    for _ in 0..2 {
        sessions.begin(opening(&[]), &mut ids, 1).unwrap();
    }
    let seen = HashMap::from([(2, vec![(50, 9)])]);
    assert_eq!(sessions.seen(seen, Vec::new(), 5).unwrap(), [1]);
    let sessions = Sessions::read(&directory.0, "a", 1);
    assert_eq!(sessions.get(2).unwrap().processes, [(50, 9)]);
    assert!(sessions.get(1).unwrap().ended.is_some());
}

#[test]
fn only_sessions_with_variables_have_rows_and_leave_them_to_later_ones() {
    let directory = Directory::new();
    let mut ids = SubjectIds::default();
    ids.assign("coder");
    let mut sessions = Sessions::read(&directory.0, "a", 1);
    sessions.begin(opening(&[]), &mut ids, 1).unwrap();
    sessions.begin(opening(&[("tree", "/a")]), &mut ids, 1).unwrap();
    sessions.begin(opening(&[("tree", "/b")]), &mut ids, 1).unwrap();
    let rows = |sessions: &Sessions| {
        sessions.seats().iter().map(|seat| (seat.session, seat.row)).collect::<Vec<_>>()
    };
    assert_eq!(rows(&sessions), [(2, 17), (3, 18)]);
    assert_eq!((sessions.row(1), sessions.row(2)), (None, Some(17)));
    sessions.abandon(2, 1);
    sessions.begin(opening(&[("tree", "/c")]), &mut ids, 1).unwrap();
    assert_eq!(rows(&sessions), [(3, 18), (4, 17)]);
}

#[test]
fn a_restarted_agent_finds_the_processes_again_and_another_boot_does_not() {
    let directory = Directory::new();
    let mut ids = SubjectIds::default();
    let subject = ids.assign("coder");
    let mut sessions = Sessions::read(&directory.0, "a", 1);
    sessions.begin(opening(&[]), &mut ids, 1).unwrap();
    sessions.begin(opening(&[("tree", "/a")]), &mut ids, 1).unwrap();
    let requests = Sessions::read(&directory.0, "a", 1).resume(&mut ids);
    let found: Vec<_> =
        requests.iter().map(|(pid, it)| (*pid, it.start_ticks, it.subject, it.session, it.row)).collect();
    assert_eq!(found, [(42, 7, subject, 1, subject), (42, 7, subject, 2, 17)]);
    assert!(Sessions::read(&directory.0, "b", 1).resume(&mut ids).is_empty());
}

#[test]
fn a_successor_is_known_again_and_keeps_its_session() {
    let directory = Directory::new();
    let mut ids = SubjectIds::default();
    let (subject, tool) = (ids.assign("coder"), ids.assign("tool"));
    let mut sessions = Sessions::read(&directory.0, "a", 1);
    sessions.begin(opening(&[("tree", "/a")]), &mut ids, 1).unwrap();
    let one = |pid, session| Entered { pid, start_ticks: 8, subject: "tool".to_owned(), session };
    assert!(sessions.seen(HashMap::new(), vec![one(50, 1), one(60, 0)], 5).unwrap().is_empty());
    let requests = Sessions::read(&directory.0, "a", 1).resume(&mut ids);
    let found: Vec<_> = requests.iter().map(|(pid, it)| (*pid, it.subject, it.session, it.row)).collect();
    assert_eq!(found, [(50, tool, 1, tool), (60, tool, 0, tool)]);
    assert_ne!(subject, tool);
    assert!(Sessions::read(&directory.0, "b", 1).resume(&mut ids).is_empty());
    assert_eq!(sessions.seen(HashMap::new(), vec![one(60, 0)], 5).unwrap(), [1]);
    assert!(!sessions.is_idle());
    assert!(sessions.seen(HashMap::new(), Vec::new(), 5).unwrap().is_empty() && sessions.is_idle());
}

#[test]
fn ended_sessions_are_kept_within_bounds() {
    let directory = Directory::new();
    let mut ids = SubjectIds::default();
    let mut sessions = Sessions::read(&directory.0, "a", 1);
    sessions.begin(opening(&[]), &mut ids, 1).unwrap();
    for _ in 0..MAX_ENDED + 5 {
        let id = sessions.begin(opening(&[]), &mut ids, 1).unwrap();
        sessions.abandon(id, 1);
    }
    assert_eq!(sessions.all().len(), MAX_ENDED + 1);
    assert_eq!(sessions.all()[0].id, 1, "one that lasts is not forgotten");
}

#[test]
fn a_file_that_cannot_be_used_is_set_aside_and_no_number_comes_again() {
    for text in ["", "{", r#"{"format":2,"boot_id":"a","next":9,"sessions":[]}"#] {
        let directory = Directory::new();
        std::fs::write(directory.0.join("sessions.json"), text).unwrap();
        let now = 1_700_000_000_000_000_000;
        let mut sessions = Sessions::read(&directory.0, "a", now);
        assert!(sessions.lost.as_ref().is_some_and(|lost| lost.contains("sessions.json.unusable")));
        let id = sessions.begin(opening(&[]), &mut SubjectIds::default(), now).unwrap();
        assert!(id >= 1_700_000_000_000_000);
    }
}
