//! A request: one subject, one action, one resource.

use std::net::IpAddr;
use std::path::PathBuf;

use guard_common::action::Action;
use guard_common::class::Class;
use guard_common::tables::Attributes;

/// Where something with a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spot {
    /// A path in the agent's mount namespace, without symbolic links. It need not exist.
    Path(PathBuf),
    /// A path from the root of a file system.
    Place {
        /// Device number, as in [`crate::host::Mount::device`].
        device: u32,
        /// The path from its root.
        path: PathBuf,
    },
    /// One of the built-in classes (`guard_common::class`), without a name.
    Builtin(Class),
    /// What has a name and falls into a built-in class all the same.
    Inside {
        /// The class.
        class: Class,
        /// The path from the root of its file system.
        path: PathBuf,
    },
    /// A unix socket with an abstract name, without the leading zero byte.
    Abstract(String),
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `Guard::File`
    File(Spot),
    /// `Guard::Dir`
    Dir(Spot),
    /// `Guard::Unix`
    Unix(Spot),
    /// `Guard::Endpoint`: address and port.
    Endpoint(IpAddr, u16),
    /// `Guard::Memory`: executable memory without a file.
    Memory,
    /// `Guard::Protocol`, by name: `netlink/route`, `packet`.
    Protocol(String),
    /// `Guard::Process`
    Process {
        /// What tells it from others, usually its number.
        id: String,
        /// The subject whose label it carries.
        subject: Option<String>,
    },
    /// `Guard::Capability`, by its name in lower case without `cap_`.
    Capability(String),
    /// `Guard::Machine`: this host.
    Machine,
    /// `Guard::Machine` as well: the kernel that runs on it, as something to be changed.
    Kernel,
    /// `Guard::Subject`
    Subject(String),
    /// `Guard::Approval`
    Approval(String),
}

impl Resource {
    /// The Cedar entity type.
    pub fn entity_type(&self) -> &'static str {
        match self {
            Self::File(_) => "Guard::File",
            Self::Dir(_) => "Guard::Dir",
            Self::Unix(_) => "Guard::Unix",
            Self::Endpoint(..) => "Guard::Endpoint",
            Self::Memory => "Guard::Memory",
            Self::Protocol(_) => "Guard::Protocol",
            Self::Process { .. } => "Guard::Process",
            Self::Capability(_) => "Guard::Capability",
            Self::Machine | Self::Kernel => "Guard::Machine",
            Self::Subject(_) => "Guard::Subject",
            Self::Approval(_) => "Guard::Approval",
        }
    }
}

/// One subject asks for one action on one resource.
#[derive(Clone, Debug)]
pub struct Request {
    /// The subject.
    pub subject: String,
    /// The action, by its dotted name.
    pub action: String,
    /// The resource.
    pub resource: Resource,
    /// What the kernel reads from it. Subjects are named where the resource says so, and in `listener`.
    pub attributes: Attributes,
    /// The subject of the process at the other end, if something tells (`resource.listener`). See
    /// [`Request::listener`] for what it means where a socket is bound.
    pub listener: Option<String>,
    /// What holds the address besides what the bundle and the host say: type (`DnsName` or `Net`) and
    /// id. A name's addresses can be a fact of the moment.
    pub within: Vec<(String, String)>,
}

impl Request {
    /// The action; none if the kernel does not decide it.
    pub fn known_action(&self) -> Option<Action> {
        Action::on(&self.action, matches!(self.resource, Resource::Dir(_)))
    }

    /// Who listens at the resource: where a unix socket is bound, the subject that binds it.
    pub fn listener(&self) -> Option<&String> {
        let binds = self.action == Action::UnixBind.row().name;
        self.listener.as_ref().or(binds.then_some(&self.subject))
    }
}
