//! Publish: bytes go into an unnamed temporary file, which is linked to the key's name in one step.

use super::core::Store;
use super::errors::{below_a_key, failed};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, renameat};
use nix::unistd::{geteuid, linkat};
use s4::aligned::Block;
use s4::attribute::{KeyRecord, Mark};
use s4::checksum::Checksum;
use s4::error::{Error, ErrorKind, Result};
use s4::file::BLOCK;
use s4::hasher::{self, FileHasher, Hasher, Sums};
use s4::key::Key;
use s4::protocol::Change;
use s4::reserve::Reserve;
use s4::stored::{self, SpaceChecks, file_mode};
use s4::time::from_nanoseconds;
use std::fmt::Display;
use std::fs::{File, Metadata, Permissions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

/// Permission bits of a key that was not given others.
const KEY_MODE: u32 = 0o444;

/// Who a key is made for.
pub trait Asker {
    /// May still refuse what is to have this name, at the very end.
    fn check(&self, name: &impl Display) -> Result<()>;

    /// How long it waits for an answer, if it does not wait for ever.
    fn waits(&self) -> Option<Duration>;

    /// The number of its put, if it has one.
    fn put(&self) -> Option<u64>;
}

/// The node itself.
impl Asker for () {
    fn check(&self, _: &impl Display) -> Result<()> {
        Ok(())
    }

    fn waits(&self) -> Option<Duration> {
        None
    }

    fn put(&self) -> Option<u64> {
        None
    }
}

/// A key being written. Dropped unpublished, it leaves nothing.
pub struct Draft<'s> {
    store: &'s Store,
    key: Key,
    file: File,
    hasher: Hasher,
    written: u64,
    checks: SpaceChecks,
    reserve: Reserve,
    mark: Option<Mark>,
}

impl Draft<'_> {
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.append(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// The same of bytes that another hashes, for [`Draft::publish_hashed`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        if self.checks.is_due(self.written) {
            self.store.check_space_for(&self.key, &self.file, &mut self.reserve)?;
        }
        self.reserve.look(&self.file, self.written);
        self.file.write_all(bytes).map_err(|e| Error::io(&self.key, &e))
    }

    /// Takes the key's bytes from `fill`, which appends them to the file and tells how many there are so far. Returns what
    /// it does, and the checksum of what is in the file.
    pub fn fill<T>(
        &mut self,
        fill: impl FnOnce(&File, &mut dyn FnMut(u64) -> Result<()>) -> Result<T>,
    ) -> Result<(T, Sums)> {
        let Self { store, key, file, checks, reserve, .. } = self;
        let key = &*key;
        let mut hasher = FileHasher::of_parts();
        let filled = fill(file, &mut |len| {
            // On this thread: to wake another for it costs more than it saves, and by then they may have left the cache.
            hasher.read_to(file, len).map_err(|e| Error::io(key, &e))?;
            if checks.is_due(len) {
                store.check_space_for(key, file, reserve)?;
            }
            reserve.look(file, len);
            Ok(())
        })?;
        Ok((filled, hasher.sums()))
    }

    /// What has been written so far.
    pub fn checksum(&self) -> Checksum {
        self.hasher.finish()
    }

    /// Marks the key as an output of a map.
    pub fn mark(&mut self, mark: Mark) {
        self.mark = Some(mark);
    }

    pub fn publish(self) -> Result<()> {
        self.publish_for(&(), Change::default())
    }

    /// The same for `asker`; the key is born with the attributes of `change`.
    pub fn publish_for(mut self, asker: &impl Asker, change: Change) -> Result<()> {
        let sums = self.hasher.sums();
        self.publish_hashed(asker, &sums, change)
    }

    /// The same with the sums of all that was appended.
    pub fn publish_hashed(mut self, asker: &impl Asker, sums: &Sums, change: Change) -> Result<()> {
        self.reserve.end(&self.file);
        self.store.link(asker, &self.file, (sums, self.mark), &self.key, change)
    }
}

impl Store {
    /// Begins a key. One that exists already, or belongs elsewhere, is refused before any byte is written.
    pub fn draft(&self, key: &Key) -> Result<Draft<'_>> {
        self.check_free(key)?;
        self.draft_in(key, self.unnamed_file())
    }

    /// The same for a key of `len` bytes, which are few: whether it exists already, its publish will tell.
    pub fn draft_small(&self, key: &Key, len: usize) -> Result<Draft<'_>> {
        self.check_place(key)?;
        // Into one of no bytes nothing is written, which would give it a new time.
        self.draft_in(key, if len > 0 { self.unnamed_file_ahead() } else { self.unnamed_file() })
    }

    fn draft_in(&self, key: &Key, file: std::io::Result<File>) -> Result<Draft<'_>> {
        Ok(Draft {
            store: self,
            key: key.clone(),
            file: file.map_err(|e| Error::io(key, &e))?,
            hasher: Hasher::of_parts(),
            written: 0,
            checks: SpaceChecks::default(),
            reserve: Reserve::default(),
            mark: None,
        })
    }

    /// Refuses a key that exists, belongs on another node, or for which there is no space.
    pub fn check_new(&self, key: &Key) -> Result<()> {
        self.check_there()?;
        self.check_space(key)?;
        self.check_unused(key)
    }

    /// Refuses a key that exists or belongs on another node. Before it is made, [`check_new`](Self::check_new) is to be asked: where the
    /// data directory is gone, every name is free.
    pub fn check_unused(&self, key: &Key) -> Result<()> {
        self.misplaced(key)?;
        match std::fs::symlink_metadata(self.path(key)) {
            Ok(found) => Err(taken(key, found.is_dir())),
            Err(e) if stored::is_absent(&e) => Ok(()),
            Err(e) => Err(self.unreadable(key, &e)),
        }
    }

    /// The same, but an empty key may be replaced: the link will tell.
    pub fn check_free(&self, key: &Key) -> Result<()> {
        self.check_new(key).or_else(|error| {
            match error.kind() == ErrorKind::AlreadyExists && is_empty_key(&self.path(key)) {
                true => Ok(()),
                false => Err(error),
            }
        })
    }

    /// Refuses if there is no space, also without what `file` has ahead.
    fn check_space_for(&self, key: &Key, file: &File, reserve: &mut Reserve) -> Result<()> {
        self.check_space(key).or_else(|_| {
            reserve.end(file);
            self.check_space(key)
        })
    }

    fn check_place(&self, key: &Key) -> Result<()> {
        self.misplaced(key)?;
        self.check_there()?;
        self.check_space(key)
    }

    /// Publishes a file of this store's file system that a command has written, as an output of a map.
    pub fn publish_output(&self, file: &File, key: &Key, mark: Mark) -> Result<()> {
        self.publish_marked(&(), file, key, (None, Some(mark)), Change::default()).map(drop)
    }

    /// Publishes a file of this store's file system for `asker`; `sums` are those of its bytes where they are known, the key is born
    /// with the attributes of `change`.
    pub fn publish_file_for(
        &self,
        asker: &impl Asker,
        file: &File,
        key: &Key,
        sums: Option<Sums>,
        change: Change,
    ) -> Result<Checksum> {
        self.publish_marked(asker, file, key, (sums, None), change)
    }

    fn publish_marked(
        &self,
        asker: &impl Asker,
        file: &File,
        key: &Key,
        (sums, mark): (Option<Sums>, Option<Mark>),
        change: Change,
    ) -> Result<Checksum> {
        if change.over_empty {
            self.check_free(key)?
        } else {
            self.check_new(key)?
        }
        let failed = |e: std::io::Error| Error::io(key, &e);
        let sums = sums.map_or_else(|| hasher::sums_of_file(file).map_err(failed), Ok)?;
        allow_attributes(file, file.metadata().map_err(failed)?.mode()).map_err(failed)?;
        self.link(asker, file, (&sums, mark), key, change).map(|()| sums.checksum)
    }

    /// Publishes a file that a command left in its directory, as an output of a map: by a link if it lies there itself, has no
    /// other name and is this process's own; else by its bytes, since it may change later.
    pub fn publish_left(&self, mut file: &File, is_itself: bool, key: &Key, mark: Mark) -> Result<()> {
        self.check_new(key)?;
        let failed = |e: std::io::Error| Error::io(key, &e);
        let found = file.metadata().map_err(failed)?;
        let is_own = is_itself && found.nlink() == 1 && found.uid() == geteuid().as_raw();
        if is_own && found.dev() == self.found.device() {
            let sums = hasher::sums_of_file(file).map_err(failed)?;
            allow_attributes(file, found.mode()).map_err(failed)?;
            return self.link(&(), file, (&sums, Some(mark)), key, Change::default());
        }
        let mut draft = self.draft_in(key, self.unnamed_file())?;
        draft.mark(mark);
        let mut block = Block::new(BLOCK);
        loop {
            match file.read(&mut block).map_err(failed)? {
                0 => return draft.publish(),
                n => draft.write(&block[..n])?,
            }
        }
    }

    fn link(
        &self,
        asker: &impl Asker,
        file: &File,
        record: (&Sums, Option<Mark>),
        key: &Key,
        change: Change,
    ) -> Result<()> {
        self.complete(file, record, change).map_err(|e| Error::io(key, &e))?;
        asker.check(key)?;
        self.give_name(asker, file, key, change.over_empty)
    }

    /// Gives a file all that a key has but its name.
    fn complete(&self, file: &File, (sums, mark): (&Sums, Option<Mark>), change: Change) -> std::io::Result<()> {
        stored::set_record(file, &KeyRecord { checksum: sums.checksum, mark })?;
        if let Some(table) = &sums.table {
            stored::set_table(file, table, sums.checksum)?;
        }
        apply(file, Change { mode: change.mode.or(Some(KEY_MODE)), ..change })?;
        if self.fsync {
            file.sync_all()?;
        }
        Ok(())
    }

    /// Links a file that is complete: from then on it is the key. With `over_empty`, it may take the place of an empty one.
    fn give_name(&self, asker: &impl Asker, file: &File, key: &Key, over_empty: bool) -> Result<()> {
        let path = self.path(key);
        self.link_at(asker, file, &path, key, over_empty)?;
        if self.fsync {
            // The directories above may be new too.
            for dir in path.ancestors().skip(1).take_while(|dir| dir.starts_with(&self.root)) {
                File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| Error::io(key, &e))?;
            }
        }
        Ok(())
    }

    fn link_at(&self, asker: &impl Asker, file: &File, path: &Path, key: &Key, over_empty: bool) -> Result<()> {
        self.refuse_dir(key)?;
        match self.link_or_replace(asker, file, path, over_empty) {
            Err(Errno::ENOENT) => {}
            linked => return self.linked(linked, path, key),
        }
        self.check_there()?;
        // Also directories that were made for it go, if it fails.
        self.link_in_new_dir(asker, file, path, key, over_empty).inspect_err(|_| self.prune(path))
    }

    fn link_in_new_dir(&self, asker: &impl Asker, file: &File, path: &Path, key: &Key, over_empty: bool) -> Result<()> {
        // A delete may remove the parent between its making and the link, so both are tried again.
        for _ in 0..100 {
            self.hold_parent_of(key, asker.waits())?;
            // That may have taken a while.
            asker.check(key)?;
            match self.link_or_replace(asker, file, path, over_empty) {
                Err(Errno::ENOENT) => {}
                linked => return self.linked(linked, path, key),
            }
        }
        Err(Error::new(ErrorKind::Io, format!("{key}: its directory is deleted again and again")))
    }

    fn linked(&self, linked: nix::Result<()>, path: &Path, key: &Key) -> Result<()> {
        match linked {
            Ok(()) => {
                self.synced.note_made();
                Ok(())
            }
            Err(Errno::ECANCELED) => {
                let message = format!("{key}: its sender has given up; nothing was stored");
                Err(Error::new(ErrorKind::Cancelled, message))
            }
            Err(Errno::EEXIST) => Err(taken(key, path.is_dir())),
            Err(Errno::ENOTDIR) => Err(below_a_key(key)),
            Err(errno) => Err(failed(key, errno)),
        }
    }

    /// Errors: ECANCELED if `asker` has been told that there will be no key of its put.
    fn link_or_replace(&self, asker: &impl Asker, file: &File, path: &Path, over_empty: bool) -> nix::Result<()> {
        let (dir, name) = self.data.open_parent(path)?;
        let link =
            |dir: BorrowedFd, to: &Path| linkat(AT_FDCWD, path_of(file).as_str(), dir, to, AtFlags::AT_SYMLINK_FOLLOW);
        let _naming = self.naming.lock(path);
        if asker.put().is_some_and(|put| self.refused.has(put)) {
            return Err(Errno::ECANCELED);
        }
        match link(dir.as_fd(), name) {
            Err(Errno::EEXIST) if over_empty && is_empty_key(path) => {}
            done => return done,
        }
        // Where it is swept at the next start, should this process be killed now.
        let beside = self.tasks_dir().join(format!("over-{}", file.as_raw_fd()));
        link(AT_FDCWD, &beside)?;
        renameat(AT_FDCWD, &beside, &dir, name).inspect_err(|_| drop(std::fs::remove_file(&beside)))
    }
}

/// True if the file at `path` is a key of no bytes.
fn is_empty_key(path: &Path) -> bool {
    let is_empty = |found: Metadata| found.is_file() && found.len() == 0;
    std::fs::symlink_metadata(path).is_ok_and(is_empty)
        && matches!(stored::recorded_at(path), Ok(Some(record)) if record.len == 0)
}

/// A name of an open file, for as long as it is open.
pub(super) fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// An attribute is refused on a file that its owner may not write, as a command may have left it.
fn allow_attributes(file: &File, mode: u32) -> std::io::Result<()> {
    match mode & 0o200 {
        0 => file.set_permissions(Permissions::from_mode(0o600)),
        _ => Ok(()),
    }
}

fn taken(key: &Key, is_dir: bool) -> Error {
    let what = if is_dir { "a directory of this name exists" } else { "key already exists" };
    Error::new(ErrorKind::AlreadyExists, format!("{key}: {what}"))
}

/// Gives a file the attributes of `change`.
pub(super) fn apply(file: &File, change: Change) -> std::io::Result<()> {
    if let Some(mode) = change.mode {
        file.set_permissions(Permissions::from_mode(file_mode(mode)))?;
    }
    if let Some(mtime) = change.mtime {
        file.set_modified(from_nanoseconds(mtime))?;
    }
    Ok(())
}
