use super::*;
use crate::events::{Kind, Record, ResourceRecord, ShadowRecord};
use guard_common::action::Action;
use guard_common::event::Event;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use zerocopy::FromZeros;

/// A state directory that is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("guard-store-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn store(&self) -> Store {
        Store::start(&self.0, Limits::default()).unwrap()
    }

    fn file(&self) -> PathBuf {
        self.0.join(FILE)
    }

    fn aside(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        names
            .filter(|name| name.contains("unusable") && !name.ends_with("-wal") && !name.ends_with("-shm"))
            .collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An event of subject number `subject` on `/srv/NAME`, at `at`.
fn noted(subject: u32, name: &str, at: i64) -> Noted {
    let path = format!("/srv/{name}");
    let mut event = Event::new_zeroed();
    (event.subject, event.actions, event.verdict) = (subject, Action::FileRead.bit(), 1);
    (event.flags, event.path_len) = (guard_common::event::FLAG_PATH, path.len() as u16);
    event.path[..path.len()].copy_from_slice(path.as_bytes());
    let kind = Kind::of(&event);
    let record = Record {
        schema: Record::SCHEMA.to_owned(),
        id: kind.id(),
        time: time_of(at),
        boot_ns: 1,
        verdict: "denied".to_owned(),
        would_allow: false,
        subject: Some(format!("s{subject}")),
        subject_id: subject,
        session: None,
        actions: vec!["file.read".to_owned()],
        resource: ResourceRecord { kind: "file".to_owned(), path: Some(path), ..ResourceRecord::default() },
        reason: "policy".to_owned(),
        errno: Some("EACCES".to_owned()),
        pid: u32::MAX,
        tid: 1,
        uid: 33,
        comm: "x".to_owned(),
        cgroup: 1,
        generation: 1,
        sequence: 1,
        cpu: 0,
        ask_for: Vec::new(),
        class: 20,
        features: 1 << 63,
        shadow: None,
        seen: None,
    };
    Noted { kind, record, at }
}

fn time_of(at: i64) -> String {
    crate::events::time::rfc3339(at)
}

fn bundle(version: u64) -> BundleRecord {
    BundleRecord { name: "web".to_owned(), version, digest: format!("{version:064x}") }
}

fn now() -> i64 {
    crate::events::time::now()
}

fn all(store: &Store) -> Vec<Found> {
    store.query(&Filter::default()).unwrap().0
}

#[test]
fn repeats_are_one_row_for_each_bundle() {
    let directory = Directory::new();
    let store = directory.store();
    let start = now();
    store.generation(1, bundle(1), None);
    store.note((0..1_000).map(|n| noted(16, "x", start + n)));
    store.note([noted(16, "y", start + 5_000)]);
    let found = all(&store);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].record.resource.path.as_deref(), Some("/srv/y"), "the newest first");
    assert_eq!((found[1].count, found[1].first, found[1].last), (1_000, start, start + 999));
    let seen = found[1].record.seen.as_ref().unwrap();
    assert_eq!((seen.count, seen.bundle.as_ref()), (1_000, Some(&bundle(1))));
    assert_eq!(found[1].record.features, 1 << 63);

    // After it was written, and under another bundle.
    store.note([noted(16, "x", start + 10_000)]);
    store.generation(2, bundle(2), None);
    let mut later = noted(16, "x", start + 20_000);
    later.record.generation = 2;
    store.note([later]);
    let id = &found[1].record.id;
    let rows = store.find(id).unwrap();
    let counts: Vec<_> = rows.iter().map(|row| (row.count, row.record.generation)).collect();
    assert_eq!(counts, [(1, 2), (1_001, 1)]);
    assert_eq!(store.status().kinds, 3);
    assert!(store.find("d-000000").unwrap().is_empty());
}

/// The same event, with what the shadow would have done.
fn otherwise(mut noted: Noted, verdict: &str) -> Noted {
    noted.record.shadow =
        Some(ShadowRecord { verdict: verdict.to_owned(), actions: vec!["file.read".to_owned()] });
    noted
}

#[test]
fn what_a_shadow_would_decide_otherwise_is_counted_for_that_shadow_only() {
    let directory = Directory::new();
    let store = directory.store();
    let start = now();
    let beside = |began| Some(Beside { began, bundle: bundle(9) });
    store.generation(1, bundle(1), beside(7));
    store.note((0..100).map(|n| otherwise(noted(16, "x", start + n), "allowed")));
    // The same kind of event, and the shadow would do the same, or the contrary.
    store.note([noted(16, "x", start + 200), otherwise(noted(16, "x", start + 300), "denied")]);
    let found = store.differences(7).unwrap();
    let counts: Vec<_> = found.kinds.iter().map(|kind| (kind.count, kind.first, kind.last)).collect();
    assert_eq!(counts, [(1, start + 300, start + 300), (100, start, start + 99)]);
    assert!(found.kinds[1].record.shadow.as_ref().unwrap().allows());
    assert_eq!((found.kinds[1].bundle.as_str(), found.forgotten), (bundle(1).digest.as_str(), 0));
    assert!(found.missing.is_nothing());
    // Every event says beside which shadow it was.
    let rows = all(&store);
    assert_eq!((rows.len(), rows[0].count), (1, 102));
    assert_eq!(rows[0].record.seen.as_ref().unwrap().shadow, Some(bundle(9)));

    // Another shadow begins at nothing; without one nothing is counted.
    store.generation(2, bundle(1), beside(8));
    assert!(store.differences(8).unwrap().kinds.is_empty());
    store.generation(3, bundle(1), None);
    let mut late = otherwise(noted(16, "x", start + 400), "allowed");
    late.record.generation = 3;
    store.note([late]);
    assert!(store.differences(8).unwrap().kinds.is_empty());
    assert_eq!(all(&store)[0].record.seen.as_ref().unwrap().shadow, None);
    drop(store);
    assert_eq!(directory.store().differences(7).unwrap().kinds.len(), 2, "it is on the disk");
}

#[test]
fn the_kinds_of_a_shadow_are_bounded_and_what_is_forgotten_is_counted() {
    let directory = Directory::new();
    let store = directory.store();
    let start = now();
    store.generation(1, bundle(1), Some(Beside { began: 7, bundle: bundle(9) }));
    store.note([otherwise(noted(17, "quiet", start), "allowed")]);
    store.note((0..6_000).map(|n| otherwise(noted(16, &n.to_string(), start + 1 + n), "allowed")));
    let found = store.differences(7).unwrap();
    assert!(found.kinds.len() <= 5_000, "{}", found.kinds.len());
    assert!(found.kinds.iter().any(|kind| kind.record.subject_id == 17), "who is quiet is not forgotten");
    let kept: u64 = found.kinds.iter().map(|kind| kind.count).sum();
    assert_eq!(kept + found.forgotten, 6_001);
}

#[test]
fn only_the_owner_reads_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new();
    let store = directory.store();
    store.note([noted(16, "x", now())]);
    assert_eq!(all(&store).len(), 1);
    for entry in std::fs::read_dir(&directory.0).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.file_name());
    }
}

#[test]
fn filters_take_what_they_name() {
    let directory = Directory::new();
    let store = directory.store();
    let start = now();
    let mut would = noted(17, "would", start + 1);
    would.record.verdict = "would_deny".to_owned();
    let mut connect = noted(17, "connect", start + 2);
    connect.record.actions = vec!["net.connect".to_owned()];
    store.note([noted(16, "a", start), would, connect, noted(16, "b", start + 3)]);
    let names = |filter: Filter| -> Vec<String> {
        let rows = store.query(&filter).unwrap().0;
        rows.into_iter().map(|row| row.record.resource.path.unwrap()).collect()
    };
    let base = Filter::default;
    assert_eq!(names(base()), ["/srv/b", "/srv/connect", "/srv/would", "/srv/a"]);
    assert_eq!(names(Filter { subject: Some("s16".into()), ..base() }), ["/srv/b", "/srv/a"]);
    assert_eq!(names(Filter { verdict: Some("would_deny".into()), ..base() }), ["/srv/would"]);
    let actions = Some(Action::NetConnect.bit() | Action::NetBind.bit());
    assert_eq!(names(Filter { actions, ..base() }), ["/srv/connect"]);
    assert_eq!(names(Filter { since: Some(start + 2), ..base() }), ["/srv/b", "/srv/connect"]);
    assert_eq!(names(Filter { limit: Some(1), ..base() }), ["/srv/b"]);
    assert_eq!(names(Filter { path: Some(b"/srv/a".to_vec()), ..base() }), ["/srv/a"]);
    assert_eq!(names(Filter { pid: Some(1), ..base() }), [""; 0]);
    assert_eq!(names(Filter { subject: Some("s16' OR 1 --".into()), ..base() }), [""; 0]);
}

#[test]
fn what_was_lost_is_counted_where_it_is_missing() {
    let directory = Directory::new();
    let store = directory.store();
    store.lost(7);
    store.lost(4);
    let missing = store.query(&Filter::default()).unwrap().1;
    assert_eq!(missing, Missing::new(11, 0));
    let later = Filter { since: Some(i64::MAX), ..Filter::default() };
    assert!(store.query(&later).unwrap().1.is_nothing());
    drop(store);
    assert_eq!(directory.store().query(&Filter::default()).unwrap().1, Missing::new(11, 0));
}

#[test]
fn more_kinds_than_there_is_room_for_are_counted_exactly() {
    let directory = Directory::new();
    let store = directory.store();
    let start = now();
    let total = 40_000_u32;
    // One call, so that the writer cannot take any of them in between.
    store.note((0..total).map(|n| noted(16, &n.to_string(), start)));
    let found = all(&store);
    let status = store.status();
    let stored: u64 = found.iter().map(|row| row.count).sum();
    assert_eq!(stored + status.not_stored, u64::from(total));
    assert!(status.not_stored > 0 && !found.is_empty());
    assert_eq!(store.query(&Filter::default()).unwrap().1.not_stored, status.not_stored);
}

#[test]
fn what_is_too_old_goes_and_whoever_has_most_makes_room() {
    let directory = Directory::new();
    let limits = Limits { bytes: 4 << 20, ..Limits::default() };
    let store = Store::start(&directory.0, limits).unwrap();
    let start = now();
    store.note([noted(16, "old", start - 91 * retention::DAY), noted(16, "quiet", start - retention::DAY)]);
    for round in 0..10 {
        store.note((0..2_000).map(|n| noted(17, &format!("{round}/{n}"), start + n)));
        assert!(!all(&store).is_empty());
    }
    let status = store.status();
    assert!(status.bytes <= limits.bytes, "{status:?}");
    assert!(status.forgotten > 1_000, "{status:?}");
    let quiet = store.query(&Filter { subject: Some("s16".into()), ..Filter::default() }).unwrap().0;
    let paths: Vec<_> = quiet.iter().filter_map(|row| row.record.resource.path.as_deref()).collect();
    assert_eq!(paths, ["/srv/quiet"], "the loud subject does not push out the quiet one");
    assert_eq!(all(&store).len() as u64, status.kinds);
}

#[test]
fn a_file_that_cannot_be_used_is_set_aside_and_said() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 4] = [
        ("no database", |file| std::fs::write(file, vec![b'x'; 8192]).unwrap()),
        ("too new", |file| {
            let connection = rusqlite::Connection::open(file).unwrap();
            connection.pragma_update(None, "user_version", 99).unwrap();
        }),
        ("other tables", |file| {
            let connection = rusqlite::Connection::open(file).unwrap();
            connection.execute_batch("DROP TABLE event").unwrap();
        }),
        ("rot", |file| {
            let mut bytes = std::fs::read(file).unwrap();
            for page in bytes.chunks_mut(4096).skip(1) {
                page.fill(0xa5);
            }
            std::fs::write(file, bytes).unwrap();
        }),
    ];
    for (what, damage) in cases {
        let directory = Directory::new();
        let store = directory.store();
        store.note([noted(16, "before", now())]);
        drop(store);
        damage(&directory.file());
        let store = directory.store();
        store.note([noted(16, "after", now())]);
        let paths: Vec<_> = all(&store).into_iter().map(|row| row.record.resource.path.unwrap()).collect();
        assert_eq!(paths, ["/srv/after"], "{what}");
        let status = store.status();
        assert_eq!(status.broken, None, "{what}");
        let aside = directory.aside();
        assert_eq!(aside.len(), 1, "{what}: {aside:?}");
        let said = status.set_aside.unwrap();
        assert!(said.contains(&aside[0]), "{what}: {said}");
        assert_eq!(status.not_stored, 0, "{what}");
    }
}

#[test]
fn a_file_that_is_damaged_while_it_is_used_is_set_aside() {
    let directory = Directory::new();
    let store = directory.store();
    store.note([noted(16, "before", now())]);
    assert_eq!(all(&store).len(), 1);
    rusqlite::Connection::open(directory.file()).unwrap().execute_batch("DROP TABLE event").unwrap();
    store.note([noted(16, "after", now())]);
    let paths: Vec<_> = all(&store).into_iter().map(|row| row.record.resource.path.unwrap()).collect();
    assert_eq!(paths, ["/srv/after"]);
    assert_eq!(store.status().not_stored, 0);
    assert_eq!(directory.aside().len(), 1);
}

#[test]
fn files_set_aside_do_not_pile_up() {
    let directory = Directory::new();
    for second in 1..=5 {
        std::fs::write(directory.file(), b"rubbish").unwrap();
        std::fs::write(directory.0.join("events.db-wal"), b"rubbish").unwrap();
        database::set_aside(&directory.file(), second * 1_000_000_000).unwrap();
    }
    let mut names: Vec<_> = std::fs::read_dir(&directory.0)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let wanted = [
        "events.db.unusable-4",
        "events.db.unusable-4-wal",
        "events.db.unusable-5",
        "events.db.unusable-5-wal",
    ];
    assert_eq!(names, wanted);
}

#[test]
fn a_directory_that_is_not_there_stores_nothing_and_says_so() {
    let directory = Directory::new();
    let store = Store::start(&directory.0.join("missing"), Limits::default()).unwrap();
    store.note([noted(16, "x", now()), noted(16, "x", now())]);
    assert!(store.query(&Filter::default()).unwrap_err().to_string().contains("events.db"));
    let status = store.status();
    assert_eq!(status.not_stored, 2);
    assert!(status.broken.unwrap().contains("events.db"));
    // It goes on by itself, and what was not stored is part of what is missing.
    std::fs::create_dir(directory.0.join("missing")).unwrap();
    store.note([noted(16, "y", now())]);
    let (found, missing) = store.query(&Filter::default()).unwrap();
    assert_eq!((found.len(), missing), (1, Missing::new(0, 2)));
    assert_eq!(store.status().broken, None);
}

/// Notes one event after another, and says the number of each once it can be read. Does nothing unless
/// the test below starts it.
#[test]
fn events_for_ever() {
    let Some(state) = std::env::var_os("GUARD_TEST_STORE") else { return };
    let store = Store::start(Path::new(&state), Limits::default()).unwrap();
    let before = all(&store).len();
    for number in before.. {
        store.note([noted(16, &number.to_string(), now())]);
        store.queue.settle();
        println!("stored {number}");
    }
}

#[test]
fn a_kill_loses_nothing_that_was_written() {
    let directory = Directory::new();
    let mut stored = 0;
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::events_for_ever", "--nocapture"])
            .env("GUARD_TEST_STORE", &directory.0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..round * 7 {
            let line = lines.by_ref().find_map(|line| {
                line.unwrap().split_once("stored ").map(|(_, number)| number.parse::<usize>().unwrap())
            });
            stored = line.expect("the child goes on");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let store = directory.store();
        let found = all(&store);
        assert!(found.len() > stored, "{} of {}", found.len(), stored + 1);
        assert_eq!(store.status().set_aside, None);
        stored = found.len();
    }
}

#[test]
fn what_was_used_adds_up_and_an_older_file_learns_to_hold_it() {
    let directory = Directory::new();
    let store = directory.store();
    store.note([noted(16, "before", now())]);
    drop(store);
    // As an agent of format 1 left it.
    let connection = rusqlite::Connection::open(directory.file()).unwrap();
    connection
        .execute_batch(
            "DROP TABLE used; DROP TABLE watched; DROP TABLE shadow; DROP TABLE shadow_forgotten;
             ALTER TABLE event DROP COLUMN shadow; PRAGMA user_version = 1",
        )
        .unwrap();
    drop(connection);
    let store = directory.store();
    let used = |class: &str, actions: u64| Used { classes: [(class.to_owned(), actions)].into() };
    store.used(&bundle(1), "web", 500, used("/srv/**", 1));
    store.used(&bundle(1), "web", 900, used("/srv/**", 1 << 63));
    store.used(&bundle(1), "web", 900, used("/etc/**", 2));
    store.used(&bundle(2), "web", 700, Used::default());
    let known = store.used_since(&bundle(1).digest, "web").unwrap().unwrap();
    assert_eq!(known.since, 500);
    assert_eq!(known.used.classes, [("/etc/**".to_owned(), 2), ("/srv/**".to_owned(), 1 | 1 << 63)].into());
    assert!(store.used_since(&bundle(2).digest, "web").unwrap().unwrap().used.classes.is_empty());
    assert_eq!(store.used_since(&bundle(1).digest, "db").unwrap(), None);
    assert_eq!(all(&store).len(), 1, "what was known before is still there");
    assert_eq!(store.status().set_aside, None);
}
