use super::*;
use zerocopy::FromBytes;

const DEVICE: u32 = 254 << MINOR_BITS | 1;

fn event() -> Event {
    let mut event = Event::read_from_bytes(&[0; size_of::<Event>()]).unwrap();
    event.boot_ns = 5_000_001_000;
    event.sequence = 9;
    event.cpu = 1;
    event.subject = 3;
    event.verdict = Verdict::Denied as u8;
    event.errno = EACCES as u8;
    event.comm[..6].copy_from_slice(b"python");
    event
}

fn with_path(path: &[u8]) -> Event {
    let mut event = event();
    event.actions = Action::FileRead.bit() | Action::FileWrite.bit();
    event.device = DEVICE;
    event.flags = FLAG_PATH;
    event.path_len = path.len() as u16;
    event.path[..path.len()].copy_from_slice(path);
    event
}

fn render(event: &Event) -> Record {
    let mounts = MountPoint::parse_all(b"22 1 254:1 /@ / rw - btrfs /dev/vda rw\n");
    let names = Arc::new(BTreeMap::from([(3, "ai-coder".to_owned())]));
    Renderer::new(names, mounts).with_clock(Clock::Offset(1_000_000_000)).record(event)
}

#[test]
fn a_denied_open_becomes_a_record_and_comes_back_from_json() {
    let record = render(&with_path(b"/@/etc/shadow"));
    assert_eq!(record.time, "1970-01-01T00:00:06.000001Z");
    assert_eq!((record.verdict.as_str(), record.reason.as_str()), ("denied", "policy"));
    assert_eq!((record.subject.as_deref(), record.session), (Some("ai-coder"), None));
    assert_eq!(record.actions, ["file.read", "file.write"]);
    assert_eq!(record.errno.as_deref(), Some("EACCES"));
    assert_eq!(record.comm, "python");
    assert_eq!(record.resource.kind, "file");
    assert_eq!(record.resource.path.as_deref(), Some("/etc/shadow"));
    assert_eq!(record.resource.fs_path.as_deref(), Some("/@/etc/shadow"));
    assert_eq!(record.resource.device.as_deref(), Some("254:1"));
    let line = record.to_json_line();
    assert!(!line.contains('\n'), "{line}");
    assert_eq!(Record::from_json_line(&line).unwrap(), record);
    assert!(Record::from_json_line(&line.replace("guard.event/1", "guard.event/9")).is_err());
}

#[test]
fn hostile_names_are_lossless_and_safe() {
    let record = render(&with_path(b"/@/tmp/\x1b[2J\xff"));
    assert_eq!(record.resource.path.as_deref(), Some("/tmp/\\x1b[2J\\xff"));
    assert_eq!(record.resource.path_bytes.as_deref(), Some("2f746d702f1b5b324aff"));
    assert_eq!(record.resource.fs_path_bytes.as_deref(), Some("2f402f746d702f1b5b324aff"));
    assert!(!record.to_json_line().contains(['\x1b', '\n']));
    let mut named = event();
    named.comm = *b"\x1b]0;x\x07aaaaaaaaaa";
    assert_eq!(render(&named).comm, "\\x1b]0;x\\x07aaaaaaaaaa");
}

#[test]
fn a_cut_path_has_no_host_path() {
    let mut event = with_path(b"/etc/shadow");
    event.flags |= FLAG_PATH_CUT;
    let resource = render(&event).resource;
    assert!(resource.path_truncated);
    assert_eq!((resource.path, resource.fs_path.as_deref()), (None, Some("/etc/shadow")));
}

#[test]
fn the_root_of_a_file_system_is_a_slash() {
    let resource = render(&with_path(b"")).resource;
    assert_eq!(resource.fs_path.as_deref(), Some("/"));
    assert_eq!(resource.path, None, "the mount shows a directory below it");
}

#[test]
fn endpoints_have_address_port_and_protocol() {
    let mut event = event();
    event.actions = Action::NetConnect.bit();
    (event.family, event.port, event.protocol) = (AF_INET, 443, 6);
    event.address[..4].copy_from_slice(&[192, 0, 2, 7]);
    let resource = render(&event).resource;
    assert_eq!(resource.kind, "endpoint");
    assert_eq!((resource.address.as_deref(), resource.port), (Some("192.0.2.7"), Some(443)));
    assert_eq!(resource.protocol.as_deref(), Some("tcp"));
    event.family = AF_INET6;
    event.address = Ipv6Addr::LOCALHOST.octets();
    assert_eq!(render(&event).resource.address.as_deref(), Some("::1"));
}

#[test]
fn abstract_names_and_builtin_classes_are_named() {
    let mut event = with_path(b"\0bus");
    event.actions = Action::UnixConnect.bit();
    event.device = 0;
    event.flags = FLAG_ABSTRACT;
    let resource = render(&event).resource;
    assert_eq!((resource.kind.as_str(), resource.abstract_name.as_deref()), ("unix", Some("\\x00bus")));
    assert_eq!((resource.device, resource.fs_path), (None, None));
    event.flags = 0;
    event.path_len = 0;
    event.actions = Action::ExecMap.bit();
    event.class = ANONYMOUS_MEMORY;
    let resource = render(&event).resource;
    assert_eq!((resource.kind.as_str(), resource.builtin.as_deref()), ("memory", Some("anonymous")));
}

#[test]
fn numbers_from_another_version_do_not_break_the_record() {
    let mut event = event();
    (event.verdict, event.reason, event.errno) = (99, 99, 99);
    event.actions = u64::MAX;
    event.path_len = u16::MAX;
    event.flags = FLAG_PATH;
    event.session = 7;
    event.subject = 8;
    let record = render(&event);
    assert_eq!((record.verdict.as_str(), record.reason.as_str()), ("unknown", "unknown"));
    assert_eq!((record.errno.as_deref(), record.session), (Some("99"), Some(7)));
    assert_eq!((record.subject, record.subject_id), (None, 8));
    assert_eq!(record.actions.len(), guard_common::action::named().count());
}
