//! The output files, one per bucket. Each bucket has a buffer. The size of all buffers and the number of open files are
//! limited. A file is created when its buffer is full for the first time, and never replaces another file.

use super::names::Names;
use crate::error::{Error, Result};
use crate::limits;
use lru::LruCache;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Limit of bytes of all buffers together.
const BUFFERS: usize = 64 << 20;
/// Limit of bytes of one buffer: small enough for a CPU's cache, and large enough for efficient writes.
const BUFFER: usize = 64 * 1024;
/// Initial bytes of a buffer.
const SMALLEST: usize = 4096;
/// Limit of open files, if the system permits that many.
const OPEN: usize = 16_384;
/// Descriptors that are reserved for everything else.
const SPARE: usize = 16;

pub struct Outputs {
    dir: PathBuf,
    names: Names,
    width: usize,
    buckets: Vec<Bucket>,
    /// Initial bytes of a buffer.
    smallest: usize,
    /// Bytes by which buffers may still grow.
    spare: usize,
    header: Vec<u8>,
    open: LruCache<usize, File>,
    is_finished: bool,
}

#[derive(Default)]
struct Bucket {
    buffer: Vec<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Empty,
    /// The buffer has bytes, and the file does not exist yet.
    Buffered,
    HasFile,
}

impl Outputs {
    /// Outputs for `count` buckets, at least 1.
    pub fn new(dir: PathBuf, names: Names, count: usize) -> Self {
        // Powers of two, so that files are written in whole pages. Half of the memory is reserved for buckets that
        // receive more than others.
        let smallest = 1 << (BUFFERS / 2 / count).clamp(1, SMALLEST).ilog2();
        let open = limits::descriptors().saturating_sub(SPARE).clamp(1, OPEN);
        Self {
            dir,
            names,
            width: (count - 1).max(1).ilog10() as usize + 1,
            buckets: std::iter::repeat_with(Bucket::default).take(count).collect(),
            smallest,
            spare: BUFFERS - smallest * count,
            header: Vec::new(),
            open: LruCache::new(NonZeroUsize::new(open).unwrap_or(NonZeroUsize::MIN)),
            is_finished: false,
        }
    }

    /// Sets the beginning of each file.
    pub fn set_header(&mut self, header: &[u8]) {
        self.header = header.to_vec();
    }

    /// Appends `bytes` to a bucket.
    #[inline]
    pub fn write(&mut self, bucket: usize, bytes: &[u8]) -> Result<()> {
        let buffer = &mut self.buckets[bucket].buffer;
        if bytes.len() <= buffer.capacity() - buffer.len() {
            buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.write_slowly(bucket, bytes)
    }

    #[cold]
    fn write_slowly(&mut self, bucket: usize, bytes: &[u8]) -> Result<()> {
        let Bucket { buffer, state } = &mut self.buckets[bucket];
        if *state == State::Empty {
            *state = State::Buffered;
            buffer.reserve_exact(self.smallest);
            let header = std::mem::take(&mut self.header);
            let written = self.append(bucket, &header);
            self.header = header;
            written?;
        }
        self.append(bucket, bytes)
    }

    /// Fills the bucket's buffer, and writes it whenever it is full and may not grow.
    fn append(&mut self, bucket: usize, mut bytes: &[u8]) -> Result<()> {
        loop {
            let buffer = &mut self.buckets[bucket].buffer;
            let (fitting, rest) = bytes.split_at(bytes.len().min(buffer.capacity() - buffer.len()));
            buffer.extend_from_slice(fitting);
            if rest.is_empty() {
                return Ok(());
            }
            if !self.grow(bucket) {
                self.flush(bucket)?;
            }
            bytes = rest;
        }
    }

    /// Doubles a full buffer. False if it has its largest size, or all buffers together do.
    fn grow(&mut self, bucket: usize) -> bool {
        let buffer = &mut self.buckets[bucket].buffer;
        let more = buffer.capacity();
        let grows = more < BUFFER && more <= self.spare;
        if grows {
            buffer.reserve_exact(more);
            self.spare -= more;
        }
        grows
    }

    fn flush(&mut self, bucket: usize) -> Result<()> {
        if !self.open.contains(&bucket) {
            let file = self.open_file(bucket)?;
            self.buckets[bucket].state = State::HasFile;
            self.open.put(bucket, file);
        }
        let buffer = &mut self.buckets[bucket].buffer;
        let written = self.open.get_mut(&bucket).map_or(Ok(()), |file| file.write_all(buffer));
        buffer.clear();
        written.map_err(|e| self.refused(bucket, &e))
    }

    fn open_file(&self, bucket: usize) -> Result<File> {
        let mut options = OpenOptions::new();
        match self.buckets[bucket].state {
            State::HasFile => options.append(true),
            State::Empty | State::Buffered => options.write(true).create_new(true),
        };
        let opened = options.open(self.dir.join(self.name(bucket)));
        opened.map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                self.refused(bucket, &e).with_more("it is left as it was; run this in an empty directory")
            }
            _ => self.refused(bucket, &e),
        })
    }

    fn name(&self, bucket: usize) -> String {
        self.names.of(bucket, self.width)
    }

    fn refused(&self, bucket: usize, error: &std::io::Error) -> Error {
        Error::io(self.name(bucket), error)
    }

    /// Writes the rest of the buffers, and writes the names of the files to `listing`.
    pub fn finish(mut self, listing: &mut impl Write) -> Result<()> {
        let used = |bucket: &usize| self.buckets[*bucket].state != State::Empty;
        let used: Vec<usize> = (0..self.buckets.len()).filter(used).collect();
        for &bucket in &used {
            self.flush(bucket)?;
        }
        let names: String = used.iter().map(|&bucket| self.name(bucket) + "\n").collect();
        let listed = listing.write_all(names.as_bytes()).and_then(|()| listing.flush());
        listed.map_err(|e| Error::io("stdout", &e))?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for Outputs {
    /// After a failure, removes the files: they would be in the way of another run.
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        for bucket in 0..self.buckets.len() {
            if self.buckets[bucket].state == State::HasFile {
                let _ = std::fs::remove_file(self.dir.join(self.name(bucket)));
            }
        }
    }
}
