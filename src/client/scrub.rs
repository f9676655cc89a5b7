//! A scrub of one node.

use super::core::Client;
use super::lines::Lines;
use crate::body::{self, Activity};
use crate::error::{Error, ErrorKind, Result};
use crate::placement::NodeId;
use crate::protocol::ScrubLine;
use hyper::Method;

/// The lines of a scrub as they arrive. Dropping it ends the scrub.
pub struct ScrubStream {
    lines: Lines,
    /// How messages name the node.
    name: String,
}

impl ScrubStream {
    /// A finding, the progress, or the end, after which nothing may be asked for.
    pub async fn next(&mut self) -> Result<ScrubLine> {
        let cut_off = || Error::new(ErrorKind::Unreachable, format!("{}: the scrub was cut off", self.name));
        let line = self.lines.next().await?.ok_or_else(cut_off)?;
        match ScrubLine::parse(&line).map_err(|error| error.of_peer(&self.name))? {
            ScrubLine::Error(error) => Err(error.of_peer(&self.name)),
            line => Ok(line),
        }
    }
}

impl Client {
    /// Makes `node` check its files at `rate` bytes a second: all, or with `resume` those that the last scrub has left.
    /// `remove_strays`: deletes files that belong on other nodes.
    pub async fn scrub(&self, node: NodeId, rate: u64, resume: bool, remove_strays: bool) -> Result<ScrubStream> {
        let path = format!("/v1/scrub?rate={rate}&resume={resume}&remove_strays={remove_strays}");
        let response = self.send(node, Method::POST, &path, body::empty(), &Activity::default()).await?;
        Ok(ScrubStream { lines: Lines::new(self.chunks(node, response)), name: self.cluster().name(node).to_string() })
    }
}
