//! Makes an object of S3 from bytes that come in order: in one request if they are few, else in parts, of which a few are on their
//! way at a time. The object appears whole, or not at all: what was begun and failed is aborted, also when the work on it is
//! dropped, by [`Uploads::abort_all`].

use crate::client::{CompletedPart, Failure, MAX_PARTS, NewObject, Part, Reason, S3, S3Url, Sent};
use bytes::Bytes;
use s4::error::{Error, Result};
use s4::hasher::Hasher;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;

/// Bytes of a part, at least. Fewer are sent in one request.
pub const SMALLEST_PART: u64 = 16 << 20;
/// Parts of one object on their way at a time.
const PARTS: usize = 4;

/// How an object came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Made,
    /// It was there before, with these bytes.
    Same,
}

/// The uploads that were begun and have not ended. Clones share the table.
#[derive(Clone, Default)]
pub struct Uploads(Arc<Mutex<HashMap<String, S3Url>>>);

impl Uploads {
    /// Aborts everything that is under way. Nothing may be working on it any more.
    pub async fn abort_all(&self, s3: &S3) -> Vec<Error> {
        let left: Vec<(String, S3Url)> = self.lock().drain().collect();
        let mut aborts: JoinSet<_> = left
            .into_iter()
            .map(|(id, url)| {
                let s3 = s3.clone();
                async move { s3.abort_upload(&url, &id).await.map_err(|failure| left_behind(&url, &failure)) }
            })
            .collect();
        let mut errors = Vec::new();
        while let Some(aborted) = aborts.join_next().await {
            errors.extend(aborted.ok().and_then(Result::err));
        }
        errors
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, S3Url>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn left_behind(url: &S3Url, failure: &Failure) -> Error {
    failure.about(format_args!("{url}: an upload in parts is left behind, which could not be aborted"))
}

/// Bytes in order.
pub trait Source {
    /// The next `len` bytes; fewer at the end, and none behind it.
    fn read(&mut self, len: u64) -> impl Future<Output = Result<Bytes>> + Send;
}

/// An object to be made.
pub struct Target<'a> {
    pub s3: &'a S3,
    pub url: &'a S3Url,
    pub new: &'a NewObject,
    pub uploads: &'a Uploads,
    /// An upload of the same object that an earlier run has begun.
    pub begun: Option<String>,
}

/// The size of the part with this number, of bytes whose number is not known before their end: enough for the largest
/// object, and small for small ones.
pub fn growing_part(number: u32) -> u64 {
    SMALLEST_PART << (u64::from(number) / (MAX_PARTS / 10)).min(9)
}

/// The size of all parts of an object of `len` bytes.
pub fn even_part(len: u64) -> u64 {
    SMALLEST_PART.max(len.div_ceil(MAX_PARTS))
}

impl Target<'_> {
    /// Makes the object of the bytes of `source`. `part_size` says how many bytes the part with a number has.
    pub async fn make(&self, part_size: impl Fn(u32) -> u64, source: &mut impl Source) -> Result<Outcome> {
        let first = source.read(part_size(1)).await?;
        let second = match (first.len() as u64) < part_size(1) {
            true => Bytes::new(),
            false => source.read(part_size(2)).await?,
        };
        if second.is_empty() {
            return self.make_whole(first).await;
        }
        let (id, there) = self.begin().await.map_err(|failure| failure.about(self.url))?;
        self.uploads.lock().insert(id.clone(), self.url.clone());
        let mut parts = Parts {
            target: self,
            id: &id,
            there,
            next: 1,
            sending: JoinSet::new(),
            sent: Vec::new(),
            hasher: Hasher::new(),
        };
        let sent = async {
            parts.add(first).await?;
            let mut bytes = second;
            while !bytes.is_empty() {
                parts.add(bytes).await?;
                bytes = source.read(part_size(parts.next)).await?;
            }
            parts.complete().await
        };
        let ended = sent.await;
        match &ended {
            Ok(Outcome::Made) => {}
            Ok(Outcome::Same) | Err(_) => {
                if let Err(failure) = self.s3.abort_upload(self.url, &id).await {
                    let error = left_behind(self.url, &failure);
                    self.uploads.lock().remove(&id);
                    return ended.and(Err(error));
                }
            }
        }
        self.uploads.lock().remove(&id);
        ended
    }

    async fn make_whole(&self, bytes: Bytes) -> Result<Outcome> {
        let sent = Sent::whole(&bytes);
        match self.s3.put(self.url, self.new, bytes).await {
            Ok(()) => Ok(Outcome::Made),
            Err(failure) => self.explain(failure, &sent).await,
        }
    }

    /// The upload to go on with, and the parts that it has.
    async fn begin(&self) -> std::result::Result<(String, HashMap<u32, Part>), Failure> {
        if let Some(id) = &self.begun {
            match self.s3.parts(self.url, id).await {
                Ok(parts) => return Ok((id.clone(), parts.into_iter().map(|part| (part.number, part)).collect())),
                // It was aborted meanwhile.
                Err(failure) if failure.reason == Reason::NotFound => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok((self.s3.create_upload(self.url, self.new).await?, HashMap::new()))
    }

    /// A refusal may mean that an earlier attempt succeeded and its answer was lost, or that the object was there before.
    async fn explain(&self, failure: Failure, sent: &Sent) -> Result<Outcome> {
        if !matches!(failure.reason, Reason::Precondition | Reason::NotFound) {
            return Err(failure.about(self.url));
        }
        match self.s3.head(self.url).await {
            Ok(info) if info.is(sent) => Ok(Outcome::Same),
            Ok(_) => Err(failure.about(format_args!("{}: exists with other content", self.url))),
            Err(_) => Err(failure.about(self.url)),
        }
    }
}

/// The parts of an upload.
struct Parts<'a> {
    target: &'a Target<'a>,
    id: &'a str,
    /// What an earlier run has sent.
    there: HashMap<u32, Part>,
    next: u32,
    sending: JoinSet<std::result::Result<CompletedPart, Failure>>,
    sent: Vec<CompletedPart>,
    /// Of all bytes.
    hasher: Hasher,
}

impl Parts<'_> {
    async fn add(&mut self, bytes: Bytes) -> Result<()> {
        let number = self.next;
        self.next += 1;
        self.hasher.update(&bytes);
        if u64::from(number) > MAX_PARTS {
            return Err(Error::usage(format!("{}: has more than {MAX_PARTS} parts", self.target.url)));
        }
        if let Some(there) = self.there.remove(&number) {
            let part = CompletedPart::new(number, &bytes);
            if part.part == there {
                self.sent.push(part);
                return Ok(());
            }
        }
        while self.sending.len() >= PARTS {
            self.take_one().await?;
        }
        let (s3, url, id) = (self.target.s3.clone(), self.target.url.clone(), self.id.to_owned());
        self.sending.spawn(async move { s3.put_part(&url, &id, number, bytes).await });
        Ok(())
    }

    async fn take_one(&mut self) -> Result<()> {
        match self.sending.join_next().await {
            Some(Ok(sent)) => self.sent.push(sent.map_err(|failure| failure.about(self.target.url))?),
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => {}
        }
        Ok(())
    }

    async fn complete(&mut self) -> Result<Outcome> {
        while !self.sending.is_empty() {
            self.take_one().await?;
        }
        self.sent.sort_unstable_by_key(|sent| sent.part.number);
        let Target { s3, url, new, .. } = self.target;
        match s3.complete_upload(url, self.id, &self.sent, new.overwrite).await {
            Ok(()) => Ok(Outcome::Made),
            Err(failure) => {
                let sent = Sent { xxh3: Some(self.hasher.finish().xxh3), ..CompletedPart::sum(&self.sent) };
                self.target.explain(failure, &sent).await
            }
        }
    }
}
