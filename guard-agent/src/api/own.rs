//! The self-service socket: what anybody may ask for itself, a session, or as a subject a lease.
//!
//! Everybody can connect, labelled processes as far as their policy permits. So a connection answers one
//! request within bounds of time and size, and each user has a share of connections and of sessions in a
//! minute.

use super::own_requests;
use super::server::{answer, bind_with, failure, invalid};
use super::types::AdoptRequest;
use crate::daemon::{AdoptError, Caller, Shared};
use crate::kernel::{peer_groups, peer_process};
use axum::body::Body;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{UnixListener, UnixStream};

/// Connections at a time, and those of one user.
const MAX_CONNECTIONS: usize = 128;
const MAX_OF_USER: usize = 16;
/// Requests that a user can make at once, and how soon each of them comes back.
const BURST: f64 = 30.0;
const REFILL_PER_SECOND: f64 = 2.0;
/// Users whose requests are remembered. Who has made none for a while is forgotten first.
const MAX_USERS: usize = 4096;
/// Bytes of a request's body, at most.
const MAX_BODY: usize = 64 << 10;
/// How long a request may take to arrive, and a connection to be answered.
const ARRIVAL: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(90);
/// Bounds on what is remembered of a session.
pub(super) const MAX_REASON: usize = 1000;
const MAX_VARIABLES: usize = 64;

/// Makes the socket, open to everybody. It appears under its name with its mode.
///
/// # Errors
/// If the socket cannot be made.
pub fn bind(path: &Path, private: &Path) -> io::Result<UnixListener> {
    bind_with(path, private, 0o666)
}

/// What users have asked for.
#[derive(Default)]
struct Users {
    connections: usize,
    of: HashMap<u32, User>,
}

struct User {
    connections: usize,
    /// Requests it may make now.
    left: f64,
    at: Instant,
}

impl Users {
    /// Whether one more connection of a user is taken. It counts until [`Users::close`].
    fn open(&mut self, uid: u32, now: Instant) -> bool {
        if self.of.len() >= MAX_USERS {
            self.of.retain(|_, user| user.connections != 0 || user.refilled(now) < BURST);
        }
        if self.of.len() >= MAX_USERS && !self.of.contains_key(&uid) {
            return false;
        }
        let user = self.of.entry(uid).or_insert(User { connections: 0, left: BURST, at: now });
        if self.connections >= MAX_CONNECTIONS || user.connections >= MAX_OF_USER {
            return false;
        }
        user.connections += 1;
        self.connections += 1;
        true
    }

    fn close(&mut self, uid: u32) {
        if let Some(user) = self.of.get_mut(&uid) {
            user.connections = user.connections.saturating_sub(1);
        }
        self.connections = self.connections.saturating_sub(1);
    }

    /// Whether a user may make one more request now.
    fn take(&mut self, uid: u32, now: Instant) -> bool {
        let Some(user) = self.of.get_mut(&uid) else { return false };
        (user.left, user.at) = (user.refilled(now), now);
        let may = user.left >= 1.0;
        if may {
            user.left -= 1.0;
        }
        may
    }
}

impl User {
    fn refilled(&self, now: Instant) -> f64 {
        (self.left + now.saturating_duration_since(self.at).as_secs_f64() * REFILL_PER_SECOND).min(BURST)
    }
}

type SharedUsers = Arc<Mutex<Users>>;

fn lock(users: &SharedUsers) -> std::sync::MutexGuard<'_, Users> {
    users.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that counts.
struct Counted {
    users: SharedUsers,
    uid: u32,
}

impl Drop for Counted {
    fn drop(&mut self) {
        lock(&self.users).close(self.uid);
    }
}

/// Serves until the daemon ends.
///
/// # Errors
/// If the listener fails for good.
pub async fn serve(listener: UnixListener, shared: Shared) -> io::Result<()> {
    let users = SharedUsers::default();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // For want of descriptors, say: others may be given back.
                tracing::warn!("cannot accept a connection of the self-service socket: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(credentials) = stream.peer_cred() else { continue };
        let uid = credentials.uid();
        if !lock(&users).open(uid, Instant::now()) {
            continue;
        }
        let counted = Counted { users: Arc::clone(&users), uid };
        let caller = caller(&stream, uid, credentials.gid(), credentials.pid());
        let shared = shared.clone();
        tokio::spawn(async move {
            let users = Arc::clone(&counted.users);
            let service = service_fn(|request| {
                let (shared, caller, users) = (shared.clone(), caller.clone(), Arc::clone(&users));
                async move { Ok::<_, Infallible>(route(request, shared, caller, uid, &users).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(ARRIVAL)
                .keep_alive(false)
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), service);
            // Who breaks off or takes too long has no answer.
            let _ = tokio::time::timeout(PATIENCE, connection).await;
            drop(counted);
        });
    }
}

/// Who is at the other end. The groups are asked of the kernel, which keeps them as they were when the
/// connection was made.
fn caller(stream: &UnixStream, uid: u32, gid: u32, pid: Option<i32>) -> Option<Caller> {
    let pid = pid?;
    let process = peer_process(stream.as_fd(), pid).ok()?;
    Some(Caller { process: Arc::new(process), pid, uid, gid, groups: peer_groups(stream.as_fd()).ok()? })
}

async fn route(
    request: Request<Incoming>,
    shared: Shared,
    caller: Option<Caller>,
    uid: u32,
    users: &SharedUsers,
) -> Response<Body> {
    let path = request.uri().path();
    let asks = path.starts_with(own_requests::PATH) || path == own_requests::DENIAL;
    if !asks && request.uri().path() != "/v1/adopt" {
        let message = format!("the self-service socket has no {}", request.uri().path());
        return failure(StatusCode::NOT_FOUND, "invalid-request", message);
    }
    if !asks && request.method() != Method::POST {
        let message = format!("/v1/adopt does not answer to {}", request.method());
        return failure(StatusCode::METHOD_NOT_ALLOWED, "invalid-request", message);
    }
    if !lock(users).take(uid, Instant::now()) {
        let message = "you ask for too much: try again in a few seconds".to_owned();
        return failure(StatusCode::TOO_MANY_REQUESTS, "too-many", message);
    }
    let Some(caller) = caller else {
        return failure(StatusCode::FORBIDDEN, "not-permitted", "the caller cannot be identified".to_owned());
    };
    if asks {
        return own_requests::route(request, shared, caller).await;
    }
    let body = match body(request).await {
        Ok(bytes) => bytes,
        Err(refusal) => return refusal,
    };
    let request: AdoptRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return invalid(&error.to_string()),
    };
    if request.reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
        return invalid("a reason has at most 1000 bytes");
    }
    if request.variables.len() > MAX_VARIABLES {
        return invalid("a session has at most 64 variables");
    }
    match tokio::task::spawn_blocking(move || shared.adopt(&caller, &request)).await {
        Ok(Ok(adopted)) => answer(adopted),
        Ok(Err(error)) => refused(&error),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
    }
}

/// The body of a request, within bounds of time and size.
pub(super) async fn body(request: Request<Incoming>) -> Result<bytes::Bytes, Response<Body>> {
    match tokio::time::timeout(ARRIVAL, Limited::new(request.into_body(), MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(invalid("the body is too long, or did not arrive")),
        Err(_) => Err(invalid("the body did not arrive in time")),
    }
}

fn refused(error: &AdoptError) -> Response<Body> {
    let (status, code) = match error {
        AdoptError::NotPermitted(_)
        | AdoptError::Labelled(..)
        | AdoptError::Threads
        | AdoptError::Wider(..)
        | AdoptError::Unknown(_) => (StatusCode::FORBIDDEN, "not-permitted"),
        AdoptError::Variable(_)
        | AdoptError::Named { .. }
        | AdoptError::NoPlace(_)
        | AdoptError::Begins(_) => (StatusCode::UNPROCESSABLE_ENTITY, "session-variable"),
        AdoptError::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "too-many"),
        AdoptError::Changed => (StatusCode::CONFLICT, "policy-changed"),
        AdoptError::Store(_) | AdoptError::Apply(_) | AdoptError::Kernel(_) | AdoptError::NotLabelled => {
            (StatusCode::INTERNAL_SERVER_ERROR, "internal")
        }
    };
    failure(status, code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_share_of_connections_and_others_have_theirs() {
        let (mut users, now) = (Users::default(), Instant::now());
        for _ in 0..MAX_OF_USER {
            assert!(users.open(1, now));
        }
        assert!(!users.open(1, now) && users.open(2, now));
        users.close(1);
        assert!(users.open(1, now));
        for uid in 10..200 {
            users.open(uid, now);
        }
        assert_eq!(users.connections, MAX_CONNECTIONS);
        assert!(!users.open(3, now));
    }

    #[test]
    fn requests_come_back_with_time() {
        let (mut users, now) = (Users::default(), Instant::now());
        assert!(users.open(1, now) && users.open(2, now));
        let made = (0..100).filter(|_| users.take(1, now)).count();
        assert_eq!(made, BURST as usize);
        assert!(users.take(2, now), "another user's are another's");
        let later = now + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| users.take(1, later)).count(), REFILL_PER_SECOND as usize);
        let much_later = now + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| users.take(1, much_later)).count(), BURST as usize);
    }

    #[test]
    fn users_that_are_forgotten_have_nothing_to_come_back() {
        let (mut users, now) = (Users::default(), Instant::now());
        for uid in 0..MAX_USERS as u32 {
            assert!(users.open(uid, now));
            users.close(uid);
        }
        while users.take(5, now) {}
        assert!(users.open(9_999, now));
        assert!(!users.take(5, now), "it is remembered");
    }
}
