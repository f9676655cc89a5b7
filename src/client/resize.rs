//! Requests of a resize to single nodes.

use super::core::Client;
use super::lines::Lines;
use crate::body::{self, Activity, BoxBody};
use crate::error::{Error, ErrorKind, Result};
use crate::placement::NodeId;
use crate::protocol::{Moved, MovedDir, ResizeLine, ResizePlan, ResizeState};
use crate::resize::Lists;
use hyper::Method;
use serde::Serialize;
use std::time::Duration;

/// How long a node may take to write to its disk what it has received.
const SYNC: Duration = Duration::from_secs(300);

/// The lines of an answer as they arrive.
pub struct ResizeStream {
    lines: Lines,
    /// How messages name the node.
    name: String,
}

impl ResizeStream {
    /// Errors: also an answer that ends before its last line.
    pub async fn next(&mut self) -> Result<ResizeLine> {
        let cut_off = || Error::new(ErrorKind::Unreachable, format!("{}: the answer was cut off", self.name));
        let line = self.lines.next().await?.ok_or_else(cut_off)?;
        ResizeLine::parse(&line).map_err(|error| error.of_peer(&self.name))
    }
}

impl Client {
    pub async fn resize_state(&self, node: NodeId) -> Result<ResizeState> {
        let response = self.send(node, Method::GET, "/v1/resize", body::empty(), &Activity::default()).await?;
        self.json(node, response).await
    }

    /// What a resize would move from `node`. `gives_conf`: the daemon's cluster file will be replaced by others. Errors: the node
    /// cannot be resized now.
    pub async fn check_resize(&self, node: NodeId, lists: &Lists, gives_conf: bool) -> Result<ResizePlan> {
        let path = format!("/v1/resize?check=true&skip_conf={gives_conf}");
        let mut lines = self.resize_lines(node, &path, json(lists)?).await?;
        loop {
            match lines.next().await? {
                ResizeLine::Plan(plan) => return Ok(plan),
                ResizeLine::End(_) => return Err(self.malformed(node, "no plan came")),
                ResizeLine::Progress(_) | ResizeLine::Error(_) => {}
            }
        }
    }

    /// Makes `node` refuse all other requests and prepare the resize. It restarts.
    pub async fn begin_resize(&self, node: NodeId, lists: &Lists) -> Result<()> {
        self.resize_request(node, "/v1/resize", json(lists)?).await
    }

    /// Makes `node` move its keys and directories. Calls `progress` at least once a second.
    pub async fn move_keys(&self, node: NodeId, mut progress: impl FnMut(Moved)) -> Result<Moved> {
        let mut lines = self.resize_lines(node, "/v1/resize/move", body::empty()).await?;
        loop {
            match lines.next().await? {
                ResizeLine::Progress(moved) => progress(moved),
                ResizeLine::End(moved) => return Ok(moved),
                ResizeLine::Plan(_) | ResizeLine::Error(_) => {
                    return Err(self.malformed(node, "another line than asked for"));
                }
            }
        }
    }

    /// Tells `home` of directories that it is the home of from now on.
    pub async fn move_dirs(&self, home: NodeId, dirs: &[MovedDir]) -> Result<()> {
        self.resize_request(home, "/v1/resize/dirs", json(dirs)?).await
    }

    /// Returns when everything that `node` has received is on its disk.
    pub async fn sync_moved(&self, node: NodeId) -> Result<()> {
        self.with_deadline(SYNC).resize_request(node, "/v1/resize/sync", body::empty()).await
    }

    /// Ends the resize on `node`: it restarts with the new list, or ends if it is not in that.
    pub async fn end_resize(&self, node: NodeId) -> Result<()> {
        self.with_deadline(SYNC).resize_request(node, "/v1/resize/end", body::empty()).await
    }

    async fn resize_lines(&self, node: NodeId, path: &str, body: BoxBody) -> Result<ResizeStream> {
        let response = self.send(node, Method::POST, path, body, &Activity::default()).await?;
        Ok(ResizeStream { lines: Lines::new(self.chunks(node, response)), name: self.cluster().name(node).to_string() })
    }

    async fn resize_request(&self, node: NodeId, path: &str, body: BoxBody) -> Result<()> {
        self.send(node, Method::POST, path, body, &Activity::default()).await.map(drop)
    }
}

fn json(value: &(impl Serialize + ?Sized)) -> Result<BoxBody> {
    let json = serde_json::to_vec(value).map_err(|e| Error::new(ErrorKind::BadRequest, e.to_string()))?;
    Ok(body::full(json))
}
