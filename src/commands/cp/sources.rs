//! Lists the keys of sources in the cluster, one after the other.

use super::exclude::Exclude;
use super::report::Report;
use s4::client::{Client, Listing};
use s4::error::{Error, ErrorKind, Result};
use s4::key::{Dir, Key, Prefix};
use s4::protocol::Entry;
use std::collections::VecDeque;
use tokio::task::AbortHandle;

/// A key, or everything below a directory.
#[derive(Clone)]
pub enum What {
    Key(Key),
    Below(Dir),
}

#[derive(Clone)]
pub struct Source {
    pub what: What,
    /// Bytes at the beginning of its keys' paths that are dropped at the destination.
    pub from: usize,
}

impl Source {
    /// One of several sources; it keeps its basename at the destination.
    pub fn named(what: What) -> Self {
        let path = match &what {
            What::Key(key) => key.as_str(),
            What::Below(dir) => dir.as_str(),
        };
        let from = path.rfind('/').map_or(0, |slash| slash + 1);
        Self { what, from }
    }

    /// A directory whose keys are copied directly into the destination.
    pub fn whole(dir: Dir) -> Self {
        Self { from: dir.as_str().len() + 1, what: What::Below(dir) }
    }

    /// The name of the source at the destination.
    pub fn name(&self) -> &str {
        let path = match &self.what {
            What::Key(key) => key.as_str(),
            What::Below(dir) => dir.as_str(),
        };
        path.get(self.from..).unwrap_or("")
    }
}

/// A key to copy.
pub struct Found {
    pub key: Key,
    /// 0 if it is not known.
    pub size: u64,
    from: usize,
}

impl Found {
    /// The path below the destination.
    pub fn below(&self) -> &str {
        &self.key.as_str()[self.from..]
    }
}

/// Iterates over keys, in the order of the sources; within a source, in the order of names.
pub struct Keys {
    client: Client,
    sources: VecDeque<Source>,
    exclude: Exclude,
    open: Option<Open>,
}

/// The listing of a directory in progress.
struct Open {
    listing: Listing,
    dir: Dir,
    from: usize,
    found: bool,
}

impl Keys {
    pub fn new(client: &Client, sources: Vec<Source>, exclude: Exclude) -> Self {
        Self { client: client.clone(), sources: sources.into(), exclude, open: None }
    }

    /// The next key. Errors: a listing failed, or a directory is empty; the next call continues with the next source.
    pub async fn next(&mut self) -> Result<Option<Found>> {
        loop {
            let Some(open) = &mut self.open else {
                let Some(source) = self.sources.pop_front() else {
                    return Ok(None);
                };
                match self.begin(source).await? {
                    Some(found) => return Ok(Some(found)),
                    None => continue,
                }
            };
            let entry = open.listing.next().await;
            if !matches!(entry, Ok(Some(_))) {
                let (found, dir) = (open.found, open.dir.clone());
                self.open = None;
                entry?;
                if !found {
                    return Err(Error::new(ErrorKind::NotFound, format!("{dir}: nothing found")));
                }
                continue;
            }
            let Some(Entry::Key { path, size, .. }) = entry? else {
                continue;
            };
            open.found = true;
            if !self.exclude.leaves_out(&path[open.dir.as_str().len() + 1..]) {
                return Ok(Some(Found { key: Key::parse(&path)?, size, from: open.from }));
            }
        }
    }

    /// Starts the next source: opens the listing of a directory, or returns a key.
    async fn begin(&mut self, source: Source) -> Result<Option<Found>> {
        let from = source.from;
        match source.what {
            What::Key(key) if self.exclude.leaves_out(key.basename()) => Ok(None),
            What::Key(key) => Ok(Some(Found { key, size: 0, from })),
            What::Below(dir) => {
                let listing = self.client.list(&Prefix::below(&dir), true).await?;
                self.open = Some(Open { listing, dir, from, found: false });
                Ok(None)
            }
        }
    }
}

/// Counts keys and bytes in the background, for the progress display. Dropping it stops the count.
pub struct Counting(Option<AbortHandle>);

impl Counting {
    pub fn start(client: &Client, sources: &[Source], exclude: &Exclude, report: &Report) -> Self {
        let only_dirs = sources.iter().all(|source| matches!(source.what, What::Below(_)));
        if !report.is_live() || !only_dirs {
            return Self(None);
        }
        let mut keys = Keys::new(client, sources.to_vec(), exclude.clone());
        let counts = report.counts.clone();
        let counting = tokio::spawn(async move {
            let (mut count, mut bytes) = (0, 0);
            loop {
                match keys.next().await {
                    Ok(Some(found)) => {
                        count += 1;
                        bytes += found.size;
                    }
                    Ok(None) => break,
                    // The total stays unknown. The copy itself will report the error.
                    Err(_) => return,
                }
            }
            let _ = counts.all.set((count, bytes));
        });
        Self(Some(counting.abort_handle()))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}
