//! The free-space reserve: writes are refused before the disk is full, so that it stays usable for everything else.

use super::core::Store;
use nix::sys::statvfs::statvfs;
use s4::error::{Error, ErrorKind, Result};
use std::path::Path;

/// A disk with less free space than this is full, whatever the reserve: a write that failed with ENOSPC leaves less.
const FULL: u64 = 1 << 20;

/// The default reserve is a twentieth of the disk, but no more than this.
const MAX_RESERVE: u64 = 4 << 30;

impl Store {
    /// Free bytes for an unprivileged user.
    pub fn free_bytes(&self) -> Result<u64> {
        free_bytes(&self.root)
    }

    /// Size of the file system, in bytes.
    pub fn total_bytes(&self) -> Result<u64> {
        let stat = statvfs(&self.root).map_err(|e| Error::io(self.root.display(), &e.into()))?;
        Ok(stat.blocks() as u64 * stat.fragment_size() as u64)
    }

    /// With less than this the disk counts as full.
    pub fn reserve_bytes(&self) -> u64 {
        self.reserve.max(FULL)
    }

    /// Refuses a write if less than the reserve is free. `what` is the object of the write, for the message.
    pub fn check_space(&self, what: impl std::fmt::Display) -> Result<()> {
        let (free, reserve) = (self.free_bytes()?, self.reserve_bytes());
        if free >= reserve {
            return Ok(());
        }
        let message = format!(
            "{what}: no space: {} MiB free, {} MiB kept in reserve; delete keys or lower --reserve",
            free >> 20,
            reserve >> 20
        );
        Err(Error::new(ErrorKind::NoSpace, message))
    }
}

fn free_bytes(dir: &Path) -> Result<u64> {
    let stat = statvfs(dir).map_err(|e| Error::io(dir.display(), &e.into()))?;
    Ok(stat.blocks_available() as u64 * stat.fragment_size() as u64)
}

pub fn default_reserve(dir: &Path) -> Result<u64> {
    let stat = statvfs(dir).map_err(|e| Error::io(dir.display(), &e.into()))?;
    Ok((stat.blocks() as u64 * stat.fragment_size() as u64 / 20).min(MAX_RESERVE))
}
