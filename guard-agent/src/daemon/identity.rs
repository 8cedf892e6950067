//! Which state directory this is: numbers of subjects in labels mean what it says, and nothing elsewhere.

use crate::bundle::replace;
use std::io;
use std::path::Path;

/// A name that the kernel makes up, RFC 4122.
const UUID: &str = "/proc/sys/kernel/random/uuid";

/// The identity of a state directory, which gets one the first time.
///
/// # Errors
/// If it cannot be read or written.
pub(super) fn read(state_dir: &Path) -> io::Result<String> {
    let file = state_dir.join("identity");
    match std::fs::read_to_string(&file) {
        Ok(identity) if is_identity(identity.trim()) => Ok(identity.trim().to_owned()),
        Ok(_) => Err(io::Error::other("it holds no identity: remove it after `guardctl disarm`")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let identity = std::fs::read_to_string(UUID)?.trim().to_owned();
            replace(&file, identity.as_bytes(), 0o600)?;
            Ok(identity)
        }
        Err(error) => Err(error),
    }
}

fn is_identity(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_identity() {
        let directory = std::env::temp_dir().join(format!("guard-identity-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let first = read(&directory).unwrap();
        assert_eq!(read(&directory).unwrap(), first);
        std::fs::write(directory.join("identity"), "x").unwrap();
        assert!(read(&directory).is_err());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
