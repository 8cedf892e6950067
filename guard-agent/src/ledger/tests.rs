use super::fact::{NewFact, Which};
use super::lease::{At, NewLease};
use super::*;
use crate::policy::FactValue;
use std::sync::atomic::{AtomicU32, Ordering};

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("guard-ledger-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn open(&self) -> Ledger {
        Ledger::open(&self.0).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SECOND: u64 = 1_000_000_000;

fn at(seconds: u64) -> At<'static> {
    At { wall: 1_000_000_000_000 + (seconds * SECOND).cast_signed(), boot: seconds * SECOND, boot_id: "a" }
}

fn lease(lasts: u64) -> NewLease<'static> {
    NewLease {
        name: "change",
        subject: "coder",
        session: None,
        uses: None,
        lasts: Duration::from_secs(lasts),
        by: "uid 0",
        reason: Some("INC-1"),
        request: None,
    }
}

fn fact(subject: Option<&'static str>, value: i64, lasts: Option<u64>) -> NewFact<'static> {
    said_by("edr", subject, value, lasts)
}

fn said_by(
    source: &'static str,
    subject: Option<&'static str>,
    value: i64,
    lasts: Option<u64>,
) -> NewFact<'static> {
    NewFact {
        which: Which { subject, name: "trust", source },
        value: FactValue::Long(value),
        lasts: lasts.map(Duration::from_secs),
        age: Duration::ZERO,
    }
}

const CODERS: Which<'static> = Which { subject: Some("coder"), name: "trust", source: "edr" };

fn question(session: u64) -> NewRequest<'static> {
    NewRequest {
        lease: "change",
        subject: "coder",
        session,
        lasts: Duration::from_secs(60),
        uses: None,
        only_session: false,
        reason: "please",
        uid: 1000,
        human: Some(1000),
        pid: 7,
        exe: Some("/usr/bin/node"),
    }
}

fn waits(created: Created) -> Request {
    match created {
        Created::Waits(request) => *request,
        _ => panic!("it does not wait"),
    }
}

#[test]
fn a_lease_ends_on_the_clock_that_never_steps_and_with_the_boot() {
    let directory = Directory::new();
    let granted = directory.open().grant(&lease(60), at(10)).unwrap();
    let ledger = directory.open();
    assert_eq!(ledger.leases(), std::slice::from_ref(&granted));
    let end = |boot: u64, id: &str| ledger.leases()[0].end(boot * SECOND, id);
    assert_eq!(end(69, "a"), Some(70 * SECOND));
    assert_eq!((end(70, "a"), end(11, "b"), end(11, "")), (None, None, None));
}

#[test]
fn what_is_revoked_stays_so_and_is_remembered() {
    let directory = Directory::new();
    let mut ledger = directory.open();
    let id = ledger.grant(&lease(60), at(10)).unwrap().id;
    let renewed = ledger.renew(id, Duration::from_secs(600), at(20)).unwrap().unwrap();
    assert_eq!(renewed.end(21, "a"), Some(620 * SECOND));
    let revoked = ledger.revoke(id, "uid 7", at(30)).unwrap().unwrap();
    assert_eq!((revoked.end(31, "a"), revoked.ended_by.as_deref()), (None, Some("uid 7")));
    assert!(ledger.revoke(id, "uid 7", at(31)).unwrap().is_none());
    let again = directory.open();
    assert!(again.leases().is_empty());
    assert_eq!(again.all_leases(10).unwrap(), [revoked]);
}

#[test]
fn a_request_is_granted_once_and_its_lease_with_it() {
    let directory = Directory::new();
    let mut ledger = directory.open();
    let request = waits(ledger.ask(&question(3), at(1)).unwrap());
    // Asked again it is the same one.
    assert_eq!(waits(ledger.ask(&question(3), at(2)).unwrap()).id, request.id);
    ledger.approve(request.id, 5, "uid 5", "shown", at(3)).unwrap();
    ledger.approve(request.id, 5, "uid 5", "shown", at(4)).unwrap();
    ledger.approve(request.id, 6, "uid 6", "shown", at(5)).unwrap();
    let new = NewLease { request: Some(request.id), ..lease(60) };
    let granted = ledger.fulfil(request.id, &new, at(6)).unwrap();
    let mut again = directory.open();
    let closed = again.request(request.id).unwrap().unwrap();
    assert_eq!((closed.state, closed.granted), (RequestState::Approved, Some(granted.id)));
    assert_eq!(closed.approvals.iter().map(|one| one.person).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(again.leases()[0].request, Some(request.id));
    assert!(again.requests(false, 10, at(7)).unwrap().is_empty());
    assert_eq!(again.requests(true, 10, at(7)).unwrap().len(), 1);
}

#[test]
fn what_was_denied_is_held_back_and_what_nobody_answers_expires() {
    let directory = Directory::new();
    let mut ledger = directory.open();
    let first = waits(ledger.ask(&question(0), at(1)).unwrap());
    ledger.deny(first.id, "uid 5", Some("not now"), at(2)).unwrap();
    assert!(matches!(ledger.ask(&question(0), at(3)).unwrap(), Created::HeldBack));
    let second = waits(ledger.ask(&question(0), at(700)).unwrap());
    assert_eq!(ledger.requests(false, 10, at(4_299)).unwrap().len(), 1);
    assert!(ledger.requests(false, 10, at(4_301)).unwrap().is_empty());
    assert_eq!(ledger.request(second.id).unwrap().unwrap().state, RequestState::Expired);
    for session in 1..=16 {
        waits(ledger.ask(&question(session), at(5_000)).unwrap());
    }
    assert!(matches!(ledger.ask(&question(17), at(5_000)).unwrap(), Created::TooMany));
}

#[test]
fn a_fact_replaces_the_one_before_and_can_be_taken_back() {
    let directory = Directory::new();
    let mut ledger = directory.open();
    ledger.set_fact(&fact(None, 1, None), at(1)).unwrap();
    ledger.set_fact(&fact(Some("coder"), 2, Some(10)), at(2)).unwrap();
    let third = ledger.set_fact(&fact(Some("coder"), 3, Some(10)), at(3)).unwrap();
    let mut ledger = directory.open();
    assert_eq!(ledger.facts().len(), 2);
    let own = ledger.facts().iter().find(|fact| fact.subject.is_some()).unwrap();
    assert_eq!((own, own.end(5 * SECOND, "a")), (&third, Some(Some(13 * SECOND))));
    assert_eq!((own.end(13 * SECOND, "a"), own.end(5 * SECOND, "b")), (None, None));
    let host = ledger.facts().iter().find(|fact| fact.subject.is_none()).unwrap();
    assert_eq!(host.end(99 * SECOND, "b"), Some(None), "without an end it outlives the boot");
    assert_eq!(ledger.unset_fact(CODERS, at(6)).unwrap(), Some(third.clone()));
    assert_eq!(ledger.unset_fact(CODERS, at(6)).unwrap(), None);
    ledger.restore_fact(CODERS, Some(third)).unwrap();
    assert_eq!(directory.open().facts().len(), 2);
}

#[test]
fn each_source_has_its_own_word() {
    let directory = Directory::new();
    let mut ledger = directory.open();
    ledger.set_fact(&fact(Some("coder"), 2, None), at(10)).unwrap();
    ledger.set_fact(&said_by("desk", Some("coder"), 3, None), at(20)).unwrap();
    let mut ledger = directory.open();
    assert_eq!(ledger.facts().len(), 2);
    let trust = |ledger: &Ledger, seconds: u64| {
        ledger.facts_at("coder", at(seconds).wall).unwrap().posture.get("trust").cloned()
    };
    assert_eq!(trust(&ledger, 15), Some(FactValue::Long(2)));
    assert_eq!(trust(&ledger, 25), None, "they differ");
    let desk = Which { source: "desk", ..CODERS };
    assert!(ledger.unset_fact(desk, at(30)).unwrap().is_some_and(|fact| fact.which() == desk));
    assert_eq!(
        (ledger.facts().len(), trust(&ledger, 25), trust(&ledger, 35)),
        (1, None, Some(FactValue::Long(2)))
    );
}

#[test]
fn no_fact_holds_for_longer_than_is_allowed_now() {
    let directory = Directory::new();
    let mut ledger = directory.open();
    let end = |fact: &Fact, longest: Option<u64>, boot: u64| {
        fact.end_within(longest.map(Duration::from_secs), boot * SECOND, "a")
    };
    let endless = ledger.set_fact(&fact(None, 1, None), at(100)).unwrap();
    assert_eq!(end(&endless, None, 101), Some(None));
    assert_eq!(end(&endless, Some(60), 101), Some(Some(160 * SECOND)));
    assert_eq!(end(&endless, Some(60), 160), None);
    let old = NewFact { age: Duration::from_secs(40), ..fact(None, 1, Some(600)) };
    let old = ledger.set_fact(&old, at(100)).unwrap();
    assert_eq!(end(&old, Some(60), 101), Some(Some(120 * SECOND)), "from when it was said");
    assert_eq!(end(&old, Some(6000), 101), Some(Some(700 * SECOND)));
    assert_eq!(old.end_within(Some(Duration::from_secs(60)), 50 * SECOND, "b"), None);
}

#[test]
fn a_file_of_the_first_format_is_brought_up_to_date() {
    let directory = Directory::new();
    let connection = Connection::open(directory.0.join("state.db")).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE lease (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, subject TEXT NOT NULL,
                granted TEXT NOT NULL, until TEXT NOT NULL, boot_ns INTEGER NOT NULL, boot_id TEXT NOT NULL,
                granted_by TEXT NOT NULL, reason TEXT, request INTEGER, ended TEXT, ended_by TEXT);
             CREATE TABLE request (id INTEGER PRIMARY KEY AUTOINCREMENT, lease TEXT NOT NULL, subject TEXT NOT NULL,
                session INTEGER NOT NULL, seconds INTEGER NOT NULL, reason TEXT NOT NULL, created TEXT NOT NULL,
                created_ns INTEGER NOT NULL, uid INTEGER NOT NULL, human INTEGER, pid INTEGER NOT NULL, exe TEXT,
                state TEXT NOT NULL, decided TEXT, decided_ns INTEGER, decided_by TEXT, note TEXT, granted INTEGER);
             CREATE TABLE fact (subject TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, source TEXT NOT NULL,
                observed TEXT NOT NULL, until TEXT, boot_ns INTEGER, boot_id TEXT, PRIMARY KEY (subject, name)) WITHOUT ROWID;
             INSERT INTO fact VALUES ('', 'trust', '3', 'edr', '2026-01-02T03:04:05.000000Z', NULL, NULL, NULL);
             INSERT INTO fact VALUES ('coder', 'trust', '2', 'edr', '2026-01-02T03:04:05.000000Z', 'later', 70000000000, 'a');
             PRAGMA user_version = 1;",
        )
        .unwrap();
    drop(connection);
    let ledger = directory.open();
    let limit = Some(Duration::from_secs(600));
    let ends: Vec<_> = ledger
        .facts()
        .iter()
        .map(|fact| (fact.value.clone(), fact.end_within(limit, 5 * SECOND, "a")))
        .collect();
    // When they were told is not known: what has an end keeps it, what has none does not hold where facts must end.
    assert_eq!(ends, [(FactValue::Long(3), None), (FactValue::Long(2), Some(Some(70 * SECOND)))]);
    assert_eq!(ledger.facts()[0].end(5 * SECOND, "a"), Some(None));
    drop(ledger);
    assert_eq!(directory.open().facts().len(), 2);
}

#[test]
fn what_held_can_be_asked_later() {
    let directory = Directory::new();
    let mut ledger = directory.open();
    ledger.set_fact(&fact(None, 1, None), at(10)).unwrap();
    ledger.set_fact(&fact(Some("coder"), 2, Some(10)), at(20)).unwrap();
    ledger.set_fact(&fact(Some("coder"), 3, None), at(40)).unwrap();
    ledger.unset_fact(CODERS, at(50)).unwrap();
    let id = ledger.grant(&lease(30), at(10)).unwrap().id;
    ledger.revoke(id, "uid 0", at(20)).unwrap();
    let trust = |seconds: u64, subject: &str| {
        let facts = ledger.facts_at(subject, at(seconds).wall).unwrap();
        (facts.posture.get("trust").cloned(), facts.leases.contains("change"))
    };
    let long = |value| Some(FactValue::Long(value));
    assert_eq!(trust(5, "coder"), (None, false));
    assert_eq!(trust(15, "coder"), (long(1), true));
    assert_eq!(trust(25, "coder"), (long(2), false));
    assert_eq!(trust(35, "coder"), (long(1), false), "it had ended by then");
    assert_eq!(trust(45, "coder"), (long(3), false));
    assert_eq!(trust(55, "coder"), (long(1), false));
    assert_eq!(trust(45, "other"), (long(1), false));
}

#[test]
fn a_file_of_another_version_is_left_alone() {
    let directory = Directory::new();
    drop(directory.open());
    let file = directory.0.join("state.db");
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 9).unwrap();
    assert!(matches!(Ledger::open(&directory.0), Err(LedgerError::Format { found: 9, .. })));
}

fn of_host(confirm: Option<u64>, lasts: Option<u64>) -> NewQuarantine<'static> {
    NewQuarantine {
        subject: "",
        session: None,
        target: Some((&Key::Host, 3)),
        confirm: confirm.map(Duration::from_secs),
        level: guard_common::quarantine::Level::Write,
        lasts: lasts.map(Duration::from_secs),
        by: "uid 0",
        reason: "INC-1",
    }
}

#[test]
fn a_quarantine_of_what_is_no_subject_is_kept_with_its_place() {
    let directory = Directory::new();
    let made = directory.open().confine(&of_host(None, None), at(10)).unwrap();
    let ledger = directory.open();
    assert_eq!(ledger.quarantines(), std::slice::from_ref(&made));
    assert_eq!((made.target.as_ref(), made.place, made.name().as_str()), (Some(&Key::Host), Some(3), "host"));
    assert!(!made.covers("", 0), "the row of nobody");
}

#[test]
fn a_quarantine_ends_unless_it_is_confirmed_and_does_not_outlive_its_boot() {
    let directory = Directory::new();
    let mut ledger = directory.open();
    let one = ledger.confine(&of_host(Some(5), Some(60)), at(10)).unwrap();
    let end = |one: &Quarantine, seconds: u64, boot: &str| {
        let at = at(seconds);
        one.end(at.wall, at.boot, boot).map(|end| end.map(|end| end / SECOND))
    };
    assert_eq!(end(&one, 14, "a"), Some(Some(15)));
    assert_eq!((end(&one, 15, "a"), end(&one, 11, "b")), (None, None));
    let confirmed = ledger.confirm(one.id).unwrap().unwrap();
    assert_eq!((end(&confirmed, 15, "a"), confirmed.confirm_by.as_ref()), (Some(Some(70)), None));
    assert!(end(&confirmed, 20, "b").is_some());
    assert_eq!(directory.open().quarantines(), [confirmed]);
    assert_eq!(ledger.confirm(99).unwrap(), None);
}
