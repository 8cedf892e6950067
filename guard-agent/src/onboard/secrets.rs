//! The shipped list of what no proposal permits: `secrets.list`.

use std::sync::LazyLock;

use super::plan::quoted;

/// The list as it is shipped and documented.
pub const SECRETS: &str = include_str!("../../secrets.list");

/// The shipped list, read once.
pub static SHIPPED: LazyLock<Secrets> = LazyLock::new(|| Secrets::parse(SECRETS));

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    /// A path, each component with at most one `*`, and everything below it.
    Path(Vec<String>),
    /// A directory of this name, anywhere.
    Directory(String),
    /// A file of this name, with at most one `*`, anywhere.
    File(String),
}

/// What is secret.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    lines: Vec<Line>,
    except: Vec<Line>,
}

impl Secrets {
    /// Reads a list; lines that begin with `#` are comments.
    pub fn parse(text: &str) -> Self {
        let mut this = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.strip_prefix('!') {
                Some(line) => this.except.push(Line::parse(line)),
                None => this.lines.push(Line::parse(line)),
            }
        }
        this
    }

    /// Whether the file or directory at `path` is secret.
    pub fn holds(&self, path: &str) -> bool {
        let matches = |line: &Line| line.matches(path);
        self.lines.iter().any(|line| match line {
            // What is excepted is excepted from the names; a path that is listed stays secret.
            Line::Path(_) | Line::Directory(_) => line.matches(path),
            Line::File(_) => line.matches(path) && !self.except.iter().any(matches),
        })
    }

    /// Whether something that is secret by its path lies in the directory, or holds it.
    pub fn within(&self, directory: &str) -> bool {
        let components = components(directory);
        self.holds(directory)
            || self.lines.iter().any(|line| match line {
                Line::Path(path) => {
                    path.len() > components.len()
                        && components.iter().zip(path).all(|(component, pattern)| like(pattern, component))
                }
                _ => false,
            })
    }

    /// A Cedar condition that holds for all that is secret by its name. A permit of more than
    /// literals carries it behind `unless`.
    pub fn condition(&self) -> String {
        let terms = self.lines.iter().filter_map(|line| match line {
            Line::Directory(name) => Some(format!("resource in Guard::Name::{}", quoted(name))),
            Line::File(name) if name.contains('*') => Some(format!("resource.name like {}", quoted(name))),
            // A name at any depth says the same, and takes none of the few patterns that a bundle can have.
            Line::File(name) => Some(format!("resource in Guard::Name::{}", quoted(name))),
            Line::Path(_) => None,
        });
        terms.collect::<Vec<_>>().join(" || ")
    }
}

impl Line {
    fn parse(line: &str) -> Self {
        if line.starts_with('/') {
            return Self::Path(components(line).iter().map(|part| (*part).to_owned()).collect());
        }
        match line.strip_suffix('/') {
            Some(name) => Self::Directory(name.to_owned()),
            None => Self::File(line.to_owned()),
        }
    }

    fn matches(&self, path: &str) -> bool {
        let components = components(path);
        match self {
            Self::Path(wanted) => {
                components.len() >= wanted.len()
                    && wanted.iter().zip(&components).all(|(pattern, component)| like(pattern, component))
            }
            Self::Directory(name) => components.contains(&name.as_str()),
            Self::File(name) => components.last().is_some_and(|last| like(name, last)),
        }
    }
}

fn components(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty()).collect()
}

/// Whether a pattern with at most one `*` matches.
fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((front, back)) => {
            text.len() >= front.len() + back.len() && text.starts_with(front) && text.ends_with(back)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_secrets_are_known() {
        for path in [
            "/etc/shadow",
            "/etc/shadow-",
            "/etc/ssh/ssh_host_ed25519_key",
            "/home/ann/.ssh/id_rsa",
            "/root/.ssh/authorized_keys",
            "/home/ann/.aws/credentials",
            "/home/ann/.kube/config",
            "/srv/app/.env",
            "/srv/app/.env.local",
            "/etc/nginx/tls/site.key",
            "/etc/letsencrypt/live/x/privkey.pem",
            "/etc/ssl/private/ssl-cert-snakeoil.key",
            "/proc/812/environ",
            "/srv/backup/id_ed25519",
        ] {
            assert!(SHIPPED.holds(path), "{path}");
        }
    }

    #[test]
    fn what_only_looks_like_a_secret_is_none() {
        for path in [
            "/etc/shadows-of-the-empire.txt/x",
            "/etc/ssh/ssh_host_ed25519_key.pub",
            "/etc/ssl/certs/ISRG_Root_X1.pem",
            "/etc/letsencrypt/live/x/fullchain.pem",
            "/usr/lib/python3/dist-packages/certifi/cacert.pem",
            "/srv/app/environment",
            "/proc/self/status",
        ] {
            // The first is matched on purpose: the list errs on the side of asking.
            let wanted = path.starts_with("/etc/shadow");
            assert_eq!(SHIPPED.holds(path), wanted, "{path}");
        }
    }

    #[test]
    fn directories_that_hold_secrets_by_path_are_known() {
        for (directory, wanted) in [
            ("/etc", true),
            ("/etc/ssh", true),
            ("/etc/ssl", true),
            ("/etc/ssl/certs", false),
            ("/etc/nginx", false),
            ("/proc", true),
            ("/srv/www", false),
            ("/home/ann/.ssh", true),
        ] {
            assert_eq!(SHIPPED.within(directory), wanted, "{directory}");
        }
    }

    #[test]
    fn the_condition_is_cedar() {
        let text = SHIPPED.condition();
        for part in [
            "resource in Guard::Name::\".ssh\"",
            "resource.name like \"*.pem\"",
            "resource in Guard::Name::\"id_rsa\"",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
