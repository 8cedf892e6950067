//! The codes of answers that are no success: stable names, for tools.

/// Code, HTTP status, and what it means.
pub(super) const CODES: &[(&str, u16, &str)] = &[
    (
        "invalid-request",
        400,
        "the request is not understood; also 404 for a path and 405 for a method that do not exist, 413 and 415 for a body",
    ),
    ("not-permitted", 403, "the caller may not do this; `action` and `roles` say what is missing"),
    ("not-found", 404, "there is no lease, request, fact or quarantine of that name or number that counts"),
    ("unknown-session", 404, "there is no such trial"),
    ("policy-changed", 409, "another bundle became live meanwhile: ask again"),
    ("decided", 409, "the request has an answer already"),
    ("not-enforcing", 409, "there is nothing to try: enforcement is not proven"),
    ("trust", 409, "the keys that sign bundles cannot be used"),
    ("not-signed", 409, "not enough trusted keys signed the bundle"),
    ("expired", 409, "the bundle is too old"),
    ("older-version", 409, "the host has had a newer version of the bundle"),
    ("version-conflict", 409, "the host knows this version with other contents"),
    ("held", 409, "a hold refuses other bundles"),
    ("nothing-before", 409, "there is no bundle to go back to"),
    ("no-shadow", 409, "there is no shadow"),
    ("shadow-is-live", 409, "the shadow is what is live"),
    ("too-large-together", 409, "live bundle and shadow do not fit the tables together"),
    ("too-many-quarantines", 409, "there are as many quarantines of what is no subject as there can be"),
    ("invalid-policy", 422, "the bundle is not valid; `message` holds its diagnostics"),
    ("unknown-subject", 422, "the live bundle has no such subject"),
    (
        "unknown-level",
        422,
        "there is no such level of quarantine, it is no lower one, or it is not said who is meant",
    ),
    ("unknown-target", 422, "there is no such process, unit, cgroup, container, user or program"),
    ("never-covered", 422, "no quarantine covers this, so that somebody can release it"),
    ("unknown-lease", 422, "the live bundle declares no such lease, or it would change nothing"),
    ("unknown-fact", 422, "the live bundle does not declare such a fact, of that type and source"),
    ("too-long", 422, "it would last longer than it may"),
    ("no-reason", 422, "less would be denied than now, and nobody says why"),
    ("unconfirmed", 422, "less would be denied than now, and nobody says that this is meant"),
    ("session-variable", 422, "a variable of a session has no value that is allowed"),
    ("too-many", 429, "too many requests: try again later"),
    ("internal", 500, "something broke that should not"),
];

/// Whether a code is one of these.
pub(super) fn is_known(code: &str) -> bool {
    CODES.iter().any(|(known, _, _)| *known == code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// What stands between a status and its code, in source text.
    fn codes_in(text: &str) -> impl Iterator<Item = &str> {
        text.split("StatusCode::").skip(1).filter_map(|rest| {
            let (_, rest) = rest.split_once(',')?;
            let (code, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
            Some(code)
        })
    }

    #[test]
    fn every_code_that_is_answered_is_listed() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
        let mut found = 0;
        let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        for path in paths.filter(|path| path.is_file()) {
            let text = std::fs::read_to_string(path).unwrap();
            for code in codes_in(&text) {
                assert!(is_known(code), "{code} is not listed");
                found += 1;
            }
        }
        assert!(found > 20, "they are written otherwise now: {found}");
    }

    #[test]
    fn a_code_is_listed_once_in_the_order_of_its_status() {
        let listed: Vec<u16> = CODES.iter().map(|(_, status, _)| *status).collect();
        assert!(listed.is_sorted());
        let mut names: Vec<&str> = CODES.iter().map(|(code, _, _)| *code).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CODES.len());
    }
}
