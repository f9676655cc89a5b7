//! What crosses the wire for a resize.

use super::change::Change;
use crate::attribute::KEY_ATTRIBUTE;
use crate::bounds;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Dir;
use crate::placement::NodeId;
use crate::resize::Lists;
use serde::{Deserialize, Serialize};

/// What all attributes of s4 begin with.
const OURS: &str = "user.s4.";
/// Limits for the attributes of a file: number, and bytes of names and values.
const MAX_ATTRIBUTES: usize = 16;
const MAX_BYTES: usize = 24 << 10;

/// Where a node stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResizeState {
    /// `None` if it is not being resized.
    pub lists: Option<Lists>,
    /// Random, and another after each start of the daemon.
    #[serde(deserialize_with = "bounds::line")]
    pub token: String,
}

/// What a resize would move from a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizePlan {
    #[serde(deserialize_with = "bounds::count")]
    pub keys: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub bytes: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub moved_keys: u64,
    /// The bytes that go to each node.
    pub to: Vec<(NodeId, u64)>,
    /// The bytes that the node can take.
    #[serde(deserialize_with = "bounds::count")]
    pub room: u64,
}

/// How far a node is with its part of a resize.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Keys and bytes that were moved.
    #[serde(deserialize_with = "bounds::count")]
    pub keys: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub bytes: u64,
    /// Keys and bytes that are to be moved, those that were included.
    #[serde(deserialize_with = "bounds::count")]
    pub all_keys: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub all_bytes: u64,
}

impl std::ops::AddAssign for Moved {
    fn add_assign(&mut self, other: Self) {
        self.keys += other.keys;
        self.bytes += other.bytes;
        self.all_keys += other.all_keys;
        self.all_bytes += other.all_bytes;
    }
}

/// A line of an answer that takes long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeLine {
    /// At least once a second.
    Progress(Moved),
    /// The last line of a check.
    Plan(ResizePlan),
    /// The last line of a move.
    End(Moved),
    Error(Error),
}

impl ResizeLine {
    /// Parses a line without its newline. A line with an error returns that error.
    pub fn parse(line: &[u8]) -> Result<Self> {
        let malformed = |e| Error::new(ErrorKind::Unreachable, format!("malformed line of a resize: {e}"));
        match serde_json::from_slice(line).map_err(malformed)? {
            Self::Error(error) => Err(error),
            line => Ok(line),
        }
    }
}

/// A directory that has a new home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MovedDir {
    pub dir: Dir,
    /// The sender, if it holds something in the directory and stays in the cluster.
    pub holder: Option<NodeId>,
    /// What the old home has recorded.
    #[serde(default)]
    pub made: bool,
    #[serde(default)]
    pub change: Change,
}

/// An extended attribute of a key's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    pub name: String,
    #[serde(with = "hex")]
    pub value: Vec<u8>,
}

/// The attributes with which a file is moved to another node: s4's own, but not those that the receiver computes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Attribute>", into = "Vec<Attribute>")]
pub struct Attributes(Vec<Attribute>);

impl Attributes {
    pub fn iter(&self) -> std::slice::Iter<'_, Attribute> {
        self.0.iter()
    }

    /// The value of the record of a key; `None` for a file that is no key.
    pub fn record(&self) -> Option<&[u8]> {
        self.0.iter().find(|attribute| attribute.name == KEY_ATTRIBUTE).map(|attribute| &*attribute.value)
    }
}

impl TryFrom<Vec<Attribute>> for Attributes {
    type Error = Error;

    /// Errors: another attribute than s4's; too many of them.
    fn try_from(attributes: Vec<Attribute>) -> Result<Self> {
        let refuse = |why: &str| Err(Error::new(ErrorKind::BadRequest, format!("the attributes of the file {why}")));
        if attributes.len() > MAX_ATTRIBUTES
            || attributes.iter().map(|one| one.name.len() + one.value.len()).sum::<usize>() > MAX_BYTES
        {
            return refuse("are more than a key has");
        }
        match attributes.iter().all(|one| one.name.starts_with(OURS)) {
            true => Ok(Self(attributes)),
            false => refuse("are not all s4's"),
        }
    }
}

impl From<Attributes> for Vec<Attribute> {
    fn from(attributes: Attributes) -> Self {
        attributes.0
    }
}

/// Serialises bytes as hexadecimal digits.
mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::borrow::Cow;

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let digits = Cow::<str>::deserialize(from)?;
        if !digits.is_ascii() || digits.len() % 2 != 0 {
            return Err(D::Error::custom("not pairs of hexadecimal digits"));
        }
        let pairs = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
        pairs.collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_written_and_bounded() {
        let one = |name: &str, value: &[u8]| Attribute { name: name.to_owned(), value: value.to_vec() };
        let attributes = Attributes::try_from(vec![one(KEY_ATTRIBUTE, &[1, 0xab]), one("user.s4.x", &[])]).unwrap();
        let json = serde_json::to_string(&attributes).unwrap();
        assert_eq!(json, r#"[{"name":"user.s4.key","value":"01ab"},{"name":"user.s4.x","value":""}]"#);
        assert_eq!(serde_json::from_str::<Attributes>(&json).unwrap(), attributes);
        assert_eq!(attributes.record(), Some(&[1, 0xab][..]));
        for json in [
            r#"[{"name":"security.capability","value":"01"}]"#,
            r#"[{"name":"user.s4.key","value":"0"}]"#,
            r#"[{"name":"user.s4.key","value":"zz"}]"#,
            r#"[{"name":"user.s4.key","value":"éé"}]"#,
        ] {
            assert!(serde_json::from_str::<Attributes>(json).is_err(), "{json}");
        }
        let large = Attributes::try_from(vec![one("user.s4.x", &[0; MAX_BYTES])]);
        assert!(large.is_err() && Attributes::try_from(vec![one("user.s4.x", &[]); 17]).is_err());
    }
}
