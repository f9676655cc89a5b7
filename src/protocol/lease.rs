//! Leases: a node's word that no directory, or nothing at all, will come to be in a certain directory for a while. A mount that makes
//! many files so need not ask every node about each new name. In the manner of C. Gray and D. Cheriton, "Leases: an efficient
//! fault-tolerant mechanism for distributed file cache consistency", SOSP 1989.

use super::Stat;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;
use std::time::Duration;

/// How long a node keeps its word, from when it gives it.
pub const LEASE: Duration = Duration::from_millis(500);

/// How long whoever was given it relies on it, from when it asked: less, since no two clocks go alike.
pub const RELIANCE: Duration = Duration::from_millis(450);

/// Who asks, where it may be given leases, which do not bind itself.
pub const HOLDER_HEADER: &str = "s4-holder";

/// One who may be given leases, as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(u64);

impl Holder {
    /// A random one.
    pub fn new() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }
}

impl Default for Holder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Holder {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        u64::from_str_radix(text, 16).ok().filter(|_| digits).map(Self).ok_or(())
    }
}

/// What a node tells of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    #[serde(flatten)]
    pub stat: Stat,
    /// True if the node holds no directory beside the name, and will make none for [`LEASE`], but for those whose own node it is, as
    /// it would be of a key of their name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lease: bool,
    /// True if also nothing is beside the name but what the holder has made since it first asked with this book, and nobody else will
    /// make anything there for [`LEASE`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
}

/// A number that a holder gives what it remembers of a directory: which names it has made there. What it forgets has another number
/// when it begins anew. With 0 it asks for no exclusive lease.
pub type Book = u64;
