//! Uploads in parts: keys that come as parts, each put on its own, in any order, and are joined by the key's node.

use super::core::{Client, blocking, retry_if_broken};
use super::upload::PutOptions;
use crate::blocks::leaf_sum;
use crate::body::{self, Activity};
use crate::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, Prefix};
use crate::placement::NodeId;
use crate::protocol::{Change, CompletedPart, Metadata, UploadId, UploadPart, UploadedParts, Uploads, escape};
use crate::wire::frame::MAX_DATA;
use crate::wire::{Connection, Incoming, Request, Response};
use hyper::Method;
use serde::Deserialize;
use std::io::Read;
use tokio::task::JoinSet;

#[derive(Deserialize)]
struct Created {
    id: UploadId,
}

impl Client {
    /// Begins an upload of `key`, which will have `metadata`. One that nobody completes, aborts or continues is removed
    /// by its node after a week.
    pub async fn create_upload(&self, key: &Key, metadata: &Metadata) -> Result<UploadId> {
        let node = self.cluster().node_of(key);
        if self.is_silent(node).await {
            return Err(self.deadline_error(node));
        }
        let mut request = self.request(node, Method::POST, &upload_path(key), body::empty())?;
        metadata.add_to(request.headers_mut());
        let response = self.exchange(node, request, &Activity::default()).await?;
        self.json::<Created>(node, response).await.map(|created| created.id)
    }

    /// Puts all of `input` as a part of an upload of `key`, in place of an earlier part of this number; `input_name`
    /// names it in errors. Errors: not found, if there is no such upload.
    pub async fn put_part(
        &self,
        key: &Key,
        part: UploadPart,
        input: impl Read + Send + 'static,
        input_name: &str,
    ) -> Result<Checksum> {
        let options = PutOptions { part: Some(part), ..PutOptions::default() };
        self.put_with(key, input, input_name, options).await
    }

    /// The first parts of an upload whose numbers are above `after`. Errors: not found, if there is no such upload.
    pub async fn list_parts(&self, key: &Key, id: &UploadId, after: u32) -> Result<UploadedParts> {
        let (node, path) = (self.cluster().node_of(key), format!("{}?id={id}&after={after}", upload_path(key)));
        let response = self.send(node, Method::GET, &path, body::empty(), &Activity::default()).await?;
        self.json(node, response).await
    }

    /// The first uploads of keys that begin with `prefix`, in the order of their keys and ids, after the given key and
    /// id; `None`: from the beginning. Errors: a node does not answer, since uploads would be missing.
    pub async fn list_uploads(&self, prefix: &Prefix, after: Option<(&str, &str)>) -> Result<Uploads> {
        let (key, id) = after.unwrap_or_default();
        let (prefix, key, id) = (escape(prefix.as_str()), escape(key), escape(id));
        let path = format!("/v1/uploads?prefix={prefix}&after={key}&after_id={id}");
        let mut asked = JoinSet::new();
        for node in self.cluster().ids() {
            let (client, path) = (self.clone(), path.clone());
            asked.spawn(async move { client.list_uploads_of(node, &path).await });
        }
        let (mut pages, mut more) = (Vec::new(), false);
        while let Some(page) = asked.join_next().await {
            let page = page.map_err(|e| Error::new(ErrorKind::Io, e.to_string()))??;
            more |= page.more;
            pages.push(page);
        }
        // After the last upload of a page that goes on, its node may have others, which come before those of other nodes.
        let last = pages.iter().filter(|page| page.more).filter_map(|page| page.uploads.last());
        let last = last.min_by(|one, other| one.order().cmp(&other.order())).cloned();
        let mut uploads: Vec<_> = pages.into_iter().flat_map(|page| page.uploads).collect();
        uploads.retain(|upload| last.as_ref().is_none_or(|last| upload.order() <= last.order()));
        uploads.sort_unstable_by(|one, other| one.order().cmp(&other.order()));
        Ok(Uploads { uploads, more })
    }

    async fn list_uploads_of(&self, node: NodeId, path: &str) -> Result<Uploads> {
        let response = self.send(node, Method::GET, path, body::empty(), &Activity::default()).await?;
        let page: Uploads = self.json(node, response).await?;
        match page.more && page.uploads.is_empty() {
            true => Err(self.malformed(node, "it has more uploads after none")),
            false => Ok(page),
        }
    }

    /// Makes `key` of the given parts of an upload, which is gone then. It may be asked again after an error.
    ///
    /// Errors: not found, if there is no such upload; bad request, if a part is missing or has another checksum; already
    /// exists, if there is a key with other bytes.
    pub async fn complete_upload(
        &self,
        key: &Key,
        id: &UploadId,
        parts: &[CompletedPart],
        change: Change,
    ) -> Result<Checksum> {
        let node = self.cluster().node_of(key);
        let request = Request::Complete { key: key.clone(), upload: id.clone(), change };
        let list = serde_json::to_vec(parts).map_err(|e| Error::new(ErrorKind::BadRequest, e.to_string()))?;
        retry_if_broken(|| async {
            let connection = self.start_data_request(node, &request).await?;
            let list = list.clone();
            let completed = blocking(move || complete(connection, &list)).await;
            let (checksum, connection) = self.noting(node, completed)?;
            self.keep(node, connection);
            Ok(checksum)
        })
        .await
    }

    /// Removes an upload and its parts. Errors: not found, if there is no such upload.
    pub async fn abort_upload(&self, key: &Key, id: &UploadId) -> Result<()> {
        let (node, path) = (self.cluster().node_of(key), format!("{}?id={id}", upload_path(key)));
        self.send(node, Method::DELETE, &path, body::empty(), &Activity::default()).await.map(drop)
    }
}

fn complete(mut connection: Connection, list: &[u8]) -> Result<(Checksum, Connection)> {
    for part in list.chunks(MAX_DATA) {
        connection.put_data(part, leaf_sum(part))?;
    }
    connection.put_message(&Request::End)?;
    connection.flush()?;
    match connection.receive_next()? {
        Incoming::Message(Response::Completed(checksum)) => Ok((checksum, connection)),
        Incoming::Error(error) => Err(error.of_peer(connection.subject())),
        _ => Err(connection.malformed("it did not say whether the upload is completed")),
    }
}

fn upload_path(key: &Key) -> String {
    format!("/v1/uploads/{}", escape(key.as_str()))
}
