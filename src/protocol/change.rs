//! Attributes of keys and directories.

use serde::{Deserialize, Serialize};

/// Attributes to change, or attributes of a new key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime: Option<i64>,
    /// The new key may replace an empty key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over_empty: bool,
}
