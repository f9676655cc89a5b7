//! Reading directories: every node's sorted listing, merged and streamed, and the files being written.

use super::{Attributes, Fs};
use crate::errno::{Result, errno};
use crate::inodes::{Ino, Node};
use nix::errno::Errno;
use s4::checksum::Checksum;
use s4::client::Listing;
use s4::key::Key;
use s4::protocol::{Entry, KeyStat};
use std::collections::HashSet;
use std::sync::Arc;

/// An entry of a directory.
pub struct DirEntry {
    pub name: String,
    pub attributes: Attributes,
    /// Where the next read goes on.
    pub next: u64,
    /// What it is, for one whom the kernel is told of.
    pub node: Node,
}

/// A directory being read.
pub struct DirStream {
    path: Option<String>,
    state: tokio::sync::Mutex<State>,
}

/// Guards how far the reading has come.
#[derive(Default)]
struct State {
    listing: Option<Listing>,
    /// Names shown already, of files being written.
    shown: HashSet<String>,
    /// The keys so far that the next name may begin with: one hides a directory of its name, which comes after it.
    keys: Vec<String>,
    /// Entries that come before those of the listing.
    first: Vec<(String, Node)>,
    /// The offset of the next entry.
    position: u64,
    /// One that did not fit into the kernel's buffer.
    left: Option<(String, Node)>,
}

impl Fs {
    pub async fn opendir(&self, ino: Ino) -> Result<u64> {
        let stream = match self.node(ino)? {
            Node::Dir(path) => DirStream { path: Some(path), state: tokio::sync::Mutex::default() },
            Node::Control(path) if path.is_dir() => DirStream { path: None, state: tokio::sync::Mutex::default() },
            Node::Control(_) | Node::Key(..) | Node::Spool(_) => return Err(Errno::ENOTDIR),
        };
        Ok(self.handles().add_dir(stream))
    }

    pub fn releasedir(&self, handle: u64) {
        self.handles().dirs.remove(&handle);
    }

    /// Hands entries from `offset` on to `take` until it returns false, because it has no room for one.
    pub async fn readdir(
        &self,
        ino: Ino,
        handle: u64,
        offset: u64,
        take: &mut (dyn FnMut(DirEntry) -> bool + Send),
    ) -> Result<()> {
        let stream = self.handles().dirs.get(&handle).cloned().ok_or(Errno::EBADF)?;
        let mut state = stream.state.lock().await;
        if offset < state.position || (offset == 0 && state.listing.is_none()) {
            *state = self.begin(ino, &stream).await?;
        }
        loop {
            let next = match state.left.take() {
                Some(left) => Some(left),
                None => self.next_entry(&stream, &mut state).await?,
            };
            let Some((name, node)) = next else {
                return Ok(());
            };
            // One that was being written and is a key by now, or gone, was seen too early.
            let is_gone = matches!(&node, Node::Spool(spool) if !spool.has_name());
            if state.position < offset || is_gone {
                state.position += 1;
                continue;
            }
            let known = self.inodes.peek(&node);
            let attributes = self.attributes(&node, known)?;
            let entry = DirEntry { name: name.clone(), attributes, next: state.position + 1, node: node.clone() };
            if !take(entry) {
                state.left = Some((name, node));
                return Ok(());
            }
            state.position += 1;
        }
    }

    async fn begin(&self, ino: Ino, stream: &Arc<DirStream>) -> Result<State> {
        let node = self.node(ino)?;
        let mut first = Vec::new();
        let mut state = State::default();
        match &stream.path {
            Some(path) => {
                state.listing = Some(self.client.list_dir(path).await.map_err(|e| errno(&e))?);
                for spool in self.inodes.spools_in(path, false) {
                    let name = spool.key().basename().to_owned();
                    state.shown.insert(name.clone());
                    first.push((name, Node::Spool(spool)));
                }
            }
            None => first.extend(self.control.entries(&node)),
        }
        // Taken from the end.
        first.push(("..".to_owned(), node.clone()));
        first.push((".".to_owned(), node));
        state.first = first;
        Ok(state)
    }

    async fn next_entry(&self, stream: &DirStream, state: &mut State) -> Result<Option<(String, Node)>> {
        if let Some(first) = state.first.pop() {
            return Ok(Some(first));
        }
        let (Some(dir), Some(listing)) = (&stream.path, &mut state.listing) else {
            return Ok(None);
        };
        let from = if dir.is_empty() { 0 } else { dir.len() + 1 };
        loop {
            let Some(entry) = listing.next().await.map_err(|e| errno(&e))? else {
                return Ok(None);
            };
            let (name, node) = match entry {
                Entry::Dir { path } => {
                    let path = path.trim_end_matches('/').to_owned();
                    (path[from..].to_owned(), Node::Dir(path))
                }
                Entry::Key { path, size, mtime, detail: Some(detail) } => {
                    let checksum = Checksum { xxh3: detail.xxh3, len: size };
                    let key = Key::parse(&path).map_err(|_| Errno::EIO)?;
                    (path[from..].to_owned(), Node::Key(key, KeyStat { checksum, mtime, mode: detail.mode }))
                }
                Entry::Key { detail: None, .. } => continue,
            };
            state.keys.truncate(state.keys.iter().take_while(|key| name.starts_with(*key)).count());
            match node {
                Node::Dir(_) if state.keys.contains(&name) => continue,
                Node::Key(..) => state.keys.push(name.clone()),
                _ => {}
            }
            if !state.shown.contains(&name) {
                return Ok(Some((name, node)));
            }
        }
    }
}
