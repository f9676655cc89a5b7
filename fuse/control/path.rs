//! Names below `.s4/`.

use s4::protocol::{JobId, MapKind};

/// The directory at the root that contains them. Listings of the root do not show it.
pub const CONTROL: &str = ".s4";

/// A file or directory below `.s4`, which is `Root`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ControlPath {
    Root,
    Nodes,
    Maps(MapKind),
    Map(MapKind, String),
    Jobs,
    Job(JobId),
    JobFile(JobId, JobFile),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobFile {
    Status,
    Failed,
    Stderr,
    Cancel,
}

impl ControlPath {
    pub fn is_dir(&self) -> bool {
        match self {
            Self::Root | Self::Maps(_) | Self::Jobs | Self::Job(_) => true,
            Self::Nodes | Self::Map(..) | Self::JobFile(..) => false,
        }
    }
}
