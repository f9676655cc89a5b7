//! What a mount asks of a cluster besides whole keys: attributes, directories, renames, parts of keys.

use super::keys::stored_checksum;
use super::{Client, again_if_broken, blocking};
use crate::body::{self, Activity};
use crate::checksum::{self, Checksum};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::placement::NodeId;
use crate::protocol::{self, Adoption, CHECKSUM_HEADER, Change, MAX_RANGE, SUMS_HEADER, Usage, escape};
use crate::summed::{self, Summed};
use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderValue;
use serde::Serialize;
use std::fs::File;
use std::time::Instant;

impl Client {
    /// What `node` holds, counted now.
    pub async fn usage(&self, node: NodeId) -> Result<Usage> {
        let response = self.send(node, Method::GET, "/v1/usage", body::empty(), &Activity::default()).await?;
        self.json(node, response).await
    }

    /// `len` bytes of `key` from `offset`, fewer at its end: whole [leaves](crate::blocks), verified. The key must still have, or have
    /// been opened with, `checksum`.
    pub async fn get_range(&self, key: &Key, checksum: Checksum, offset: u64, len: usize) -> Result<Bytes> {
        self.range(key, checksum, (offset, len), "").await
    }

    /// The first `len` bytes of `key`, whole leaves, if the name still is the key with `checksum`. The node holds it open from now on.
    pub async fn open_range(&self, key: &Key, checksum: Checksum, len: usize) -> Result<Bytes> {
        self.range(key, checksum, (0, len), "&open=true").await
    }

    async fn range(&self, key: &Key, checksum: Checksum, part: (u64, usize), more: &str) -> Result<Bytes> {
        again_if_broken(|| self.range_once(key, checksum, part, more)).await
    }

    async fn range_once(
        &self,
        key: &Key,
        checksum: Checksum,
        (offset, len): (u64, usize),
        more: &str,
    ) -> Result<Bytes> {
        let node = self.cluster().node_of(key);
        let (name, sum) = (escape(key.as_str()), escape(&checksum.to_string()));
        let path = format!("/v1/range/{name}?checksum={sum}&offset={offset}&len={len}{more}");
        let response = self.send(node, Method::GET, &path, body::empty(), &Activity::default()).await?;
        let who = format!("{}: {key}", self.cluster().name(node));
        let sums = response.headers().get(SUMS_HEADER).and_then(|value| parse_sums(value.as_bytes()));
        let sums = sums.ok_or_else(|| Error::new(ErrorKind::Checksum, format!("{who}: the node sent no sums")))?;
        let expected = checksum.len.saturating_sub(offset).min(len as u64);
        let mut chunks = self.chunks(node, response);
        let mut bytes = Vec::with_capacity(expected.min(MAX_RANGE as u64) as usize);
        while bytes.len() as u64 <= expected
            && let Some(piece) = self.noting(node, chunks.next().await)?
        {
            bytes.extend_from_slice(&piece);
        }
        if bytes.len() as u64 != expected {
            let message = format!("{who}: {expected} bytes were asked for, and others came");
            return Err(Error::new(ErrorKind::Checksum, message));
        }
        summed::verify(&bytes, &sums, offset, &who)?;
        Ok(bytes.into())
    }

    /// All of `key` from `offset` on, verified; the key must still have, or have been opened with, `checksum`. Its first bytes may be
    /// here as `ready`, up to the end of a leaf.
    pub async fn get_rest(&self, key: &Key, checksum: Checksum, offset: u64, ready: Bytes) -> Result<Summed> {
        let offset = offset + ready.len() as u64;
        let node = self.cluster().node_of(key);
        let (name, sum) = (escape(key.as_str()), escape(&checksum.to_string()));
        let path = format!("/v1/rest/{name}?checksum={sum}&offset={offset}");
        let response = self.send_for_stream(node, Method::GET, &path).await?;
        let who = format!("{}: {key}", self.cluster().name(node));
        let refused = Error::new(ErrorKind::Unreachable, format!("{who}: malformed answer"));
        let stream = self.granted(response, node, who).await?.map_err(|_| refused)?;
        Ok(Summed::new(stream, checksum.len, offset, &ready))
    }

    /// Publishes `bytes` as `key`, with these attributes, in one exchange.
    pub async fn put_small(&self, key: &Key, bytes: Bytes, change: Change) -> Result<Checksum> {
        let (client, checksum, asked) = (self.putting(), Checksum::of(&bytes), Instant::now());
        let put = client.put_bytes(key, bytes, checksum, change).await.map(|()| checksum);
        client.settled(key, change, asked, put, async { Ok(checksum) }).await
    }

    async fn put_bytes(&self, key: &Key, bytes: Bytes, checksum: Checksum, change: Change) -> Result<()> {
        let node = self.cluster().node_of(key);
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
        if let Some(stored) = self.put_soon(key, checksum, &bytes, change).await {
            return stored;
        }
        let sum = HeaderValue::from_str(&checksum.to_string()).expect("digits make a header");
        if self.is_silent(node).await {
            return Err(self.late(node));
        }
        let mut request = self.request(node, Method::PUT, &path, body::full(bytes))?;
        request.headers_mut().insert(CHECKSUM_HEADER, sum);
        self.exchange(node, request, &Activity::default()).await.map(drop)
    }

    /// Has the node of `key`, on this machine, link `file` as the key, which this process has open as `adoption` says. Returns what was
    /// recorded with it.
    pub async fn adopt(&self, key: &Key, file: &File, adoption: &Adoption) -> Result<Checksum> {
        let (client, asked) = (self.putting(), Instant::now());
        let put = client.ask_to_adopt(key, adoption).await;
        let sum = async {
            let failed = |e: std::io::Error| Error::io(key, &e);
            match adoption.checksum {
                Some(checksum) => Ok(checksum),
                None => {
                    let file = file.try_clone().map_err(failed)?;
                    blocking(move || checksum::of_file(&file)).await.map_err(failed)
                }
            }
        };
        client.settled(key, adoption.change, asked, put, sum).await
    }

    async fn ask_to_adopt(&self, key: &Key, adoption: &Adoption) -> Result<Checksum> {
        let node = self.cluster().node_of(key);
        let json = serde_json::to_vec(adoption).map_err(|e| Error::new(ErrorKind::BadRequest, e.to_string()))?;
        let path = format!("/v1/adopt/{}", escape(key.as_str()));
        let response = self.send(node, Method::POST, &path, body::full(json), &Activity::default()).await?;
        stored_checksum(&response, &format!("{}: {key}", self.cluster().name(node)))
    }

    pub async fn change(&self, key: &Key, change: Change) -> Result<()> {
        let node = self.cluster().node_of(key);
        self.post(node, Method::POST, &format!("/v1/change/{}", escape(key.as_str())), Some(&change)).await
    }

    /// Gives a key another name on the same node.
    pub async fn rename(&self, from: &Key, to: &Key) -> Result<()> {
        let path = format!("/v1/rename/{}?to={}", escape(from.as_str()), escape(to.as_str()));
        self.post(self.cluster().node_of(from), Method::POST, &path, None::<&()>).await
    }

    /// Deletes a key, and leaves the directory that held it.
    pub async fn unlink(&self, key: &Key) -> Result<()> {
        let path = format!("/v1/keys/{}?keep_dirs=true", escape(key.as_str()));
        self.post(self.cluster().node_of(key), Method::DELETE, &path, None::<&()>).await
    }

    /// The same, if its bytes still are those of `only`. Errors: not found, if they are others.
    pub async fn unlink_only(&self, key: &Key, only: Checksum) -> Result<()> {
        let (name, only) = (escape(key.as_str()), escape(&only.to_string()));
        let path = format!("/v1/keys/{name}?keep_dirs=true&checksum={only}");
        self.post(self.cluster().node_of(key), Method::DELETE, &path, None::<&()>).await
    }

    pub(super) async fn post(
        &self,
        node: NodeId,
        method: Method,
        path: &str,
        json: Option<&impl Serialize>,
    ) -> Result<()> {
        let body = match json.map(serde_json::to_vec).transpose() {
            Ok(json) => body::full(json.unwrap_or_default()),
            Err(e) => return Err(Error::new(ErrorKind::BadRequest, e.to_string())),
        };
        self.send(node, method, path, body, &Activity::default()).await.map(drop)
    }
}

/// The sums in a header.
fn parse_sums(text: &[u8]) -> Option<Vec<u32>> {
    let sums = text.chunks(8).map(|digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
    sums.collect()
}
