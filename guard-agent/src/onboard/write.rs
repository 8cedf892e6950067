//! The files of a first bundle.

use super::plan::{Plan, Service, quoted};

/// Columns of a line.
const WIDTH: usize = 110;

/// `guard.toml`. `governs` are the actions and groups that policy will decide.
pub fn toml_file(subject: &str, service: &Service, governs: &[&str], plan: &Plan) -> String {
    let (selector, about) = match service {
        Service::Unit(unit) => (
            format!("unit = {}, start = \"main\"", toml_string(&unit.name)),
            "the processes of the unit, not the service manager's own",
        ),
        Service::User(user) => (format!("user = {}", toml_string(user)), "every process of the user"),
        Service::Executable(path) => {
            (format!("exe = {}", toml_string(&path.to_string_lossy())), "this executable and what it starts")
        }
    };
    let quoted = |names: Vec<String>| names.iter().map(|name| toml_string(name)).collect::<Vec<_>>();
    let governs = list(&quoted(governs.iter().map(|name| (*name).to_owned()).collect()), "governs  = [");
    let mut text = format!(
        "# Written by guardctl init. docs/guard-toml.md explains every key.\n\
         [bundle]\nname    = \"{subject}\"\nversion = 1\nprofile = 1\n\n\
         # Nothing is denied in monitor mode; what would be is recorded, for guardctl learn {subject}.\n\
         [modes]\n{} = \"monitor\"\n\n\
         [subjects.{}]\n\
         # {about}\n\
         selector = {{ {selector} }}\n\
         # Every action that this version of Guard decides. The rest is permitted.\n\
         governs  = [{governs}]\n\
         include  = [\n",
        key(subject),
        key(subject),
    );
    let widest = plan.includes.iter().map(|one| one.include.len()).max().unwrap_or(0) + 3;
    for one in &plan.includes {
        let name = format!("\"{}\",", one.include);
        text.push_str(&format!("  {name:widest$}  # {}\n", one.why));
    }
    text.push_str("]\n");
    text
}

/// `SUBJECT.cedar`.
pub fn policy_file(subject: &str, plan: &Plan) -> String {
    let mut text = format!(
        "// What {subject} may do besides its includes. Whatever no policy permits is denied once it is enforced.\n\
         // docs/policy.md is the language; guardctl policy check compiles it for this host.\n"
    );
    for note in &plan.notes {
        text.push_str(&format!("// Note: {}.\n", comment(note)));
    }
    for right in &plan.rights {
        text.push('\n');
        let comments = std::slice::from_ref(&right.why);
        let (id, actions, resources) = (&right.id, &right.actions, &right.resources);
        text.push_str(&rule(&Rule { subject, id, comments, actions, resources, except: None }));
    }
    text
}

/// One permit in the making.
pub(super) struct Rule<'a> {
    pub(super) subject: &'a str,
    pub(super) id: &'a str,
    /// Lines above it.
    pub(super) comments: &'a [String],
    /// Actions and groups.
    pub(super) actions: &'a [&'a str],
    /// Conditions on the resource, any of which is enough; none: every resource.
    pub(super) resources: &'a [String],
    /// What the permit does not count for.
    pub(super) except: Option<&'a str>,
}

/// One permit as Cedar text.
pub(super) fn rule(rule: &Rule<'_>) -> String {
    let mut text = String::new();
    for line in rule.comments.iter().filter(|line| !line.is_empty()) {
        text.push_str(&format!("// {}\n", comment(line)));
    }
    text.push_str(&format!("@id({})\n", quoted(rule.id)));
    let head =
        format!("permit (principal == Guard::Subject::{}, {}", quoted(rule.subject), actions(rule.actions));
    let simple = |resource: &String| {
        !resource.contains("&&") && !resource.contains("||") && !resource.starts_with("resource.")
    };
    match rule.resources {
        [] => text.push_str(&format!("{head}, resource)")),
        [one] if simple(one) && head.len() + one.len() + 4 <= WIDTH => {
            text.push_str(&format!("{head}, {one})"))
        }
        [one] if simple(one) => text.push_str(&format!("{head},\n        {one})")),
        many => {
            // `&&` binds closer than `||`, so no parentheses are needed between alternatives.
            text.push_str(&format!("{head}, resource)\nwhen {{ {} }}", many.join(" ||\n       ")));
        }
    }
    if let Some(except) = rule.except {
        text.push_str(&format!("\nunless {{ {} }}", broken(except, " || ", "\n         ")));
    }
    text.push_str(";\n");
    text
}

/// A long condition on several lines.
fn broken(text: &str, separator: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    let terms: Vec<&str> = text.split(separator).collect();
    for (index, term) in terms.iter().enumerate() {
        let end = if index + 1 == terms.len() { "" } else { " ||" };
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(&format!("{term}{end}")),
            Some(line) if line.len() + term.len() + indent.len() < WIDTH => {
                line.push_str(&format!(" {term}{end}"))
            }
            _ => lines.push(format!("{term}{end}")),
        }
    }
    lines.join(indent)
}

/// The action constraint of a scope.
fn actions(names: &[&str]) -> String {
    let action = |name: &str| format!("Guard::Action::{}", quoted(name));
    match names {
        [one] if guard_common::action::GROUPS.iter().any(|(group, _)| group == one) => {
            format!("action in {}", action(one))
        }
        [one] => format!("action == {}", action(one)),
        many => {
            format!("action in [{}]", many.iter().map(|name| action(name)).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Text that stays on the line of its comment.
fn comment(text: &str) -> String {
    crate::events::escape::line(text)
}

/// A TOML string.
fn toml_string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A subject as a key: quoted where it has to be.
fn key(subject: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !subject.is_empty() && subject.chars().all(bare) { subject.to_owned() } else { toml_string(subject) }
}

/// Words behind `before`, broken into lines that are indented to it.
fn list(words: &[String], before: &str) -> String {
    let mut lines = vec![String::new()];
    for word in words {
        let last = lines.last_mut().filter(|line| before.len() + line.len() + word.len() + 2 < WIDTH);
        match last {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => line.push_str(&format!(", {word}")),
            None => lines.push(word.clone()),
        }
    }
    lines.join(&format!(",\n{}", " ".repeat(before.len())))
}
