//! Keys over plain HTTP: small puts, deletes.

use super::core::Client;
use crate::body::{self, Activity};
use crate::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, Prefix};
use crate::placement::NodeId;
use crate::protocol::{self, CHECKSUM_HEADER, Change, Event, escape};
use crate::skew::Load;
use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderValue;
use std::time::Instant;

impl Client {
    /// Publishes `bytes` as `key`, with these attributes, in one exchange.
    pub async fn put_small(&self, key: &Key, bytes: Bytes, change: Change) -> Result<Checksum> {
        let (client, checksum, asked) = (self.putting(), Checksum::of(&bytes), Instant::now());
        let put = client.put_bytes(key, bytes, checksum, change).await.map(|()| checksum);
        client.put_outcome(key, change, asked, put, async { Ok(checksum) }).await
    }

    async fn put_bytes(&self, key: &Key, bytes: Bytes, checksum: Checksum, change: Change) -> Result<()> {
        let node = self.cluster().node_of(key);
        if let Some(stored) = self.put_inline(key, checksum, &bytes, change).await {
            return stored;
        }
        let mut path = protocol::key_path(key);
        let fields = [
            change.mode.map(|mode| format!("mode={mode:o}")),
            change.mtime.map(|time| format!("mtime={time}")),
            change.over_empty.then(|| "over_empty=true".to_owned()),
        ];
        for (field, sign) in fields.into_iter().flatten().zip(["?", "&", "&"]) {
            path += sign;
            path += &field;
        }
        let sum = HeaderValue::from_str(&checksum.to_string()).expect("digits make a header");
        if self.is_silent(node).await {
            return Err(self.deadline_error(node));
        }
        let mut request = self.request(node, Method::PUT, &path, body::full(bytes))?;
        request.headers_mut().insert(CHECKSUM_HEADER, sum);
        self.exchange(node, request, &Activity::default()).await.map(drop)
    }

    pub async fn delete(&self, key: &Key) -> Result<()> {
        let node = self.cluster().node_of(key);
        self.send(node, Method::DELETE, &protocol::key_path(key), body::empty(), &Activity::default()).await.map(drop)
    }

    /// Deletes all of `node`'s keys that begin with `prefix`; returns how many, their bytes and their buckets.
    pub async fn delete_prefix(&self, node: NodeId, prefix: &Prefix) -> Result<(Load, Vec<String>)> {
        let path = format!("/v1/delete?prefix={}", escape(prefix.as_str()));
        let mut events = self.events(node, Method::POST, &path, body::empty()).await?;
        let mut deleted = None;
        while let Some(event) = events.next().await? {
            if let Event::Deleted { keys, bytes, buckets } = event {
                deleted = Some((Load { keys, bytes }, buckets));
            }
        }
        deleted.ok_or_else(|| {
            Error::new(ErrorKind::Unreachable, format!("{}: the answer was cut off", self.cluster().name(node)))
        })
    }
}
