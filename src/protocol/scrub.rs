//! The lines of a scrub: JSON, one value per line.

use crate::bounds;
use crate::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// What a scrub found wrong with a file in a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The bytes or their length are not those that were stored.
    Damaged,
    /// No checksum is recorded, or the record cannot be read: s4 did not put this file, or its attribute is lost.
    Unchecksummed,
    /// It belongs on another node, so it is no key.
    Stray,
    /// The disk does not give it.
    Unreadable,
}

impl Fault {
    pub const ALL: [Self; 4] = [Self::Damaged, Self::Unchecksummed, Self::Stray, Self::Unreadable];

    /// The name in metrics and summaries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Unchecksummed => "unchecksummed",
            Self::Stray => "stray",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A file that is not a whole key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub fault: Fault,
    /// `bucket/dir/name`.
    #[serde(deserialize_with = "bounds::line")]
    pub path: String,
    /// The reason, without the path.
    #[serde(deserialize_with = "bounds::line")]
    pub message: String,
}

/// How far a scrub of a node is. Counts of earlier parts of a resumed scrub are included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrubbed {
    /// Files that were checked.
    #[serde(deserialize_with = "bounds::count")]
    pub keys: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub bytes: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub findings: u64,
}

/// A line of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScrubLine {
    Finding(Finding),
    /// At least once a second.
    Progress(Scrubbed),
    /// The last line of a scrub that has read everything.
    End(Scrubbed),
    /// The last line of a scrub that failed.
    Error(Error),
}

impl ScrubLine {
    /// Parses a line without its newline.
    pub fn parse(line: &[u8]) -> Result<Self> {
        serde_json::from_slice(line)
            .map_err(|e| Error::new(ErrorKind::Unreachable, format!("malformed line of a scrub: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_as_documented() {
        let finding = Finding { fault: Fault::Stray, path: "b/k".into(), message: "it belongs on node 1".into() };
        for (line, json) in [
            (
                ScrubLine::Finding(finding),
                r#"{"finding":{"fault":"stray","path":"b/k","message":"it belongs on node 1"}}"#,
            ),
            (
                ScrubLine::Progress(Scrubbed { keys: 1, bytes: 2, findings: 0 }),
                r#"{"progress":{"keys":1,"bytes":2,"findings":0}}"#,
            ),
            (ScrubLine::End(Scrubbed::default()), r#"{"end":{"keys":0,"bytes":0,"findings":0}}"#),
        ] {
            assert_eq!(serde_json::to_string(&line).expect("JSON"), json);
            assert_eq!(ScrubLine::parse(json.as_bytes()), Ok(line));
        }
        for fault in Fault::ALL {
            assert_eq!(serde_json::to_string(&fault).expect("JSON"), format!("\"{}\"", fault.name()));
        }
    }

    #[test]
    fn a_text_of_a_peer_is_one_line() {
        let json = br#"{"finding":{"fault":"damaged","path":"b/\u001b[2J","message":"a\nb"}}"#;
        let Ok(ScrubLine::Finding(finding)) = ScrubLine::parse(json) else { panic!("a finding") };
        assert_eq!((&*finding.path, &*finding.message), ("b/\\u{1b}[2J", "a\\nb"));
        assert!(ScrubLine::parse(b"{}").is_err());
    }
}
