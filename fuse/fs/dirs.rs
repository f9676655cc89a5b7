//! Reading directories: every node's sorted listing, merged and streamed, and then the files being written and what else is
//! this mount's own.
//!
//! An offset is the number of an entry within one open directory. What was handed out is remembered by the hash of its name, so
//! that a reader that goes back, or whose listing was broken off, goes on after the names that it has had, and not after so
//! many entries: others may be made and removed meanwhile.

use super::{Attributes, DirStat, Found, Fs};
use crate::errno::{Result, errno};
use crate::inodes::{Ino, Node};
use nix::errno::Errno;
use s4::checksum::{Checksum, hash};
use s4::client::Listing;
use s4::key::Key;
use s4::protocol::{Entry, KeyStat};
use std::collections::{HashSet, VecDeque};

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
    /// Empty for the root; `None` for one of control files.
    path: Option<String>,
    state: tokio::sync::Mutex<State>,
}

/// Guards how far the reading has come.
#[derive(Default)]
struct State {
    /// The hash of each name that was handed out, in their order.
    handed: Vec<u64>,
    /// The last of these, which the reader may not have taken yet: its buffer is smaller than the kernel's.
    kept: VecDeque<(String, Node)>,
    /// `None` before it has begun. One that is broken off, or whose reader was killed, begins anew.
    listing: Option<Listing>,
    /// What the reader had when the listing began.
    before: HashSet<u64>,
    /// Names of this mount's own when the listing began: what they are is looked for after it.
    own: HashSet<String>,
    /// The keys so far that the next name may begin with: one hides a directory of its name, which comes after it.
    keys: Vec<String>,
    /// What comes after the listing, once it has ended, in reverse; without a node what it is is to be found out.
    rest: Option<Vec<(String, Option<Node>)>>,
}

impl State {
    /// The offset of the first kept entry.
    fn first_kept(&self) -> u64 {
        (self.handed.len() - self.kept.len()) as u64
    }

    /// Makes `offset` the place of the next entry, as far as the reader has been there.
    fn seek(&mut self, offset: u64) {
        if offset == 0 {
            *self = Self::default();
        } else if offset < self.first_kept() {
            self.handed.truncate(offset as usize);
            (self.listing, self.rest) = (None, None);
            self.kept.clear();
        }
        let taken = (offset - self.first_kept()).min(self.kept.len() as u64);
        // The reader has these.
        self.kept.drain(..taken as usize);
    }

    /// What an entry of the listing of `dir` is; `None` for one that is not shown, or not yet.
    fn take(&mut self, dir: &str, entry: Entry) -> Result<Option<(String, Node)>> {
        let from = if dir.is_empty() { 0 } else { dir.len() + 1 };
        let name_of = |path: &str| path.get(from..).map(str::to_owned).ok_or(Errno::EIO);
        let (name, node) = match entry {
            Entry::Dir { path, stat } => {
                let path = path.trim_end_matches('/').to_owned();
                let stat = stat.map_or(DirStat::UNKNOWN, |(mtime, mode)| DirStat { mtime, mode });
                (name_of(&path)?, Node::Dir(path, stat))
            }
            Entry::Key { path, size, mtime, detail: Some(detail) } => {
                let checksum = Checksum { xxh3: detail.xxh3, len: size };
                let key = Key::parse(&path).map_err(|_| Errno::EIO)?;
                (name_of(&path)?, Node::Key(key, KeyStat { checksum, mtime, mode: detail.mode }))
            }
            Entry::Key { detail: None, .. } => return Ok(None),
        };
        self.keys.truncate(self.keys.iter().take_while(|key| name.starts_with(*key)).count());
        match node {
            Node::Dir(..) if self.keys.contains(&name) => return Ok(None),
            Node::Key(..) => self.keys.push(name.clone()),
            _ => {}
        }
        let is_shown = !self.own.contains(&name) && !self.before.contains(&hash(name.as_bytes()));
        Ok(is_shown.then_some((name, node)))
    }
}

impl Fs {
    pub async fn opendir(&self, ino: Ino) -> Result<u64> {
        let path = match self.node(ino)? {
            Node::Dir(path, _) => Some(path),
            Node::Control(path) if path.is_dir() => None,
            Node::Control(_) | Node::Key(..) | Node::Spool(_) | Node::Special(_) => return Err(Errno::ENOTDIR),
        };
        Ok(self.handles().add_dir(DirStream { path, state: tokio::sync::Mutex::default() }))
    }

    pub fn releasedir(&self, handle: u64) {
        self.handles().dirs.remove(&handle);
    }

    /// Hands entries from `offset` on to `take` until it returns false, because it has no room for one. May be broken off:
    /// the next read goes on.
    pub async fn readdir(
        &self,
        ino: Ino,
        handle: u64,
        offset: u64,
        take: &mut (dyn FnMut(DirEntry) -> bool + Send),
    ) -> Result<()> {
        let stream = self.handles().dirs.get(&handle).cloned().ok_or(Errno::EBADF)?;
        let mut state = stream.state.lock().await;
        state.seek(offset);
        // Of another open directory, as a server of files may ask: there is nothing to go by but the count.
        while (state.handed.len() as u64) < offset {
            if self.next_entry(ino, &stream, &mut state).await?.is_none() {
                return Ok(());
            }
        }
        let mut at = 0;
        loop {
            if at == state.kept.len() {
                match self.next_entry(ino, &stream, &mut state).await {
                    Ok(Some(next)) => state.kept.push_back(next),
                    Ok(None) => return Ok(()),
                    // The next read tells.
                    Err(_) if at > 0 => return Ok(()),
                    Err(errno) => return Err(errno),
                }
            }
            let (name, mut node) = state.kept[at].clone();
            if let Node::Spool(spool) = &node
                && !spool.has_name()
            {
                // A key by now, or gone.
                match self.own_or_found(spool.key().as_str()).await? {
                    Some(now) => node = now,
                    None => {
                        at += 1;
                        continue;
                    }
                }
            }
            if let Node::Dir(path, stat) = &mut node
                && *stat == DirStat::UNKNOWN
                && !path.is_empty()
                && let Ok(Found::Dir(found)) = self.find(path).await
            {
                *stat = found;
            }
            let next = state.first_kept() + at as u64 + 1;
            let attributes = self.attributes(&node, self.inodes.peek(&node))?;
            if !take(DirEntry { name, attributes, next, node }) {
                return Ok(());
            }
            at += 1;
        }
    }

    /// The next entry that the reader has not had.
    async fn next_entry(&self, ino: Ino, stream: &DirStream, state: &mut State) -> Result<Option<(String, Node)>> {
        let next = match state.handed.len() {
            0 => Some((".".to_owned(), self.node(ino)?)),
            1 => Some(("..".to_owned(), self.node(ino)?)),
            _ => match self.next_listed(ino, stream, state).await? {
                Some(next) => Some(next),
                None => self.next_own(stream, state).await?,
            },
        };
        state.handed.extend(next.as_ref().map(|(name, _)| hash(name.as_bytes())));
        Ok(next)
    }

    async fn next_listed(&self, ino: Ino, stream: &DirStream, state: &mut State) -> Result<Option<(String, Node)>> {
        let Some(dir) = &stream.path else {
            if state.rest.is_none() {
                let entries = self.control.entries(&self.node(ino)?);
                state.rest = Some(entries.into_iter().map(|(name, node)| (name, Some(node))).collect());
            }
            return Ok(None);
        };
        if state.rest.is_some() {
            return Ok(None);
        }
        let mut listing = state.listing.take();
        let mut waited = listing.is_some();
        loop {
            let mut current = match listing.take() {
                Some(listing) => listing,
                None => self.begin_listing(dir, state).await?,
            };
            match current.next().await {
                Ok(Some(entry)) => {
                    if let Some(next) = state.take(dir, entry)? {
                        state.listing = Some(current);
                        return Ok(Some(next));
                    }
                    listing = Some(current);
                }
                Ok(None) => {
                    state.rest = Some(self.rest_of(dir, state));
                    return Ok(None);
                }
                // A node does not wait for ever for a reader that pauses.
                Err(_) if waited => waited = false,
                Err(error) => return Err(errno(&error)),
            }
        }
    }

    /// What is this mount's own is looked for first: it may be a key by the time of the listing.
    async fn begin_listing(&self, dir: &str, state: &mut State) -> Result<Listing> {
        state.own.extend(self.own_names(dir));
        state.before = state.handed.iter().copied().collect();
        state.keys.clear();
        self.client.list_dir(dir).await.map_err(|e| errno(&e))
    }

    /// Names of files being written, of FIFOs and sockets.
    fn own_names(&self, dir: &str) -> Vec<String> {
        let mut names = self.specials.names_in(dir);
        names.extend(self.inodes.spools_in(dir, false).iter().map(|spool| spool.key().basename().to_owned()));
        names
    }

    fn rest_of(&self, dir: &str, state: &mut State) -> Vec<(String, Option<Node>)> {
        let mut own = std::mem::take(&mut state.own);
        own.extend(self.own_names(dir));
        if own.is_empty() {
            return Vec::new();
        }
        let had: HashSet<u64> = state.handed.iter().copied().collect();
        own.into_iter().filter(|name| !had.contains(&hash(name.as_bytes()))).map(|name| (name, None)).collect()
    }

    async fn next_own(&self, stream: &DirStream, state: &mut State) -> Result<Option<(String, Node)>> {
        loop {
            let Some((name, node)) = state.rest.as_ref().and_then(|rest| rest.last().cloned()) else {
                return Ok(None);
            };
            let node = match (node, &stream.path) {
                (Some(node), _) => Some(node),
                (None, Some(dir)) => self.own_or_found(&format!("{dir}/{name}")).await?,
                (None, None) => None,
            };
            // Only now, since finding out may be broken off.
            state.rest.as_mut().and_then(Vec::pop);
            if let Some(node) = node {
                return Ok(Some((name, node)));
            }
        }
    }

    /// What is at `path`, where something of this mount's own was.
    async fn own_or_found(&self, path: &str) -> Result<Option<Node>> {
        if let Some(own) = self.own_at(path) {
            return Ok(Some(own));
        }
        Ok(match self.find(path).await? {
            Found::Key(key, stat) => Some(Node::Key(key, stat)),
            Found::Dir(stat) => Some(Node::Dir(path.to_owned(), stat)),
            Found::Absent => None,
        })
    }
}
