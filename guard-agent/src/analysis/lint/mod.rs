//! What looks wrong in a bundle that is valid.
//!
//! Findings are exact where the compiled tables can tell: a policy counts as shadowed only if its
//! removal changes no decision of any subject on any resource. What is too large to decide, or
//! depends on facts of the moment, is said and not guessed.

mod broad;
mod codes;
mod copies;
mod exec;
mod links;
mod subjects;
mod successors;
mod usage;

pub use codes::{CODES, Code, reference};

use serde::Serialize;

use crate::host::Host;
use crate::policy::survey::{Area, Asked, Case, Survey};
use crate::policy::{Bundle, Diagnostic, Diagnostics, Facts, Mode, Severity, SubjectDefinition};

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Warnings first, then notes; within each in the order of the files.
    pub findings: Vec<Diagnostic>,
    /// What could not be decided, one sentence each.
    pub undecided: Vec<String>,
}

impl Report {
    /// How many findings are warnings.
    pub fn warnings(&self) -> usize {
        self.findings.iter().filter(|finding| finding.severity == Severity::Warning).count()
    }
}

/// Examines `bundle` on `host`.
///
/// # Errors
/// If it does not compile.
pub fn lint(bundle: &Bundle, host: &Host) -> Result<Report, Diagnostics> {
    let now = Facts::default();
    let job = Job { bundle, host, survey: Survey::new(&[bundle], host, &now)? };
    let mut report = Report { findings: Vec::new(), undecided: Vec::new() };
    let found = &mut report.findings;
    usage::check(&job, found, &mut report.undecided)?;
    broad::check(&job, found)?;
    exec::check(&job, found);
    copies::check(&job, found);
    links::check(&job, found);
    subjects::check(&job, found);
    successors::check(&job, found, &mut report.undecided);
    for replaced in bundle.replaced_includes() {
        let message = format!(
            "{} is another version of the include than this agent ships, and what counts",
            replaced.include
        );
        found.push(codes::finding("older-include", message, replaced.at, None));
    }
    for one in bundle.impossible_numbers() {
        let message = format!("{}, so this comparison has one answer for everything", one.message);
        found.push(codes::finding("impossible", message, one, None));
    }
    let order = |one: &Diagnostic| {
        let place = one.place.as_ref().map(|place| (place.file.clone(), place.line, place.column));
        (one.severity, place, one.code)
    };
    report.findings.sort_by_key(order);
    report.findings.dedup();
    report.undecided.sort();
    report.undecided.dedup();
    Ok(report)
}

/// What every check looks at.
struct Job<'a> {
    bundle: &'a Bundle,
    host: &'a Host,
    survey: Survey<'a>,
}

impl Job<'_> {
    fn subjects(&self) -> impl Iterator<Item = (usize, &SubjectDefinition)> {
        self.bundle.subjects().enumerate()
    }

    /// The areas of one subject, each with its cases; those with too many are left out.
    fn areas(&self, subject: usize) -> Vec<(Area, Vec<Case>)> {
        let areas = self.survey.areas(&[Asked { bundle: 0, subject }]);
        areas.into_iter().filter_map(|area| area.cases().map(|cases| (area, cases))).collect()
    }
}

/// What a subject may do in a case once everything it is given is enforced.
fn allowed(subject: &SubjectDefinition, area: &Area, case: &Case) -> u64 {
    let verdict = area.verdict(0, case);
    case.actions & if subject.mode == Mode::Monitor { verdict.candidate } else { verdict.through }
}
