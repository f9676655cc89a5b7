//! A span of a key, read from the file of a node on this machine: no byte goes through a socket.

use super::core::{Client, blocking};
use crate::blocks::{LEAF, Table, leaf_sum};
use crate::checksum::Checksum;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::stored::{recorded, table};
use crate::wire::parts::changed;
use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Spans of fewer bytes are not worth the question where their node is.
const SMALLEST: u64 = 1 << 20;
/// Limit of bytes that one checksum covers, since each reader has them in memory until it was compared: keys of up to
/// 1.7 GiB. The node sends longer ones in smaller pieces.
const MAX_BLOCK: u64 = 2 << 20;

/// The file of a key, and the bytes of it that were verified and not asked for yet.
pub(super) struct KeyFile {
    file: File,
    checksum: Checksum,
    table: Table,
    /// The offset of the next byte behind `ready`.
    next: u64,
    ready: Bytes,
    /// Names node and key.
    subject: String,
}

impl Client {
    /// The file of `key` from `offset` on; `None` if its node is elsewhere, or the span of `len` bytes is not to be read
    /// from the file.
    pub(super) async fn key_file(&self, key: &Key, checksum: Checksum, offset: u64, len: u64) -> Option<KeyFile> {
        let node = self.cluster().node_of(key);
        if len < SMALLEST {
            return None;
        }
        // If it does not answer, the request for its bytes gets the error, or another attempt.
        // A disk that hangs would hold this program without a deadline.
        let health = self.health(node).await.ok().filter(|health| health.trouble.is_none())?;
        let path = self.local_dir(node, &health)?.join(key.as_str());
        let subject = format!("{}: {key}", self.cluster().name(node));
        blocking(move || KeyFile::open(&path, checksum, offset, subject)).await
    }
}

impl KeyFile {
    /// `None` if the file cannot be read by this user, is not the key with `checksum`, or has no table.
    fn open(path: &Path, checksum: Checksum, offset: u64, subject: String) -> Option<Self> {
        // What is there is not known yet: a FIFO must not block.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
        let is_key = file.metadata().ok()?.is_file() && recorded(&file).ok()? == Some(checksum);
        let table = if is_key { table(&file, checksum).ok()?? } else { return None };
        let is_small = table.block_of(0).1 as u64 * LEAF <= MAX_BLOCK;
        is_small.then(|| Self { file, checksum, table, next: offset, ready: Bytes::new(), subject })
    }

    /// The next bytes, at most `most` of them. Errors: the file cannot be read, or is not what was stored.
    pub fn next_block(&mut self, most: usize) -> Result<Bytes> {
        if self.ready.is_empty() {
            self.ready = self.verified_block()?;
        }
        Ok(self.ready.split_to(most.min(self.ready.len())))
    }

    /// The rest of the block that has the next byte.
    fn verified_block(&mut self) -> Result<Bytes> {
        let (first, leaves) = self.table.block_of((self.next / LEAF) as usize);
        let begin = first as u64 * LEAF;
        let len = (leaves as u64 * LEAF).min(self.checksum.len.saturating_sub(begin));
        let mut block = Vec::with_capacity(len as usize);
        let read = self.file.seek(SeekFrom::Start(begin)).and_then(|_| (&self.file).take(len).read_to_end(&mut block));
        read.map_err(|e| Error::io(&self.subject, &e))?;
        let sums: Vec<u32> = block.chunks(LEAF as usize).map(leaf_sum).collect();
        if block.len() as u64 != len || self.next >= self.checksum.len || !self.table.has_block(first, &sums) {
            return Err(changed(&self.subject, begin));
        }
        let rest = Bytes::from(block).split_off((self.next - begin) as usize);
        self.next += rest.len() as u64;
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::hasher::sums_of_file;
    use crate::stored::{set_record, set_table};
    use proptest::prelude::*;
    use std::os::unix::fs::FileExt;

    /// A key of `len` bytes. `None`: the file system has no attributes.
    fn key_of(len: usize) -> Option<(tempfile::NamedTempFile, Vec<u8>, Checksum)> {
        let bytes: Vec<u8> = (0..len).map(|at| (at / 7 + at / 4096) as u8).collect();
        let key = tempfile::NamedTempFile::new().expect("a file");
        key.as_file().write_all_at(&bytes, 0).expect("bytes");
        let sums = sums_of_file(key.as_file()).expect("sums");
        set_record(key.as_file(), &sums.checksum.into()).ok()?;
        set_table(key.as_file(), &sums.table?, sums.checksum).ok()?;
        Some((key, bytes, sums.checksum))
    }

    fn opened(path: &Path, checksum: Checksum, offset: u64) -> Option<KeyFile> {
        KeyFile::open(path, checksum, offset, "node 0: s4://b/k".to_owned())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_span_has_the_keys_bytes(len in LEAF as usize + 1..5 << 20, from in 0.0..1.0, most in 1usize..3 << 20) {
            let Some((key, bytes, checksum)) = key_of(len) else { return Ok(()) };
            let offset = (len as f64 * from) as usize;
            let mut file = opened(key.path(), checksum, offset as u64).expect("a key");
            let mut read = Vec::new();
            while read.len() < len - offset {
                let block = file.next_block(most).expect("bytes");
                prop_assert!(!block.is_empty() && block.len() <= most);
                read.extend_from_slice(&block);
            }
            prop_assert!(read == bytes[offset..], "other bytes");
            prop_assert!(file.next_block(1).is_err(), "there is nothing behind the end");
        }

        #[test]
        fn no_byte_of_a_damaged_leaf_is_read(at in 0usize..3 << 20, is_cut: bool) {
            let Some((key, bytes, checksum)) = key_of(3 << 20) else { return Ok(()) };
            match is_cut {
                true => key.as_file().set_len(at as u64).expect("cut"),
                false => key.as_file().write_all_at(&[!bytes[at]], at as u64).expect("a byte"),
            }
            let mut file = opened(key.path(), checksum, 0).expect("a key");
            let mut read = Vec::new();
            let error = loop {
                match file.next_block(1 << 16) {
                    Ok(block) => read.extend_from_slice(&block),
                    Err(error) => break error,
                }
            };
            prop_assert_eq!(error.kind(), ErrorKind::Checksum);
            prop_assert!(read.len() == at / LEAF as usize * LEAF as usize && bytes.starts_with(&read));
        }
    }

    #[test]
    fn what_is_not_the_key_is_not_read() {
        let Some((key, _, checksum)) = key_of(2 << 20) else { return };
        assert!(opened(key.path(), checksum, 0).is_some());
        assert!(opened(key.path(), Checksum { xxh3: checksum.xxh3 ^ 1, ..checksum }, 0).is_none(), "another version");
        let dir = tempfile::tempdir().expect("a directory");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(key.path(), &link).expect("a link");
        assert!(opened(&link, checksum, 0).is_none());
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        assert!(opened(&dir.path().join("fifo"), checksum, 0).is_none(), "and it does not block");
        assert!(opened(dir.path(), checksum, 0).is_none());
    }
}
