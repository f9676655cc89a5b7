//! What a name is: its home node alone knows.

use super::Fs;
use crate::errno::{Result, errno, io_errno};
use nix::errno::Errno;
use s4::directory::DIR_MODE;
use s4::key::{Dir, Key};
use s4::protocol::{KeyStat, Stat};
use s4::stored;

/// What a name turned out to be.
pub(super) enum Found {
    Key(Key, KeyStat),
    Dir(DirStat),
    Absent,
}

/// A directory's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirStat {
    /// Nanoseconds since 1970.
    pub mtime: i64,
    /// Permission bits.
    pub mode: u32,
}

impl DirStat {
    /// Where the home has not told.
    pub const UNKNOWN: Self = Self { mtime: 0, mode: DIR_MODE };
}

impl Fs {
    /// What `path` is. Errors: its home does not answer; `path` is no name.
    pub(super) async fn find(&self, path: &str) -> Result<Found> {
        let home = self.client.home_of(path);
        let here = self.local.dir(home).map(|data| stored::stat(data, path).map_err(io_errno)).transpose()?;
        let stat = match here {
            Some(stat) if stat != Stat::Absent || self.local.knows_absent(home) => stat,
            _ => {
                let name = Dir::try_from(path.to_owned()).map_err(|_| Errno::EINVAL)?;
                self.client.find(&name).await.map_err(|e| errno(&e))?
            }
        };
        Ok(match stat {
            Stat::Key(stat) => Found::Key(Key::parse(path).map_err(|_| Errno::EINVAL)?, stat),
            Stat::Dir { mtime, mode } => Found::Dir(DirStat { mtime, mode }),
            Stat::Absent => Found::Absent,
        })
    }
}
