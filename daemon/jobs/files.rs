//! Files sent with jobs (`--file`). They are stored under the digest of their bytes, so that a later job need not send
//! them again.

use super::spawn::wait_for_starts;
use crate::store::Store;
use s4::body::ChunkReader;
use s4::error::{Error, ErrorKind, Result};
use s4::file::open_to_read;
use s4::hasher::Digest;
use s4::protocol::JobFile;
use s4::stored::SpaceChecks;
use std::fs::{File, FileTimes, Metadata, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long a file that no job needs is kept: for the next job of a script, and for a job that is being submitted.
const UNUSED_LIMIT: Duration = Duration::from_secs(3600);

/// The job files of a node.
pub struct JobFiles(PathBuf);

impl JobFiles {
    pub fn open(store: &Store) -> Self {
        Self(store.files_dir())
    }

    /// Removes files that no job has used for [`UNUSED_LIMIT`], except those whose digest is `needed`.
    pub fn remove_unused(&self, needed: impl Fn(&str) -> bool) -> Result<()> {
        let dir = &self.0;
        for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir.display(), &e))?.flatten() {
            let used = entry.metadata().and_then(|found| found.modified());
            let is_old = used.is_ok_and(|used| used.elapsed().is_ok_and(|since| since > UNUSED_LIMIT));
            if is_old && !entry.file_name().to_str().is_some_and(&needed) {
                // A file that cannot be removed only takes space.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn path(&self, digest: &str) -> Result<PathBuf> {
        match digest.len() == 32 && digest.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()) {
            true => Ok(self.0.join(digest)),
            false => Err(Error::new(ErrorKind::BadRequest, "a file's digest is 32 hexadecimal digits")),
        }
    }

    /// Checks that the file is here, and marks it as used now.
    pub fn claim(&self, digest: &str) -> Result<()> {
        let file = open_to_read(&self.path(digest)?).map_err(|_| absent(digest))?;
        let now = FileTimes::new().set_modified(SystemTime::now());
        file.set_times(now).map_err(|e| Error::io(format!("file {digest}"), &e))
    }

    /// Checks that the file is here and undamaged, before a job relies on it. Removes a damaged file.
    pub fn check(&self, digest: &str) -> Result<()> {
        let path = self.path(digest)?;
        let mut file = open_to_read(&path).map_err(|_| absent(digest))?;
        let failed = |e: std::io::Error| Error::io(format!("file {digest}"), &e);
        let mut found = Digest::default();
        let mut block = vec![0; s4::file::BLOCK];
        loop {
            match file.read(&mut block).map_err(failed)? {
                0 => break,
                n => found.update(&block[..n]),
            }
        }
        if found.to_string() != digest {
            std::fs::remove_file(&path).map_err(failed)?;
            return Err(absent(digest));
        }
        Ok(())
    }

    /// Stores `content` as the file of this digest. Refuses content that has another digest.
    pub fn keep(&self, store: &Store, digest: &str, content: &mut ChunkReader) -> Result<()> {
        let path = self.path(digest)?;
        let what = format!("file {digest}");
        let failed = |e: std::io::Error| Error::io(&what, &e);
        store.check_space(&what)?;
        let mut draft = tempfile::NamedTempFile::new_in(store.tasks_dir()).map_err(failed)?;
        let (mut found, mut written, checks) = (Digest::default(), 0, SpaceChecks::default());
        while let Some(chunk) = content.next_chunk()? {
            found.update(&chunk);
            written += chunk.len() as u64;
            if checks.is_due(written) {
                store.check_space(&what)?;
            }
            draft.write_all(&chunk).map_err(failed)?;
        }
        if found.to_string() != digest {
            return Err(Error::new(ErrorKind::Checksum, format!("{what}: checksum error in the transfer")));
        }
        draft.persist(&path).map_err(|e| failed(e.error)).map(drop)
    }

    /// Copies a job's file into a task's directory.
    pub fn install(&self, file: &JobFile, dir: &Path) -> Result<Installed> {
        let failed = |e: std::io::Error| Error::io(format!("--file {}", file.name), &e);
        let to = dir.join(&file.name);
        // A copy, since a command may write to its file. It is cheap where the file system can share blocks.
        let mut from = open_to_read(&self.path(&file.digest)?).map_err(failed)?;
        File::create_new(&to).and_then(|mut copy| std::io::copy(&mut from, &mut copy)).map_err(failed)?;
        if file.executable {
            wait_for_starts();
        }
        let mode = if file.executable { 0o755 } else { 0o644 };
        std::fs::set_permissions(&to, Permissions::from_mode(mode)).map_err(failed)?;
        // A time in the past, so that any later write changes it.
        let before = SystemTime::now() - Duration::from_secs(2);
        File::open(&to).and_then(|copy| copy.set_modified(before)).map_err(failed)?;
        let found = to.symlink_metadata().map_err(failed)?;
        Ok(Installed { name: file.name.clone(), identity: identity(&found) })
    }
}

/// A job's file in a task's directory.
pub struct Installed {
    pub name: String,
    identity: Identity,
}

/// Inode and time of the last write.
type Identity = (u64, i64, i64);

impl Installed {
    /// True if the task has neither written to the file nor replaced it.
    pub fn is_untouched(&self, dir: &Path) -> bool {
        dir.join(&self.name).symlink_metadata().is_ok_and(|found| identity(&found) == self.identity)
    }
}

fn identity(found: &Metadata) -> Identity {
    (found.ino(), found.mtime(), found.mtime_nsec())
}

fn absent(digest: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("file {digest}: not on this node"))
}
