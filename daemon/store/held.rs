//! Keys that are read piece by piece: kept open, so that a reader goes on after a delete, and verified once.

use super::Store;
use lru::LruCache;
use s4::checksum::{self, Checksum};
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Keys held open at once.
const MOST: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// A key that nobody reads for this long is let go.
const IDLE: Duration = Duration::from_secs(600);

/// A part of a key as it was when it had this checksum.
pub struct Range {
    pub checksum: Checksum,
    pub offset: u64,
    /// A length of 0 only opens the key, and so holds it.
    pub len: usize,
    /// Compare the whole key with its checksum first, once. A reader of all its bytes can do so itself.
    pub verify: bool,
    /// Make sure that the name still is this key: a deleted one is read on, but not opened again.
    pub open: bool,
}

/// A key that is held open, for as long as somebody has it and a while longer.
pub struct HeldFile {
    pub file: File,
    verified: OnceLock<Result<()>>,
}

/// Held files, and when each was last asked for.
type Table = LruCache<(Key, Checksum), (Arc<HeldFile>, Instant)>;

/// Guards the table; the files themselves are shared.
pub struct HeldFiles(Mutex<Table>);

impl Default for HeldFiles {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }
}

impl Store {
    /// Bytes of a range, fewer only at the key's end. Errors: the key is gone, or is another one now.
    pub fn read_range(&self, key: &Key, range: &Range) -> Result<Vec<u8>> {
        let held = self.hold(key, range)?;
        if range.verify && range.len > 0 {
            let verify = || {
                let found = checksum::of_file(&held.file).map_err(|e| self.unreadable(key, &e))?;
                range.checksum.verify(found, key)
            };
            held.verified.get_or_init(verify).clone()?;
        }
        let len = range.checksum.len.saturating_sub(range.offset).min(range.len as u64) as usize;
        let mut bytes = vec![0; len];
        held.file.read_exact_at(&mut bytes, range.offset).map_err(|e| self.unreadable(key, &e))?;
        Ok(bytes)
    }

    /// The file of a key as it was when it had this checksum, open. Errors as of [`Store::read_range`].
    pub fn held_file(&self, key: &Key, checksum: Checksum) -> Result<Arc<HeldFile>> {
        self.hold(key, &Range { checksum, offset: 0, len: 0, verify: false, open: false })
    }

    /// Lets go of keys that nobody reads any more, so that the space of deleted ones is free. Blocks: to free it takes a while.
    pub fn let_go_of_idle(&self) {
        let mut idle = Vec::new();
        let mut table = self.held.lock();
        while table.peek_lru().is_some_and(|(_, (_, used))| used.elapsed() > IDLE)
            && let Some((name, (held, _))) = table.pop_lru()
        {
            // A stream may take longer.
            match Arc::strong_count(&held) {
                1 => idle.push(held),
                _ => drop(table.put(name, (held, Instant::now()))),
            }
        }
        drop(table);
    }

    fn hold(&self, key: &Key, range: &Range) -> Result<Arc<HeldFile>> {
        let name = (key.clone(), range.checksum);
        if !range.open
            && let Some((held, used)) = self.held.lock().get_mut(&name)
        {
            *used = Instant::now();
            return Ok(held.clone());
        }
        let opened = self.open_key(key)?;
        if opened.checksum != range.checksum {
            return Err(Error::new(ErrorKind::NotFound, format!("{key}: is another key now")));
        }
        let held = Arc::new(HeldFile { file: opened.file, verified: OnceLock::new() });
        let mut table = self.held.lock();
        table.put(name, (held.clone(), Instant::now()));
        Ok(held)
    }
}

impl HeldFiles {
    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
