//! Objects: what they are, their bytes, and new ones made in one request.

use super::checksum::{Digest, Expected, Sent, crc64nvme, crc64nvme_text, md5, md5_text};
use super::failure::{Failure, Reason};
use super::request::{Ask, S3};
use super::url::S3Url;
use crate::metadata;
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG};
use hyper::{HeaderMap, Method};
use std::collections::BTreeMap;

/// Limit of bytes of the body of an answer that has none to speak of.
pub const MAX_SHORT: usize = 64 << 10;

/// Bytes that one request reads or writes, at least: objects up to this size take one.
pub const PART: u64 = 8 << 20;

/// How often HEAD is sent to an object that it may not see.
const HEADS: u32 = 4;

/// What the server says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// As the server writes it, with its quotes.
    pub etag: String,
    pub len: u64,
    pub content_type: Option<String>,
    /// `x-amz-meta-*`, by the names behind that, and a few other headers: see [`metadata`].
    pub user: BTreeMap<String, String>,
    /// What its bytes must give, if the server knows that.
    pub expected: Option<Expected>,
}

/// What a new object gets besides its bytes.
#[derive(Debug, Clone, Default)]
pub struct NewObject {
    pub content_type: Option<String>,
    pub user: BTreeMap<String, String>,
    /// Takes the place of an object of this name.
    pub overwrite: bool,
}

impl ObjectInfo {
    /// Errors: metadata that is not UTF-8, which no key can have.
    fn of(headers: &HeaderMap, len: u64) -> Result<Self, Failure> {
        let text = |name: &str| headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
        Ok(Self {
            etag: text(ETAG.as_str()).unwrap_or_default().to_owned(),
            len,
            content_type: text(CONTENT_TYPE.as_str()).map(str::to_owned),
            user: metadata::kept(headers).map_err(|e| Failure::new(Reason::Other, e.to_string()))?,
            expected: Expected::of_response(headers),
        })
    }

    /// True if the object is the bytes that were sent, as far as the server's checksums say.
    pub fn is(&self, sent: &Sent) -> bool {
        sent.is(self.len, &self.etag, self.expected.as_ref())
    }

    /// Checks bytes as they come.
    pub fn verifier(&self) -> Verifier {
        let digest = self.expected.as_ref().map(|expected| Digest::new(expected.algorithm));
        Verifier { digest, expected: self.expected.clone(), left: self.len }
    }
}

/// Compares the bytes of an object with what the server says of them.
pub struct Verifier {
    digest: Option<Digest>,
    expected: Option<Expected>,
    left: u64,
}

impl Verifier {
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(other_length)?;
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        Ok(())
    }

    /// True if the bytes were compared with a checksum of the server, and false if it has none.
    pub fn finish(self) -> Result<bool, Failure> {
        if self.left > 0 {
            return Err(other_length());
        }
        let Some((digest, expected)) = self.digest.zip(self.expected) else {
            return Ok(false);
        };
        match expected.is(&digest.finish()) {
            true => Ok(true),
            false => {
                let text = format!("the bytes do not match the {:?} that the server has of them", expected.algorithm);
                Err(Failure::new(Reason::Checksum, text))
            }
        }
    }
}

fn other_length() -> Failure {
    Failure::new(Reason::Broken, "the object has not the length that the server said")
}

impl S3 {
    pub async fn head(&self, url: &S3Url) -> Result<ObjectInfo, Failure> {
        let mut tries = 1;
        loop {
            match self.head_once(url).await {
                // An answer to HEAD does not say why. Credentials that have expired are read again by the way.
                Err(failure) if failure.reason == Reason::Forbidden && tries < HEADS => {
                    self.explain_refusal(url).await?
                }
                ended => return ended,
            }
            tries += 1;
        }
    }

    /// Asks for a byte of an object. Errors: it is refused for good, and why.
    async fn explain_refusal(&self, url: &S3Url) -> Result<(), Failure> {
        let ask = Ask { method: Method::GET, bucket: &url.bucket, key: &url.key, ..Ask::default() };
        match self.ask(&ask.with("range", "bytes=0-0")?, PART as usize).await {
            Err(failure) if matches!(failure.reason, Reason::Forbidden | Reason::NotFound | Reason::Expired) => {
                Err(failure)
            }
            _ => Ok(()),
        }
    }

    async fn head_once(&self, url: &S3Url) -> Result<ObjectInfo, Failure> {
        let ask = Ask { method: Method::HEAD, bucket: &url.bucket, key: &url.key, ..Ask::default() };
        let (headers, _) = self.ask(&ask.with("x-amz-checksum-mode", "ENABLED")?, MAX_SHORT).await?;
        let len = headers.get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
        let len = len.ok_or_else(|| Failure::new(Reason::Other, "the answer to HEAD has no length"))?;
        ObjectInfo::of(&headers, len)
    }

    /// An object of at most [`PART`] bytes, which must have this ETag. The last value says whether its bytes were
    /// compared with a checksum of the server.
    pub async fn get_small(&self, url: &S3Url, etag: &str) -> Result<(ObjectInfo, Bytes, bool), Failure> {
        let ask = Ask { method: Method::GET, bucket: &url.bucket, key: &url.key, ..Ask::default() };
        let ask = ask.with("x-amz-checksum-mode", "ENABLED")?.with("if-match", etag)?;
        let got = self.retrying(|| async {
            let answer = self.send(&ask).await?;
            let headers = answer.headers;
            let bytes = answer.body.read(PART as usize).await?;
            let info = ObjectInfo::of(&headers, bytes.len() as u64)?;
            let mut verifier = info.verifier();
            verifier.update(&bytes)?;
            let verified = verifier.finish()?;
            Ok((info, bytes, verified))
        });
        got.await.map_err(changed)
    }

    /// The bytes of an object in order, in blocks of at most [`PART`] bytes, of which `at_a_time` are in memory. Each is a
    /// range of the object with this ETag. The whole is not verified.
    pub fn get_large(
        &self,
        url: &S3Url,
        info: &ObjectInfo,
        at_a_time: usize,
    ) -> impl Stream<Item = Result<Bytes, Failure>> {
        let (s3, url, etag, len) = (self.clone(), url.clone(), info.etag.clone(), info.len);
        let ranges = (0..len.div_ceil(PART)).map(move |number| {
            let (s3, url, etag) = (s3.clone(), url.clone(), etag.clone());
            let (from, to) = (number * PART, ((number + 1) * PART).min(len));
            // In a task of its own, so that it goes on while the blocks before it are used.
            let read = Aborting(tokio::spawn(async move { s3.get_range(&url, &etag, from, to).await }));
            async move { read.join().await }
        });
        stream::iter(ranges).buffered(at_a_time.max(1))
    }

    async fn get_range(&self, url: &S3Url, etag: &str, from: u64, to: u64) -> Result<Bytes, Failure> {
        let ask = Ask { method: Method::GET, bucket: &url.bucket, key: &url.key, ..Ask::default() };
        let ask = ask.with("range", &format!("bytes={from}-{}", to - 1))?.with("if-match", etag)?;
        let wanted = (to - from) as usize;
        let got = self.retrying(|| async {
            let answer = self.send(&ask).await?;
            let range = answer.headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
            if answer.status != 206 || !range.starts_with(&format!("bytes {from}-{}/", to - 1)) {
                return Err(Failure::new(
                    Reason::Broken,
                    "the answer is another range than the one that was asked for",
                ));
            }
            let bytes = answer.body.read(wanted).await?;
            match bytes.len() == wanted {
                true => Ok(bytes),
                false => Err(other_length()),
            }
        });
        got.await.map_err(changed)
    }

    /// Makes an object in one request. Its checksum is sent along, so that a server publishes nothing else.
    pub async fn put(&self, url: &S3Url, new: &NewObject, bytes: Bytes) -> Result<(), Failure> {
        let crc = crc64nvme_text(crc64nvme(&bytes));
        let md5 = md5_text(md5(&bytes));
        let ask = Ask { method: Method::PUT, bucket: &url.bucket, key: &url.key, body: bytes, ..Ask::default() };
        let ask = described(ask, new)?.with("x-amz-checksum-crc64nvme", &crc)?.with("content-md5", &md5)?;
        self.ask(&conditional(ask, new.overwrite)?, MAX_SHORT).await.map(drop)
    }
}

/// With the content type and metadata of a new object.
pub fn described<'a>(mut ask: Ask<'a>, new: &NewObject) -> Result<Ask<'a>, Failure> {
    if let Some(kind) = &new.content_type {
        ask = ask.with("content-type", kind)?;
    }
    for (name, value) in &new.user {
        let malformed = || Failure::new(Reason::Other, format!("the metadata {name} is no header"));
        let header = metadata::header_name(name).parse().map_err(|_| malformed())?;
        ask.headers.push((header, value.parse().map_err(|_| malformed())?));
    }
    Ok(ask)
}

/// Only to a free name, unless an object may be replaced.
pub fn conditional(ask: Ask<'_>, overwrite: bool) -> Result<Ask<'_>, Failure> {
    if overwrite { Ok(ask) } else { ask.with("if-none-match", "*") }
}

/// The condition of every read is that the object is still the same.
fn changed(failure: Failure) -> Failure {
    match failure.reason {
        Reason::Precondition => Failure::new(Reason::Other, "the object was changed while it was read"),
        _ => failure,
    }
}

/// A task that ends when nobody waits for it any more.
struct Aborting<T>(tokio::task::JoinHandle<T>);

impl<T> Aborting<T> {
    async fn join(mut self) -> T {
        match (&mut self.0).await {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

impl<T> Drop for Aborting<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
