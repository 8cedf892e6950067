//! Quarantines that a subject orders, as response automation does: it is itself subject to policy, which says whom it
//! may isolate. It releases nothing.

use super::quarantine::QuarantineError;
use super::serve::Shared;
use super::{Caller, Person};
use crate::api::types::{QuarantineAnswer, QuarantineRequest};
use crate::policy::On;
use crate::policy::verbs::Verb;

impl Shared {
    /// Puts a subject, or a session, in quarantine for the subject whose label the caller carries.
    ///
    /// # Errors
    /// If the caller has no label, its policy does not permit it, it means itself, or as for anybody else.
    pub fn quarantine_as_subject(
        &self,
        caller: &Caller,
        request: &QuarantineRequest,
    ) -> Result<QuarantineAnswer, QuarantineError> {
        let asking = self.asking(caller).map_err(QuarantineError::Caller)?;
        let target = self.quarantine_target(request)?;
        self.subject_may(
            &asking.subject,
            asking.session,
            Verb::Quarantine,
            &On::Subject(target.subject.clone()),
        )?;
        // It could not say any more that it was a mistake.
        if target.subject == asking.subject {
            return Err(QuarantineError::Oneself(target.subject));
        }
        let session = if asking.session == 0 { String::new() } else { format!("/{}", asking.session) };
        let text = format!("the subject {}{session}, uid {}", asking.subject, caller.uid);
        let person = Person { uid: caller.uid, login: asking.human, pid: caller.pid, text };
        self.put_in_quarantine(&target, request, &person)
    }
}
