//! Requests of a mount besides reads and writes of keys: usage, attributes, renames, unlinks, and handing over a file.

use super::core::{Client, blocking, retry_if_broken};
use super::fetch::stored_checksum;
use crate::body::{self, Activity};
use crate::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::hasher;
use crate::key::Key;
use crate::placement::NodeId;
use crate::protocol::{Change, Handoff, Usage, escape};
use bytes::Bytes;
use hyper::Method;
use serde::Serialize;
use std::fs::File;
use std::time::Instant;

impl Client {
    /// The number and bytes of the keys on `node`, counted now.
    pub async fn usage(&self, node: NodeId) -> Result<Usage> {
        let response = self.send(node, Method::GET, "/v1/usage", body::empty(), &Activity::default()).await?;
        self.json(node, response).await
    }

    /// Makes the node of `key`, on this machine, link `file` as the key. This process has the file open, and `handoff`
    /// describes it. Returns the recorded checksum.
    pub async fn adopt(&self, key: &Key, file: &File, handoff: &Handoff) -> Result<Checksum> {
        let (client, asked) = (self.putting(), Instant::now());
        let put = client.ask_to_adopt(key, handoff).await;
        let sum = async {
            let failed = |e: std::io::Error| Error::io(key, &e);
            match handoff.checksum {
                Some(checksum) => Ok(checksum),
                None => {
                    let file = file.try_clone().map_err(failed)?;
                    blocking(move || hasher::of_file(&file)).await.map_err(failed)
                }
            }
        };
        client.put_outcome(key, handoff.change, asked, put, sum).await
    }

    async fn ask_to_adopt(&self, key: &Key, handoff: &Handoff) -> Result<Checksum> {
        let node = self.cluster().node_of(key);
        let json = serde_json::to_vec(handoff).map_err(|e| Error::new(ErrorKind::BadRequest, e.to_string()))?;
        let path = format!("/v1/adopt/{}", escape(key.as_str()));
        let response = self.send(node, Method::POST, &path, body::full(json), &Activity::default()).await?;
        stored_checksum(&response, &format!("{}: {key}", self.cluster().name(node)))
    }

    pub async fn change(&self, key: &Key, change: Change) -> Result<()> {
        let node = self.cluster().node_of(key);
        self.post_again(node, &format!("/v1/change/{}", escape(key.as_str())), Some(&change)).await
    }

    /// Gives a key another name on the same node.
    pub async fn rename(&self, from: &Key, to: &Key) -> Result<()> {
        let path = format!("/v1/rename/{}?to={}", escape(from.as_str()), escape(to.as_str()));
        self.post(self.cluster().node_of(from), Method::POST, &path, None::<&()>).await
    }

    /// Deletes a key, and keeps its directory even if it is empty now.
    pub async fn unlink(&self, key: &Key) -> Result<()> {
        let path = format!("/v1/keys/{}?keep_dirs=true", escape(key.as_str()));
        self.post(self.cluster().node_of(key), Method::DELETE, &path, None::<&()>).await
    }

    /// Like [`Client::unlink`], but only if the key has the checksum `only`. Errors: not found, if it has another.
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
        self.send(node, method, path, body::full(json_body(json)?), &Activity::default()).await.map(drop)
    }

    /// The same for a request that may be executed twice: it is sent again if the connection breaks.
    pub(super) async fn post_again(&self, node: NodeId, path: &str, json: Option<&impl Serialize>) -> Result<()> {
        let json = Bytes::from(json_body(json)?);
        let activity = Activity::default();
        retry_if_broken(|| self.send(node, Method::POST, path, body::full(json.clone()), &activity)).await.map(drop)
    }
}

pub(super) fn json_body(json: Option<&impl Serialize>) -> Result<Vec<u8>> {
    let json = json.map(serde_json::to_vec).transpose();
    json.map(Option::unwrap_or_default).map_err(|e| Error::new(ErrorKind::BadRequest, e.to_string()))
}
