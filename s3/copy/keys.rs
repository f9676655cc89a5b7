//! Keys of the cluster, as a copy reads and makes them.

use crate::client::ObjectInfo;
use bytes::Bytes;
use s4::checksum::Checksum;
use s4::client::{Client, PutOptions};
use s4::error::{Error, Result};
use s4::key::Key;
use s4::protocol::{KeyHead, Metadata, SourceObject};
use std::collections::BTreeMap;
use std::io::Read;
use tokio::sync::mpsc;

/// The bytes of a key that come in blocks from an asynchronous task. The key is published only if the task says that
/// they were good to the end.
pub struct Blocks {
    receiver: mpsc::Receiver<Block>,
    current: Bytes,
    ended: bool,
}

/// What the task sends.
pub enum Block {
    Bytes(Bytes),
    /// All bytes were sent, and they are right.
    End,
}

impl Blocks {
    pub fn new(receiver: mpsc::Receiver<Block>) -> Self {
        Self { receiver, current: Bytes::new(), ended: false }
    }
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Block::Bytes(bytes)) => self.current = bytes,
                Some(Block::End) => self.ended = true,
                None => return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the source broke off")),
            }
        }
        let n = self.current.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

/// A key that is there.
pub struct Found {
    pub checksum: Checksum,
    /// ETag and length of the object that it was copied from.
    pub source: Option<(String, u64)>,
    pub content_type: Option<String>,
    pub user: BTreeMap<String, String>,
}

/// The key, if it is there.
pub async fn find(client: &Client, key: &Key) -> Result<Option<Found>> {
    let found = client.head(key).await?;
    Ok(found.map(|KeyHead { stat, metadata }| Found {
        checksum: stat.checksum,
        source: metadata.source().map(|source| (source.etag.clone(), source.len)),
        content_type: metadata.content_type().map(str::to_owned),
        user: metadata.user().clone(),
    }))
}

/// Makes a key of what an object is said to be, and its bytes.
pub async fn make(
    client: &Client,
    key: &Key,
    info: &ObjectInfo,
    bytes: impl Read + Send + 'static,
    name: &str,
) -> Result<()> {
    let source = SourceObject { etag: info.etag.clone(), len: info.len };
    let metadata = Metadata::new(info.content_type.clone(), info.user.clone(), Some(source));
    let metadata = metadata.map_err(|e| Error::new(e.kind(), format!("{key}: {e}")))?;
    let options = PutOptions { metadata, ..PutOptions::default() };
    client.put_beside(key, bytes, name, options).await.map(drop)
}
