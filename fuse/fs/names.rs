//! Operations on names: lookup, directories, unlink, rename, attributes.

use super::attributes::Attributes;
use super::namespace::{Found, Namespace};
use super::publisher::retrying;
use crate::errno::{Result, errno, io_errno};
use crate::inodes::{Ino, Node, ROOT};
use crate::specials::{Kind, Special};
use crate::spool::Spool;
use crate::spool::files::SpoolFiles;
use bytes::Bytes;
use nix::errno::Errno;
use nix::libc;
use s4::client::{Client, PutOptions};
use s4::error::ErrorKind;
use s4::file::AtPosition;
use s4::key::{Dir, Key};
use s4::protocol::{Change, KeyHead, KeyStat};
use s4::time::to_nanoseconds;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::SystemTime;

/// The attributes that setattr sets.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewAttributes {
    pub size: Option<u64>,
    pub mode: Option<u32>,
    pub mtime: Option<SystemTime>,
}

impl NewAttributes {
    /// The attributes that the node of a key stores.
    fn change(&self) -> Change {
        Change { mode: self.mode.map(|mode| mode & 0o555), mtime: self.mtime.map(to_nanoseconds), over_empty: false }
    }
}

pub struct Names {
    namespace: Arc<Namespace>,
    spool_files: Arc<SpoolFiles>,
}

/// The extended attribute with the provenance of a key.
pub const WHY_ATTRIBUTE: &str = "user.s4.why";
/// The most inputs that its value names.
const MAX_WHY_INPUTS: usize = 20;
/// The longest value of an attribute on Linux, XATTR_SIZE_MAX.
const MAX_VALUE: usize = 64 << 10;

impl Names {
    pub fn new(namespace: Arc<Namespace>, spool_files: Arc<SpoolFiles>) -> Self {
        Self { namespace, spool_files }
    }

    pub async fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Attributes> {
        if let Some(path) = self.namespace.control_child(parent, name)? {
            return self.namespace.enter(Node::Control(path));
        }
        let path = self.namespace.path_in(parent, name)?;
        if let Some(own) = self.namespace.own_at(&path) {
            return self.namespace.enter(own);
        }
        // A name that is not valid does not exist.
        Dir::try_from(path.clone()).map_err(|_| Errno::ENOENT)?;
        match self.namespace.look_up(&path).await? {
            Found::Key(key, stat) => self.namespace.enter(Node::Key(key, stat)),
            Found::Dir(stat) => self.namespace.enter(Node::Dir(path, stat)),
            Found::Absent => Err(Errno::ENOENT),
        }
    }

    pub async fn getattr(&self, ino: Ino) -> Result<Attributes> {
        let node = self.namespace.node(ino)?;
        match node {
            Node::Dir(path, _) if ino != ROOT => match self.namespace.look_up(&path).await? {
                Found::Dir(stat) => self.namespace.attributes(&Node::Dir(path, stat), ino),
                Found::Key(..) | Found::Absent => Err(Errno::ENOENT),
            },
            node => self.namespace.attributes(&node, ino),
        }
    }

    pub async fn setattr(&self, ino: Ino, new: NewAttributes) -> Result<Attributes> {
        let node = self.namespace.node(ino)?;
        match &node {
            Node::Spool(spool) => self.set_spool(spool, new).await?,
            Node::Key(key, stat) => return self.set_key(ino, key, stat.clone(), new).await,
            Node::Special(special) => special.change(new.mode, new.mtime),
            Node::Dir(path, _) if ino != ROOT => {
                let change = Change { mode: new.mode, ..new.change() };
                if change != Change::default() {
                    let dir = Dir::try_from(path.clone()).map_err(|_| Errno::ENOENT)?;
                    self.namespace.client.change_dir(&dir, change).await.map_err(|e| errno(&e))?;
                }
                return self.getattr(ino).await;
            }
            Node::Dir(..) => return self.getattr(ino).await,
            Node::Control(_) => {}
        }
        self.namespace.attributes(&node, ino)
    }

    /// The provenance of a key, as JSON. Errors: ENODATA if the inode is not a key, E2BIG if the value would be too
    /// long.
    pub async fn why(&self, ino: Ino) -> Result<Vec<u8>> {
        let key = match self.namespace.node(ino)? {
            Node::Key(key, _) => key,
            Node::Spool(spool) if spool.stat().is_some() => spool.key(),
            _ => return Err(Errno::ENODATA),
        };
        let found = self.namespace.client.provenance(&key, MAX_WHY_INPUTS).await.map_err(|e| errno(&e))?;
        let json = found.json();
        if json.len() <= MAX_VALUE {
            return Ok(json.into_bytes());
        }
        Err(Errno::E2BIG)
    }

    async fn set_spool(&self, spool: &Spool, new: NewAttributes) -> Result<()> {
        if let Some(size) = new.size {
            spool.truncate(size).map_err(io_errno)?;
        }
        if let Some(mode) = new.mode {
            spool.set_mode(mode);
        }
        if let Some(mtime) = new.mtime {
            spool.set_mtime(mtime);
        }
        // A file that is not published yet will be published with them.
        if spool.stat().is_some() && (new.mode.is_some() || new.mtime.is_some()) {
            let change = new.change();
            self.namespace.client.change(&spool.key(), change).await.map_err(|e| errno(&e))?;
            spool.set_stat(change);
        }
        Ok(())
    }

    async fn set_key(&self, ino: Ino, key: &Key, mut stat: KeyStat, new: NewAttributes) -> Result<Attributes> {
        if new.size.is_some_and(|size| size > 0 || stat.checksum.len > 0) {
            return Err(Errno::EPERM);
        }
        let change = new.change();
        if change != Change::default() {
            self.namespace.client.change(key, change).await.map_err(|e| errno(&e))?;
        }
        stat.mode = change.mode.unwrap_or(stat.mode);
        stat.mtime = change.mtime.unwrap_or(stat.mtime);
        let node = Node::Key(key.clone(), stat);
        self.namespace.inodes.update(ino, node.clone());
        self.namespace.attributes(&node, ino)
    }

    pub async fn mkdir(&self, parent: Ino, name: &OsStr, mode: u32) -> Result<Attributes> {
        let path = self.namespace.path_in(parent, name)?;
        let dir = Dir::try_from(path.clone()).map_err(|_| Errno::EINVAL)?;
        if self.namespace.own_at(&path).is_some() {
            return Err(Errno::EEXIST);
        }
        let change = Change { mode: Some(mode & 0o7777), ..Change::default() };
        self.namespace.client.make_dir(&dir, change).await.map_err(|e| errno(&e))?;
        match self.namespace.look_up(&path).await? {
            Found::Dir(stat) => self.namespace.enter(Node::Dir(path, stat)),
            Found::Key(..) | Found::Absent => Err(Errno::ENOENT),
        }
    }

    pub async fn rmdir(&self, parent: Ino, name: &OsStr) -> Result<()> {
        let path = self.namespace.path_in(parent, name)?;
        let dir = Dir::try_from(path.clone()).map_err(|_| Errno::ENOENT)?;
        if !self.namespace.inodes.spools_in(&path, true).is_empty() || self.namespace.specials.any_below(&path) {
            return Err(Errno::ENOTEMPTY);
        }
        match self.namespace.look_up(&path).await? {
            Found::Dir(_) => {}
            Found::Key(..) => return Err(Errno::ENOTDIR),
            Found::Absent if self.namespace.own_at(&path).is_some() => return Err(Errno::ENOTDIR),
            Found::Absent => return Err(Errno::ENOENT),
        }
        self.namespace.client.remove_dir(&dir).await.map_err(|e| errno(&e))?;
        self.namespace.inodes.remove_dir(&path);
        Ok(())
    }

    /// Creates a regular file, which is an empty key at once, or a FIFO or a socket of this mount. `mode` is that of
    /// mknod(2).
    pub async fn mknod(&self, parent: Ino, name: &OsStr, mode: u32) -> Result<Attributes> {
        let key = self.namespace.key_in(parent, name)?;
        let kind = Kind::of(mode);
        if kind.is_none() && !matches!(mode & libc::S_IFMT, 0 | libc::S_IFREG) {
            return Err(Errno::EPERM);
        }
        self.namespace.check_free(&key).await?;
        if let Some(kind) = kind {
            let special = Arc::new(Special::new(kind, mode));
            self.namespace.specials.add(key.as_str().to_owned(), special.clone())?;
            return self.namespace.enter(Node::Special(special));
        }
        let change = Change { mode: Some(mode & 0o555), mtime: None, over_empty: false };
        let empty = &key;
        let make = |client: Client| async move { client.put_small(empty, Bytes::new(), change).await };
        let made = retrying(&self.namespace.client, make).await;
        made.map_err(|e| errno(&e))?;
        match self.namespace.look_up(key.as_str()).await? {
            Found::Key(key, stat) => self.namespace.enter(Node::Key(key, stat)),
            Found::Dir(_) | Found::Absent => Err(Errno::ENOENT),
        }
    }

    pub async fn unlink(&self, parent: Ino, name: &OsStr) -> Result<()> {
        let path = self.namespace.path_in(parent, name)?;
        if self.namespace.specials.remove(&path) {
            return Ok(());
        }
        if let Some(spool) = self.namespace.inodes.spool_at(&path) {
            // Waits for a running publish; then the new key is deleted.
            let _turn = spool.publishing.lock().await;
            let is_unpublished = spool.is_unpublished();
            if spool.may_publish() {
                spool.discard();
                self.namespace.inodes.free_spool_name(&spool);
            }
            if is_unpublished {
                return Ok(());
            }
        }
        let key = Key::parse(&path).map_err(|_| Errno::ENOENT)?;
        self.namespace.client.unlink(&key).await.map_err(|e| errno(&e))?;
        self.namespace.inodes.unlink_key(&key);
        Ok(())
    }

    /// Renames a file to a name that is free.
    pub async fn rename(&self, parent: Ino, name: &OsStr, new_parent: Ino, new_name: &OsStr) -> Result<()> {
        let from = self.namespace.path_in(parent, name)?;
        if self.namespace.specials.at(&from).is_some() {
            let to = self.namespace.key_in(new_parent, new_name)?;
            if from == to.as_str() {
                return Ok(());
            }
            self.namespace.check_free(&to).await?;
            return self.namespace.specials.rename(&from, to.as_str());
        }
        match self.namespace.inodes.spool_at(&from) {
            Some(spool) => {
                // Waits for a running publish, and blocks the next one until the file has its new name.
                let turn = spool.publishing.lock().await;
                if spool.is_unpublished() {
                    return self.rename_spool(&from, &spool, new_parent, new_name).await;
                }
                let _turn = spool.may_publish().then_some(turn);
                self.rename_key(&from, Some(&spool), new_parent, new_name).await
            }
            None => self.rename_key(&from, None, new_parent, new_name).await,
        }
    }

    async fn rename_spool(&self, from: &str, spool: &Arc<Spool>, new_parent: Ino, new_name: &OsStr) -> Result<()> {
        let to = self.namespace.key_in(new_parent, new_name)?;
        if from == to.as_str() {
            return Ok(());
        }
        self.namespace.check_free(&to).await?;
        match self.namespace.inodes.rename_spool(spool, to) {
            true => Ok(()),
            false => Err(Errno::EEXIST),
        }
    }

    /// Renames a key, and the file `spool` if it may still replace the key.
    async fn rename_key(
        &self,
        from: &str,
        spool: Option<&Arc<Spool>>,
        new_parent: Ino,
        new_name: &OsStr,
    ) -> Result<()> {
        let found = self.namespace.look_up(from).await?;
        if matches!(found, Found::Dir(_)) {
            return Err(Errno::EXDEV);
        }
        let to = self.namespace.key_in(new_parent, new_name)?;
        if from == to.as_str() {
            return Ok(());
        }
        self.namespace.check_free(&to).await?;
        let Found::Key(key, stat) = found else { return Err(Errno::ENOENT) };
        self.move_key(&key, &to, &stat).await?;
        match spool.filter(|spool| spool.may_publish()) {
            Some(spool) => _ = self.namespace.inodes.rename_spool(spool, to),
            None => self.namespace.inodes.rename_key(&key, &to, &stat),
        }
        Ok(())
    }

    /// Renames within one node in one step. Between nodes, copies the key, and deletes it only after the copy is
    /// published.
    async fn move_key(&self, from: &Key, to: &Key, stat: &KeyStat) -> Result<()> {
        if self.namespace.home(from) == self.namespace.home(to) {
            return self.namespace.client.rename(from, to).await.map_err(|e| errno(&e));
        }
        let (copy, _) = self.spool_files.take(None).map_err(io_errno)?;
        let sink = copy.try_clone().map_err(io_errno)?;
        let client = &self.namespace.client;
        let (head, copied) =
            tokio::try_join!(client.head(from), client.get(from, sink, "the spool", 0)).map_err(|e| errno(&e))?;
        let KeyHead { stat: described, metadata } = head.ok_or(Errno::ENOENT)?;
        if copied != stat.checksum || copied != described.checksum {
            return Err(Errno::ESTALE);
        }
        let (input, change) =
            (AtPosition::new(copy, 0), Change { mode: Some(stat.mode), mtime: Some(stat.mtime), over_empty: false });
        let options = PutOptions { change, metadata, ..PutOptions::default() };
        self.namespace.client.put_with(to, input, "the spool", options).await.map_err(|e| errno(&e))?;
        match self.namespace.client.unlink_only(from, copied).await {
            // The key was deleted or replaced meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            unlinked => unlinked.map_err(|e| errno(&e)),
        }
    }
}
