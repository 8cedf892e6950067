//! The server's side.

use super::types::Failure;
use super::{coverage, disarm, events, facts, leases, mode, policy, report, selftest, sessions, why};
use crate::daemon::Shared;
use crate::kernel::peer_process;
use axum::Json;
use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::IncomingStream;
use serde::Serialize;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::net::UnixListener;

/// Makes the admin socket: only its owner, root, can connect.
///
/// # Errors
/// If the socket cannot be made.
pub fn bind(path: &Path, private: &Path) -> io::Result<UnixListener> {
    bind_with(path, private, 0o600)
}

/// Makes a socket with this mode. It is made in a directory that is closed to others, and appears under
/// its name when it is ready: nobody gets in before the mode is set.
pub(super) fn bind_with(path: &Path, private: &Path, mode: u32) -> io::Result<UnixListener> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it names no socket"))?;
    let hidden = private.join(name);
    match std::fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&hidden)?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(&hidden, path)?;
    Ok(listener)
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) uid: Option<u32>,
    pub(super) pid: Option<i32>,
    /// The process itself: its number could be given to another one while the connection lasts.
    pub(super) process: Option<Arc<OwnedFd>>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let socket = stream.io();
        let credentials = socket.peer_cred().ok();
        let pid = credentials.as_ref().and_then(|credentials| credentials.pid());
        let process = pid.and_then(|pid| peer_process(socket.as_fd(), pid).ok()).map(Arc::new);
        Self { uid: credentials.map(|credentials| credentials.uid()), pid, process }
    }
}

/// Serves until `end`; what was asked before that is answered.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: UnixListener,
    shared: Shared,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .merge(coverage::routes())
        .merge(disarm::routes())
        .merge(events::routes())
        .merge(facts::routes())
        .merge(leases::routes())
        .merge(policy::routes())
        .merge(mode::routes())
        .merge(report::routes())
        .merge(selftest::routes())
        .merge(sessions::routes())
        .merge(why::routes())
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(shared.clone(), only_unlabelled_root))
        .with_state(shared);
    let service = router.into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, service).with_graceful_shutdown(end).await
}

/// Root may use the API, unless it carries a label: a subject never changes its own policy.
async fn only_unlabelled_root(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if peer.uid != Some(0) {
        return failure(StatusCode::FORBIDDEN, "not-permitted", "the admin API is for root".to_owned());
    }
    let Some(process) = peer.process else {
        return failure(StatusCode::FORBIDDEN, "not-permitted", "the caller cannot be identified".to_owned());
    };
    match shared.is_labelled(process.as_fd()) {
        Ok(false) => next.run(request).await,
        Ok(true) => {
            tracing::warn!(pid = peer.pid, "a labelled process called the admin API and was refused");
            let message = "the calling process is itself subject to policy and may not administer Guard";
            failure(StatusCode::FORBIDDEN, "not-permitted", message.to_owned())
        }
        Err(error) => failure(
            StatusCode::FORBIDDEN,
            "not-permitted",
            format!("the caller cannot be identified: {error}"),
        ),
    }
}

pub(super) fn failure(status: StatusCode, code: &str, message: String) -> Response {
    let body = Failure { schema: "guard.error/1".to_owned(), code: code.to_owned(), message };
    (status, Json(body)).into_response()
}

/// A request that cannot be understood.
pub(super) fn invalid(message: &str) -> Response {
    failure(StatusCode::BAD_REQUEST, "invalid-request", message.to_owned())
}

async fn no_route(request: Request) -> Response {
    failure(StatusCode::NOT_FOUND, "invalid-request", format!("there is no {}", request.uri().path()))
}

async fn no_method(request: Request) -> Response {
    let message = format!("{} does not answer to {}", request.uri().path(), request.method());
    failure(StatusCode::METHOD_NOT_ALLOWED, "invalid-request", message)
}

pub(super) fn answer<T: Serialize>(body: T) -> Response {
    Json(body).into_response()
}

async fn status(State(shared): State<Shared>) -> Response {
    match tokio::task::spawn_blocking(move || shared.status()).await {
        Ok(Ok(status)) => answer(status),
        Ok(Err(error)) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    }
}
