//! The listing of a whole cluster: merges the sorted streams of all nodes as they arrive.

use super::core::{Client, retry_if_broken};
use super::lines::Lines;
use crate::body::{self, Activity};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Dir, Key, Prefix};
use crate::placement::NodeId;
use crate::protocol::{Entry, Listed, escape};
use hyper::Method;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Entries in the byte order of their paths. A directory of several nodes is returned once.
pub struct Listing {
    nodes: Vec<NodeListing>,
    /// The path of the next entry of each node that has one.
    heads: BinaryHeap<Reverse<(String, NodeId)>>,
}

struct NodeListing {
    lines: Lines,
    subject: String,
    asked: Arc<Asked>,
    head: Option<Entry>,
}

impl NodeListing {
    /// Fetches the next head. The end of the body before the end mark is an error: the listing was cut off.
    async fn advance(&mut self) -> Result<()> {
        let cut = || Error::new(ErrorKind::Unreachable, format!("{}: the listing was cut off", self.subject));
        let line = self.lines.next().await?.ok_or_else(cut)?;
        self.head = match Listed::parse(&line).map_err(|e| e.of_peer(&self.subject))? {
            Listed::Entry(entry) => {
                self.check(&entry)?;
                Some(entry)
            }
            Listed::End => None,
            // A listing has no keepalives.
            Listed::Alive => return Err(cut()),
        };
        Ok(())
    }

    /// Refuses a name that was not asked for, or that is not valid: the node sends it, and it may become a local path.
    fn check(&self, entry: &Entry) -> Result<()> {
        match self.asked.may_be(entry) {
            true => Ok(()),
            false => {
                let path = entry.path().escape_debug();
                Err(Error::new(
                    ErrorKind::Unreachable,
                    format!("{}: listed '{path}', which was not asked for", self.subject),
                ))
            }
        }
    }
}

/// What a listing contains.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListOptions<'a> {
    /// Every key; else the names up to the next `/`.
    pub recursive: bool,
    /// Keys with mode and checksum, and directories with mode and mtime.
    pub details: bool,
    /// Also directories that mkdir made, before what is in them; among these the directory that the prefix names with its
    /// `/`.
    pub made: bool,
    /// Only what comes after this path, which need not exist. A directory in which it is comes once, if a key in it
    /// comes after the path; not if the path is the directory itself, `bucket/dir/`. `None`: everything.
    pub after: Option<&'a str>,
}

/// What is to be listed.
struct Asked {
    prefix: String,
    recursive: bool,
    after: String,
}

impl Asked {
    fn may_be(&self, entry: &Entry) -> bool {
        let (path, is_name) = match entry {
            Entry::Key { path, .. } => (path, Key::parse(path).is_ok()),
            Entry::Dir { path, .. } => {
                (path, path.strip_suffix('/').is_some_and(|dir| Dir::try_from(dir.to_owned()).is_ok()))
            }
        };
        let dir = self.prefix.rfind('/').map_or(0, |slash| slash + 1);
        let in_dir = |path: &str| path.get(dir..).is_some_and(|rest| !rest.trim_end_matches('/').contains('/'));
        // A directory may begin before the point that is in it.
        let is_after = *path > self.after || path.ends_with('/') && self.after.starts_with(path.as_str());
        is_name && path.starts_with(&self.prefix) && is_after && (self.recursive || in_dir(path))
    }
}

impl Client {
    /// Lists what begins with `prefix`: every key if `recursive`, else the names up to the next `/`. Error: a node does
    /// not answer, since the listing would be incomplete.
    pub async fn list(&self, prefix: &Prefix, recursive: bool) -> Result<Listing> {
        self.list_path(prefix.as_str(), ListOptions { recursive, ..ListOptions::default() }).await
    }

    /// Lists directory `dir` (`bucket/dir`; empty for the root), with the details of keys.
    pub async fn list_dir(&self, dir: &str) -> Result<Listing> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        self.list_path(&prefix, ListOptions { details: true, ..ListOptions::default() }).await
    }

    /// Lists what begins with `prefix`, as [`list`](Self::list) does, with these options.
    pub async fn list_with(&self, prefix: &Prefix, options: ListOptions<'_>) -> Result<Listing> {
        self.list_path(prefix.as_str(), options).await
    }

    async fn list_path(&self, prefix: &str, options: ListOptions<'_>) -> Result<Listing> {
        let ListOptions { recursive, details, made, after } = options;
        let mut path =
            format!("/v1/list?prefix={}&recursive={recursive}&details={details}&made={made}", escape(prefix));
        if let Some(after) = after {
            path += &format!("&after={}", escape(after));
        }
        let after = after.unwrap_or_default().to_owned();
        let asked = Asked { prefix: prefix.to_owned(), recursive, after };
        let what = Arc::new(asked);
        let asked: Vec<_> = self
            .cluster()
            .ids()
            .map(|node| {
                let (client, path, what) = (self.clone(), path.to_owned(), what.clone());
                tokio::spawn(async move { client.list_node(node, &path, what).await })
            })
            .collect();
        let mut listing = Listing { nodes: Vec::new(), heads: BinaryHeap::new() };
        for node in asked {
            let node = node.await.map_err(|e| Error::new(ErrorKind::Io, e.to_string()))??;
            if let Some(head) = &node.head {
                listing.heads.push(Reverse((head.path().to_owned(), listing.nodes.len())));
            }
            listing.nodes.push(node);
        }
        Ok(listing)
    }

    /// The keys of `node` alone that begin with `prefix`.
    pub async fn list_of(&self, node: NodeId, prefix: &Prefix) -> Result<Listing> {
        let path = format!("/v1/list?prefix={}&recursive=true", escape(prefix.as_str()));
        let asked = Asked { prefix: prefix.as_str().to_owned(), recursive: true, after: String::new() };
        let listing = self.list_node(node, &path, Arc::new(asked)).await?;
        let first = listing.head.as_ref().map(|head| Reverse((head.path().to_owned(), 0)));
        Ok(Listing { nodes: vec![listing], heads: first.into_iter().collect() })
    }

    async fn list_node(&self, node: NodeId, path: &str, asked: Arc<Asked>) -> Result<NodeListing> {
        // Retrying is safe: no entry was returned yet.
        retry_if_broken(|| async {
            let response = self.send(node, Method::GET, path, body::empty(), &Activity::default()).await?;
            let lines = Lines::new(self.chunks(node, response));
            let (subject, asked) = (self.cluster().name(node).to_string(), asked.clone());
            let mut listing = NodeListing { lines, subject, asked, head: None };
            self.noting(node, listing.advance().await)?;
            Ok(listing)
        })
        .await
    }
}

impl Listing {
    pub async fn next(&mut self) -> Result<Option<Entry>> {
        let Some(Reverse((path, at))) = self.heads.pop() else {
            return Ok(None);
        };
        let mut entry = self.take_head(at).await?;
        // Each node that has a copy of a directory lists it, but only its home has its attributes.
        while let Some(Entry::Dir { stat, .. }) = &mut entry
            && let Some(Reverse((_, at))) = self.heads.peek().filter(|Reverse((other, _))| *other == path)
        {
            let at = *at;
            self.heads.pop();
            if let Some(Entry::Dir { stat: other, .. }) = self.take_head(at).await? {
                *stat = stat.take().or(other);
            }
        }
        Ok(entry)
    }

    /// The next entry of a node. Fetches the one after it.
    async fn take_head(&mut self, at: NodeId) -> Result<Option<Entry>> {
        let node = &mut self.nodes[at];
        let entry = node.head.take();
        node.advance().await?;
        if let Some(head) = &node.head {
            self.heads.push(Reverse((head.path().to_owned(), at)));
        }
        Ok(entry)
    }
}
