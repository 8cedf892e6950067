//! What a host remembers of shadows: the one beside the live bundle, and those that ended.

use serde::{Deserialize, Serialize};

/// The one format of the file.
const FORMAT: u32 = 1;
/// Ended shadows that are kept, with their copies: `why` asks them about what was reported then.
const MAX_ENDED: usize = 10;

/// A bundle whose verdicts are compared with those of the live one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Shadow {
    /// When it began, in nanoseconds since 1970. What was counted is known by it.
    pub began: i64,
    /// The same, RFC 3339 UTC.
    pub at: String,
    /// Name of the bundle.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Its digest; the files are kept under this name.
    pub digest: String,
    /// Where it was read from.
    pub source: String,
    /// Names of the trusted keys that signed it; none if it is local.
    pub signed_by: Vec<String>,
    /// Who asked for it.
    pub by: String,
}

/// How a shadow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "ShadowEnd"))]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// It was made live.
    Promoted,
    /// Somebody stopped it.
    Stopped,
    /// Another shadow took its place.
    Replaced,
    /// The same bundle became live in another way.
    Applied,
    /// Its copy could not be read any more.
    Lost,
}

impl End {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::Stopped => "stopped",
            Self::Replaced => "replaced",
            Self::Applied => "applied",
            Self::Lost => "lost",
        }
    }
}

/// A shadow that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "ShadowEnded"))]
pub struct Ended {
    /// What it was.
    #[serde(flatten)]
    pub shadow: Shadow,
    /// When it ended, RFC 3339 UTC.
    pub ended: String,
    /// How.
    pub how: End,
    /// Who asked for that.
    pub ended_by: String,
}

/// The shadow, and those before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadows {
    format: u32,
    current: Option<Shadow>,
    ended: Vec<Ended>,
}

impl Default for Shadows {
    fn default() -> Self {
        Self { format: FORMAT, current: None, ended: Vec::new() }
    }
}

impl Shadows {
    /// What was stored.
    ///
    /// # Errors
    /// If this version does not understand it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let shadows: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match shadows.format {
            FORMAT => Ok(shadows),
            other => Err(format!("it has format {other}, and this agent reads format {FORMAT}")),
        }
    }

    /// The one that stands beside the live bundle.
    pub fn current(&self) -> Option<&Shadow> {
        self.current.as_ref()
    }

    /// Those that ended, oldest first.
    pub fn ended(&self) -> &[Ended] {
        &self.ended
    }

    /// Begins one; another one that stands ends with it.
    pub fn begin(&mut self, shadow: Shadow) {
        let (at, by) = (shadow.at.clone(), shadow.by.clone());
        self.end(End::Replaced, at, by);
        self.current = Some(shadow);
    }

    /// Ends the one that stands.
    pub fn end(&mut self, how: End, ended: String, ended_by: String) {
        let Some(shadow) = self.current.take() else { return };
        self.ended.push(Ended { shadow, ended, how, ended_by });
        let surplus = self.ended.len().saturating_sub(MAX_ENDED);
        self.ended.drain(..surplus);
    }

    /// Digests of all that are remembered.
    pub fn digests(&self) -> impl Iterator<Item = &str> {
        let ended = self.ended.iter().map(|ended| ended.shadow.digest.as_str());
        ended.chain(self.current.iter().map(|shadow| shadow.digest.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shadow(version: u64) -> Shadow {
        Shadow {
            began: version.cast_signed(),
            at: format!("2026-01-01T00:00:{version:02}Z"),
            name: "web".into(),
            version,
            digest: format!("d{version}"),
            source: "/x".into(),
            signed_by: Vec::new(),
            by: "uid 0".into(),
        }
    }

    #[test]
    fn one_stands_and_the_last_that_ended_are_known() {
        let mut shadows = Shadows::default();
        for version in 1..=20 {
            shadows.begin(shadow(version));
        }
        assert_eq!(shadows.current(), Some(&shadow(20)));
        shadows.end(End::Stopped, "2026-01-02T00:00:00Z".into(), "uid 1".into());
        shadows.end(End::Stopped, "2026-01-03T00:00:00Z".into(), "uid 1".into());
        assert_eq!((shadows.current(), shadows.ended().len()), (None, MAX_ENDED));
        let last = shadows.ended().last().unwrap();
        assert_eq!((last.shadow.version, last.how, last.ended_by.as_str()), (20, End::Stopped, "uid 1"));
        assert_eq!((shadows.ended()[0].shadow.version, shadows.ended()[0].how), (11, End::Replaced));
        assert_eq!(shadows.digests().count(), MAX_ENDED);
        let stored = serde_json::to_vec(&shadows).unwrap();
        assert_eq!(Shadows::parse(&stored).unwrap(), shadows);
        for bad in [&b""[..], b"{}", b"{\"format\":2,\"current\":null,\"ended\":[]}"] {
            assert!(Shadows::parse(bad).is_err());
        }
    }
}
