//! Uploads in parts. An upload is a directory `.s4/uploads/ID` with a record and the directory of its parts, each a file
//! with its checksum in its attribute, as a key has. To complete it, the parts are compared with their checksums and
//! copied one after the other into an unnamed file, which is published like any key. The attribute `user.s4.upload` of
//! the key says which parts of which upload it was joined from. So the same completion can be asked again at any time:
//! whether the first one was interrupted before the publish, after it, or only its answer was lost.
//!
//! An upload that nobody touches for a week is removed. A restart, however it came, leaves uploads as they are.

use super::core::Store;
use super::publish::{Draft, Requester, Target, taken};
use super::read::open_itself;
use nix::errno::Errno;
use s4::aligned::Block;
use s4::attribute::{KeyRecord, UPLOAD_ATTRIBUTE};
use s4::checksum::{Checksum, hash};
use s4::error::{Error, ErrorKind, Result};
use s4::file::{BLOCK, read_small, replace};
use s4::hasher::{Hasher, Sums};
use s4::key::{Key, Prefix};
use s4::placement::node_of;
use s4::protocol::{
    Change, CompletedPart, Metadata, PARTS_AT_ONCE, PartInfo, PartNumber, UPLOADS_AT_ONCE, UploadId, UploadInfo,
    UploadPart, UploadedParts, Uploads,
};
use s4::resize::Sizes;
use s4::stored;
use s4::time::now_milliseconds;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The most uploads of a node.
const MAX_UPLOADS: usize = 10_000;
/// An upload that was not touched for so long is removed.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest record, in bytes.
const MAX_RECORD: usize = 16 << 10;

/// The file `record` of an upload.
#[derive(Serialize, Deserialize)]
struct UploadRecord {
    key: Key,
    /// Milliseconds since 1970.
    created: i64,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    metadata: Metadata,
}

impl Store {
    fn uploads_dir(&self) -> PathBuf {
        self.root.join(".s4/uploads")
    }

    fn upload_dir(&self, id: &UploadId) -> PathBuf {
        self.uploads_dir().join(id.as_str())
    }

    fn parts_dir(&self, id: &UploadId) -> PathBuf {
        self.upload_dir(id).join("parts")
    }

    fn part_path(&self, id: &UploadId, number: PartNumber) -> PathBuf {
        self.parts_dir(id).join(number.to_string())
    }

    /// Begins an upload of `key`, which is made with `metadata`. Whether the key exists only matters at the end.
    pub fn create_upload(&self, key: &Key, metadata: Metadata) -> Result<UploadId> {
        self.check_place(key)?;
        let failed = |e: io::Error| Error::io(key, &e);
        if std::fs::read_dir(self.uploads_dir()).map_err(failed)?.count() >= MAX_UPLOADS {
            let message = format!("{key}: the node has {MAX_UPLOADS} uploads that are not ended; abort some");
            return Err(Error::new(ErrorKind::Busy, message));
        }
        let id = UploadId::random();
        let record = UploadRecord { key: key.clone(), created: now_milliseconds(), metadata };
        let json = serde_json::to_vec(&record).expect("a record is plain JSON");
        DirBuilder::new().mode(0o700).recursive(true).create(self.parts_dir(&id)).map_err(failed)?;
        // With the record it is an upload.
        let made = replace(&self.upload_dir(&id).join("record"), &json, self.fsync).map_err(failed);
        made.inspect_err(|_| self.remove_upload(&id)).map(|()| id)
    }

    /// Errors: not found, if there is no such upload of this key.
    fn find_upload(&self, key: &Key, id: &UploadId) -> Result<UploadRecord> {
        self.misplaced(key)?;
        match self.upload_record(id) {
            Ok(Some(record)) if record.key == *key => Ok(record),
            Ok(_) => {
                self.check_there()?;
                Err(no_upload(key, id))
            }
            Err(e) => Err(self.unreadable(key, &e)),
        }
    }

    /// `None` if there is no such upload, or its record is damaged.
    fn upload_record(&self, id: &UploadId) -> io::Result<Option<UploadRecord>> {
        match read_small(&self.upload_dir(id).join("record"), MAX_RECORD) {
            Ok(json) => Ok(serde_json::from_slice(&json).ok()),
            Err(e) if stored::is_absent(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Begins a part of an upload of `key`. It may replace the part of this number.
    pub fn draft_part(&self, key: &Key, part: &UploadPart) -> Result<Draft<'_>> {
        self.check_place(key)?;
        self.find_upload(key, &part.upload)?;
        self.draft_of(key, self.unnamed_file(), Target::Part(part.clone()))
    }

    /// Gives a part that has come its name, in place of the part that had it.
    pub(super) fn keep_part(
        &self,
        requester: &impl Requester,
        file: &File,
        sums: &Sums,
        key: &Key,
        part: &UploadPart,
    ) -> Result<()> {
        let failed = |e: io::Error| Error::io(key, &e);
        stored::set_record(file, &KeyRecord::from(sums.checksum)).map_err(failed)?;
        file.set_permissions(Permissions::from_mode(0o400)).map_err(failed)?;
        if self.fsync {
            file.sync_all().map_err(failed)?;
        }
        requester.check(key)?;
        let path = self.part_path(&part.upload, part.number);
        let named = self.data.open_parent(&path).and_then(|(dir, name)| self.name_over(file, &dir, name));
        match named {
            Ok(()) => Ok(()),
            Err(Errno::ENOENT) => Err(no_upload(key, &part.upload)),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// The parts of an upload that come after the part `after`.
    pub fn list_parts(&self, key: &Key, id: &UploadId, after: u32) -> Result<UploadedParts> {
        self.find_upload(key, id)?;
        let numbers = self.part_numbers(id).map_err(|e| self.unreadable(key, &e))?;
        let mut left = numbers.into_iter().filter(|number| number.get() > after).peekable();
        let mut parts = Vec::new();
        while let Some(number) = left.next_if(|_| parts.len() < PARTS_AT_ONCE) {
            parts.extend(part_info(&self.part_path(id, number), number).map_err(|e| self.unreadable(key, &e))?);
        }
        Ok(UploadedParts { parts, more: left.peek().is_some() })
    }

    fn part_numbers(&self, id: &UploadId) -> io::Result<Vec<PartNumber>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(self.parts_dir(id))? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.parse::<u32>().ok());
            numbers.extend(number.and_then(|number| PartNumber::try_from(number).ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The first uploads of keys that begin with `prefix`, in the order of keys and ids, after the given one.
    pub fn list_uploads(&self, prefix: &Prefix, after: (&str, &str)) -> Result<Uploads> {
        let failed = |e: io::Error| self.unreadable(".s4/uploads", &e);
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(self.uploads_dir()).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().into_string().unwrap_or_default();
            let Ok(id) = UploadId::try_from(name) else { continue };
            let Some(record) = self.upload_record(&id).map_err(failed)? else { continue };
            let path = record.key.as_str();
            if path.starts_with(prefix.as_str()) && (path, id.as_str()) > after {
                let info = UploadInfo { key: record.key.clone(), id: id.clone(), created: record.created };
                found.insert((path.to_owned(), id), info);
                if found.len() > UPLOADS_AT_ONCE + 1 {
                    found.pop_last();
                }
            }
        }
        self.check_there()?;
        let more = found.len() > UPLOADS_AT_ONCE;
        Ok(Uploads { uploads: found.into_values().take(UPLOADS_AT_ONCE).collect(), more })
    }

    /// An upload whose key has another node after a resize.
    pub fn upload_that_moves(&self, sizes: Sizes) -> Result<Option<UploadInfo>> {
        let failed = |e: io::Error| self.unreadable(".s4/uploads", &e);
        for entry in std::fs::read_dir(self.uploads_dir()).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().into_string().unwrap_or_default();
            let Ok(id) = UploadId::try_from(name) else { continue };
            let Some(UploadRecord { key, created, .. }) = self.upload_record(&id).map_err(failed)? else { continue };
            if node_of(&key, sizes.before) == self.node && node_of(&key, sizes.after) != self.node {
                return Ok(Some(UploadInfo { key, id, created }));
            }
        }
        Ok(None)
    }

    /// Joins parts to the key, and removes the upload. A key that was made by the same completion, or that has the same
    /// bytes, is as good.
    ///
    /// Errors: not found, if there is no such upload; bad request, if a part is missing or another one; already exists;
    /// a part's bytes do not match its checksum. After each of them the upload is as before.
    pub fn complete_upload(
        &self,
        requester: &impl Requester,
        key: &Key,
        id: &UploadId,
        parts: &[CompletedPart],
        change: Change,
    ) -> Result<Checksum> {
        let _turn = self.ending.begin(id, || requester.check(key))?;
        let list = serde_json::to_vec(parts).expect("a list is plain JSON");
        let joined_from = format!("{id} {:016x}", hash(&list));
        let record = match self.find_upload(key, id) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return self.joined(key, &joined_from)?.ok_or(error);
            }
            found => found?,
        };
        let len = self.check_parts(key, id, parts)?;
        let checksum = match self.existing(key)? {
            Some(existing) => {
                let is_same = existing.len == len && {
                    let mut hasher = Hasher::new();
                    self.read_parts(requester, key, id, parts, &mut |bytes| {
                        hasher.update(bytes);
                        Ok(())
                    })?;
                    hasher.finish() == existing
                };
                if is_same { existing } else { return Err(taken(key, false)) }
            }
            None => {
                let mut draft = self.draft(key)?;
                draft.describe(record.metadata);
                draft.note_upload(joined_from);
                self.read_parts(requester, key, id, parts, &mut |bytes| draft.write(bytes))?;
                let checksum = draft.checksum();
                match draft.publish_for(requester, change) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                        self.existing(key)?.filter(|existing| *existing == checksum).ok_or(error)?
                    }
                    published => published.map(|()| checksum)?,
                }
            }
        };
        self.remove_upload(id);
        Ok(checksum)
    }

    /// The checksum of the key, if there is one.
    fn existing(&self, key: &Key) -> Result<Option<Checksum>> {
        match self.open_key(key) {
            Ok(opened) => Ok(Some(opened.checksum)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The checksum of the key, if it was joined from these parts.
    fn joined(&self, key: &Key, joined_from: &str) -> Result<Option<Checksum>> {
        use xattr::FileExt;
        let opened = match self.open_key(key) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let found = opened.file.get_xattr(UPLOAD_ATTRIBUTE).map_err(|e| self.unreadable(key, &e))?;
        Ok(found.filter(|found| found == joined_from.as_bytes()).map(|_| opened.checksum))
    }

    /// The length of the whole. Errors: the list is not in order; a part is missing, or has another checksum.
    fn check_parts(&self, key: &Key, id: &UploadId, parts: &[CompletedPart]) -> Result<u64> {
        let refuse = |why: String| Error::new(ErrorKind::BadRequest, format!("{key}: upload {id}: {why}"));
        if parts.is_empty() || !parts.is_sorted_by(|one, next| one.number < next.number) {
            return Err(refuse("the parts to be joined are not given in the order of their numbers".to_owned()));
        }
        let mut len = 0_u64;
        for &CompletedPart { number, xxh3 } in parts {
            let found = part_info(&self.part_path(id, number), number).map_err(|e| self.unreadable(key, &e))?;
            let found = found.ok_or_else(|| refuse(format!("it has no part {number}")))?;
            if found.checksum.xxh3 != xxh3 {
                return Err(refuse(format!("part {number} is another one than that to be joined")));
            }
            len = len.saturating_add(found.checksum.len);
        }
        Ok(len)
    }

    /// Calls `take` with all bytes of the parts. Errors: the bytes of a part do not match its checksum.
    fn read_parts(
        &self,
        requester: &impl Requester,
        key: &Key,
        id: &UploadId,
        parts: &[CompletedPart],
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut block = Block::new(BLOCK);
        for &CompletedPart { number, xxh3 } in parts {
            requester.check(key)?;
            let failed = |e: io::Error| self.unreadable(key, &e);
            let mut file = open_itself(&self.part_path(id, number)).map_err(failed)?;
            let mut hasher = Hasher::new();
            loop {
                match file.read(&mut block).map_err(failed)? {
                    0 => break,
                    n => {
                        hasher.update(&block[..n]);
                        take(&block[..n])?;
                    }
                }
            }
            if hasher.finish().xxh3 != xxh3 {
                let message =
                    format!("{key}: checksum error: part {number} of upload {id} is damaged; put this part again");
                return Err(Error::new(ErrorKind::Checksum, message));
            }
        }
        Ok(())
    }

    /// Removes an upload and its parts.
    pub fn abort_upload(&self, requester: &impl Requester, key: &Key, id: &UploadId) -> Result<()> {
        let _turn = self.ending.begin(id, || requester.check(key))?;
        self.find_upload(key, id)?;
        requester.check(key)?;
        self.remove_upload(id);
        Ok(())
    }

    /// From now on there is no such upload.
    fn remove_upload(&self, id: &UploadId) {
        let dir = self.upload_dir(id);
        // First, so that it is no upload even if the rest stays until it expires.
        let unrecorded = match std::fs::remove_file(dir.join("record")) {
            Err(e) if !stored::is_absent(&e) => Err(e),
            _ => Ok(()),
        };
        if let Err(error) = unrecorded.and_then(|()| self.data.remove_tree(&dir)) {
            tracing::warn!("cannot remove {}: {error}", dir.display());
        }
    }

    /// Removes what a killed daemon has left of uploads that it was making or removing.
    pub(super) fn remove_broken_uploads(&self) {
        let Ok(entries) = std::fs::read_dir(self.uploads_dir()) else { return };
        let names = entries.flatten().map(|entry| entry.file_name().into_string().unwrap_or_default());
        for id in names.flat_map(UploadId::try_from) {
            if self.upload_dir(&id).join("record").symlink_metadata().is_err_and(|e| stored::is_absent(&e)) {
                self.remove_upload(&id);
            }
        }
    }

    /// Removes the uploads that nobody has touched for a week.
    pub fn expire_uploads(&self) {
        let Ok(entries) = std::fs::read_dir(self.uploads_dir()) else { return };
        let limit = SystemTime::now() - KEPT_FOR;
        for entry in entries.flatten() {
            let Ok(id) = UploadId::try_from(entry.file_name().into_string().unwrap_or_default()) else { continue };
            // A part that comes changes the directory of the parts.
            let touched = [self.upload_dir(&id), self.parts_dir(&id)]
                .iter()
                .filter_map(|dir| dir.symlink_metadata().and_then(|found| found.modified()).ok())
                .max();
            let Some(_turn) = self.ending.try_begin(&id) else { continue };
            if touched.is_some_and(|touched| touched < limit) {
                tracing::info!("upload {id} was not touched for a week: it is removed");
                self.remove_upload(&id);
            }
        }
    }
}

/// A part; `None` if there is none, or it has no checksum.
fn part_info(path: &Path, number: PartNumber) -> io::Result<Option<PartInfo>> {
    let file = match open_itself(path) {
        Err(e) if stored::is_absent(&e) => return Ok(None),
        file => file?,
    };
    let mtime = stored::mtime_of(&file.metadata()?);
    Ok(stored::recorded(&file)?.map(|checksum| PartInfo { number, checksum, mtime }))
}

fn no_upload(key: &Key, id: &UploadId) -> Error {
    Error::new(ErrorKind::NotFound, format!("{key}: no upload {id}"))
}
