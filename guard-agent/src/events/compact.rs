//! Records as lines for people.

use super::escape::{line, word};
use super::record::{Record, ResourceRecord};
use super::time;

const RESET: &str = "\x1b[0m";

impl Record {
    /// The record as one line: time, id, verdict, subject, actions, resource, reason, who, how often.
    /// What comes from the agent's memory has its day.
    ///
    /// Nothing in it can reach a terminal as a control character, also if the record was read from
    /// somewhere else.
    pub fn compact(&self, colour: bool) -> String {
        let stamp = time::people(&self.time);
        let time = match (&self.seen, stamp.split_once(' ')) {
            (None, Some((_, clock))) => clock,
            _ => &stamp,
        };
        let count = self.seen.as_ref().map_or(0, |seen| seen.count);
        let repeats = if count > 1 { format!("  ×{count}") } else { String::new() };
        format!(
            "{} {}  {}[{}] uid {} gen {}{repeats}",
            line(time),
            self.headline(colour),
            word(&self.comm),
            self.pid,
            self.uid,
            self.generation,
        )
    }

    /// Id, verdict, subject, actions, resource and reason.
    pub(super) fn headline(&self, colour: bool) -> String {
        let (verdict, code) = match self.verdict.as_str() {
            "denied" => ("DENIED", "\x1b[31m"),
            "would_deny" => ("WOULD-DENY", "\x1b[33m"),
            "audited" => ("AUDITED", "\x1b[36m"),
            "shadow_deny" => ("SHADOW-DENY", "\x1b[35m"),
            other => (other, ""),
        };
        let verdict = word(verdict);
        let verdict = if colour && !code.is_empty() { format!("{code}{verdict}{RESET}") } else { verdict };
        let mut why = match (self.reason.as_str(), self.would_allow) {
            ("policy", false) => String::new(),
            ("policy", true) => "  (candidate allows)".to_owned(),
            (reason, _) => format!("  ({})", line(reason)),
        };
        // An event that is there for the shadow's sake says it already.
        if let Some(shadow) = self.shadow.as_ref().filter(|_| self.verdict != "shadow_deny") {
            why.push_str(if shadow.allows() { "  (shadow allows)" } else { "  (shadow denies)" });
        }
        if !self.ask_for.is_empty() {
            let names: Vec<String> = self.ask_for.iter().map(|name| word(name)).collect();
            why.push_str(&format!("  (ask for {})", names.join(" or ")));
        }
        let errno = self.errno.as_ref().map_or(String::new(), |errno| format!(" {}", line(errno)));
        format!(
            "{} {verdict}{errno}  {}  {}  {}{why}",
            line(&self.id),
            self.who(),
            word(&self.actions.join("+")),
            resource(&self.resource),
        )
    }

    /// Subject and session.
    pub fn who(&self) -> String {
        let mut subject = match &self.subject {
            Some(name) => word(name),
            None => format!("#{}", self.subject_id),
        };
        if let Some(session) = self.session {
            subject.push_str(&format!("/{session}"));
        }
        subject
    }

    /// The resource in as few words as tell it apart.
    pub fn what(&self) -> String {
        resource(&self.resource)
    }
}

/// The resource in as few words as tell it apart.
fn resource(resource: &ResourceRecord) -> String {
    if let Some(path) = &resource.path {
        return word(path);
    }
    if let Some(path) = &resource.fs_path {
        // Seen from here the file has no path: say which file system it counts from.
        let device = resource.device.as_deref().unwrap_or("?");
        let cut = if resource.path_truncated { "…" } else { "" };
        return format!("[{}]{}{cut}", line(device), word(path));
    }
    if let Some(name) = &resource.abstract_name {
        return word(&format!("@{name}"));
    }
    if let Some(address) = &resource.address {
        let address = if address.contains(':') { format!("[{}]", line(address)) } else { line(address) };
        let port = resource.port.map_or(String::new(), |port| format!(":{port}"));
        let protocol = resource.protocol.as_deref().map_or(String::new(), |name| format!("/{}", line(name)));
        return format!("{address}{port}{protocol}");
    }
    if let Some(pid) = resource.pid {
        let of = resource.subject.as_deref().map_or(String::new(), |name| format!(" of {}", word(name)));
        return format!("process {pid}{of}");
    }
    if let Some(name) = &resource.capability {
        return format!("capability {}", word(name));
    }
    match &resource.builtin {
        Some(name) => word(name),
        None => format!("({})", line(&resource.kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{BundleRecord, Seen, ShadowRecord};

    fn record() -> Record {
        Record {
            schema: Record::SCHEMA.to_owned(),
            id: "d-7K3F2Q".to_owned(),
            time: "2026-05-04T03:02:01.123456Z".to_owned(),
            boot_ns: 1,
            verdict: "denied".to_owned(),
            would_allow: false,
            subject: Some("nginx".to_owned()),
            subject_id: 3,
            session: None,
            actions: vec!["file.read".to_owned()],
            resource: ResourceRecord {
                kind: "file".to_owned(),
                path: Some("/srv/private/x".to_owned()),
                fs_path: Some("/private/x".to_owned()),
                device: Some("0:40".to_owned()),
                ..ResourceRecord::default()
            },
            reason: "policy".to_owned(),
            errno: Some("EACCES".to_owned()),
            pid: 812,
            tid: 812,
            uid: 33,
            comm: "nginx".to_owned(),
            cgroup: 9,
            generation: 2,
            sequence: 4,
            cpu: 0,
            ask_for: Vec::new(),
            class: 20,
            features: 0,
            shadow: None,
            seen: None,
        }
    }

    #[test]
    fn a_denial_is_one_line() {
        assert_eq!(
            record().compact(false),
            "03:02:01 d-7K3F2Q DENIED EACCES  nginx  file.read  /srv/private/x  nginx[812] uid 33 gen 2"
        );
        assert!(record().compact(true).contains("\x1b[31mDENIED\x1b[0m"), "the word stays beside the colour");
    }

    #[test]
    fn what_is_remembered_has_its_day_and_its_number() {
        let mut event = record();
        let seen = Seen {
            count: 3,
            first: "2026-05-04T03:00:00.000000Z".to_owned(),
            exe: Some("/usr/sbin/nginx".to_owned()),
            bundle: Some(BundleRecord {
                name: "web".to_owned(),
                version: 4,
                digest: "0123456789abcdef".to_owned(),
            }),
            shadow: None,
        };
        event.seen = Some(seen);
        assert_eq!(
            event.compact(false),
            "2026-05-04 03:02:01 d-7K3F2Q DENIED EACCES  nginx  file.read  /srv/private/x  nginx[812] uid 33 \
             gen 2  ×3"
        );
        let now = time::parse("2026-05-04T03:02:13Z").unwrap();
        assert_eq!(
            event.long(false, now),
            "\
d-7K3F2Q DENIED EACCES  nginx  file.read  /srv/private/x
  last      2026-05-04 03:02:01 UTC (11 s ago), ×3 since 2026-05-04 03:00:00 UTC (2 min ago)
  process   nginx[812] thread 812 uid 33 cgroup 9  /usr/sbin/nginx
  decided   policy, generation 2, web version 4 (0123456789ab…)
  place     /private/x on device 0:40"
        );
    }

    #[test]
    fn what_a_shadow_would_do_is_said() {
        let mut event = record();
        let shadow = |verdict: &str| {
            Some(ShadowRecord { verdict: verdict.to_owned(), actions: vec!["file.read".to_owned()] })
        };
        event.shadow = shadow("allowed");
        assert!(event.compact(false).contains("  /srv/private/x  (shadow allows)  nginx[812]"));
        (event.verdict, event.errno, event.shadow) = ("shadow_deny".to_owned(), None, shadow("denied"));
        assert_eq!(
            event.compact(false),
            "03:02:01 d-7K3F2Q SHADOW-DENY  nginx  file.read  /srv/private/x  nginx[812] uid 33 gen 2"
        );
        event.verdict = "would_deny".to_owned();
        assert!(
            event.compact(false).contains("WOULD-DENY  nginx  file.read  /srv/private/x  (shadow denies)")
        );
        let long = event.long(false, 0);
        assert!(long.contains("\n  shadow    would deny file.read\n"), "{long}");
    }

    #[test]
    fn a_path_of_another_namespace_names_its_file_system() {
        let mut event = record();
        (event.resource.path, event.resource.path_truncated) = (None, true);
        assert!(event.compact(false).contains("  [0:40]/private/x…  "));
    }

    #[test]
    fn a_hostile_record_stays_on_its_line() {
        let mut event = record();
        let hostile = "x\x1b[2J\ny\u{202e}z".to_owned();
        event.comm = hostile.clone();
        event.subject = Some(hostile.clone());
        event.resource.path = Some(hostile.clone());
        event.reason = hostile.clone();
        event.verdict = hostile.clone();
        event.id = hostile.clone();
        event.time = hostile.clone();
        event.errno = Some(hostile.clone());
        event.actions = vec![hostile];
        let text = event.compact(false);
        assert!(!text.contains(['\x1b', '\n', '\u{202e}']), "{text}");
        let bundle = BundleRecord { name: event.id.clone(), version: 1, digest: event.id.clone() };
        event.seen = Some(Seen {
            count: 2,
            first: event.id.clone(),
            exe: Some(event.id.clone()),
            bundle: Some(bundle),
            shadow: None,
        });
        event.resource.device = Some(event.id.clone());
        event.resource.path_bytes = Some(event.id.clone());
        let lines = event.long(false, 0);
        assert!(!lines.contains(['\x1b', '\u{202e}']) && lines.lines().count() == 6, "{lines}");
    }

    #[test]
    fn endpoints_and_sockets_read_as_people_write_them() {
        let of = |record: ResourceRecord| resource(&record);
        let endpoint = |address: &str| ResourceRecord {
            address: Some(address.to_owned()),
            port: Some(443),
            protocol: Some("tcp".to_owned()),
            ..ResourceRecord::default()
        };
        assert_eq!(of(endpoint("192.0.2.7")), "192.0.2.7:443/tcp");
        assert_eq!(of(endpoint("2001:db8::1")), "[2001:db8::1]:443/tcp");
        let name = ResourceRecord { abstract_name: Some("bus 1".to_owned()), ..ResourceRecord::default() };
        assert_eq!(of(name), "\"@bus 1\"");
        let builtin =
            ResourceRecord { builtin: Some("guard:own-proc".to_owned()), ..ResourceRecord::default() };
        assert_eq!(of(builtin), "guard:own-proc");
        assert_eq!(of(ResourceRecord { kind: "memory".to_owned(), ..ResourceRecord::default() }), "(memory)");
        let process = ResourceRecord { pid: Some(7), ..ResourceRecord::default() };
        assert_eq!(of(process.clone()), "process 7");
        assert_eq!(of(ResourceRecord { subject: Some("web".to_owned()), ..process }), "process 7 of web");
        let capability = ResourceRecord { capability: Some("chown".to_owned()), ..ResourceRecord::default() };
        assert_eq!(of(capability), "capability chown");
    }
}
