//! Directories during a resize. The home of a directory may change, as the node of a key does. Each node tells the new
//! home what it holds, and the old home what it has recorded; only when that is on the disk of the new home, the old one
//! forgets it. Until the end of the resize no directory is removed by the usual rules: a home that has not heard of all
//! holders yet must not decide.

use crate::store::core::Store;
use crate::store::errors::{failed, failed_io};
use nix::errno::Errno;
use s4::directory::DirRecord;
use s4::error::Result;
use s4::key::Dir;
use s4::placement::{NodeId, node_of_basename};
use s4::protocol::{Change, MovedDir};
use s4::resize::Sizes;
use s4::stored::is_absent;

/// The homes of a directory before and after a resize.
fn homes(path: &str, sizes: Sizes) -> (NodeId, NodeId) {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    (node_of_basename(name, sizes.before), node_of_basename(name, sizes.after))
}

impl Store {
    /// Visits every directory of which another node becomes the home, and that this one holds or has recorded.
    pub fn moved_dirs(&self, sizes: Sizes, visit: &mut dyn FnMut(NodeId, MovedDir) -> Result<()>) -> Result<()> {
        let mut result = Ok(());
        self.walk_dirs("", &mut |path, is_empty| {
            result = self.moved_dir(path, is_empty, sizes).and_then(|moved| match moved {
                Some((home, moved)) => visit(home, moved),
                None => Ok(()),
            });
            result.is_ok()
        })?;
        result
    }

    fn moved_dir(&self, path: &str, is_empty: bool, sizes: Sizes) -> Result<Option<(NodeId, MovedDir)>> {
        let (before, after) = homes(path, sizes);
        let Ok(dir) = Dir::try_from(path.to_owned()) else { return Ok(None) };
        if after == self.node || before == after {
            return Ok(None);
        }
        let record = match before == self.node {
            false => DirRecord::default(),
            true => match DirRecord::read(&self.dir_path(&dir)) {
                Err(e) if is_absent(&e) => return Ok(None),
                record => record.map_err(|e| self.unreadable(&dir, &e))?,
            },
        };
        let change = Change { mode: record.mode.map(u32::from), mtime: record.mtime, over_empty: false };
        if is_empty && !record.made && change == Change::default() {
            return Ok(None);
        }
        let holder = (self.node < sizes.after && !is_empty).then_some(self.node);
        Ok(Some((after, MovedDir { dir, holder, made: record.made, change })))
    }

    /// At the new home: notes a directory that another node held or had recorded.
    pub fn take_dir(&self, moved: &MovedDir) -> Result<()> {
        let dir = &moved.dir;
        let holder: Vec<NodeId> = moved.holder.into_iter().collect();
        self.enter_all(dir, &holder)?;
        if moved.made || moved.change != Change::default() {
            let _table = self.dirs.lock();
            self.update(dir, |record| {
                record.made |= moved.made;
                record.change(moved.change);
                true
            })?;
            self.sync_dir(dir).map_err(|e| failed_io(dir, &e))?;
        }
        self.synced.note_changed();
        Ok(())
    }

    /// After the new homes have everything on their disks: forgets what is recorded here of their directories, and
    /// removes empty copies.
    pub fn drop_moved_dirs(&self, sizes: Sizes) -> Result<()> {
        let mut result = Ok(());
        self.walk_dirs("", &mut |path, _| {
            let (before, after) = homes(path, sizes);
            if after != self.node {
                result = self.drop_copy(path, before == self.node);
            }
            result.is_ok()
        })?;
        result
    }

    fn drop_copy(&self, path: &str, was_home: bool) -> Result<()> {
        let Ok(dir) = Dir::try_from(path.to_owned()) else { return Ok(()) };
        let _table = self.dirs.lock();
        let at = self.dir_path(&dir);
        if was_home {
            match DirRecord::remove(&at) {
                Err(e) if !is_absent(&e) => return Err(self.unreadable(&dir, &e)),
                _ => {}
            }
        }
        match self.remove_copy(&at) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY) => Ok(()),
            Err(errno) => Err(failed(&dir, errno)),
        }
    }
}
