//! Publish: the bytes are written to an unnamed temporary file, which then gets the key's name by one link(2).

use super::core::Store;
use super::errors::{below_a_key, failed};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, renameat};
use nix::libc;
use nix::unistd::{geteuid, linkat};
use s4::aligned::Block;
use s4::attribute::{KeyRecord, Mark, UPLOAD_ATTRIBUTE};
use s4::checksum::Checksum;
use s4::error::{Error, ErrorKind, Result};
use s4::file::BLOCK;
use s4::hasher::{self, FileHasher, Hasher, Sums};
use s4::key::Key;
use s4::preallocation::Preallocation;
use s4::protocol::{Attributes, Change, Metadata, UploadPart};
use s4::stored::{self, SpaceChecks, file_mode};
use s4::time::from_nanoseconds;
use std::fmt::Display;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use xattr::FileExt;

/// Permission bits of a key that was not given others.
const KEY_MODE: u32 = 0o444;

/// The client for which a key is made.
pub trait Requester {
    /// Called just before `name` is made. Errors: the requester has disconnected or timed out.
    fn check(&self, name: &impl Display) -> Result<()>;

    /// How long the requester waits for the response; `None` without a limit.
    fn timeout(&self) -> Option<Duration>;

    /// The number of its put, if it has one. The requester may use it to ask for the result.
    fn put(&self) -> Option<u64>;
}

/// The node itself, without a client.
impl Requester for () {
    fn check(&self, _: &impl Display) -> Result<()> {
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        None
    }

    fn put(&self) -> Option<u64> {
        None
    }
}

/// A key that is being written. If it is dropped before its publish, nothing is left.
pub struct Draft<'s> {
    store: &'s Store,
    key: Key,
    file: File,
    hasher: Hasher,
    written: u64,
    checks: SpaceChecks,
    preallocation: Preallocation,
    about: About,
    target: Target,
}

/// What a draft becomes.
pub(super) enum Target {
    Key,
    /// A part of an upload of the key.
    Part(UploadPart),
    /// The key as its file was on another node, with these attributes.
    Moved(Arc<Attributes>),
}

/// What is recorded with a key besides its checksums.
#[derive(Clone, Default)]
struct About {
    /// Only for outputs of a map.
    mark: Option<Mark>,
    metadata: Metadata,
    /// Only for keys that were joined from the parts of an upload.
    joined_from: Option<String>,
}

impl From<Mark> for About {
    fn from(mark: Mark) -> Self {
        Self { mark: Some(mark), ..Self::default() }
    }
}

impl Draft<'_> {
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.append(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Writes bytes that the caller hashes, for [`Draft::publish_hashed`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        if self.checks.is_due(self.written) {
            self.store.check_space_for(&self.key, &self.file, &mut self.preallocation)?;
        }
        self.preallocation.grow(&self.file, self.written);
        self.file.write_all(bytes).map_err(|e| Error::io(&self.key, &e))
    }

    /// Calls `fill`, which appends the key's bytes to the file and reports the length so far. Returns its result, and
    /// the checksum of the file.
    pub fn fill<T>(
        &mut self,
        fill: impl FnOnce(&File, &mut dyn FnMut(u64) -> Result<()>) -> Result<T>,
    ) -> Result<(T, Sums)> {
        let Self { store, key, file, checks, preallocation, .. } = self;
        let key = &*key;
        let mut hasher = FileHasher::of_parts();
        let filled = fill(file, &mut |len| {
            // On this thread: another would cost more to wake than it saves, and the bytes may have left the CPU's
            // cache by then.
            hasher.read_to(file, len).map_err(|e| Error::io(key, &e))?;
            if checks.is_due(len) {
                store.check_space_for(key, file, preallocation)?;
            }
            preallocation.grow(file, len);
            Ok(())
        })?;
        Ok((filled, hasher.sums()))
    }

    /// Checksum of the bytes so far.
    pub fn checksum(&self) -> Checksum {
        self.hasher.finish()
    }

    /// Marks the key as an output of a map.
    pub fn mark(&mut self, mark: Mark) {
        self.about.mark = Some(mark);
    }

    /// Keeps `metadata` with the key.
    pub fn describe(&mut self, metadata: Metadata) {
        self.about.metadata = metadata;
    }

    /// Records which parts of which upload the key is joined from.
    pub(super) fn note_upload(&mut self, joined_from: String) {
        self.about.joined_from = Some(joined_from);
    }

    /// Makes it a file that another node had, with these attributes.
    pub fn moved(&mut self, attributes: Arc<Attributes>) {
        self.target = Target::Moved(attributes);
    }

    pub fn publish(self) -> Result<()> {
        self.publish_for(&(), Change::default())
    }

    /// Publishes it for `requester`, with the attributes of `change`.
    pub fn publish_for(mut self, requester: &impl Requester, change: Change) -> Result<()> {
        let sums = self.hasher.sums();
        self.publish_hashed(requester, &sums, change)
    }

    /// Publishes it with `sums` of all bytes that were appended.
    pub fn publish_hashed(mut self, requester: &impl Requester, sums: &Sums, change: Change) -> Result<()> {
        self.preallocation.release(&self.file);
        match &self.target {
            Target::Key => self.store.link(requester, &self.file, (sums, &self.about), &self.key, change),
            Target::Part(part) => self.store.keep_part(requester, &self.file, sums, &self.key, part),
            Target::Moved(of) => self.store.publish_moved(requester, &self.file, (of, sums), &self.key, change),
        }
    }
}

impl Store {
    /// Begins a key. A key that exists, or belongs on another node, is refused before any byte is written.
    pub fn draft(&self, key: &Key) -> Result<Draft<'_>> {
        self.check_free(key)?;
        self.draft_of(key, self.unnamed_file(), Target::Key)
    }

    /// Begins a small key of `len` bytes. If it exists already, only its publish fails.
    pub fn draft_small(&self, key: &Key, len: usize) -> Result<Draft<'_>> {
        self.check_place(key)?;
        // Writing sets the mtime of a file created ahead. An empty key is never written to, so it needs a new file.
        self.draft_of(key, if len > 0 { self.unnamed_file_ahead() } else { self.unnamed_file() }, Target::Key)
    }

    /// A draft of a key, or of a part of it, in `file`.
    pub(super) fn draft_of(&self, key: &Key, file: std::io::Result<File>, target: Target) -> Result<Draft<'_>> {
        Ok(Draft {
            store: self,
            key: key.clone(),
            file: file.map_err(|e| Error::io(key, &e))?,
            hasher: Hasher::of_parts(),
            written: 0,
            checks: SpaceChecks::default(),
            preallocation: Preallocation::default(),
            about: About::default(),
            target,
        })
    }

    /// Refuses a key that exists, belongs on another node, or for which there is no space.
    pub fn check_new(&self, key: &Key) -> Result<()> {
        self.check_there()?;
        self.check_space(key)?;
        self.check_unused(key)
    }

    /// Refuses a key that exists or belongs on another node. It does not notice that the data directory is gone; before
    /// the key is made, [`check_new`](Self::check_new) must be called.
    pub fn check_unused(&self, key: &Key) -> Result<()> {
        self.misplaced(key)?;
        match std::fs::symlink_metadata(self.path(key)) {
            Ok(found) => Err(taken(key, found.is_dir())),
            Err(e) if stored::is_absent(&e) => Ok(()),
            Err(e) => Err(self.unreadable(key, &e)),
        }
    }

    /// Like [`check_new`](Self::check_new), but accepts an empty key, which may be replaced. The link decides.
    pub fn check_free(&self, key: &Key) -> Result<()> {
        self.check_new(key).or_else(|error| {
            match error.kind() == ErrorKind::AlreadyExists && is_empty_key(&self.path(key)) {
                true => Ok(()),
                false => Err(error),
            }
        })
    }

    /// Refuses if there is no space even after the preallocated blocks of `file` are freed.
    fn check_space_for(&self, key: &Key, file: &File, preallocation: &mut Preallocation) -> Result<()> {
        self.check_space(key).or_else(|_| {
            preallocation.release(file);
            self.check_space(key)
        })
    }

    /// Refuses a key that belongs on another node, or for which there is no space.
    pub(super) fn check_place(&self, key: &Key) -> Result<()> {
        self.misplaced(key)?;
        self.check_there()?;
        self.check_space(key)
    }

    /// Publishes a file that a command has written, as an output of a map. It must be in this store's file system.
    pub fn publish_output(&self, file: &File, key: &Key, mark: Mark) -> Result<()> {
        self.publish_with(&(), file, key, (None, mark.into()), Change::default()).map(drop)
    }

    /// Publishes a file for `requester`, with its metadata and the attributes of `change`. It must be in this store's file
    /// system. `sums` are those of its bytes, where they are known.
    pub fn publish_file_for(
        &self,
        requester: &impl Requester,
        file: &File,
        key: &Key,
        (sums, metadata): (Option<Sums>, Metadata),
        change: Change,
    ) -> Result<Checksum> {
        self.publish_with(requester, file, key, (sums, About { metadata, ..About::default() }), change)
    }

    fn publish_with(
        &self,
        requester: &impl Requester,
        file: &File,
        key: &Key,
        (sums, about): (Option<Sums>, About),
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
        self.link(requester, file, (&sums, &about), key, change).map(|()| sums.checksum)
    }

    /// Publishes a file that a command left in its directory, as an output of a map. It is linked if `is_itself` (no
    /// symbolic link led to it), if it has no other name, and if this user owns it. Otherwise it may change later, so
    /// its bytes are copied.
    pub fn publish_left(&self, mut file: &File, is_itself: bool, key: &Key, mark: Mark) -> Result<()> {
        self.check_new(key)?;
        let failed = |e: std::io::Error| Error::io(key, &e);
        let found = file.metadata().map_err(failed)?;
        let is_own = is_itself && found.nlink() == 1 && found.uid() == geteuid().as_raw();
        if is_own && found.dev() == self.found.device() {
            let sums = hasher::sums_of_file(file).map_err(failed)?;
            allow_attributes(file, found.mode()).map_err(failed)?;
            return self.link(&(), file, (&sums, &mark.into()), key, Change::default());
        }
        let mut draft = self.draft_of(key, self.unnamed_file(), Target::Key)?;
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
        requester: &impl Requester,
        file: &File,
        record: (&Sums, &About),
        key: &Key,
        change: Change,
    ) -> Result<()> {
        self.complete(file, record, key, change)?;
        requester.check(key)?;
        self.give_name(requester, file, key, change.over_empty)
    }

    /// Gives a file everything that a key has except its name.
    fn complete(&self, file: &File, (sums, about): (&Sums, &About), key: &Key, change: Change) -> Result<()> {
        let failed = |e: std::io::Error| Error::io(key, &e);
        let has_metadata = !about.metadata.is_empty();
        let record = KeyRecord { checksum: sums.checksum, mark: about.mark, has_metadata };
        stored::set_record(file, &record).map_err(failed)?;
        if let Some(joined_from) = &about.joined_from {
            file.set_xattr(UPLOAD_ATTRIBUTE, joined_from.as_bytes()).map_err(failed)?;
        }
        // Before the table, which takes the room that is left.
        if has_metadata {
            self.set_metadata(file, &about.metadata, key)?;
        }
        if let Some(table) = &sums.table {
            stored::set_table(file, table, sums.checksum).map_err(failed)?;
        }
        apply(file, Change { mode: change.mode.or(Some(KEY_MODE)), ..change }).map_err(failed)?;
        match self.fsync {
            true => file.sync_all().map_err(failed),
            false => Ok(()),
        }
    }

    fn set_metadata(&self, file: &File, metadata: &Metadata, key: &Key) -> Result<()> {
        match stored::set_metadata(file, metadata) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::E2BIG | libc::ERANGE)) => {
                self.check_space(key)?;
                let len = metadata.encode().len();
                let message =
                    format!("{key}: the node's file system has no room for {len} bytes of metadata of a file");
                Err(Error::new(ErrorKind::TooLarge, message))
            }
            set => set.map_err(|e| Error::io(key, &e)),
        }
    }

    /// Links a complete file, which is the key from then on. With `over_empty`, it may replace an empty key.
    pub(super) fn give_name(&self, requester: &impl Requester, file: &File, key: &Key, over_empty: bool) -> Result<()> {
        let path = self.path(key);
        self.link_at(requester, file, &path, key, over_empty)?;
        if self.fsync {
            // The directories above may be new too.
            for dir in path.ancestors().skip(1).take_while(|dir| dir.starts_with(&self.root)) {
                File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| Error::io(key, &e))?;
            }
        }
        Ok(())
    }

    fn link_at(&self, requester: &impl Requester, file: &File, path: &Path, key: &Key, over_empty: bool) -> Result<()> {
        self.refuse_dir(key)?;
        match self.link_or_replace(requester, file, path, over_empty) {
            Err(Errno::ENOENT) => {}
            linked => return self.linked(linked, path, key),
        }
        self.check_there()?;
        // If it fails, directories that were made for it are removed.
        self.link_in_new_dir(requester, file, path, key, over_empty).inspect_err(|_| self.prune_unused(path))
    }

    fn link_in_new_dir(
        &self,
        requester: &impl Requester,
        file: &File,
        path: &Path,
        key: &Key,
        over_empty: bool,
    ) -> Result<()> {
        // A delete may remove the parent directory before the link; then both are repeated.
        for _ in 0..100 {
            self.hold_parent_of(key, requester.timeout())?;
            // Creating directories may have blocked; meanwhile the requester may have disconnected.
            requester.check(key)?;
            match self.link_or_replace(requester, file, path, over_empty) {
                Err(Errno::ENOENT) => {}
                linked => return self.linked(linked, path, key),
            }
        }
        Err(Error::new(ErrorKind::Io, format!("{key}: its directory is deleted again and again")))
    }

    fn linked(&self, linked: nix::Result<()>, path: &Path, key: &Key) -> Result<()> {
        match linked {
            Ok(()) => {
                self.synced.note_changed();
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

    /// Errors: ECANCELED if the requester's put was refused, so that it must not make a key any more.
    fn link_or_replace(
        &self,
        requester: &impl Requester,
        file: &File,
        path: &Path,
        over_empty: bool,
    ) -> nix::Result<()> {
        let (dir, name) = self.data.open_parent(path)?;
        let _naming = self.naming.lock(path);
        if requester.put().is_some_and(|put| self.refused.has(put)) {
            return Err(Errno::ECANCELED);
        }
        match link_file(file, dir.as_fd(), name) {
            Err(Errno::EEXIST) if over_empty && is_empty_key(path) => {
                let _leaving = self.leaving(path);
                self.name_over(file, &dir, name)
            }
            done => done,
        }
    }

    /// Gives an unnamed file the name `name` in `dir`, in place of a file that has it, in one step.
    pub(super) fn name_over(&self, file: &File, dir: &OwnedFd, name: &Path) -> nix::Result<()> {
        // In a directory that the next start empties, in case this process is killed now.
        let beside = self.tasks_dir().join(format!("over-{}", file.as_raw_fd()));
        link_file(file, AT_FDCWD, &beside)?;
        renameat(AT_FDCWD, &beside, dir, name).inspect_err(|_| drop(std::fs::remove_file(&beside)))
    }
}

fn link_file(file: &File, dir: BorrowedFd, to: &Path) -> nix::Result<()> {
    linkat(AT_FDCWD, path_of(file).as_str(), dir, to, AtFlags::AT_SYMLINK_FOLLOW)
}

/// True if the file at `path` is a key of no bytes.
fn is_empty_key(path: &Path) -> bool {
    let is_empty = |found: fs::Metadata| found.is_file() && found.len() == 0;
    std::fs::symlink_metadata(path).is_ok_and(is_empty)
        && matches!(stored::recorded_at(path), Ok(Some(record)) if record.len == 0)
}

/// A path of an open file, valid while it is open.
pub(super) fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// The kernel refuses extended attributes on a file without write permission, which a command may have left.
fn allow_attributes(file: &File, mode: u32) -> std::io::Result<()> {
    match mode & 0o200 {
        0 => file.set_permissions(Permissions::from_mode(0o600)),
        _ => Ok(()),
    }
}

pub(super) fn taken(key: &Key, is_dir: bool) -> Error {
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
