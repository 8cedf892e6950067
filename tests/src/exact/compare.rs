//! The decision function over compiled tables, and Cedar over the effective policy set.

use guard_agent::host::Host;
use guard_agent::policy::walk::{Found, Walker};
use guard_agent::policy::{
    Bundle, Compiled, Deciding, Diagnostics, Facts, Oracle, Posture, Request, Resource, Spot, SubjectIds,
    Verdict, compile_with,
};
use guard_common::action::Action;
use guard_common::class;
use guard_common::decide::{Query, decide};
use guard_common::tables::{ABSENT, Attributes};

use crate::model::Model;
use crate::world::World;

/// Everything that a request depends on.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// The host.
    pub(crate) world: World,
    /// The bundle.
    pub(crate) model: Model,
    /// What is so while it is compiled.
    pub(crate) facts: Facts,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The operation goes through.
    pub(crate) allowed: bool,
    /// It does, and is reported because the candidate policy set denies it.
    pub(crate) would_deny: bool,
    /// It does not, and is reported because the candidate policy set allows it.
    pub(crate) would_allow: bool,
    /// It does not, and answers as if the resource were not there.
    pub(crate) quiet: bool,
}

/// What both sides answer.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    /// What the tables say.
    pub(crate) tables: Answer,
    /// What Cedar says.
    pub(crate) cedar: Verdict,
    /// The policies that the compiler's index names for that answer, if it names any.
    pub(crate) index: Option<Deciding>,
    /// The class that the tables put the resource in.
    pub(crate) class: u32,
}

impl Answers {
    /// Whether they are one, for the same policies, and no policy failed.
    pub(crate) fn agree(&self) -> bool {
        let Verdict { enforced, candidate, .. } = &self.cedar;
        let same = |index: &Deciding| index.enforced == *enforced && index.candidate == *candidate;
        self.tables == answer(&self.cedar)
            && self.index.as_ref().is_none_or(same)
            && enforced.errors.is_empty()
            && candidate.errors.is_empty()
    }
}

/// Two answers that should be one.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    /// The answers.
    pub(crate) answers: Answers,
    /// What is in the class, for people.
    pub(crate) class: String,
}

/// A setting that was compiled.
pub(crate) struct Ready {
    host: Host,
    bundle: Bundle,
    compiled: Compiled,
}

impl Ready {
    /// Parses, validates and compiles.
    pub(crate) fn new(setting: &Setting) -> Result<Self, Diagnostics> {
        let host = setting.world.host();
        let bundle = setting.model.parse()?;
        let compiled = compile_with(&bundle, &host, &setting.facts, &mut SubjectIds::default())?;
        Ok(Self { host, bundle, compiled })
    }

    /// What answers requests.
    pub(crate) fn judge<'a>(&'a self, setting: &'a Setting) -> Result<Judge<'a>, Diagnostics> {
        Ok(Judge {
            world: &setting.world,
            walker: Walker::new(&self.compiled.generation),
            oracle: Oracle::new(&self.bundle, &self.host, &setting.facts)?,
            compiled: &self.compiled,
            bundle: &self.bundle,
            posture: Posture::of(&setting.facts),
        })
    }
}

/// Asks both sides.
pub(crate) struct Judge<'a> {
    world: &'a World,
    walker: Walker<'a>,
    oracle: Oracle<'a>,
    compiled: &'a Compiled,
    bundle: &'a Bundle,
    posture: Posture,
}

impl Judge<'_> {
    /// Both answers.
    pub(crate) fn answers(&self, request: &Request) -> Result<Answers, Diagnostics> {
        let cedar = self.oracle.decide(request)?;
        let found = self.find(request);
        Ok(Answers {
            tables: self.decide(request, found),
            cedar,
            index: self.index(request, found),
            class: found.class,
        })
    }

    fn index(&self, request: &Request, found: Found) -> Option<Deciding> {
        let action = request.known_action()?;
        let resource = (found.class, found.features);
        self.compiled.deciding(self.subject(request), resource, action, &self.posture, 0)
    }

    fn subject(&self, request: &Request) -> u32 {
        let subjects = &self.compiled.names.subjects;
        subjects.iter().find(|(_, name)| **name == request.subject).map_or(0, |(id, _)| *id)
    }

    /// The effective policy set as text; an error if it is not valid any more.
    pub(crate) fn text(&self) -> Result<String, Diagnostics> {
        Ok(self.oracle.set.text(self.bundle, None)?)
    }

    fn decide(&self, request: &Request, found: Found) -> Answer {
        let required = request.known_action().map_or(0, Action::bit);
        let query = Query {
            subject: self.subject(request),
            session: 0,
            class: found.class,
            features: found.features,
            required,
        };
        let decision = decide(&self.compiled.generation, &query, || 0);
        Answer {
            allowed: decision.denied == 0,
            would_deny: decision.would_deny != 0,
            would_allow: decision.would_allow != 0,
            quiet: decision.quiet != 0,
        }
    }

    /// What the kernel reads: subjects by their numbers.
    fn attributes(&self, request: &Request) -> Attributes {
        // Nobody else has this number.
        const STRANGER: u32 = u32::MAX;
        let subjects = &self.compiled.names.subjects;
        let number = |name: &String| {
            let found = subjects.iter().find(|(_, known)| *known == name);
            u64::from(found.map_or(STRANGER, |(id, _)| *id))
        };
        let mut attributes = Attributes { own: number(&request.subject), ..request.attributes };
        match &request.resource {
            Resource::Process { subject, .. } => {
                attributes.subject = subject.as_ref().map_or(ABSENT, number);
            }
            Resource::Endpoint(..) | Resource::Unix(_) => {
                attributes.listener = request.listener().map_or(ABSENT, number);
            }
            _ => {}
        }
        attributes
    }

    /// Class and features of the resource.
    fn find(&self, request: &Request) -> Found {
        let attributes = &self.attributes(request);
        let builtin = |number| self.walker.builtin(number, attributes);
        match &request.resource {
            Resource::File(spot) | Resource::Dir(spot) | Resource::Unix(spot) => match spot {
                Spot::Path(path) => {
                    let (device, path) = self.world.locate(path);
                    self.walker.path(device, &path, attributes)
                }
                Spot::Place { device, path } => self.walker.path(*device, path, attributes),
                Spot::Builtin(number) => builtin(*number),
                Spot::Inside { class, path } => self.walker.inside(*class, path, attributes),
                Spot::Abstract(name) => self.walker.abstract_name(name.as_bytes(), attributes),
            },
            Resource::Endpoint(address, port) => self.walker.endpoint(*address, *port, attributes),
            Resource::Memory => builtin(class::ANONYMOUS_MEMORY),
            Resource::Process { .. } => builtin(class::PROCESS),
            Resource::Capability(name) => builtin(class::capability(name).unwrap_or(class::UNKNOWN)),
            Resource::Machine => builtin(class::MACHINE),
            Resource::Kernel => builtin(class::KERNEL),
            Resource::Protocol(name) => builtin(class::protocol(name)),
            _ => builtin(class::OTHER_PROTOCOL),
        }
    }
}

/// Cedar's answer in the tables' terms.
pub(crate) fn answer(verdict: &Verdict) -> Answer {
    Answer {
        allowed: verdict.allowed(),
        would_deny: verdict.would_deny(),
        would_allow: verdict.would_allow(),
        quiet: verdict.quiet,
    }
}

/// The difference that this request makes under this setting; nothing if there is none, or if the
/// setting does not compile.
pub(crate) fn difference(setting: &Setting, request: &Request) -> Option<Difference> {
    let ready = Ready::new(setting).ok()?;
    let answers = ready.judge(setting).ok()?.answers(request).ok()?;
    let class = ready.compiled.names.classes.get(answers.class as usize).cloned().unwrap_or_default();
    (!answers.agree()).then_some(Difference { answers, class })
}
