//! When enforcement was ended on purpose: a file in the state directory.
//!
//! It is written before anything is detached. Whoever ends enforcement without the agent writes it as well.

use super::engine::Engine;
use crate::bundle::replace;
use crate::events::time;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

const FILE: &str = "disarms.json";
/// The one format of the file.
const FORMAT: u32 = 1;
/// So many are kept.
const MAX: usize = 100;

/// One end of enforcement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Disarm {
    /// When, RFC 3339 UTC.
    pub at: String,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Whether it was without an agent.
    pub offline: bool,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    format: u32,
    disarms: Vec<Disarm>,
}

/// What was recorded, oldest first.
///
/// # Errors
/// If the file is there and cannot be used.
pub(super) fn read(state_dir: &Path) -> io::Result<Vec<Disarm>> {
    let bytes = match std::fs::read(state_dir.join(FILE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let contents: Contents = serde_json::from_slice(&bytes)?;
    if contents.format != FORMAT {
        let why = format!("{FILE} has format {}, and this version reads format {FORMAT}", contents.format);
        return Err(io::Error::other(why));
    }
    Ok(contents.disarms)
}

/// Records one more. Once this returns it is on the disk.
///
/// # Errors
/// If the file cannot be written. One that cannot be read is replaced: what ends enforcement must not depend on it.
pub fn record(state_dir: &Path, disarm: Disarm) -> io::Result<()> {
    let mut disarms = read(state_dir).unwrap_or_default();
    disarms.push(disarm);
    let excess = disarms.len().saturating_sub(MAX);
    disarms.drain(..excess);
    let bytes = serde_json::to_vec(&Contents { format: FORMAT, disarms })?;
    replace(&state_dir.join(FILE), &bytes, 0o600)
}

impl Engine {
    /// Records that enforcement ends now.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn record_disarm(&mut self, reason: &str, by: &str) -> io::Result<Disarm> {
        let at = time::rfc3339(time::now());
        let disarm = Disarm { at, by: by.to_owned(), reason: reason.to_owned(), offline: false };
        record(self.ids_file.parent().unwrap_or(Path::new(".")), disarm.clone())?;
        self.disarms.push(disarm.clone());
        Ok(disarm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_a_broken_file_keeps_nobody_from_recording() {
        let directory = std::env::temp_dir().join(format!("guard-disarms-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let one = |number: usize| Disarm {
            at: "2026-05-04T02:02:01.000000Z".to_owned(),
            by: "uid 0".to_owned(),
            reason: number.to_string(),
            offline: false,
        };
        assert_eq!(read(&directory).unwrap(), []);
        for number in 0..MAX + 2 {
            record(&directory, one(number)).unwrap();
        }
        let kept = read(&directory).unwrap();
        assert_eq!((kept.len(), &kept[0], &kept[MAX - 1]), (MAX, &one(2), &one(MAX + 1)));
        std::fs::write(directory.join(FILE), "{").unwrap();
        assert!(read(&directory).is_err());
        record(&directory, one(7)).unwrap();
        assert_eq!(read(&directory).unwrap(), [one(7)]);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
