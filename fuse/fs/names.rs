//! Operations on names: lookup, directories, unlink, rename, attributes.

use super::{Attributes, Found, Fs};
use crate::errno::{Result, errno, io_errno};
use crate::inodes::{Ino, Node, ROOT};
use crate::specials::{Kind, Special};
use bytes::Bytes;
use nix::errno::Errno;
use nix::libc;
use s4::error::ErrorKind;
use s4::file::AtPosition;
use s4::key::{Dir, Key};
use s4::protocol::{Change, KeyStat};
use s4::time::to_nanoseconds;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::SystemTime;

/// What of that a node stores.
fn change_of(wanted: &Wanted) -> Change {
    Change { mode: wanted.mode.map(|mode| mode & 0o555), mtime: wanted.mtime.map(to_nanoseconds), over_empty: false }
}

/// What setattr is to change.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    pub size: Option<u64>,
    pub mode: Option<u32>,
    pub mtime: Option<SystemTime>,
}

impl Fs {
    pub async fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Attributes> {
        if let Some(path) = self.control.child(&self.node(parent)?, name)? {
            return self.entered(Node::Control(path));
        }
        let path = self.path_in(parent, name)?;
        if let Some(own) = self.own_at(&path) {
            return self.entered(own);
        }
        // A name that no key or directory can have is not there.
        Dir::try_from(path.clone()).map_err(|_| Errno::ENOENT)?;
        match self.find(&path).await? {
            Found::Key(key, stat) => self.entered(Node::Key(key, stat)),
            Found::Dir(stat) => self.entered(Node::Dir(path, stat)),
            Found::Absent => Err(Errno::ENOENT),
        }
    }

    /// Attributes of a node that the kernel is told of once more.
    pub(super) fn entered(&self, node: Node) -> Result<Attributes> {
        let ino = self.inodes.enter(node.clone());
        self.attributes(&node, ino)
    }

    pub async fn getattr(&self, ino: Ino) -> Result<Attributes> {
        let node = self.node(ino)?;
        match node {
            Node::Dir(path, _) if ino != ROOT => match self.find(&path).await? {
                Found::Dir(stat) => self.attributes(&Node::Dir(path, stat), ino),
                Found::Key(..) | Found::Absent => Err(Errno::ENOENT),
            },
            node => self.attributes(&node, ino),
        }
    }

    pub async fn setattr(&self, ino: Ino, wanted: Wanted) -> Result<Attributes> {
        let node = self.node(ino)?;
        match &node {
            Node::Spool(spool) => {
                if let Some(size) = wanted.size {
                    spool.truncate(size).map_err(io_errno)?;
                }
                if let Some(mode) = wanted.mode {
                    spool.set_mode(mode);
                }
                if let Some(mtime) = wanted.mtime {
                    spool.set_mtime(mtime);
                }
                // One that is not published yet is published with them.
                if spool.published().is_some() && (wanted.mode.is_some() || wanted.mtime.is_some()) {
                    let change = change_of(&wanted);
                    self.client.change(&spool.key(), change).await.map_err(|e| errno(&e))?;
                    spool.set_stat(change);
                }
                self.attributes(&node, ino)
            }
            Node::Key(_, stat) if wanted.size.is_some_and(|size| size > 0 || stat.checksum.len > 0) => {
                Err(Errno::EPERM)
            }
            Node::Key(key, stat) => {
                let change = change_of(&wanted);
                if change != Change::default() {
                    self.client.change(key, change).await.map_err(|e| errno(&e))?;
                }
                let mut stat = stat.clone();
                stat.mode = change.mode.unwrap_or(stat.mode);
                stat.mtime = change.mtime.unwrap_or(stat.mtime);
                let node = Node::Key(key.clone(), stat);
                self.inodes.update(ino, node.clone());
                self.attributes(&node, ino)
            }
            Node::Special(special) => {
                special.change(wanted.mode, wanted.mtime);
                self.attributes(&node, ino)
            }
            Node::Dir(path, _) if ino != ROOT => {
                let change = Change { mode: wanted.mode, ..change_of(&wanted) };
                if change != Change::default() {
                    let dir = Dir::try_from(path.clone()).map_err(|_| Errno::ENOENT)?;
                    self.client.change_dir(&dir, change).await.map_err(|e| errno(&e))?;
                }
                self.getattr(ino).await
            }
            Node::Dir(..) => self.getattr(ino).await,
            Node::Control(_) => self.attributes(&node, ino),
        }
    }

    pub async fn mkdir(&self, parent: Ino, name: &OsStr, mode: u32) -> Result<Attributes> {
        let path = self.path_in(parent, name)?;
        let dir = Dir::try_from(path.clone()).map_err(|_| Errno::EINVAL)?;
        if self.own_at(&path).is_some() {
            return Err(Errno::EEXIST);
        }
        let change = Change { mode: Some(mode & 0o7777), ..Change::default() };
        self.client.make_dir(&dir, change).await.map_err(|e| errno(&e))?;
        match self.find(&path).await? {
            Found::Dir(stat) => self.entered(Node::Dir(path, stat)),
            Found::Key(..) | Found::Absent => Err(Errno::ENOENT),
        }
    }

    pub async fn rmdir(&self, parent: Ino, name: &OsStr) -> Result<()> {
        let path = self.path_in(parent, name)?;
        let dir = Dir::try_from(path.clone()).map_err(|_| Errno::ENOENT)?;
        if !self.inodes.spools_in(&path, true).is_empty() || self.specials.any_below(&path) {
            return Err(Errno::ENOTEMPTY);
        }
        match self.find(&path).await? {
            Found::Dir(_) => {}
            Found::Key(..) => return Err(Errno::ENOTDIR),
            Found::Absent if self.own_at(&path).is_some() => return Err(Errno::ENOTDIR),
            Found::Absent => return Err(Errno::ENOENT),
        }
        self.client.remove_dir(&dir).await.map_err(|e| errno(&e))?;
        self.inodes.remove_dir(&path);
        Ok(())
    }

    /// Makes a regular file, which is an empty key at once, or a FIFO or a socket of this mount. `mode` is that of mknod(2).
    pub async fn make_node(&self, parent: Ino, name: &OsStr, mode: u32) -> Result<Attributes> {
        let key = self.key_in(parent, name)?;
        let kind = Kind::of(mode);
        if kind.is_none() && !matches!(mode & libc::S_IFMT, 0 | libc::S_IFREG) {
            return Err(Errno::EPERM);
        }
        self.check_free(&key).await?;
        if let Some(kind) = kind {
            let special = Arc::new(Special::new(kind, mode));
            self.specials.add(key.as_str().to_owned(), special.clone())?;
            return self.entered(Node::Special(special));
        }
        let change = Change { mode: Some(mode & 0o555), mtime: None, over_empty: false };
        let empty = &key;
        let made = self.surely(|client| async move { client.put_small(empty, Bytes::new(), change).await }).await;
        made.map_err(|e| errno(&e))?;
        match self.find(key.as_str()).await? {
            Found::Key(key, stat) => self.entered(Node::Key(key, stat)),
            Found::Dir(_) | Found::Absent => Err(Errno::ENOENT),
        }
    }

    pub async fn unlink(&self, parent: Ino, name: &OsStr) -> Result<()> {
        let path = self.path_in(parent, name)?;
        if self.specials.remove(&path) {
            return Ok(());
        }
        if let Some(spool) = self.inodes.spool_at(&path) {
            // A publish under way is waited for: then it is the key that goes.
            let _turn = spool.publishing.lock().await;
            let is_pending = spool.is_pending();
            if spool.is_open_ended() {
                spool.discard();
                self.inodes.unname_spool(&spool);
            }
            if is_pending {
                return Ok(());
            }
        }
        let key = Key::parse(&path).map_err(|_| Errno::ENOENT)?;
        self.client.unlink(&key).await.map_err(|e| errno(&e))?;
        self.inodes.unlink_key(&key);
        Ok(())
    }

    /// Gives a file another name that is free.
    pub async fn rename(&self, parent: Ino, name: &OsStr, new_parent: Ino, new_name: &OsStr) -> Result<()> {
        let from = self.path_in(parent, name)?;
        if self.specials.at(&from).is_some() {
            let to = self.key_in(new_parent, new_name)?;
            if from == to.as_str() {
                return Ok(());
            }
            self.check_free(&to).await?;
            return self.specials.rename(&from, to.as_str());
        }
        let mut spool = self.inodes.spool_at(&from);
        let writing = spool.clone();
        let mut turn = None;
        if let Some(writing) = &writing {
            // A publish under way is waited for: then it is the key that gets another name. Else none begins before it has.
            turn = Some(writing.publishing.lock().await);
            if !writing.is_pending() {
                // Of one that may still be written, the key gets another name and the file with it.
                (spool, turn) = (None, turn.filter(|_| writing.is_open_ended()));
            }
        }
        let found = match spool {
            Some(_) => Found::Absent,
            None => self.find(&from).await?,
        };
        if matches!(found, Found::Dir(_)) {
            return Err(Errno::EXDEV);
        }
        let to = self.key_in(new_parent, new_name)?;
        if from == to.as_str() {
            return Ok(());
        }
        self.check_free(&to).await?;
        let renamed = match (spool, found) {
            (Some(spool), _) => match self.inodes.rename_spool(&spool, to) {
                true => Ok(()),
                false => Err(Errno::EEXIST),
            },
            (None, Found::Key(key, stat)) => {
                self.move_key(&key, &to, &stat).await?;
                match writing.as_ref().filter(|writing| writing.is_open_ended()) {
                    // The empty key that may still be written.
                    Some(writing) => _ = self.inodes.rename_spool(writing, to),
                    None => self.inodes.rename_key(&key, &to, &stat),
                }
                Ok(())
            }
            (None, _) => Err(Errno::ENOENT),
        };
        drop(turn);
        renamed
    }

    async fn check_free(&self, key: &Key) -> Result<()> {
        if self.own_at(key.as_str()).is_some() {
            return Err(Errno::EEXIST);
        }
        match self.find(key.as_str()).await? {
            Found::Absent => Ok(()),
            Found::Key(..) | Found::Dir(_) => Err(Errno::EEXIST),
        }
    }

    /// On one node in one step; across nodes as a copy, and a delete only once the copy stands.
    async fn move_key(&self, from: &Key, to: &Key, stat: &KeyStat) -> Result<()> {
        if self.home(from) == self.home(to) {
            return self.client.rename(from, to).await.map_err(|e| errno(&e));
        }
        let copy = self.spool_files.take(&self.spool_dir).map_err(io_errno)?;
        let sink = copy.try_clone().map_err(io_errno)?;
        let copied = self.client.get(from, sink, "the spool", 0).await.map_err(|e| errno(&e))?;
        if copied != stat.checksum {
            return Err(Errno::ESTALE);
        }
        let (input, change) =
            (AtPosition::new(copy, 0), Change { mode: Some(stat.mode), mtime: Some(stat.mtime), over_empty: false });
        self.client.put(to, input, "the spool", change).await.map_err(|e| errno(&e))?;
        match self.client.unlink_only(from, copied).await {
            // One that was deleted meanwhile, or is another by now, is not the key that was moved.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            unlinked => unlinked.map_err(|e| errno(&e)),
        }
    }
}
