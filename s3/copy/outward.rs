//! From the cluster to S3.

use super::keys::{Found, find};
use super::report::Copied;
use super::work::Work;
use crate::client::{CompletedPart, NewObject, PART, Reason, S3Url, Sent, Unfinished, door_etag};
use crate::upload::{Outcome, SMALLEST_PART, Source, Target, even_part};
use bytes::Bytes;
use s4::error::{Error, ErrorKind, Result};
use s4::key::{Key, Prefix};
use s4::protocol::Entry;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;

/// Limit of unfinished uploads of earlier runs that are looked at.
const MAX_UNFINISHED: usize = 100_000;

/// The uploads that earlier runs have left, by the object.
#[derive(Default)]
struct Earlier(Mutex<HashMap<String, Vec<String>>>);

/// Copies the keys of this node.
pub async fn copy(work: &Arc<Work>) -> Result<()> {
    let earlier = Arc::new(match work.spec.resume && !work.spec.dry_run {
        true => Earlier::find(work).await?,
        false => Earlier::default(),
    });
    let mut keys = work.client.list_of(work.node, &Prefix::below(&work.dir)).await?;
    let mut running: JoinSet<Result<()>> = JoinSet::new();
    while let Some(entry) = keys.next().await? {
        let Entry::Key { path, size, .. } = entry else { continue };
        let key = Key::parse(&path)?;
        work.report.found(size);
        if work.spec.dry_run {
            work.note(Some(key), size, Ok(Copied::Verified)).await?;
            continue;
        }
        let turn = work.jobs.clone().acquire_owned().await;
        while let Some(ended) = running.try_join_next() {
            ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        }
        let (work, earlier) = (work.clone(), earlier.clone());
        running.spawn(async move {
            work.report.begun();
            let copied = work.copy_out(&key, &earlier).await;
            work.report.ended();
            drop(turn);
            work.note(Some(key), size, copied).await
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    }
    Ok(())
}

impl Earlier {
    async fn find(work: &Work) -> Result<Self> {
        let found = work.s3.unfinished(&work.url, MAX_UNFINISHED).await;
        let mut by_key: HashMap<String, Vec<String>> = HashMap::new();
        for Unfinished { key, id } in found.map_err(|failure| failure.about(&work.url))? {
            by_key.entry(key).or_default().push(id);
        }
        Ok(Self(Mutex::new(by_key)))
    }

    fn take(&self, url: &S3Url) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&url.key).unwrap_or_default()
    }
}

impl Work {
    async fn copy_out(&self, key: &Key, earlier: &Earlier) -> Result<Copied> {
        let below = key.as_str().strip_prefix(Prefix::below(&self.dir).as_str()).unwrap_or(key.as_str());
        let url = self.object(below);
        let absent = || Error::new(ErrorKind::NotFound, format!("{key}: it was deleted meanwhile"));
        let found = find(&self.client, key).await?.ok_or_else(absent)?;
        let _turn = match found.checksum.len > PART {
            true => Some(self.large.acquire().await),
            false => None,
        };
        // One of them goes on, the others are in nobody's way.
        let mut begun = earlier.take(&url);
        let resumed = begun.pop();
        let mut left: Vec<String> = begun;
        if self.spec.resume && self.is_there(key, &found, &url).await? {
            left.extend(resumed);
            self.abort(&url, &left).await?;
            return Ok(Copied::Skipped);
        }
        self.abort(&url, &left).await?;
        self.send(key, &found, &url, resumed).await
    }

    async fn abort(&self, url: &S3Url, ids: &[String]) -> Result<()> {
        for id in ids {
            self.s3.abort_upload(url, id).await.map_err(|failure| failure.about(url))?;
        }
        Ok(())
    }

    async fn send(&self, key: &Key, found: &Found, url: &S3Url, begun: Option<String>) -> Result<Copied> {
        let checksum = found.checksum;
        let new = NewObject {
            content_type: found.content_type.clone(),
            user: found.user.clone(),
            overwrite: self.spec.overwrite,
        };
        let target = Target { s3: &self.s3, url, new: &new, uploads: &self.uploads, begun };
        let mut source = KeySource { work: self, key, found, offset: 0 };
        match target.make(|_| even_part(checksum.len), &mut source).await? {
            Outcome::Made => Ok(Copied::Verified),
            Outcome::Same => Ok(Copied::Skipped),
        }
    }

    /// Up to `len` bytes of a key, verified; none at its end.
    async fn read(&self, key: &Key, found: &Found, offset: u64, len: u64) -> Result<Bytes> {
        let checksum = found.checksum;
        match len.min(checksum.len.saturating_sub(offset)) {
            0 => Ok(Bytes::new()),
            len => self.client.get_range(key, checksum, offset, len as usize).await,
        }
    }

    /// True if the object is there with the bytes of the key. Errors: with others, and it may not be replaced.
    async fn is_there(&self, key: &Key, found: &Found, url: &S3Url) -> Result<bool> {
        let info = match self.s3.head(url).await {
            Ok(info) => info,
            Err(failure) if failure.reason == Reason::NotFound => return Ok(false),
            Err(failure) => return Err(failure.about(url)),
        };
        let len = found.checksum.len;
        // Another cluster's door knows the same checksum as we do: nothing is read then.
        let has_ours = info.etag.trim_matches('"') == door_etag(found.checksum.xxh3);
        if info.len == len && (has_ours || info.is(&self.sum(key, found).await?)) {
            return Ok(true);
        }
        match self.spec.overwrite {
            true => Ok(false),
            false => {
                let message = format!("{url}: exists with other content; --overwrite replaces it");
                Err(Error::new(ErrorKind::AlreadyExists, message))
            }
        }
    }

    /// What a server would know of the key, if it had been sent.
    async fn sum(&self, key: &Key, found: &Found) -> Result<Sent> {
        let (len, size) = (found.checksum.len, even_part(found.checksum.len));
        if len <= SMALLEST_PART {
            return Ok(Sent::whole(&self.read(key, found, 0, len).await?));
        }
        let mut parts = Vec::new();
        for number in 0..len.div_ceil(size) {
            let bytes = self.read(key, found, number * size, size).await?;
            parts.push(CompletedPart::new(number as u32 + 1, &bytes));
        }
        Ok(CompletedPart::sum(&parts))
    }
}

/// The bytes of a key, in order.
struct KeySource<'a> {
    work: &'a Work,
    key: &'a Key,
    found: &'a Found,
    offset: u64,
}

impl Source for KeySource<'_> {
    async fn read(&mut self, len: u64) -> Result<Bytes> {
        let bytes = self.work.read(self.key, self.found, self.offset, len).await?;
        self.offset += bytes.len() as u64;
        Ok(bytes)
    }
}
