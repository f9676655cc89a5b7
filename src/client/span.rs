//! A span of a key as a stream of verified bytes, for a receiver that must not see a byte before it is verified, and
//! that may stop at any time.

use super::core::Client;
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
    /// `None` once all bytes were received.
    parts: Option<Parts>,
    left: u64,
}

impl Client {
    /// The bytes of `key` in `range`, which lies within the key. Each is verified before it is returned. The key must
    /// have `checksum`, now or when it was opened.
    pub async fn get_span(&self, key: &Key, checksum: Checksum, range: Range<u64>) -> Result<Span> {
        let (client, node, left) = (self.clone(), self.cluster().node_of(key), range.end.saturating_sub(range.start));
        if left == 0 {
            return Ok(Span { client, node, parts: None, left });
        }
        let part = Part { checksum, offset: range.start, len: Some(left), open: false };
        let end = range.end.next_multiple_of(LEAF).min(checksum.len);
        let receive = move |connection, subject| Ok(Parts::new(connection, subject, range.start, end, &[]));
        let parts = self.get_part(key, part, receive).await?;
        Ok(Span { client, node, parts: Some(parts), left })
    }
}

impl Span {
    /// The next bytes, at most `most` of them; `None` at the end. Blocks.
    pub fn next_block(&mut self, most: usize) -> Result<Option<Bytes>> {
        let Some(parts) = &mut self.parts else { return Ok(None) };
        let block = parts.next_block(self.left.min(most as u64) as usize)?;
        self.left -= block.len() as u64;
        if self.left == 0
            && let Some(parts) = self.parts.take()
            // The bytes are verified. A node that sends more only loses its connection.
            && let Ok(connection) = parts.finish()
        {
            self.client.keep(self.node, connection);
        }
        Ok(Some(block))
    }
}
