//! `[roles]` of the agent's configuration: which accounts of this host have which role.
//!
//! What a role may ask for is policy (`policy::Gate`); who has it is the host administrator's to say.

use nix::unistd::{Group, User};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// The role that root without a label has, always.
pub const ADMIN: &str = "admin";

/// Roles with their members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, Vec<String>>")]
pub struct Roles(BTreeMap<String, Vec<Member>>);

/// Who has a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// `user:NAME` or `user:NUMBER`.
    User(String),
    /// `group:NAME` or `group:NUMBER`.
    Group(String),
}

/// A `[roles]` that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RolesError {
    /// The name of a role.
    #[error("{0:?} is no name of a role: use lower-case letters, digits and -")]
    Name(String),
    /// A member.
    #[error("{member:?} cannot have the role {role}: write \"user:NAME\" or \"group:NAME\"")]
    Member {
        /// The role.
        role: String,
        /// What is written.
        member: String,
    },
}

/// Numbers of names, by the account database.
trait Accounts {
    fn user(&self, name: &str) -> Option<u32>;
    fn group(&self, name: &str) -> Option<u32>;
}

/// The host's, as it is at this moment.
struct Host;

impl Accounts for Host {
    fn user(&self, name: &str) -> Option<u32> {
        User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
    }

    fn group(&self, name: &str) -> Option<u32> {
        Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
    }
}

impl TryFrom<BTreeMap<String, Vec<String>>> for Roles {
    type Error = RolesError;

    fn try_from(written: BTreeMap<String, Vec<String>>) -> Result<Self, RolesError> {
        let mut roles = BTreeMap::new();
        for (role, members) in written {
            let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if role.is_empty() || !role.bytes().all(valid) {
                return Err(RolesError::Name(role));
            }
            let read = |member: String| match member.split_once(':') {
                Some(("user", name)) if !name.is_empty() => Ok(Member::User(name.to_owned())),
                Some(("group", name)) if !name.is_empty() => Ok(Member::Group(name.to_owned())),
                _ => Err(RolesError::Member { role: role.clone(), member }),
            };
            let members = members.into_iter().map(read).collect::<Result<_, _>>()?;
            roles.insert(role, members);
        }
        Ok(Self(roles))
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl Roles {
    /// Whether nobody but root has one.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Vec::is_empty)
    }

    /// The names of the roles that somebody may have.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The roles of a process, by the numbers that the kernel tells of it. Asks the account database what the
    /// numbers of names are now, which may take as long as a directory service does.
    pub fn of(&self, uid: u32, gid: u32, groups: &[u32]) -> Vec<String> {
        self.by(&Host, uid, gid, groups)
    }

    fn by(&self, accounts: &impl Accounts, uid: u32, gid: u32, groups: &[u32]) -> Vec<String> {
        if uid == 0 {
            return vec![ADMIN.to_owned()];
        }
        let has = |member: &Member| match member {
            Member::User(name) => name.parse().ok().or_else(|| accounts.user(name)) == Some(uid),
            Member::Group(name) => name
                .parse()
                .ok()
                .or_else(|| accounts.group(name))
                .is_some_and(|number| number == gid || groups.contains(&number)),
        };
        self.0.iter().filter(|(_, members)| members.iter().any(has)).map(|(role, _)| role.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Accounts for Fixed {
        fn user(&self, name: &str) -> Option<u32> {
            (name == "pagerbot").then_some(900)
        }

        fn group(&self, name: &str) -> Option<u32> {
            (name == "oncall").then_some(50)
        }
    }

    fn roles(text: &str) -> Result<Roles, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn members_are_users_and_groups_by_name_or_number() {
        let roles =
            roles("responder = [\"group:oncall\", \"user:pagerbot\"]\nviewer = [\"user:7\", \"group:60\"]\n")
                .unwrap();
        let of = |uid, gid, groups: &[u32]| roles.by(&Fixed, uid, gid, groups);
        assert_eq!(of(900, 900, &[]), ["responder"]);
        assert_eq!(of(1000, 50, &[]), ["responder"], "by the main group");
        assert_eq!(of(1000, 1000, &[4, 50, 60]), ["responder", "viewer"], "by others");
        assert_eq!(of(7, 7, &[]), ["viewer"]);
        assert_eq!(of(1000, 1000, &[4]), [""; 0]);
        assert_eq!(of(0, 0, &[]), ["admin"], "whatever is written");
        // A name that is not there is nobody, and nobody's number is no member.
        let gone = super::tests::roles("viewer = [\"user:gone\", \"group:gone\"]\n").unwrap();
        assert_eq!(gone.by(&Fixed, 1000, 1000, &[]), [""; 0]);
    }

    #[test]
    fn what_is_no_member_is_refused_in_words() {
        for (text, says) in [
            ("viewer = [\"oncall\"]", "write \"user:NAME\""),
            ("viewer = [\"user:\"]", "cannot have the role viewer"),
            ("Viewer = []", "no name of a role"),
            ("\"a b\" = []", "no name of a role"),
        ] {
            let error = roles(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(roles("").unwrap().is_empty() && roles("viewer = []").unwrap().is_empty());
        assert!(!roles("viewer = [\"user:7\"]").unwrap().is_empty());
    }
}
