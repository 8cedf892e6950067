//! Changes to the files of a bundle, made in memory and shown as a diff. Nothing here writes a file.

use toml_edit::{Array, DocumentMut, Item, Value};

use super::permits::{Permit, unique};
use super::secrets::Secrets;
use super::write::{Rule, rule};
use crate::bundle::Files;
use crate::policy::Diagnostic;

/// A bundle with changes.
#[derive(Clone, Debug)]
pub struct Edited {
    before: Files,
    /// The files as they would be.
    pub after: Files,
}

impl Edited {
    /// The bundle as it is.
    pub fn new(files: Files) -> Self {
        Self { before: files.clone(), after: files }
    }

    /// Has `subject` include `includes` too.
    ///
    /// # Errors
    /// If `guard.toml` does not define the subject.
    pub fn include(&mut self, subject: &str, includes: &[&str]) -> Result<(), Diagnostic> {
        let text = self.text("guard.toml")?;
        let broken = |why: String| Diagnostic::error("edit", format!("guard.toml cannot be changed: {why}"));
        let mut document: DocumentMut =
            text.parse().map_err(|error: toml_edit::TomlError| broken(error.to_string()))?;
        let subjects = document.get_mut("subjects").and_then(Item::as_table_like_mut);
        let definition = subjects.and_then(|table| table.get_mut(subject)).and_then(Item::as_table_like_mut);
        let definition = definition.ok_or_else(|| broken(format!("it has no [subjects.{subject}]")))?;
        match definition.get_mut("include").and_then(Item::as_array_mut) {
            Some(array) => includes.iter().for_each(|name| push(array, name)),
            None => {
                definition.insert("include", Item::Value(Value::Array(includes.iter().copied().collect())));
            }
        }
        self.after.replace("guard.toml", document.to_string().into_bytes())
    }

    /// Adds permits for `subject` to the file its policies are in. Their ids, as they are in the end.
    ///
    /// # Errors
    /// If the file is not text.
    pub fn permit(
        &mut self,
        subject: &str,
        permits: &[Permit],
        secrets: &Secrets,
    ) -> Result<Vec<String>, Diagnostic> {
        let name = self.file_of(subject);
        let mut text = if self.after.get(&name).is_some() { self.text(&name)? } else { String::new() };
        let mut ids = Vec::new();
        for permit in permits {
            let taken = |id: &str| text.contains(&format!("@id(\"{id}\")"));
            let id = unique(&permit.id, taken);
            if !text.is_empty() {
                text.truncate(text.trim_end().len());
                text.push_str("\n\n");
            }
            text.push_str(&policy(subject, &Permit { id: id.clone(), ..permit.clone() }, secrets));
            ids.push(format!("{}/{id}", name.trim_end_matches(".cedar")));
        }
        self.after.replace(&name, text.into_bytes())?;
        Ok(ids)
    }

    /// The file that policies of `subject` belong to: the one with its name, or the one that
    /// mentions it most.
    fn file_of(&self, subject: &str) -> String {
        let own = format!("{subject}.cedar");
        if self.after.get(&own).is_some() {
            return own;
        }
        let mentions = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes).matches(&format!("Guard::Subject::\"{subject}\"")).count()
        };
        self.after
            .iter()
            .filter(|(name, _)| name.ends_with(".cedar") && !name.contains('/'))
            .map(|(name, bytes)| (mentions(bytes), name))
            .filter(|(count, _)| *count > 0)
            .max_by_key(|(count, name)| (*count, std::cmp::Reverse(*name)))
            .map_or(own, |(_, name)| name.to_owned())
    }

    fn text(&self, name: &str) -> Result<String, Diagnostic> {
        self.after.source(name).map(|source| source.text.to_string())
    }

    /// The changes as a unified diff, which `patch -p1` understands.
    pub fn diff(&self) -> String {
        let empty: &[u8] = b"";
        let mut out = String::new();
        for (name, after) in self.after.iter() {
            let before = self.before.get(name);
            if before == Some(after) {
                continue;
            }
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (old, new) = (text(before.unwrap_or(empty)), text(after));
            let from = if before.is_some() { format!("a/{name}") } else { "/dev/null".to_owned() };
            let diff = similar::TextDiff::from_lines(&old, &new);
            out.push_str(
                &diff.unified_diff().context_radius(3).header(&from, &format!("b/{name}")).to_string(),
            );
        }
        out
    }
}

/// A permit as Cedar text.
pub fn policy(subject: &str, permit: &Permit, secrets: &Secrets) -> String {
    let except = permit.except_secrets.then(|| secrets.condition());
    let comments = if permit.kinds == 0 {
        vec![permit.covers.clone()]
    } else {
        let kinds = if permit.kinds == 1 { "1 kind".to_owned() } else { format!("{} kinds", permit.kinds) };
        let operations = if permit.count == 1 { "operation" } else { "operations" };
        vec![format!("{}: {} {operations} of {kinds}", permit.covers, permit.count)]
    };
    let actions: Vec<&str> = permit.actions.iter().map(String::as_str).collect();
    rule(&Rule {
        subject,
        id: &permit.id,
        comments: &comments,
        actions: &actions,
        resources: &permit.resources,
        except: except.as_deref(),
    })
}

/// Adds a string to an array in the way its others are written.
fn push(array: &mut Array, name: &str) {
    let on_lines = array.iter().last().and_then(|last| last.decor().prefix()?.as_str().map(str::to_owned));
    let mut value = Value::from(name);
    let prefix = match on_lines {
        Some(prefix) if prefix.contains('\n') => {
            // A comment behind the one before belongs to that line.
            prefix.rfind('\n').map(|at| prefix[at..].to_owned())
        }
        Some(_) => Some(" ".to_owned()),
        None => None,
    };
    match prefix {
        Some(prefix) if prefix.contains('\n') => {
            let trailing = array.trailing().as_str().unwrap_or_default().to_owned();
            // What is behind the last comma, its comment, stays on its line.
            let (comment, end) =
                trailing.split_once('\n').map_or((String::new(), trailing.clone()), |(comment, rest)| {
                    (comment.to_owned(), format!("\n{rest}"))
                });
            value.decor_mut().set_prefix(format!("{comment}{prefix}"));
            array.push_formatted(value);
            array.set_trailing(end);
            array.set_trailing_comma(true);
        }
        Some(prefix) => {
            value.decor_mut().set_prefix(prefix);
            array.push_formatted(value);
        }
        None => array.push(name),
    }
}

#[cfg(test)]
mod tests {
    use super::super::secrets::SHIPPED;
    use super::*;
    use std::path::Path;

    fn files(toml: &str, cedar: &[(&str, &str)]) -> Files {
        let mut files = Files::new(Path::new("bundle"));
        files.insert("guard.toml", toml.as_bytes().to_vec()).unwrap();
        cedar.iter().for_each(|(name, text)| files.insert(name, text.as_bytes().to_vec()).unwrap());
        files
    }

    fn permit(id: &str) -> Permit {
        Permit {
            id: id.to_owned(),
            actions: vec!["file.read".to_owned()],
            resources: vec!["resource == Guard::File::\"/srv/private/x\"".to_owned()],
            except_secrets: false,
            kinds: 1,
            count: 3,
            covers: "/srv/private/x".to_owned(),
        }
    }

    #[test]
    fn includes_are_added_in_the_style_that_is_there() {
        let cases = [
            (
                "[subjects.web]\ngoverns = [\"*\"]\ninclude = [\"a\", \"b\"]  # both\n",
                "[subjects.web]\ngoverns = [\"*\"]\ninclude = [\"a\", \"b\", \"c\"]  # both\n",
            ),
            (
                "[subjects.web]\ninclude = [\n  \"a\",  # first\n  \"b\",  # second\n]\n# end\n",
                "[subjects.web]\ninclude = [\n  \"a\",  # first\n  \"b\",  # second\n  \"c\",\n]\n# end\n",
            ),
            ("[subjects.web]\ngoverns = [\"*\"]\n", "[subjects.web]\ngoverns = [\"*\"]\ninclude = [\"c\"]\n"),
        ];
        for (before, after) in cases {
            let mut edited = Edited::new(files(before, &[]));
            edited.include("web", &["c"]).unwrap();
            assert_eq!(edited.text("guard.toml").unwrap(), after);
        }
        let error = Edited::new(files("[subjects.web]\n", &[])).include("db", &["c"]).unwrap_err();
        assert!(error.message.contains("[subjects.db]"), "{}", error.message);
    }

    #[test]
    fn a_permit_is_appended_and_shown_with_its_file_and_line() {
        let cedar = "@id(\"site\")\npermit (principal == Guard::Subject::\"web\", action, resource);\n";
        let mut edited = Edited::new(files("", &[("all.cedar", cedar)]));
        let ids = edited.permit("web", &[permit("site")], &SHIPPED).unwrap();
        assert_eq!(ids, ["all/site-2"]);
        assert_eq!(
            edited.diff(),
            "--- a/all.cedar\n+++ b/all.cedar\n@@ -1,2 +1,7 @@\n @id(\"site\")\n permit (principal == Guard::Subject::\"web\", action, resource);\n\
             +\n+// /srv/private/x: 3 operations of 1 kind\n+@id(\"site-2\")\n\
             +permit (principal == Guard::Subject::\"web\", action == Guard::Action::\"file.read\",\n+        resource == Guard::File::\"/srv/private/x\");\n"
        );
    }

    #[test]
    fn a_new_file_comes_from_nowhere() {
        let mut edited = Edited::new(files("", &[]));
        edited.permit("web", &[permit("x")], &SHIPPED).unwrap();
        assert!(
            edited.diff().starts_with("--- /dev/null\n+++ b/web.cedar\n@@ -0,0 +1,4 @@\n+// "),
            "{}",
            edited.diff()
        );
    }
}
