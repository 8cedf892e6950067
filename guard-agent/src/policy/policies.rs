//! Cedar policies of a bundle: parsed, named, checked for their annotations.

use std::ops::Range;
use std::sync::Arc;

use cedar_policy_core::ast::{
    ActionConstraint, Effect, EntityReference, EntityUID, Expr, ExprKind, Literal, PolicyID,
    PrincipalOrResourceConstraint as Scope, Template,
};
use cedar_policy_core::parser::{Loc, parse_policyset};
use guard_common::action;

use super::diagnostics::{Diagnostic, Source};
use super::nesting;

/// Annotations that mean something.
const ANNOTATIONS: [&str; 7] = ["id", "mode", "audit", "reason", "approval", "absent", "errno"];

/// One policy or template of a file.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    /// Unique in the bundle: `file/id`, or the bare id of an include.
    pub(super) id: String,
    /// Where it is written.
    pub(super) source: Source,
    /// The policy; a policy without slots is a template without slots.
    pub(super) template: Arc<Template>,
    /// Bits of the actions its scope names.
    pub(super) actions: u64,
    /// It is only reported, not enforced.
    pub(super) monitor: bool,
    /// What it allows is reported.
    pub(super) audit: bool,
    /// Facts that are absent do not make this `forbid` true.
    pub(super) ignore_absent: bool,
    /// Actions that answer as if the resource were not there (`@errno`), if it is what denies them.
    pub(super) quiet: u64,
}

impl Policy {
    pub(super) fn is_permit(&self) -> bool {
        self.template.effect() == Effect::Permit
    }

    /// The bytes of the whole policy.
    pub(super) fn span(&self) -> Range<usize> {
        self.template.loc().map_or(0..0, |loc| loc.start()..loc.end())
    }

    /// An error at `loc`, or at the policy.
    pub(super) fn error(
        &self,
        code: &'static str,
        loc: Option<&Loc>,
        message: impl Into<String>,
    ) -> Diagnostic {
        let span = loc.map_or_else(|| self.span(), |loc| loc.start()..loc.end());
        self.source.error(code, span, message)
    }

    /// A note at the annotations and effect of the policy.
    pub(super) fn note(&self, code: &'static str, message: impl Into<String>) -> Diagnostic {
        self.source.note(code, self.span(), message)
    }

    fn annotation(&self, key: &str) -> Option<(String, Range<usize>)> {
        self.template.annotations().find(|(name, _)| name.as_ref() == key).map(|(_, value)| {
            (value.val.to_string(), value.loc.as_ref().map_or(self.span(), |l| l.start()..l.end()))
        })
    }

    /// What an annotation says.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.annotation(key).map(|(text, _)| text)
    }

    /// The entities that its resource is compared with: in its scope, then in its condition.
    pub(super) fn resource_literals(&self) -> Vec<EntityUID> {
        let mut found = Vec::new();
        match self.template.resource_constraint().as_inner() {
            Scope::Eq(EntityReference::EUID(uid))
            | Scope::In(EntityReference::EUID(uid))
            | Scope::IsIn(_, EntityReference::EUID(uid)) => found.push((**uid).clone()),
            _ => {}
        }
        let condition = self.template.non_scope_constraints();
        for part in condition.into_iter().flat_map(Expr::subexpressions) {
            if let ExprKind::Lit(Literal::EntityUID(uid)) = part.expr_kind() {
                found.push((**uid).clone());
            }
        }
        found
    }

    /// The lease that `@approval` hints at.
    pub(super) fn approval(&self) -> Option<(String, Range<usize>)> {
        self.annotation("approval")
    }
}

/// A parsed file: policies, and templates that subjects can include.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) policies: Vec<Policy>,
    pub(super) templates: Vec<Policy>,
}

/// Parses one file. `stem` prefixes the ids of policies.
pub(super) fn parse(source: &Source, stem: &str, found: &mut Vec<Diagnostic>) -> Parsed {
    if let Err(error) = nesting::check(source) {
        found.push(error);
        return Parsed::default();
    }
    let set = match parse_policyset(&source.text) {
        Ok(set) => set,
        Err(errors) => {
            found.extend(errors.iter().map(|error| from_miette(source, "syntax", error)));
            return Parsed::default();
        }
    };
    let mut templates: Vec<&Template> = set.all_templates().collect();
    templates.sort_by_key(|template| template.loc().map(Loc::start));
    let mut parsed = Parsed::default();
    for template in templates {
        let is_template = template.slots().next().is_some();
        let mut policy = Policy {
            id: String::new(),
            source: source.clone(),
            template: Arc::new(template.clone()),
            actions: 0,
            monitor: false,
            audit: false,
            ignore_absent: false,
            quiet: 0,
        };
        let Some((id, _)) = policy.annotation("id").filter(|(id, _)| !id.is_empty()) else {
            found.push(
                policy
                    .error("no-id", None, "this policy has no @id")
                    .help("write @id(\"a-short-name\") before it: denials and events name policies by it"),
            );
            continue;
        };
        policy.id = if is_template { id } else { format!("{stem}/{id}") };
        policy.template = Arc::new(template.new_id(PolicyID::from_string(&policy.id)));
        read_annotations(&mut policy, found);
        policy.actions = scope_actions(&policy);
        if is_template { &mut parsed.templates } else { &mut parsed.policies }.push(policy);
    }
    parsed
}

fn read_annotations(policy: &mut Policy, found: &mut Vec<Diagnostic>) {
    for (name, value) in policy.template.clone().annotations() {
        let name: &str = name.as_ref();
        let span = value.loc.as_ref().map_or(policy.span(), |loc| loc.start()..loc.end());
        let mut wrong = |message: String, help: &str| {
            found.push(policy.source.error("annotation", span.clone(), message).help(help));
        };
        match (name, value.val.as_str()) {
            ("mode", "monitor") => policy.monitor = true,
            ("mode", "enforce") => {}
            ("mode", other) => wrong(
                format!("there is no mode \"{other}\""),
                "write @mode(\"monitor\") or @mode(\"enforce\")",
            ),
            ("absent", "ignore") if policy.is_permit() => {
                wrong(
                    "@absent has no meaning on a permit".into(),
                    "it belongs on a forbid; a permit never counts as true because a fact is absent",
                );
            }
            ("absent", "ignore") => policy.ignore_absent = true,
            ("absent", other) => {
                wrong(format!("there is no rule \"{other}\" for absent facts"), "write @absent(\"ignore\")")
            }
            ("audit", _) => policy.audit = true,
            ("errno", number) => match quiet(policy, number) {
                Ok(actions) => policy.quiet = actions,
                Err((message, help)) => wrong(message, help),
            },
            (known, _) if ANNOTATIONS.contains(&known) => {}
            (other, _) => wrong(
                format!("there is no annotation @{other}"),
                "known: @id @mode @audit @reason @approval @absent @errno",
            ),
        }
    }
    if policy.monitor {
        // It denies nothing, so it answers nothing.
        policy.quiet = 0;
    }
}

/// The actions of a policy that `@errno(number)` speaks of.
fn quiet(policy: &Policy, number: &str) -> Result<u64, (String, &'static str)> {
    if policy.is_permit() {
        return Err((
            "@errno has no meaning on a permit".into(),
            "it belongs on a forbid; what no policy permits answers with the number of its action",
        ));
    }
    let (all, help) = match number {
        "ENOENT" => (action::QUIET_FILE, "ENOENT is for opening files, listing directories and exec"),
        "ECONNREFUSED" => (action::QUIET_PEER, "ECONNREFUSED is for net.connect, net.send and unix.*"),
        other => {
            return Err((
                format!("no denial can answer \"{other}\""),
                "write @errno(\"ENOENT\") or @errno(\"ECONNREFUSED\"), or remove it",
            ));
        }
    };
    match scope_actions(policy) & all {
        0 => Err((format!("none of its actions can answer {number}"), help)),
        actions => Ok(actions),
    }
}

/// Bits of the actions that the scope names.
fn scope_actions(policy: &Policy) -> u64 {
    let bits = |uid: &cedar_policy_core::ast::EntityUID| action::expand(eid(uid)).unwrap_or(0);
    match policy.template.action_constraint() {
        ActionConstraint::Any => guard_common::tables::ALL_ACTIONS,
        ActionConstraint::Eq(uid) => bits(uid),
        ActionConstraint::In(uids) => uids.iter().fold(0, |all, uid| all | bits(uid)),
    }
}

/// The id of an entity, without its type.
pub(super) fn eid(uid: &cedar_policy_core::ast::EntityUID) -> &str {
    uid.eid().as_ref()
}

/// An error of the Cedar library, at the place it names.
pub(super) fn from_miette(source: &Source, code: &'static str, error: &dyn miette::Diagnostic) -> Diagnostic {
    let label = error.labels().and_then(|mut labels| labels.next());
    let mut message = error.to_string();
    // Cedar prefixes "for policy `id`, "; the place says it better.
    if let Some(rest) = message.strip_prefix("for policy `").and_then(|rest| rest.split_once("`, ")) {
        message = rest.1.to_owned();
    }
    let mut diagnostic = match &label {
        Some(label) => source.error(code, label.offset()..label.offset() + label.len(), message),
        None => Diagnostic::error(code, format!("{}: {message}", source.name)),
    };
    let hint = label.as_ref().and_then(|label| label.label()).map(str::to_owned);
    diagnostic.help = error.help().map(|help| help.to_string()).or(hint);
    diagnostic
}
