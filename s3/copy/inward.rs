//! From S3 into the cluster.

use super::keys::{Block, Blocks, Found, find, make};
use super::names::Name;
use super::report::Copied;
use super::work::Work;
use crate::client::{Failure, Listed, PART, Page, S3Url};
use bytes::Bytes;
use futures::StreamExt;
use s4::checksum::Checksum;
use s4::error::{Error, ErrorKind, Result};
use s4::hasher::Hasher;
use s4::key::Key;
use std::io::Cursor;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

/// Parts of one large object that are on their way at a time.
const PARTS: usize = 4;
/// Parts that have come and are not yet written.
const UNWRITTEN: usize = 2;

/// Lists the source page by page, and copies this node's share while the next page is asked for.
pub async fn copy(work: &Arc<Work>) -> Result<()> {
    let mut running: JoinSet<Result<()>> = JoinSet::new();
    let mut next = Some(page(work, None));
    while let Some(asked) = next.take() {
        let Page { objects, next: token } = asked.await.map_err(|e| Error::new(ErrorKind::Io, e.to_string()))??;
        next = token.map(|token| page(work, Some(token)));
        for object in objects {
            take(work, object, &mut running).await?;
        }
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    }
    Ok(())
}

fn page(work: &Arc<Work>, token: Option<String>) -> JoinHandle<Result<Page>> {
    let work = work.clone();
    tokio::spawn(
        async move { work.s3.list(&work.url, token.as_deref()).await.map_err(|failure| failure.about(&work.url)) },
    )
}

/// Begins to copy an object, if it is of this node, as soon as it is its turn.
async fn take(work: &Arc<Work>, object: Listed, running: &mut JoinSet<Result<()>>) -> Result<()> {
    let key = match work.name(&object.key, object.len) {
        Name::Own(key) => key,
        Name::Other => return Ok(()),
        Name::Bad(_) if work.spec.skip_bad_names => return Ok(()),
        Name::Bad(rule) => {
            work.report.found(object.len);
            let url = S3Url { bucket: work.url.bucket.clone(), key: object.key };
            let error = Error::new(ErrorKind::BadName, format!("{url}: no key can have its name: {rule}"));
            return work.note(None, object.len, Err(error)).await;
        }
    };
    work.report.found(object.len);
    if work.spec.dry_run {
        return work.note(Some(key), object.len, Ok(Copied::Verified)).await;
    }
    let turn = work.jobs.clone().acquire_owned().await;
    while let Some(ended) = running.try_join_next() {
        ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    }
    let work = work.clone();
    running.spawn(async move {
        work.report.begun();
        let copied = work.copy_in(&key, &object).await;
        work.report.ended();
        drop(turn);
        work.note(Some(key), object.len, copied).await
    });
    Ok(())
}

impl Work {
    async fn copy_in(&self, key: &Key, object: &Listed) -> Result<Copied> {
        if let Some(found) = find(&self.client, key).await? {
            return self.compare(key, &found, object).await;
        }
        let made = match object.len <= PART {
            true => self.copy_small(key, object).await,
            false => self.copy_large(key, object).await,
        };
        match made {
            // Another has made it meanwhile.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => match find(&self.client, key).await? {
                Some(found) => self.compare(key, &found, object).await,
                None => Err(error),
            },
            made => made,
        }
    }

    /// A key that is there is not made again. Without the record of an earlier copy from the same object, the bytes decide.
    async fn compare(&self, key: &Key, found: &Found, object: &Listed) -> Result<Copied> {
        let is_same = found.source.as_ref().is_some_and(|(etag, len)| *etag == object.etag && *len == object.len);
        if self.spec.resume && is_same {
            return Ok(Copied::Skipped);
        }
        let checksum = found.checksum;
        match checksum.len == object.len && self.checksum_of(object).await? == checksum {
            true => Ok(Copied::Skipped),
            false => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("{key}: exists with other content; a key is written once"),
            )),
        }
    }

    /// The checksum that the object would have as a key.
    async fn checksum_of(&self, object: &Listed) -> Result<Checksum> {
        let url = self.of(object);
        let failed = |failure: Failure| failure.about(&url);
        let mut hasher = Hasher::new();
        if object.len <= PART {
            hasher.update(&self.s3.get_small(&url, &object.etag).await.map_err(failed)?.1);
            return Ok(hasher.finish());
        }
        let _turn = self.large.acquire().await;
        let info = self.s3.head(&url).await.map_err(failed)?;
        let mut blocks = pin!(self.s3.get_large(&url, &info, PARTS));
        while let Some(block) = blocks.next().await {
            hasher.update(&block.map_err(failed)?);
        }
        Ok(hasher.finish())
    }

    async fn copy_small(&self, key: &Key, object: &Listed) -> Result<Copied> {
        let url = self.of(object);
        let got = self.s3.get_small(&url, &object.etag).await;
        let (info, bytes, verified) = got.map_err(|failure| failure.about(&url))?;
        make(&self.client, key, &info, Cursor::new(bytes), &url.to_string()).await?;
        Ok(if verified { Copied::Verified } else { Copied::Unverified })
    }

    /// The parts are read in parallel and written in order. The key is published when the whole was verified.
    async fn copy_large(&self, key: &Key, object: &Listed) -> Result<Copied> {
        let _turn = self.large.acquire().await;
        let url = self.of(object);
        let failed = |failure: Failure| failure.about(&url);
        let info = self.s3.head(&url).await.map_err(failed)?;
        let (sender, receiver) = mpsc::channel(UNWRITTEN);
        let read = async {
            // Moved here, so that the reader sees its end with this task's.
            let sender = sender;
            let mut verifier = info.verifier();
            let mut blocks = pin!(self.s3.get_large(&url, &info, PARTS));
            while let Some(block) = blocks.next().await {
                let block: Bytes = block.map_err(failed)?;
                verifier.update(&block).map_err(failed)?;
                if sender.send(Block::Bytes(block)).await.is_err() {
                    // The put has failed, and says why.
                    return Ok(false);
                }
            }
            let verified = verifier.finish().map_err(failed)?;
            let _ = sender.send(Block::End).await;
            Ok(verified)
        };
        let name = url.to_string();
        let put = make(&self.client, key, &info, Blocks::new(receiver), &name);
        let (read, put) = tokio::join!(read, put);
        let verified = read?;
        put?;
        Ok(if verified { Copied::Verified } else { Copied::Unverified })
    }

    fn of(&self, object: &Listed) -> S3Url {
        S3Url { bucket: self.url.bucket.clone(), key: object.key.clone() }
    }
}
