//! What makes two events the same one again, and the short id to say so.

use guard_common::class::{FIRST_COMPILED, OWN_PROC, UNKNOWN};
use guard_common::event::{Event, FLAG_ABSTRACT, FLAG_PATH, FLAG_PATH_CUT};
use sha2::{Digest, Sha256};

/// Crockford's base 32: no I, L, O and U, so that an id can be read out loud.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of an id after its `d-`.
const LENGTH: usize = 6;

/// The kind of an event: the same subject and session, actions, resource, verdict and reason.
///
/// The process that it happened to, the time and the generation do not count, so a program that
/// tries the same thing for ever makes one kind. A digest: a process that chooses names cannot make
/// its own operation look like a repeat of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind([u8; 16]);

impl Kind {
    /// The kind of `event`.
    pub fn of(event: &Event) -> Self {
        let mut hash = Sha256::new();
        hash.update(event.subject.to_le_bytes());
        hash.update(event.session.to_le_bytes());
        hash.update(event.actions.to_le_bytes());
        hash.update([event.verdict, event.reason, event.errno]);
        let flags = event.flags & (FLAG_PATH | FLAG_PATH_CUT | FLAG_ABSTRACT);
        hash.update([flags]);
        hash.update(event.device.to_le_bytes());
        hash.update(event.family.to_le_bytes());
        hash.update(event.port.to_le_bytes());
        hash.update(event.protocol.to_le_bytes());
        hash.update(event.address);
        if event.class < FIRST_COMPILED && event.class != UNKNOWN {
            // Compiled classes have other numbers in every generation, and what a generation does
            // not know the next one may.
            hash.update(event.class.to_le_bytes());
        }
        hash.update(named(event));
        let digest = hash.finalize();
        let mut kind = [0; 16];
        kind.copy_from_slice(&digest[..16]);
        Self(kind)
    }

    /// As bytes.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The short id, such as `d-7K3F2Q`.
    ///
    /// Thirty bits to type, not a unique key: among many kinds an id can come back.
    pub fn id(&self) -> String {
        let [a, b, c, d, ..] = self.0;
        let mut bits = u32::from_be_bytes([a, b, c, d]);
        let mut id = String::from("d-");
        for _ in 0..LENGTH {
            id.push(char::from(ALPHABET[(bits >> 27) as usize]));
            bits <<= 5;
        }
        id
    }
}

/// The name of the resource. In the process's own directory of /proc the number of the process does
/// not count.
fn named(event: &Event) -> &[u8] {
    if event.flags & (FLAG_PATH | FLAG_ABSTRACT) == 0 {
        return &[];
    }
    let name = event.path.get(..usize::from(event.path_len)).unwrap_or(&event.path);
    if event.class != OWN_PROC {
        return name;
    }
    let rest = name.iter().skip(1).position(|byte| *byte == b'/').map_or(name.len(), |at| at + 1);
    &name[rest..]
}

/// An id as people type it, as events have it: any case, with or without `d-`, O for 0 and I or L
/// for 1. Nothing if it cannot be an id.
pub fn typed_id(text: &str) -> Option<String> {
    let upper = text.trim().to_ascii_uppercase();
    let digits = upper.strip_prefix("D-").unwrap_or(&upper);
    let read = digits.chars().map(|digit| match digit {
        'O' => Some('0'),
        'I' | 'L' => Some('1'),
        digit => ALPHABET.iter().any(|known| char::from(*known) == digit).then_some(digit),
    });
    let id: Option<String> = read.collect();
    id.filter(|id| id.len() == LENGTH).map(|id| format!("d-{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn event(path: &[u8]) -> Event {
        let mut event = Event::new_zeroed();
        (event.subject, event.actions, event.verdict, event.class) = (16, 1, 1, FIRST_COMPILED);
        (event.flags, event.device, event.path_len) = (FLAG_PATH, 7, path.len() as u16);
        event.path[..path.len()].copy_from_slice(path);
        event
    }

    #[test]
    fn a_repeat_is_the_same_kind_whoever_made_it_and_when() {
        let first = event(b"/srv/x");
        let mut again = first;
        (again.boot_ns, again.generation, again.sequence, again.cpu) = (9, 9, 9, 9);
        (again.tgid, again.tid, again.uid, again.features, again.cgroup) = (9, 9, 9, 9, 9);
        again.class += 5;
        assert_eq!(Kind::of(&first), Kind::of(&again));
        let id = Kind::of(&first).id();
        assert_eq!(id.len(), 2 + LENGTH);
        assert!(id[2..].bytes().all(|byte| ALPHABET.contains(&byte)), "{id}");
    }

    #[test]
    fn whatever_policy_can_tell_apart_is_another_kind() {
        let first = event(b"/srv/x");
        type Change = fn(&mut Event);
        let changes: [Change; 10] = [
            |event| event.subject += 1,
            |event| event.session += 1,
            |event| event.actions = 2,
            |event| event.verdict = 2,
            |event| event.reason = 4,
            |event| event.device = 8,
            |event| event.path[5] = b'y',
            |event| event.port = 1,
            |event| event.address[15] = 1,
            |event| event.class = 3,
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut other = first;
            change(&mut other);
            assert_ne!(Kind::of(&first), Kind::of(&other), "change {number}");
        }
    }

    #[test]
    fn the_number_of_the_process_in_its_own_proc_directory_does_not_count() {
        let own = |path: &[u8]| Kind::of(&Event { class: OWN_PROC, ..event(path) });
        assert_eq!(own(b"/812/status"), own(b"/9/status"));
        assert_ne!(own(b"/812/status"), own(b"/812/maps"));
        assert_eq!(own(b"/812"), own(b"/9"));
        assert_ne!(Kind::of(&event(b"/812/status")), Kind::of(&event(b"/9/status")));
    }

    #[test]
    fn ids_are_read_as_people_type_them() {
        for text in ["d-7K3F2Q", "7k3f2q", " D-7K3F2Q\n"] {
            assert_eq!(typed_id(text).as_deref(), Some("d-7K3F2Q"), "{text}");
        }
        assert_eq!(typed_id("oil00o").as_deref(), Some("d-011000"));
        for text in ["", "d-", "d-7K3F2", "d-7K3F2QX", "d-7K3F2U", "d-日本語"] {
            assert_eq!(typed_id(text), None, "{text}");
        }
    }
}
