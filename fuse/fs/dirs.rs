//! Reading directories: first the sorted listings of all nodes, merged and streamed, then the files being written,
//! FIFOs and sockets of this mount.
//!
//! An offset is the index of an entry within one open directory. The returned names are kept as hashes. After a seek
//! back, or after a listing broke, the listing begins again and these names are skipped. Skipping by count would be
//! wrong, since entries are created and deleted meanwhile.

use super::attributes::Attributes;
use super::handles::Handles;
use super::namespace::{Found, Namespace};
use crate::errno::{Result, errno};
use crate::inodes::{DirStat, Ino, Node};
use nix::errno::Errno;
use s4::checksum::{Checksum, hash};
use s4::client::Listing;
use s4::key::Key;
use s4::protocol::{Entry, KeyStat};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// An entry of a directory.
pub struct DirEntry {
    pub name: String,
    pub attributes: Attributes,
    /// The offset of the next entry.
    pub next: u64,
    /// What it is, for a reply by which the kernel learns its number.
    pub node: Node,
}

/// An open directory.
struct DirStream {
    /// Empty for the root; `None` for a directory of control files.
    path: Option<String>,
    state: tokio::sync::Mutex<State>,
}

/// Guards how far it was read.
#[derive(Default)]
struct State {
    /// The hashes of the names that were returned, in order.
    returned: Vec<u64>,
    /// The last of these entries, which the reader may ask for again: its buffer may be smaller than the kernel's.
    kept: VecDeque<(String, Node)>,
    /// `None` before it has begun. After an error, or after the reader was killed, it begins anew.
    listing: Option<Listing>,
    /// The hashes that had been returned when the listing began.
    before: HashSet<u64>,
    /// The names of this mount when the listing began. They are returned after it.
    own: HashSet<String>,
    /// Keys of the listing that may be a prefix of the next name: a key hides a directory of the same name, which comes
    /// later.
    keys: Vec<String>,
    /// The entries after the listing, once it has ended, in reverse. An entry without a node is looked up first.
    rest: Option<Vec<(String, Option<Node>)>>,
}

impl State {
    /// The offset of the first kept entry.
    fn first_kept(&self) -> u64 {
        (self.returned.len() - self.kept.len()) as u64
    }

    /// Moves to `offset`, if it was read before.
    fn seek(&mut self, offset: u64) {
        if offset == 0 {
            *self = Self::default();
        } else if offset < self.first_kept() {
            self.returned.truncate(offset as usize);
            (self.listing, self.rest) = (None, None);
            self.kept.clear();
        }
        let taken = (offset - self.first_kept()).min(self.kept.len() as u64);
        // The reader continues after these.
        self.kept.drain(..taken as usize);
    }

    /// The name of an entry in the listing of `dir`, and what it stands for; `None` if the entry is not shown.
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

/// The open directories of the mount.
pub struct Dirs {
    namespace: Arc<Namespace>,
    handles: Handles<DirStream>,
}

impl Dirs {
    pub fn new(namespace: Arc<Namespace>) -> Self {
        Self { namespace, handles: Handles::default() }
    }

    pub async fn opendir(&self, ino: Ino) -> Result<u64> {
        let path = match self.namespace.node(ino)? {
            Node::Dir(path, _) => Some(path),
            Node::Control(path) if path.is_dir() => None,
            Node::Control(_) | Node::Key(..) | Node::Spool(_) | Node::Special(_) => return Err(Errno::ENOTDIR),
        };
        Ok(self.handles.add(DirStream { path, state: tokio::sync::Mutex::default() }))
    }

    pub fn releasedir(&self, handle: u64) {
        self.handles.remove(handle);
    }

    /// Passes the entries from `offset` on to `take`, until `take` returns false because it has no room for an entry.
    /// After a cancellation, the next read continues.
    pub async fn readdir(
        &self,
        ino: Ino,
        handle: u64,
        offset: u64,
        take: &mut (dyn FnMut(DirEntry) -> bool + Send),
    ) -> Result<()> {
        let stream = self.handles.get(handle)?;
        let mut state = stream.state.lock().await;
        state.seek(offset);
        // A file server may use an offset of another open directory, which can only be reached by counting.
        while (state.returned.len() as u64) < offset {
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
                    // The next read returns the error.
                    Err(_) if at > 0 => return Ok(()),
                    Err(errno) => return Err(errno),
                }
            }
            let (name, node) = state.kept[at].clone();
            let Some(node) = self.current(node).await? else {
                at += 1;
                continue;
            };
            let next = state.first_kept() + at as u64 + 1;
            let attributes = self.namespace.attributes(&node, self.namespace.inodes.peek(&node))?;
            if !take(DirEntry { name, attributes, next, node }) {
                return Ok(());
            }
            at += 1;
        }
    }

    /// What an entry stands for now, with the attributes of a directory; `None` if it is gone.
    async fn current(&self, node: Node) -> Result<Option<Node>> {
        match node {
            Node::Spool(spool) if !spool.has_name() => self.own_or_listed(spool.key().as_str()).await,
            Node::Dir(path, stat) if stat == DirStat::UNKNOWN && !path.is_empty() => {
                let found = self.namespace.look_up(&path).await;
                let stat = if let Ok(Found::Dir(found)) = found { found } else { stat };
                Ok(Some(Node::Dir(path, stat)))
            }
            node => Ok(Some(node)),
        }
    }

    /// The next entry that was not returned yet.
    async fn next_entry(&self, ino: Ino, stream: &DirStream, state: &mut State) -> Result<Option<(String, Node)>> {
        let next = match state.returned.len() {
            0 => Some((".".to_owned(), self.namespace.node(ino)?)),
            1 => Some(("..".to_owned(), self.namespace.node(ino)?)),
            _ => match self.next_listed(ino, stream, state).await? {
                Some(next) => Some(next),
                None => self.next_own(stream, state).await?,
            },
        };
        state.returned.extend(next.as_ref().map(|(name, _)| hash(name.as_bytes())));
        Ok(next)
    }

    async fn next_listed(&self, ino: Ino, stream: &DirStream, state: &mut State) -> Result<Option<(String, Node)>> {
        let Some(dir) = &stream.path else {
            if state.rest.is_none() {
                let Node::Control(dir) = self.namespace.node(ino)? else { return Err(Errno::ENOTDIR) };
                let entries = self.namespace.control.children(&dir).into_iter();
                state.rest = Some(entries.map(|(name, path)| (name, Some(Node::Control(path)))).collect());
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
                // A node cancels the listing of a reader that pauses for long.
                Err(_) if waited => waited = false,
                Err(error) => return Err(errno(&error)),
            }
        }
    }

    /// Collects the names of this mount first: during the listing they may become keys.
    async fn begin_listing(&self, dir: &str, state: &mut State) -> Result<Listing> {
        state.own.extend(self.own_names(dir));
        state.before = state.returned.iter().copied().collect();
        state.keys.clear();
        self.namespace.client.list_dir(dir).await.map_err(|e| errno(&e))
    }

    /// Names of files being written, of FIFOs and sockets.
    fn own_names(&self, dir: &str) -> Vec<String> {
        let mut names = self.namespace.specials.names_in(dir);
        names.extend(self.namespace.inodes.spools_in(dir, false).iter().map(|spool| spool.key().basename().to_owned()));
        names
    }

    fn rest_of(&self, dir: &str, state: &mut State) -> Vec<(String, Option<Node>)> {
        let mut own = std::mem::take(&mut state.own);
        own.extend(self.own_names(dir));
        if own.is_empty() {
            return Vec::new();
        }
        let had: HashSet<u64> = state.returned.iter().copied().collect();
        own.into_iter().filter(|name| !had.contains(&hash(name.as_bytes()))).map(|name| (name, None)).collect()
    }

    async fn next_own(&self, stream: &DirStream, state: &mut State) -> Result<Option<(String, Node)>> {
        loop {
            let Some((name, node)) = state.rest.as_ref().and_then(|rest| rest.last().cloned()) else {
                return Ok(None);
            };
            let node = match (node, &stream.path) {
                (Some(node), _) => Some(node),
                (None, Some(dir)) => self.own_or_listed(&format!("{dir}/{name}")).await?,
                (None, None) => None,
            };
            // Removed only after the lookup, which may be cancelled.
            state.rest.as_mut().and_then(Vec::pop);
            if let Some(node) = node {
                return Ok(Some((name, node)));
            }
        }
    }

    /// What `path` stands for now, where this mount had a file of its own.
    async fn own_or_listed(&self, path: &str) -> Result<Option<Node>> {
        if let Some(own) = self.namespace.own_at(path) {
            return Ok(Some(own));
        }
        Ok(match self.namespace.look_up(path).await? {
            Found::Key(key, stat) => Some(Node::Key(key, stat)),
            Found::Dir(stat) => Some(Node::Dir(path.to_owned(), stat)),
            Found::Absent => None,
        })
    }
}
