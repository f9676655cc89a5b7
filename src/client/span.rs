//! A span of a key as a stream of verified bytes, for a receiver that must not see a byte before it is verified, and
//! that may stop at any time.

use super::core::Client;
use super::span_file::KeyFile;
use crate::blocks::LEAF;
use crate::checksum::Checksum;
use crate::error::Result;
use crate::key::Key;
use crate::placement::NodeId;
use crate::wire::Part;
use crate::wire::parts::Parts;
use bytes::Bytes;
use std::ops::Range;

/// The bytes of a span that are still to come. A drop before the end closes the connection.
pub struct Span {
    client: Client,
    node: NodeId,
    source: Source,
    left: u64,
}

/// Where the bytes come from.
enum Source {
    Node(Parts),
    File(KeyFile),
    /// All bytes were received.
    Ended,
}

impl Client {
    /// The bytes of `key` in `range`, which lies within the key. Each is verified before it is returned. The key must
    /// have `checksum`, now or when it was opened.
    pub async fn get_span(&self, key: &Key, checksum: Checksum, range: Range<u64>) -> Result<Span> {
        let (client, node, left) = (self.clone(), self.cluster().node_of(key), range.end.saturating_sub(range.start));
        let source = match left {
            0 => Source::Ended,
            _ => match self.key_file(key, checksum, range.start, left).await {
                Some(file) => Source::File(file),
                None => Source::Node(self.span_of_node(key, checksum, range).await?),
            },
        };
        Ok(Span { client, node, source, left })
    }

    async fn span_of_node(&self, key: &Key, checksum: Checksum, range: Range<u64>) -> Result<Parts> {
        let part = Part { checksum, offset: range.start, len: Some(range.end - range.start), open: false };
        let end = range.end.next_multiple_of(LEAF).min(checksum.len);
        let receive = move |connection, subject| Ok(Parts::new(connection, subject, range.start, end, &[]));
        self.get_part(key, part, receive).await
    }
}

impl Span {
    /// The next bytes, at most `most` of them; `None` at the end. Blocks.
    pub fn next_block(&mut self, most: usize) -> Result<Option<Bytes>> {
        let most = self.left.min(most as u64) as usize;
        let block = match &mut self.source {
            Source::Node(parts) => parts.next_block(most)?,
            Source::File(file) => file.next_block(most)?,
            Source::Ended => return Ok(None),
        };
        self.left -= block.len() as u64;
        if self.left == 0
            && let Source::Node(parts) = std::mem::replace(&mut self.source, Source::Ended)
            // The bytes are verified. A node that sends more only loses its connection.
            && let Ok(connection) = parts.finish()
        {
            self.client.keep(self.node, connection);
        }
        Ok(Some(block))
    }
}
