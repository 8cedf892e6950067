//! HTTP over the daemon's unix socket.

use super::CliError;
use crate::kernel::is_armed;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// How long the daemon may take to begin its answer. Applying a large bundle takes seconds, and who waits for an
/// approval hears after a minute that there is none yet.
const PATIENCE: Duration = Duration::from_secs(80);
/// Longest answer that is read whole.
const ANSWER_MAX: usize = 16 << 20;

/// Where the agent pins its programs, unless its configuration says otherwise.
const PINS: &str = "/sys/fs/bpf/guard";

/// The way to the daemon.
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon that listens on `socket`.
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Where the daemon listens.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for `path` and reads the whole answer.
    pub(super) async fn get(&self, path: &str) -> Result<Bytes, CliError> {
        whole(self.send(Method::GET, path, Bytes::new()).await?).await
    }

    /// Hands a JSON body to `path` and reads the whole answer.
    pub(super) async fn post(&self, path: &str, body: Vec<u8>) -> Result<Bytes, CliError> {
        whole(self.send(Method::POST, path, body.into()).await?).await
    }

    /// Has what is at `path` removed, and reads the whole answer.
    pub(super) async fn delete(&self, path: &str) -> Result<Bytes, CliError> {
        whole(self.send(Method::DELETE, path, Bytes::new()).await?).await
    }

    /// Asks for `path` and leaves the answer to be read as it comes.
    pub(super) async fn stream(&self, path: &str) -> Result<Incoming, CliError> {
        Ok(self.send(Method::GET, path, Bytes::new()).await?.into_body())
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, CliError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.no_connection(&error))?;
        let broken =
            |error: hyper::Error| CliError::unreachable(format!("the daemon ended the connection: {error}"));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the connection; what went wrong is also said where the answer is awaited.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "guard")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| CliError::internal(format!("cannot build the request: {error}")))?;
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request))
            .await
            .map_err(|_| CliError::unreachable(format!("no answer within {} s", PATIENCE.as_secs())))?
            .map_err(broken)?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = whole(response).await?;
        Err(CliError::answered(status, &body))
    }

    /// Why nobody answers, and what to do.
    fn no_connection(&self, error: &io::Error) -> CliError {
        let socket = self.socket.display();
        match error.kind() {
            io::ErrorKind::PermissionDenied => CliError::not_permitted(format!(
                "{socket}: permission denied: the admin socket is for root, try sudo guardctl \
                 (or have [roles] in /etc/guard/agent.toml name you)"
            )),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => CliError::unreachable(format!(
                "the daemon is not running (nobody listens on {socket}){}\n\
                 start it:    sudo systemctl start guard-agent\n\
                 or by hand:  sudo guard-agent run --config /etc/guard/agent.toml\n\
                 why not:     sudo guardctl doctor",
                if is_armed(Path::new(PINS)) {
                    format!(
                        "\nwhat it made live last is still enforced, by programs that are pinned in {PINS}"
                    )
                } else {
                    String::new()
                }
            )),
            _ => CliError::unreachable(format!("cannot connect to {socket}: {error}")),
        }
    }
}

/// A value as it may stand in a query.
pub(super) fn quoted(value: &str) -> String {
    percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string()
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, CliError> {
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect();
    let collected = tokio::time::timeout(PATIENCE, body).await.map_err(|_| {
        CliError::unreachable(format!("the answer did not end within {} s", PATIENCE.as_secs()))
    })?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(CliError::unreachable(format!("the daemon's answer broke off: {error}"))),
    }
}
