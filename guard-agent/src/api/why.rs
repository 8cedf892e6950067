//! `GET /v1/why`: the policies behind an event.

use super::extract::Parameters;
use super::route::{Answer, Routes};
use super::server::{blocking, internal, invalid};
use super::types::Why;
use crate::daemon::{Asked, Shared};
use crate::events::typed_id;
use crate::policy::verbs::Verb;
use axum::extract::State;
use serde::Deserialize;
use std::sync::Arc;
use tokio::sync::Mutex;

/// The routes.
pub(super) fn routes() -> Routes {
    // Compiling a bundle of long ago takes processor time and memory: one at a time.
    let turn = Arc::new(Mutex::new(()));
    Routes::new().get("/v1/why", Verb::View, move |state, query| why(state, query, Arc::clone(&turn)))
}

/// Query of `GET /v1/why`: `id`, or `last`, or `path` and `pid`.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Query {
    /// Id of an event.
    id: Option<String>,
    /// The last denial.
    #[serde(default)]
    last: bool,
    /// Of this subject.
    subject: Option<String>,
    /// Absolute path on this host.
    path: Option<String>,
    /// Process id.
    pid: Option<i32>,
}

impl Query {
    fn asked(self) -> Result<Asked, String> {
        match self {
            Self { id: Some(id), last: false, subject: None, path: None, pid: None } => typed_id(&id)
                .map(Asked::Id)
                .ok_or_else(|| format!("{id} is no id of an event: d-7K3F2Q is one")),
            Self { id: None, last: true, subject, path: None, pid: None } => Ok(Asked::Last(subject)),
            Self { id: None, last: false, subject: None, path: Some(path), pid: Some(pid) } => {
                if path.starts_with('/') {
                    Ok(Asked::Operation { path: path.into_bytes(), pid })
                } else {
                    Err(format!("{path} is not an absolute path"))
                }
            }
            _ => Err("ask for id, or last (with subject), or path and pid".to_owned()),
        }
    }
}

async fn why(
    State(shared): State<Shared>,
    Parameters(query): Parameters<Query>,
    turn: Arc<Mutex<()>>,
) -> Answer<Why> {
    let asked = match query.asked() {
        Ok(asked) => asked,
        Err(why) => return Err(invalid(&why)),
    };
    let turn = turn.lock_owned().await;
    let work = move || {
        let result = shared.why(&asked);
        drop(turn);
        result
    };
    blocking(work, internal).await
}
