//! The record of a directory: an extended attribute of the home node's own copy of the directory.
//!
//! Little-endian: version 1; flags; the mode (2 bytes) and the mtime (8 bytes) if the flags say so; a bitmap of the
//! holders (the nodes that hold something in the directory). The first node is the lowest bit of the first byte. 1,000
//! nodes take 125 bytes.

use crate::placement::NodeId;
use crate::protocol::Change;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// The attribute's name.
pub const DIR_ATTRIBUTE: &str = "user.s4.dir";

/// The attribute with which version 0.1 recorded that mkdir made a directory, on the same node.
const MADE_ATTRIBUTE: &str = "user.s4.made";

/// Permission bits of a directory whose mode was not set.
pub const DIR_MODE: u32 = 0o755;

const VERSION: u8 = 1;
const MADE: u8 = 1;
const MODE: u8 = 2;
const MTIME: u8 = 4;

/// Limit of bytes of the bitmap, so that the record fits into an attribute of ext4.
const MAX_BITMAP: usize = 3072;

/// A directory's record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirRecord {
    /// True if mkdir made it. Then it is kept when it becomes empty.
    pub made: bool,
    /// Permission bits, if a user has set them.
    pub mode: Option<u16>,
    /// Nanoseconds since 1970, if a user has set it.
    pub mtime: Option<i64>,
    /// The holders: other nodes that hold something in the directory. May include nodes that no longer do.
    pub holders: BTreeSet<NodeId>,
}

impl DirRecord {
    pub fn encode(&self) -> Vec<u8> {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(self.made, MADE) | flag(self.mode.is_some(), MODE) | flag(self.mtime.is_some(), MTIME);
        let mut bytes = vec![VERSION, flags];
        self.mode.iter().for_each(|mode| bytes.extend_from_slice(&mode.to_le_bytes()));
        self.mtime.iter().for_each(|mtime| bytes.extend_from_slice(&mtime.to_le_bytes()));
        let start = bytes.len();
        bytes.resize(start + self.holders.last().map_or(0, |last| last / 8 + 1), 0);
        self.holders.iter().for_each(|node| bytes[start + node / 8] |= 1 << (node % 8));
        bytes
    }

    /// `None` if the bytes are damaged, or of an unknown version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[VERSION, flags], mut rest) = bytes.split_first_chunk()? else {
            return None;
        };
        let mut record = Self { made: flags & MADE != 0, ..Self::default() };
        if flags & MODE != 0 {
            let (mode, after) = rest.split_first_chunk()?;
            (record.mode, rest) = (Some(u16::from_le_bytes(*mode)), after);
        }
        if flags & MTIME != 0 {
            let (mtime, after) = rest.split_first_chunk()?;
            (record.mtime, rest) = (Some(i64::from_le_bytes(*mtime)), after);
        }
        if flags & !(MADE | MODE | MTIME) != 0 || rest.len() > MAX_BITMAP {
            return None;
        }
        let bits = rest.iter().enumerate();
        let nodes =
            bits.flat_map(|(at, byte)| (0..8).filter(move |bit| byte & (1 << bit) != 0).map(move |bit| at * 8 + bit));
        record.holders = nodes.collect();
        Some(record)
    }

    /// The record of the directory at `path`. Errors: the record is damaged, so that the holders are not known.
    pub fn read(path: &Path) -> io::Result<Self> {
        match xattr::get(path, DIR_ATTRIBUTE)? {
            Some(bytes) => Self::decode(&bytes).ok_or_else(|| io::Error::other("its record is damaged")),
            None => Ok(Self { made: xattr::get(path, MADE_ATTRIBUTE)?.is_some(), ..Self::default() }),
        }
    }

    pub fn write(&self, path: &Path) -> io::Result<()> {
        xattr::set(path, DIR_ATTRIBUTE, &self.encode())
    }

    /// Removes the record of a directory whose home is another node now.
    pub fn remove(path: &Path) -> io::Result<()> {
        for name in [DIR_ATTRIBUTE, MADE_ATTRIBUTE] {
            match xattr::remove(path, name) {
                Err(e) if e.raw_os_error() != Some(libc::ENODATA) => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Applies attributes that a user sets.
    pub fn change(&mut self, change: Change) {
        self.mode = change.mode.map(|mode| (mode & 0o7777) as u16).or(self.mode);
        self.mtime = change.mtime.or(self.mtime);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = DirRecord> {
        let holders = proptest::collection::btree_set(0_usize..2000, 0..20);
        (any::<bool>(), any::<Option<u16>>(), any::<Option<i64>>(), holders)
            .prop_map(|(made, mode, mtime, holders)| DirRecord { made, mode, mtime, holders })
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_written(record in record()) {
            prop_assert_eq!(DirRecord::decode(&record.encode()), Some(record));
        }

        #[test]
        fn any_bytes_are_a_record_that_reads_as_written_or_damaged(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(record) = DirRecord::decode(&bytes) {
                prop_assert_eq!(DirRecord::decode(&record.encode()), Some(record));
            }
        }
    }

    #[test]
    fn a_thousand_nodes_fit_an_attribute() {
        let all = DirRecord { holders: (0..1000).collect(), ..DirRecord::default() };
        assert_eq!(all.encode().len(), 127);
    }
}
