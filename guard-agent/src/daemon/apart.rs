//! A session that decides by a row of its own: what is granted to it alone, or denied to it, needs one.

use super::engine::{ApplyError, Engine};
use super::labelling;
use crate::kernel::KernelError;
use guard_common::label::LabelRequest;

/// Passes over the processes of a session until all decide by its own row.
const MAX_PASSES: usize = 1000;

/// Why a session cannot be told from its subject.
#[derive(Debug, thiserror::Error)]
pub enum ApartError {
    /// There is no such session.
    #[error("{0} has no session {1} that lasts: `guardctl sessions` lists them")]
    NoSession(String, u64),
    /// It gets no row.
    #[error("the session cannot be told from others of its subject: {0}")]
    Row(Box<ApplyError>),
    /// The kernel side failed.
    #[error("{0}")]
    Kernel(#[from] KernelError),
}

impl ApartError {
    fn row(error: impl Into<ApplyError>) -> Self {
        Self::Row(Box::new(error.into()))
    }
}

impl Engine {
    /// Whether a session lasts and is a subject's.
    ///
    /// # Errors
    /// If it does not, or is another one's.
    pub(super) fn is_session(&self, subject: &str, id: u64) -> Result<(), ApartError> {
        let lasts = self.sessions.open().any(|open| open.id == id && open.subject == subject);
        if lasts { Ok(()) } else { Err(ApartError::NoSession(subject.to_owned(), id)) }
    }

    /// Makes a session decide by a row of its own, if it does not yet.
    ///
    /// # Errors
    /// If there is no such session, or no row for it.
    pub(super) fn tell_apart(&mut self, subject: &str, id: u64) -> Result<(), ApartError> {
        self.is_session(subject, id)?;
        if self.sessions.row(id).is_none() {
            let mut ids = self.ids.clone();
            self.sessions.seat(id, &mut ids).map_err(|error| ApartError::row(ApplyError::Host(error)))?;
            self.number(ids).map_err(ApartError::row)?;
            self.recompile().map_err(ApartError::row)?;
        }
        let (Some(row), Some(number)) = (self.sessions.row(id), self.ids.get(subject)) else {
            return Err(ApartError::NoSession(subject.to_owned(), id));
        };
        let labels = self.kernel.label_reader()?;
        for _ in 0..MAX_PASSES {
            let all = labels.all()?.into_iter();
            let its = all.filter(|(_, of, session)| *of == number && *session == id);
            let requests: Vec<(i32, LabelRequest)> = its
                .filter_map(|(pid, ..)| {
                    let (_, start_ticks) = labelling::stat(pid)?;
                    let request = LabelRequest::attach(start_ticks, number).with_session(id);
                    Some((pid, LabelRequest { row, replaces: number, ..request }))
                })
                .collect();
            if self.kernel.label_requested(&requests)? == 0 {
                break;
            }
        }
        Ok(())
    }
}
