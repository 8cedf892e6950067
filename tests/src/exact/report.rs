//! A counter-example on the screen: a bundle, a host and a request, to be pasted.

use std::fmt::Write;

use guard_agent::policy::{Facts, Request, Resource, Spot};

use crate::compare::{Answer, Difference, Setting, answer};
use crate::model::Model;

/// The whole of it.
pub(crate) fn difference(setting: &Setting, request: &Request, found: &Difference) -> String {
    let mut text = String::new();
    let word = |answer: Answer| match answer {
        Answer { allowed: false, quiet: true, .. } => "denied as if it were not there",
        Answer { allowed: false, would_allow: false, .. } => "denied",
        Answer { allowed: false, .. } => "denied, and reported as one that would be allowed",
        Answer { would_deny: false, .. } => "allowed",
        Answer { .. } => "allowed, and reported as one that would be denied",
    };
    let (tables, cedar) = (found.answers.tables, &found.answers.cedar);
    let _ = writeln!(text, "request: {}", line(request));
    let _ = writeln!(text, "tables:  {} in {}", word(tables), found.class);
    let _ = writeln!(
        text,
        "Cedar:   {} by {:?}, candidate set by {:?}",
        word(answer(cedar)),
        cedar.enforced.policies,
        cedar.candidate.policies
    );
    if let Some(index) = &found.answers.index {
        let (enforced, candidate) = (&index.enforced.policies, &index.candidate.policies);
        let _ = writeln!(text, "index:   by {enforced:?}, candidate set by {candidate:?}");
    }
    for error in cedar.enforced.errors.iter().chain(&cedar.candidate.errors) {
        let _ = writeln!(text, "Cedar:   {error}");
    }
    let _ = writeln!(text, "facts:   {}", facts(&setting.facts));
    text.push_str(&host(setting));
    text.push_str(&bundle(&setting.model));
    text
}

/// The request in one line, in the words of `guardctl can`.
pub(crate) fn line(request: &Request) -> String {
    let spot = |spot: &Spot| match spot {
        Spot::Path(path) => format!("{path:?}"),
        Spot::Place { device, path } => {
            format!("{path:?} on device {}:{}", device >> 20, device & 0xf_ffff)
        }
        Spot::Builtin(number) => format!("built-in class {number}"),
        Spot::Inside { class, path } => format!("{path:?} of built-in class {class}"),
        Spot::Abstract(name) => format!("@{name}"),
    };
    let resource = match &request.resource {
        Resource::File(at) | Resource::Dir(at) | Resource::Unix(at) => {
            format!("{} {}", request.resource.entity_type(), spot(at))
        }
        other => format!("{other:?}"),
    };
    let attributes = &request.attributes;
    format!(
        "--as {} {} {resource} with owner={} kind={:o} set_id={} fileless={} protocol={}",
        request.subject,
        request.action,
        attributes.owner.cast_signed(),
        attributes.kind,
        attributes.set_id.cast_signed(),
        attributes.fileless.cast_signed(),
        attributes.protocol.cast_signed()
    )
}

fn facts(facts: &Facts) -> String {
    let Facts { leases, windows, posture, session, listener, signed_by } = facts;
    format!(
        "leases {leases:?} windows {windows:?} posture {posture:?} session {session:?} listener {listener:?} signed_by {signed_by:?}"
    )
}

fn host(setting: &Setting) -> String {
    let mut text = String::new();
    for mount in &setting.world.mounts {
        let (major, minor) = (mount.device >> 20, mount.device & 0xf_ffff);
        let _ = writeln!(text, "mount:   {} shows {} of device {major}:{minor}", mount.point, mount.root);
    }
    for (link, target) in &setting.world.links {
        let _ = writeln!(text, "link:    {link} -> {target}");
    }
    if !setting.world.resolvers.is_empty() {
        let _ = writeln!(text, "resolvers: {:?}", setting.world.resolvers);
    }
    text
}

/// The files of a bundle.
pub(crate) fn bundle(model: &Model) -> String {
    format!("---- guard.toml\n{}---- p.cedar\n{}----", model.toml(), model.cedar())
}
