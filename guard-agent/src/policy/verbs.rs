//! The actions of Guard's own API: one row for each kind of thing that somebody asks of the agent.
//!
//! The part of the schema that is about them, their reference and the check of every route are made of this table.
//! The kernel decides none of them: they have no bit in any mask.

/// Who can ask for an action: the Cedar entity types of its principals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// `Guard::Subject`: a labelled process, at the self-service socket.
    Subject,
    /// `Guard::User`: a local account without a label.
    User,
}

/// What an action can be asked on: the Cedar entity types of its resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `Guard::Subject`: a subject of the live bundle.
    Subject,
    /// `Guard::Process`: processes that are no subject's, by what selects them.
    Process,
    /// `Guard::Approval`: a lease, by its name.
    Approval,
    /// `Guard::Machine`: this host.
    Machine,
}

/// Whether somebody whose process runs below a labelled one can ask for an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// It makes no difference.
    Allowed,
    /// Never: the subject above could have made the process what it is.
    Refused,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The action.
    pub verb: Verb,
    /// Its dotted name: the Cedar action id.
    pub name: &'static str,
    /// Who can ask for it, whatever policies say.
    pub askers: &'static [Asker],
    /// What it is asked on.
    pub targets: &'static [Target],
    /// Whether it can be asked for from below a labelled process.
    pub below: Below,
    /// What it is, for people.
    pub says: &'static str,
}

macro_rules! verbs {
    ($($variant:ident = $name:literal, [$($asker:ident),*], [$($target:ident),*], $below:ident, $says:literal;)*) => {
        /// An action of Guard's own API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Verb {
            $(#[doc = concat!("`", $name, "`: ", $says)] $variant,)*
        }

        /// Every action, in the order of [`Verb`].
        pub const TABLE: &[Row] = &[
            $(Row {
                verb: Verb::$variant,
                name: $name,
                askers: &[$(Asker::$asker),*],
                targets: &[$(Target::$target),*],
                below: Below::$below,
                says: $says,
            },)*
        ];
    };
}

verbs! {
    View = "guard.view", [Subject, User], [Subject, Machine], Allowed,
        "read what Guard knows; of a subject only what concerns itself";
    Request = "guard.request", [Subject, User], [Approval], Allowed, "ask for a lease";
    Adopt = "guard.adopt", [Subject, User], [Subject], Allowed,
        "open a session as a subject whose `adopt` or `successors` name the caller";
    Approve = "guard.approve", [User], [Approval], Refused, "say yes or no to a request";
    Lease = "guard.lease", [User], [Approval], Refused, "grant, renew and revoke leases";
    Fact = "guard.fact", [User], [Subject, Machine], Refused, "set facts and take them back";
    Quarantine = "guard.quarantine", [Subject, User], [Subject, Process, Machine], Allowed, "put under quarantine";
    Release = "guard.release", [Subject, User], [Subject, Process, Machine], Refused,
        "lower or end a quarantine";
    Inspect = "guard.inspect", [Subject, User], [Subject, Process, Machine], Refused,
        "run a program inside of what is under quarantine";
    Mode = "guard.mode", [User], [Subject], Refused, "set the mode of a subject for a while";
    Shadow = "guard.shadow", [User], [Machine], Refused, "begin and end a shadow, which decides nothing";
    Apply = "guard.apply", [User], [Machine], Refused, "make a bundle or the shadow live";
    Rollback = "guard.rollback", [User], [Machine], Refused, "go back to the bundle before, and end a hold";
    Selftest = "guard.selftest", [User], [Machine], Allowed, "try what is denied, with a process of the caller's";
    Disarm = "guard.disarm", [User], [Machine], Refused, "end enforcement";
}

/// The group that holds all of them.
pub const GROUP: &str = "guard.*";

/// Whether an action, or group of actions, is of this table.
pub fn is_own(name: &str) -> bool {
    name == GROUP || Verb::from_name(name).is_some()
}

impl Verb {
    /// The action's row.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Its dotted name.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The action of this dotted name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.verb)
    }
}

impl Asker {
    /// The Cedar entity type, without its namespace.
    pub fn entity_type(self) -> &'static str {
        match self {
            Self::Subject => "Subject",
            Self::User => "User",
        }
    }
}

impl Target {
    /// The Cedar entity type, without its namespace.
    pub fn entity_type(self) -> &'static str {
        match self {
            Self::Subject => "Subject",
            Self::Process => "Process",
            Self::Approval => "Approval",
            Self::Machine => "Machine",
        }
    }
}

/// The entity types of a row, with commas.
pub(super) fn askers(row: &Row) -> String {
    row.askers.iter().map(|asker| asker.entity_type()).collect::<Vec<_>>().join(", ")
}

/// The same for what it is asked on.
pub(super) fn targets(row: &Row) -> String {
    row.targets.iter().map(|target| target.entity_type()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Where the generated part of the schema begins; it goes on to the end of the namespace.
    const MARK: &str = "  // ---- Guard's own API";

    fn declarations() -> String {
        let mut out = format!(
            "{MARK}: generated from the table in verbs.rs, decided in the agent ---------------\n  action \"{GROUP}\";\n"
        );
        for row in TABLE {
            out.push_str(&format!(
                "  action \"{}\" in [\"{GROUP}\"] appliesTo {{ principal: [{}], resource: [{}], context: Context }};\n",
                row.name,
                askers(row),
                targets(row)
            ));
        }
        out + "}\n"
    }

    #[test]
    fn the_schema_agrees_with_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/policy/guard.cedarschema");
        let found = std::fs::read_to_string(&path).unwrap();
        let (before, _) = found.split_once(MARK).unwrap();
        let wanted = format!("{before}{}", declarations());
        if std::env::var_os("GUARD_BLESS").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        assert!(found == wanted, "guard.cedarschema is out of date: run the test with GUARD_BLESS=1");
    }

    #[test]
    fn the_order_is_that_of_the_enum_and_the_kernel_decides_none() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.verb as usize, index);
            assert_eq!(Verb::from_name(row.name), Some(row.verb));
            assert_eq!(guard_common::action::expand(row.name), None, "{}", row.name);
        }
        assert_eq!(guard_common::action::expand(GROUP), None);
        assert!(is_own(GROUP) && is_own("guard.view") && !is_own("guard.nothing") && !is_own("file.read"));
    }

    #[test]
    fn what_widens_is_for_people_only() {
        for verb in [
            Verb::Approve,
            Verb::Lease,
            Verb::Fact,
            Verb::Mode,
            Verb::Shadow,
            Verb::Apply,
            Verb::Rollback,
            Verb::Disarm,
        ] {
            let row = verb.row();
            assert_eq!((row.askers, row.below), (&[Asker::User][..], Below::Refused), "{}", row.name);
        }
    }
}
