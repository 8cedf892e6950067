//! What `guard.toml` says of sessions: who may open one, and which variables it has.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Spanned;

use super::diagnostics::{Diagnostic, Source};
use super::literals;
use super::manifest::SessionVariable;

/// Who may open a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopter {
    /// A user, by name or number.
    User(String),
    /// The members of a group, by name or number.
    Group(String),
}

impl Adopter {
    /// Reads `user:NAME` or `group:NAME`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        let legal =
            !name.is_empty() && !name.contains(|c: char| c.is_control() || c.is_whitespace() || c == ':');
        match kind {
            "user" if legal => Some(Self::User(name.to_owned())),
            "group" if legal => Some(Self::Group(name.to_owned())),
            _ => None,
        }
    }
}

/// What a variable's value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariableKind {
    /// A directory.
    Dir,
    /// Another file than a directory.
    File,
}

/// One variable of a subject's sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// What its value must be.
    pub kind: VariableKind,
    /// The value lies below a directory with this path, in which a component `*` stands for any one name.
    pub under: Option<String>,
    /// What it names belongs to the user who opens the session.
    pub owned: bool,
    /// Its value, if not the caller says it: a path, with `${HOME}` or `${USER}`.
    pub value: Option<String>,
}

/// Why a value is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VariableError {
    /// The subject has no such variable.
    #[error("there is no session variable {0}")]
    Unknown(String),
    /// It needs a value.
    #[error("the session variable {0} has no value: add --set {0}=PATH")]
    Missing(String),
    /// Its value is given by the policy.
    #[error("the policy gives the session variable {0} its value")]
    Fixed(String),
    /// The value is no path.
    #[error("{0}: {1}")]
    NoPath(String, String),
    /// The value lies somewhere else.
    #[error("{0}: {1} does not lie below {2}")]
    Elsewhere(String, String, String),
    /// The caller's account has nothing that the value needs.
    #[error("{0}: your account has no home directory")]
    NoHome(String),
}

/// Who opens a session, as far as values depend on it.
#[derive(Clone, Debug)]
pub struct Account {
    /// Name of the user.
    pub user: String,
    /// Home directory.
    pub home: String,
}

impl Variable {
    pub(super) fn read(
        name: &Spanned<String>,
        written: &SessionVariable,
        source: &Source,
        found: &mut Vec<Diagnostic>,
    ) -> Option<Self> {
        let before = found.len();
        let mut wrong = |at: &Spanned<String>, message: String, help: &str| {
            found.push(source.error("session", at.span(), message).help(help));
        };
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        if name.get_ref().is_empty() || name.get_ref().len() > 32 || !name.get_ref().chars().all(legal) {
            wrong(
                name,
                format!("\"{}\" is not the name of a session variable", name.get_ref()),
                "use up to 32 lower-case letters, digits, - and _",
            );
        }
        let kind = match written.kind.get_ref().as_str() {
            "dir" => VariableKind::Dir,
            "file" => VariableKind::File,
            other => {
                wrong(
                    &written.kind,
                    format!("a session variable cannot be a {other}"),
                    "write kind = \"dir\" or kind = \"file\"",
                );
                VariableKind::Dir
            }
        };
        if let Some(under) = &written.under
            && pattern(under.get_ref()).is_none()
        {
            wrong(
                under,
                format!("\"{}\" is not the path of a directory", under.get_ref()),
                "begin it with /, leave out . and .. and a slash at the end; a component * stands for any one name",
            );
        }
        if let Some(owner) = written.owner.as_ref().filter(|owner| owner.get_ref() != "caller") {
            wrong(owner, format!("the owner cannot be {}", owner.get_ref()), "write owner = \"caller\"");
        }
        if let Some(value) = &written.value {
            let account = Account { user: "user".to_owned(), home: "/home/user".to_owned() };
            if fill(value.get_ref(), &account).is_none_or(|path| literals::path(&path).is_err()) {
                wrong(
                    value,
                    format!("\"{}\" is not a path", value.get_ref()),
                    "write an absolute path; ${HOME} and ${USER} stand for the caller's",
                );
            }
        }
        (found.len() == before).then(|| Self {
            kind,
            under: written.under.as_ref().map(|under| under.get_ref().clone()),
            owned: written.owner.is_some(),
            value: written.value.as_ref().map(|value| value.get_ref().clone()),
        })
    }

    /// The value of the variable `name` for this caller, checked as far as that can be without looking at
    /// the host. `given` is what the caller says.
    ///
    /// # Errors
    /// Why the value is refused.
    pub fn resolve(
        &self,
        name: &str,
        given: Option<&str>,
        account: Option<&Account>,
    ) -> Result<String, VariableError> {
        let value = match (&self.value, given) {
            (Some(_), Some(_)) => return Err(VariableError::Fixed(name.to_owned())),
            (None, None) => return Err(VariableError::Missing(name.to_owned())),
            (None, Some(given)) => given.to_owned(),
            (Some(template), None) => {
                let nobody = Account { user: String::new(), home: String::new() };
                let filled = fill(template, account.unwrap_or(&nobody));
                filled.ok_or_else(|| VariableError::NoHome(name.to_owned()))?
            }
        };
        literals::path(&value).map_err(|(message, _)| VariableError::NoPath(name.to_owned(), message))?;
        match &self.under {
            Some(under) if !lies_below(&value, under) => {
                Err(VariableError::Elsewhere(name.to_owned(), value, under.clone()))
            }
            _ => Ok(value),
        }
    }
}

/// The values of all variables of a session, by name.
///
/// # Errors
/// Why a value is refused.
pub fn resolve(
    variables: &BTreeMap<String, Variable>,
    given: &BTreeMap<String, String>,
    account: Option<&Account>,
) -> Result<BTreeMap<String, String>, VariableError> {
    if let Some(name) = given.keys().find(|name| !variables.contains_key(*name)) {
        return Err(VariableError::Unknown(name.clone()));
    }
    let one = |(name, variable): (&String, &Variable)| {
        let value = variable.resolve(name, given.get(name).map(String::as_str), account)?;
        Ok((name.clone(), value))
    };
    variables.iter().map(one).collect()
}

/// The components of a path with `*` for any one name.
fn pattern(text: &str) -> Option<Vec<&str>> {
    let components: Vec<&str> = text.strip_prefix('/')?.split('/').collect();
    let legal = |part: &&str| {
        *part == "*" || !part.is_empty() && *part != "." && *part != ".." && !part.contains('*')
    };
    components.iter().all(legal).then_some(components)
}

/// Whether a path lies below a directory that the pattern names.
fn lies_below(path: &str, under: &str) -> bool {
    let Some(pattern) = pattern(under) else { return false };
    let names: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    names.len() > pattern.len()
        && names.iter().zip(&pattern).all(|(name, pattern)| *pattern == "*" || name == pattern)
}

/// A value with what it takes from the caller's account. Nothing if the account lacks that, or the value
/// names anything else.
fn fill(template: &str, account: &Account) -> Option<String> {
    let mut text = template.to_owned();
    for (name, value) in [("${HOME}", &account.home), ("${USER}", &account.user)] {
        if text.contains(name) {
            if value.is_empty() || name == "${USER}" && value.contains('/') {
                return None;
            }
            text = text.replace(name, value);
        }
    }
    (!text.contains("${") && Path::new(&text).is_absolute()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> Account {
        Account { user: "ann".to_owned(), home: "/home/ann".to_owned() }
    }

    fn below(under: &str) -> Variable {
        Variable { kind: VariableKind::Dir, under: Some(under.to_owned()), owned: false, value: None }
    }

    #[test]
    fn a_value_lies_below_what_the_policy_names() {
        let tree = below("/home/*/src");
        for good in ["/home/ann/src/app", "/home/bob/src/a/b"] {
            assert_eq!(tree.resolve("tree", Some(good), None), Ok(good.to_owned()));
        }
        for bad in ["/home/ann/src", "/home/ann/other/app", "/home/src/app", "/etc", "/home/a/b/src/app", "/"]
        {
            assert!(
                matches!(tree.resolve("tree", Some(bad), None), Err(VariableError::Elsewhere(..))),
                "{bad}"
            );
        }
        for bad in [
            "home/ann/src/app",
            "",
            "/home/ann/src/../.ssh",
            "/home/ann/src//app",
            "/home/ann/src/",
            "/home/ann/src/*",
        ] {
            assert!(matches!(tree.resolve("tree", Some(bad), None), Err(VariableError::NoPath(..))), "{bad}");
        }
        assert_eq!(tree.resolve("tree", None, None), Err(VariableError::Missing("tree".to_owned())));
    }

    #[test]
    fn a_value_of_the_policy_is_the_callers_own() {
        let value = Some("${HOME}/.cache/${USER}".to_owned());
        let state = Variable { kind: VariableKind::Dir, under: None, owned: true, value };
        assert_eq!(state.resolve("state", None, Some(&ann())), Ok("/home/ann/.cache/ann".to_owned()));
        assert_eq!(state.resolve("state", None, None), Err(VariableError::NoHome("state".to_owned())));
        let given = state.resolve("state", Some("/etc"), Some(&ann()));
        assert_eq!(given, Err(VariableError::Fixed("state".to_owned())));
        let odd = Account { user: "../root".to_owned(), ..ann() };
        assert!(state.resolve("state", None, Some(&odd)).is_err());
    }

    #[test]
    fn every_variable_gets_a_value_and_no_other() {
        let variables = BTreeMap::from([("tree".to_owned(), below("/srv"))]);
        let given = |name: &str| BTreeMap::from([(name.to_owned(), "/srv/x".to_owned())]);
        assert_eq!(resolve(&variables, &given("tree"), None), Ok(given("tree")));
        assert_eq!(
            resolve(&variables, &given("three"), None),
            Err(VariableError::Unknown("three".to_owned()))
        );
    }

    #[test]
    fn adopters_are_users_and_groups() {
        assert_eq!(Adopter::parse("user:ann"), Some(Adopter::User("ann".to_owned())));
        assert_eq!(Adopter::parse("group:1000"), Some(Adopter::Group("1000".to_owned())));
        for bad in ["ann", "user:", "role:x", "user:a b", "user:a:b", ":", ""] {
            assert_eq!(Adopter::parse(bad), None, "{bad}");
        }
    }
}
