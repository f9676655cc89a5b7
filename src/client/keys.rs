//! Keys over plain HTTP: small puts, deletes.

use super::core::Client;
use super::outcome::retry_put;
use super::upload::PutOptions;
use crate::body::{self, Activity};
use crate::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, Prefix};
use crate::placement::NodeId;
use crate::protocol::{self, CHECKSUM_HEADER, Change, Event, KeyHead, escape};
use crate::skew::Load;
use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderValue;
use std::time::Instant;

impl Client {
    /// Publishes `bytes` as `key`, with these attributes, in one exchange. If the connection breaks, [`retry_put`] repeats it.
    pub async fn put_small(&self, key: &Key, bytes: Bytes, change: Change) -> Result<Checksum> {
        self.putting().put_once(key, bytes, &PutOptions { change, ..PutOptions::default() }).await
    }

    /// Publishes `bytes` as `key`, with these options. Retries if the connection breaks.
    pub async fn put_small_with(&self, key: &Key, bytes: Bytes, options: PutOptions) -> Result<Checksum> {
        let options = &options;
        retry_put(self, |client| {
            let (client, bytes) = (client.putting(), bytes.clone());
            async move { client.put_once(key, bytes, options).await }
        })
        .await
    }

    async fn put_once(&self, key: &Key, bytes: Bytes, options: &PutOptions) -> Result<Checksum> {
        let (checksum, asked) = (Checksum::of(&bytes), Instant::now());
        let put = self.put_bytes(key, bytes, checksum, options).await.map(|()| checksum);
        match options.part {
            // It can be put again.
            Some(_) => put,
            None => self.put_outcome(key, options.change, asked, put, async { Ok(checksum) }).await,
        }
    }

    async fn put_bytes(&self, key: &Key, bytes: Bytes, checksum: Checksum, options: &PutOptions) -> Result<()> {
        let node = self.cluster().node_of(key);
        if let Some(stored) = self.put_inline(key, checksum, &bytes, options).await {
            return stored;
        }
        let change = options.change;
        let mut path = protocol::key_path(key);
        let fields = [
            change.mode.map(|mode| format!("mode={mode:o}")),
            change.mtime.map(|time| format!("mtime={time}")),
            change.over_empty.then(|| "over_empty=true".to_owned()),
            options.part.as_ref().map(|part| format!("upload={}&part={}", part.upload, part.number)),
        ];
        for (field, sign) in fields.into_iter().flatten().zip(["?", "&", "&", "&"]) {
            path += sign;
            path += &field;
        }
        let sum = HeaderValue::from_str(&checksum.to_string()).expect("digits make a header");
        if self.is_silent(node).await {
            return Err(self.deadline_error(node));
        }
        let mut request = self.request(node, Method::PUT, &path, body::full(bytes))?;
        request.headers_mut().insert(CHECKSUM_HEADER, sum);
        options.metadata.add_to(request.headers_mut());
        self.exchange(node, request, &Activity::default()).await.map(drop)
    }

    /// The attributes and metadata of `key`; `None` if there is no key of this name.
    pub async fn head(&self, key: &Key) -> Result<Option<KeyHead>> {
        let (node, path) = (self.cluster().node_of(key), format!("/v1/head/{}", escape(key.as_str())));
        match self.send(node, Method::GET, &path, body::empty(), &Activity::default()).await {
            Ok(response) => self.json(node, response).await.map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
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
