//! What cannot be remembered or recalled.

use std::path::{Path, PathBuf};

/// An operation on the file that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("cannot {action} {path}: {source}")]
    Database {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// A newer agent wrote the file.
    #[error("{path} has format {found}, and this agent writes format {known}")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest that this version knows.
        known: i64,
    },
    /// A row holds what this version cannot read.
    #[error("{path} holds a row that is not understood: {why}")]
    Row {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The file cannot be made.
    #[error("cannot make {path}: {source}")]
    Make {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file cannot be renamed.
    #[error("cannot set {path} aside: {source}")]
    Aside {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl StoreError {
    /// Turns SQLite's error into one that says what failed.
    pub(super) fn at(action: &'static str, path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        move |source| Self::Database { action, path: path.to_owned(), source }
    }

    /// Whether the file itself is at fault and will be the next time.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::TooNew { .. } | Self::Row { .. } => true,
            Self::Database { source, .. } => {
                matches!(
                    source.sqlite_error_code(),
                    Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
                ) || is_other_schema(source)
            }
            Self::Make { .. } | Self::Aside { .. } => false,
        }
    }
}

/// A statement that does not fit the tables: a file of another program, or tables that are gone.
fn is_other_schema(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error { extended_code: 1, .. }, _)
            | rusqlite::Error::SqlInputError { .. }
            | rusqlite::Error::InvalidColumnType(..)
    )
}
