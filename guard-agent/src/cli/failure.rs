//! Why a command has no answer.

use super::Exit;
use crate::api::types::Failure;
use crate::events::escape;
use std::io::{self, Write};

/// An error of a command, with the code that the process ends with.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    exit: Exit,
    /// Stable name, as in the API.
    code: String,
    message: String,
}

impl CliError {
    /// Nobody answers.
    pub(super) fn unreachable(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unreachable, code: "unreachable".to_owned(), message: message.into() }
    }

    /// The caller may not.
    pub(super) fn not_permitted(message: impl Into<String>) -> Self {
        Self { exit: Exit::NotPermitted, code: "not-permitted".to_owned(), message: message.into() }
    }

    /// It was not done, and nothing is wrong.
    pub(super) fn no(message: impl Into<String>) -> Self {
        Self { exit: Exit::No, code: "no".to_owned(), message: message.into() }
    }

    /// What was handed in is not valid.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { exit: Exit::Invalid, code: "invalid-request".to_owned(), message: message.into() }
    }

    /// A bundle is not valid; the message is its diagnostics.
    pub(super) fn invalid_policy(message: impl Into<String>) -> Self {
        Self { exit: Exit::Invalid, code: "invalid-policy".to_owned(), message: message.into() }
    }

    /// Something broke.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self { exit: Exit::Internal, code: "internal".to_owned(), message: message.into() }
    }

    /// What the daemon answered instead of a success.
    pub(super) fn answered(status: u16, body: &[u8]) -> Self {
        let exit = match status {
            403 => Exit::NotPermitted,
            400 | 422 => Exit::Invalid,
            409 | 429 => Exit::No,
            _ => Exit::Internal,
        };
        match serde_json::from_slice::<Failure>(body) {
            // That there is no such thing is an answer; that there is no such place is none.
            Ok(failure) if failure.code == "not-found" => {
                Self { exit: Exit::No, code: failure.code, message: failure.message }
            }
            Ok(failure) => Self { exit, code: failure.code, message: failure.message },
            Err(_) => Self {
                exit,
                code: "internal".to_owned(),
                message: format!("the daemon answered with HTTP status {status} and no explanation"),
            },
        }
    }

    /// Its stable name.
    pub(super) fn code(&self) -> &str {
        &self.code
    }

    /// The code that the process ends with.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Tells the user: the text on standard error, and on standard output the JSON if asked for.
    pub(super) fn report(&self, json: bool) -> Exit {
        let text = escape::block(self.message.trim_end());
        // A rendered diagnostic says "error" itself.
        let prefix = if text.starts_with("error") { "" } else { "guardctl: " };
        // Where nobody reads, the exit code is all that is left to say it.
        let _ = writeln!(io::stderr().lock(), "{prefix}{text}");
        if json {
            let body =
                serde_json::json!({ "schema": "guard.error/1", "code": self.code, "message": self.message });
            let _ = writeln!(io::stdout().lock(), "{body}");
        }
        self.exit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_exit_codes() {
        let body = br#"{"schema":"guard.error/1","code":"invalid-policy","message":"error[parse]: no"}"#;
        let error = CliError::answered(422, body);
        assert_eq!((error.exit(), error.to_string().as_str()), (Exit::Invalid, "error[parse]: no"));
        assert_eq!(CliError::answered(403, b"").exit(), Exit::NotPermitted);
        assert_eq!(CliError::answered(400, b"").exit(), Exit::Invalid);
        assert_eq!(CliError::answered(409, b"").exit(), Exit::No);
        for status in [404, 500, 502] {
            assert_eq!(CliError::answered(status, b"<html>").exit(), Exit::Internal);
        }
    }
}
