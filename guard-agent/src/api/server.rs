//! The admin socket's side of the server.

use super::access::{self, Door, Peer};
use super::route::{Answer, Routes};
use super::types::{Failure, Status};
use super::users::{Counted, Limits, SharedUsers, Users};
use super::{
    codes, coverage, disarm, events, facts, leases, mode, policy, quarantine, report, selftest, sessions, why,
};
use crate::daemon::{Caller, Shared, Who};
use crate::kernel::{peer_groups, peer_process};
use crate::policy::verbs::Verb;
use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Shares of those who are not root. Requests are those that change something.
const LIMITS: Limits = Limits { connections: 128, of_user: 16, burst: 20.0, refill: 1.0 };
/// How long the head of a request may take to arrive, and a connection to be idle.
const ARRIVAL: Duration = Duration::from_secs(5);
/// How long nothing is accepted after accepting failed, for want of descriptors say.
const PAUSE: Duration = Duration::from_millis(100);

/// Makes the admin socket. Only root can connect, unless others have roles: then everybody can, and what each may ask
/// for is decided by policy. (A mode names one group, and roles have several; whose they are is asked of the account
/// database with each request, while a file's owner would stay.)
///
/// # Errors
/// If the socket cannot be made.
pub fn bind(path: &Path, private: &Path, others: bool) -> io::Result<UnixListener> {
    bind_with(path, private, if others { 0o666 } else { 0o600 })
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

/// Who is at the other end, by what the kernel tells. The process is held: its number could be given to another one
/// while the connection lasts.
pub(super) fn caller(stream: &UnixStream) -> Option<Caller> {
    let credentials = stream.peer_cred().ok()?;
    let pid = credentials.pid()?;
    let process = Arc::new(peer_process(stream.as_fd(), pid).ok()?);
    let groups = peer_groups(stream.as_fd()).ok()?;
    Some(Caller { process, pid, uid: credentials.uid(), gid: credentials.gid(), groups })
}

/// Every route of the socket.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/v1/status", Verb::View, status)
        .merge(coverage::routes())
        .merge(disarm::routes())
        .merge(events::routes())
        .merge(facts::routes())
        .merge(leases::routes())
        .merge(policy::routes())
        .merge(quarantine::routes())
        .merge(mode::routes())
        .merge(report::routes())
        .merge(selftest::routes())
        .merge(sessions::routes())
        .merge(why::routes())
}

/// Serves until `end`; what was asked before that is answered.
///
/// # Errors
/// None, as long as there is a runtime.
pub async fn serve(
    listener: UnixListener,
    shared: Shared,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let users: SharedUsers = Arc::new(Mutex::new(Users::new(LIMITS)));
    let door = Door { shared: shared.clone(), users: Arc::clone(&users) };
    let known = move |request: Request, next: Next| access::known(door.clone(), request, next);
    let router = routes()
        .into_router()
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn(known))
        .with_state(shared);
    serve_router(listener, router, users, end).await;
    Ok(())
}

/// Accepts connections until `end`, and waits for the answers of those that there are.
async fn serve_router(
    listener: UnixListener,
    router: Router,
    users: SharedUsers,
    end: impl Future<Output = ()> + Send,
) {
    let (closing, closed) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(end);
    loop {
        let accepted = tokio::select! {
            () = &mut end => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("cannot accept a connection of the admin socket: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(credentials) = stream.peer_cred() else { continue };
        // Nobody else's connections keep root out.
        let counted = match credentials.uid() {
            0 => None,
            uid => match Counted::open(&users, uid) {
                Some(counted) => Some(counted),
                None => continue,
            },
        };
        connections.spawn(connection(stream, router.clone(), closed.clone(), counted));
    }
    let _ = closing.send(true);
    while connections.join_next().await.is_some() {}
}

/// Answers what one connection asks for, until that ends or the server does.
async fn connection(
    stream: UnixStream,
    router: Router,
    mut closed: watch::Receiver<bool>,
    _counted: Option<Counted>,
) {
    let peer = Peer(caller(&stream));
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ARRIVAL)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // Who breaks off has no answer.
        _ = connection.as_mut() => return,
        _ = closed.wait_for(|closed| *closed) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

pub(super) fn failure(status: StatusCode, code: &str, message: String) -> Response {
    debug_assert!(codes::is_known(code), "{code} is not in the list of codes");
    let body = Failure {
        schema: Failure::SCHEMA.to_owned(),
        code: code.to_owned(),
        message,
        action: None,
        roles: Vec::new(),
    };
    (status, Json(body)).into_response()
}

/// A request that cannot be understood.
pub(super) fn invalid(message: &str) -> Response {
    failure(StatusCode::BAD_REQUEST, "invalid-request", message.to_owned())
}

async fn no_route(request: Request) -> Response {
    let message = format!("there is no {}", request.uri().path());
    nowhere(access::parts(&request), StatusCode::NOT_FOUND, message).await
}

async fn no_method(request: Request) -> Response {
    let message = format!("{} does not answer to {}", request.uri().path(), request.method());
    nowhere(access::parts(&request), StatusCode::METHOD_NOT_ALLOWED, message).await
}

/// Tells whoever may ask for anything that this cannot be asked for.
async fn nowhere(asked: Option<(Door, Who)>, status: StatusCode, message: String) -> Response {
    let refused = match asked {
        Some(parts) => access::may_look(parts).await.err(),
        None => Some(access::unchecked()),
    };
    refused.unwrap_or_else(|| failure(status, "invalid-request", message))
}

/// Does what blocks, away from the tasks that serve.
pub(super) async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
    refused: impl FnOnce(&E) -> Response,
) -> Answer<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(body)) => Ok(Json(body)),
        Ok(Err(error)) => Err(refused(&error)),
        Err(error) => Err(failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string())),
    }
}

/// What broke that should not.
pub(super) fn internal(error: &impl std::fmt::Display) -> Response {
    failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string())
}

async fn status(State(shared): State<Shared>) -> Answer<Status> {
    blocking(move || shared.status(), internal).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as Client;
    use std::path::PathBuf;
    use tokio::sync::oneshot;

    #[derive(Clone)]
    struct Known(u32);
    #[derive(Clone)]
    struct Checked(u32);

    /// A router whose layers lie as those of the API do: who calls, then what the route asks for.
    fn router() -> Router {
        let known = |mut request: Request, next: Next| async move {
            let Some(Peer(Some(caller))) = request.extensions().get::<Peer>().cloned() else {
                return invalid("nobody");
            };
            request.extensions_mut().insert(Known(caller.uid));
            next.run(request).await
        };
        let check = |mut request: Request, next: Next| async move {
            let Some(Known(uid)) = request.extensions().get::<Known>().cloned() else {
                return invalid("not known");
            };
            request.extensions_mut().insert(Checked(uid));
            next.run(request).await
        };
        let handler = |request: Request| async move {
            request
                .extensions()
                .get::<Checked>()
                .map_or("unchecked".to_owned(), |Checked(uid)| format!("checked {uid}"))
        };
        let elsewhere = |request: Request| async move {
            let checked = request.extensions().get::<Checked>().is_some();
            request
                .extensions()
                .get::<Known>()
                .map_or("unknown".to_owned(), |Known(uid)| format!("known {uid} {checked}"))
        };
        Router::<()>::new()
            .route("/x", get(handler).route_layer(middleware::from_fn(check)))
            .fallback(elsewhere)
            .method_not_allowed_fallback(elsewhere)
            .layer(middleware::from_fn(known))
    }

    fn asks(socket: &Path, head: &str) -> String {
        let mut stream = Client::connect(socket).unwrap();
        write!(stream, "{head} HTTP/1.1\r\nHost: guard\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.rsplit("\r\n").next().unwrap_or_default().to_owned()
    }

    fn socket(name: &str) -> (PathBuf, UnixListener) {
        let directory = std::env::temp_dir().join(format!("guard-api-{name}-{}", std::process::id()));
        let private = directory.join("private");
        std::fs::create_dir_all(&private).unwrap();
        let path = directory.join("x.sock");
        let listener = bind_with(&path, &private, 0o600).unwrap();
        (path, listener)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_calls_is_known_everywhere_and_checked_before_a_handler() {
        let (path, listener) = socket("layers");
        let directory = path.parent().unwrap().to_owned();
        let users: SharedUsers = Arc::new(Mutex::new(Users::new(LIMITS)));
        let (end, ended) = oneshot::channel::<()>();
        let server = tokio::spawn(serve_router(listener, router(), users, async {
            let _ = ended.await;
        }));
        let uid = nix::unistd::Uid::effective().as_raw();
        let asked = tokio::task::spawn_blocking(move || {
            ["GET /x", "HEAD /x", "GET /nowhere", "POST /x"].map(|head| asks(&path, head))
        });
        let answers = asked.await.unwrap();
        let known = format!("known {uid} false");
        assert_eq!(answers, [format!("checked {uid}"), String::new(), known.clone(), known]);
        end.send(()).unwrap();
        server.await.unwrap();
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_asked_before_the_end_is_answered_after_it() {
        let (path, listener) = socket("end");
        let users: SharedUsers = Arc::new(Mutex::new(Users::new(LIMITS)));
        let (end, ended) = oneshot::channel::<()>();
        let (asked, is_asked) = oneshot::channel::<()>();
        let (go, goes) = oneshot::channel::<()>();
        let once = Arc::new(Mutex::new(Some((asked, goes))));
        let slow = move || {
            let taken = once.lock().unwrap().take();
            async move {
                if let Some((asked, goes)) = taken {
                    let _ = asked.send(());
                    let _ = goes.await;
                }
                "done"
            }
        };
        let router = Router::<()>::new().route("/slow", get(slow));
        let server = tokio::spawn(serve_router(listener, router, users, async {
            let _ = ended.await;
        }));
        let waiting = path.clone();
        let answer = tokio::task::spawn_blocking(move || asks(&waiting, "GET /slow"));
        is_asked.await.unwrap();
        end.send(()).unwrap();
        go.send(()).unwrap();
        assert_eq!(answer.await.unwrap(), "done");
        server.await.unwrap();
        assert!(Client::connect(&path).is_err(), "it does not listen any more");
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
