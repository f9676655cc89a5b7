//! The provenance of keys: requests to the nodes that have its records.

use super::core::Client;
use crate::attribute::Mark;
use crate::body::{self, Activity};
use crate::error::{ErrorKind, Result};
use crate::key::Key;
use crate::placement::{NodeId, node_of_basename};
use crate::protocol::{MAX_INPUTS, Provenance, TaskRecord, escape};
use hyper::Method;
use serde::de::DeserializeOwned;

/// The longest response, in bytes: a job with its command, and one page of inputs.
const MAX_RESPONSE: u64 = 4 << 20;
/// The longest request body that a node accepts, in bytes.
const MAX_REQUEST: usize = 1 << 20;
/// Inputs of a task that [`Client::give_provenance`] can send at most: each takes more than 64 bytes of a request.
pub const MAX_GIVEN: usize = MAX_REQUEST / 64;

impl Client {
    /// The provenance of `key`, with at most `most` of its inputs; with 0, only whether a map made it. Error: no such
    /// key.
    pub async fn provenance(&self, key: &Key, most: usize) -> Result<Provenance> {
        let path = format!("/v1/provenance/{}?inputs={}", escape(key.as_str()), most.min(MAX_INPUTS));
        let mut found: Provenance = self.get_json(self.cluster().node_of(key), &path).await?;
        if let (Some(mark), None, 1..) = (found.mark, &found.task, most) {
            found.task = self.find_page(key, mark, (0, most)).await?;
        }
        if let (Some(mark), Some(task)) = (found.mark, &mut found.task) {
            while task.inputs.len() < most && (task.inputs.len() as u64) < task.count {
                let from = task.inputs.len();
                let more = self.find_page(key, mark, (from as u64, most - from)).await?;
                match more {
                    Some(more) if !more.inputs.is_empty() => task.inputs.extend(more.inputs),
                    // The record was removed meanwhile.
                    _ => break,
                }
            }
        }
        Ok(found)
    }

    /// Sends the provenance that `key` has on another cluster to its node here. A task that is too long for a request,
    /// or that does not have all its inputs, is left out, and only its mark is sent. Errors: the key has other bytes,
    /// or a map has made it here.
    pub async fn give_provenance(&self, key: &Key, made: &Provenance) -> Result<()> {
        let is_whole = made.task.as_ref().is_none_or(TaskRecord::is_whole);
        let whole = is_whole.then(|| made.json()).filter(|json| json.len() <= MAX_REQUEST);
        let json = whole.unwrap_or_else(|| Provenance { task: None, ..made.clone() }.json());
        let path = format!("/v1/provenance/{}", escape(key.as_str()));
        let node = self.cluster().node_of(key);
        self.send(node, Method::POST, &path, body::full(json.into_bytes()), &Activity::default()).await.map(drop)
    }

    /// The record of the task that made `key`, from the node that ran it. `page` is the first input and the number of
    /// inputs.
    async fn find_page(&self, key: &Key, mark: Mark, page: (u64, usize)) -> Result<Option<TaskRecord>> {
        // A task runs on the node of its input. For a 1:n map this is the home of the output's directory, so that node
        // is asked first. For a renamed key, the first guess may be wrong.
        let likely = key.parent().rsplit('/').next().map(|input| node_of_basename(input, self.cluster().len()));
        let others = self.cluster().ids().filter(|&node| Some(node) != likely);
        let mut silent = None;
        for node in likely.into_iter().chain(others) {
            match self.task_record(node, mark, page).await {
                Ok(task) => return Ok(Some(task)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => silent = Some(error),
            }
        }
        // A node that is down may have the record.
        silent.map_or(Ok(None), Err)
    }

    async fn task_record(&self, node: NodeId, mark: Mark, (from, most): (u64, usize)) -> Result<TaskRecord> {
        let Mark { job, inputs, .. } = mark;
        let most = most.min(MAX_INPUTS);
        self.get_json(node, &format!("/v1/provenance?job={job:016x}&digest={inputs:016x}&from={from}&inputs={most}"))
            .await
    }

    async fn get_json<T: DeserializeOwned>(&self, node: NodeId, path: &str) -> Result<T> {
        let response = self.send(node, Method::GET, path, body::empty(), &Activity::default()).await?;
        let bytes = self.whole_body(node, response, MAX_RESPONSE).await?;
        serde_json::from_slice(&bytes).map_err(|e| self.malformed(node, &e.to_string()))
    }
}
